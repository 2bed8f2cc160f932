/* SPDX-License-Identifier: MIT */
/*
 * Gradient accumulation: one optimizer step over 1, 2 or 4 micro-batches of the same 12 rows gives the
 * same weights up to rounding, also when the parts differ in size; and by hand, TN_ACCUMULATE adds over
 * tapes that were reset.
 */
#include "probe.h"
#include "tern.h"

enum { ROWS = 12, IN = 6, CLASSES = 3 };
typedef struct {
    tn_linear fc1, fc2;
    tn_real x[ROWS * IN];
    int label[ROWS], first[5]; /* micro-batch i holds rows first[i] ... first[i + 1] - 1 */
} problem;

static tn_t *loss(void *arg, tn_tape *tape, int micro, double *weight) {
    const problem *p = arg;
    int lo = p->first[micro], n = p->first[micro + 1] - lo;
    *weight = n; /* the mean below is over n rows */
    tn_t *x = tn_input(tape, p->x + (size_t)lo * IN, 2, (int[]){n, IN});
    tn_t *h = tn_linear_fwd(&p->fc1, x, TN_ACT_RELU);
    return tn_cross_entropy(tn_linear_fwd(&p->fc2, h, TN_ACT_NONE), p->label + lo, NULL);
}

/* The weights after five steps of momentum SGD into out; k micro-batches that end at the given rows. */
static size_t train(problem *p, int k, const int *ends, double *mean_loss, tn_real *out, size_t cap) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    tn_params *params = tn_params_new();
    p->fc1 = tn_linear_new(params, "fc1", IN, 8, 1);
    p->fc2 = tn_linear_new(params, "fc2", 8, CLASSES, 1);
    EXPECT(tape && tn_params_seal(params, 5, &e) == 0, "%s", e.msg);
    tn_optim *optim = tn_optim_new(params, "sgd:lr=0.5,momentum=0.9", &e);
    EXPECT(optim, "%s", e.msg);
    tn_stepper *stepper = tn_stepper_new(params, optim, &(tn_step_options){.accumulate = k}, &e);
    EXPECT(stepper, "%s", e.msg);
    for (int i = 0; i < k; i++) p->first[i + 1] = ends[i];
    tn_step_result r;
    for (long t = 1; t <= 5; t++) {
        tn_tick tick = tn_tick_at(t, 5, NULL, NULL);
        EXPECT(tn_stepper_run(stepper, tape, loss, p, &tick, &r) == 0, "%s", r.nonfinite);
        EXPECT(r.weight == ROWS, "the step saw %g rows", r.weight);
    }
    *mean_loss = r.loss;

    /* By hand: the weighted sum of the parts is the gradient of the whole. */
    size_t len;
    for (int i = 0; i < k; i++) {
        double n;
        tn_tape_reset(tape);
        tn_t *part = loss(p, tape, i, &n);
        tn_backward(tn_scale(part, n / ROWS), params, i ? TN_ACCUMULATE : 0);
    }
    const tn_real *w = tn_params_flat(params, &len), *g = tn_params_flat_grad(params, &len);
    EXPECT(2 * len <= cap, "%zu reals", len);
    memcpy(out, w, len * sizeof *w);
    memcpy(out + len, g, len * sizeof *g);
    tn_stepper_free(stepper);
    tn_optim_free(optim);
    tn_params_free(params);
    tn_tape_free(tape);
    return 2 * len;
}

int main(void) {
    static problem p;
    for (int i = 0; i < ROWS * IN; i++) p.x[i] = (tn_real)cos(2.1 * i);
    for (int i = 0; i < ROWS; i++) p.label[i] = i * i % CLASSES;
    static tn_real want[1024], got[1024];
    static const struct {
        int k, ends[4];
    } cut[] = {{2, {6, 12}}, {4, {3, 6, 9, 12}}, {2, {8, 12}}, {4, {1, 3, 8, 12}}};
    double whole, parts;
    size_t n = train(&p, 1, (int[]){ROWS}, &whole, want, 1024);
    for (int c = 0; c < 4; c++) {
        EXPECT(train(&p, cut[c].k, cut[c].ends, &parts, got, 1024) == n, "not the same parameters");
        EXPECT(probe_close(whole, parts, 1e-5), "loss %.9g in %d parts, %.9g whole", parts, cut[c].k, whole);
        for (size_t i = 0; i < n; i++)
            EXPECT(probe_close(got[i], want[i], 1e-5), "%d parts, number %zu: %.9g, whole %.9g", cut[c].k, i,
                   got[i], want[i]);
    }
    return 0;
}

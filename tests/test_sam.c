/* SPDX-License-Identifier: MIT */
/* Sharpness-aware minimisation: a path recorded with PyTorch, a naive reference in double, and what has to stay as it was. */
#include "support.h"
#include <math.h>
#include <stdio.h>

enum { ROWS = 24, IN = 5, HIDDEN = 6, OUT = 3, PARTS = 3 };
typedef struct {
    tn_tape *tape;
    tn_params *params;
    tn_optim *optim;
    tn_linear fc1, fc2;
    tn_batch_norm_layer norm;
    tn_real x[ROWS * IN];
    int label[ROWS], parts, calls, batch_norm;
    double dropout;
    int bad_call;                           /* the loss of this call, from 1, is not finite */
    tn_real seen[2 * PARTS][ROWS * HIDDEN]; /* of each call, the hidden units that dropout let through */
    tn_real weights[2][256];                /* those of the first micro-batch of each pass */
} problem;

static const double close = sizeof(tn_real) == 8 ? 1e-12 : 2e-5;

static void problem_new(problem *p, const char *optim, int batch_norm) {
    tn_err e;
    double u[ROWS * IN];
    *p =
        (problem){.tape = tn_tape_new(NULL), .params = tn_params_new(), .parts = 1, .batch_norm = batch_norm};
    p->fc1 = tn_linear_new(p->params, "fc1", IN, HIDDEN, 1);
    p->fc2 = tn_linear_new(p->params, "fc2", HIDDEN, OUT, 1);
    if (batch_norm) p->norm = tn_batch_norm_new(p->params, "norm", HIDDEN);
    assert_int_equal(tn_params_seal(p->params, 2, NULL), 0);
    if (!(p->optim = tn_optim_new(p->params, optim, &e))) fail_msg("%s", e.msg);
    golden_uniform(3, 1, ROWS * IN, u);
    for (int i = 0; i < ROWS * IN; i++) p->x[i] = (tn_real)u[i];
    for (int i = 0; i < ROWS; i++) p->label[i] = i * 5 % 7 % OUT;
}

static void problem_free(problem *p) {
    tn_optim_free(p->optim);
    tn_params_free(p->params);
    tn_tape_free(p->tape);
}

static tn_t *loss(void *arg, tn_tape *t, int micro, double *weight) {
    problem *p = arg;
    const int lo = ROWS * micro / p->parts, n = ROWS * (micro + 1) / p->parts - lo, call = p->calls++;
    size_t len;
    const tn_real *w = tn_params_flat(p->params, &len);
    assert_true(len <= 256 && call < 2 * p->parts);
    if (micro == 0) memcpy(p->weights[call > 0], w, len * sizeof *w);
    *weight = n;
    tn_t *h = tn_linear_fwd(&p->fc1, tn_input(t, p->x + (size_t)lo * IN, 2, (int[]){n, IN}), TN_ACT_TANH);
    if (p->batch_norm) h = tn_batch_norm_fwd(&p->norm, h, TN_ACT_NONE);
    if (p->dropout > 0) h = tn_dropout(h, p->dropout, "drop");
    for (size_t i = 0; i < (size_t)n * HIDDEN; i++) p->seen[call][i] = h->x[i] != 0;
    tn_t *y = tn_cross_entropy(tn_linear_fwd(&p->fc2, h, TN_ACT_NONE), p->label + lo, NULL);
    return p->bad_call == call + 1 ? tn_mul(y, tn_log(tn_const(t, -1))) : y;
}

static int run(problem *p, tn_sam *s, long t, tn_step_result *r) {
    tn_tick tick = tn_tick_at(t, 100, NULL, NULL);
    tick.seed = 77;
    p->calls = 0;
    return tn_sam_run(s, p->tape, loss, p, &tick, r);
}

static tn_sam *sam(problem *p, const char *options) {
    tn_err e;
    tn_sam *s = tn_sam_new(p->params, p->optim, options, &(tn_step_options){.accumulate = p->parts}, &e);
    if (!s) fail_msg("%s", e.msg);
    return s;
}

/* ---- against PyTorch ---- */

static void golden_path(void **state) {
    (void)state;
    json_t *root = golden_load("sam/sam.json"), *c, *param, *want;
    size_t i, k;
    const char *name;
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        for (int parts = 1; parts <= PARTS; parts += 2) {
            problem p;
            tn_step_result r;
            problem_new(&p, json_string_value(json_object_get(c, "optimizer")), 0);
            p.parts = parts;
            json_array_foreach(json_object_get(root, "params"), k, param) {
                double u[64];
                tn_param *w = tn_params_find(p.params, json_string_value(json_object_get(param, "name")));
                golden_uniform((uint64_t)json_integer_value(json_object_get(param, "seed")),
                               json_number_value(json_object_get(param, "scale")), w->len, u);
                for (size_t j = 0; j < w->len; j++) w->w[j] = (tn_real)u[j];
            }
            tn_params_touch(p.params);
            tn_sam *s = sam(&p, json_string_value(json_object_get(c, "sam")));
            for (int t = 1; t <= json_integer_value(json_object_get(root, "steps")); t++) {
                char at[16];
                snprintf(at, sizeof at, "%d", t);
                assert_int_equal(run(&p, s, t, &r), 0);
                const size_t row = (size_t)t - 1;
                assert_near(r.loss, json_number_value(json_array_get(json_object_get(c, "loss"), row)),
                            close);
                assert_near(r.ascent_loss,
                            json_number_value(json_array_get(json_object_get(c, "ascent_loss"), row)), close);
                json_object_foreach(json_object_get(json_object_get(c, "weights"), at), name, want) {
                    const double d = golden_distance(tn_params_find(p.params, name)->w, want);
                    if (!(d <= 5 * close)) fail_msg("case %zu, step %d: %s is off by %g", i, t, name, d);
                }
            }
            tn_sam_free(s), problem_free(&p);
        }
    }
    assert_int_equal(i, 4);
    json_decref(root);
}

/* ---- a reference in double: y = x w + b under the mean square, its gradient by hand ---- */

typedef struct {
    tn_linear fc;
    tn_real x[ROWS * IN], y[ROWS];
} line;

static tn_t *line_loss(void *arg, tn_tape *t, int micro, double *weight) {
    line *l = arg;
    (void)micro;
    *weight = ROWS;
    tn_t *got = tn_linear_fwd(&l->fc, tn_input(t, l->x, 2, (int[]){ROWS, IN}), TN_ACT_NONE);
    return tn_mse(got, tn_input(t, l->y, 2, (int[]){ROWS, 1}), TN_MEAN);
}

static void line_gradient(const line *l, const double *w, double *g) {
    for (int j = 0; j <= IN; j++) g[j] = 0;
    for (int i = 0; i < ROWS; i++) {
        double d = w[IN] - (double)l->y[i];
        for (int j = 0; j < IN; j++) d += w[j] * (double)l->x[i * IN + j];
        for (int j = 0; j < IN; j++) g[j] += 2.0 / ROWS * d * (double)l->x[i * IN + j];
        g[IN] += 2.0 / ROWS * d;
    }
}

/* frozen: the bias is neither moved nor counted in the norm. */
static void against_reference(const char *options, double rho, int adaptive, double eta, int frozen) {
    line l;
    double u[ROWS * IN], w[IN + 1], g[IN + 1], there[IN + 1];
    tn_params *params = tn_params_new();
    tn_tape *tape = tn_tape_new(NULL);
    tn_step_result r;
    l.fc = tn_linear_new(params, "fc", IN, 1, 1);
    if (frozen) l.fc.bias->flags |= TN_FROZEN;
    assert_int_equal(tn_params_seal(params, 2, NULL), 0);
    golden_uniform(9, 1, ROWS * IN, u);
    for (int i = 0; i < ROWS * IN; i++) l.x[i] = (tn_real)u[i];
    for (int i = 0; i < ROWS; i++) l.y[i] = (tn_real)(2 * u[i] - 0.3);
    l.fc.bias->w[0] = (tn_real)0.7;
    for (int j = 0; j < IN; j++) w[j] = (double)l.fc.weight->w[j];
    w[IN] = (double)l.fc.bias->w[0];
    tn_optim *optim = tn_optim_new(params, "sgd:lr=0.1", NULL);
    tn_sam *s = tn_sam_new(params, optim, options, NULL, NULL);
    const int n = frozen ? IN : IN + 1;
    for (int t = 1; t <= 15; t++) {
        double norm = 0;
        const tn_tick tick = tn_tick_at(t, 15, NULL, NULL);
        line_gradient(&l, w, g);
        for (int j = 0; j <= IN; j++) there[j] = w[j];
        for (int j = 0; j < n; j++) norm += g[j] * g[j] * (adaptive ? pow(fabs(w[j]) + eta, 2) : 1);
        for (int j = 0; j < n; j++)
            there[j] += rho * g[j] * (adaptive ? pow(fabs(w[j]) + eta, 2) : 1) / sqrt(norm);
        line_gradient(&l, there, g);
        for (int j = 0; j < n; j++) w[j] -= 0.1 * g[j];
        assert_int_equal(tn_sam_run(s, tape, line_loss, &l, &tick, &r), 0);
        for (int j = 0; j < IN; j++) {
            const double d = fabs((double)l.fc.weight->w[j] - w[j]);
            if (!(d < 10 * close)) fail_msg("%s, step %d: weight %d is off by %g", options, t, j, d);
        }
        assert_true(fabs((double)l.fc.bias->w[0] - w[IN]) < 10 * close);
        assert_true(r.ascent_loss > r.loss);
    }
    tn_sam_free(s), tn_optim_free(optim), tn_tape_free(tape), tn_params_free(params);
}

static void reference(void **state) {
    (void)state;
    against_reference(NULL, 0.05, 0, 0, 0);
    against_reference("rho=0.3", 0.3, 0, 0, 0);
    against_reference("rho=0.3,adaptive=on", 0.3, 1, 0.01, 0);
    against_reference("rho=0.3,adaptive=on,eta=0.5", 0.3, 1, 0.5, 0);
    against_reference("rho=0.3", 0.3, 0, 0, 1);
    against_reference("rho=0.3,adaptive=on", 0.3, 1, 0.01, 1);
}

/* ---- what stays ---- */

/* Both passes see the same masks and other weights; without a rate the weights are the old ones, bit for bit. */
static void same_masks_and_weights(void **state) {
    (void)state;
    problem p;
    tn_step_result r;
    tn_real before[256];
    size_t len;
    problem_new(&p, "sgd:lr=0", 0);
    p.parts = PARTS, p.dropout = 0.5;
    tn_sam *s = sam(&p, "rho=0.7");
    const tn_real *w = tn_params_flat(p.params, &len);
    memcpy(before, w, len * sizeof *w);
    for (int t = 1; t <= 5; t++) {
        double square = 0;
        int dropped = 0;
        assert_int_equal(run(&p, s, t, &r), 0);
        assert_int_equal(p.calls, 2 * PARTS);
        for (int m = 0; m < PARTS; m++) {
            assert_true(same_bits(p.seen[m], p.seen[PARTS + m], ROWS / PARTS * HIDDEN));
            for (int i = 0; i < ROWS / PARTS * HIDDEN; i++) dropped += p.seen[m][i] == 0;
        }
        assert_true(dropped > 20 && dropped < ROWS * HIDDEN - 20);
        assert_true(same_bits(w, before, len) && same_bits(p.weights[0], before, len));
        for (size_t i = 0; i < len; i++) square += pow((double)(p.weights[1][i] - before[i]), 2);
        assert_near(sqrt(square), 0.7, 1e-5); /* |e| is rho */
        assert_true(r.weight == ROWS && r.ascent_loss > r.loss);
    }
    tn_sam_free(s), problem_free(&p);
}

/* Running averages see a batch once and at w: those of a plain step. */
static void running_averages(void **state) {
    (void)state;
    problem p, q;
    tn_step_result r;
    problem_new(&p, "sgd:lr=0", 1), problem_new(&q, "sgd:lr=0", 1);
    p.parts = q.parts = PARTS;
    tn_sam *s = sam(&p, "rho=0.7");
    tn_stepper *plain = tn_stepper_new(q.params, q.optim, &(tn_step_options){.accumulate = PARTS}, NULL);
    for (int t = 1; t <= 4; t++) {
        tn_tick tick = tn_tick_at(t, 100, NULL, NULL);
        tick.seed = 77;
        q.calls = 0;
        assert_int_equal(run(&p, s, t, &r), 0);
        assert_int_equal(tn_stepper_run(plain, q.tape, loss, &q, &tick, &r), 0);
        for (int i = 0; i < tn_params_count(p.params); i++) {
            const tn_param *a = tn_params_at(p.params, i), *b = tn_params_at(q.params, i);
            assert_true(same_bits(a->w, b->w, a->len));
        }
    }
    assert_true(tn_params_find(p.params, "norm.running_mean")->w[0] != 0);
    tn_stepper_free(plain), tn_sam_free(s), problem_free(&p), problem_free(&q);
}

/* Refused in any micro-batch of either pass: nothing moved, and the next step is as if it had not been. */
static void refusals(void **state) {
    (void)state;
    for (int bad = 1; bad <= 2 * PARTS; bad++) {
        problem p, q;
        tn_step_result r;
        size_t len;
        problem_new(&p, "adamw:lr=0.1", 1), problem_new(&q, "adamw:lr=0.1", 1);
        p.parts = q.parts = PARTS;
        tn_sam *s = sam(&p, NULL), *other = sam(&q, NULL);
        for (int t = 1; t <= 3; t++) {
            p.bad_call = t == 2 ? bad : 0;
            if (t == 2) {
                tn_real before[256];
                const tn_real *w = tn_params_flat(p.params, &len);
                memcpy(before, w, len * sizeof *w);
                assert_int_equal(run(&p, s, t, &r), 1);
                assert_contains(r.nonfinite, "op log");
                if (bad > PARTS) assert_contains(r.nonfinite, "at the perturbed weights");
                assert_true(same_bits(w, before, len) && tn_optim_steps(p.optim) == 1);
                p.bad_call = 0;
            }
            assert_int_equal(run(&p, s, t, &r), 0);
            assert_int_equal(run(&q, other, t, &r), 0);
            const tn_real *a = tn_params_flat(p.params, &len), *b = tn_params_flat(q.params, NULL);
            assert_true(same_bits(a, b, len));
        }
        tn_sam_free(s), tn_sam_free(other), problem_free(&p), problem_free(&q);
    }
}

static void clipping(void **state) {
    (void)state;
    problem p;
    tn_step_result r;
    problem_new(&p, "sgd:lr=1", 0);
    tn_sam *s = tn_sam_new(p.params, p.optim, NULL, &(tn_step_options){1, 0.001, 0}, NULL);
    assert_int_equal(run(&p, s, 1, &r), 0);
    double square = 0;
    size_t len;
    const tn_real *w = tn_params_flat(p.params, &len);
    for (size_t i = 0; i < len; i++) square += pow((double)(w[i] - p.weights[0][i]), 2);
    assert_true(r.grad_norm > 0.01 && fabs(sqrt(square) - 0.001) < 2e-5);
    tn_sam_free(s), problem_free(&p);
}

static void options(void **state) {
    (void)state;
    problem p;
    tn_err e = {""};
    char text[128];
    problem_new(&p, "sgd", 0);
    tn_sam *s = sam(&p, "adaptive=on,rho=0.5");
    assert_true(tn_sam_text(s, text, sizeof text) > 0);
    assert_string_equal(text, "rho=0.5,adaptive=on,eta=0.01");
    tn_sam_free(s);
    tn_sam_free(NULL);
    assert_null(tn_sam_new(p.params, p.optim, "rho=0", NULL, &e));
    assert_contains(e.msg, "0 < rho");
    assert_null(tn_sam_new(p.params, p.optim, "eta=0.1", NULL, &e));
    assert_contains(e.msg, "without adaptive=on");
    assert_null(tn_sam_new(p.params, p.optim, "roh=0.1", NULL, &e));
    assert_contains(e.msg, "did you mean \"rho\"");
    assert_null(tn_sam_new(p.params, p.optim, NULL, &(tn_step_options){-1, 0, 0}, &e));
    assert_contains(e.msg, "accumulate");
    problem_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_path),
        cmocka_unit_test(reference),
        cmocka_unit_test(same_masks_and_weights),
        cmocka_unit_test(running_averages),
        cmocka_unit_test(refusals),
        cmocka_unit_test(clipping),
        cmocka_unit_test(options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * An optimizer that evaluates on other weights than it trains: schedule-free SGD (Defazio et al.,
 * arXiv:2405.15682). z takes the gradient steps, x is the mean of all z and is evaluated, and w = (1 -
 * beta) z + beta x trains.
 */
#include "probe.h"
#include "tern.h"

typedef struct {
    double lr, beta;
} hyper;
static const tn_opt options[] = {
    TN_OPT_REAL(hyper, lr, 0.1, 0, 10, TN_OPEN_MIN, "step size"),
    TN_OPT_REAL(hyper, beta, 0.9, 0, 1, 0, "share of the mean in the weights that train"),
    TN_OPT_END,
};

static int slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    size_t n = 1;
    for (int i = 0; i < nd; i++) n *= (size_t)dim[i];
    (void)hp;
    out[0] = (tn_slot){"z", n, 0};
    out[1] = (tn_slot){"x", n, 0};
    return 2;
}
static void begin(const void *hp, tn_opt_tensor *p) { /* both start at the initial weights */
    (void)hp;
    memcpy(p->slot[0], p->w, p->n * sizeof *p->w);
    memcpy(p->slot[1], p->w, p->n * sizeof *p->w);
}
static void update(const void *hp, const tn_tick *tick, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const hyper *h = hp;
    tn_real lr = (tn_real)(h->lr * tick->lr_mul), share = (tn_real)(1 / (double)tick->t),
            beta = (tn_real)h->beta;
    tn_real *z = p->slot[0], *x = p->slot[1];
    for (size_t i = lo; i < hi; i++) {
        z[i] -= lr * p->g[i];
        x[i] += share * (z[i] - x[i]);
        p->w[i] = (1 - beta) * z[i] + beta * x[i];
    }
}
static void eval_weights(const void *hp, const tn_tick *tick, const tn_opt_tensor *p, tn_real *out) {
    (void)hp, (void)tick;
    memcpy(out, p->slot[1], p->n * sizeof *out);
}
static const tn_optim_def schedule_free = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "sfsgd",
    .summary = "schedule-free SGD",
    .source = "arXiv:2405.15682, equations 4 to 6",
    .hp_size = sizeof(hyper),
    .hp = options,
    .scope = TN_ELEMENT,
    .slots = slots,
    .begin = begin,
    .update = update,
    .eval_weights = eval_weights,
};

int main(void) {
    tn_err e;
    tn_params *params = tn_params_new();
    tn_param *p = tn_param_add(params, "", "w", 0, tn_init_const(9), 1, (int[]){3});
    EXPECT(tn_params_seal(params, 1, &e) == 0, "%s", e.msg);
    tn_optim *optim = tn_optim_new_def(params, &schedule_free, "lr=0.25", &e);
    EXPECT(optim, "%s", e.msg);
    EXPECT(tn_optim_evaluates_elsewhere(optim), "eval_weights was not noticed");

    /* Weights that come later, from a file, count: for an evaluation, and for the first step. */
    for (int i = 0; i < 3; i++) p->w[i] = 7;
    tn_params_touch(params);
    tn_tick tick = tn_tick_at(1, 50, NULL, NULL);
    tn_optim_eval(optim, &tick, 1);
    EXPECT(p->w[0] == 7, "evaluated %g before the first step", (double)p->w[0]);
    tn_optim_eval(optim, NULL, 0);
    for (int i = 0; i < 3; i++) p->w[i] = 2;
    tn_params_touch(params);

    /* 50 steps on |w - (0, 1, 2)|^2 / 2, and the same sums here, in double. */
    double z[] = {2, 2, 2}, x[] = {2, 2, 2}, w[] = {2, 2, 2};
    for (long t = 1; t <= 50; t++) {
        tick = tn_tick_at(t, 50, NULL, NULL);
        for (int i = 0; i < 3; i++) {
            p->g[i] = p->w[i] - (tn_real)i;
            z[i] -= 0.25 * (w[i] - i);
            x[i] += (z[i] - x[i]) / (double)t;
            w[i] = 0.1 * z[i] + 0.9 * x[i];
        }
        tn_optim_step(optim, &tick);
    }
    tn_real trained[3];
    memcpy(trained, p->w, sizeof trained);
    uint64_t version = tn_params_version(params);
    tn_optim_eval(optim, &tick, 1);
    EXPECT(tn_params_version(params) != version,
           "swapping weights makes leaves stale: the version must change");
    for (int i = 0; i < 3; i++)
        EXPECT(probe_close(p->w[i], x[i], 1e-5), "evaluated %.9g, want x = %.9g", p->w[i], x[i]);
    tn_optim_eval(optim, NULL, 0);
    EXPECT(memcmp(trained, p->w, sizeof trained) == 0, "the trained weights did not come back");
    for (int i = 0; i < 3; i++)
        EXPECT(probe_close(p->w[i], w[i], 1e-5), "trained %.9g, want %.9g", p->w[i], w[i]);
    EXPECT(fabs(w[0] - x[0]) > 1e-3, "both weights are the same: the probe shows nothing");
    tn_optim_free(optim);
    tn_params_free(params);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * Adagrad as torch.optim.Adagrad: Duchi et al., JMLR 12 (2011), diagonal form; eps outside the root:
 *
 *   g'  = g + lambda w
 *   sum = sum + g' g'
 *   w   = w - lr_t (g' / (sqrt(sum) + eps))     lr_t = lr / (1 + (t - 1) lr_decay)
 */
#include "optim.h"
#include <math.h>

typedef struct {
    double lr, lr_decay, weight_decay, initial_accumulator_value, eps;
} adagrad_hp;

static const tn_opt adagrad_opts[] = {
    TN_OPT_LR(adagrad_hp, 1e-2),
    TN_OPT_REAL(adagrad_hp, lr_decay, 0, 0, 1e6, 0, "the rate of step t is lr / (1 + (t - 1) lr_decay)"),
    TN_OPT_L2(adagrad_hp, 0),
    TN_OPT_REAL(adagrad_hp, initial_accumulator_value, 0, 0, 1e6, 0, "start of the sum of squared gradients"),
    TN_OPT_REAL(adagrad_hp, eps, 1e-10, 0, 1, 0, "added to the root of the sum"),
    TN_OPT_END};

enum { SUM };

static int adagrad_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    out[SUM] = (tn_slot){"sum", len, ((const adagrad_hp *)hp)->initial_accumulator_value};
    return 1;
}

typedef struct {
    tn_real lr, l2, eps;
} adagrad_coef;

TN_STEP adagrad_step(const adagrad_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    V w = vget(p.w + i, n), sum = vget(p.slot[SUM] + i, n);
    V g = vpenalized(vget(p.g + i, n), c.l2, w);
    sum = vflush(vfma(g, g, sum));
    w = vfma(vset1(-c.lr), vover_root(g, vsqrt(sum) + vset1(c.eps)), w);
    vput(p.slot[SUM] + i, n, sum), vput(p.w + i, n, w);
}

static double rate_of(const adagrad_hp *h, const tn_tick *k) {
    return h->lr * k->lr_mul / (1 + (double)(k->t - 1) * h->lr_decay);
}

static void adagrad_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const adagrad_hp *h = hp;
    const adagrad_coef c = {
        .lr = (tn_real)rate_of(h, k), .l2 = tn_l2_of(h->weight_decay, k, p), .eps = (tn_real)h->eps};
    TN_EACH_VECTOR(lo, hi, adagrad_step, c, *p);
}

/* ---- tern explain ---- */

static int has_l2(const void *hp) {
    return ((const adagrad_hp *)hp)->weight_decay != 0;
}
static int rate_falls(const void *hp) {
    return ((const adagrad_hp *)hp)->lr_decay != 0;
}

TN_VALUE(penalized) {
    return tn_penalized(((const adagrad_hp *)hp)->weight_decay, k, old);
}
TN_VALUE(rate) {
    return rate_of(hp, k);
}
TN_VALUE(root) {
    return sqrt((double)p->slot[SUM][0]) + ((const adagrad_hp *)hp)->eps;
}
TN_VALUE(adaptive_part) {
    return -rate_of(hp, k) * penalized(hp, k, old, p) / root(hp, k, old, p);
}
static const tn_explain adagrad_explain[] = {{"g'", "g + lambda w", penalized, 0, has_l2},
                                             {"sum", "sum + g' g'", NULL, 0, NULL},
                                             {"root", "sqrt(sum) + eps", root, 0, NULL},
                                             {"rate", "lr_t / (1 + (t - 1) lr_decay)", rate, 0, rate_falls},
                                             {"adaptive part", "-rate g' / root", adaptive_part, 1, NULL},
                                             TN_EXPLAIN_END};

/* ---- the penalty's part of a step: no moment, so of today's weights alone ---- */

static void adagrad_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                               const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const adagrad_hp *h = hp;
    const double rate = rate_of(h, k) * h->weight_decay * k->wd_mul;
    const tn_real *sum = p->slot[SUM];
    (void)moment;
    for (size_t i = lo; i < hi; i++)
        part[i] = (tn_real)(-rate * (double)old[i] / (sqrt((double)sum[i]) + h->eps));
}

const tn_optim_def TN_OPTIM_DEF(adagrad) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "adagrad",
    .summary = "each weight's rate falls with its sum of squared gradients",
    .source = "torch.optim.Adagrad; Duchi et al., JMLR 12 (2011)",
    .hp_size = sizeof(adagrad_hp),
    .hp = adagrad_opts,
    .scope = TN_ELEMENT,
    .slots = adagrad_slots,
    .update = adagrad_update,
    .explain = adagrad_explain,
    .decay_part = adagrad_decay_part};

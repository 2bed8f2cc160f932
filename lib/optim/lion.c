/* SPDX-License-Identifier: MIT */
/*
 * Lion (Chen et al., arXiv:2302.06675, Algorithm 2; optax.lion): steps along the sign of an average, so that every weight
 * moves by the rate.
 *
 *   u = sign(beta1 m + (1 - beta1) g)
 *   w = (w - lr_t lambda w) - lr_t u
 *   m = beta2 m + (1 - beta2) g
 */
#include "optim.h"

typedef struct {
    double lr, beta1, beta2, weight_decay;
} lion_hp;

static const tn_opt lion_opts[] = {
    TN_OPT_LR(lion_hp, 1e-4), TN_OPT_BETA(lion_hp, beta1, 0.9, "part of the average in what gives the sign"),
    TN_OPT_BETA(lion_hp, beta2, 0.99, "decay of the average of gradients"),
    TN_OPT_REAL(lion_hp, weight_decay, 1e-3, 0, 1e6, 0, "lambda of the decay beside the step"), TN_OPT_END};

enum { FIRST };

static int lion_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp;
    out[FIRST] = (tn_slot){"m", tn_elements(nd, dim), 0};
    return 1;
}

static double lion_shrink(const void *hp, const tn_tick *k) {
    const lion_hp *h = hp;
    return h->lr * k->lr_mul * h->weight_decay * k->wd_mul;
}

typedef struct {
    tn_real lr, shrink, beta1, one_minus_beta1, beta2, one_minus_beta2;
} lion_coef;

TN_STEP lion_step(const lion_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    const V w = vget(p.w + i, n), g = vget(p.g + i, n), m = vget(p.slot[FIRST] + i, n);
    const V u = vsign(vfma(vset1(c.beta1), m, vset1(c.one_minus_beta1) * g));
    vput(p.slot[FIRST] + i, n, vflush(vfma(vset1(c.beta2), m, vset1(c.one_minus_beta2) * g)));
    vput(p.w + i, n, vfma(vset1(-c.lr), u, vshrunk(w, c.shrink)));
}

static void lion_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const lion_hp *h = hp;
    const lion_coef c = {.lr = (tn_real)(h->lr * k->lr_mul),
                         .shrink = p->flags & TN_NO_DECAY ? 0 : (tn_real)lion_shrink(hp, k),
                         .beta1 = (tn_real)h->beta1,
                         .one_minus_beta1 = (tn_real)(1 - h->beta1),
                         .beta2 = (tn_real)h->beta2,
                         .one_minus_beta2 = (tn_real)(1 - h->beta2)};
    TN_EACH_VECTOR(lo, hi, lion_step, c, *p);
}

/* ---- tern explain ---- */

static int has_decay(const void *hp) {
    return ((const lion_hp *)hp)->weight_decay != 0;
}
TN_VALUE(mixed) {
    const double beta1 = ((const lion_hp *)hp)->beta1;
    return beta1 * (double)old->slot[FIRST][0] + (1 - beta1) * (double)old->g[0];
}
TN_VALUE(sign_part) {
    const double c = mixed(hp, k, old, p);
    return -((const lion_hp *)hp)->lr * k->lr_mul * (c > 0 ? 1 : c < 0 ? -1 : c);
}
TN_VALUE(decay_value) {
    return tn_shrunk_by(lion_shrink(hp, k), old);
}
static const tn_explain lion_explain[] = {
    {"c", "beta1 m + (1 - beta1) g, with m before the step", mixed, 0, NULL},
    {"m", "beta2 m + (1 - beta2) g", NULL, 0, NULL},
    {"sign part", "-lr_t sign(c)", sign_part, 1, NULL},
    {"decay part", "-lr_t lambda w", decay_value, 1, has_decay},
    TN_EXPLAIN_END};

const tn_optim_def TN_OPTIM_DEF(lion) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "lion",
    .summary = "steps of equal size along the sign of an average of gradients",
    .source = "Chen et al., arXiv:2302.06675; optax.lion",
    .hp_size = sizeof(lion_hp),
    .hp = lion_opts,
    .scope = TN_ELEMENT,
    .slots = lion_slots,
    .update = lion_update,
    .shrink = lion_shrink,
    .explain = lion_explain};

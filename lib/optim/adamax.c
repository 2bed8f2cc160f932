/* SPDX-License-Identifier: MIT */
/*
 * Adamax (Kingma and Ba, arXiv:1412.6980, Algorithm 2), as torch.optim.Adamax: Adam with the largest gradient of the recent
 * past in the place of the root of an average of squares. eps is added to the gradient's magnitude.
 *
 *   g' = g + lambda w
 *   m  = beta1 m + (1 - beta1) g'
 *   u  = max(beta2 u, |g'| + eps)
 *   w  = w - lr_t / (1 - beta1^t) (m / u)
 */
#include "optim.h"

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
} adamax_hp;

static const tn_opt adamax_opts[] = {
    TN_OPT_LR(adamax_hp, 2e-3),
    TN_OPT_BETA(adamax_hp, beta1, 0.9, "decay of the average of gradients"),
    TN_OPT_BETA(adamax_hp, beta2, 0.999, "decay of the largest gradient"),
    TN_OPT_REAL(adamax_hp, eps, 1e-8, 0, 1, 0, "added to the magnitude of the gradient"),
    TN_OPT_L2(adamax_hp, 0),
    TN_OPT_END};

enum { FIRST, LARGEST };

static int adamax_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    (void)hp;
    out[FIRST] = (tn_slot){"m", len, 0};
    out[LARGEST] = (tn_slot){"u", len, 0};
    return 2;
}

typedef struct {
    tn_real rate, l2, beta1, one_minus_beta1, beta2, eps;
} adamax_coef;

TN_STEP adamax_step(const adamax_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    const V w = vget(p.w + i, n), g = vpenalized(vget(p.g + i, n), c.l2, w);
    const V m = vsettled(vfma(vset1(c.beta1), vget(p.slot[FIRST] + i, n), vset1(c.one_minus_beta1) * g));
    /* this way round NaN gets through */
    const V u = vflush(vmax(vset1(c.beta2) * vget(p.slot[LARGEST] + i, n), vabs(g) + vset1(c.eps)));
    vput(p.slot[FIRST] + i, n, m), vput(p.slot[LARGEST] + i, n, u);
    vput(p.w + i, n, vfma(vset1(-c.rate), vquotient(m, u), w));
}

static void adamax_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const adamax_hp *h = hp;
    const adamax_coef c = {.rate = (tn_real)(h->lr * k->lr_mul / (1 - tn_exact_powi(h->beta1, k->t))),
                           .l2 = tn_l2_of(h->weight_decay, k, p),
                           .beta1 = (tn_real)h->beta1,
                           .one_minus_beta1 = (tn_real)(1 - h->beta1),
                           .beta2 = (tn_real)h->beta2,
                           .eps = (tn_real)h->eps};
    TN_EACH_VECTOR(lo, hi, adamax_step, c, *p);
}

/* ---- tern explain, and the penalty's part of a step ---- */

static int has_l2(const void *hp) {
    return ((const adamax_hp *)hp)->weight_decay != 0;
}
TN_VALUE(penalized) {
    return tn_penalized(((const adamax_hp *)hp)->weight_decay, k, old);
}
TN_VALUE(first_corrected) {
    return (double)p->slot[FIRST][0] / (1 - tn_exact_powi(((const adamax_hp *)hp)->beta1, k->t));
}
TN_VALUE(adaptive_part) {
    return -((const adamax_hp *)hp)->lr * k->lr_mul * first_corrected(hp, k, old, p)
           / (double)p->slot[LARGEST][0];
}
static const tn_explain adamax_explain[] = {{"g'", "g + lambda w", penalized, 0, has_l2},
                                            {"m", "beta1 m + (1 - beta1) g'", NULL, 0, NULL},
                                            {"u", "max(beta2 u, |g'| + eps)", NULL, 0, NULL},
                                            {"m^", "m / (1 - beta1^t)", first_corrected, 0, NULL},
                                            {"adaptive part", "-lr_t m^ / u", adaptive_part, 1, NULL},
                                            TN_EXPLAIN_END};

static void adamax_decay_track(const void *hp, const tn_tick *k, const tn_opt_tensor *p, tn_real *moment,
                               long past, size_t lo, size_t hi) {
    const adamax_hp *h = hp;
    tn_track_average(h->beta1, h->weight_decay * k->wd_mul, p, moment, past, lo, hi);
}

static void adamax_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                              const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const adamax_hp *h = hp;
    const double rate = h->lr * k->lr_mul / (1 - tn_exact_powi(h->beta1, k->t));
    (void)old;
    for (size_t i = lo; i < hi; i++)
        part[i] = (tn_real)(-rate * (double)moment[i] / (double)p->slot[LARGEST][i]);
}

const tn_optim_def TN_OPTIM_DEF(adamax) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "adamax",
    .summary = "Adam scaled by the largest gradient of the recent past",
    .source = "Kingma and Ba, arXiv:1412.6980, Algorithm 2; torch.optim.Adamax",
    .hp_size = sizeof(adamax_hp),
    .hp = adamax_opts,
    .scope = TN_ELEMENT,
    .slots = adamax_slots,
    .update = adamax_update,
    .explain = adamax_explain,
    .decay_track = adamax_decay_track,
    .decay_part = adamax_decay_part};

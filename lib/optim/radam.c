/* SPDX-License-Identifier: MIT */
/*
 * RAdam (Liu et al., arXiv:1908.03265), as torch.optim.RAdam: Adam whose adaptive rate is rectified by an estimate of its
 * variance, and left out while there is none (rho_t <= 5). eps is added to the root before its bias is corrected.
 *
 *   rho_inf = 2 / (1 - beta2) - 1,  rho_t = rho_inf - 2 t beta2^t / (1 - beta2^t)
 *   r_t  = sqrt((rho_t - 4) (rho_t - 2) rho_inf / ((rho_inf - 4) (rho_inf - 2) rho_t))
 *   g'   = g + lambda w                          decoupled_weight_decay=off
 *   w'   = w - lr_t lambda w                     decoupled_weight_decay=on
 *   m    = beta1 m + (1 - beta1) g'
 *   v    = beta2 v + ((1 - beta2) g') g'
 *   w    = w' - lr_t / (1 - beta1^t) r_t sqrt(1 - beta2^t) (m / (sqrt(v) + eps))     rho_t > 5
 *   w    = w' - lr_t / (1 - beta1^t) m                                               else
 */
#include "optim.h"

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    int decoupled_weight_decay;
} radam_hp;

static const tn_opt radam_opts[] = {
    TN_OPT_LR(radam_hp, 1e-3),
    TN_OPT_BETA(radam_hp, beta1, 0.9, "decay of the average of gradients"),
    TN_OPT_BETA(radam_hp, beta2, 0.999, "decay of the average of squared gradients"),
    TN_OPT_REAL(radam_hp, eps, 1e-8, 0, 1, 0, "added to the root of that average, before bias correction"),
    TN_OPT_REAL(radam_hp, weight_decay, 0, 0, 1e6, 0, "lambda of the weight decay"),
    TN_OPT_BOOL(radam_hp, decoupled_weight_decay, 0,
                "off: lambda w is added to the gradient; on: w -= lr lambda w beside the step"),
    TN_OPT_END};

enum { FIRST, SECOND };

static int radam_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    (void)hp;
    out[FIRST] = (tn_slot){"m", len, 0};
    out[SECOND] = (tn_slot){"v", len, 0};
    return 2;
}

static double radam_shrink(const void *hp, const tn_tick *k) {
    const radam_hp *h = hp;
    return h->decoupled_weight_decay ? h->lr * k->lr_mul * h->weight_decay * k->wd_mul : 0;
}

/* r_t sqrt(1 - beta2^t), or 0 where the adaptive rate is left out. */
static double rectified(const radam_hp *h, long t) {
    const double power = tn_exact_powi(h->beta2, t), corr = 1 - power;
    const double most = 2 / (1 - h->beta2) - 1, rho = most - 2 * (double)t * power / corr;
    if (!(rho > 5)) return 0;
    return sqrt((rho - 4) * (rho - 2) * most / ((most - 4) * (most - 2) * rho)) * sqrt(corr);
}

typedef struct {
    tn_real rate, l2, shrink, beta1, one_minus_beta1, beta2, one_minus_beta2, eps;
} radam_coef;

TN_STEP radam_step(const radam_coef c, const tn_opt_tensor p, int adaptive, size_t i, size_t n) {
    const V w = vget(p.w + i, n), g = vpenalized(vget(p.g + i, n), c.l2, w);
    const V m = vsettled(vfma(vset1(c.beta1), vget(p.slot[FIRST] + i, n), vset1(c.one_minus_beta1) * g));
    const V v = vflush(vfma(vset1(c.beta2), vget(p.slot[SECOND] + i, n), vsquared(c.one_minus_beta2, g)));
    vput(p.slot[FIRST] + i, n, m), vput(p.slot[SECOND] + i, n, v);
    const V step = adaptive ? vover_root(m, vsqrt(v) + vset1(c.eps)) : m;
    vput(p.w + i, n, vfma(vset1(-c.rate), step, vshrunk(w, c.shrink)));
}

static void radam_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const radam_hp *h = hp;
    const double rate = h->lr * k->lr_mul / (1 - tn_exact_powi(h->beta1, k->t)), r = rectified(h, k->t);
    const radam_coef c = {.rate = (tn_real)(r > 0 ? rate * r : rate),
                          .l2 = h->decoupled_weight_decay ? 0 : tn_l2_of(h->weight_decay, k, p),
                          .shrink = p->flags & TN_NO_DECAY ? 0 : (tn_real)radam_shrink(hp, k),
                          .beta1 = (tn_real)h->beta1,
                          .one_minus_beta1 = (tn_real)(1 - h->beta1),
                          .beta2 = (tn_real)h->beta2,
                          .one_minus_beta2 = (tn_real)(1 - h->beta2),
                          .eps = (tn_real)h->eps};
    if (r > 0)
        TN_EACH_VECTOR(lo, hi, radam_step, c, *p, 1);
    else
        TN_EACH_VECTOR(lo, hi, radam_step, c, *p, 0);
}

/* ---- tern explain, and the penalty's part of a step ---- */

TN_EITHER_DECAY(radam_hp, radam_shrink)

TN_VALUE(first_corrected) {
    return (double)p->slot[FIRST][0] / (1 - tn_exact_powi(((const radam_hp *)hp)->beta1, k->t));
}
/* What multiplies m^: 1 where the adaptive rate is left out. */
static double factor_of(const radam_hp *h, const tn_tick *k, double v) {
    const double r = rectified(h, k->t);
    return r > 0 ? r / (sqrt(v) + h->eps) : 1;
}
TN_VALUE(scale) {
    return factor_of(hp, k, (double)p->slot[SECOND][0]);
}
TN_VALUE(adaptive_part) {
    return -((const radam_hp *)hp)->lr * k->lr_mul * first_corrected(hp, k, old, p) * scale(hp, k, old, p);
}
static const tn_explain radam_explain[] = {
    {"g'", "g + lambda w", penalized, 0, has_l2},
    {"m", "beta1 m + (1 - beta1) g'", NULL, 0, NULL},
    {"v", "beta2 v + (1 - beta2) g' g'", NULL, 0, NULL},
    {"m^", "m / (1 - beta1^t)", first_corrected, 0, NULL},
    {"scale", "r_t sqrt(1 - beta2^t) / (sqrt(v) + eps); 1 in the first steps, where rho_t <= 5", scale, 0,
     NULL},
    {"adaptive part", "-lr_t m^ scale", adaptive_part, 1, NULL},
    {"decay part", "-lr_t lambda w", decay_value, 1, has_decay},
    TN_EXPLAIN_END};

static void radam_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                             const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const radam_hp *h = hp;
    if (h->decoupled_weight_decay) {
        tn_shrink_part(radam_shrink(hp, k), old, part, lo, hi);
        return;
    }
    const double rate = h->lr * k->lr_mul / (1 - tn_exact_powi(h->beta1, k->t));
    for (size_t i = lo; i < hi; i++)
        part[i] = (tn_real)(-rate * (double)moment[i] * factor_of(h, k, (double)p->slot[SECOND][i]));
}

const tn_optim_def TN_OPTIM_DEF(radam) = {.abi = TN_ABI,
                                          .size = sizeof(tn_optim_def),
                                          .name = "radam",
                                          .summary = "Adam with a rectified adaptive rate, no warm-up needed",
                                          .source = "Liu et al., arXiv:1908.03265; torch.optim.RAdam",
                                          .hp_size = sizeof(radam_hp),
                                          .hp = radam_opts,
                                          .scope = TN_ELEMENT,
                                          .slots = radam_slots,
                                          .update = radam_update,
                                          .shrink = radam_shrink,
                                          .explain = radam_explain,
                                          .decay_track = either_decay_track,
                                          .decay_part = radam_decay_part};

/* SPDX-License-Identifier: MIT */
/*
 * LAMB (You et al., arXiv:1904.00962, Algorithm 2, with phi(x) = x), as optax.lamb: Adam's step and its decay, made as large
 * as the weights of the tensor times the rate.
 *
 *   m = beta1 m + (1 - beta1) g
 *   v = beta2 v + ((1 - beta2) g) g
 *   u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + lambda w
 *   w = w - lr_t |w| / |u| u         norms of the whole tensor; the ratio is 1 where one of them is 0
 *
 * The ratio has to be known before the first weight moves: reduce makes u for its norm, update makes it again.
 */
#include "optim.h"

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
} lamb_hp;

static const tn_opt lamb_opts[] = {
    TN_OPT_LR(lamb_hp, 1e-3),
    TN_OPT_BETA(lamb_hp, beta1, 0.9, "decay of the average of gradients"),
    TN_OPT_BETA(lamb_hp, beta2, 0.999, "decay of the average of squared gradients"),
    TN_OPT_REAL(lamb_hp, eps, 1e-6, 0, 1, 0, "added to the root of that average, after bias correction"),
    TN_OPT_REAL(lamb_hp, weight_decay, 0, 0, 1e6, 0,
                "lambda of the decay, a part of the step that is scaled"),
    TN_OPT_END};

enum { FIRST, SECOND };
enum { RATIO }; /* of own */

static int lamb_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    (void)hp;
    out[FIRST] = (tn_slot){"m", len, 0};
    out[SECOND] = (tn_slot){"v", len, 0};
    return 2;
}

typedef struct {
    tn_real rate, l2, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, corr, root_corr;
} lamb_coef;

static lamb_coef coefficients(const lamb_hp *h, const tn_tick *k, const tn_opt_tensor *p) {
    return (lamb_coef){.rate = (tn_real)(h->lr * k->lr_mul * p->own[RATIO]),
                       .l2 = tn_l2_of(h->weight_decay, k, p),
                       .beta1 = (tn_real)h->beta1,
                       .one_minus_beta1 = (tn_real)(1 - h->beta1),
                       .beta2 = (tn_real)h->beta2,
                       .one_minus_beta2 = (tn_real)(1 - h->beta2),
                       .eps = (tn_real)h->eps,
                       .corr = (tn_real)(1 / (1 - tn_exact_powi(h->beta1, k->t))),
                       .root_corr = (tn_real)(1 / sqrt(1 - tn_exact_powi(h->beta2, k->t)))};
}

typedef struct {
    V w, m, v, u;
} lamb_lanes;

static inline __attribute__((always_inline)) lamb_lanes lamb_step(const lamb_coef c, const tn_opt_tensor p,
                                                                  size_t i, size_t n) {
    lamb_lanes x;
    const V g = vget(p.g + i, n);
    x.w = vget(p.w + i, n);
    x.m = vsettled(vfma(vset1(c.beta1), vget(p.slot[FIRST] + i, n), vset1(c.one_minus_beta1) * g));
    x.v = vflush(vfma(vset1(c.beta2), vget(p.slot[SECOND] + i, n), vsquared(c.one_minus_beta2, g)));
    x.u = vset1(c.corr) * vover_root(x.m, vfma(vsqrt(x.v), vset1(c.root_corr), vset1(c.eps)));
    x.u = vpenalized(x.u, c.l2, x.w);
    return x;
}

TN_STEP measure(const lamb_coef c, const tn_opt_tensor p, double *of_w, double *of_u, size_t i, size_t n) {
    const lamb_lanes x = lamb_step(c, p, i, n);
    vadd_squares(of_w, x.w, i, n);
    vadd_squares(of_u, x.u, i, n);
}

TN_STEP move(const lamb_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    const lamb_lanes x = lamb_step(c, p, i, n);
    vput(p.slot[FIRST] + i, n, x.m), vput(p.slot[SECOND] + i, n, x.v);
    vput(p.w + i, n, vfma(vset1(-c.rate), x.u, x.w));
}

static void lamb_reduce(const void *hp, const tn_tick *k, const tn_opt_tensor *p, double acc[]) {
    const lamb_coef c = coefficients(hp, k, p);
    double of_w[TN_LANES] = {0}, of_u[TN_LANES] = {0};
    (void)acc;
    TN_EACH_VECTOR(0, p->n, measure, c, *p, of_w, of_u);
    const double w = sqrt(tn_add_lanes(of_w)), u = sqrt(tn_add_lanes(of_u));
    p->own[RATIO] = w == 0 || u == 0 ? 1 : w / u;
}

static void lamb_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const lamb_coef c = coefficients(hp, k, p);
    TN_EACH_VECTOR(lo, hi, move, c, *p);
}

/* Not a factor that all tensors share, so no shrink: of the step, rate lambda w is the decay's. */
static void lamb_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                            const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const lamb_hp *h = hp;
    const double s = h->lr * k->lr_mul * p->own[RATIO] * h->weight_decay * k->wd_mul;
    (void)moment;
    for (size_t i = lo; i < hi; i++) part[i] = (tn_real)(-s * (double)old[i]);
}

/* ---- tern explain ---- */

static int has_decay(const void *hp) {
    return ((const lamb_hp *)hp)->weight_decay != 0;
}
TN_VALUE(first_corrected) {
    return (double)p->slot[FIRST][0] / (1 - tn_exact_powi(((const lamb_hp *)hp)->beta1, k->t));
}
TN_VALUE(second_corrected) {
    return (double)p->slot[SECOND][0] / (1 - tn_exact_powi(((const lamb_hp *)hp)->beta2, k->t));
}
TN_VALUE(ratio) {
    return p->own[RATIO];
}
TN_VALUE(adaptive_part) {
    const lamb_hp *h = hp;
    const double u = first_corrected(hp, k, old, p) / (sqrt(second_corrected(hp, k, old, p)) + h->eps);
    return -h->lr * k->lr_mul * p->own[RATIO] * u;
}
TN_VALUE(decay_value) {
    const lamb_hp *h = hp;
    return tn_shrunk_by(h->lr * k->lr_mul * p->own[RATIO] * h->weight_decay * k->wd_mul, old);
}
static const tn_explain lamb_explain[] = {
    {"m", "beta1 m + (1 - beta1) g", NULL, 0, NULL},
    {"v", "beta2 v + (1 - beta2) g g", NULL, 0, NULL},
    {"m^", "m / (1 - beta1^t)", first_corrected, 0, NULL},
    {"v^", "v / (1 - beta2^t)", second_corrected, 0, NULL},
    {"ratio", "|w| / |u|, u = m^ / (sqrt(v^) + eps) + lambda w; of one weight here", ratio, 0, NULL},
    {"adaptive part", "-lr_t ratio m^ / (sqrt(v^) + eps)", adaptive_part, 1, NULL},
    {"decay part", "-lr_t ratio lambda w", decay_value, 1, has_decay},
    TN_EXPLAIN_END};

const tn_optim_def TN_OPTIM_DEF(lamb) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "lamb",
    .summary = "Adam's step as large as the tensor's weights; for large batches",
    .source = "You et al., arXiv:1904.00962; optax.lamb",
    .hp_size = sizeof(lamb_hp),
    .hp = lamb_opts,
    .scope = TN_ELEMENT,
    .slots = lamb_slots,
    .reduce = lamb_reduce,
    .update = lamb_update,
    .decay_part = lamb_decay_part,
    .penalty = tn_no_penalty,
    .explain = lamb_explain};

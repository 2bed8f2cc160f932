/* SPDX-License-Identifier: MIT */
/*
 * Adan (Xie et al., arXiv:2208.06677, Algorithm 1): Nesterov's momentum without the gradient at the point ahead, from the
 * change of the gradient. The betas are those of the authors' program, 1 minus those of the paper.
 *
 *   d = g - prev, 0 at step 1;  prev = g
 *   m = beta1 m + (1 - beta1) g
 *   v = beta2 v + (1 - beta2) d
 *   n = beta3 n + (1 - beta3) (g + beta2 d)^2
 *   u = (m / (1 - beta1^t) + beta2 v / (1 - beta2^t)) / (sqrt(n / (1 - beta3^t)) + eps)
 *   w = (w - lr_t u) / (1 + lr_t lambda)         no_prox=off, the paper's
 *   w = (1 - lr_t lambda) w - lr_t u             no_prox=on
 */
#include "optim.h"

typedef struct {
    double lr, beta1, beta2, beta3, eps, weight_decay;
    int no_prox;
} adan_hp;

static const tn_opt adan_opts[] = {
    TN_OPT_LR(adan_hp, 1e-3),
    TN_OPT_BETA(adan_hp, beta1, 0.98, "decay of the average of gradients"),
    TN_OPT_BETA(adan_hp, beta2, 0.92, "decay of the average of their changes"),
    TN_OPT_BETA(adan_hp, beta3, 0.99, "decay of the average of squares"),
    TN_OPT_REAL(adan_hp, eps, 1e-8, 0, 1, 0, "added to the root of that average, after bias correction"),
    TN_OPT_REAL(adan_hp, weight_decay, 0, 0, 1e6, 0, "lambda of the decay"),
    TN_OPT_BOOL(adan_hp, no_prox, 0,
                "off: w /= 1 + lr lambda after the step; on: w -= lr lambda w beside it"),
    TN_OPT_END};

enum { FIRST, CHANGE, SQUARES, PREVIOUS };

static int adan_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    (void)hp;
    out[FIRST] = (tn_slot){"m", len, 0};
    out[CHANGE] = (tn_slot){"v", len, 0};
    out[SQUARES] = (tn_slot){"n", len, 0};
    out[PREVIOUS] = (tn_slot){"prev", len, 0};
    return 4;
}

static double adan_shrink(const void *hp, const tn_tick *k) {
    const adan_hp *h = hp;
    const double s = h->lr * k->lr_mul * h->weight_decay * k->wd_mul;
    return h->no_prox ? s : s / (1 + s);
}

typedef struct {
    tn_real rate, shrink, beta1, one_minus_beta1, beta2, one_minus_beta2, beta3, one_minus_beta3, eps, of_m,
        of_v, root_corr;
} adan_coef;

TN_STEP adan_step(const adan_coef c, const tn_opt_tensor p, int first, size_t i, size_t n) {
    const V w = vget(p.w + i, n), g = vget(p.g + i, n);
    const V d = first ? vset1(0) : g - vget(p.slot[PREVIOUS] + i, n), ahead = vfma(vset1(c.beta2), d, g);
    const V m = vsettled(vfma(vset1(c.beta1), vget(p.slot[FIRST] + i, n), vset1(c.one_minus_beta1) * g));
    const V v = vsettled(vfma(vset1(c.beta2), vget(p.slot[CHANGE] + i, n), vset1(c.one_minus_beta2) * d));
    const V q =
        vflush(vfma(vset1(c.beta3), vget(p.slot[SQUARES] + i, n), vset1(c.one_minus_beta3) * ahead * ahead));
    vput(p.slot[FIRST] + i, n, m), vput(p.slot[CHANGE] + i, n, v);
    vput(p.slot[SQUARES] + i, n, q), vput(p.slot[PREVIOUS] + i, n, vflush(g));
    const V root = vfma(vsqrt(q), vset1(c.root_corr), vset1(c.eps));
    const V u = vover_root(vfma(vset1(c.of_m), m, vset1(c.of_v) * v), root);
    vput(p.w + i, n, vfma(vset1(-c.rate), u, vshrunk(w, c.shrink)));
}

static void adan_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const adan_hp *h = hp;
    const int decays = !(p->flags & TN_NO_DECAY);
    const double lr = h->lr * k->lr_mul, s = decays ? lr * h->weight_decay * k->wd_mul : 0;
    const adan_coef c = {.rate = (tn_real)(h->no_prox ? lr : lr / (1 + s)),
                         .shrink = decays ? (tn_real)adan_shrink(hp, k) : 0,
                         .beta1 = (tn_real)h->beta1,
                         .one_minus_beta1 = (tn_real)(1 - h->beta1),
                         .beta2 = (tn_real)h->beta2,
                         .one_minus_beta2 = (tn_real)(1 - h->beta2),
                         .beta3 = (tn_real)h->beta3,
                         .one_minus_beta3 = (tn_real)(1 - h->beta3),
                         .eps = (tn_real)h->eps,
                         .of_m = (tn_real)(1 / (1 - tn_exact_powi(h->beta1, k->t))),
                         .of_v = (tn_real)(h->beta2 / (1 - tn_exact_powi(h->beta2, k->t))),
                         .root_corr = (tn_real)(1 / sqrt(1 - tn_exact_powi(h->beta3, k->t)))};
    if (k->t == 1)
        TN_EACH_VECTOR(lo, hi, adan_step, c, *p, 1);
    else
        TN_EACH_VECTOR(lo, hi, adan_step, c, *p, 0);
}

/* ---- tern explain ---- */

static int has_decay(const void *hp) {
    return ((const adan_hp *)hp)->weight_decay != 0;
}
static int is_prox(const void *hp) {
    return has_decay(hp) && !((const adan_hp *)hp)->no_prox;
}
static int is_beside(const void *hp) {
    return has_decay(hp) && ((const adan_hp *)hp)->no_prox;
}
TN_VALUE(ahead) {
    const adan_hp *h = hp;
    const double m = (double)p->slot[FIRST][0] / (1 - tn_exact_powi(h->beta1, k->t));
    return m + h->beta2 * (double)p->slot[CHANGE][0] / (1 - tn_exact_powi(h->beta2, k->t));
}
TN_VALUE(root) {
    const adan_hp *h = hp;
    return sqrt((double)p->slot[SQUARES][0] / (1 - tn_exact_powi(h->beta3, k->t))) + h->eps;
}
TN_VALUE(adaptive_part) {
    const adan_hp *h = hp;
    const double lr = h->lr * k->lr_mul, s = old->flags & TN_NO_DECAY ? 0 : lr * h->weight_decay * k->wd_mul;
    return -lr / (h->no_prox ? 1 : 1 + s) * ahead(hp, k, old, p) / root(hp, k, old, p);
}
TN_VALUE(decay_value) {
    return tn_shrunk_by(adan_shrink(hp, k), old);
}
static const tn_explain adan_explain[] = {
    {"m", "beta1 m + (1 - beta1) g", NULL, 0, NULL},
    {"v", "beta2 v + (1 - beta2) d, d = g - prev, 0 at step 1", NULL, 0, NULL},
    {"n", "beta3 n + (1 - beta3) (g + beta2 d)^2", NULL, 0, NULL},
    {"prev", "g", NULL, 0, NULL},
    {"m~", "m / (1 - beta1^t) + beta2 v / (1 - beta2^t)", ahead, 0, NULL},
    {"root", "sqrt(n / (1 - beta3^t)) + eps", root, 0, NULL},
    {"adaptive part", "-lr_t m~ / root; with decay and no_prox=off divided by 1 + lr_t lambda", adaptive_part,
     1, NULL},
    {"decay part", "-lr_t lambda / (1 + lr_t lambda) w", decay_value, 1, is_prox},
    {"decay part", "-lr_t lambda w", decay_value, 1, is_beside},
    TN_EXPLAIN_END};

const tn_optim_def TN_OPTIM_DEF(adan) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "adan",
    .summary = "Nesterov's momentum from changes of the gradient, scaled as Adam",
    .source = "Xie et al., arXiv:2208.06677, Algorithm 1",
    .hp_size = sizeof(adan_hp),
    .hp = adan_opts,
    .scope = TN_ELEMENT,
    .slots = adan_slots,
    .update = adan_update,
    .shrink = adan_shrink,
    .explain = adan_explain};

/* SPDX-License-Identifier: MIT */
/*
 * NAdam (Dozat, ICLR workshop 2016), as torch.optim.NAdam: Adam with Nesterov's momentum, whose factor mu grows over the
 * steps. The product of all mu so far corrects the bias; it is saved with the group.
 *
 *   mu_t = beta1 (1 - 0.96^(t momentum_decay) / 2),  P_t = mu_1 mu_2 ... mu_t
 *   g'   = g + lambda w                          decoupled_weight_decay=off
 *   w'   = w - lr_t lambda w                     decoupled_weight_decay=on
 *   m    = beta1 m + (1 - beta1) g'
 *   v    = beta2 v + ((1 - beta2) g') g'
 *   w    = w' - lr_t ((1 - mu_t) / (1 - P_t) g' + mu_(t+1) / (1 - P_(t+1)) m) / (sqrt(v / (1 - beta2^t)) + eps)
 */
#include "optim.h"

typedef struct {
    double lr, beta1, beta2, eps, weight_decay, momentum_decay;
    int decoupled_weight_decay;
} nadam_hp;

static const tn_opt nadam_opts[] = {
    TN_OPT_LR(nadam_hp, 2e-3),
    TN_OPT_BETA(nadam_hp, beta1, 0.9, "decay of the average of gradients"),
    TN_OPT_BETA(nadam_hp, beta2, 0.999, "decay of the average of squared gradients"),
    TN_OPT_REAL(nadam_hp, eps, 1e-8, 0, 1, 0, "added to the root of that average, after bias correction"),
    TN_OPT_REAL(nadam_hp, weight_decay, 0, 0, 1e6, 0, "lambda of the weight decay"),
    TN_OPT_REAL(nadam_hp, momentum_decay, 4e-3, 0, 1e6, 0,
                "how fast the momentum grows from beta1 / 2 to beta1; 0: stays at beta1 / 2"),
    TN_OPT_BOOL(nadam_hp, decoupled_weight_decay, 0,
                "off: lambda w is added to the gradient; on: w -= lr lambda w beside the step"),
    TN_OPT_END};

enum { FIRST, SECOND };
enum { PRODUCT }; /* of shared */

static int nadam_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    (void)hp;
    out[FIRST] = (tn_slot){"m", len, 0};
    out[SECOND] = (tn_slot){"v", len, 0};
    return 2;
}

static double momentum_at(const nadam_hp *h, long t) {
    return h->beta1 * (1 - 0.5 * tn_exact_pow(0.96, (double)t * h->momentum_decay));
}

static void nadam_decide(const void *hp, const tn_tick *k, const double acc[], double shared[]) {
    (void)acc;
    shared[PRODUCT] = (k->t == 1 ? 1 : shared[PRODUCT]) * momentum_at(hp, k->t);
}

static double nadam_shrink(const void *hp, const tn_tick *k) {
    const nadam_hp *h = hp;
    return h->decoupled_weight_decay ? h->lr * k->lr_mul * h->weight_decay * k->wd_mul : 0;
}

typedef struct {
    tn_real lr, l2, shrink, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, root_corr, of_g, of_m;
} nadam_coef;

TN_STEP nadam_step(const nadam_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    const V w = vget(p.w + i, n), g = vpenalized(vget(p.g + i, n), c.l2, w);
    const V m = vsettled(vfma(vset1(c.beta1), vget(p.slot[FIRST] + i, n), vset1(c.one_minus_beta1) * g));
    const V v = vflush(vfma(vset1(c.beta2), vget(p.slot[SECOND] + i, n), vsquared(c.one_minus_beta2, g)));
    vput(p.slot[FIRST] + i, n, m), vput(p.slot[SECOND] + i, n, v);
    const V root = vfma(vsqrt(v), vset1(c.root_corr), vset1(c.eps));
    const V ahead = vfma(vset1(c.of_g), g, vset1(c.of_m) * m);
    vput(p.w + i, n, vfma(vset1(-c.lr), vover_root(ahead, root), vshrunk(w, c.shrink)));
}

static void nadam_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const nadam_hp *h = hp;
    const double mu = momentum_at(h, k->t), next = momentum_at(h, k->t + 1), product = p->shared[PRODUCT];
    const nadam_coef c = {.lr = (tn_real)(h->lr * k->lr_mul),
                          .l2 = h->decoupled_weight_decay ? 0 : tn_l2_of(h->weight_decay, k, p),
                          .shrink = p->flags & TN_NO_DECAY ? 0 : (tn_real)nadam_shrink(hp, k),
                          .beta1 = (tn_real)h->beta1,
                          .one_minus_beta1 = (tn_real)(1 - h->beta1),
                          .beta2 = (tn_real)h->beta2,
                          .one_minus_beta2 = (tn_real)(1 - h->beta2),
                          .eps = (tn_real)h->eps,
                          .root_corr = (tn_real)(1 / sqrt(1 - tn_exact_powi(h->beta2, k->t))),
                          .of_g = (tn_real)((1 - mu) / (1 - product)),
                          .of_m = (tn_real)(next / (1 - product * next))};
    TN_EACH_VECTOR(lo, hi, nadam_step, c, *p);
}

/* ---- tern explain, and the penalty's part of a step ---- */

TN_EITHER_DECAY(nadam_hp, nadam_shrink)

/* What g' and m are multiplied with. */
TN_VALUE(of_g) {
    return (1 - momentum_at(hp, k->t)) / (1 - p->shared[PRODUCT]);
}
TN_VALUE(of_m) {
    const double next = momentum_at(hp, k->t + 1);
    return next / (1 - p->shared[PRODUCT] * next);
}
TN_VALUE(ahead) {
    return of_g(hp, k, old, p) * penalized(hp, k, old, p) + of_m(hp, k, old, p) * (double)p->slot[FIRST][0];
}
TN_VALUE(second_corrected) {
    return (double)p->slot[SECOND][0] / (1 - tn_exact_powi(((const nadam_hp *)hp)->beta2, k->t));
}
TN_VALUE(adaptive_part) {
    const nadam_hp *h = hp;
    return -h->lr * k->lr_mul * ahead(hp, k, old, p) / (sqrt(second_corrected(hp, k, old, p)) + h->eps);
}
static const tn_explain nadam_explain[] = {
    {"g'", "g + lambda w", penalized, 0, has_l2},
    {"m", "beta1 m + (1 - beta1) g'", NULL, 0, NULL},
    {"v", "beta2 v + (1 - beta2) g' g'", NULL, 0, NULL},
    {"m~", "(1 - mu_t) / (1 - P_t) g' + mu_(t+1) / (1 - P_(t+1)) m", ahead, 0, NULL},
    {"v^", "v / (1 - beta2^t)", second_corrected, 0, NULL},
    {"adaptive part", "-lr_t m~ / (sqrt(v^) + eps)", adaptive_part, 1, NULL},
    {"decay part", "-lr_t lambda w", decay_value, 1, has_decay},
    TN_EXPLAIN_END};

static void nadam_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                             const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const nadam_hp *h = hp;
    if (h->decoupled_weight_decay) {
        tn_shrink_part(nadam_shrink(hp, k), old, part, lo, hi);
        return;
    }
    const double rate = h->lr * k->lr_mul, corr = 1 / sqrt(1 - tn_exact_powi(h->beta2, k->t));
    const double now = of_g(hp, k, p, p) * h->weight_decay * k->wd_mul, then = of_m(hp, k, p, p);
    for (size_t i = lo; i < hi; i++) {
        const double root = sqrt((double)p->slot[SECOND][i]) * corr + h->eps;
        part[i] = (tn_real)(-rate * (now * (double)old[i] + then * (double)moment[i]) / root);
    }
}

const tn_optim_def TN_OPTIM_DEF(nadam) = {.abi = TN_ABI,
                                          .size = sizeof(tn_optim_def),
                                          .name = "nadam",
                                          .summary = "Adam with Nesterov's momentum",
                                          .source = "Dozat, ICLR workshop 2016; torch.optim.NAdam",
                                          .hp_size = sizeof(nadam_hp),
                                          .hp = nadam_opts,
                                          .scope = TN_ELEMENT,
                                          .slots = nadam_slots,
                                          .decide = nadam_decide,
                                          .update = nadam_update,
                                          .shrink = nadam_shrink,
                                          .explain = nadam_explain,
                                          .decay_track = either_decay_track,
                                          .decay_part = nadam_decay_part};

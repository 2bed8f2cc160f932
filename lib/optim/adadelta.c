/* SPDX-License-Identifier: MIT */
/*
 * Adadelta (Zeiler, arXiv:1212.5701), as torch.optim.Adadelta: the step has the size of the steps before it. eps stands
 * inside both roots and starts the movement: it must not be 0.
 *
 *   g'         = g + lambda w
 *   square_avg = rho square_avg + ((1 - rho) g') g'
 *   delta      = sqrt(acc_delta + eps) / sqrt(square_avg + eps) g'
 *   acc_delta  = rho acc_delta + ((1 - rho) delta) delta
 *   w          = w - lr_t delta
 */
#include "optim.h"

typedef struct {
    double lr, rho, eps, weight_decay;
} adadelta_hp;

static const tn_opt adadelta_opts[] = {
    TN_OPT_LR(adadelta_hp, 1), TN_OPT_BETA(adadelta_hp, rho, 0.9, "decay of both averages of squares"),
    TN_OPT_REAL(adadelta_hp, eps, 1e-6, 0, 1, TN_OPEN_MIN, "added to both averages, inside their roots"),
    TN_OPT_L2(adadelta_hp, 0), TN_OPT_END};

enum { SQUARES, DELTAS };

static int adadelta_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    (void)hp;
    out[SQUARES] = (tn_slot){"square_avg", len, 0};
    out[DELTAS] = (tn_slot){"acc_delta", len, 0};
    return 2;
}

typedef struct {
    tn_real lr, l2, rho, one_minus_rho, eps;
} adadelta_coef;

TN_STEP adadelta_step(const adadelta_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    const V w = vget(p.w + i, n), g = vpenalized(vget(p.g + i, n), c.l2, w), eps = vset1(c.eps);
    const V deltas = vget(p.slot[DELTAS] + i, n), take = vset1(c.one_minus_rho);
    const V squares = vflush(vfma(vset1(c.rho), vget(p.slot[SQUARES] + i, n), take * g * g));
    const V delta = vsqrt(deltas + eps) * vrsqrt(squares + eps) * g;
    vput(p.slot[SQUARES] + i, n, squares);
    vput(p.slot[DELTAS] + i, n, vflush(vfma(vset1(c.rho), deltas, take * delta * delta)));
    vput(p.w + i, n, vfma(vset1(-c.lr), delta, w));
}

static void adadelta_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const adadelta_hp *h = hp;
    const adadelta_coef c = {.lr = (tn_real)(h->lr * k->lr_mul),
                             .l2 = tn_l2_of(h->weight_decay, k, p),
                             .rho = (tn_real)h->rho,
                             .one_minus_rho = (tn_real)(1 - h->rho),
                             .eps = (tn_real)h->eps};
    TN_EACH_VECTOR(lo, hi, adadelta_step, c, *p);
}

/* ---- tern explain, and the penalty's part of a step ---- */

static int has_l2(const void *hp) {
    return ((const adadelta_hp *)hp)->weight_decay != 0;
}
TN_VALUE(penalized) {
    return tn_penalized(((const adadelta_hp *)hp)->weight_decay, k, old);
}
TN_VALUE(delta_of) {
    const double eps = ((const adadelta_hp *)hp)->eps;
    return sqrt((double)old->slot[DELTAS][0] + eps) / sqrt((double)p->slot[SQUARES][0] + eps)
           * penalized(hp, k, old, p);
}
TN_VALUE(adaptive_part) {
    return -((const adadelta_hp *)hp)->lr * k->lr_mul * delta_of(hp, k, old, p);
}
static const tn_explain adadelta_explain[] = {
    {"g'", "g + lambda w", penalized, 0, has_l2},
    {"square_avg", "rho square_avg + (1 - rho) g' g'", NULL, 0, NULL},
    {"delta", "sqrt(acc_delta + eps) / sqrt(square_avg + eps) g'", delta_of, 0, NULL},
    {"acc_delta", "rho acc_delta + (1 - rho) delta delta", NULL, 0, NULL},
    {"adaptive part", "-lr_t delta", adaptive_part, 1, NULL},
    TN_EXPLAIN_END};

/*
 * The penalty's delta, sqrt((acc_delta + eps) / (square_avg + eps)) lambda w, takes acc_delta as it was before the step:
 * after = rho before + (1 - rho) q (before + eps) with q = g g / (square_avg + eps), solved for it.
 */
static void adadelta_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                                const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const adadelta_hp *h = hp;
    const double rate = h->lr * k->lr_mul, lambda = h->weight_decay * k->wd_mul;
    (void)moment;
    for (size_t i = lo; i < hi; i++) {
        const double w = (double)old[i], g = (double)p->g[i] + lambda * w;
        const double squares = (double)p->slot[SQUARES][i] + h->eps, share = (1 - h->rho) * g * g / squares;
        const double before = ((double)p->slot[DELTAS][i] - share * h->eps) / (h->rho + share);
        part[i] = (tn_real)(-rate * sqrt((before > 0 ? before : 0) + h->eps) / sqrt(squares) * lambda * w);
    }
}

const tn_optim_def TN_OPTIM_DEF(adadelta) = {.abi = TN_ABI,
                                             .size = sizeof(tn_optim_def),
                                             .name = "adadelta",
                                             .summary = "steps as large as the steps before them",
                                             .source = "Zeiler, arXiv:1212.5701; torch.optim.Adadelta",
                                             .hp_size = sizeof(adadelta_hp),
                                             .hp = adadelta_opts,
                                             .scope = TN_ELEMENT,
                                             .slots = adadelta_slots,
                                             .update = adadelta_update,
                                             .explain = adadelta_explain,
                                             .decay_part = adadelta_decay_part};

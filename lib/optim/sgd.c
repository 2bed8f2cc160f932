/* SPDX-License-Identifier: MIT */
/*
 * Stochastic gradient descent as torch.optim.SGD: momentum as Sutskever et al. (ICML 2013) and Nesterov's
 * form of it, both with the rate outside the buffer. The first gradient enters the empty buffer without
 * dampening.
 *
 *   g'  = g + lambda w                                   decay=l2
 *   buf = momentum buf + (1 - dampening) g', u = buf     with momentum; else u = g'
 *   u   = g' + momentum buf                              nesterov
 *   w   = (w - lr_t lambda w) - lr_t u                   the first product with decay=decoupled only
 */
#include "optim.h"

enum { DECAY_L2, DECAY_DECOUPLED };

typedef struct {
    double lr, momentum, dampening, weight_decay;
    int nesterov, decay;
} sgd_hp;

static const tn_opt sgd_opts[] = {
    TN_OPT_LR(sgd_hp, 1e-3),
    TN_OPT_REAL(sgd_hp, momentum, 0, 0, 1, 0, "factor of the buffer that gradients are gathered in; 0: none"),
    TN_OPT_REAL(sgd_hp, dampening, 0, 0, 1, 0, "a gradient enters the buffer times 1 - dampening"),
    TN_OPT_BOOL(sgd_hp, nesterov, 0, "steps along the gradient plus momentum times the buffer"),
    TN_OPT_REAL(sgd_hp, weight_decay, 0, 0, 1e6, 0, "lambda of the weight decay"),
    TN_OPT_WORD(sgd_hp, decay, "l2|decoupled", DECAY_L2,
                "l2: lambda w is added to the gradient; decoupled: w -= lr lambda w beside the step"),
    TN_OPT_END};

static int sgd_check(void *hp, uint64_t given, tn_err *e) {
    const sgd_hp *h = hp;
    (void)given;
    if (h->momentum == 0 && h->dampening != 0)
        return tn_fail(e, "optimizer sgd: dampening=%g means nothing without momentum; give momentum as well",
                       h->dampening);
    if (h->nesterov && (h->momentum == 0 || h->dampening != 0))
        return tn_fail(e, "optimizer sgd: nesterov=on needs momentum > 0 and dampening=0");
    return 0;
}

enum { BUFFER };

static int sgd_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    if (((const sgd_hp *)hp)->momentum == 0) return 0;
    out[BUFFER] = (tn_slot){"momentum_buffer", len, 0};
    return 1;
}

static double sgd_shrink(const void *hp, const tn_tick *k) {
    const sgd_hp *h = hp;
    return h->decay == DECAY_DECOUPLED ? h->lr * k->lr_mul * h->weight_decay * k->wd_mul : 0;
}

typedef struct {
    tn_real lr, l2, shrink, momentum, take; /* take: of g into the buffer */
} sgd_coef;

TN_STEP plain_step(const sgd_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    V w = vget(p.w + i, n), g = vpenalized(vget(p.g + i, n), c.l2, w);
    vput(p.w + i, n, vfma(vset1(-c.lr), g, vshrunk(w, c.shrink)));
}

TN_STEP momentum_step(const sgd_coef c, const tn_opt_tensor p, int nesterov, size_t i, size_t n) {
    V w = vget(p.w + i, n), g = vpenalized(vget(p.g + i, n), c.l2, w);
    V buf = vflush(vfma(vset1(c.momentum), vget(p.slot[BUFFER] + i, n), vset1(c.take) * g));
    V step = nesterov ? vfma(vset1(c.momentum), buf, g) : buf;
    vput(p.slot[BUFFER] + i, n, buf);
    vput(p.w + i, n, vfma(vset1(-c.lr), step, vshrunk(w, c.shrink)));
}

static void sgd_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const sgd_hp *h = hp;
    const sgd_coef c = {.lr = (tn_real)(h->lr * k->lr_mul),
                        .l2 = h->decay == DECAY_L2 ? tn_l2_of(h->weight_decay, k, p) : 0,
                        .shrink = p->flags & TN_NO_DECAY ? 0 : (tn_real)sgd_shrink(hp, k),
                        .momentum = (tn_real)h->momentum,
                        .take = k->t == 1 ? 1 : (tn_real)(1 - h->dampening)};
    if (h->momentum == 0)
        TN_EACH_VECTOR(lo, hi, plain_step, c, *p);
    else if (h->nesterov)
        TN_EACH_VECTOR(lo, hi, momentum_step, c, *p, 1);
    else
        TN_EACH_VECTOR(lo, hi, momentum_step, c, *p, 0);
}

/* ---- tern explain ---- */

static int has_l2(const void *hp) {
    return ((const sgd_hp *)hp)->decay == DECAY_L2 && ((const sgd_hp *)hp)->weight_decay != 0;
}
static int has_decay(const void *hp) {
    return ((const sgd_hp *)hp)->decay == DECAY_DECOUPLED && ((const sgd_hp *)hp)->weight_decay != 0;
}
static int is_plain(const void *hp) {
    return ((const sgd_hp *)hp)->momentum == 0;
}
static int is_heavy_ball(const void *hp) {
    return !is_plain(hp) && !((const sgd_hp *)hp)->nesterov;
}
static int is_nesterov(const void *hp) {
    return ((const sgd_hp *)hp)->nesterov;
}

TN_VALUE(penalized) {
    const sgd_hp *h = hp;
    return tn_penalized(h->decay == DECAY_L2 ? h->weight_decay : 0, k, old);
}
TN_VALUE(gradient_part) {
    const sgd_hp *h = hp;
    const double g = penalized(hp, k, old, p), buf = is_plain(hp) ? g : (double)p->slot[BUFFER][0];
    return -h->lr * k->lr_mul * (h->nesterov ? g + h->momentum * buf : buf);
}
TN_VALUE(decay_part) {
    return tn_shrunk_by(sgd_shrink(hp, k), old);
}
static const tn_explain sgd_explain[] = {
    {"g'", "g + lambda w", penalized, 0, has_l2},
    {"momentum_buffer", "momentum momentum_buffer + (1 - dampening) g'; step 1: g'", NULL, 0, NULL},
    {"gradient part", "-lr_t g'", gradient_part, 1, is_plain},
    {"gradient part", "-lr_t momentum_buffer", gradient_part, 1, is_heavy_ball},
    {"gradient part", "-lr_t (g' + momentum momentum_buffer)", gradient_part, 1, is_nesterov},
    {"decay part", "-lr_t lambda w", decay_part, 1, has_decay},
    TN_EXPLAIN_END};

/* ---- the penalty's part of a step ---- */

static void sgd_decay_track(const void *hp, const tn_tick *k, const tn_opt_tensor *p, tn_real *moment,
                            long past, size_t lo, size_t hi) {
    const sgd_hp *h = hp;
    if (h->momentum == 0 || h->decay == DECAY_DECOUPLED) return;
    const long steps = past < 0 ? -past : past + 1;
    const double lambda = h->weight_decay * k->wd_mul, b = h->momentum, kept = tn_exact_powi(b, steps);
    const double powers = b < 1 ? (1 - kept) / (1 - b) : (double)steps;
    /* of those since the first, which came undamped */
    const double begin = lambda * ((1 - h->dampening) * powers + h->dampening * kept / b);
    const tn_real f = (tn_real)kept, c = (tn_real)((1 - h->dampening) * powers * lambda),
                  first = (tn_real)begin;
    if (past >= 0)
        TN_EACH_VECTOR(lo, hi, tn_moment_first, moment, p->w, first);
    else
        TN_EACH_VECTOR(lo, hi, tn_moment_step, moment, p->w, f, c);
}

static void sgd_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                           const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const sgd_hp *h = hp;
    const double rate = h->lr * k->lr_mul, l2 = h->weight_decay * k->wd_mul;
    const double now = h->momentum == 0 || h->nesterov ? rate * l2 : 0; /* times w before the step */
    const double then = h->nesterov ? rate * h->momentum : h->momentum != 0 ? rate : 0;
    (void)p;
    if (h->decay == DECAY_DECOUPLED) {
        tn_shrink_part(sgd_shrink(hp, k), old, part, lo, hi);
        return;
    }
    for (size_t i = lo; i < hi; i++) part[i] = (tn_real) - (now * (double)old[i] + then * (double)moment[i]);
}

const tn_optim_def TN_OPTIM_DEF(sgd) = {.abi = TN_ABI,
                                        .size = sizeof(tn_optim_def),
                                        .name = "sgd",
                                        .summary = "stochastic gradient descent, with momentum or Nesterov's",
                                        .source = "torch.optim.SGD; Sutskever et al., ICML 2013",
                                        .hp_size = sizeof(sgd_hp),
                                        .hp = sgd_opts,
                                        .scope = TN_ELEMENT,
                                        .check = sgd_check,
                                        .slots = sgd_slots,
                                        .update = sgd_update,
                                        .shrink = sgd_shrink,
                                        .explain = sgd_explain,
                                        .decay_track = sgd_decay_track,
                                        .decay_part = sgd_decay_part};

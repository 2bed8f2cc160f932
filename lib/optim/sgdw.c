/* SPDX-License-Identifier: MIT */
/*
 * SGD with momentum and weight decay beside it, as Loshchilov and Hutter wrote it (arXiv:1711.05101, Algorithm 1): the rate
 * is inside the buffer, and the decay follows the schedule alone, not lr. (torch.optim.SGD has the rate outside; sgd with
 * decay=decoupled decays by lr lambda.)
 *
 *   buf = momentum buf + lr_t g
 *   w   = (w - s_t lambda w) - buf         s_t: the schedule's multiplier
 */
#include "optim.h"

typedef struct {
    double lr, momentum, weight_decay;
} sgdw_hp;

static const tn_opt sgdw_opts[] = {
    TN_OPT_LR(sgdw_hp, 1e-3),
    TN_OPT_BETA(sgdw_hp, momentum, 0.9, "factor of the buffer that steps are gathered in"),
    TN_OPT_REAL(sgdw_hp, weight_decay, 1e-4, 0, 1, 0, "part of each weight that a step takes away"),
    TN_OPT_END};

enum { BUFFER };

static int sgdw_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp;
    out[BUFFER] = (tn_slot){"momentum_buffer", tn_elements(nd, dim), 0};
    return 1;
}

static double sgdw_shrink(const void *hp, const tn_tick *k) {
    return ((const sgdw_hp *)hp)->weight_decay * k->lr_mul * k->wd_mul;
}

typedef struct {
    tn_real lr, momentum, shrink;
} sgdw_coef;

TN_STEP sgdw_step(const sgdw_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    const V g = vget(p.g + i, n);
    const V buf = vflush(vfma(vset1(c.momentum), vget(p.slot[BUFFER] + i, n), vset1(c.lr) * g));
    vput(p.slot[BUFFER] + i, n, buf);
    vput(p.w + i, n, vshrunk(vget(p.w + i, n), c.shrink) - buf);
}

static void sgdw_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const sgdw_hp *h = hp;
    const sgdw_coef c = {.lr = (tn_real)(h->lr * k->lr_mul),
                         .momentum = (tn_real)h->momentum,
                         .shrink = p->flags & TN_NO_DECAY ? 0 : (tn_real)sgdw_shrink(hp, k)};
    TN_EACH_VECTOR(lo, hi, sgdw_step, c, *p);
}

/* ---- tern explain ---- */

static int has_decay(const void *hp) {
    return ((const sgdw_hp *)hp)->weight_decay != 0;
}
TN_VALUE(gradient_part) {
    return -(double)p->slot[BUFFER][0];
}
TN_VALUE(decay_value) {
    return tn_shrunk_by(sgdw_shrink(hp, k), old);
}
static const tn_explain sgdw_explain[] = {
    {"momentum_buffer", "momentum momentum_buffer + lr_t g", NULL, 0, NULL},
    {"gradient part", "-momentum_buffer", gradient_part, 1, NULL},
    {"decay part", "-s_t lambda w", decay_value, 1, has_decay},
    TN_EXPLAIN_END};

const tn_optim_def TN_OPTIM_DEF(sgdw) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "sgdw",
    .summary = "SGD with momentum, the rate in its buffer, decay independent of lr",
    .source = "Loshchilov and Hutter, arXiv:1711.05101, Algorithm 1",
    .hp_size = sizeof(sgdw_hp),
    .hp = sgdw_opts,
    .scope = TN_ELEMENT,
    .slots = sgdw_slots,
    .update = sgdw_update,
    .shrink = sgdw_shrink,
    .explain = sgdw_explain};

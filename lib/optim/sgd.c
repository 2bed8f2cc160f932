/* SPDX-License-Identifier: MIT */
/*
 * Stochastic gradient descent as torch.optim.SGD: momentum as Sutskever et al. (ICML 2013) and Nesterov's
 * form of it, both with the rate outside the buffer. The first gradient enters the empty buffer without
 * dampening.
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

static int sgd_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    if (((const sgd_hp *)hp)->momentum == 0) return 0;
    out[0] = (tn_slot){"momentum_buffer", len, 0};
    return 1;
}

static double sgd_shrink(const void *hp, const tn_tick *k) {
    const sgd_hp *h = hp;
    return h->decay == DECAY_DECOUPLED ? h->lr * k->lr_mul * h->weight_decay * k->wd_mul : 0;
}

static void sgd_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const sgd_hp *h = hp;
    const tn_real lr = (tn_real)(h->lr * k->lr_mul);
    const tn_real l2 = h->decay == DECAY_L2 ? tn_l2_of(h->weight_decay, k, p) : 0;
    const tn_real shrink = p->flags & TN_NO_DECAY ? 0 : (tn_real)sgd_shrink(hp, k);
    tn_real *restrict w = p->w;
    const tn_real *restrict g = p->g;
    if (h->momentum == 0) {
        for (size_t i = lo; i < hi; i++) {
            tn_real gi = g[i] + l2 * w[i];
            w[i] = w[i] - shrink * w[i] - lr * gi;
        }
        return;
    }
    const tn_real keep = (tn_real)h->momentum, take = k->t == 1 ? 1 : (tn_real)(1 - h->dampening);
    const tn_real of_g = h->nesterov ? 1 : 0, of_buf = h->nesterov ? (tn_real)h->momentum : 1;
    tn_real *restrict buf = p->slot[0];
    for (size_t i = lo; i < hi; i++) {
        tn_real gi = g[i] + l2 * w[i];
        buf[i] = tn_flush(keep * buf[i] + take * gi);
        w[i] = w[i] - shrink * w[i] - lr * (of_g * gi + of_buf * buf[i]);
    }
}

const tn_optim_def tn_optim_def_sgd = {.abi = TN_ABI,
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
                                       .shrink = sgd_shrink};

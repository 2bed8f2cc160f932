/* SPDX-License-Identifier: MIT */
/*
 * RMSprop as torch.optim.RMSprop: Tieleman and Hinton, lecture 6.5 (2012); the centered form is Graves,
 * arXiv:1308.0850, equation 40. eps stands outside the root. Where rounding makes the centered variance
 * negative it counts as 0 (PyTorch's gives NaN).
 */
#include "optim.h"

typedef struct {
    double lr, alpha, eps, weight_decay, momentum;
    int centered;
} rmsprop_hp;

static const tn_opt rmsprop_opts[] = {
    TN_OPT_LR(rmsprop_hp, 1e-2),
    TN_OPT_REAL(rmsprop_hp, alpha, 0.99, 0, 1, TN_OPEN_MAX, "decay of the average of squared gradients"),
    TN_OPT_REAL(rmsprop_hp, eps, 1e-8, 0, 1, 0, "added to the root of the average"),
    TN_OPT_L2(rmsprop_hp, 0),
    TN_OPT_REAL(rmsprop_hp, momentum, 0, 0, 1, 0,
                "factor of the buffer that scaled gradients are gathered in; 0: none"),
    TN_OPT_BOOL(rmsprop_hp, centered, 0,
                "divides by the root of the variance: the square of the mean is taken off"),
    TN_OPT_END};

enum { SQUARE_AVG };

static int rmsprop_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const rmsprop_hp *h = hp;
    const size_t len = tn_elements(nd, dim);
    int n = 0;
    out[n++] = (tn_slot){"square_avg", len, 0};
    if (h->momentum != 0) out[n++] = (tn_slot){"momentum_buffer", len, 0};
    if (h->centered) out[n++] = (tn_slot){"grad_avg", len, 0};
    return n;
}

typedef struct {
    tn_real lr, alpha, one_minus_alpha, eps, l2, momentum;
} rmsprop_coef;

/* buf and avg are NULL in the forms that have none; each call below is compiled for its own form. */
static inline void rmsprop_run(size_t n, tn_real *restrict w, const tn_real *restrict g, tn_real *restrict sq,
                               tn_real *restrict buf, tn_real *restrict avg, const rmsprop_coef c) {
    for (size_t i = 0; i < n; i++) {
        tn_real gi = g[i] + c.l2 * w[i], var;
        var = sq[i] = tn_flush(c.alpha * sq[i] + c.one_minus_alpha * gi * gi);
        if (avg) {
            avg[i] = tn_flush(avg[i] + c.one_minus_alpha * (gi - avg[i]));
            var -= avg[i] * avg[i];
            var = var < 0 ? 0 : var;
        }
        tn_real step = gi / (tn_real_sqrt(var) + c.eps);
        if (buf) step = buf[i] = tn_flush(c.momentum * buf[i] + step);
        w[i] -= c.lr * step;
    }
}

static void rmsprop_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const rmsprop_hp *h = hp;
    const rmsprop_coef c = {.lr = (tn_real)(h->lr * k->lr_mul),
                            .alpha = (tn_real)h->alpha,
                            .one_minus_alpha = (tn_real)(1 - h->alpha),
                            .eps = (tn_real)h->eps,
                            .l2 = tn_l2_of(h->weight_decay, k, p),
                            .momentum = (tn_real)h->momentum};
    const int moving = h->momentum != 0;
    size_t n = hi - lo;
    tn_real *w = p->w + lo, *sq = p->slot[SQUARE_AVG] + lo;
    tn_real *buf = moving ? p->slot[1] + lo : NULL, *avg = h->centered ? p->slot[1 + moving] + lo : NULL;
    const tn_real *g = p->g + lo;
    if (buf && avg)
        rmsprop_run(n, w, g, sq, buf, avg, c);
    else if (buf)
        rmsprop_run(n, w, g, sq, buf, NULL, c);
    else if (avg)
        rmsprop_run(n, w, g, sq, NULL, avg, c);
    else
        rmsprop_run(n, w, g, sq, NULL, NULL, c);
}

const tn_optim_def tn_optim_def_rmsprop = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "rmsprop",
    .summary = "divides by the root of a running average of squared gradients",
    .source = "torch.optim.RMSprop; Tieleman and Hinton 2012; Graves 2013",
    .hp_size = sizeof(rmsprop_hp),
    .hp = rmsprop_opts,
    .scope = TN_ELEMENT,
    .slots = rmsprop_slots,
    .update = rmsprop_update};

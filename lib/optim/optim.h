/* SPDX-License-Identifier: MIT */
/* What the optimizers' files share: option rows, and the arithmetic of one weight. */
#ifndef TN_OPTIM_H
#define TN_OPTIM_H
#include "internal.h"
#include <float.h>
#include <math.h>

#define TN_OPT_LR(S, def) TN_OPT_REAL(S, lr, def, 0, 1e6, 0, "learning rate")
#define TN_OPT_L2(S, def)                        \
    TN_OPT_REAL(S, weight_decay, def, 0, 1e6, 0, \
                "lambda of the penalty lambda/2 |w|^2, added to the gradient")

static inline size_t tn_elements(int nd, const int *dim) {
    size_t n = 1;
    for (int i = 0; i < nd; i++) n *= (size_t)dim[i];
    return n;
}

static inline tn_real tn_real_sqrt(tn_real x) {
#ifdef TN_DOUBLE
    return sqrt(x);
#else
    return sqrtf(x);
#endif
}

/*
 * State below the smallest normal number becomes 0: the averages of a dead unit shrink by a factor a step and
 * would otherwise stay subnormal for good, in which arithmetic is many times slower. NaN stays.
 */
static inline tn_real tn_flush(tn_real x) {
#ifdef TN_DOUBLE
    const tn_real least = DBL_MIN;
#else
    const tn_real least = FLT_MIN;
#endif
    return x < least && x > -least ? 0 : x;
}

/* lambda of the penalty that enters the gradient of this tensor. */
static inline tn_real tn_l2_of(double weight_decay, const tn_tick *k, const tn_opt_tensor *p) {
    return p->flags & TN_NO_DECAY ? 0 : (tn_real)(weight_decay * k->wd_mul);
}
#endif

/* SPDX-License-Identifier: MIT */
/*
 * One step of Adam, AdamL2 or AdamW on n weights (Kingma and Ba 2015, Algorithm 1; Loshchilov and
 * Hutter 2019):
 *
 *   g' = g + l2 w                              only for l2 != 0
 *   m  = beta1 m + (1 - beta1) g'
 *   v  = beta2 v + ((1 - beta2) g') g'         in this order: g' g' alone would underflow for |g'| < 1e-19
 *   w' = w - shrink w                          only for shrink != 0; the decay sees the w before the step
 *   w  = w' - step m / (sqrt(v) root_corr + eps)
 *
 * A sum of a product is one fused multiply-add. As l2 and shrink leave no trace when they are 0, AdamL2 and
 * AdamW with lambda = 0 give the bits of Adam.
 *
 * Moments below the smallest normal number become 0. The moments of a dead unit shrink by a factor a step,
 * and would otherwise stay subnormal for hundreds of steps, in which arithmetic is several times slower. What
 * is lost is less than 2e-38 in m and 2e-19 in sqrt(v), both far below any eps in use.
 */
#include "level.h"
#include <float.h>

#ifdef TN_DOUBLE
static const tn_real smallest_normal = DBL_MIN;
#else
static const tn_real smallest_normal = FLT_MIN;
#endif

/* NaN compares false and stays. */
static inline V flush(V x) {
    return vsel(vlt(vabs(x), vset1(smallest_normal)), vset1(0), x);
}

static inline void step(V *w, V g, V *m, V *v, const tn_adam_coef *c) {
    V old = *w;
    if (c->l2 != 0) g = vfma(vset1(c->l2), old, g);
    *m = flush(vfma(vset1(c->beta1), *m, vset1(c->one_minus_beta1) * g));
    *v = flush(vfma(vset1(c->beta2), *v, vset1(c->one_minus_beta2) * g * g));
    V kept = c->shrink != 0 ? vfma(vset1(-c->shrink), old, old) : old;
    *w = kept - vset1(c->step) * *m / vfma(vsqrt(*v), vset1(c->root_corr), vset1(c->eps));
}

void tn_k_adam(size_t n, tn_real *w, const tn_real *g, tn_real *m, tn_real *v, const tn_adam_coef *coef) {
    const tn_adam_coef c = *coef;
    size_t i = 0;
    for (; i + VL <= n; i += VL) {
        V wi = vload(w + i), mi = vload(m + i), vi = vload(v + i);
        step(&wi, vload(g + i), &mi, &vi, &c);
        vstore(w + i, wi), vstore(m + i, mi), vstore(v + i, vi);
    }
    if (i < n) {
        size_t rest = n - i;
        V wi = vload_part(w + i, rest, 0), mi = vload_part(m + i, rest, 0), vi = vload_part(v + i, rest, 0);
        step(&wi, vload_part(g + i, rest, 0), &mi, &vi, &c);
        vstore_part(w + i, rest, wi), vstore_part(m + i, rest, mi), vstore_part(v + i, rest, vi);
    }
}

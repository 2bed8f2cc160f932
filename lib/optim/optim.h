/* SPDX-License-Identifier: MIT */
/*
 * What the optimizers' files share: option rows, and the arithmetic of a vector of weights.
 *
 * The files in this folder are compiled once a vector level, as kernels are; each level's table lists its own
 * definitions, and tn_optim_find gives those of the level in use. So a step is written in place, on the vectors of
 * kernels/vec.h and vdiv.h, and adding an optimizer is one file here and one line in optims.def (wrappers: wrappers.def). A file has, in this order:
 *
 *   options      a struct of doubles and ints and its table of rows
 *   slots        which state each weight has
 *   coefficients a struct of tn_real: everything that is the same for all weights, made once in double and rounded
 *                once; the step gets it by value, so that it lives in registers
 *   step         TN_STEP NAME_step(const coef c, const tn_opt_tensor p, size_t i, size_t n):
 *                weights i ... i + n - 1, n <= VL; vget and vput read and write n lanes; a sum of a product is one vfma
 *   update       makes the coefficients, then TN_EACH_VECTOR(lo, hi, NAME_step, c, *p)
 *   definition   const tn_optim_def TN_OPTIM_DEF(NAME) = {...}
 *
 * A step reads every array once and writes it once: at more weights than a cache holds it can only be as fast as memory
 * is. It must use nothing but what these have, so that all levels give the same bits, and must not swallow NaN.
 */
#ifndef TN_OPTIM_H
#define TN_OPTIM_H
#include "internal.h"
#include "kernels/vdiv.h"
#include <float.h>
#include <stdint.h>

#define TN_OPTIM_DEF(name) TN_LEVEL_NAME(optim_##name)

#define TN_OPTIM(name) extern const tn_optim_def TN_OPTIM_DEF(name);
#include "optims.def"
#include "wrappers.def"
#undef TN_OPTIM

#define TN_OPT_LR(S, def) TN_OPT_REAL(S, lr, def, 0, 1e6, 0, "learning rate")
#define TN_OPT_L2(S, def)                        \
    TN_OPT_REAL(S, weight_decay, def, 0, 1e6, 0, \
                "lambda of the penalty lambda/2 |w|^2, added to the gradient")

#define TN_OPT_BETA(S, name, def, help) TN_OPT_REAL(S, name, def, 0, 1, TN_OPEN_MAX, help)

static inline size_t tn_elements(int nd, const int *dim) {
    size_t n = 1;
    for (int i = 0; i < nd; i++) n *= (size_t)dim[i];
    return n;
}

/* lambda of the penalty that enters the gradient of this tensor. */
static inline tn_real tn_l2_of(double weight_decay, const tn_tick *k, const tn_opt_tensor *p) {
    return p->flags & TN_NO_DECAY ? 0 : (tn_real)(weight_decay * k->wd_mul);
}

/* ---- what tern explain shows ---- */

#define TN_UNUSED_ARG __attribute__((unused))
/* double NAME: a column's value, of element 0. hp: options, k: tick, old and p: the tensor before and after. */
#define TN_VALUE(NAME)                                                               \
    static double NAME(TN_UNUSED_ARG const void *hp, TN_UNUSED_ARG const tn_tick *k, \
                       TN_UNUSED_ARG const tn_opt_tensor *old, TN_UNUSED_ARG const tn_opt_tensor *p)
/* -shrink w of a weight that decays. */
static inline double tn_shrunk_by(double shrink, const tn_opt_tensor *old) {
    return old->flags & TN_NO_DECAY ? 0 : -shrink * (double)old->w[0];
}
/* penalty of decay that stands beside the gradient, though no shrink tells it. */
static inline int tn_no_penalty(TN_UNUSED_ARG const void *hp) {
    return 0;
}
#define TN_EXPLAIN_END \
    { NULL, NULL, NULL, 0, NULL }

/* g + lambda w of a weight that decays. */
static inline double tn_penalized(double weight_decay, const tn_tick *k, const tn_opt_tensor *old) {
    return (double)old->g[0] + (old->flags & TN_NO_DECAY ? 0 : weight_decay * k->wd_mul) * (double)old->w[0];
}

/*
 * Of an optimizer whose weight_decay is a penalty or, with decoupled_weight_decay, stands beside the step; both are
 * columns, and the penalty's moment is one of beta1.
 */
#define TN_EITHER_DECAY(S, shrink_of)                                                          \
    static int has_l2(const void *hp) {                                                        \
        return ((const S *)hp)->weight_decay != 0 && !((const S *)hp)->decoupled_weight_decay; \
    }                                                                                          \
    static int has_decay(const void *hp) {                                                     \
        return ((const S *)hp)->weight_decay != 0 && ((const S *)hp)->decoupled_weight_decay;  \
    }                                                                                          \
    TN_VALUE(penalized) {                                                                      \
        return tn_penalized(has_l2(hp) ? ((const S *)hp)->weight_decay : 0, k, old);           \
    }                                                                                          \
    TN_VALUE(decay_value) {                                                                    \
        return tn_shrunk_by(shrink_of(hp, k), old);                                            \
    }                                                                                          \
    static void either_decay_track(const void *hp, const tn_tick *k, const tn_opt_tensor *p,   \
                                   tn_real *moment, long past, size_t lo, size_t hi) {         \
        const S *h = hp;                                                                       \
        if (h->decoupled_weight_decay) return;                                                 \
        tn_track_average(h->beta1, h->weight_decay * k->wd_mul, p, moment, past, lo, hi);      \
    }

/* ---- a vector of weights ---- */

/* Always inlined: called, it would pass its structs through memory. */
#define TN_STEP       TN_HALF(void)
#define TN_HALF(type) static inline __attribute__((always_inline)) type

/*
 * step(..., i, n) for [lo, hi): whole vectors, then what is left. The step is inlined twice, with n = VL known in the
 * first, which so has no test of n.
 */
#define TN_EACH_VECTOR(lo, hi, step, ...)                               \
    do {                                                                \
        size_t at_ = (lo), end_ = (hi);                                 \
        for (; at_ + VL <= end_; at_ += VL) step(__VA_ARGS__, at_, VL); \
        if (at_ < end_) step(__VA_ARGS__, at_, end_ - at_);             \
    } while (0)

/*
 * The same for a step in two halves: NAME_head(..., i, n) gives what NAME_tail(that, ..., i, n) needs. The head of the next
 * vector comes before the tail of this one, so that a root is ready where it is divided by.
 */
#define TN_EACH_VECTOR_AHEAD(lo, hi, name, ...)                                    \
    do {                                                                           \
        size_t at_ = (lo), end_ = (hi);                                            \
        if (at_ + VL <= end_) {                                                    \
            name##_lanes x_ = name##_head(__VA_ARGS__, at_, VL);                   \
            for (; at_ + 2 * VL <= end_; at_ += VL) {                              \
                const name##_lanes next_ = name##_head(__VA_ARGS__, at_ + VL, VL); \
                name##_tail(x_, __VA_ARGS__, at_, VL);                             \
                x_ = next_;                                                        \
            }                                                                      \
            name##_tail(x_, __VA_ARGS__, at_, VL);                                 \
            at_ += VL;                                                             \
        }                                                                          \
        if (at_ < end_) {                                                          \
            const name##_lanes x_ = name##_head(__VA_ARGS__, at_, end_ - at_);     \
            name##_tail(x_, __VA_ARGS__, at_, end_ - at_);                         \
        }                                                                          \
    } while (0)

/* Asks for what comes 8 lines later: 5% faster where the arrays are in the second cache. */
static inline V vget(const tn_real *p, size_t n) {
    __builtin_prefetch((const void *)((uintptr_t)p + 512));
    return n == VL ? vload(p) : vload_part(p, n, 0);
}
static inline void vput(tn_real *p, size_t n, V v) {
    if (n == VL)
        vstore(p, v);
    else
        vstore_part(p, n, v);
}

/*
 * State below the smallest normal number becomes 0. The averages of a dead unit shrink by a factor a step, and would
 * otherwise stay subnormal for hundreds of steps or for good, in which arithmetic is several times slower. What is lost
 * is less than 2e-38 in an average and 2e-19 in the root of one, far below any eps in use. NaN compares false and
 * stays.
 */
static inline V vflush(V x) {
    return vwhere(x, x, vbits(vset1((tn_real)INFINITY))); /* the bits of the exponent */
}

/*
 * A first average becomes 0 below 2^-95 already: the remainder of a quotient m / root is 2^-24 m or less, and
 * processors take some hundred cycles for a vector in which such a number is subnormal. Pixels that are rarely lit leave
 * many: on MNIST a step over mlp's 101,770 parameters took 72 us with vflush, 41 with this.
 */
static inline V vsettled(V m) {
#ifdef TN_DOUBLE
    return vflush(m); /* divides */
#else
    return vwhere(m, m, vbits(vset1(0x1p97f))); /* the three upper bits of the exponent: 2^-95 or more */
#endif
}

/*
 * share g g, in this order as g g alone would underflow for more, and 0 where g g is below the smallest normal number: an
 * average drops that anyway, and a product that underflows takes processors some hundred cycles. A penalty alone, on
 * weights that no gradient reaches, makes many: on MNIST adaml2's step over mlp took 100 us and more, with this some 66.
 */
static inline V vsquared(tn_real share, V g) {
#ifdef TN_DOUBLE
    const VU above = vbits(vset1(0x1p513)); /* the two upper bits of the exponent: 2^-511 or more */
#else
    const VU above = vbits(vset1(0x1p65f));     /* 2^-63 or more */
#endif
    return vwhere(vset1(share) * g, g, above) * g;
}

/* -1, 0 or 1; NaN of NaN. */
static inline V vsign(V x) {
    const V one = vcopysign(vset1(1), x);
    return vsel(VMASK(x == x), vsel(veq(x, vset1(0)), vset1(0), one), x);
}

/*
 * Sums of squares in double: element i belongs to lane i mod TN_LANES at every level. The square of a float is exact, so
 * that whether it is fused into the sum changes no bit.
 */
static inline void vadd_squares(double lane[TN_LANES], V x, size_t i, size_t n) {
    tn_real t[VL];
    vstore(t, x);
    double *at = lane + i % TN_LANES;
    if (n == VL)
        for (size_t l = 0; l < VL; l++) at[l] += (double)t[l] * (double)t[l];
    else
        for (size_t l = 0; l < n; l++) at[l] += (double)t[l] * (double)t[l];
}
static inline double tn_add_lanes(double lane[TN_LANES]) {
    for (int half = TN_LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

/* Neither 0 nor -0; of the bits, as a loop tests these where it does not compare numbers. */
static inline int tn_is_on(tn_real factor) {
    tn_real zero = 0;
    return memcmp(&factor, &zero, sizeof factor) != 0;
}
/* g + l2 w: no bit of g changes where l2 is 0. */
static inline V vpenalized(V g, tn_real l2, V w) {
    return tn_is_on(l2) ? vfma(vset1(l2), w, g) : g;
}
/* w - shrink w, likewise. */
static inline V vshrunk(V w, tn_real shrink) {
    return tn_is_on(shrink) ? vfma(vset1(-shrink), w, w) : w;
}
/* A penalty's moment: moment = b moment + c w, or first w. See decay_track. */
TN_STEP tn_moment_step(tn_real *moment, const tn_real *w, tn_real b, tn_real c, size_t i, size_t n) {
    vput(moment + i, n, vfma(vset1(b), vget(moment + i, n), vset1(c) * vget(w + i, n)));
}
TN_STEP tn_moment_first(tn_real *moment, const tn_real *w, tn_real first, size_t i, size_t n) {
    vput(moment + i, n, vset1(first) * vget(w + i, n));
}
/* decay_part of w *= 1 - shrink, for definitions that have other decay as well. */
static inline void tn_shrink_part(double shrink, const tn_real *old, tn_real *part, size_t lo, size_t hi) {
    for (size_t i = lo; i < hi; i++) part[i] = (tn_real)(-shrink * (double)old[i]);
}
/* decay_track of an average of gradients: moment = beta moment + (1 - beta) lambda w, in each of the steps. */
static inline void tn_track_average(double beta, double lambda, const tn_opt_tensor *p, tn_real *moment,
                                    long past, size_t lo, size_t hi) {
    const double kept = tn_exact_powi(beta, past < 0 ? -past : past + 1);
    const tn_real b = (tn_real)kept, c = (tn_real)((1 - kept) * lambda);
    if (past >= 0)
        TN_EACH_VECTOR(lo, hi, tn_moment_first, moment, p->w, c);
    else
        TN_EACH_VECTOR(lo, hi, tn_moment_step, moment, p->w, b, c);
}
#endif

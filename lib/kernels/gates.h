/* SPDX-License-Identifier: MIT */
/*
 * tanh and the logistic function for the gates of recurrent cells: vmath.h's without gradual underflow and the sign of
 * zero, which a gate can do without, by half of the operations. Only such as IEEE 754 rounds correctly, so every level
 * gives the same bits. NaN passes: whatever power of two is made of its bits, a polynomial that is NaN is multiplied by
 * it. The double build takes libm's.
 *
 * The polynomials were fitted for this file as vmath.h's were. Largest error found over every float, in units of the last
 * place: tanh 2.54, logistic 2.44 from -20 on and 4.49 below, where it is less than 3e-9; absolute: 1.5e-7 and 9e-8.
 */
#ifndef TN_KERNELS_GATES_H
#define TN_KERNELS_GATES_H
#include "vec.h"

/* Two vectors whose operations alternate: one alone, a chain of some forty operations, would be waited for. */
typedef struct {
    V a, b;
} pair;

static inline pair pair_load(const tn_real *p, const tn_real *q) {
    return (pair){vload(p), vload(q)};
}
static inline void pair_store(tn_real *p, tn_real *q, pair v) {
    vstore(p, v.a), vstore(q, v.b);
}
static inline pair pair_set1(tn_real s) {
    return (pair){vset1(s), vset1(s)};
}
static inline pair pair_add(pair x, pair y) {
    return (pair){x.a + y.a, x.b + y.b};
}
static inline pair pair_sub(pair x, pair y) {
    return (pair){x.a - y.a, x.b - y.b};
}
static inline pair pair_mul(pair x, pair y) {
    return (pair){x.a * y.a, x.b * y.b};
}
static inline pair pair_div(pair x, pair y) {
    return (pair){x.a / y.a, x.b / y.b};
}
static inline pair pair_fma(pair x, pair y, pair z) {
    return (pair){vfma(x.a, y.a, z.a), vfma(x.b, y.b, z.b)};
}

#ifdef TN_DOUBLE

static inline pair gate_tanh(pair x) {
    return (pair){tanh(x.a), tanh(x.b)};
}
static inline pair gate_logistic(pair x) {
    return (pair){1 / (1 + exp(-x.a)), 1 / (1 + exp(-x.b))};
}

#else

#define GATE_SHIFT (0x1.8p23f + 127) /* a float near it has no fraction; its low bits are its integer + 127 */

/* x between -least and least; of NaN NaN, which is why x is the second argument. */
static inline pair gate_clamp(pair x, float least) {
    x = (pair){vmax(vset1(-least), x.a), vmax(vset1(-least), x.b)};
    return (pair){vmin(vset1(least), x.a), vmin(vset1(least), x.b)};
}

/* 2^n of what GATE_SHIFT was added to. */
static inline pair gate_power(pair shifted) {
    return (pair){vfrom_bits(vbits(shifted.a) << 23), vfrom_bits(vbits(shifted.b) << 23)};
}

/*
 * 2 x = n ln 2 + 2 r with |r| <= ln(2) / 4, and w = tanh(r) by an odd polynomial. As exp(2 r) = (1 + w) / (1 - w), with
 * s = 2^n tanh(x) = (s (1 + w) - (1 - w)) / (s (1 + w) + (1 - w)): exact for n = 0, odd in x to the bit, never above 1,
 * which it is from 9.01 on.
 */
static inline pair gate_tanh(pair x) {
    const pair one = pair_set1(1), shift = pair_set1(GATE_SHIFT);
    x = gate_clamp(x, 10);
    pair shifted = pair_fma(x, pair_set1(0x1.715476p1f), shift);
    pair r = pair_fma(pair_sub(shifted, shift), pair_set1(-0x1.62e43p-2f), x);
    pair s = gate_power(shifted), y = pair_mul(r, r);
    pair w = pair_fma(pair_set1(0x1.0c817p-3f), y, pair_set1(-0x1.554feep-2f));
    w = pair_fma(pair_mul(r, y), w, r);
    pair more = pair_add(s, one), less = pair_sub(s, one);
    return pair_div(pair_fma(w, more, less), pair_fma(w, less, more));
}

/*
 * 1 / (1 + exp(-x)), for |x| above 87 that of 87. With x + n ln 2 = r, |r| <= ln(2) / 2, and c = r coth(r / 2), a polynomial
 * of r^2, exp(r) = (c + r) / (c - r): so it is (c + r) / ((c + r) + 2^n (c - r)), by one division and few operations.
 */
static inline pair gate_logistic(pair x) {
    const pair shift = pair_set1(GATE_SHIFT);
    x = gate_clamp(x, 87);
    pair shifted = pair_fma(x, pair_set1(-0x1.715476p0f), shift), n = pair_sub(shifted, shift);
    pair r = pair_fma(n, pair_set1(0x1.62e43p-1f), x), y = pair_mul(r, r);
    pair c = pair_fma(y, pair_set1(-0x1.6a8c98p-9f), pair_set1(0x1.555514p-3f));
    c = pair_fma(c, y, pair_set1(2));
    pair more = pair_add(c, r), less = pair_sub(c, r);
    return pair_div(more, pair_fma(gate_power(shifted), less, more));
}

#endif
#endif

/* SPDX-License-Identifier: MIT */
/*
 * exp, log, tanh, sigmoid and softplus on vectors. The float versions use only operations that IEEE 754
 * rounds correctly, so every level and every C library gives the same bits. The double build takes libm's:
 * it serves gradient checks, which need accuracy and not one bit pattern.
 *
 * The polynomials were fitted for this file (minimax in relative error, coefficients rounded to float one
 * after another). Largest error found, in units of the last place: tanh 2.42 (every float); exp 0.98, sigmoid
 * 2.37, softplus 1.97 (every fifth); log 0.81 (every seventh).
 */
#ifndef TN_KERNELS_VMATH_H
#define TN_KERNELS_VMATH_H
#include "vec.h"

static inline V vrelu(V x) {
    return vmax(vset1(0), x);
}

#ifdef TN_DOUBLE

static inline V vexp(V x) {
    return exp(x);
}
static inline V vlog(V x) {
    return log(x);
}
static inline V vlog1p_unit(V z) {
    return log1p(z);
}
static inline V vtanh(V x) {
    return tanh(x);
}

#else

/* x = n ln 2 + r, |r| <= ln(2) / 2, for |x| < 2^22 ln 2; n also as an integer, and exp(r) - 1. */
typedef struct {
    VI n;
    V expm1_r;
} exp_parts;

static inline exp_parts reduce_exp(V x) {
    const V to_integer = vset1(0x1.8p23f); /* a float of this size has no fraction: adding it rounds */
    V shifted = vfma(x, vset1(0x1.715476p0f), to_integer);
    V n = shifted - to_integer;
    V r = vfma(n, vset1(-0x1.62e43p-1f), x); /* ln 2 in two parts; x = n ln 2 is nearly cancelled */
    r = vfma(n, vset1(0x1.05c61p-29f), r);
    V q = vset1(0x1.9e7340p-13f);
    q = vfma(q, r, vset1(0x1.6d3a48p-10f));
    q = vfma(q, r, vset1(0x1.1112d8p-7f));
    q = vfma(q, r, vset1(0x1.5554f8p-5f));
    q = vfma(q, r, vset1(0x1.555554p-3f));
    q = vfma(q, r, vset1(0x1.0p-1f));
    return (exp_parts){(VI)(vbits(shifted) - vbits(to_integer)), vfma(r * r, q, r)};
}

/* 2^n for -126 <= n <= 127. */
static inline V power_of_two(VI n) {
    return vfrom_bits(((VU)n + 127) << 23);
}

/* Overflows to infinity, underflows gradually to 0. The scale is two factors, each a normal number. */
static inline V vexp(V x) {
    x = vmin(vset1(89.0f), vmax(vset1(-104.0f), x)); /* in this order of arguments NaN passes */
    exp_parts e = reduce_exp(x);
    VI half = e.n >> 1;
    return (e.expm1_r + 1.0f) * power_of_two(half) * power_of_two(e.n - half);
}

/* For normal x > 0: x = 2^n (1 + f) with 1 + f between sqrt(1/2) and sqrt(2); 2^-more is put on top. */
static inline V log_of_normal(V x, V more) {
    const VU root_half = vbits(vset1(0x1.6a09e6p-1f));
    VI e = (VI)(vbits(x) - root_half) >> 23;
    V n = vfrom_int(e) - more;
    V f = vfrom_bits(vbits(x) - ((VU)e << 23)) - 1.0f;
    V p = vset1(0x1.14733ep-4f);
    p = vfma(p, f, vset1(-0x1.de01dcp-4f));
    p = vfma(p, f, vset1(0x1.e6c00ap-4f));
    p = vfma(p, f, vset1(-0x1.fc28cap-4f));
    p = vfma(p, f, vset1(0x1.233ba2p-3f));
    p = vfma(p, f, vset1(-0x1.555c44p-3f));
    p = vfma(p, f, vset1(0x1.99a476p-3f));
    p = vfma(p, f, vset1(-0x1.000006p-2f));
    p = vfma(p, f, vset1(0x1.555548p-2f));
    V ff = f * f;
    V low = vfma(ff * f, p, n * -0x1.05c61p-29f); /* ln 2 in two parts */
    low = vfma(ff, vset1(-0.5f), low);
    return vfma(n, vset1(0x1.62e43p-1f), f + low);
}

static inline V vlog(V x) {
    const V inf = vset1(INFINITY);
    VI tiny = vlt(x, vset1(0x1p-126f)); /* subnormal numbers are made normal */
    V y = log_of_normal(vsel(tiny, x * 0x1p23f, x), vsel(tiny, vset1(23.0f), vset1(0)));
    y = vsel(vlt(x, inf), y, x); /* infinity and NaN */
    y = vsel(veq(x, vset1(0)), -inf, y);
    return vsel(vlt(x, vset1(0)), vset1(NAN), y);
}

/* log(1 + z) for 0 <= z <= 1: what is lost in rounding 1 + z is added to first order. */
static inline V vlog1p_unit(V z) {
    V u = z + 1.0f;
    return log_of_normal(u, vset1(0)) + (z - (u - 1.0f)) / u;
}

/* E / (E + 2) with E = exp(2 |x|) - 1, which is accurate near 0 and 1 from 9.02 on. */
static inline V vtanh(V x) {
    V a = vmin(vset1(10.0f), vabs(x));
    exp_parts e = reduce_exp(a + a);
    V scale = power_of_two(e.n);
    V em1 = vfma(scale, e.expm1_r, scale - 1.0f);
    return vcopysign(em1 / (em1 + 2.0f), x);
}

#endif

/* z / (1 + z) or 1 / (1 + z) with z = exp(-|x|): no overflow, and full accuracy on the small side. */
static inline V vsigmoid(V x) {
    V z = vexp(-vabs(x));
    return vsel(vlt(x, vset1(0)), z, vset1(1)) / (z + 1);
}

static inline V vsoftplus(V x) {
    return vrelu(x) + vlog1p_unit(vexp(-vabs(x)));
}
#endif

/* SPDX-License-Identifier: MIT */
/*
 * Quotients and reciprocals out of multiplications, for loops that also take a root: the divider makes 16 floats in 10
 * cycles and their roots in 12, one after the other, and the multipliers have little else to do. The same operations at
 * every level, so the same bits; no estimate of the processor's, as these differ between makers. In double the divider
 * does it.
 */
#ifndef TN_KERNELS_VDIV_H
#define TN_KERNELS_VDIV_H
#include "vec.h"

#ifndef TN_DOUBLE
/* 1 / b within rounding, from y = 1 / b within 5.1%: a cubic step makes that 1.4e-4, a Newton step the rest. */
static inline V vsharpen(V y, V b) {
    const V one = vset1(1), e = vfnma(b, y, one);
    y = vfma(vfma(e, e, e), y, y);
    return vfma(vfnma(b, y, one), y, y);
}
#endif

/*
 * a / b for b >= 0, within 1.8 units of the last place. An integer subtraction estimates y = 1 / b within 5.1%, which is
 * made sharper. Where b is 0, near an end of the range, infinite or NaN, the lane is divided. (To correct q = a y by
 * (a - b q) y instead would be closer, but what is left of a small a is subnormal.)
 */
static inline V vquotient(V a, V b) {
#ifdef TN_DOUBLE
    return a / b;
#else
    const VU least = vbits(vset1(0x1p-100f)), most = vbits(vset1(0x1p100f));
    const VU above = vbits(b) - least, span = most - least;
    V q = a * vsharpen(vfrom_bits(0x7ef311c7u - vbits(b)), b);
    if (__builtin_expect(vany_above(above, span), 0)) q = vsel(VMASK(above > span), a / b, q);
    return q;
#endif
}

/*
 * The same for b a root with something added, which is finite only up to 2^92: the estimate, an unsigned number, is too
 * large where b is too small, and where b is infinite, NaN or negative. So one comparison does.
 */
static inline V vover_root(V a, V b) {
#ifdef TN_DOUBLE
    return a / b;
#else
    const VU start = 0x7ef311c7u - vbits(b), most = 0x7ef311c7u - vbits(vset1(0x1p-100f));
    V q = a * vsharpen(vfrom_bits(start), b);
    if (__builtin_expect(vany_above(start, most), 0)) q = vsel(VMASK(start > most), a / b, q);
    return q;
#endif
}

/*
 * 1 / sqrt(b) within 1.5 units of the last place, for a loop that has the divider take another root. An integer shift and
 * subtraction estimate it within 3.5%, a cubic step makes that 1.1e-4 and a Newton step rounding. Where b is not positive
 * and normal the divider makes it.
 */
static inline V vrsqrt(V b) {
#ifdef TN_DOUBLE
    return 1 / vsqrt(b);
#else
    const V one = vset1(1), half = vset1(0.5f);
    const VU least = vbits(vset1(0x1p-126f)), span = vbits(vset1(0x1.fffffep127f)) - least;
    const VU above = vbits(b) - least;
    V y = vfrom_bits(0x5f375a86u - (vbits(b) >> 1));
    V e = vfnma(b * y, y, one);
    y = vfma(y * e, vfma(e, vset1(0.375f), half), y);
    y = vfma(vfnma(b * y, y, one), half * y, y);
    if (__builtin_expect(vany_above(above, span), 0)) y = vsel(VMASK(above > span), one / vsqrt(b), y);
    return y;
#endif
}
#endif

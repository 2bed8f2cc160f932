/* SPDX-License-Identifier: MIT */
/*
 * For the tests of kernels: every table that this machine runs, side by side in one process; numbers, among them special
 * ones; comparisons. With TN_TEST_WIDE the level "wide", which exists for tests alone, is among them. Static, as it
 * differs with that and with TN_DOUBLE.
 */
#ifndef TEST_KERNEL_LEVELS_H
#define TEST_KERNEL_LEVELS_H
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "kernels.h"

#ifdef TN_DOUBLE
typedef long double ref;
typedef uint64_t bits;
#define REF(f)   f##l
#define EPS      DBL_EPSILON
#define BIGGEST  DBL_MAX
#define SMALLEST DBL_MIN
#define FMA      fma
enum { DIGITS = 53, MIN_EXP = -1074 };
#else
typedef double ref;
typedef uint32_t bits;
#define REF(f)   f
#define EPS      FLT_EPSILON
#define BIGGEST  FLT_MAX
#define SMALLEST FLT_MIN
#define FMA      fmaf
enum { DIGITS = 24, MIN_EXP = -149 };
#endif

static const tn_kernels_t *plain, *level[8];
static int levels;

#ifdef TN_TEST_WIDE
extern const tn_kernels_t tn_k_table_wide;
#endif

static inline void find_levels(void) {
    static const char *const names[] = {"plain", "avx2", "avx512", "neon"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const tn_kernels_t *k = tn_kernels_level(names[i]);
        if (k) level[levels++] = k;
    }
    plain = level[0];
#ifdef TN_TEST_WIDE
    if (tn_kernels_level("avx2")) level[levels++] = &tn_k_table_wide;
#endif
    for (int i = 0; i < levels; i++) print_message("level %s: %d wide\n", level[i]->name, level[i]->width);
}

/* ---- helpers --------------------------------------------------------------------------------------- */

static uint64_t seed = 1;
static inline uint64_t next(void) {
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static inline tn_real uniform(void) {
    return (tn_real)((double)(next() >> 11) * 0x1p-52 - 1);
}
static inline tn_real *room(size_t n) {
    tn_real *p = malloc((n ? n : 1) * sizeof *p);
    assert_non_null(p);
    return p;
}
/* On a cache line and full of NaN, so that what is read before it is written shows. */
static inline tn_real *aligned_room(size_t n) {
    tn_real *p = aligned_alloc(64, (n * sizeof *p + 63) / 64 * 64);
    assert_non_null(p);
    for (size_t i = 0; i < n; i++) p[i] = (tn_real)NAN;
    return p;
}
static inline tn_real *random_reals(size_t n) {
    tn_real *p = room(n);
    for (size_t i = 0; i < n; i++) p[i] = uniform();
    return p;
}
static inline tn_real *copy_of(const tn_real *x, size_t n) {
    tn_real *p = room(n);
    if (n) memcpy(p, x, n * sizeof *p);
    return p;
}
static inline int same(tn_real a, tn_real b) {
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); /* which NaN is not specified */
}
static inline void assert_same(const char *what, const char *name, const tn_real *got, const tn_real *want,
                               size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!same(got[i], want[i]))
            fail_msg("%s, %s: element %zu of %zu is %a, not %a", what, name, i, n, (double)got[i],
                     (double)want[i]);
}
static inline void assert_near(const char *what, ref got, ref want, ref tolerance) {
    if (!(REF(fabs)(got - want) <= tolerance))
        fail_msg("%s: %.17g, not %.17g (+- %g)", what, (double)got, (double)want, (double)tolerance);
}

static const tn_real specials[] = {0,
                                   (tn_real)-0.0,
                                   1,
                                   -1,
                                   (tn_real)0.5,
                                   NAN,
                                   INFINITY,
                                   -INFINITY,
                                   BIGGEST,
                                   -BIGGEST,
                                   SMALLEST,
                                   -SMALLEST,
                                   SMALLEST / 2,
                                   -SMALLEST / 4,
                                   SMALLEST *EPS,
                                   (tn_real)1e-20,
                                   (tn_real)-1e-20,
                                   (tn_real)88.7,
                                   (tn_real)-103.9};
enum { SPECIALS = sizeof specials / sizeof *specials };

/* Random numbers with the special ones strewn in. */
static inline tn_real *mixed_reals(size_t n) {
    tn_real *p = random_reals(n);
    for (size_t i = 0; i < n; i++)
        if (next() % 4 == 0) p[i] = specials[next() % SPECIALS];
    return p;
}

/* Every so many-th bit pattern, so every exponent and both signs; then what lies where the functions bend. */
static inline tn_real *sweep(size_t *n) {
    size_t patterns = 400000, dense = 200000;
    tn_real *x = room(*n = patterns + dense + SPECIALS);
    for (size_t i = 0; i < patterns; i++) {
        bits b = (bits)i * (((bits)-1) / (bits)patterns) + (bits)(next() % 997);
        memcpy(&x[i], &b, sizeof b);
    }
    for (size_t i = 0; i < dense; i++) x[patterns + i] = uniform() * (i % 2 ? 2 : 110);
    memcpy(x + patterns + dense, specials, sizeof specials);
    return x;
}
#endif

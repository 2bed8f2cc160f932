/* SPDX-License-Identifier: MIT */
/* What the stats_*.c files share: error messages, input checks, the rounding guard, random bits. */
#ifndef TERN_STATS_PRIVATE_H
#define TERN_STATS_PRIVATE_H

#include <float.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tern_stats.h"

static inline int stats_fail(tn_stats_err *err, int code, const char *fmt, ...) {
    if (err) {
        va_list ap;
        va_start(ap, fmt);
        vsnprintf(err->msg, sizeof err->msg, fmt, ap);
        va_end(ap);
    }
    return code;
}

static inline int stats_check_level(double level, tn_stats_err *err) {
    if (level > 0 && level < 1) return 0;
    return stats_fail(err, TN_STATS_RANGE,
                      "confidence level %g: it must lie between 0 and 1, for example 0.95", level);
}

static inline double stats_abs_sum(const double *x, int n) {
    double s = 0;
    for (int i = 0; i < n; i++) s += fabs(x[i]);
    return s;
}

static inline int stats_check_data(const char *name, const double *x, int n, tn_stats_err *err) {
    if (n < 1) return stats_fail(err, TN_STATS_RANGE, "%s has %d values: at least 1 is needed", name, n);
    for (int i = 0; i < n; i++) {
        if (!isfinite(x[i])) {
            return stats_fail(err, TN_STATS_NONFINITE,
                              "%s[%d] is %g: give a diverged run the value of guessing, do not pass it on",
                              name, i, x[i]);
        }
    }
    if (stats_abs_sum(x, n) > DBL_MAX / 4) {
        return stats_fail(err, TN_STATS_NONFINITE, "the values of %s are so large that their sum overflows",
                          name);
    }
    return 0;
}

/* A sum of some of d[0..n) that is no larger than this is rounding error. */
static inline double stats_guard(const double *d, int n, double scale) {
    return 1e-11 * stats_abs_sum(d, n) + 4 * DBL_EPSILON * n * scale;
}

static inline int stats_cmp(const void *x, const void *y) {
    double a = *(const double *)x, b = *(const double *)y;
    return (a > b) - (a < b);
}

/* A sorted copy; results must not depend on the order of the pairs. NULL without memory. */
static inline double *stats_sorted(const double *x, int n) {
    double *s = malloc((size_t)n * sizeof *s);
    if (!s) return NULL;
    memcpy(s, x, (size_t)n * sizeof *s);
    qsort(s, (size_t)n, sizeof *s, stats_cmp);
    return s;
}

/* splitmix64 (Steele, Lea, Flood 2014): one word of state, each call one word of random bits. */
static inline uint64_t stats_random(uint64_t *state) {
    uint64_t z = *state += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

#endif

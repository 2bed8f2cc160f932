/* SPDX-License-Identifier: MIT */
/* What the probes share: a check that prints and exits 1. Everything else comes from the public headers. */
#ifndef PROBE_H
#define PROBE_H
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPECT(cond, ...) ((cond) ? (void)0 : probe_fail(__FILE__, __LINE__, #cond, __VA_ARGS__))

#if defined(__GNUC__)
__attribute__((format(printf, 4, 5), noreturn))
#endif
static inline void
probe_fail(const char *file, int line, const char *cond, const char *fmt, ...) {
    va_list ap;
    fprintf(stderr, "%s:%d: %s: ", file, line, cond);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    exit(1);
}

/* |a - b| within tol of the larger of 1, |a| and |b|; a NaN is close to nothing. */
static inline int probe_close(double a, double b, double tol) {
    return fabs(a - b) <= tol * fmax(1, fmax(fabs(a), fabs(b)));
}
#endif

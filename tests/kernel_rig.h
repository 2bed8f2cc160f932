/* SPDX-License-Identifier: MIT */
/* What tests of kernels share: every vector level in turn, numbers, one fused multiply-add of the build's type. */
#ifndef TEST_KERNEL_RIG_H
#define TEST_KERNEL_RIG_H
#include <math.h>
#include <stddef.h>

#include "tern.h"

/*
 * run() in a process of its own for each vector level that this machine has, as the level is chosen once a process; run
 * gives 0 for success. Returns 0 when all did.
 */
int run_at_every_level(int (*run)(void));

/* A whole number, lo and hi included, from a generator that starts anew with the process. */
int draw(int lo, int hi);
/* n such numbers from -1000 to 1000, divided by 512, and room for one more; free. */
tn_real *reals(size_t n);

static inline tn_real fused(tn_real a, tn_real b, tn_real c) {
#ifdef TN_DOUBLE
    return fma(a, b, c);
#else
    return fmaf(a, b, c);
#endif
}
#endif

/* SPDX-License-Identifier: MIT */
/*
 * The products of a linear layer with many inputs and large weights: what counts there is how often the large arrays pass
 * through the caches. Forward goes through slabs of inputs, each with all units; backward takes some inputs of both
 * gradients at a time, so that the weights, the input and both gradients are read or written once. Every element is
 * the chain that tn_gemm makes.
 */
#ifndef TN_LINEAR_WIDE_H
#define TN_LINEAR_WIDE_H
#include "internal.h"

/* x (n, in), weights (out, in); back: for the gradients. 1: large enough. */
int tn_linear_wide_fits(int n, int in, int out, int back);
/* y (n, out) = x w' + bias (or NULL), then max(0, .) with relu. packed: w' by tn_gemm_pack, where that is there, or NULL. */
void tn_linear_wide_forward(tn_tape *, int n, int in, int out, const tn_real *x, const tn_real *w,
                            const tn_real *packed, const tn_real *bias, int relu, tn_real *y);
/* dx (n, in) = dz w, dw (out, in) = dz' x, each NULL where it is not wanted; bit 0 and 1 of add: added to them. */
void tn_linear_wide_back(tn_tape *, int n, int in, int out, const tn_real *dz, const tn_real *x,
                         const tn_real *w, unsigned add, tn_real *dx, tn_real *dw);
#endif

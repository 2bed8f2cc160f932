/* SPDX-License-Identifier: MIT */
/*
 * The products of a linear layer whose input is mostly zeros, such as pictures of digits or what a ReLU let through: the
 * zeros are skipped. To finite numbers that makes no difference, so every element has the bits of the chain that
 * tn_gemm makes (but for the sign of a zero that is left when a sum underflows), and other numbers are left to tn_gemm.
 */
#ifndef TN_LINEAR_SPARSE_H
#define TN_LINEAR_SPARSE_H
#include "internal.h"

/* x (n, in), weights (out, in). 1: worth it, by the shape and the share of zeros in some rows of x. */
int tn_linear_sparse_fits(tn_tape *, int n, int in, int out, const tn_real *x);
/* y (n, out) = x w' + bias (or NULL), then max(0, .) with relu. 0: nothing done, as a weight is infinite or NaN. */
int tn_linear_sparse_forward(tn_tape *, int n, int in, int out, const tn_real *x, const tn_real *w,
                             const tn_real *bias, int relu, tn_real *y);
/* dw (out, in) = dz' x, or += with add. 0: nothing done, as an element of dz (n, out) is infinite or NaN. */
int tn_linear_sparse_dw(tn_tape *, int n, int in, int out, const tn_real *dz, const tn_real *x, int add,
                        tn_real *dw);
#endif

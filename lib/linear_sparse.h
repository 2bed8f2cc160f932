/* SPDX-License-Identifier: MIT */
/*
 * The products of a linear layer whose input is mostly zeros, such as pictures of digits or what a ReLU let through: the
 * zeros are skipped. To finite numbers that makes no difference, so every element has the bits of the chain that
 * tn_gemm makes (but for the sign of a zero that is left when a sum underflows), and other numbers are left to tn_gemm.
 */
#ifndef TN_LINEAR_SPARSE_H
#define TN_LINEAR_SPARSE_H
#include "internal.h"

/*
 * Masks of what is not zero in x (n, in), on the tape, for the product forward and, with gradient, for the other; NULL where
 * skipping is not worth it, by the shape with out units and the share of zeros in some rows of x. x is still read.
 */
typedef struct tn_sparse_input tn_sparse_input;
const tn_sparse_input *tn_linear_sparse_input(tn_tape *, int n, int in, int out, const tn_real *x,
                                              int gradient);
/* y (n, out) = x w' + bias (or NULL), then max(0, .) with relu. 0: nothing done, as a weight is infinite or NaN. */
int tn_linear_sparse_forward(tn_tape *, const tn_sparse_input *x, int out, const tn_real *w,
                             const tn_real *bias, int relu, tn_real *y);
/*
 * dw (out, in) = dz' x and db = the sums of dz's columns, or NULL; += with add_dw and add_db. dz (n, out) is gy, behind the
 * activation whose value y is; it may be infinite or NaN.
 */
typedef struct {
    int out;
    tn_act act;
    const tn_real *y, *gy;
    tn_real *dw, *db;
    int add_dw, add_db;
} tn_sparse_back;
void tn_linear_sparse_back(tn_tape *, const tn_sparse_input *x, const tn_sparse_back *);
#endif

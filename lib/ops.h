/* SPDX-License-Identifier: MIT */
/* Shapes and strides that the primitive operations share. */
#ifndef TN_OPS_H
#define TN_OPS_H
#include "internal.h"

/* A walk over a result of up to 4 dimensions, with the strides of one or two operands beside it (0: stretched). */
typedef struct {
    int dim[TN_MAX_DIM];
    ptrdiff_t a[TN_MAX_DIM], b[TN_MAX_DIM];
} tn_walk;

/* Row-major strides of x, aligned at the right with nd dimensions of shape dim; 0 where x is stretched. */
void tn_strides(const tn_t *x, int nd, const int *dim, ptrdiff_t out[TN_MAX_DIM]);
/* Shape that a and b broadcast to; panics with the op's name and both shapes. Returns its number of dimensions. */
int tn_broadcast_shape(const char *op, const tn_t *a, const tn_t *b, int dim[TN_MAX_DIM]);
/* nd dimensions padded to four with ones on the left. */
void tn_pad4(int nd, const int *dim, int out[TN_MAX_DIM]);
/* An axis given as 0 ... nd - 1 or from the end as -1 ... -nd; panics otherwise. */
int tn_axis(const char *op, const tn_t *x, int axis);
#endif

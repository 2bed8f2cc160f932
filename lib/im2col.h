/* SPDX-License-Identifier: MIT */
/* Geometry of convolution and pooling windows, and the copy of windows into the columns of a matrix. */
#ifndef TN_IM2COL_H
#define TN_IM2COL_H
#include "internal.h"

/* One image (c, h, w), a window (kh, kw), and where the windows lie: oh x ow of them. */
typedef struct {
    int c, h, w, kh, kw, oh, ow;
    int sh, sw, ph, pw, dh, dw; /* stride, padding, dilation */
} tn_window;

/* Output size along one axis; 0 or less: the window does not fit. */
int tn_window_out(int in, int k, int stride, int pad, int dilation);
/*
 * col (c kh kw rows, (row1 - row0) ow columns): column p is the window of output position row0 ow + p of image x; zeros
 * where it hangs over the edge.
 */
void tn_im2col(const tn_window *, const tn_real *x, int row0, int row1, tn_real *col);
/* The adjoint: x += the columns, each element where it came from. */
void tn_col2im(const tn_window *, const tn_real *col, int row0, int row1, tn_real *x);
#endif

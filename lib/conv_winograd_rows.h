/* SPDX-License-Identifier: MIT */
/*
 * 5 x 5 convolution with 2 x 2 max pooling by Winograd's F(2, 5) along the columns, one image at a time: three fifths of the
 * multiplications; see kernels/winograd_rows.c. Rows of windows with results that are not finite are made by direct sums.
 */
#ifndef TN_CONV_WINOGRAD_ROWS_H
#define TN_CONV_WINOGRAD_ROWS_H
#include "conv.h"
#include "kernels/kernels.h"

/* 1: 5 x 5, stride 1, dilation 1, one group, 2 x 2 pooling, and channels enough; own kernels only. */
int tn_winograd_rows_fits(const tn_conv_plan *, const tn_window *pool);

/* What all images share. ld: output channels, whole panels of `panel` each. */
typedef struct {
    const tn_kernels_t *k;
    int ci, panel, ld;
    int down, across;            /* pooling windows */
    ptrdiff_t row, plane;        /* of an image, in reals */
    const tn_real *w, *u, *bias; /* w: panels (ld / panel, ci 25, panel); bias: filled up to ld, or NULL */
    int relu;
    const int *off; /* see tn_winograd_rows_terms */
} tn_winograd_rows;

/* Fills off (30 ci): of each term of a row's sum in the transformed rows, 5 ci, then of a direct sum in the image. */
void tn_winograd_rows_terms(const tn_winograd_rows *, int *off);
/* u, ld 30 ci reals, from w. */
void tn_winograd_rows_weights(const tn_winograd_rows *, tn_real *u);
/* Reals of scratch for one image. */
size_t tn_winograd_rows_scratch(const tn_winograd_rows *);
/* Image x, of planes, to y and the winners' places, both (down, across, ld). Runs on the calling thread. */
void tn_winograd_rows_image(const tn_winograd_rows *, const tn_real *x, tn_real *y, tn_real *place,
                            tn_real *scratch);
#endif

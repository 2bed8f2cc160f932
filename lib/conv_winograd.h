/* SPDX-License-Identifier: MIT */
/* 3 x 3 convolution by Winograd's F(4x4, 3x3), one image at a time; see kernels/winograd.c. */
#ifndef TN_CONV_WINOGRAD_H
#define TN_CONV_WINOGRAD_H
#include "conv.h"
#include "kernels/kernels.h"

/* 1: the shape is one that it can do (3 x 3, stride 1, dilation 1, one group) and that gains from it; own kernels only. */
int tn_winograd_fits(const tn_conv_plan *);
/* The transformed weights, once a version of the weights. Reals; made on tn_parallel. */
size_t tn_winograd_u_len(const tn_kernels_t *, int co, int ci);
void tn_winograd_weights(const tn_kernels_t *, int co, int ci, const tn_real *w, tn_real *u);
/* The same of the weights w of a convolution, kept where they are a parameter's. */
const tn_real *tn_winograd_kept(tn_tape *, const tn_kernels_t *, const tn_conv_plan *, const tn_real *w);
/* Reals of scratch for one image. */
size_t tn_winograd_scratch(const tn_kernels_t *, const tn_conv_plan *);
/*
 * One image x (ci, h, w) by weights w, transformed u, to y (co, oh, ow), plus bias (or NULL), then ReLU; with pool to y, winner (co, oh / 2, ow / 2):
 * 2 x 2 max pooling, winner (or NULL) 0 ... 3 for the first largest (or first NaN) of each window. Runs on the calling thread.
 */
void tn_winograd_image(const tn_kernels_t *, const tn_conv_plan *, const tn_real *x, const tn_real *w,
                       const tn_real *u, const tn_real *bias, int relu, int pool, tn_real *y,
                       unsigned char *winner, tn_real *scratch);
/*
 * The same where the image stands at the beginning of scratch already: h x w pixels, channels last, zeros around what lies
 * from pixel (ph, pw) on.
 */
void tn_winograd_frame(const tn_conv_plan *, int *h, int *w);
void tn_winograd_framed(const tn_kernels_t *k, const tn_conv_plan *p, const tn_real *w, const tn_real *u,
                        const tn_real *bias, int relu, int pool, tn_real *y, unsigned char *winner,
                        tn_real *scratch);
#endif

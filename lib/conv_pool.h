/* SPDX-License-Identifier: MIT */
/* act(conv2d(x, w) + b), then max pooling over windows that do not overlap: geometry and the two passes on numbers. */
#ifndef TN_CONV_POOL_H
#define TN_CONV_POOL_H
#include "conv.h"
typedef struct {
    tn_conv_plan conv; /* stride 1, dilation 1, one group */
    tn_window pool;    /* over the convolution's output: stride = kernel (at most 16 x 16), no padding; c =
                          output channels, h x w = conv.g.oh x ow */
    int relu;
} tn_conv_pool_plan;
/* y, winner (n, co, pool.oh, pool.ow): winner is the index i * pool.kw + j, within its window, of the first largest element (or first NaN) */
void tn_conv_pool_forward(tn_tape *, const tn_conv_pool_plan *, const tn_real *x, const tn_real *w,
                          const tn_real *bias, tn_real *y, unsigned char *winner);
/* Gradients that are wanted (gx, gw, gb not NULL) from gy (n, co, pool.oh, pool.ow); bit i of add: added to the i-th of gx, gw, gb. */
void tn_conv_pool_backward(tn_tape *, const tn_conv_pool_plan *, const tn_real *x, const tn_real *w,
                           const tn_real *y, const unsigned char *winner, const tn_real *gy, unsigned add,
                           tn_real *gx, tn_real *gw, tn_real *gb);
/* A window is cut into blocks of rows by `run` of its kw ci reals a row, so that the weights of one stay in the cache. */
void tn_conv_pool_block(const tn_conv_pool_plan *, int *rows, int *run);
#endif

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
/* The plan for an input of shape x; 0: this is not one. Panics where the convolution does not fit. */
int tn_conv_pool_plan_make(tn_tape *, const int x[4], const tn_t *w, const tn_t *b, const tn_conv *, tn_act,
                           const tn_pool *, tn_conv_pool_plan *);
/* The same result from primitives, by the winners that were found. */
tn_t *tn_conv_pool_again(tn_t *x, tn_t *w, tn_t *b, const tn_conv *, const tn_conv_pool_plan *,
                         const unsigned char *winner);
/*
 * y, winner (n, co, pool.oh, pool.ow): winner is the index i * pool.kw + j, within its window, of the first largest element (or
 * first NaN); NULL: not wanted.
 */
void tn_conv_pool_forward(tn_tape *, const tn_conv_pool_plan *, const tn_real *x, const tn_real *w,
                          const tn_real *bias, tn_real *y, unsigned char *winner);
/* Gradients that are wanted (gx, gw, gb not NULL) from gy (n, co, pool.oh, pool.ow); bit i of add: added to the i-th of gx, gw, gb. */
void tn_conv_pool_backward(tn_tape *, const tn_conv_pool_plan *, const tn_real *x, const tn_real *w,
                           const tn_real *y, const unsigned char *winner, const tn_real *gy, unsigned add,
                           tn_real *gx, tn_real *gw, tn_real *gb);
/*
 * The same where the input is no array: `make` makes that of image n, channels last, its rows `row` reals apart, inside a frame
 * of zeros, and `take` is given its gradient in such a frame. take NULL: not wanted. Both run in chunk `chunk`, images in order.
 * scale: gy is multiplied by it.
 */
typedef struct {
    void (*make)(const void *arg, int n, tn_real *x, ptrdiff_t row);
    void (*take)(const void *arg, int n, int chunk, const tn_real *x, const tn_real *gx, ptrdiff_t row);
    const void *arg;
    tn_real scale;
} tn_conv_source;
/* Of n images: with few a chunk, adding up the chunks' gradients, which lie in all threads' caches, would cost too much. */
static inline int tn_conv_chunks(int n) {
    enum { MOST = 16, FEWER = 8, ENOUGH = 4 * MOST };
    int most = n < ENOUGH ? FEWER : MOST;
    return n < most ? n : most;
}
void tn_conv_pool_backward_from(tn_tape *, const tn_conv_pool_plan *, const tn_conv_source *,
                                const tn_real *w, const tn_real *y, const unsigned char *winner,
                                const tn_real *gy, unsigned add, tn_real *gw, tn_real *gb);
/* A window is cut into blocks of rows by `run` of its kw ci reals a row, so that the weights of one stay in the cache. */
void tn_conv_pool_block(const tn_conv_pool_plan *, int *rows, int *run);
/* 1: the input's gradient is made a column of pixels at a time (sparse_dx_pool); windows are not cut then. */
int tn_conv_pool_by_columns(const tn_conv_pool_plan *);
#endif

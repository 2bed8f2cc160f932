/* SPDX-License-Identifier: MIT */
/* Convolution's three products on numbers, for the primitives and the fused layer. */
#ifndef TN_CONV_H
#define TN_CONV_H
#include "im2col.h"

typedef struct {
    tn_window g; /* one group of one image; g.c is the group's input channels */
    int n, groups;
    int co;   /* output channels of a group */
    int k;    /* elements of a window: g.c kh kw */
    int rows; /* output rows of a block */
    tn_conv_algorithm algorithm;
    const tn_t *kept; /* the weights as a parameter, whose packed form is kept; NULL: none */
} tn_conv_plan;

/* Input x (n, ci, h, w), weight w (co, ci / groups, kh, kw); panics with the op's name when they do not fit. */
tn_conv_plan tn_conv_shape(tn_tape *, const char *op, const int x[4], const int w[4], const tn_conv *);
/* Room for the weights packed or transformed, see tn_kept_form; scratch where they are no parameter. */
tn_real *tn_conv_form(tn_tape *, const tn_conv_plan *, int kind, size_t len, int *stale);
/* y (n, co, oh, ow) = x * w, plus bias (co, or NULL), then max(0, .) with relu. */
void tn_conv_forward(tn_tape *, const tn_conv_plan *, const tn_real *x, const tn_real *w, const tn_real *bias,
                     int relu, tn_real *y);
/*
 * The same without columns, and max pooled where pool is not NULL (see conv_pool.h); 0: left alone, since the shape asks
 * for columns or products are OpenBLAS's.
 */
int tn_conv_fast_forward(tn_tape *, const tn_conv_plan *, const tn_window *pool, const tn_real *x,
                         const tn_real *w, const tn_real *bias, int relu, tn_real *y, unsigned char *winner);
/*
 * Gradients of weights and bias (gw, gb; NULL: not wanted; bits 0 and 1 of add: added to them) from that of the output; y: the
 * output, where ReLU came last, or NULL. For shapes that fit: short sums, stride 1.
 */
int tn_conv_planes_fit(const tn_conv_plan *);
void tn_conv_planes_grad(tn_tape *, const tn_conv_plan *, const tn_real *x, const tn_real *gy,
                         const tn_real *y, unsigned add, tn_real *gw, tn_real *gb);
void tn_conv_input_grad(tn_tape *, const tn_conv_plan *, const tn_real *gy, const tn_real *w, int add,
                        tn_real *gx);
void tn_conv_weight_grad(tn_tape *, const tn_conv_plan *, const tn_real *x, const tn_real *gy, int add,
                         tn_real *gw);
#endif

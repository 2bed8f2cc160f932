/* SPDX-License-Identifier: MIT */
/*
 * Two convolutions with ReLU, the second max pooled, and dropout, on numbers: an image at a time, so that what the first
 * makes stays in the cache and is never stored; the backward pass makes it again.
 */
#ifndef TN_CONV_CHAIN_H
#define TN_CONV_CHAIN_H
#include "conv_pool.h"
#include "dropout.h"

typedef struct {
    tn_conv_plan first;
    tn_conv_pool_plan second;
    tn_dropout_plan drop; /* over rows of the result; p = 0: none */
} tn_conv_chain;

/* 1: a chain of shapes that the passes below do: the first with short sums and whole vectors of filters, then Winograd's. */
int tn_conv_chain_fits(const tn_conv_chain *);
/* The arrays of the two layers; in the backward pass of gradients, each NULL where it is not wanted. */
typedef struct {
    tn_real *w1, *b1, *w2, *b2;
} tn_conv_chain_grads;
typedef struct {
    const tn_real *w1, *b1, *w2, *b2; /* biases: or NULL */
} tn_conv_chain_weights;
/* winner: for the backward pass, or NULL. */
void tn_conv_chain_forward(tn_tape *, const tn_conv_chain *, const tn_real *x, const tn_conv_chain_weights *,
                           tn_real *y, unsigned char *winner);
/* Bit i of add: added to the i-th of w1, b1, w2, b2. */
void tn_conv_chain_backward(tn_tape *, const tn_conv_chain *, const tn_real *x, const tn_conv_chain_weights *,
                            const tn_real *y, const unsigned char *winner, const tn_real *gy, unsigned add,
                            const tn_conv_chain_grads *);
#endif

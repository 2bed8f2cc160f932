/* SPDX-License-Identifier: MIT */
/*
 * A linear layer that is small: its weights are read by all threads anyway, so what counts with several of them is how
 * often they meet and how many lines pass from core to core. Forward and backward are one parallel region each, in which
 * every thread makes for itself what all need and is cheap (packed samples, dz). Every element is the chain that tn_gemm
 * makes.
 */
#ifndef TN_LINEAR_SMALL_H
#define TN_LINEAR_SMALL_H
#include "internal.h"

/* x (n, in), weights (out, in). 1: small, with samples enough. */
int tn_linear_small_fits(int n, int in, int out);
/* y (n, out) = x w' + bias (or NULL), then max(0, .) with relu. */
void tn_linear_small_forward(tn_tape *, int n, int in, int out, const tn_real *x, const tn_real *w,
                             const tn_real *bias, int relu, tn_real *y);
/*
 * With dz = gy act'(z): dx (n, in) = dz w, dw (out, in) = dz' x, db (out) the sums of dz's columns, each NULL where it is
 * not wanted; bits 0, 1, 2 of add: added to them.
 */
typedef struct {
    tn_act act;
    int n, in, out;
    const tn_real *x, *w, *y, *gy;
    unsigned add;
    tn_real *dx, *dw, *db;
} tn_linear_small;
void tn_linear_small_back(tn_tape *, const tn_linear_small *);
#endif

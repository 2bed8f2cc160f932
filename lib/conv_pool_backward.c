/* SPDX-License-Identifier: MIT */
/* The gradients of convolution + bias + ReLU + max pooling: scattered to the winners, then convolution's own. */
#include "conv_pool.h"
#include <string.h>

void tn_conv_pool_backward(tn_tape *t, const tn_conv_pool_plan *p, const tn_real *x, const tn_real *w,
                           const tn_real *y, const unsigned char *winner, const tn_real *gy, unsigned add,
                           tn_real *gx, tn_real *gw, tn_real *gb) {
    const tn_window *g = &p->pool;
    size_t plane = (size_t)g->h * (size_t)g->w, planes = (size_t)p->conv.n * (size_t)g->c, at = 0;
    tn_place place = tn_mark(t);
    tn_real *dz = tn_scratch(t, planes * plane * sizeof *dz);
    memset(dz, 0, planes * plane * sizeof *dz);
    for (size_t i = 0; i < planes; i++)
        for (int r = 0; r < g->oh; r++)
            for (int c = 0; c < g->ow; c++, at++) {
                int row = r * g->kh + winner[at] / g->kw, col = c * g->kw + winner[at] % g->kw;
                if (!p->relu || !(y[at] <= 0)) dz[i * plane + (size_t)(row * g->w + col)] = gy[at];
            }
    if (gx) tn_conv_input_grad(t, &p->conv, dz, w, add & 1, gx);
    if (gw) tn_conv_weight_grad(t, &p->conv, x, dz, (add >> 1) & 1, gw);
    if (gb) tn_channel_sums(p->conv.n, g->c, plane, dz, (add >> 2) & 1, gb);
    tn_rewind(t, place);
}

/* SPDX-License-Identifier: MIT */
/*
 * One recurrent layer in one direction: what the fused op, its cells and its expansion share. Gates stand in PyTorch's
 * order: LSTM i f g o, GRU r z n; the GRU's reset gate acts on the hidden product with its bias.
 */
#ifndef TN_RECURRENT_H
#define TN_RECURRENT_H
#include "internal.h"
#include "kernels/kernels.h"

typedef struct {
    tn_cell cell;
    int steps, rows, in, hidden; /* T, N, I, H */
    int gates;                   /* of H units each: 1, 3 or 4 */
    int reverse;                 /* from the last step to the first */
    const int *length;           /* of each row's sequence, or NULL: all of them T */
    /* kept for backward; (T + 1, N, H): edge t lies before step t, whatever the direction */
    tn_real *h, *c;
    tn_real *act;  /* (T, N, gates H) after the nonlinearities */
    tn_real *keep; /* (T, N, H): LSTM tanh(c), GRU the hidden part of n before the reset gate */
} tn_recurrent;

enum { TN_SRC_X, TN_SRC_H0, TN_SRC_C0, TN_SRC_WIH, TN_SRC_WHH, TN_SRC_BIH, TN_SRC_BHH, TN_RECURRENT_SRC };

/*
 * One row through one step. gx: input product with its bias; gh: hidden product with its bias (GRU), or NULL when gx
 * holds the sum. Writes act, keep, h and c of the row.
 */
void tn_cell_forward(const tn_recurrent *, const tn_kernels_t *, const tn_real *gx, const tn_real *gh,
                     const tn_real *h0, const tn_real *c0, tn_real *act, tn_real *keep, tn_real *h1,
                     tn_real *c1);
/*
 * Back through it: dh, dc hold the gradients of h1, c1 and get those of h0, c0 that do not go through the hidden
 * product. dgx, dgh: gradients of the two products (the same buffer unless GRU).
 */
void tn_cell_backward(const tn_recurrent *, const tn_real *act, const tn_real *keep, const tn_real *h0,
                      const tn_real *c0, tn_real *dh, tn_real *dc, tn_real *dgx, tn_real *dgh);
tn_t *tn_recurrent_expand(tn_t *y);
/* The shape of the op's one output: y (T, N, H), then the last h (N, H), then, for an LSTM, the last c (N, H). */
int tn_recurrent_len(const tn_recurrent *);
#endif

/* SPDX-License-Identifier: MIT */
/* A recurrent layer as one op: its record, its checks and its place on the tape. Passes: recurrent_forward.c, _backward.c. */
#include "recurrent.h"
#include "tape.h"
#include <string.h>

enum { LINE = 16 }; /* reals of a cache line */

int tn_recurrent_len(const tn_recurrent *r) {
    return ((r->last_only ? 0 : r->steps) + 1 + (r->cell == TN_LSTM)) * r->rows * r->hidden;
}

static double recurrent_flops(const tn_t *y) {
    const tn_recurrent *r = y->aux;
    return 2.0 * r->steps * r->rows * r->gates * r->hidden * (r->in + r->hidden);
}

/* The state's gradient goes through the hidden product whatever else is wanted. */
static double recurrent_back_flops(const tn_t *y) {
    const tn_recurrent *r = y->aux;
    double unit = 2.0 * r->steps * r->rows * r->gates * r->hidden;
    double input = (double)(y->src[TN_SRC_X]->needs + y->src[TN_SRC_WIH]->needs) * r->in;
    return y->needs ? unit * (input + (1 + y->src[TN_SRC_WHH]->needs) * (double)r->hidden) : 0;
}

static const tn_op op_recurrent = {.name = "recurrent",
                                   .expand = tn_recurrent_expand,
                                   .bwd = tn_recurrent_backward,
                                   .flops = recurrent_flops,
                                   .back_flops = recurrent_back_flops};

static void check(tn_t *const src[], int gates, const int *length, int rows_first) {
    tn_t *x = src[TN_SRC_X], *w_ih = src[TN_SRC_WIH], *w_hh = src[TN_SRC_WHH];
    tn_tape *t = x->tape;
    TN_CHECK(t, x->nd == 3 && w_ih->nd == 2 && w_hh->nd == 2,
             "recurrent: x (steps, rows, in) and two matrices, not %d, %d "
             "and %d dimensions",
             x->nd, w_ih->nd, w_hh->nd);
    int h = w_hh->dim[1], rows = x->dim[rows_first ? 0 : 1], steps = x->dim[rows_first ? 1 : 0];
    TN_CHECK(t, w_hh->dim[0] == gates * h && w_ih->dim[0] == gates * h && w_ih->dim[1] == x->dim[2],
             "recurrent: weights (%d, %d) and (%d, %d) do not fit %d gates and an input of %d", w_ih->dim[0],
             w_ih->dim[1], w_hh->dim[0], h, gates, x->dim[2]);
    for (int i = TN_SRC_H0; i <= TN_SRC_C0; i++)
        TN_CHECK(t, !src[i] || (src[i]->nd == 2 && src[i]->dim[0] == rows && src[i]->dim[1] == h),
                 "recurrent: an initial state must have shape (%d, %d)", rows, h);
    for (int i = TN_SRC_BIH; i <= TN_SRC_BHH; i++)
        TN_CHECK(t, !src[i] || (src[i]->nd == 1 && src[i]->dim[0] == gates * h),
                 "recurrent: a bias must have shape (%d,)", gates * h);
    for (int i = 0; length && i < rows; i++)
        TN_CHECK(t, length[i] >= 1 && length[i] <= steps,
                 "recurrent: length %d of row %d is outside 1 ... %d", length[i], i, steps);
}

/* Room for what forward keeps. */
static void make_room(tn_recurrent *r, tn_tape *t) {
    const tn_kernels_t *k = tn_kernels_get(NULL);
    size_t edges = (size_t)tn_recurrent_edges(r) * (size_t)r->rows;
    r->padded = (r->hidden + k->width - 1) / k->width * k->width;
    r->h_at = (r->in + LINE - 1) / LINE * LINE, r->x_at = r->h_at - r->in;
    r->stride = (r->h_at + r->padded + LINE - 1) / LINE * LINE;
    if (r->stride / LINE % 4 == 0)
        r->stride += LINE; /* rows so far apart would crowd into few sets of the cache */
    r->edge = tn_scratch(t, edges * (size_t)r->stride * sizeof *r->edge);
    if (r->cell == TN_LSTM) r->c = tn_scratch(t, edges * (size_t)r->padded * sizeof *r->c);
    r->kept_len = r->forward_only ? 0 : k->cell_kept[r->cell];
    if (r->kept_len)
        r->kept =
            tn_scratch(t, (edges - (size_t)r->rows) * (size_t)(r->padded * r->kept_len) * sizeof *r->kept);
}

tn_t *tn_recurrent_run(tn_cell cell, tn_t *x, tn_t *h0, tn_t *c0, tn_t *w_ih, tn_t *w_hh, tn_t *b_ih,
                       tn_t *b_hh, const int *length, int reverse, int flags) {
    tn_t *src[TN_RECURRENT_SRC] = {x, h0, c0, w_ih, w_hh, b_ih, b_hh};
    int gates = cell == TN_LSTM ? 4 : cell == TN_GRU ? 3 : 1, rows_first = flags & TN_ROWS_FIRST;
    TN_CHECK(x->tape, !c0 || cell == TN_LSTM, "recurrent: only an LSTM has a cell state");
    check(src, gates, length, rows_first);
    tn_tape *t = x->tape;
    tn_recurrent r = {.cell = cell,
                      .steps = x->dim[rows_first ? 1 : 0],
                      .rows = x->dim[rows_first ? 0 : 1],
                      .in = x->dim[2],
                      .hidden = w_hh->dim[1],
                      .gates = gates,
                      .blocks = cell == TN_GRU ? 4 : gates,
                      .reverse = reverse != 0,
                      .rows_first = rows_first != 0,
                      .last_only = (flags & TN_LAST_ONLY) != 0};
    tn_t *y = tn_new(t, 1, (int[]){tn_recurrent_len(&r)});
    size_t bytes = (size_t)r.rows * sizeof(int);
    if (length) r.length = memcpy(tn_scratch(t, bytes), length, bytes);
    r.from_zero = !h0 && r.last_only && r.steps > 1;
    r.forward_only = !tn_gradient_may_come(t, TN_RECURRENT_SRC, src);
    /* enough of them for all threads; OpenBLAS might give the rows of taller ones other bits */
    int tall = r.forward_only && gates > 1 && r.rows >= 8 * TN_RECURRENT_MOST && tn_gemm_own(),
        most = tall ? TN_RECURRENT_MOST : TN_RECURRENT_ROWS, chunks = (r.rows + most - 1) / most;
    r.each = chunks ? (r.rows + chunks - 1) / chunks : 1;
    make_room(&r, t);
    tn_recurrent_bits_room(&r, t);
    tn_recurrent_forward(&r, src, y);
    return tn_result(&op_recurrent, y, TN_RECURRENT_SRC, src, &r, sizeof r);
}

tn_t *tn_recurrent_op(tn_cell cell, tn_t *x, tn_t *h0, tn_t *c0, tn_t *w_ih, tn_t *w_hh, tn_t *b_ih,
                      tn_t *b_hh, const int *length, int reverse) {
    return tn_recurrent_run(cell, x, h0, c0, w_ih, w_hh, b_ih, b_hh, length, reverse, 0);
}

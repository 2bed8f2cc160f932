/* SPDX-License-Identifier: MIT */
/*
 * One recurrent layer in one direction: what the fused op, its passes and its expansion share. Gates stand in PyTorch's
 * order: LSTM i f g o, GRU r z n; the GRU's reset gate acts on the hidden product with its bias.
 */
#ifndef TN_RECURRENT_H
#define TN_RECURRENT_H
#include "internal.h"
#include "kernels/kernels.h"

/*
 * Backward reads what forward leaves in rows: for each edge between steps (edge t lies before step t, whatever the
 * direction) and each row of the batch, [x of the step that this edge's state enters, state]: the left factor of the
 * step's product, and of the weights' gradients over all steps. Of a chunk whose x is mostly zeros it holds no x. Where no
 * gradient will be asked for, two edges take turns.
 */
typedef struct {
    tn_cell cell;
    int steps, rows, in, hidden; /* T, N, I, H */
    int gates;                   /* of H units each: 1, 3 or 4 */
    int blocks;        /* of H units that a step's products make: as gates, but 4 of a GRU (cells.h) */
    int reverse;       /* from the last step to the first */
    int rows_first;    /* x is (rows, steps, in) */
    int last_only;     /* y is no part of the result */
    int from_zero;     /* more than one step, the first from a state of zeros, whose products are left out */
    const int *length; /* of each row's sequence, or NULL: all of them T */
    int forward_only;  /* no gradient will be asked for: nothing is kept, and two edges take turns */
    int padded;        /* H filled up to whole vectors: units beyond H are 0 */
    int x_at, h_at, stride; /* where x and the state begin in a row of edge; from row to row */
    int each;               /* rows of the batch a chunk, which goes through all steps on its own */
    tn_real *edge;          /* chunk by chunk (tn_recurrent_edges, its rows, stride), the last step's first */
    tn_real *c;             /* LSTM (tn_recurrent_edges, N, padded) */
    int kept_len;           /* reals a unit that the cell keeps; 0: nothing, as of an Elman cell */
    tn_real *kept;          /* chunk by chunk (T, its rows, padded, kept_len) */
    uint64_t *bits;         /* row by row, as x lies, what is not 0; NULL: not looked for */
    int *sparse;            /* of each chunk: x is mostly 0 */
} tn_recurrent;

enum { TN_SRC_X, TN_SRC_H0, TN_SRC_C0, TN_SRC_WIH, TN_SRC_WHH, TN_SRC_BIH, TN_SRC_BHH, TN_RECURRENT_SRC };

/* Rows of a chunk, at most; where it goes forward only it has room for more, by which the weights are fetched less often. */
enum { TN_RECURRENT_ROWS = 16, TN_RECURRENT_MOST = 32 };

static inline int tn_recurrent_chunks(const tn_recurrent *r) {
    return (r->rows + r->each - 1) / r->each;
}
/* First row of a chunk. */
static inline int tn_recurrent_row(const tn_recurrent *r, int chunk) {
    return chunk * r->each < r->rows ? chunk * r->each : r->rows;
}
/* Place of a row in a buffer that holds, chunk by chunk, all rows of a chunk step by step. */
static inline size_t tn_recurrent_at(const tn_recurrent *r, int steps, int step, int row) {
    int first = row / r->each * r->each, m = r->rows - first < r->each ? r->rows - first : r->each;
    return (size_t)first * (size_t)steps + (size_t)step * (size_t)m + (size_t)(row - first);
}
static inline size_t tn_recurrent_state(const tn_recurrent *r) {
    return (size_t)r->rows * (size_t)r->hidden;
}
static inline int tn_recurrent_active(const tn_recurrent *r, int row, int step) {
    return !r->length || step < r->length[row];
}
/* Steps lie in memory as they go backward, and so do the edges: a step's own state, then the one that enters it. */
static inline int tn_recurrent_back_at(const tn_recurrent *r, int step) {
    return r->reverse ? step : r->steps - 1 - step;
}
static inline int tn_recurrent_edges(const tn_recurrent *r) {
    return r->forward_only ? 2 : r->steps + 1;
}
static inline tn_real *tn_recurrent_edge(const tn_recurrent *r, int edge, int row) {
    int at = r->forward_only ? edge % 2 : r->reverse ? edge : r->steps - edge;
    return r->edge + tn_recurrent_at(r, tn_recurrent_edges(r), at, row) * (size_t)r->stride;
}

static inline tn_real *tn_recurrent_c(const tn_recurrent *r, int edge, int row) {
    size_t at = (size_t)(r->forward_only ? edge % 2 : edge);
    return r->c + (at * (size_t)r->rows + (size_t)row) * (size_t)r->padded;
}
static inline tn_real *tn_recurrent_kept(const tn_recurrent *r, int step, int row) {
    return r->kept + tn_recurrent_at(r, r->steps, step, row) * (size_t)(r->padded * r->kept_len);
}
/* Place of x of a step and a row: rows of x before it. */
static inline size_t tn_recurrent_x(const tn_recurrent *r, int step, int row) {
    return r->rows_first ? (size_t)row * (size_t)r->steps + (size_t)step
                         : (size_t)step * (size_t)r->rows + (size_t)row;
}
/* To edge: x of a step of a chunk. */
void tn_recurrent_put_x(const tn_recurrent *, const tn_kernels_t *, const tn_real *x, int chunk, int t);
/* recurrent_sparse.c: room; marks a chunk's x; its rows at step t, and which are not 0. */
void tn_recurrent_bits_room(tn_recurrent *, tn_tape *);
void tn_recurrent_mark(const tn_recurrent *, const tn_kernels_t *, const tn_real *x, int chunk);
void tn_recurrent_marked(const tn_recurrent *, const tn_real *x, int chunk, int t, tn_sparse_rows *);
static inline int tn_recurrent_sparse(const tn_recurrent *r, int chunk) {
    return r->bits && r->sparse[chunk];
}
/* Memory that the products of a step fetch, so many of them a part each; the next part. */
typedef struct {
    const char *at;
    size_t each;
} tn_soon;
static inline tn_soon tn_soon_of(const void *from, size_t bytes, int products) {
    return (tn_soon){from, bytes / (unsigned)products};
}
static inline void tn_soon_next(tn_soon *s, tn_panel_product *p, int i) {
    p->soon[i] = s->at, p->soon_len[i] = s->each;
    if (s->at) s->at += s->each;
}
/* Units u... of a panel of units: how many. */
static inline int tn_recurrent_units(const tn_recurrent *r, const tn_kernels_t *k, int u) {
    return r->padded - u < k->panel ? r->padded - u : k->panel;
}

enum { TN_ROWS_FIRST = 1, TN_LAST_ONLY = 2 }; /* x (rows, steps, in); the result has no y */
/* tn_recurrent_op with these. */
tn_t *tn_recurrent_run(tn_cell cell, tn_t *x, tn_t *h0, tn_t *c0, tn_t *w_ih, tn_t *w_hh, tn_t *b_ih,
                       tn_t *b_hh, const int *length, int reverse, int flags);
/* Fills r's buffers, whose first edge holds the initial state, and the result y; w_ih ... b_hh as in src. */
void tn_recurrent_forward(const tn_recurrent *r, tn_t *const src[], tn_t *y);
void tn_recurrent_backward(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add);
tn_t *tn_recurrent_expand(tn_t *y);
/* The shape of the op's one output: y (T, N, H), then the last h (N, H), then, for an LSTM, the last c (N, H). */
int tn_recurrent_len(const tn_recurrent *);
#endif

/* SPDX-License-Identifier: MIT */
/* What a recurrent layer's passes backward share: through the steps, recurrent_backward.c, and to the weights, _weights.c. */
#ifndef TN_RECURRENT_BACK_H
#define TN_RECURRENT_BACK_H
#include "recurrent.h"
#include <string.h>

typedef struct {
    const tn_recurrent *r;
    const tn_kernels_t *k;
    int threads; /* read once: all groups have to be dealt out alike */
    const tn_real *x, *w_ih, *w_hh;
    const tn_real *gy, *gh_n, *gc_n; /* gy NULL: there is none */
    tn_real *packed_ih;              /* own kernels: gate by gate, each packed for gemm as H rows */
    tn_real *packed_hh;              /* own kernels: panel by panel, of each H rows a gate */
    /* the products' gradients, in rows: own kernels: of each worker, a piece's; OpenBLAS: chunk by chunk, of all steps */
    tn_real *dg;
    ptrdiff_t dg_row;
    tn_real *dh, *dc; /* (N, padded) */
    tn_real *dx;
    int dx_add, dh0; /* dh0: the initial state's gradient is wanted */
    /* gradients of the weights */
    tn_real *turned;       /* own kernels: of each group of chunks (I + 1 + padded, dg_row), transposed */
    tn_real *turned_again; /* room to turn them back where they are added */
    tn_real *const *gx;
    unsigned need, add;
} tn_recurrent_back;

/*
 * A chunk goes backward piece by piece: some steps, then their part of the weights' gradients, while the second-level
 * cache still holds the factors. How many steps is a matter of shape, so that the sums have one order.
 */
enum { TN_RECURRENT_PIECE = 112 }; /* rows, at most */
typedef struct {
    const tn_recurrent_back *j;
    int group, chunk;
    int r0, m;    /* the chunk's rows */
    int t, steps; /* the step that goes backward first, how many */
    int begun;    /* the group's part holds something */
    tn_real *dg;  /* of the steps, as they go backward, and their rows */
} tn_recurrent_piece;

static inline int tn_recurrent_piece_steps(const tn_recurrent *r) {
    int steps = TN_RECURRENT_PIECE / r->each;
    return steps < r->steps ? steps : r->steps;
}
/*
 * From a worker's dg to the next one's, own kernels: a piece's rows and a page that nobody uses, since what a core fetches
 * ahead, beyond the end of its own, it would take from the other.
 */
static inline size_t tn_recurrent_piece_room(const tn_recurrent_back *j) {
    size_t rows = (size_t)tn_recurrent_piece_steps(j->r) * (size_t)j->r->each;
    return rows * (size_t)j->dg_row + 4096 / sizeof *j->dg;
}

/* The i-th block, in the order of the gates, that goes to the state or to the input. */
static inline int tn_recurrent_block(const tn_recurrent *r, int i, int state) {
    return r->cell != TN_GRU ? i : i < 2 ? i + 1 : state ? 3 : 0;
}

static inline size_t tn_recurrent_rows(const tn_recurrent *r) {
    return (size_t)r->steps * (size_t)r->rows;
}

/* Rows of all steps that the chunk of a row has. */
static inline size_t tn_recurrent_len_of(const tn_recurrent *r, int row) {
    int first = row / r->each * r->each, m = r->rows - first < r->each ? r->rows - first : r->each;
    return (size_t)m * (size_t)r->steps;
}

/* Row i of the batch at a step, among the rows of a piece. */
static inline ptrdiff_t tn_recurrent_piece_row(const tn_recurrent_piece *p, int t, int i) {
    return (ptrdiff_t)(p->j->r->reverse ? t - p->t : p->t - t) * p->m + (i - p->r0);
}
static inline tn_real *tn_recurrent_dg(const tn_recurrent_piece *p, int t, int i) {
    return p->dg + tn_recurrent_piece_row(p, t, i) * p->j->dg_row;
}

/* n numbers to a gradient. */
static inline void tn_recurrent_put(const tn_recurrent_back *j, size_t n, const tn_real *from, unsigned add,
                                    tn_real *to) {
    if (add)
        j->k->accumulate(n, from, to);
    else
        memcpy(to, from, n * sizeof *to);
}

/*
 * Chunks go backward in groups, and a group adds up its own part of the weights' gradients, chunk by chunk while the
 * cache of the core that made them still holds the factors; then the parts are added in order. How many groups there
 * are is a matter of shape: for many threads, but few parts to add.
 */
static inline int tn_recurrent_groups(const tn_recurrent *r) {
    int chunks = tn_recurrent_chunks(r);
    return chunks <= 4 ? chunks : chunks <= 32 ? (chunks + 1) / 2 : 16;
}
static inline int tn_recurrent_group(const tn_recurrent *r, int group) {
    return (int)((long)tn_recurrent_chunks(r) * group / tn_recurrent_groups(r));
}

/* Reals of one group's part of turned, and in it the sums of dg: the biases' gradients. */
static inline size_t tn_recurrent_part(const tn_recurrent_back *j) {
    return (size_t)(j->r->in + 1 + j->r->padded) * (size_t)j->dg_row;
}
static inline tn_real *tn_recurrent_sums(const tn_recurrent_back *j, int group) {
    return j->turned + (size_t)group * tn_recurrent_part(j) + j->r->in * j->dg_row;
}

/* Room for the weights' gradients; where a group begins; the part of a piece; all of it together. */
void tn_recurrent_weights_room(tn_recurrent_back *, tn_tape *);
void tn_recurrent_weights_begin(const tn_recurrent_back *, int group);
void tn_recurrent_weights_piece(const tn_recurrent_piece *);
void tn_recurrent_weights(tn_recurrent_back *);
#endif

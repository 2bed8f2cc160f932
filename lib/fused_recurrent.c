/* SPDX-License-Identifier: MIT */
/*
 * A recurrent layer as one op. A chunk of rows goes through all time steps on its own, without a barrier: its state
 * stays in the core's cache, and the weights are packed once a step of training and used for all time steps. The
 * gradients of the weights are one product each over all steps and rows.
 */
#include "recurrent.h"
#include <string.h>

enum { CHUNK_ROWS = 16 };

typedef struct {
    tn_recurrent r;
    const tn_kernels_t *k;
    const tn_real *x, *w_ih, *w_hh, *b_ih, *b_hh; /* weights plain; packed forms beside them */
    const tn_real *packed_ih, *packed_hh;
    tn_real *y, *last_h, *last_c; /* forward's results */
    const tn_real *gy, *gh_n, *gc_n;
    tn_real *dgx, *dgh, *dh, *dc; /* backward: (T, N, gates H) twice, (N, H) twice */
    tn_real *scratch;             /* (N, gates H): forward's hidden product, GRU */
    int chunks;
} job;

static size_t state(const tn_recurrent *r) {
    return (size_t)r->rows * (size_t)r->hidden;
}

int tn_recurrent_len(const tn_recurrent *r) {
    return (r->steps + 1 + (r->cell == TN_LSTM)) * r->rows * r->hidden;
}

static int row_of(const job *j, int chunk) {
    return (int)((long)j->r.rows * chunk / j->chunks);
}

static int active(const tn_recurrent *r, int row, int t) {
    return !r->length || t < r->length[row];
}

/* ---- forward ---- */

static void step_rows(const job *j, int t, int r0, int r1) {
    const tn_recurrent *r = &j->r;
    int h = r->hidden, w = r->gates * h, m = r1 - r0, gru = r->cell == TN_GRU;
    size_t n = state(r), before = (size_t)(t + r->reverse) * n, after = (size_t)(t + !r->reverse) * n;
    tn_real *act = j->r.act + ((size_t)t * (size_t)r->rows + (size_t)r0) * (size_t)w;
    tn_real *hidden = gru ? j->scratch + (size_t)r0 * (size_t)w : act;
    tn_gemm_serial(&(tn_gemm_args){.m = m,
                                   .n = w,
                                   .k = r->in,
                                   .a = j->x + ((size_t)t * (size_t)r->rows + (size_t)r0) * (size_t)r->in,
                                   .ars = r->in,
                                   .acs = 1,
                                   .b = j->w_ih,
                                   .brs = 1,
                                   .bcs = r->in,
                                   .packed_b = j->packed_ih,
                                   .c = act,
                                   .ldc = w,
                                   .bias = j->b_ih});
    tn_gemm_serial(&(tn_gemm_args){.m = m,
                                   .n = w,
                                   .k = h,
                                   .a = r->h + before + (size_t)r0 * (size_t)h,
                                   .ars = h,
                                   .acs = 1,
                                   .b = j->w_hh,
                                   .brs = 1,
                                   .bcs = h,
                                   .packed_b = j->packed_hh,
                                   .c = hidden,
                                   .ldc = w,
                                   .add = !gru,
                                   .bias = j->b_hh});
    for (int i = r0; i < r1; i++) {
        size_t at = (size_t)i * (size_t)h, keep = (size_t)t * n + at;
        tn_real *a = act + (size_t)(i - r0) * (size_t)w, *y = j->y + (size_t)t * n + at;
        tn_real *h1 = r->h + after + at, *c1 = r->c ? r->c + after + at : NULL;
        const tn_real *h0 = r->h + before + at, *c0 = r->c ? r->c + before + at : NULL;
        if (active(r, i, t)) {
            tn_cell_forward(r, j->k, a, gru ? hidden + (size_t)(i - r0) * (size_t)w : NULL, h0, c0, a,
                            r->keep ? r->keep + keep : NULL, h1, c1);
            memcpy(y, h1, (size_t)h * sizeof *y);
        } else { /* the sequence has ended, or (in reverse) not begun: the state waits */
            memcpy(h1, h0, (size_t)h * sizeof *h1);
            if (c1) memcpy(c1, c0, (size_t)h * sizeof *c1);
            memset(y, 0, (size_t)h * sizeof *y);
        }
    }
}

static void forward_chunk(void *arg, int chunk) {
    const job *j = arg;
    const tn_recurrent *r = &j->r;
    int r0 = row_of(j, chunk), r1 = row_of(j, chunk + 1);
    for (int s = 0; s < r->steps; s++) step_rows(j, r->reverse ? r->steps - 1 - s : s, r0, r1);
    size_t at = (size_t)r0 * (size_t)r->hidden, len = (size_t)(r1 - r0) * (size_t)r->hidden * sizeof(tn_real);
    size_t end = (r->reverse ? 0 : (size_t)r->steps * state(r)) + at;
    memcpy(j->last_h + at, r->h + end, len);
    if (r->c) memcpy(j->last_c + at, r->c + end, len);
}

/* ---- backward ---- */

static void back_rows(const job *j, int t, int r0, int r1) {
    const tn_recurrent *r = &j->r;
    int h = r->hidden, w = r->gates * h;
    size_t n = state(r), before = (size_t)(t + r->reverse) * n;
    for (int i = r0; i < r1; i++) {
        size_t at = (size_t)i * (size_t)h, row = ((size_t)t * (size_t)r->rows + (size_t)i) * (size_t)w;
        tn_real *dgx = j->dgx + row, *dgh = j->dgh + row, *dh = j->dh + at;
        const tn_real *gy = j->gy + (size_t)t * n + at;
        if (!active(r, i, t)) {
            memset(dgx, 0, (size_t)w * sizeof *dgx);
            memset(dgh, 0, (size_t)w * sizeof *dgh);
            continue;
        }
        for (int u = 0; u < h; u++) dh[u] += gy[u];
        tn_cell_backward(r, r->act + row, r->keep ? r->keep + (size_t)t * n + at : NULL, r->h + before + at,
                         r->c ? r->c + before + at : NULL, dh, j->dc ? j->dc + at : NULL, dgx, dgh);
    }
    tn_gemm_serial(&(tn_gemm_args){.m = r1 - r0,
                                   .n = h,
                                   .k = w,
                                   .a = j->dgh + ((size_t)t * (size_t)r->rows + (size_t)r0) * (size_t)w,
                                   .ars = w,
                                   .acs = 1,
                                   .b = j->w_hh,
                                   .brs = h,
                                   .bcs = 1,
                                   .packed_b = j->packed_hh,
                                   .c = j->dh + (size_t)r0 * (size_t)h,
                                   .ldc = h,
                                   .add = 1});
}

static void backward_chunk(void *arg, int chunk) {
    const job *j = arg;
    const tn_recurrent *r = &j->r;
    int r0 = row_of(j, chunk), r1 = row_of(j, chunk + 1);
    size_t at = (size_t)r0 * (size_t)r->hidden, len = (size_t)(r1 - r0) * (size_t)r->hidden * sizeof(tn_real);
    memcpy(j->dh + at, j->gh_n + at, len);
    if (j->dc) memcpy(j->dc + at, j->gc_n + at, len);
    for (int s = r->steps - 1; s >= 0; s--) back_rows(j, r->reverse ? r->steps - 1 - s : s, r0, r1);
}

static void put(const tn_real *from, size_t n, unsigned add, tn_real *to) {
    if (add)
        tn_kernels_get(NULL)->accumulate(n, from, to);
    else
        memcpy(to, from, n * sizeof *to);
}

static void recurrent_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const tn_recurrent *r = y->aux;
    tn_tape *t = y->tape;
    size_t n = state(r), rows = (size_t)r->steps * (size_t)r->rows, w = (size_t)(r->gates * r->hidden);
    int gh = r->gates * r->hidden, all = (int)rows;
    tn_t *x = y->src[TN_SRC_X], *w_ih = y->src[TN_SRC_WIH], *w_hh = y->src[TN_SRC_WHH];
    job j = {.r = *r,
             .k = tn_kernels_get(NULL),
             .w_hh = w_hh->x,
             .packed_hh = tn_packed(w_hh, 0),
             .gy = gy,
             .gh_n = gy + (size_t)r->steps * n,
             .gc_n = r->c ? gy + (size_t)(r->steps + 1) * n : NULL,
             .chunks = (r->rows + CHUNK_ROWS - 1) / CHUNK_ROWS};
    j.dgx = tn_scratch(t, rows * w * sizeof *j.dgx);
    j.dgh = r->cell == TN_GRU ? tn_scratch(t, rows * w * sizeof *j.dgh) : j.dgx;
    j.dh = tn_scratch(t, n * sizeof *j.dh), j.dc = r->c ? tn_scratch(t, n * sizeof *j.dc) : NULL;
    tn_parallel(j.chunks, backward_chunk, &j);
    if (need >> TN_SRC_H0 & 1) put(j.dh, n, add >> TN_SRC_H0 & 1, gx[TN_SRC_H0]);
    if (need >> TN_SRC_C0 & 1) put(j.dc, n, add >> TN_SRC_C0 & 1, gx[TN_SRC_C0]);
    if (need >> TN_SRC_X & 1)
        tn_gemm(&(tn_gemm_args){.m = all,
                                .n = r->in,
                                .k = gh,
                                .a = j.dgx,
                                .ars = gh,
                                .acs = 1,
                                .b = w_ih->x,
                                .brs = r->in,
                                .bcs = 1,
                                .packed_b = tn_packed(w_ih, 0),
                                .c = gx[TN_SRC_X],
                                .ldc = r->in,
                                .add = add >> TN_SRC_X & 1});
    if (need >> TN_SRC_WIH & 1)
        tn_gemm(&(tn_gemm_args){.m = gh,
                                .n = r->in,
                                .k = all,
                                .a = j.dgx,
                                .ars = 1,
                                .acs = gh,
                                .b = x->x,
                                .brs = r->in,
                                .bcs = 1,
                                .c = gx[TN_SRC_WIH],
                                .ldc = r->in,
                                .add = add >> TN_SRC_WIH & 1});
    if (need >> TN_SRC_WHH & 1)
        tn_gemm(&(tn_gemm_args){.m = gh,
                                .n = r->hidden,
                                .k = all,
                                .a = j.dgh,
                                .ars = 1,
                                .acs = gh,
                                .b = r->h + (r->reverse ? n : 0),
                                .brs = r->hidden,
                                .bcs = 1,
                                .c = gx[TN_SRC_WHH],
                                .ldc = r->hidden,
                                .add = add >> TN_SRC_WHH & 1});
    if (need >> TN_SRC_BIH & 1) j.k->col_sum(all, gh, j.dgx, gh, add >> TN_SRC_BIH & 1, gx[TN_SRC_BIH]);
    if (need >> TN_SRC_BHH & 1) j.k->col_sum(all, gh, j.dgh, gh, add >> TN_SRC_BHH & 1, gx[TN_SRC_BHH]);
}

/* ---- the op ---- */

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
                                   .bwd = recurrent_bwd,
                                   .flops = recurrent_flops,
                                   .back_flops = recurrent_back_flops};

static void check(tn_t *const src[], int gates, const int *length) {
    tn_t *x = src[TN_SRC_X], *w_ih = src[TN_SRC_WIH], *w_hh = src[TN_SRC_WHH];
    tn_tape *t = x->tape;
    TN_CHECK(t, x->nd == 3 && w_ih->nd == 2 && w_hh->nd == 2,
             "recurrent: x (steps, rows, in) and two matrices, not %d, %d "
             "and %d dimensions",
             x->nd, w_ih->nd, w_hh->nd);
    int h = w_hh->dim[1];
    TN_CHECK(t, w_hh->dim[0] == gates * h && w_ih->dim[0] == gates * h && w_ih->dim[1] == x->dim[2],
             "recurrent: weights (%d, %d) and (%d, %d) do not fit %d gates and an input of %d", w_ih->dim[0],
             w_ih->dim[1], w_hh->dim[0], h, gates, x->dim[2]);
    for (int i = TN_SRC_H0; i <= TN_SRC_C0; i++)
        TN_CHECK(t, !src[i] || (src[i]->nd == 2 && src[i]->dim[0] == x->dim[1] && src[i]->dim[1] == h),
                 "recurrent: an initial state must have shape (%d, %d)", x->dim[1], h);
    for (int i = TN_SRC_BIH; i <= TN_SRC_BHH; i++)
        TN_CHECK(t, !src[i] || (src[i]->nd == 1 && src[i]->dim[0] == gates * h),
                 "recurrent: a bias must have shape (%d,)", gates * h);
    for (int i = 0; length && i < x->dim[1]; i++)
        TN_CHECK(t, length[i] >= 1 && length[i] <= x->dim[0],
                 "recurrent: length %d of row %d is outside 1 ... %d", length[i], i, x->dim[0]);
}

static void start(tn_real *edge, const tn_t *given, size_t n) {
    if (given)
        memcpy(edge, given->x, n * sizeof *edge);
    else
        memset(edge, 0, n * sizeof *edge);
}

tn_t *tn_recurrent_op(tn_cell cell, tn_t *x, tn_t *h0, tn_t *c0, tn_t *w_ih, tn_t *w_hh, tn_t *b_ih,
                      tn_t *b_hh, const int *length, int reverse) {
    tn_t *src[TN_RECURRENT_SRC] = {x, h0, c0, w_ih, w_hh, b_ih, b_hh};
    int gates = cell == TN_LSTM ? 4 : cell == TN_GRU ? 3 : 1;
    TN_CHECK(x->tape, !c0 || cell == TN_LSTM, "recurrent: only an LSTM has a cell state");
    check(src, gates, length);
    tn_tape *t = x->tape;
    tn_recurrent r = {cell,         x->dim[0], x->dim[1], x->dim[2], w_hh->dim[1], gates,
                      reverse != 0, NULL,      NULL,      NULL,      NULL,         NULL};
    size_t n = state(&r), steps = (size_t)r.steps;
    tn_t *y = tn_new(t, 1, (int[]){tn_recurrent_len(&r)});
    if (length)
        r.length = memcpy(tn_scratch(t, (size_t)r.rows * sizeof(int)), length, (size_t)r.rows * sizeof(int));
    r.h = tn_scratch(t, (steps + 1) * n * sizeof *r.h);
    r.act = tn_scratch(t, steps * n * (size_t)gates * sizeof *r.act);
    if (cell == TN_LSTM) r.c = tn_scratch(t, (steps + 1) * n * sizeof *r.c);
    if (cell == TN_LSTM || cell == TN_GRU) r.keep = tn_scratch(t, steps * n * sizeof *r.keep);
    size_t first = reverse ? steps * n : 0;
    start(r.h + first, h0, n);
    if (r.c) start(r.c + first, c0, n);
    job j = {.r = r,
             .k = tn_kernels_get(NULL),
             .x = x->x,
             .w_ih = w_ih->x,
             .w_hh = w_hh->x,
             .b_ih = b_ih ? b_ih->x : NULL,
             .b_hh = b_hh ? b_hh->x : NULL,
             .y = y->x,
             .last_h = y->x + steps * n,
             .last_c = y->x + (steps + 1) * n,
             .chunks = (r.rows + CHUNK_ROWS - 1) / CHUNK_ROWS};
    tn_place place = tn_mark(t);
    j.packed_ih = tn_packed(w_ih, 1), j.packed_hh = tn_packed(w_hh, 1);
    if (cell == TN_GRU) j.scratch = tn_scratch(t, n * (size_t)gates * sizeof *j.scratch);
    tn_parallel(j.chunks, forward_chunk, &j);
    tn_rewind(t, place);
    return tn_result(&op_recurrent, y, TN_RECURRENT_SRC, src, &r, sizeof r);
}

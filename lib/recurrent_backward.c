/* SPDX-License-Identifier: MIT */
/*
 * A recurrent layer backward. Chunks of rows go back through all time steps on their own, as forward; the gradients of
 * the products that the cells leave go at once, from the cache, into the state's and the input's, and are stored a second
 * time as the packed right factor of one product over all steps and rows, whose left factor [x, 1, state] forward has
 * left: the gradients of weights and biases.
 */
#include "recurrent.h"
#include <string.h>

typedef struct {
    const tn_recurrent *r;
    const tn_kernels_t *k;
    const tn_real *w_ih, *w_hh;
    const tn_real *gy, *gh_n, *gc_n; /* gy NULL: there is none */
    tn_real *packed_ih, *packed_hh;  /* own kernels: gate by gate, each packed as H rows */
    tn_real *dg;                     /* a row a row of the batch; OpenBLAS: of each step */
    tn_real *panels;                 /* own kernels: (blocks padded / nr) panels of T N rows */
    ptrdiff_t dg_row;
    tn_real *dh, *dc; /* (N, padded) */
    tn_real *dx;
    int dx_add, dh0; /* dh0: the initial state's gradient is wanted */
    /* gradients of the weights */
    tn_real
        *turned; /* (I + 1 + padded, gates padded): weights' gradients, transposed; then room for as much */
    tn_real *const *gx;
    unsigned need, add;
} job;

/* The i-th block, in the order of the gates, that goes to the state or to the input. */
static int block_of(const tn_recurrent *r, int i, int state) {
    return r->cell != TN_GRU ? i : i < 2 ? i + 1 : state ? 3 : 0;
}

static size_t all_rows(const tn_recurrent *r) {
    return (size_t)r->steps * (size_t)r->rows;
}

/* ---- steps ---- */

static size_t packed_gate_len(const tn_recurrent *r, int n) {
    return tn_gemm_packed_len(n, r->hidden);
}

static void pack_gate(void *arg, int chunk) {
    const job *j = arg;
    const tn_recurrent *r = j->r;
    int g = chunk / 2, state = chunk % 2, n = state ? r->hidden : r->in;
    tn_real *out = state ? j->packed_hh : j->packed_ih;
    if (out)
        j->k->pack_b(r->hidden, n, (state ? j->w_hh : j->w_ih) + (ptrdiff_t)g * r->hidden * n, n, 1,
                     out + (size_t)g * packed_gate_len(r, n));
}

/* out (m, n) += dg's blocks by w_hh (state) or w_ih; with add 0 the first sets it. */
static void product(const job *j, int state, int m, const tn_real *dg, tn_real *out, ptrdiff_t ldc, int add) {
    const tn_recurrent *r = j->r;
    int n = state ? r->hidden : r->in;
    const tn_real *w = state ? j->w_hh : j->w_ih, *packed = state ? j->packed_hh : j->packed_ih;
    for (int g = 0; g < r->gates; g++)
        tn_gemm_serial(&(tn_gemm_args){.m = m,
                                       .n = n,
                                       .k = r->hidden,
                                       .a = dg + (ptrdiff_t)block_of(r, g, state) * r->padded,
                                       .ars = j->dg_row,
                                       .acs = 1,
                                       .b = w + (ptrdiff_t)g * r->hidden * n,
                                       .brs = n,
                                       .bcs = 1,
                                       .packed_b = packed ? packed + (size_t)g * packed_gate_len(r, n) : NULL,
                                       .c = out,
                                       .ldc = ldc,
                                       .add = add || g});
}

static void cells(const job *j, int t, int r0, int r1) {
    const tn_recurrent *r = j->r;
    size_t row = (size_t)t * (size_t)r->rows + (size_t)r0;
    ptrdiff_t each = j->k->cell_kept[r->cell], nr = j->k->nr;
    tn_cell_rows s = {.rows = r1 - r0, .units = r->padded, .h_row = r->stride, .c_row = r->padded};
    s.h0 = tn_recurrent_edge(r, t + r->reverse, r0) + r->h_at;
    s.h1 = tn_recurrent_edge(r, t + !r->reverse, r0) + r->h_at;
    s.d_row = r->padded, s.dh = j->dh + (ptrdiff_t)r0 * r->padded;
    if (r->c) s.c0 = r->c + ((ptrdiff_t)(t + r->reverse) * r->rows + r0) * r->padded;
    if (r->c) s.dc = j->dc + (ptrdiff_t)r0 * r->padded;
    if (r->kept) s.kept_row = each * r->padded, s.kept = r->kept + (ptrdiff_t)row * s.kept_row;
    s.dg_row = j->dg_row, s.dg_block = r->padded;
    s.dg = j->dg + (j->panels ? r0 : (ptrdiff_t)row) * s.dg_row;
    if (j->panels) {
        s.panel_step = (ptrdiff_t)all_rows(r) * nr, s.panel_block = s.panel_step * (r->padded / nr);
        s.panel = j->panels + (ptrdiff_t)row * nr;
    }
    j->k->cell_back[r->cell](&s);
}

/* Beyond its length a row has no gradient of a product, and the state's waits. */
static void no_cells(const job *j, int t, int i) {
    const tn_recurrent *r = j->r;
    size_t row = (size_t)t * (size_t)r->rows + (size_t)i, nr = (size_t)j->k->nr;
    memset(j->dg + (j->panels ? (size_t)i : row) * (size_t)j->dg_row, 0,
           (size_t)(r->blocks * r->padded) * sizeof *j->dg);
    for (size_t p = 0; j->panels && p < (size_t)(r->blocks * r->padded) / nr; p++)
        memset(j->panels + (p * all_rows(r) + row) * nr, 0, nr * sizeof *j->panels);
}

static void back_step(const job *j, int t, int r0, int r1, int first) {
    const tn_recurrent *r = j->r;
    for (int i = r0; j->gy && i < r1; i++)
        if (tn_recurrent_active(r, i, t))
            j->k->accumulate((size_t)r->hidden,
                             j->gy + ((size_t)t * (size_t)r->rows + (size_t)i) * (size_t)r->hidden,
                             j->dh + (size_t)i * (size_t)r->padded);
    if (!r->length) cells(j, t, r0, r1);
    for (int i = r0; r->length && i < r1; i++) {
        if (tn_recurrent_active(r, i, t))
            cells(j, t, i, i + 1);
        else
            no_cells(j, t, i);
    }
    size_t row = (size_t)t * (size_t)r->rows + (size_t)r0;
    const tn_real *dg = j->dg + (j->panels ? r0 : (ptrdiff_t)row) * j->dg_row;
    if (!first || j->dh0) product(j, 1, r1 - r0, dg, j->dh + (ptrdiff_t)r0 * r->padded, r->padded, 1);
    if (!j->dx) return;
    ptrdiff_t x_step = r->rows_first ? r->in : (ptrdiff_t)r->rows * r->in,
              x_row = r->rows_first ? (ptrdiff_t)r->steps * r->in : r->in;
    product(j, 0, r1 - r0, dg, j->dx + t * x_step + r0 * x_row, x_row, j->dx_add);
}

static void put_rows(const tn_recurrent *r, const tn_real *from, int r0, int r1, tn_real *to) {
    for (int i = r0; i < r1; i++) {
        memcpy(to + (size_t)i * (size_t)r->padded, from + (size_t)i * (size_t)r->hidden,
               (size_t)r->hidden * sizeof *to);
        memset(to + (size_t)i * (size_t)r->padded + r->hidden, 0,
               (size_t)(r->padded - r->hidden) * sizeof *to);
    }
}

static void backward_chunk(void *arg, int chunk) {
    const job *j = arg;
    const tn_recurrent *r = j->r;
    int r0 = tn_recurrent_row(r, chunk), r1 = tn_recurrent_row(r, chunk + 1);
    put_rows(r, j->gh_n, r0, r1, j->dh);
    if (j->dc) put_rows(r, j->gc_n, r0, r1, j->dc);
    for (int s = r->steps - 1; s >= 0; s--) back_step(j, r->reverse ? r->steps - 1 - s : s, r0, r1, s == 0);
}

/* ---- weights ---- */

/* n numbers to a gradient. */
static void put(const job *j, size_t n, const tn_real *from, unsigned add, tn_real *to) {
    if (add)
        j->k->accumulate(n, from, to);
    else
        memcpy(to, from, n * sizeof *to);
}

enum { TURNED_ROWS = 40 }; /* of a chunk of the weights' gradients: whole tiles at every level but avx2 */

/* Rows a..b-1 of the transposed gradient of w_ih and its bias (state 0) or of w_hh. */
static void turned_rows(const job *j, int state, int a, int b) {
    const tn_recurrent *r = j->r;
    int n = r->gates * r->padded, skip = state && r->cell == TN_GRU ? r->padded : 0, all = (int)all_rows(r);
    int to = state ? a + r->in + 1 : a, end = (state ? r->hidden : r->in) - a,
        dim = state ? r->hidden : r->in;
    const tn_real *left = tn_recurrent_edge(r, r->reverse, 0) + (state ? r->h_at : r->x_at);
    tn_real *c = j->turned + (size_t)to * (size_t)n, *turn = j->turned;
    int src = state ? TN_SRC_WHH : TN_SRC_WIH;
    unsigned add = j->add >> src & 1;
    j->k->gemm(b - a, n, all, left + a, 1, r->stride, j->panels + (size_t)skip * (size_t)all, c, n, 0, NULL,
               0);
    if (!(j->need >> src & 1)) return;
    if (end > b - a) end = b - a;
    turn += (size_t)(r->in + 1 + r->padded) * (size_t)n + (size_t)to * (size_t)n;
    for (int g = 0; g < r->gates; g++) {
        const tn_real *from = c + (ptrdiff_t)block_of(r, g, state) * r->padded - skip;
        tn_real *w = j->gx[src] + (ptrdiff_t)g * r->hidden * dim + a;
        if (end > 0) j->k->transpose(end, r->hidden, from, n, add ? turn : w, add ? end : dim);
        for (int u = 0; add && u < r->hidden; u++)
            j->k->accumulate((size_t)(end > 0 ? end : 0), turn + (ptrdiff_t)u * end, w + (ptrdiff_t)u * dim);
    }
}

static void weights_chunk(void *arg, int chunk) {
    const job *j = arg;
    const tn_recurrent *r = j->r;
    int a = chunk * TURNED_ROWS, b = a + TURNED_ROWS, x = r->in + 1, all = x + r->padded;
    if (b > all) b = all;
    if (a < x) turned_rows(j, 0, a, b < x ? b : x);
    if (b > x && j->need >> TN_SRC_WHH & 1) turned_rows(j, 1, a > x ? a - x : 0, b - x);
}

static void own_weights(job *j, tn_tape *t) {
    const tn_recurrent *r = j->r;
    int rows = r->in + 1 + r->padded, n = r->gates * r->padded, h = r->hidden;
    j->turned = tn_scratch(t, 2 * (size_t)rows * (size_t)n * sizeof *j->turned);
    tn_parallel((rows + TURNED_ROWS - 1) / TURNED_ROWS, weights_chunk, j);
    const tn_real *sums = j->turned + (size_t)r->in * (size_t)n;
    for (int src = TN_SRC_BIH; src <= TN_SRC_BHH; src++)
        for (int g = 0; g < r->gates && j->need >> src & 1; g++) {
            tn_real *to = j->gx[src] + (ptrdiff_t)g * h;
            int b = block_of(r, g, src == TN_SRC_BHH), nr = j->k->nr;
            const tn_real *panel = j->panels + (size_t)b * (size_t)r->padded * all_rows(r);
            if (b * r->padded < n)
                put(j, (size_t)h, sums + (ptrdiff_t)b * r->padded, j->add >> src & 1, to);
            else /* of the state's part of n, which the input's rows do not see */
                for (int u = 0; u < h; u += nr, panel += all_rows(r) * (size_t)nr)
                    j->k->col_sum((int)all_rows(r), h - u < nr ? h - u : nr, panel, nr, j->add >> src & 1,
                                  to + u);
        }
}

static void blas_weights(const job *j) {
    const tn_recurrent *r = j->r;
    int all = (int)all_rows(r);
    for (int state = 0; state < 2; state++)
        for (int g = 0; g < r->gates; g++) {
            const tn_real *dg = j->dg + (ptrdiff_t)block_of(r, g, state) * r->padded;
            int w = state ? TN_SRC_WHH : TN_SRC_WIH, b = state ? TN_SRC_BHH : TN_SRC_BIH,
                n = state ? r->hidden : r->in;
            if (j->need >> w & 1)
                tn_gemm(
                    &(tn_gemm_args){.m = r->hidden,
                                    .n = n,
                                    .k = all,
                                    .a = dg,
                                    .ars = 1,
                                    .acs = j->dg_row,
                                    .b = tn_recurrent_edge(r, r->reverse, 0) + (state ? r->h_at : r->x_at),
                                    .brs = r->stride,
                                    .bcs = 1,
                                    .c = j->gx[w] + (ptrdiff_t)g * r->hidden * n,
                                    .ldc = n,
                                    .add = j->add >> w & 1});
            if (j->need >> b & 1)
                j->k->col_sum(all, r->hidden, dg, j->dg_row, j->add >> b & 1,
                              j->gx[b] + (ptrdiff_t)g * r->hidden);
        }
}

static void state_gradient(const job *j, int src, const tn_real *from) {
    const tn_recurrent *r = j->r;
    for (int i = 0; i < r->rows && j->need >> src & 1; i++)
        put(j, (size_t)r->hidden, from + (size_t)i * (size_t)r->padded, j->add >> src & 1,
            j->gx[src] + (size_t)i * (size_t)r->hidden);
}

void tn_recurrent_backward(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const tn_recurrent *r = y->aux;
    tn_tape *t = y->tape;
    size_t n = tn_recurrent_state(r), row = (size_t)(r->blocks * r->padded);
    const tn_real *last = r->last_only ? gy : gy + (size_t)r->steps * n;
    job j = {.r = r,
             .k = tn_kernels_get(NULL),
             .w_ih = y->src[TN_SRC_WIH]->x,
             .w_hh = y->src[TN_SRC_WHH]->x,
             .gy = r->last_only ? NULL : gy,
             .gh_n = last,
             .gc_n = r->c ? last + n : NULL,
             .dx = need >> TN_SRC_X & 1 ? gx[TN_SRC_X] : NULL,
             .dx_add = add >> TN_SRC_X & 1,
             .dh0 = need >> TN_SRC_H0 & 1,
             .gx = gx,
             .need = need,
             .add = add};
    size_t state = (size_t)r->rows * (size_t)r->padded * sizeof(tn_real);
    j.dh = tn_scratch(t, state), j.dc = r->c ? tn_scratch(t, state) : NULL;
    j.dg_row = (ptrdiff_t)row + 16; /* rows whole pages apart would crowd into one set of the cache */
    if (tn_gemm_own()) {
        size_t gates = (size_t)r->gates * sizeof(tn_real);
        j.dg = tn_scratch(t, (size_t)r->rows * (size_t)j.dg_row * sizeof *j.dg);
        j.panels = tn_scratch(t, all_rows(r) * row * sizeof *j.panels);
        j.packed_hh = tn_scratch(t, packed_gate_len(r, r->hidden) * gates);
        if (j.dx) j.packed_ih = tn_scratch(t, packed_gate_len(r, r->in) * gates);
        tn_parallel(2 * r->gates, pack_gate, &j);
    } else {
        j.dg = tn_scratch(t, all_rows(r) * (size_t)j.dg_row * sizeof *j.dg);
    }
    tn_parallel(tn_recurrent_chunks(r), backward_chunk, &j);
    state_gradient(&j, TN_SRC_H0, j.dh);
    state_gradient(&j, TN_SRC_C0, j.dc);
    if (!(need >> TN_SRC_WIH)) return;
    if (tn_gemm_own())
        own_weights(&j, t);
    else
        blas_weights(&j);
}

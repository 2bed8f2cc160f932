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
    tn_real *packed_ih;              /* own kernels: gate by gate, each packed for gemm as H rows */
    tn_real *packed_hh;              /* own kernels: panel by panel, of each H rows a gate */
    tn_real *dg;                     /* a row a row of the batch; OpenBLAS: of each step */
    tn_real *panels;                 /* own kernels: (blocks padded / nr) panels of T N rows */
    ptrdiff_t dg_row;
    tn_real *dh, *dc; /* (N, padded) */
    tn_real *dx;
    int dx_add, dh0; /* dh0: the initial state's gradient is wanted */
    /* gradients of the weights */
    tn_real *turned;       /* (I + 1 + padded, blocks padded): transposed */
    tn_real *turned_again; /* room to turn them back where they are added */
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

/* Where rows from r0 on of a step stand in the panel of units u...u+w-1 of a block of dg. */
static tn_real *panel_rows(const job *j, int block, int u, int w, int t, int r0) {
    size_t all = all_rows(j->r), row = (size_t)t * (size_t)j->r->rows + (size_t)r0;
    return j->panels + all * (size_t)(block * j->r->padded + u) + row * (size_t)w;
}

static size_t packed_gate_len(const tn_recurrent *r) {
    return tn_gemm_packed_len(r->in, r->hidden);
}

static void pack_gate(void *arg, int g) {
    const job *j = arg;
    const tn_recurrent *r = j->r;
    ptrdiff_t h = r->hidden;
    if (j->dx)
        j->k->pack_b(r->hidden, r->in, j->w_ih + g * h * r->in, r->in, 1,
                     j->packed_ih + (size_t)g * packed_gate_len(r));
    for (int u = 0, w; u < r->padded; u += w) {
        w = tn_recurrent_units(r, j->k, u);
        int cols = r->hidden - u < w ? r->hidden - u : w;
        tn_real *out = j->packed_hh + (r->gates * u + g * w) * h;
        if (cols < w) memset(out, 0, (size_t)(h * w) * sizeof *out);
        for (ptrdiff_t p = 0; p < h; p++)
            memcpy(out + p * w, j->w_hh + (g * h + p) * h + u, (size_t)cols * sizeof *out);
    }
}

/* What the next step backward reads and writes is fetched during this one's product of gate g and units u... */
static void fetch_next(const job *j, int t, int r0, int m, int g, int u, int w, tn_panel_product *p) {
    const tn_recurrent *r = j->r;
    int next = r->reverse ? t + 1 : t - 1, panels = (r->padded + j->k->panel - 1) / j->k->panel;
    int i = u / j->k->panel, lstm = r->cell == TN_LSTM, gru = r->cell == TN_GRU;
    size_t rows = (size_t)m * sizeof(tn_real), wide = (size_t)r->padded;
    p->soon[0] = p->soon[1] = NULL;
    if (next < 0 || next >= r->steps) return;
    p->soon[0] = panel_rows(j, block_of(r, g, 1), u, w, next, r0), p->soon_len[0] = (size_t)w * rows;
    if (lstm && g == 3)
        tn_share(tn_recurrent_c(r, next + r->reverse, r0), rows * wide, i, panels, &p->soon[1],
                 &p->soon_len[1]);
    else if (lstm)
        tn_share(tn_recurrent_kept(r, next, r0), rows * (size_t)r->kept_len * wide, 3 * i + g, 3 * panels,
                 &p->soon[1], &p->soon_len[1]);
    else if (gru && g == 0)
        tn_share(tn_recurrent_kept(r, next, r0), rows * (size_t)r->kept_len * wide, i, panels, &p->soon[1],
                 &p->soon_len[1]);
    else if (gru && g == 2)
        p->soon[1] = panel_rows(j, 0, u, w, next, r0), p->soon_len[1] = (size_t)w * rows;
    else
        tn_share(tn_recurrent_edge(r, next + (gru ? r->reverse : !r->reverse), r0), rows * (size_t)r->stride,
                 i, panels, &p->soon[1], &p->soon_len[1]);
}

/* dh of rows r0... += dg by w_hh. */
static void state_product(const job *j, int t, int r0, int m, const tn_real *dg) {
    const tn_recurrent *r = j->r;
    tn_real *dh = j->dh + (ptrdiff_t)r0 * r->padded;
    ptrdiff_t h = r->hidden;
    if (!j->panels) {
        for (int g = 0; g < r->gates; g++)
            tn_gemm_serial(&(tn_gemm_args){.m = m,
                                           .n = r->hidden,
                                           .k = r->hidden,
                                           .a = dg + (ptrdiff_t)block_of(r, g, 1) * r->padded,
                                           .ars = j->dg_row,
                                           .acs = 1,
                                           .b = j->w_hh + g * h * h,
                                           .brs = h,
                                           .bcs = 1,
                                           .c = dh,
                                           .ldc = r->padded,
                                           .add = 1});
        return;
    }
    const tn_real *b = j->packed_hh;
    for (int u = 0, w; u < r->padded; u += w) {
        w = tn_recurrent_units(r, j->k, u);
        tn_panel_product p = {
            .m = m, .w = w, .k = r->hidden, .stride = j->dg_row, .c = dh + u, .ldc = r->padded, .add = 1};
        for (int g = 0; g < r->gates; g++, b += h * w) {
            p.a = dg + (ptrdiff_t)block_of(r, g, 1) * r->padded, p.panel = b;
            fetch_next(j, t, r0, m, g, u, w, &p);
            j->k->panel_product(&p);
        }
    }
}

/* dx of a step and some rows, or += with add. */
static void input_product(const job *j, int m, const tn_real *dg, tn_real *dx, ptrdiff_t ldc) {
    const tn_recurrent *r = j->r;
    for (int g = 0; g < r->gates; g++)
        tn_gemm_serial(
            &(tn_gemm_args){.m = m,
                            .n = r->in,
                            .k = r->hidden,
                            .a = dg + (ptrdiff_t)block_of(r, g, 0) * r->padded,
                            .ars = j->dg_row,
                            .acs = 1,
                            .b = j->w_ih + (ptrdiff_t)g * r->hidden * r->in,
                            .brs = r->in,
                            .bcs = 1,
                            .packed_b = j->panels ? j->packed_ih + (size_t)g * packed_gate_len(r) : NULL,
                            .c = dx,
                            .ldc = ldc,
                            .add = j->dx_add || g});
}

static void cells(const job *j, int t, int r0, int r1) {
    const tn_recurrent *r = j->r;
    ptrdiff_t row = (ptrdiff_t)t * r->rows + r0, each = j->k->cell_kept[r->cell],
              all = (ptrdiff_t)all_rows(r);
    for (int u = 0, w; u < r->padded; u += w) {
        w = tn_recurrent_units(r, j->k, u);
        tn_cell_rows s = {.rows = r1 - r0, .units = w, .h_row = r->stride, .c_row = r->padded};
        s.h0 = tn_recurrent_edge(r, t + r->reverse, r0) + r->h_at + u;
        s.h1 = tn_recurrent_edge(r, t + !r->reverse, r0) + r->h_at + u;
        s.d_row = r->padded, s.dh = j->dh + (ptrdiff_t)r0 * r->padded + u;
        if (r->c) s.c0 = tn_recurrent_c(r, t + r->reverse, r0) + u;
        if (r->c) s.dc = j->dc + (ptrdiff_t)r0 * r->padded + u;
        if (r->kept) s.kept_row = each * r->padded, s.kept = tn_recurrent_kept(r, t, r0) + u * each;
        s.dg_row = j->dg_row, s.dg_block = r->padded;
        s.dg = j->dg + (j->panels ? r0 : row) * s.dg_row + u;
        if (j->panels) {
            s.panel_row = w, s.panel_block = all * r->padded;
            s.panel = panel_rows(j, 0, u, w, t, r0);
        }
        j->k->cell_back[r->cell](&s);
    }
}

/* Beyond its length a row has no gradient of a product, and the state's waits. */
static void no_cells(const job *j, int t, int i) {
    const tn_recurrent *r = j->r;
    ptrdiff_t row = (ptrdiff_t)t * r->rows + i, all = (ptrdiff_t)all_rows(r);
    memset(j->dg + (j->panels ? i : row) * j->dg_row, 0, (size_t)(r->blocks * r->padded) * sizeof *j->dg);
    for (int b = 0; j->panels && b < r->blocks; b++)
        for (int u = 0, w; u < r->padded; u += w) {
            w = tn_recurrent_units(r, j->k, u);
            memset(j->panels + all * (b * r->padded + u) + row * w, 0, (size_t)w * sizeof *j->panels);
        }
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
    if (!first || j->dh0) state_product(j, t, r0, r1 - r0, dg);
    if (!j->dx) return;
    ptrdiff_t x_step = r->rows_first ? r->in : (ptrdiff_t)r->rows * r->in,
              x_row = r->rows_first ? (ptrdiff_t)r->steps * r->in : r->in;
    input_product(j, r1 - r0, dg, j->dx + t * x_step + r0 * x_row, x_row);
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

/*
 * Chunks of the weights' gradients: a block of dg by some rows of the transposed gradient, which are columns of edge. A
 * piece of dg's panel stays in L1 while the rows go by, and edge's columns are read as they lie.
 */
enum { STEP_K = 128, CHUNKS = 4 }; /* CHUNKS: at least so many */

static int row_chunks(const tn_recurrent *r) {
    return r->blocks >= CHUNKS ? 2 : CHUNKS / r->blocks;
}

/* The panel after the one of units u... and rows from p on, for the next product. */
static void fetch_panel(const job *j, const tn_real *block, ptrdiff_t p, int u, tn_panel_product *s) {
    const tn_recurrent *r = j->r;
    ptrdiff_t all = (ptrdiff_t)all_rows(r);
    u += s->w;
    if (u >= r->padded) u = 0, p += STEP_K;
    if (p >= all) return;
    ptrdiff_t k = all - p < STEP_K ? all - p : STEP_K, w = tn_recurrent_units(r, j->k, u);
    s->soon[0] = block + all * u + p * w, s->soon_len[0] = (size_t)(k * w) * sizeof(tn_real);
}

/* Rows a..b-1 of [x, 1, state] by block g of dg, to `turned`. */
static void turned_block(const job *j, int a, int b, int g) {
    const tn_recurrent *r = j->r;
    ptrdiff_t all = (ptrdiff_t)all_rows(r), row = (ptrdiff_t)r->blocks * r->padded;
    const tn_real *left = tn_recurrent_edge(r, r->reverse, 0) + r->x_at + a,
                  *right = j->panels + all * g * r->padded;
    tn_real *out = j->turned + a * row + (ptrdiff_t)g * r->padded;
    for (ptrdiff_t p = 0; p < all; p += STEP_K) {
        int k = all - p < STEP_K ? (int)(all - p) : STEP_K;
        for (int u = 0, w; u < r->padded; u += w) {
            w = tn_recurrent_units(r, j->k, u);
            tn_panel_product s = {.m = b - a, .w = w, .k = k, .columns = 1, .stride = r->stride, .ldc = row};
            s.a = left + p * r->stride, s.panel = right + all * u + p * w, s.c = out + u;
            s.add = p > 0;
            fetch_panel(j, right, p, u, &s);
            j->k->panel_product(&s);
        }
    }
}

/* Turns rows a..b-1 of the transposed gradient of w_hh or w_ih (state: 1 or 0), block to gate g, into the gradient. */
static void turn_back(const job *j, int state, int g, int a, int b) {
    const tn_recurrent *r = j->r;
    int src = state ? TN_SRC_WHH : TN_SRC_WIH, dim = state ? r->hidden : r->in;
    if (b > dim) b = dim;
    if (!(j->need >> src & 1) || a >= b) return;
    ptrdiff_t row = (ptrdiff_t)r->blocks * r->padded, at = a + (state ? r->in + 1 : 0), n = b - a;
    const tn_real *from = j->turned + at * row + (ptrdiff_t)block_of(r, g, state) * r->padded;
    tn_real *to = j->gx[src] + (ptrdiff_t)g * r->hidden * dim + a;
    if (!(j->add >> src & 1)) {
        j->k->transpose((int)n, r->hidden, from, row, to, dim);
        return;
    }
    tn_real *again =
        j->turned_again + (at + (ptrdiff_t)block_of(r, g, state) * (r->in + 1 + r->padded)) * r->hidden;
    j->k->transpose((int)n, r->hidden, from, row, again, n);
    for (int u = 0; u < r->hidden; u++) j->k->accumulate((size_t)n, again + u * n, to + (ptrdiff_t)u * dim);
}

static void weights_chunk(void *arg, int chunk) {
    const job *j = arg;
    const tn_recurrent *r = j->r;
    int pieces = row_chunks(r), block = chunk / pieces, x = r->in + 1, gru = r->cell == TN_GRU;
    int lo = gru && block == 3 ? x : 0,
        hi = gru && block == 0 ? x : x + r->padded; /* what this block meets */
    int tiles = (hi - lo + TN_MR_MAX - 1) / TN_MR_MAX, i = chunk % pieces;
    int a = lo + tiles * i / pieces * TN_MR_MAX, b = lo + tiles * (i + 1) / pieces * TN_MR_MAX;
    if (b > hi) b = hi;
    if (a >= b) return;
    turned_block(j, a, b, block);
    for (int g = 0; g < r->gates; g++) {
        if (a < x && block_of(r, g, 0) == block) turn_back(j, 0, g, a, b < x ? b : x);
        if (b > x && block_of(r, g, 1) == block) turn_back(j, 1, g, a > x ? a - x : 0, b - x);
    }
}

static void own_weights(job *j, tn_tape *t) {
    const tn_recurrent *r = j->r;
    int h = r->hidden;
    size_t rows = (size_t)(r->in + 1 + r->padded), n = (size_t)(r->blocks * r->padded), all = all_rows(r);
    j->turned = tn_scratch(t, rows * n * sizeof *j->turned);
    if (j->add >> TN_SRC_WIH) j->turned_again = tn_scratch(t, rows * n * sizeof *j->turned);
    tn_parallel(r->blocks * row_chunks(r), weights_chunk, j);
    const tn_real *sums = j->turned + (size_t)r->in * n;
    for (int src = TN_SRC_BIH; src <= TN_SRC_BHH; src++)
        for (int g = 0; g < r->gates && j->need >> src & 1; g++) {
            tn_real *to = j->gx[src] + (ptrdiff_t)g * h;
            int b = block_of(r, g, src == TN_SRC_BHH), add = j->add >> src & 1;
            if (r->cell != TN_GRU || b < 3)
                put(j, (size_t)h, sums + (ptrdiff_t)b * r->padded, (unsigned)add, to);
            else /* the state's part of n, which [x, 1] does not meet */
                for (int u = 0, w; u < h; u += w) {
                    w = tn_recurrent_units(r, j->k, u);
                    j->k->col_sum((int)all, h - u < w ? h - u : w,
                                  j->panels + all * (size_t)(b * r->padded + u), w, add, to + u);
                }
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
        j.packed_hh = tn_scratch(t, (size_t)r->hidden * (size_t)r->padded * gates);
        if (j.dx) j.packed_ih = tn_scratch(t, packed_gate_len(r) * gates);
        tn_parallel(r->gates, pack_gate, &j);
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

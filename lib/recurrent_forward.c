/* SPDX-License-Identifier: MIT */
/*
 * A recurrent layer forward. A chunk of rows goes through all time steps on its own, without a barrier: its state stays
 * in the core's cache. The weights are packed once, all gates of a block of units side by side, so that the cell's
 * nonlinearities run on products that have just left the registers; a sum begins with its biases.
 */
#include "recurrent.h"
#include <string.h>

typedef struct {
    const tn_recurrent *r;
    const tn_kernels_t *k;
    const tn_real *x, *h0, *c0, *w_ih, *w_hh, *b_ih, *b_hh;
    tn_real *packed;   /* own kernels: for each panel of units, its gates */
    tn_real *packed_x; /* for each panel of units, the rows for x, of all gates side by side */
    tn_real *bias;     /* as a cell's z: for the units that go together, block by block */
    int *finite;       /* are they, of each panel */
    tn_real *z;        /* OpenBLAS: (N, blocks, padded) */
    tn_real *y, *last_h, *last_c;
} job;

/* ---- packing ---- */

/* A panel of units u0...u0+w-1 of gate g: depth rows of w (gates H, depth), then zeros to `rows`. */
static void pack_panel(const job *j, int g, int u0, int w, const tn_real *from, int depth, int rows,
                       tn_real *out) {
    int h = j->r->hidden, cols = h - u0 < w ? h - u0 : w;
    size_t len = (size_t)rows * (size_t)w, done = cols == w ? (size_t)depth * (size_t)w : 0;
    memset(out + done, 0, (len - done) * sizeof *out);
    j->k->transpose(cols, depth, from + ((ptrdiff_t)g * h + u0) * depth, depth, out, w);
}

/* Reals for each unit. */
static size_t packed_unit_len(const tn_recurrent *r) {
    return (size_t)(r->gates * (r->in + r->padded));
}

/* Units that go through the cell together: a cell of one gate takes several panels. */
static int wide_units(const tn_recurrent *r, const tn_kernels_t *k, int u) {
    int w = r->gates == 1 ? 4 * k->panel : k->panel;
    return r->padded - u < w ? r->padded - u : w;
}

/* The first of the units that go together with u. */
static int first_unit(const tn_recurrent *r, const tn_kernels_t *k, int u) {
    return r->gates == 1 ? u / (4 * k->panel) * 4 * k->panel : u;
}

/* The bias of block b for units u... */
static tn_real *bias_of(const job *j, int b, int u) {
    int first = first_unit(j->r, j->k, u);
    return j->bias + (ptrdiff_t)first * j->r->blocks + (ptrdiff_t)b * wide_units(j->r, j->k, first)
           + (u - first);
}

/* Both biases in one, but those of a GRU's n, whose parts stay apart. Beyond H, and without a bias, 0. */
static void pack_bias(const job *j, int u, int w) {
    const tn_recurrent *r = j->r;
    for (int b = 0; b < r->blocks; b++) {
        int part = r->cell == TN_GRU && b >= 2, g = b < r->gates ? b : r->gates - 1;
        tn_real *out = bias_of(j, b, u);
        for (int i = 0; i < w; i++) {
            size_t at = (size_t)g * (size_t)r->hidden + (size_t)(u + i);
            int in = u + i < r->hidden && j->b_ih && !(part && b == 3),
                state = u + i < r->hidden && j->b_hh && !(part && b == 2);
            out[i] = (in ? j->b_ih[at] : 0) + (state ? j->b_hh[at] : 0);
        }
    }
}

/* x's weights once more, a row all gates of the units that go together: for a sparse x, unless one is not finite. */
static void pack_x(const job *j, int u, int w) {
    const tn_recurrent *r = j->r;
    int cols = r->hidden - u < w ? r->hidden - u : w, bad = 0, first = first_unit(r, j->k, u);
    ptrdiff_t all = wide_units(r, j->k, first), row = (ptrdiff_t)r->gates * all;
    tn_real *out = j->packed_x + (ptrdiff_t)first * r->gates * r->in + (u - first);
    for (int g = 0; g < r->gates; g++, out += all) {
        for (int p = 0; cols < w && p < r->in; p++) memset(out + p * row, 0, (size_t)w * sizeof *out);
        j->k->transpose(cols, r->in, j->w_ih + ((ptrdiff_t)g * r->hidden + u) * r->in, r->in, out, row);
        for (int p = 0; p < r->in; p++)
            for (int i = 0; i < w; i++) bad |= out[p * row + i] - out[p * row + i] != 0;
    }
    j->finite[u / j->k->panel] = !bad;
}

/* A panel of units: its rows for x and its biases, or its rows for the state. */
static void pack_units(void *arg, int chunk) {
    const job *j = arg;
    const tn_recurrent *r = j->r;
    int state = chunk % 2, u = chunk / 2 * j->k->panel, w = tn_recurrent_units(r, j->k, u);
    tn_real *out = j->packed + (size_t)u * packed_unit_len(r);
    for (int g = 0; g < r->gates; g++, out += (ptrdiff_t)w * (r->in + r->padded)) {
        if (state)
            pack_panel(j, g, u, w, j->w_hh, r->hidden, r->padded, out + (ptrdiff_t)w * r->in);
        else
            pack_panel(j, g, u, w, j->w_ih, r->in, r->in, out);
    }
    if (!state) pack_bias(j, u, w);
    if (!state && j->packed_x) pack_x(j, u, w);
}

/* ---- one step ---- */

void tn_recurrent_put_x(const tn_recurrent *r, const tn_kernels_t *k, const tn_real *x, int chunk, int t) {
    int r0 = tn_recurrent_row(r, chunk), r1 = tn_recurrent_row(r, chunk + 1);
    ptrdiff_t row = (r->rows_first ? (ptrdiff_t)r->steps : 1) * r->in;
    const tn_real *from = x + tn_recurrent_x(r, t, r0) * (size_t)r->in;
    tn_real *to = tn_recurrent_edge(r, t + r->reverse, r0) + r->x_at;
    if (!r->length) k->copy_rows(r1 - r0, r->in, from, row, to, r->stride);
    for (int i = r0; r->length && i < r1; i++, from += row, to += r->stride) {
        if (tn_recurrent_active(r, i, t))
            memcpy(to, from, (size_t)r->in * sizeof *to);
        else /* padding: whatever it holds is not to be seen */
            memset(to, 0, (size_t)r->in * sizeof *to);
    }
}

static tn_cell_rows cell_rows(const job *j, int t, int r0, int r1, int unit) {
    const tn_recurrent *r = j->r;
    ptrdiff_t each = r->kept_len, kept_row = each * r->padded;
    tn_cell_rows s = {.rows = r1 - r0, .units = r->padded - unit, .h_row = r->stride, .c_row = r->padded};
    s.h0 = tn_recurrent_edge(r, t + r->reverse, r0) + r->h_at + unit;
    s.h1 = tn_recurrent_edge(r, t + !r->reverse, r0) + r->h_at + unit;
    if (r->c) {
        s.c0 = tn_recurrent_c(r, t + r->reverse, r0) + unit;
        s.c1 = tn_recurrent_c(r, t + !r->reverse, r0) + unit;
    }
    if (r->kept) s.kept = tn_recurrent_kept(r, t, r0) + unit * each, s.kept_row = kept_row;
    return s;
}

/* What the next step writes is fetched during this one's products, n of them: kept by all, edge and c in turns. */
static void fetch_next(const job *j, int t, int r0, int m, int n, tn_soon soon[3]) {
    const tn_recurrent *r = j->r;
    int next = r->reverse ? t - 1 : t + 1, edge = next + !r->reverse;
    size_t rows = (size_t)m * sizeof(tn_real), wide = (size_t)r->padded;
    memset(soon, 0, 3 * sizeof *soon);
    if (next < 0 || next >= r->steps || r->forward_only) return;
    if (r->kept) soon[0] = tn_soon_of(tn_recurrent_kept(r, next, r0), rows * (size_t)r->kept_len * wide, n);
    soon[1] = tn_soon_of(tn_recurrent_edge(r, edge, r0), rows * (size_t)r->stride, r->c ? n / 2 : n);
    if (r->c) soon[2] = tn_soon_of(tn_recurrent_c(r, edge, r0), rows * wide, n / 2);
}

/* Does a chunk skip the zeros of x? */
static int skips(const job *j, int chunk) {
    return j->packed_x && tn_recurrent_sparse(j->r, chunk);
}

/*
 * An Elman cell's products of a sparse x are made for steps s and s + 1, as they go, at a time, by the columns where either has
 * something: rows of an image that follow each other are alike. The second step's wait in z. (Of a cell of more gates
 * they would leave the first-level cache.) By shape only, not by the level's panels: see recurrent_sparse.c.
 */
static int by_twos(const tn_recurrent *r, int s, int m) {
    return r->gates == 1 && r->hidden <= 4 * TN_PANEL_MAX && 2 * m <= TN_RECURRENT_MOST && s + 1 < r->steps;
}

/* Products of a sparse x for the units that go together from u0 on, at step t and, unless c_step is 0, the next. */
static void sparse_x(const job *j, int t, int r0, int u0, tn_real *z, ptrdiff_t c_step) {
    const tn_recurrent *r = j->r;
    int all = wide_units(r, j->k, u0);
    tn_sparse_rows x, next;
    tn_recurrent_marked(r, j->x, r0 / r->each, t, &x);
    x.w = r->gates * all, x.b = j->packed_x + (ptrdiff_t)u0 * r->gates * r->in, x.ldb = x.w;
    x.bias = bias_of(j, 0, u0), x.c = z, x.ldc = r->blocks * all;
    if (c_step) {
        tn_recurrent_marked(r, j->x, r0 / r->each, r->reverse ? t - 1 : t + 1, &next);
        x.two = 1, x.step = next.a - x.a, x.bits_step = next.bits - x.bits, x.c_step = c_step;
    }
    j->k->sparse_rows(&x);
}

/* Products and cells, a panel of units after another. */
static void own_step(const job *j, int t, int r0, int r1, tn_real *z) {
    const tn_recurrent *r = j->r;
    int m = r1 - r0, kx = r->in, kh = r->padded, whole = r->cell == TN_GRU ? 2 : r->gates;
    const tn_real *a = tn_recurrent_edge(r, t + r->reverse, r0) + r->x_at, *b = j->packed;
    if (r->from_zero && t == (r->reverse ? r->steps - 1 : 0)) kh = 0; /* the state: zeros */
    int i = 0, products = r->gates * ((r->padded + j->k->panel - 1) / j->k->panel);
    tn_soon soon[3];
    fetch_next(j, t, r0, m, products, soon);
    int sparse = skips(j, r0 / r->each), s = r->reverse ? r->steps - 1 - t : t,
        twos = sparse && by_twos(r, s - s % 2, m), second = twos && s % 2;
    for (int u0 = 0, all; u0 < r->padded; u0 += all) {
        all = wide_units(r, j->k, u0);
        int row = r->blocks * all;
        ptrdiff_t waits = twos ? (ptrdiff_t)m * (r->padded + u0) : 0; /* where the second step's are in z */
        if (sparse && !second) sparse_x(j, t, r0, u0, z, waits);
        tn_real *out = second ? z + waits : z;
        for (int u = u0, w; u < u0 + all; u += w) {
            w = tn_recurrent_units(r, j->k, u);
            tn_panel_product p = {.m = m, .w = w, .stride = r->stride, .ldc = row};
            for (int g = 0; g < r->gates; g++, b += (ptrdiff_t)w * (r->in + r->padded)) {
                int one = g < whole; /* x and the state in one sum */
                p.k = one ? kx + kh : kx, p.a = a, p.panel = b, p.add = 0, p.bias = bias_of(j, g, u);
                p.c = out + (u - u0) + g * all;
                tn_soon_next(&soon[0], &p, 0), tn_soon_next(&soon[r->c ? 1 + i++ % 2 : 1], &p, 1);
                if (!sparse) {
                    j->k->panel_product(&p);
                    if (one) continue;
                    p.soon[0] = p.soon[1] = NULL;
                }
                if (one && !kh) continue;
                p.k = kh, p.a = a + kx, p.panel = b + (ptrdiff_t)w * kx, p.add = one;
                if (!one) p.c += all, p.bias = bias_of(j, g + 1, u);
                j->k->panel_product(&p);
            }
        }
        tn_cell_rows cell = cell_rows(j, t, r0, r1, u0);
        cell.units = all, cell.z = out, cell.z_row = row, cell.z_block = all;
        j->k->cell[r->cell](&cell);
    }
}

static void blas_product(const job *j, int t, int r0, int r1, int state, int gate, int block, int add) {
    const tn_recurrent *r = j->r;
    int depth = state ? r->hidden : r->in;
    ptrdiff_t first = (ptrdiff_t)gate * r->hidden, row = (ptrdiff_t)r->blocks * r->padded;
    const tn_real *bias = state ? j->b_hh : j->b_ih;
    tn_gemm_serial(
        &(tn_gemm_args){.m = r1 - r0,
                        .n = r->hidden,
                        .k = depth,
                        .a = tn_recurrent_edge(r, t + r->reverse, r0) + (state ? r->h_at : r->x_at),
                        .ars = r->stride,
                        .acs = 1,
                        .b = (state ? j->w_hh : j->w_ih) + first * depth,
                        .brs = 1,
                        .bcs = depth,
                        .c = j->z + r0 * row + (ptrdiff_t)block * r->padded,
                        .ldc = row,
                        .add = add,
                        .bias = bias ? bias + first : NULL});
}

static void blas_step(const job *j, int t, int r0, int r1) {
    const tn_recurrent *r = j->r;
    for (int b = 0; b < r->blocks; b++) {
        int own_block = r->cell == TN_GRU && b >= 2; /* the parts of n stay apart */
        if (!own_block || b == 2) blas_product(j, t, r0, r1, 0, b, b, 0);
        if (!own_block || b == 3) blas_product(j, t, r0, r1, 1, own_block ? 2 : b, b, !own_block);
    }
    tn_cell_rows s = cell_rows(j, t, r0, r1, 0);
    s.z_row = (ptrdiff_t)r->blocks * r->padded, s.z_block = r->padded, s.z = j->z + r0 * s.z_row;
    j->k->cell[r->cell](&s);
}

/* Of rows whose sequence has ended or, in reverse, not begun the state waits; then y. */
static void finish_step(const job *j, int t, int r0, int r1) {
    const tn_recurrent *r = j->r;
    size_t bytes = (size_t)r->hidden * sizeof(tn_real), n = tn_recurrent_state(r);
    for (int i = r0; i < r1; i++) {
        tn_cell_rows s = cell_rows(j, t, i, i + 1, 0);
        int active = tn_recurrent_active(r, i, t);
        tn_real *y = r->last_only ? NULL : j->y + (size_t)t * n + (size_t)i * (size_t)r->hidden;
        if (!active) memcpy(s.h1, s.h0, bytes);
        if (!active && r->c) memcpy(s.c1, s.c0, bytes);
        if (!active && y) memset(y, 0, bytes);
        if (active && y) memcpy(y, s.h1, bytes);
    }
}

/* The initial state, filled up with zeros; or zeros. */
static void begin_row(const tn_recurrent *r, const tn_real *from, int row, tn_real *to) {
    if (from) memcpy(to, from + (ptrdiff_t)row * r->hidden, (size_t)r->hidden * sizeof *to);
    int have = from ? r->hidden : 0;
    memset(to + have, 0, (size_t)(r->padded - have) * sizeof *to);
}

static void forward_chunk(void *arg, int chunk) {
    _Alignas(64) tn_real z[TN_RECURRENT_MOST * 4 * TN_PANEL_MAX];
    const job *j = arg;
    const tn_recurrent *r = j->r;
    int r0 = tn_recurrent_row(r, chunk), r1 = tn_recurrent_row(r, chunk + 1),
        begin = r->reverse ? r->steps : 0;
    for (int i = r0; i < r1; i++) {
        begin_row(r, j->h0, i, tn_recurrent_edge(r, begin, i) + r->h_at);
        if (r->c) begin_row(r, j->c0, i, tn_recurrent_c(r, begin, i));
    }
    if (r->bits) tn_recurrent_mark(r, j->k, j->x, chunk);
    for (int s = 0; s < r->steps; s++) {
        int t = r->reverse ? r->steps - 1 - s : s;
        if (!skips(j, chunk)) tn_recurrent_put_x(r, j->k, j->x, chunk, t);
        if (j->packed)
            own_step(j, t, r0, r1, z);
        else
            blas_step(j, t, r0, r1);
        if (r->length || !r->last_only) finish_step(j, t, r0, r1);
    }
    int end = r->reverse ? 0 : r->steps;
    for (int i = r0; i < r1; i++) {
        size_t at = (size_t)i * (size_t)r->hidden, bytes = (size_t)r->hidden * sizeof(tn_real);
        memcpy(j->last_h + at, tn_recurrent_edge(r, end, i) + r->h_at, bytes);
        if (r->c) memcpy(j->last_c + at, tn_recurrent_c(r, end, i), bytes);
    }
}

void tn_recurrent_forward(const tn_recurrent *r, tn_t *const src[], tn_t *y) {
    const tn_t *b_ih = src[TN_SRC_BIH], *b_hh = src[TN_SRC_BHH], *h0 = src[TN_SRC_H0], *c0 = src[TN_SRC_C0];
    tn_real *last = r->last_only ? y->x : y->x + (size_t)r->steps * tn_recurrent_state(r);
    job j = {.r = r,
             .k = tn_kernels_get(NULL),
             .x = src[TN_SRC_X]->x,
             .h0 = h0 ? h0->x : NULL,
             .c0 = c0 ? c0->x : NULL,
             .w_ih = src[TN_SRC_WIH]->x,
             .w_hh = src[TN_SRC_WHH]->x,
             .b_ih = b_ih ? b_ih->x : NULL,
             .b_hh = b_hh ? b_hh->x : NULL,
             .y = y->x,
             .last_h = last,
             .last_c = last + tn_recurrent_state(r)};
    tn_place place = tn_mark(y->tape);
    if (tn_gemm_own()) {
        j.packed = tn_scratch(y->tape, (size_t)r->padded * packed_unit_len(r) * sizeof *j.packed);
        j.bias = tn_scratch(y->tape, (size_t)(r->padded * r->blocks) * sizeof *j.bias);
        const int panels = (r->padded + j.k->panel - 1) / j.k->panel;
        if (r->bits) {
            j.packed_x =
                tn_scratch(y->tape, (size_t)r->padded * (size_t)(r->gates * r->in) * sizeof *j.packed_x);
            j.finite = tn_scratch(y->tape, (size_t)panels * sizeof *j.finite);
        }
        tn_parallel(2 * panels, pack_units, &j);
        for (int i = 0; j.packed_x && i < panels; i++)
            if (!j.finite[i]) j.packed_x = NULL;
    } else {
        size_t bytes = (size_t)r->rows * (size_t)(r->blocks * r->padded) * sizeof *j.z;
        j.z = memset(tn_scratch(y->tape, bytes), 0, bytes);
    }
    tn_parallel(tn_recurrent_chunks(r), forward_chunk, &j);
    /*
     * Packed weights lie in the caches of all cores: where backward's buffers of one core came to lie in their place, each
     * line would have to be taken from the others. So they stay, unless they are more than what forward leaves anyway.
     */
    if (r->forward_only
        || (size_t)r->padded * packed_unit_len(r) > (size_t)(r->steps + 1) * (size_t)(r->rows * r->stride))
        tn_rewind(y->tape, place);
}

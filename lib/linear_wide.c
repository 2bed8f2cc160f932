/* SPDX-License-Identifier: MIT */
#include "linear_wide.h"
#include "kernels/kernels.h"
#include <string.h>

enum {
    DEPTH = 192, /* inputs at a time forward: a block of the kernels' products */
    LEAST_INPUTS = 2048,
    LEAST_WEIGHTS = 1 << 19,
    LEAST_BATCH = 32, /* with fewer, weights that are packed once are worth more */
    LEAST_BATCH_BACK = 16,
    ROWS_EACH = 64, /* samples a thread for which it reads all packed weights, so that they stay with it */
    CHUNKS = 16,
    WORD = 64,           /* bits of a mask */
    UNIT = 2 * TN_NR_MAX /* columns that chunks are made of: the widest panel, of four vectors */
};

int tn_linear_wide_fits(int n, int in, int out, int back) {
    return tn_gemm_own() && n >= (back ? LEAST_BATCH_BACK : LEAST_BATCH) && in >= LEAST_INPUTS
           && (double)in * out >= LEAST_WEIGHTS;
}

/* ---- forward ---- */

typedef struct {
    const tn_kernels_t *k;
    int n, in, out;
    int row_blocks, col_blocks;
    const tn_real *x, *w, *packed, *bias; /* packed: or NULL */
    int relu;
    tn_real *y, *scratch;
    size_t rows_len, scratch_len;
} forward_job;

/* Columns j0 ... of panels of B = w', rows p ... of it. */
static void pack_units(const forward_job *j, int j0, int j1, int p, int depth, tn_real *out) {
    const int nr = j->k->nr;
    for (int c = j0; c < j1; c += nr, out += (ptrdiff_t)depth * nr) {
        int units = tn_least(nr, j1 - c);
        const tn_real *w = j->w + (ptrdiff_t)c * j->in + p;
        if (units < nr) memset(out, 0, (size_t)(depth * nr) * sizeof *out);
        j->k->transpose(units, depth, w, j->in, out, nr);
    }
}

/* While panel i of n is worked on, its part of the next slab is fetched: of x by the first half of them, then of w. */
static void fetch_next(const forward_job *j, int i, int n, int r0, int r1, int c0, int c1, int p,
                       tn_gemm_panel *s) {
    const int half = (n + 1) / 2;
    const int first = i < half, of = first ? half : n - half, at = first ? i : i - half;
    const int lo = first ? r0 : c0, rows = first ? r1 - r0 : c1 - c0;
    const int from = lo + rows * at / of, to = lo + rows * (at + 1) / of;
    s->soon = (first ? j->x : j->w) + (ptrdiff_t)from * j->in + p, s->soon_rows = to - from;
}

/*
 * The same where weights are packed: while the first half of the rows goes through panel i of n its part of x is fetched, and
 * its own next slab of weights with the others, both evenly.
 */
static void panel_of_packed(const forward_job *j, int i, int n, int r0, int r1, int p, tn_gemm_panel s) {
    const int rows = r1 - r0, half = rows / 2, from = r0 + rows * i / n, to = r0 + rows * (i + 1) / n;
    s.m = half, s.soon = j->x + (ptrdiff_t)from * j->in + p, s.soon_rows = to - from;
    if (half) j->k->gemm_panel(&s);
    s.m = rows - half, s.a += half * s.lda, s.c += half * s.ldc;
    s.soon = s.b + (ptrdiff_t)s.k * j->k->nr, s.soon_rows = tn_least(DEPTH, j->in - p);
    s.soon_len = j->k->nr, s.ld_soon = j->k->nr;
    j->k->gemm_panel(&s);
}

static void forward_chunk(void *arg, int chunk) {
    const forward_job *j = arg;
    const int nr = j->k->nr, panels = (j->out + nr - 1) / nr;
    const int rb = chunk / j->col_blocks, cb = chunk % j->col_blocks;
    const int r0 = (int)((long)j->n * rb / j->row_blocks), r1 = (int)((long)j->n * (rb + 1) / j->row_blocks);
    const int c0 = (int)((long)panels * cb / j->col_blocks) * nr,
              c1 = tn_least((int)((long)panels * (cb + 1) / j->col_blocks) * nr, j->out);
    tn_real *rows = j->scratch + (size_t)tn_worker() * j->scratch_len, *packed = rows + j->rows_len;
    if (r0 >= r1 || c0 >= c1) return;
    for (int p = 0; p < j->in; p += DEPTH) {
        const int depth = tn_least(DEPTH, j->in - p), ld = tn_odd_lines(depth), last = p + depth == j->in;
        j->k->copy_rows(r1 - r0, depth, j->x + (ptrdiff_t)r0 * j->in + p, j->in, rows, ld);
        if (!j->packed) pack_units(j, c0, c1, p, depth, packed);
        const tn_real *b = j->packed ? j->packed + (ptrdiff_t)c0 * j->in + (ptrdiff_t)p * nr : packed;
        const ptrdiff_t next = (ptrdiff_t)(j->packed ? j->in : depth) * nr; /* panel */
        tn_real *y = j->y + (ptrdiff_t)r0 * j->out + c0;
        int whole = last ? 0 : (c1 - c0) / nr * nr;
        tn_gemm_panel s = {.m = r1 - r0, .k = depth, .a = rows, .lda = ld, .ldc = j->out, .add = p > 0};
        s.soon_len = DEPTH, s.ld_soon = j->in;
        for (int c = 0; c < whole; c += nr, b += next) {
            s.b = b, s.c = y + c;
            if (j->packed) {
                panel_of_packed(j, c / nr, whole / nr, r0, r1, p + depth, s);
                continue;
            }
            fetch_next(j, c / nr, whole / nr, r0, r1, c0, c1, p + depth, &s);
            j->k->gemm_panel(&s);
        }
        for (int c = c0 + whole; c < c1; c += nr, b += next)
            j->k->gemm(r1 - r0, tn_least(nr, c1 - c), depth, rows, ld, 1, b, y + c - c0, j->out, p > 0,
                       last && j->bias ? j->bias + c : NULL, last && j->relu);
    }
}

/*
 * Each chunk reads its rows of x and its units' weights from beginning to end: no more chunks than threads, then. That is
 * an exception to tn_parallel's rule, and no bit depends on it: nothing is summed across chunks, a chunk cuts n and
 * out alone, and an element is one chain over in, whichever tile it falls in (tests/test_linear_wide.c, 1 to 5
 * threads).
 */
void tn_linear_wide_forward(tn_tape *t, int n, int in, int out, const tn_real *x, const tn_real *w,
                            const tn_real *packed, const tn_real *bias, int relu, tn_real *y) {
    const tn_place place = tn_mark(t);
    forward_job j = {.k = tn_kernels_get(NULL), .n = n, .in = in, .out = out, .x = x, .w = w, .bias = bias};
    const int panels = (out + j.k->nr - 1) / j.k->nr, threads = tn_threads();
    j.packed = packed, j.relu = relu, j.y = y;
    const int by_rows = packed && n >= ROWS_EACH * threads;
    j.col_blocks = by_rows ? 1 : tn_least(threads, panels);
    j.row_blocks = tn_least((threads + j.col_blocks - 1) / j.col_blocks, n);
    j.rows_len = (size_t)((n + j.row_blocks - 1) / j.row_blocks) * (size_t)tn_odd_lines(DEPTH);
    j.scratch_len = j.rows_len + (size_t)((panels + j.col_blocks - 1) / j.col_blocks * j.k->nr) * DEPTH;
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.row_blocks * j.col_blocks, forward_chunk, &j);
    tn_rewind(t, place);
}

/* ---- backward ---- */

/* A factor: dense rows, and where they are mostly zeros masks of what is not. */
typedef struct {
    int m, k;
    const tn_real *a;
    ptrdiff_t lda;
    int sparse, words;
    uint64_t *bits;
} factor;

typedef struct {
    const tn_kernels_t *k;
    int in, chunks;
    factor dz, turned;
    const tn_real *x, *w;
    unsigned add;
    tn_real *dx, *dw, *scratch;
    size_t scratch_len;
} back_job;

/* Some columns of rows of src to a panel. */
static void pack_panel(const back_job *j, int rows, int cols, int width, const tn_real *src, tn_real *out) {
    if (cols == width) {
        j->k->copy_rows(rows, width, src, j->in, out, width);
        return;
    }
    for (int r = 0; r < rows; r++, src += j->in, out += width)
        for (int l = 0; l < width; l++) out[l] = l < cols ? src[l] : 0;
}

/* Columns c ... end - 1 of to (m, in) = f (m, k) b (k, in). */
static void dense_columns(const back_job *j, const factor *f, int add, int c, int end, const tn_real *b,
                          tn_real *to, tn_real *packed) {
    const int nr = j->k->nr;
    tn_gemm_panel s = {.m = f->m, .k = f->k, .a = f->a, .lda = f->lda, .b = packed, .add = add};
    s.ldc = s.ld_soon = j->in, s.soon_len = nr;
    for (; c < end; c += nr) {
        const int cols = tn_least(nr, end - c);
        pack_panel(j, f->k, cols, nr, b + c, packed);
        s.c = to + c, s.soon = b + c + nr, s.soon_rows = c + 2 * nr <= end ? f->k : 0;
        if (cols == nr)
            j->k->gemm_panel(&s);
        else
            j->k->gemm(s.m, cols, s.k, s.a, s.lda, 1, packed, s.c, j->in, add, NULL, 0);
    }
}

/* Zeros are skipped where the other factor is finite: 0 times infinity is NaN. */
static void columns(const back_job *j, const factor *f, int add, int c, int end, const tn_real *b,
                    tn_real *to, tn_real *packed) {
    const int width = j->k->sparse_width, whole = f->sparse ? end / UNIT * UNIT : c;
    tn_sparse_panel s = {.m = f->m, .words = f->words, .bits = f->bits, .ld_bits = f->words, .a = f->a};
    s.rs = f->lda, s.cs = s.word_step = 1, s.b = packed, s.add = add, s.far = 1, s.ldc = s.ld_soon = j->in;
    s.width = s.soon_len = width, s.alike = 1;
    for (; c < whole; c += width) {
        pack_panel(j, f->k, width, width, b + c, packed);
        s.c = to + c, s.soon = b + c + width, s.soon_rows = c + 2 * width <= whole ? f->k : 0;
        if (j->k->all_finite((size_t)f->k * (size_t)width, packed))
            j->k->sparse_panel(&s);
        else
            dense_columns(j, f, add, c, c + width, b, to, packed);
    }
    dense_columns(j, f, add, c, end, b, to, packed);
}

static void back_chunk(void *arg, int chunk) {
    const back_job *j = arg;
    const int units = (j->in + UNIT - 1) / UNIT;
    const int c = (int)((long)units * chunk / j->chunks) * UNIT,
              end = tn_least((int)((long)units * (chunk + 1) / j->chunks) * UNIT, j->in);
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len;
    if (j->dx) columns(j, &j->dz, j->add & 1, c, end, j->w, j->dx, packed);
    if (j->dw) columns(j, &j->turned, j->add >> 1 & 1, c, end, j->x, j->dw, packed);
}

/* Tells what is not zero, unless that is more than half. */
static void look(tn_tape *t, const tn_kernels_t *k, factor *f) {
    long found = 0;
    f->words = (f->k + WORD - 1) / WORD;
    const size_t words = (size_t)f->m * (size_t)f->words;
    f->bits = tn_scratch(t, words * sizeof *f->bits);
    k->sparse_bits(f->m, f->k, f->a, f->lda, f->bits);
    for (size_t i = 0; i < words; i++) found += __builtin_popcountll(f->bits[i]);
    f->sparse = 2 * found <= (long)f->m * f->k;
}

/* Behind ReLU, and more so behind dropout, dz is mostly zeros, which are skipped. */
void tn_linear_wide_back(tn_tape *t, int n, int in, int out, const tn_real *dz, const tn_real *x,
                         const tn_real *w, unsigned add, tn_real *dx, tn_real *dw) {
    const tn_place place = tn_mark(t);
    back_job j = {.k = tn_kernels_get(NULL), .in = in, .chunks = CHUNKS, .x = x, .w = w, .dx = dx, .dw = dw};
    j.add = add;
    j.dz = (factor){.m = n, .k = out, .a = dz, .lda = out};
    if (dx) look(t, j.k, &j.dz);
    if (dw) {
        const int ld = tn_odd_lines(n);
        tn_real *turned = tn_scratch(t, (size_t)out * (size_t)ld * sizeof *turned);
        j.k->transpose(n, out, dz, out, turned, ld);
        j.turned = (factor){.m = out, .k = n, .a = turned, .lda = ld};
        look(t, j.k, &j.turned);
    }
    j.scratch_len = (size_t)(n > out ? n : out) * UNIT;
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.chunks, back_chunk, &j);
    tn_rewind(t, place);
}

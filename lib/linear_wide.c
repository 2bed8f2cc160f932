/* SPDX-License-Identifier: MIT */
#include "linear_wide.h"
#include "kernels/kernels.h"
#include <string.h>

enum {
    LINE = 64 / (int)sizeof(tn_real),
    DEPTH = 192, /* inputs at a time forward: a block of the kernels' products */
    LEAST_INPUTS = 2048,
    LEAST_WEIGHTS = 1 << 19,
    LEAST_BATCH = 32, /* with fewer, weights that are packed once are worth more */
    LEAST_BATCH_BACK = 16,
    CHUNKS = 16
};

int tn_linear_wide_fits(int n, int in, int out, int back) {
    return tn_gemm_own() && n >= (back ? LEAST_BATCH_BACK : LEAST_BATCH) && in >= LEAST_INPUTS
           && (double)in * out >= LEAST_WEIGHTS;
}

/* Row stride that does not crowd into few sets of the cache. */
static int apart(int n) {
    return ((n + LINE - 1) / LINE | 1) * LINE;
}

static int least(int a, int b) {
    return a < b ? a : b;
}

/* ---- forward ---- */

typedef struct {
    const tn_kernels_t *k;
    int n, in, out;
    int row_blocks, col_blocks;
    const tn_real *x, *w, *bias;
    int relu;
    tn_real *y, *scratch;
    size_t rows_len, scratch_len;
} forward_job;

/* Columns j0 ... of panels of B = w', rows p ... of it. */
static void pack_units(const forward_job *j, int j0, int j1, int p, int depth, tn_real *out) {
    const int nr = j->k->nr;
    for (int c = j0; c < j1; c += nr, out += (ptrdiff_t)depth * nr) {
        int units = least(nr, j1 - c);
        const tn_real *w = j->w + (ptrdiff_t)c * j->in + p;
        if (units < nr) memset(out, 0, (size_t)(depth * nr) * sizeof *out);
        j->k->transpose(units, depth, w, j->in, out, nr);
    }
}

/* While panel i of n is worked on, its part of the next slab is fetched: of x by the first half of them, then of w. */
static void fetch_next(const forward_job *j, int i, int n, int r0, int r1, int c0, int c1, int p,
                       tn_gemm_panel *s) {
    const int half = (n + 1) / 2, first = i < half, of = first ? half : n - half, at = first ? i : i - half;
    const int lo = first ? r0 : c0, rows = first ? r1 - r0 : c1 - c0;
    const int from = lo + rows * at / of, to = lo + rows * (at + 1) / of;
    s->soon = (first ? j->x : j->w) + (ptrdiff_t)from * j->in + p, s->soon_rows = to - from;
}

static void forward_chunk(void *arg, int chunk) {
    const forward_job *j = arg;
    const int nr = j->k->nr, panels = (j->out + nr - 1) / nr;
    const int rb = chunk / j->col_blocks, cb = chunk % j->col_blocks;
    const int r0 = (int)((long)j->n * rb / j->row_blocks), r1 = (int)((long)j->n * (rb + 1) / j->row_blocks);
    const int c0 = (int)((long)panels * cb / j->col_blocks) * nr,
              c1 = least((int)((long)panels * (cb + 1) / j->col_blocks) * nr, j->out);
    tn_real *rows = j->scratch + (size_t)tn_worker() * j->scratch_len, *packed = rows + j->rows_len;
    if (r0 >= r1 || c0 >= c1) return;
    for (int p = 0; p < j->in; p += DEPTH) {
        const int depth = least(DEPTH, j->in - p), ld = apart(depth), last = p + depth == j->in;
        j->k->copy_rows(r1 - r0, depth, j->x + (ptrdiff_t)r0 * j->in + p, j->in, rows, ld);
        pack_units(j, c0, c1, p, depth, packed);
        tn_real *y = j->y + (ptrdiff_t)r0 * j->out + c0;
        int whole = last ? 0 : (c1 - c0) / nr * nr;
        tn_gemm_panel s = {.m = r1 - r0, .k = depth, .a = rows, .lda = ld, .ldc = j->out, .add = p > 0};
        s.soon_len = DEPTH, s.ld_soon = j->in;
        for (int c = 0; c < whole; c += nr) {
            fetch_next(j, c / nr, whole / nr, r0, r1, c0, c1, p + depth, &s);
            s.b = packed + (ptrdiff_t)c * depth, s.c = y + c;
            j->k->gemm_panel(&s);
        }
        if (c0 + whole < c1)
            j->k->gemm(r1 - r0, c1 - c0 - whole, depth, rows, ld, 1, packed + (ptrdiff_t)whole * depth,
                       y + whole, j->out, p > 0, last && j->bias ? j->bias + c0 + whole : NULL,
                       last && j->relu);
    }
}

/*
 * Each chunk reads its rows of x and its units' weights from beginning to end: no more chunks than threads, then. An
 * element is one chain wherever it is made.
 */
void tn_linear_wide_forward(tn_tape *t, int n, int in, int out, const tn_real *x, const tn_real *w,
                            const tn_real *bias, int relu, tn_real *y) {
    const tn_place place = tn_mark(t);
    forward_job j = {.k = tn_kernels_get(NULL), .n = n, .in = in, .out = out, .x = x, .w = w, .bias = bias};
    const int panels = (out + j.k->nr - 1) / j.k->nr, threads = tn_threads();
    j.relu = relu, j.y = y;
    j.col_blocks = least(threads, panels);
    j.row_blocks = least((threads + j.col_blocks - 1) / j.col_blocks, n);
    j.rows_len = (size_t)((n + j.row_blocks - 1) / j.row_blocks) * (size_t)apart(DEPTH);
    j.scratch_len = j.rows_len + (size_t)((panels + j.col_blocks - 1) / j.col_blocks * j.k->nr) * DEPTH;
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.row_blocks * j.col_blocks, forward_chunk, &j);
    tn_rewind(t, place);
}

/* ---- backward ---- */

typedef struct {
    const tn_kernels_t *k;
    int n, in, out, chunks, ld; /* ld: row stride of dz' */
    const tn_real *dz, *turned, *x, *w;
    unsigned add;
    tn_real *dx, *dw, *scratch;
    size_t scratch_len;
} back_job;

/* Some columns of rows of src to a panel. */
static void pack_panel(const back_job *j, int rows, int cols, const tn_real *src, tn_real *out) {
    const int nr = j->k->nr;
    if (cols == nr) {
        j->k->copy_rows(rows, nr, src, j->in, out, nr);
        return;
    }
    for (int r = 0; r < rows; r++, src += j->in, out += nr)
        for (int l = 0; l < nr; l++) out[l] = l < cols ? src[l] : 0;
}

/* Some columns of c (m, in) = a (m, k) b (k, in); soon: what the next call packs. */
static void columns(const back_job *j, const tn_gemm_panel *p, int cols, const tn_real *b, tn_real *packed) {
    tn_gemm_panel s = *p;
    s.b = packed, s.ldc = s.ld_soon = j->in, s.soon_len = j->k->nr;
    pack_panel(j, s.k, cols, b, packed);
    if (cols == j->k->nr)
        j->k->gemm_panel(&s);
    else
        j->k->gemm(s.m, cols, s.k, s.a, s.lda, 1, packed, s.c, j->in, s.add, NULL, 0);
}

static void back_chunk(void *arg, int chunk) {
    const back_job *j = arg;
    const int nr = j->k->nr, panels = (j->in + TN_NR_MAX - 1) / TN_NR_MAX;
    const int end = least((int)((long)panels * (chunk + 1) / j->chunks) * TN_NR_MAX, j->in);
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len;
    for (int c = (int)((long)panels * chunk / j->chunks) * TN_NR_MAX; c < end; c += nr) {
        const int cols = least(nr, end - c), more = c + 2 * nr <= end;
        tn_gemm_panel s = {.m = j->n, .k = j->out, .a = j->dz, .lda = j->out, .add = j->add & 1};
        if (j->dx) {
            s.c = j->dx + c, s.soon = j->w + c + nr, s.soon_rows = more ? j->out : 0;
            columns(j, &s, cols, j->w + c, packed);
        }
        s = (tn_gemm_panel){.m = j->out, .k = j->n, .a = j->turned, .lda = j->ld, .add = j->add >> 1 & 1};
        if (j->dw) {
            s.c = j->dw + c, s.soon = j->x + c + nr, s.soon_rows = more ? j->n : 0;
            columns(j, &s, cols, j->x + c, packed);
        }
    }
}

void tn_linear_wide_back(tn_tape *t, int n, int in, int out, const tn_real *dz, const tn_real *x,
                         const tn_real *w, unsigned add, tn_real *dx, tn_real *dw) {
    const tn_place place = tn_mark(t);
    back_job j = {
        .k = tn_kernels_get(NULL), .n = n, .in = in, .out = out, .chunks = CHUNKS, .dz = dz, .x = x};
    j.w = w, j.add = add, j.dx = dx, j.dw = dw, j.ld = apart(n);
    if (dw) {
        tn_real *turned = tn_scratch(t, (size_t)out * (size_t)j.ld * sizeof *turned);
        j.k->transpose(n, out, dz, out, turned, j.ld);
        j.turned = turned;
    }
    j.scratch_len = (size_t)(n > out ? n : out) * TN_NR_MAX;
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.chunks, back_chunk, &j);
    tn_rewind(t, place);
}

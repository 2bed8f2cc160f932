/* SPDX-License-Identifier: MIT */
#include "linear_wide.h"
#include "kernels/kernels.h"
#include <string.h>

enum {
    LINE = 64 / (int)sizeof(tn_real),
    SLAB = 2 * TN_NR_MAX, /* columns at a time backward: four lines of a row that lies far from the next */
    DEPTH = 192,          /* inputs at a time forward: a block of the kernels' products */
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
        if (p + depth < j->in) /* what comes next, while this is worked on */
            for (int i = 0; i < units; i++)
                for (int l = 0; l < DEPTH; l += LINE)
                    __builtin_prefetch(w + (ptrdiff_t)i * j->in + depth + l);
        j->k->transpose(units, depth, w, j->in, out, nr);
    }
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
        for (int r = r0; r < r1; r++) {
            const tn_real *x = j->x + (ptrdiff_t)r * j->in + p;
            memcpy(rows + (ptrdiff_t)(r - r0) * ld, x, (size_t)depth * sizeof *rows);
            for (int l = 0; l < DEPTH && !last; l += LINE) __builtin_prefetch(x + depth + l);
        }
        pack_units(j, c0, c1, p, depth, packed);
        j->k->gemm(r1 - r0, c1 - c0, depth, rows, ld, 1, packed, j->y + (ptrdiff_t)r0 * j->out + c0, j->out,
                   p > 0, last && j->bias ? j->bias + c0 : NULL, last && j->relu);
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

/* Columns c ... of rows of src to panels. */
static void pack_slab(const back_job *j, int rows, int cols, const tn_real *src, int more, tn_real *out) {
    const int nr = j->k->nr;
    for (int r = 0; r < rows; r++, src += j->in) {
        for (int c = 0; c < cols; c += nr) {
            tn_real *to = out + (ptrdiff_t)c * rows + (ptrdiff_t)r * nr;
            int wide = least(nr, cols - c);
            if (wide == TN_NR_MAX)
                memcpy(to, src + c, TN_NR_MAX * sizeof *to);
            else if (wide == nr)
                memcpy(to, src + c, (size_t)nr * sizeof *to);
            else
                for (int l = 0; l < nr; l++) to[l] = l < wide ? src[c + l] : 0;
        }
        for (int l = 0; l < SLAB && more; l += LINE) __builtin_prefetch(src + cols + l);
    }
}

static void back_chunk(void *arg, int chunk) {
    const back_job *j = arg;
    const int slabs = (j->in + SLAB - 1) / SLAB;
    const int end = least((int)((long)slabs * (chunk + 1) / j->chunks) * SLAB, j->in);
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len;
    for (int c = (int)((long)slabs * chunk / j->chunks) * SLAB; c < end; c += SLAB) {
        const int cols = least(SLAB, end - c), more = c + 2 * SLAB <= end;
        if (j->dx) {
            pack_slab(j, j->out, cols, j->w + c, more, packed);
            j->k->gemm(j->n, cols, j->out, j->dz, j->out, 1, packed, j->dx + c, j->in, j->add & 1, NULL, 0);
        }
        if (j->dw) {
            pack_slab(j, j->n, cols, j->x + c, more, packed);
            j->k->gemm(j->out, cols, j->n, j->turned, j->ld, 1, packed, j->dw + c, j->in, j->add >> 1 & 1,
                       NULL, 0);
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
    j.scratch_len = (size_t)(n > out ? n : out) * SLAB;
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.chunks, back_chunk, &j);
    tn_rewind(t, place);
}

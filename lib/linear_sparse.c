/* SPDX-License-Identifier: MIT */
/*
 * Both products run on sparse_panel: of a matrix that is mostly zeros the lists of what is not, a block of columns at a
 * time, so that the rows of the other factor that belong to the block stay in the first-level cache as a panel of some
 * units. Forward the lists are of x, by its columns; for the weight gradient of x', by groups of samples. A panel's units
 * are one chunk in both, so that their weights, gradients and moments stay with one thread.
 */
#include "linear_sparse.h"
#include "kernels/kernels.h"
#include <stdatomic.h>
#include <string.h>

enum {
    LEAST_SAMPLES = 16,
    LEAST_INPUTS = 128,
    LEAST_UNITS = 32,
    PROBE = 4,     /* rows of x that are looked at */
    DEPTH = 112,   /* inputs of a block forward: a panel of 28 KB */
    GROUP = 64,    /* rows of y whose lists are one piece: 16 KB */
    INPUTS = 32,   /* rows of dw' at a time: 8 KB */
    SAMPLES = 128, /* of dz, at a time: a panel of 32 KB */
    SLACK = TN_NR_MAX
};

static int least(int a, int b) {
    return a < b ? a : b;
}

static int pieces(int n, int of) {
    return (n + of - 1) / of;
}

/* Lists of blocks of rows by blocks of columns, each with room for all that may be in it. */
typedef struct {
    int rows, cols; /* of a block */
    int down, across;
    int *start, *at;
    tn_real *v;
} lists;

static lists new_lists(tn_tape *t, int m, int k, int rows, int cols) {
    lists l = {.rows = rows, .cols = cols, .down = pieces(m, rows), .across = pieces(k, cols)};
    size_t blocks = (size_t)l.down * (size_t)l.across, room = (size_t)rows * (size_t)cols + SLACK;
    l.start = tn_scratch(t, blocks * ((size_t)rows + 1) * sizeof *l.start);
    l.at = tn_scratch(t, blocks * room * sizeof *l.at);
    l.v = tn_scratch(t, blocks * room * sizeof *l.v);
    return l;
}

/* The block's place in the lists, as sparse_panel takes it. */
static tn_sparse_panel block_of(const lists *l, int i, int j) {
    size_t b = (size_t)i * (size_t)l->across + (size_t)j, room = (size_t)l->rows * (size_t)l->cols + SLACK;
    return (tn_sparse_panel){
        .start = l->start + b * ((size_t)l->rows + 1), .at = l->at + b * room, .v = l->v + b * room};
}

static void fill(const tn_kernels_t *k, const lists *l, int i, int j, int rows, int cols, const tn_real *x,
                 ptrdiff_t ld) {
    tn_sparse_panel b = block_of(l, i, j);
    k->sparse_list(rows, cols, x, ld, (int *)b.start, (int *)b.at, (tn_real *)b.v);
}

int tn_linear_sparse_fits(tn_tape *t, int n, int in, int out, const tn_real *x) {
    if (!tn_gemm_own() || n < LEAST_SAMPLES || in < LEAST_INPUTS || out < LEAST_UNITS) return 0;
    const tn_place place = tn_mark(t);
    lists l = new_lists(t, 1, in, 1, in);
    int found = 0;
    for (int i = 0; i < PROBE; i++) {
        tn_sparse_panel b = block_of(&l, 0, 0);
        found += tn_kernels_get(NULL)->sparse_list(1, in, x + (size_t)(i * (n / PROBE)) * (size_t)in, in,
                                                   (int *)b.start, (int *)b.at, (tn_real *)b.v);
    }
    tn_rewind(t, place);
    return 5L * found < 2L * PROBE * in;
}

/* ---- forward ---- */

typedef struct {
    const tn_kernels_t *k;
    int n, in, out, width; /* width: units of a panel */
    int row_sets;          /* chunks that share a panel */
    lists l;
    const tn_real *x, *w, *bias;
    int relu;
    tn_real *y, *scratch;
    size_t scratch_len;
    atomic_int infinite;
} forward_job;

static void list_block(void *arg, int chunk) {
    forward_job *j = arg;
    int i = chunk / j->l.across, p = chunk % j->l.across, r = i * GROUP, c = p * j->l.cols;
    fill(j->k, &j->l, i, p, least(GROUP, j->n - r), least(j->l.cols, j->in - c),
         j->x + (size_t)r * (size_t)j->in + c, j->in);
}

/* Some units, some groups of samples. */
static void forward_chunk(void *arg, int chunk) {
    forward_job *j = arg;
    const int set = chunk % j->row_sets, g0 = j->l.down * set / j->row_sets,
              g1 = j->l.down * (set + 1) / j->row_sets;
    const int o = chunk / j->row_sets * j->width, units = least(j->width, j->out - o);
    const int r0 = g0 * GROUP, r1 = least(g1 * GROUP, j->n);
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len,
            *sums = packed + (size_t)j->l.cols * (size_t)j->width;
    if (units < j->width) memset(packed, 0, (size_t)(j->l.cols * j->width) * sizeof *packed);
    for (int p = 0; p < j->l.across; p++) {
        const int c = p * j->l.cols, depth = least(j->l.cols, j->in - c);
        j->k->transpose(units, depth, j->w + (size_t)o * (size_t)j->in + c, j->in, packed, j->width);
        if (!j->k->all_finite((size_t)depth * (size_t)j->width, packed)) {
            atomic_store_explicit(&j->infinite, 1, memory_order_relaxed);
            return;
        }
        for (int g = g0; g < g1; g++) {
            tn_sparse_panel s = block_of(&j->l, g, p);
            s.m = least(GROUP, j->n - g * GROUP), s.b = packed, s.add = p > 0;
            s.c = sums + (size_t)(g - g0) * GROUP * (size_t)j->width, s.ldc = j->width;
            j->k->sparse_panel(&s);
        }
    }
    tn_real bias[4 * TN_NR_MAX] = {0};
    if (j->bias) memcpy(bias, j->bias + o, (size_t)units * sizeof *bias);
    j->k->gemm(r1 - r0, j->width, 0, sums, 0, 1, packed, sums, j->width, 1, j->bias ? bias : NULL, j->relu);
    j->k->copy_rows(r1 - r0, units, sums, j->width, j->y + (size_t)r0 * (size_t)j->out + o, j->out);
}

/* How many chunks share a panel follows the number of threads, which no bit depends on: nothing is summed across chunks. */
int tn_linear_sparse_forward(tn_tape *t, int n, int in, int out, const tn_real *x, const tn_real *w,
                             const tn_real *bias, int relu, tn_real *y) {
    const tn_place place = tn_mark(t);
    forward_job j = {.k = tn_kernels_get(NULL), .n = n, .in = in, .out = out, .x = x, .w = w, .bias = bias};
    j.relu = relu, j.y = y, j.width = 4 * j.k->width;
    int blocks = pieces(in, DEPTH), depth = pieces(pieces(in, blocks), TN_NR_MAX) * TN_NR_MAX;
    j.l = new_lists(t, n, in, GROUP, least(depth, in));
    int panels = pieces(out, j.width);
    j.row_sets = least(pieces(tn_threads(), panels), j.l.down);
    j.scratch_len = (size_t)j.width * (size_t)(j.l.cols + pieces(j.l.down, j.row_sets) * GROUP);
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.l.down * j.l.across, list_block, &j);
    tn_parallel(panels * j.row_sets, forward_chunk, &j);
    tn_rewind(t, place);
    return !atomic_load(&j.infinite);
}

/* ---- weight gradient ---- */

typedef struct {
    const tn_kernels_t *k;
    int n, in, out, width, add;
    lists l;
    const tn_real *dz, *x;
    tn_real *dw, *scratch;
    size_t scratch_len;
} dw_job;

static int samples_stride(const dw_job *j) {
    enum { LINE = 64 / (int)sizeof(tn_real) };
    return (pieces(j->l.cols, LINE) | 1) * LINE;
}

static void list_turned(void *arg, int chunk) {
    dw_job *j = arg;
    int i = chunk / j->l.across, q = chunk % j->l.across, c = i * INPUTS, r = q * j->l.cols;
    int inputs = least(INPUTS, j->in - c), samples = least(j->l.cols, j->n - r), ld = samples_stride(j);
    tn_real *turned = j->scratch + (size_t)tn_worker() * j->scratch_len;
    j->k->transpose(samples, inputs, j->x + (size_t)r * (size_t)j->in + c, j->in, turned, ld);
    fill(j->k, &j->l, i, q, inputs, samples, turned, ld);
}

/* Some units: dw' a block of inputs at a time, turned into place. */
static void dw_chunk(void *arg, int chunk) {
    dw_job *j = arg;
    const int o = chunk * j->width, units = least(j->width, j->out - o);
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len,
            *sums = packed + (size_t)j->n * (size_t)j->width;
    if (units < j->width) memset(packed, 0, (size_t)j->n * (size_t)j->width * sizeof *packed);
    j->k->copy_rows(j->n, units, j->dz + o, j->out, packed, j->width);
    for (int i = 0; i < j->l.down; i++) {
        const int c = i * INPUTS, inputs = least(INPUTS, j->in - c);
        tn_real *dw = j->dw + (size_t)o * (size_t)j->in + c;
        if (j->add) j->k->transpose(units, inputs, dw, j->in, sums, j->width);
        for (int q = 0; q < j->l.across; q++) {
            tn_sparse_panel s = block_of(&j->l, i, q);
            s.m = inputs, s.b = packed + (size_t)q * (size_t)j->l.cols * (size_t)j->width;
            s.c = sums, s.ldc = j->width, s.add = j->add || q > 0;
            j->k->sparse_panel(&s);
        }
        j->k->transpose(inputs, units, sums, j->width, dw, j->in);
    }
}

int tn_linear_sparse_dw(tn_tape *t, int n, int in, int out, const tn_real *dz, const tn_real *x, int add,
                        tn_real *dw) {
    dw_job j = {.k = tn_kernels_get(NULL), .n = n, .in = in, .out = out, .add = add, .dz = dz, .x = x};
    if (!j.k->all_finite((size_t)n * (size_t)out, dz)) return 0;
    const tn_place place = tn_mark(t);
    j.dw = dw, j.width = 4 * j.k->width;
    j.l = new_lists(t, in, n, INPUTS, pieces(n, pieces(n, SAMPLES)));
    size_t turned = (size_t)INPUTS * (size_t)samples_stride(&j);
    j.scratch_len = (size_t)j.width * (size_t)(n + INPUTS);
    if (j.scratch_len < turned) j.scratch_len = turned;
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.l.down * j.l.across, list_turned, &j);
    tn_parallel(pieces(out, j.width), dw_chunk, &j);
    tn_rewind(t, place);
    return 1;
}

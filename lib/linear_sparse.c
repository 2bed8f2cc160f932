/* SPDX-License-Identifier: MIT */
/*
 * Both products run on sparse_panel: masks tell what is not zero in the input, whose columns are taken a block at a
 * time, so that the rows of the other factor that belong to the block stay in the first-level cache as a panel of some
 * units. For the weight gradient the masks are those of columns, down which the input is read. A panel's
 * units are one chunk in both, so that their weights, gradients and moments stay with one thread.
 */
#include "linear_sparse.h"
#include "kernels/kernels.h"
#include <stdatomic.h>
#include <string.h>

enum {
    LEAST_SAMPLES = 16,
    LEAST_INPUTS = 128,
    LEAST_UNITS = 32,
    PROBE = 4, /* rows of x that are looked at */
    WORD = 64,
    DEPTH = 2 * WORD,   /* inputs of a block forward: a panel of 32 KB */
    INPUTS = 32,        /* rows of dw' at a time: 8 KB */
    SAMPLES = 2 * WORD, /* of dz, at a time: a panel of 32 KB */
    MOST_UNITS = WORD   /* of a panel */
};

struct tn_sparse_input {
    const tn_kernels_t *k;
    int n, in;
    const tn_real *x;
    int row_words, column_words; /* of the mask of a row of x, of a column */
    uint64_t *rows, *columns;    /* columns NULL: not asked for */
};

/* ---- masks ---- */

/* Of WORD samples. */
static void make_masks(void *arg, int chunk) {
    const tn_sparse_input *s = arg;
    const int r0 = chunk * WORD, rows = tn_least(WORD, s->n - r0);
    s->k->sparse_masks(rows, s->in, s->x + (size_t)r0 * (size_t)s->in, s->in,
                       s->rows + (size_t)r0 * (size_t)s->row_words, s->row_words,
                       s->columns ? s->columns + chunk : NULL, s->column_words);
}

/*
 * Is less than two fifths of x left? A panel that out does not fill counts as full, by that of the widest level: which way is
 * taken must not depend on the level.
 */
static int mostly_zeros(tn_tape *t, const tn_kernels_t *k, int n, int in, int out, const tn_real *x) {
    const tn_place place = tn_mark(t);
    const int words = tn_pieces(in, WORD);
    uint64_t *bits = tn_scratch(t, (size_t)words * sizeof *bits);
    long found = 0;
    for (int i = 0; i < PROBE; i++) {
        k->sparse_bits(1, in, x + (size_t)(i * (n / PROBE)) * (size_t)in, in, bits);
        for (int w = 0; w < words; w++) found += __builtin_popcountll(bits[w]);
    }
    tn_rewind(t, place);
    return 5.0 * (double)found * tn_pieces(out, MOST_UNITS) * MOST_UNITS < 2.0 * PROBE * in * out;
}

const tn_sparse_input *tn_linear_sparse_input(tn_tape *t, int n, int in, int out, const tn_real *x,
                                              int gradient) {
    const tn_kernels_t *k = tn_kernels_get(NULL);
    if (!tn_gemm_own() || n < LEAST_SAMPLES || in < LEAST_INPUTS || out < LEAST_UNITS
        || !mostly_zeros(t, k, n, in, out, x))
        return NULL;
    tn_sparse_input *s = tn_scratch(t, sizeof *s);
    *s = (tn_sparse_input){.k = k, .n = n, .in = in, .x = x};
    s->row_words = tn_pieces(in, WORD), s->column_words = tn_pieces(n, WORD);
    s->rows = tn_scratch(t, (size_t)n * (size_t)s->row_words * sizeof *s->rows);
    if (gradient) s->columns = tn_scratch(t, (size_t)in * (size_t)s->column_words * sizeof *s->columns);
    tn_parallel(s->column_words, make_masks, s);
    return s;
}

/* ---- forward ---- */

typedef struct {
    const tn_sparse_input *s;
    int out, width, row_sets; /* units of a panel; chunks that share it */
    const tn_real *w, *bias;
    int relu;
    tn_real *y, *scratch;
    size_t scratch_len;
    atomic_int infinite;
} forward_job;

/* Some units, some rows. */
static void forward_chunk(void *arg, int chunk) {
    forward_job *j = arg;
    const tn_sparse_input *s = j->s;
    const tn_kernels_t *k = s->k;
    const long pairs =
        tn_pieces(s->n, 2); /* of rows that share their zeros, seen in a zero's sign: not cut */
    const int set = chunk % j->row_sets, r0 = 2 * (int)(pairs * set / j->row_sets),
              r1 = tn_least(2 * (int)(pairs * (set + 1) / j->row_sets), s->n);
    const int o = chunk / j->row_sets * j->width, units = tn_least(j->width, j->out - o);
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len,
            *sums = packed + (size_t)DEPTH * (size_t)j->width;
    if (units < j->width) memset(packed, 0, (size_t)DEPTH * (size_t)j->width * sizeof *packed);
    tn_sparse_panel p = {.m = r1 - r0, .ld_bits = s->row_words, .rs = s->in, .cs = 1, .b = packed, .c = sums};
    p.ldc = j->width, p.ld_soon = s->in, p.soon_rows = r1 - r0;
    for (int c = 0; c < s->in; c += DEPTH) {
        const int depth = tn_least(DEPTH, s->in - c);
        k->transpose(units, depth, j->w + (size_t)o * (size_t)s->in + c, s->in, packed, j->width);
        if (!k->all_finite((size_t)depth * (size_t)j->width, packed)) {
            atomic_store_explicit(&j->infinite, 1, memory_order_relaxed);
            return;
        }
        p.bits = s->rows + (size_t)r0 * (size_t)s->row_words + c / WORD, p.words = tn_pieces(depth, WORD);
        p.a = s->x + (size_t)r0 * (size_t)s->in + c, p.add = c > 0;
        p.soon = p.a + DEPTH, p.soon_len = tn_least(DEPTH, s->in - c - depth); /* of x, from another core */
        k->sparse_panel(&p);
    }
    tn_real bias[MOST_UNITS] = {0};
    if (j->bias) memcpy(bias, j->bias + o, (size_t)units * sizeof *bias);
    k->gemm(r1 - r0, j->width, 0, sums, 0, 1, packed, sums, j->width, 1, j->bias ? bias : NULL, j->relu);
    k->copy_rows(r1 - r0, units, sums, j->width, j->y + (size_t)r0 * (size_t)j->out + o, j->out);
}

/* How many chunks share a panel follows the number of threads, which no bit depends on: nothing is summed across chunks. */
int tn_linear_sparse_forward(tn_tape *t, const tn_sparse_input *s, int out, const tn_real *w,
                             const tn_real *bias, int relu, tn_real *y) {
    const tn_place place = tn_mark(t);
    forward_job j = {.s = s, .out = out, .width = s->k->sparse_width, .w = w, .bias = bias, .relu = relu};
    const int panels = tn_pieces(out, j.width);
    j.y = y, j.row_sets = tn_least(tn_pieces(tn_threads(), panels), tn_pieces(s->n, 2));
    j.scratch_len = (size_t)j.width * (size_t)(DEPTH + 2 * tn_pieces(tn_pieces(s->n, 2), j.row_sets));
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(panels * j.row_sets, forward_chunk, &j);
    tn_rewind(t, place);
    return !atomic_load(&j.infinite);
}

/* ---- weight gradient ---- */

typedef struct {
    const tn_sparse_input *s;
    int out, width, add;
    const tn_real *dz;
    tn_real *dw, *scratch;
    size_t scratch_len;
} dw_job;

/* Some units: dw' a block of inputs at a time, turned into place. */
static void dw_chunk(void *arg, int chunk) {
    const dw_job *j = arg;
    const tn_sparse_input *s = j->s;
    const tn_kernels_t *k = s->k;
    const int o = chunk * j->width, units = tn_least(j->width, j->out - o);
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len,
            *sums = packed + (size_t)s->n * (size_t)j->width;
    if (units < j->width) memset(packed, 0, (size_t)s->n * (size_t)j->width * sizeof *packed);
    k->copy_rows(s->n, units, j->dz + o, j->out, packed, j->width);
    for (int c = 0; c < s->in; c += INPUTS) {
        const int inputs = tn_least(INPUTS, s->in - c);
        tn_real *dw = j->dw + (size_t)o * (size_t)s->in + c;
        if (j->add) k->transpose(units, inputs, dw, s->in, sums, j->width);
        tn_sparse_panel p = {.m = inputs, .ld_bits = s->column_words, .rs = 1, .cs = s->in, .c = sums};
        p.ldc = j->width, p.ld_soon = s->in, p.soon_len = tn_least(INPUTS, s->in - c - inputs);
        for (int r = 0; r < s->n; r += SAMPLES) {
            const int samples = tn_least(SAMPLES, s->n - r);
            p.bits = s->columns + (size_t)c * (size_t)s->column_words + r / WORD;
            p.words = tn_pieces(samples, WORD), p.add = j->add || r > 0;
            p.a = s->x + (size_t)r * (size_t)s->in + c, p.b = packed + (size_t)r * (size_t)j->width;
            p.soon = p.a + INPUTS, p.soon_rows = samples;
            k->sparse_panel(&p);
        }
        k->transpose(inputs, units, sums, j->width, dw, s->in);
    }
}

int tn_linear_sparse_dw(tn_tape *t, const tn_sparse_input *s, int out, const tn_real *dz, int add,
                        tn_real *dw) {
    if (!s->k->all_finite((size_t)s->n * (size_t)out, dz)) return 0;
    const tn_place place = tn_mark(t);
    dw_job j = {.s = s, .out = out, .width = s->k->sparse_width, .add = add, .dz = dz, .dw = dw};
    j.scratch_len = (size_t)j.width * (size_t)(s->n + INPUTS);
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(tn_pieces(out, j.width), dw_chunk, &j);
    tn_rewind(t, place);
    return 1;
}

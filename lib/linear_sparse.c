/* SPDX-License-Identifier: MIT */
/*
 * Both products run on sparse_panel: masks tell what is not zero in the input, whose columns are taken a block at a
 * time, so that the rows of the other factor that belong to the block stay in the first-level cache as a panel of some
 * units. For the weight gradient the masks are turned, bit by bit, and the input is read down its columns. A panel's
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
    ROWS = 32,          /* of x whose masks a chunk makes */
    MOST_UNITS = WORD   /* of a panel */
};

static int least(int a, int b) {
    return a < b ? a : b;
}

static int pieces(int n, int of) {
    return (n + of - 1) / of;
}

/* ---- masks ---- */

/* Of rows r0 ... r1 - 1 of x (n, in). */
static void masks_of_rows(const tn_kernels_t *k, const tn_real *x, int in, int r0, int r1, uint64_t *bits) {
    k->sparse_bits(r1 - r0, in, x + (size_t)r0 * (size_t)in, in,
                   bits + (size_t)r0 * (size_t)pieces(in, WORD));
}

/* Bit j of row i becomes bit i of row j: halves, then quarters ... are swapped across the diagonal. */
static void turn_bits(uint64_t row[WORD]) {
    static const uint64_t low[] = {0x5555555555555555, 0x3333333333333333, 0x0f0f0f0f0f0f0f0f,
                                   0x00ff00ff00ff00ff, 0x0000ffff0000ffff, 0x00000000ffffffff};
    for (int l = 5, s = WORD / 2; s; l--, s /= 2)
        for (int g = 0; g < WORD; g += 2 * s)
            for (int i = g; i < g + s; i++) {
                const uint64_t swap = (row[i] >> s ^ row[i + s]) & low[l];
                row[i] ^= swap << s, row[i + s] ^= swap;
            }
}

int tn_linear_sparse_fits(tn_tape *t, int n, int in, int out, const tn_real *x) {
    if (!tn_gemm_own() || n < LEAST_SAMPLES || in < LEAST_INPUTS || out < LEAST_UNITS) return 0;
    const tn_place place = tn_mark(t);
    const int words = pieces(in, WORD);
    uint64_t *bits = tn_scratch(t, (size_t)words * sizeof *bits);
    long found = 0;
    for (int i = 0; i < PROBE; i++) {
        tn_kernels_get(NULL)->sparse_bits(1, in, x + (size_t)(i * (n / PROBE)) * (size_t)in, in, bits);
        for (int w = 0; w < words; w++) found += __builtin_popcountll(bits[w]);
    }
    tn_rewind(t, place);
    return 5 * found < 2L * PROBE * in;
}

/* ---- forward ---- */

typedef struct {
    const tn_kernels_t *k;
    int n, in, out, width, words; /* width: units of a panel; words of a row's mask */
    int row_sets;                 /* chunks that share a panel */
    const tn_real *x, *w, *bias;
    int relu;
    uint64_t *bits;
    tn_real *y, *scratch;
    size_t scratch_len;
    atomic_int infinite;
} forward_job;

static void forward_masks(void *arg, int chunk) {
    const forward_job *j = arg;
    masks_of_rows(j->k, j->x, j->in, chunk * ROWS, least((chunk + 1) * ROWS, j->n), j->bits);
}

/* Some units, some rows. */
static void forward_chunk(void *arg, int chunk) {
    forward_job *j = arg;
    const int set = chunk % j->row_sets, r0 = (int)((long)j->n * set / j->row_sets),
              r1 = (int)((long)j->n * (set + 1) / j->row_sets);
    const int o = chunk / j->row_sets * j->width, units = least(j->width, j->out - o);
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len,
            *sums = packed + (size_t)DEPTH * (size_t)j->width;
    if (units < j->width) memset(packed, 0, (size_t)DEPTH * (size_t)j->width * sizeof *packed);
    tn_sparse_panel s = {.m = r1 - r0, .ld_bits = j->words, .rs = j->in, .cs = 1, .b = packed, .c = sums};
    s.ldc = j->width;
    for (int c = 0; c < j->in; c += DEPTH) {
        const int depth = least(DEPTH, j->in - c);
        j->k->transpose(units, depth, j->w + (size_t)o * (size_t)j->in + c, j->in, packed, j->width);
        if (!j->k->all_finite((size_t)depth * (size_t)j->width, packed)) {
            atomic_store_explicit(&j->infinite, 1, memory_order_relaxed);
            return;
        }
        s.bits = j->bits + (size_t)r0 * (size_t)j->words + c / WORD, s.words = pieces(depth, WORD);
        s.a = j->x + (size_t)r0 * (size_t)j->in + c, s.add = c > 0;
        s.soon = s.a + DEPTH, s.soon_len = least(DEPTH, j->in - c - depth), s.soon_rows = r1 - r0;
        s.ld_soon = j->in;
        j->k->sparse_panel(&s);
    }
    tn_real bias[MOST_UNITS] = {0};
    if (j->bias) memcpy(bias, j->bias + o, (size_t)units * sizeof *bias);
    j->k->gemm(r1 - r0, j->width, 0, sums, 0, 1, packed, sums, j->width, 1, j->bias ? bias : NULL, j->relu);
    j->k->copy_rows(r1 - r0, units, sums, j->width, j->y + (size_t)r0 * (size_t)j->out + o, j->out);
}

/* How many chunks share a panel follows the number of threads, which no bit depends on: nothing is summed across chunks. */
int tn_linear_sparse_forward(tn_tape *t, int n, int in, int out, const tn_real *x, const tn_real *w,
                             const tn_real *bias, int relu, tn_real *y) {
    const tn_place place = tn_mark(t);
    forward_job j = {.k = tn_kernels_get(NULL), .n = n, .in = in, .out = out, .x = x, .w = w, .bias = bias};
    j.relu = relu, j.y = y, j.width = j.k->sparse_width, j.words = pieces(in, WORD);
    const int panels = pieces(out, j.width);
    j.row_sets = least(pieces(tn_threads(), panels), n);
    j.bits = tn_scratch(t, (size_t)n * (size_t)j.words * sizeof *j.bits);
    j.scratch_len = (size_t)j.width * (size_t)(DEPTH + pieces(n, j.row_sets));
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(pieces(n, ROWS), forward_masks, &j);
    tn_parallel(panels * j.row_sets, forward_chunk, &j);
    tn_rewind(t, place);
    return !atomic_load(&j.infinite);
}

/* ---- weight gradient ---- */

typedef struct {
    const tn_kernels_t *k;
    int n, in, out, width, words, add; /* words of a column's mask */
    const tn_real *dz, *x;
    uint64_t *bits;
    tn_real *dw, *scratch;
    size_t scratch_len;
} dw_job;

/* Of WORD rows of x the masks, turned. */
static void dw_masks(void *arg, int chunk) {
    const dw_job *j = arg;
    const int r0 = chunk * WORD, r1 = least(r0 + WORD, j->n), across = pieces(j->in, WORD);
    uint64_t *rows = j->bits + (size_t)j->in * (size_t)j->words, block[WORD];
    masks_of_rows(j->k, j->x, j->in, r0, r1, rows);
    for (int q = 0; q < across; q++) {
        const int c = q * WORD, cols = least(WORD, j->in - c);
        for (int i = 0; i < r1 - r0; i++) block[i] = rows[(size_t)(r0 + i) * (size_t)across + (size_t)q];
        for (int i = r1 - r0; i < WORD; i++) block[i] = 0;
        turn_bits(block);
        for (int i = 0; i < cols; i++) j->bits[(size_t)(c + i) * (size_t)j->words + (size_t)chunk] = block[i];
    }
}

/* Some units: dw' a block of inputs at a time, turned into place. */
static void dw_chunk(void *arg, int chunk) {
    const dw_job *j = arg;
    const int o = chunk * j->width, units = least(j->width, j->out - o);
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len,
            *sums = packed + (size_t)j->n * (size_t)j->width;
    if (units < j->width) memset(packed, 0, (size_t)j->n * (size_t)j->width * sizeof *packed);
    j->k->copy_rows(j->n, units, j->dz + o, j->out, packed, j->width);
    for (int c = 0; c < j->in; c += INPUTS) {
        const int inputs = least(INPUTS, j->in - c);
        tn_real *dw = j->dw + (size_t)o * (size_t)j->in + c;
        if (j->add) j->k->transpose(units, inputs, dw, j->in, sums, j->width);
        tn_sparse_panel s = {.m = inputs, .ld_bits = j->words, .rs = 1, .cs = j->in, .c = sums};
        s.ldc = j->width;
        for (int r = 0; r < j->n; r += SAMPLES) {
            s.bits = j->bits + (size_t)c * (size_t)j->words + r / WORD;
            s.words = pieces(least(SAMPLES, j->n - r), WORD), s.add = j->add || r > 0;
            s.soon = j->x + (size_t)r * (size_t)j->in + c + INPUTS, s.ld_soon = j->in;
            s.soon_len = least(INPUTS, j->in - c - inputs), s.soon_rows = least(SAMPLES, j->n - r);
            s.a = j->x + (size_t)r * (size_t)j->in + c, s.b = packed + (size_t)r * (size_t)j->width;
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
    j.dw = dw, j.width = j.k->sparse_width, j.words = pieces(n, WORD);
    const size_t masks = (size_t)in * (size_t)j.words + (size_t)n * (size_t)pieces(in, WORD);
    j.bits = tn_scratch(t, masks * sizeof *j.bits);
    j.scratch_len = (size_t)j.width * (size_t)(n + INPUTS);
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.words, dw_masks, &j);
    tn_parallel(pieces(out, j.width), dw_chunk, &j);
    tn_rewind(t, place);
    return 1;
}

/* SPDX-License-Identifier: MIT */
/*
 * Both products run on sparse_panel: masks tell what is not zero in the input, whose columns are taken a block at a
 * time, so that the rows of the other factor that belong to the block stay in the first-level cache as a panel of some
 * units. For the weight gradient the masks are those of columns, down which the input is read. In both the panels are
 * chunks in the order of the units, so that a unit's weights, gradients and moments mostly stay with one thread.
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
    DEPTH = 2 * WORD,      /* inputs of a block forward, at most */
    PANEL = DEPTH * WORD,  /* reals of it: 32 KB */
    INPUTS = 32,           /* rows of dw' at a time: 8 KB */
    SAMPLES = 2 * WORD,    /* of dz, at a time: a panel of 32 KB */
    UNITS = WORD,          /* of a panel of the widest level, */
    MOST_UNITS = 2 * UNITS /* and of a wide one */
};

struct tn_sparse_input {
    const tn_kernels_t *k;
    int n, in;
    const tn_real *x;
    int row_words, column_words; /* of the mask of a row of x, of a column */
    uint64_t *rows;              /* (n, row_words) */
    uint64_t *columns;           /* (column_words, in), so that a word is one thread's; NULL: not asked for */
};

/* ---- masks ---- */

/* Of WORD samples. */
static void make_masks(void *arg, int chunk) {
    const tn_sparse_input *s = arg;
    const int r0 = chunk * WORD, rows = tn_least(WORD, s->n - r0);
    s->k->sparse_masks(rows, s->in, s->x + (size_t)r0 * (size_t)s->in, s->in,
                       s->rows + (size_t)r0 * (size_t)s->row_words, s->row_words,
                       s->columns ? s->columns + (size_t)chunk * (size_t)s->in : NULL);
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
    return 5.0 * (double)found * tn_pieces(out, UNITS) * UNITS < 2.0 * PROBE * in * out;
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

/* ---- panels ---- */

/* Units of a panel: as many as go, if that leaves a panel for every thread. No bit depends on it. */
static int panel_units(const tn_kernels_t *k, int out) {
    const int wide = out > k->sparse_width && tn_pieces(out, k->sparse_wide) >= tn_threads();
    return wide ? k->sparse_wide : k->sparse_width;
}

/* The last one may have fewer. */
static int width_for(const tn_kernels_t *k, int units) {
    return units > k->sparse_width ? k->sparse_wide : k->sparse_width;
}

/* Inputs that make a panel. */
static int depth_for(int width) {
    return tn_least(DEPTH, PANEL / width);
}

/* ---- forward ---- */

typedef struct {
    const tn_sparse_input *s;
    int out, units, row_sets; /* units of a panel; chunks that share it */
    const tn_real *w, *bias;
    int relu;
    tn_real *y, *scratch;
    size_t scratch_len;
    atomic_int infinite;
} forward_job;

/* The bias, and the rectifier, to y. Of a zero the sign goes, which may depend on what was skipped. */
static void finish_rows(const forward_job *j, int o, int units, int width, int r0, int rows, tn_real *sums) {
    const tn_kernels_t *k = j->s->k;
    tn_real bias[MOST_UNITS] = {0};
    for (int u = 0; u < units && j->bias; u++) bias[u] = j->bias[o + u] + 0;
    k->gemm(rows, width, 0, sums, 0, 1, sums, sums, width, 1, bias, j->relu);
    k->copy_rows(rows, units, sums, width, j->y + (size_t)r0 * (size_t)j->out + o, j->out);
}

/* Some units, some rows. */
static void forward_chunk(void *arg, int chunk) {
    forward_job *j = arg;
    const tn_sparse_input *s = j->s;
    const tn_kernels_t *k = s->k;
    const long pairs = tn_pieces(s->n, 2); /* a pair of rows is not cut */
    const int set = chunk % j->row_sets, r0 = 2 * (int)(pairs * set / j->row_sets),
              r1 = tn_least(2 * (int)(pairs * (set + 1) / j->row_sets), s->n);
    const int panel = chunk / j->row_sets, o = panel * j->units, units = tn_least(j->units, j->out - o),
              width = width_for(k, units), most = depth_for(width);
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len, *sums = packed + PANEL;
    if (units < width) memset(packed, 0, (size_t)most * (size_t)width * sizeof *packed);
    tn_sparse_panel p = {.m = r1 - r0, .width = width, .ld_bits = s->row_words, .rs = s->in};
    p.cs = p.word_step = 1, p.b = packed, p.c = sums, p.ldc = width, p.ld_soon = s->in;
    p.soon_rows = tn_threads() > 1 ? r1 - r0 : 0; /* of x, from another core */
    for (int c = 0; c < s->in; c += most) {
        const int depth = tn_least(most, s->in - c);
        k->transpose(units, depth, j->w + (size_t)o * (size_t)s->in + c, s->in, packed, width);
        if (!k->all_finite((size_t)depth * (size_t)width, packed)) {
            atomic_store_explicit(&j->infinite, 1, memory_order_relaxed);
            return;
        }
        p.bits = s->rows + (size_t)r0 * (size_t)s->row_words + c / WORD, p.words = tn_pieces(depth, WORD);
        p.a = s->x + (size_t)r0 * (size_t)s->in + c, p.add = c > 0;
        p.soon = p.a + most, p.soon_len = tn_least(most, s->in - c - depth);
        k->sparse_panel(&p);
    }
    finish_rows(j, o, units, width, r0, r1 - r0, sums);
}

/* How many chunks share a panel follows the number of threads, which no bit depends on: nothing is summed across chunks. */
int tn_linear_sparse_forward(tn_tape *t, const tn_sparse_input *s, int out, const tn_real *w,
                             const tn_real *bias, int relu, tn_real *y) {
    const tn_place place = tn_mark(t);
    forward_job j = {.s = s, .out = out, .units = panel_units(s->k, out), .w = w, .bias = bias, .relu = relu};
    const int panels = tn_pieces(out, j.units);
    j.y = y, j.row_sets = tn_least(tn_pieces(tn_threads(), panels), tn_pieces(s->n, 2));
    j.scratch_len = PANEL + (size_t)j.units * (size_t)(2 * tn_pieces(tn_pieces(s->n, 2), j.row_sets));
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(panels * j.row_sets, forward_chunk, &j);
    tn_rewind(t, place);
    return !atomic_load(&j.infinite);
}

/* ---- gradients of weights and bias ---- */

typedef struct {
    const tn_sparse_input *s;
    const tn_sparse_back *b;
    int width;
    tn_real *scratch;
    size_t scratch_len;
} back_job;

/* dz of some units, whose lines lie apart from those of other threads (n, width). */
static void make_dz(const back_job *j, int o, int units, tn_real *dz) {
    const tn_sparse_back *b = j->b;
    const int n = j->s->n;
    if (units < j->width) memset(dz, 0, (size_t)n * (size_t)j->width * sizeof *dz);
    if (b->act == TN_ACT_NONE) {
        j->s->k->copy_rows(n, units, b->gy + o, b->out, dz, j->width);
        return;
    }
    for (int i = 0; i < n; i++) {
        const size_t at = (size_t)i * (size_t)b->out + (size_t)o;
        tn_act_slope(b->act, (size_t)units, b->gy + at, b->y + at, dz + (size_t)i * (size_t)j->width);
    }
}

/* dw' a block of inputs at a time, turned into place, whose lines are fetched meanwhile. */
static void make_dw(const back_job *j, int units, const tn_real *dz, tn_real *sums, tn_real *rows) {
    const tn_sparse_input *s = j->s;
    const tn_kernels_t *k = s->k;
    const int add = j->b->add_dw;
    for (int c = 0; c < s->in; c += INPUTS) {
        const int inputs = tn_least(INPUTS, s->in - c);
        tn_real *dw = rows + c;
        if (add) k->transpose(units, inputs, dw, s->in, sums, j->width);
        tn_sparse_panel p = {.m = inputs, .width = j->width, .alike = 1, .ld_bits = 1, .rs = 1};
        p.cs = p.word_step = s->in, p.c = sums, p.ldc = j->width;
        p.soon = dw, p.ld_soon = s->in, p.soon_len = inputs, p.soon_write = 1;
        for (int r = 0; r < s->n; r += SAMPLES) {
            p.bits = s->columns + (size_t)(r / WORD) * (size_t)s->in + (size_t)c;
            p.words = tn_pieces(tn_least(SAMPLES, s->n - r), WORD), p.add = add || r > 0;
            p.a = s->x + (size_t)r * (size_t)s->in + c, p.b = dz + (size_t)r * (size_t)j->width;
            p.soon_rows = p.add ? 0 : units;
            k->sparse_panel(&p);
        }
        k->transpose(inputs, units, sums, j->width, dw, s->in);
    }
}

/* Some units. */
static void back_chunk(void *arg, int chunk) {
    const back_job *j = arg;
    const tn_sparse_input *s = j->s;
    const tn_sparse_back *b = j->b;
    const int o = chunk * j->width, units = tn_least(j->width, b->out - o);
    tn_real *dz = j->scratch + (size_t)tn_worker() * j->scratch_len,
            *rows = b->dw + (size_t)o * (size_t)s->in;
    make_dz(j, o, units, dz);
    if (b->db) s->k->col_sum(s->n, units, dz, j->width, b->add_db, b->db + o);
    if (s->k->all_finite((size_t)s->n * (size_t)j->width, dz))
        make_dw(j, units, dz, dz + (size_t)s->n * (size_t)j->width, rows);
    else /* 0 times infinity is NaN */
        s->k->gemm_raw_b(units, s->in, s->n, dz, 1, j->width, s->x, s->in, 1, rows, s->in, b->add_dw, NULL,
                         0);
}

void tn_linear_sparse_back(tn_tape *t, const tn_sparse_input *s, const tn_sparse_back *b) {
    const tn_place place = tn_mark(t);
    back_job j = {.s = s, .b = b, .width = s->k->sparse_width};
    j.scratch_len = (size_t)j.width * (size_t)(s->n + INPUTS);
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(tn_pieces(b->out, j.width), back_chunk, &j);
    tn_rewind(t, place);
}

/* SPDX-License-Identifier: MIT */
#include "linear_small.h"
#include "kernels/kernels.h"

enum {
    MOST_WEIGHTS = 1 << 16,
    FEWEST = TN_NR_MAX / 2, /* samples; with MOST and more, what each thread makes for itself is too much */
    MOST = 2048,
    MANY = 2 * TN_NR_MAX, /* samples that are shared out, with fewer units and inputs are */
    ALONE = 1 << 18, /* multiply-adds that one thread makes no slower than two, which fetch from each other */
    MOST_PARTS = 16,
    FEW_UNITS = 2 * TN_TILE_MAX,
    LINE = 64 / (int)sizeof(tn_real)
};

int tn_linear_small_fits(int n, int in, int out) {
    return tn_gemm_own() && n >= FEWEST && n < MOST && (double)in * out <= MOST_WEIGHTS;
}

/*
 * As many chunks as threads. That is an exception to tn_parallel's rule, and no bit depends on it: nothing is summed across
 * chunks (tests/test_layers.c, either_way_round and small_back).
 */
static int parts_of(int n, int in, int out) {
    return (double)n * in * out <= ALONE ? 1 : tn_least(tn_threads(), MOST_PARTS);
}

/* Where part i of `of` begins of n things that are dealt out by `unit`. */
static int begin(int n, int unit, int i, int of) {
    return tn_least((int)((long)tn_pieces(n, unit) * i / of) * unit, n);
}

/* ---- forward ---- */

typedef struct {
    const tn_kernels_t *k;
    int n, in, out, parts, by_samples, relu;
    const tn_real *x, *w, *bias;
    tn_real *y, *scratch;
    size_t scratch_len;
} forward_job;

/* Some samples, or some units of all: the samples are the product's columns, packed, the weights are read as they lie. */
static void forward_part(void *arg, int part) {
    const forward_job *j = arg;
    int r0 = 0, r1 = j->n, o0 = 0, o1 = j->out;
    if (j->by_samples)
        r0 = begin(j->n, TN_NR_MAX / 2, part, j->parts), r1 = begin(j->n, TN_NR_MAX / 2, part + 1, j->parts);
    else
        o0 = begin(j->out, 1, part, j->parts), o1 = begin(j->out, 1, part + 1, j->parts);
    if (r0 == r1 || o0 == o1) return;
    tn_real *packed = j->scratch + (size_t)tn_worker() * j->scratch_len;
    j->k->pack_b(j->in, r1 - r0, j->x + (ptrdiff_t)r0 * j->in, 1, j->in, packed);
    j->k->gemm_turned(o1 - o0, r1 - r0, j->in, j->w + (ptrdiff_t)o0 * j->in, j->in, packed,
                      j->y + (ptrdiff_t)r0 * j->out + o0, j->out, j->bias ? j->bias + o0 : NULL, j->relu);
}

/* Of a part, at most. */
static int most_samples(int n, int parts) {
    return tn_least(n, tn_pieces(tn_pieces(n, TN_NR_MAX / 2), parts) * (TN_NR_MAX / 2));
}

void tn_linear_small_forward(tn_tape *t, int n, int in, int out, const tn_real *x, const tn_real *w,
                             const tn_real *bias, int relu, tn_real *y) {
    const tn_place place = tn_mark(t);
    forward_job j = {.k = tn_kernels_get(NULL), .n = n, .in = in, .out = out, .x = x, .w = w, .bias = bias};
    j.relu = relu, j.y = y, j.parts = parts_of(n, in, out), j.by_samples = n >= MANY;
    j.scratch_len = tn_gemm_packed_len(j.by_samples ? most_samples(n, j.parts) : n, in);
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.parts, forward_part, &j);
    tn_rewind(t, place);
}

/* ---- backward ---- */

typedef struct {
    const tn_kernels_t *k;
    const tn_linear_small *l;
    int parts, ld; /* ld: of dz turned */
    tn_real *scratch;
    size_t dz_len, scratch_len;
} back_job;

/* Some columns of dx. With few units, whose weights any thread has, some rows: their lines are not shared with other threads. */
static void back_input(const back_job *j, int part, const tn_real *dz) {
    const tn_linear_small *l = j->l;
    if (l->out < FEW_UNITS) {
        const int r0 = begin(l->n, 2, part, j->parts), r1 = begin(l->n, 2, part + 1, j->parts);
        if (r0 < r1)
            j->k->gemm_raw_b(r1 - r0, l->in, l->out, dz + (ptrdiff_t)r0 * l->out, l->out, 1, l->w, l->in, 1,
                             l->dx + (ptrdiff_t)r0 * l->in, l->in, l->add & 1, NULL, 0);
        return;
    }
    const int c0 = begin(l->in, TN_NR_MAX / 2, part, j->parts),
              c1 = begin(l->in, TN_NR_MAX / 2, part + 1, j->parts);
    if (c0 < c1)
        j->k->gemm_raw_b(l->n, c1 - c0, l->out, dz, l->out, 1, l->w + c0, l->in, 1, l->dx + c0, l->in,
                         l->add & 1, NULL, 0);
}

/* Some units of dw and db; of few units, some columns of dw. */
static void back_weights(const back_job *j, int part, const tn_real *dz, tn_real *turned) {
    const tn_linear_small *l = j->l;
    int o0 = 0, o1 = l->out, c0 = 0, c1 = l->in;
    if (l->out < FEW_UNITS)
        c0 = begin(l->in, TN_NR_MAX / 2, part, j->parts),
        c1 = begin(l->in, TN_NR_MAX / 2, part + 1, j->parts);
    else
        o0 = begin(l->out, 1, part, j->parts), o1 = begin(l->out, 1, part + 1, j->parts);
    if (o0 == o1 || c0 == c1) return;
    if (l->db && c0 == 0) j->k->col_sum(l->n, o1 - o0, dz + o0, l->out, (l->add >> 2) & 1, l->db + o0);
    if (!l->dw) return;
    j->k->transpose(l->n, o1 - o0, dz + o0, l->out, turned, j->ld);
    j->k->gemm_raw_b(o1 - o0, c1 - c0, l->n, turned, j->ld, 1, l->x + c0, l->in, 1,
                     l->dw + (ptrdiff_t)o0 * l->in + c0, l->in, (l->add >> 1) & 1, NULL, 0);
}

/* The input, half of it another core's, is on its way while dx is made. */
static void fetch_input(const tn_linear_small *l) {
    const size_t len = (size_t)l->n * (size_t)l->in;
    for (size_t i = 0; i < len; i += LINE) __builtin_prefetch(l->x + i, 0, 2);
}

static void back_part(void *arg, int part) {
    const back_job *j = arg;
    const tn_linear_small *l = j->l;
    const tn_real *dz = l->gy;
    tn_real *own = j->scratch + (size_t)tn_worker() * j->scratch_len;
    if (l->act != TN_ACT_NONE) {
        tn_act_slope(l->act, (size_t)l->n * (size_t)l->out, l->gy, l->y, own);
        dz = own;
    }
    if (l->dw && j->parts > 1 && l->out >= FEW_UNITS) fetch_input(l);
    if (l->dx) back_input(j, part, dz);
    if (l->dw || l->db) back_weights(j, part, dz, own + j->dz_len);
}

void tn_linear_small_back(tn_tape *t, const tn_linear_small *l) {
    const tn_place place = tn_mark(t);
    back_job j = {.k = tn_kernels_get(NULL), .l = l};
    j.parts = parts_of(l->n, l->in, l->out), j.ld = tn_odd_lines(l->n);
    j.dz_len = tn_whole_lines((size_t)l->n * (size_t)l->out);
    j.scratch_len = j.dz_len + (size_t)l->out * (size_t)j.ld;
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.parts, back_part, &j);
    tn_rewind(t, place);
}

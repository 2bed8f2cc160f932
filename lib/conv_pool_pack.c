/* SPDX-License-Identifier: MIT */
/* How the weights of a convolution are cut and packed for the input's gradient behind max pooling: see conv_pool_backward.c. */
#include "conv_pool_job.h"
#include <string.h>

enum {
    SLICE = 10 * 1024, /* reals of the weights of a tile, all filters */
    TILE_ROWS = 5,     /* largest tile of the kernels, also bounded by TN_SPARSE_TILE */
    TILE_VECTORS = 6,
    MOST_FILTERS = 64 /* by columns: one word of bits */
};

typedef tn_conv_pool_job job;

tn_conv_tile tn_conv_pool_tile(int rows, int vectors, int most) {
    tn_conv_tile best = {1, 1};
    int passes = rows * vectors + 1;
    for (int r = 1; r <= tn_least(rows, TILE_ROWS); r++)
        for (int v = 1; v <= tn_least(vectors, TILE_VECTORS); v++) {
            int n = tn_pieces(rows, r) * tn_pieces(vectors, v);
            if (r * v <= most && n < passes) passes = n, best = (tn_conv_tile){r, v};
        }
    return best;
}

void tn_conv_pool_block(const tn_conv_pool_plan *p, int *rows, int *run) {
    const tn_window *g = &p->conv.g;
    int fits = SLICE / (tn_pieces(p->pool.c, TN_LANES) * TN_LANES * TN_LANES),
        most = TN_SPARSE_TILE(TN_MR_MAX);
    tn_conv_tile block =
        tn_conv_pool_tile(g->kh, tn_pieces(g->kw * g->c, TN_LANES), tn_least(most, fits < 1 ? 1 : fits));
    *rows = block.rows, *run = block.vectors * TN_LANES;
}

/* Row of weights, by columns. */
static int by_columns_len(const tn_window *g) {
    return tn_pieces(g->kw * g->c, TN_LANES) * TN_LANES;
}

size_t tn_conv_pool_by_columns_room(const tn_conv_pool_plan *p) {
    const tn_window *g = &p->conv.g;
    return (size_t)(tn_pieces(p->pool.c, TN_LANES) * TN_LANES * g->kh) * (size_t)by_columns_len(g);
}

int tn_conv_pool_by_columns(const tn_conv_pool_plan *p) {
    const tn_window *g = &p->conv.g, *pool = &p->pool;
    return pool->kh == 2 && pool->kw == 2 && pool->c <= MOST_FILTERS && (g->kh == 3 || g->kh == 5)
           && g->kw * g->c <= 2 * TN_LANES;
}

tn_sparse_block tn_conv_pool_block_at(const job *j, int i, int l) {
    int rows = tn_least(j->block_rows, j->p->conv.g.kh - i), run = tn_least(j->block_run, j->run - l);
    int vectors = tn_pieces(run, j->k->width);
    tn_conv_tile t = tn_conv_pool_tile(rows, vectors, TN_SPARSE_TILE(j->k->mr));
    return (tn_sparse_block){rows, vectors, run - (vectors - 1) * j->k->width, t.rows, t.vectors};
}

/* ---- packing ---- */

typedef struct {
    const job *j;
    const int *at; /* of each real of a window's row, in a filter's first row */
    const tn_real *w;
    tn_real *out;
} pack_job;

/* The weights of some filters, tile by tile; filters that do not exist are zeros. */
static void pack_filters(void *arg, size_t lo, size_t hi) {
    const pack_job *p = arg;
    const job *j = p->j;
    const tn_window *g = &j->p->conv.g;
    const int width = j->k->width;
    tn_real *tiles = p->out;
    for (int i = 0; i < g->kh; i += j->block_rows)
        for (int first = 0; first < j->run; first += j->block_run) {
            tn_sparse_block b = tn_conv_pool_block_at(j, i, first);
            for (int y = 0; y < b.rows; y += b.tile_rows)
                for (int x = 0; x < b.vectors; x += b.tile_vectors) {
                    int rows = tn_least(b.tile_rows, b.rows - y),
                        reals = tn_least(b.tile_vectors, b.vectors - x) * width;
                    for (int o = (int)lo; o < (int)hi; o++)
                        for (int r = 0; r < rows; r++) {
                            tn_real *out = tiles + (ptrdiff_t)(o * rows + r) * reals;
                            const tn_real *w = p->w + (ptrdiff_t)o * j->p->conv.k + (i + y + r) * g->kw;
                            const int l0 = first + x * width,
                                      n = o < j->p->pool.c ? tn_least(reals, j->run - l0) : 0;
                            for (int l = 0; l < n; l++) out[l] = w[p->at[l0 + l]];
                            for (int l = n; l < reals; l++) out[l] = 0;
                        }
                    tiles += (ptrdiff_t)j->ld * rows * reals;
                }
        }
}

/* The same for tn_conv_pool_by_columns. */
static void pack_by_columns(void *arg, size_t lo, size_t hi) {
    const pack_job *p = arg;
    const job *j = p->j;
    const int kh = j->p->conv.g.kh, kw = j->p->conv.g.kw, len = by_columns_len(&j->p->conv.g);
    for (int o = (int)lo; o < (int)hi; o++)
        for (int i = 0; i < kh; i++) {
            tn_real *out = p->out + (ptrdiff_t)(o * kh + i) * len;
            const tn_real *w = p->w + (ptrdiff_t)o * j->p->conv.k + i * kw;
            const int n = o < j->p->pool.c ? j->run : 0;
            for (int l = 0; l < n; l++) out[l] = w[p->at[l]];
            for (int l = n; l < len; l++) out[l] = 0;
        }
}

void tn_conv_pool_pack(tn_tape *t, const job *j, const tn_real *w, tn_real *out) {
    const tn_window *g = &j->p->conv.g;
    int *at = tn_scratch(t, (size_t)j->run * sizeof *at);
    for (int l = 0; l < j->run; l++) at[l] = l % g->c * g->kh * g->kw + l / g->c;
    pack_job p = {j, at, w, out};
    tn_parallel_range((size_t)j->ld, TN_CONV_POOL_FILTERS, j->by_columns ? pack_by_columns : pack_filters,
                      &p);
}

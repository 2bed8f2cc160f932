/* SPDX-License-Identifier: MIT */
/*
 * The input's gradient as in conv_sparse.c, for short windows and 2 x 2 pooling: a tile is what all four pixels of a pooling
 * window give, kh + 1 rows of kw + 1 pixels, so that the image is read and written once a window instead of four times, and
 * not right after it was written. Weights of the right-hand pixels stand one pixel further to the right in rows of their
 * own; the pixels below add to the tile from its second row on.
 *
 * Where a row of weights ends its vectors go on with zeros. A gradient that is not finite would make NaN of them, so an
 * image with such a one takes sums in memory, lane by lane where there are weights.
 */
#include "vec_part.h"

/* Vectors of a tile of 6 rows: 18 sums, or one vector of TN_LANES and 24, or 12. */
enum { MOST = VL == (int)TN_LANES ? 3 : VL == 4 ? 4 : 2, ROWS = 6, LONGEST = 48, LINE = 64 };

typedef struct {
    ptrdiff_t len[2]; /* of a row of weights: of a left-hand, a right-hand pixel of the window */
    int channels, run, pixel;
    const tn_real *w[2];
} layer;

#define TILE_ROW(m, r) m(r, 0) m(r, 1) m(r, 2) m(r, 3)
#define TILE(m)        TILE_ROW(m, 0) TILE_ROW(m, 1) TILE_ROW(m, 2) TILE_ROW(m, 3) TILE_ROW(m, 4) TILE_ROW(m, 5)

/* Vectors from lane `from` on; of a left-hand pixel's rows the first `left` of them exist. */
__attribute__((always_inline)) static inline void tile(const int rows, const int vectors, const int left,
                                                       int from, const layer *g, const uint64_t *bits,
                                                       const tn_real *v, tn_real *to, ptrdiff_t row) {
#define ZERO(r, c) V a##r##c = vset1(0);
    TILE(ZERO)
    const ptrdiff_t len0 = g->len[0], len1 = g->len[1];
    const tn_real *w0 = g->w[0] + from, *w1 = g->w[1] + from;
#define ADD(r, c, below, j, n)                   \
    if (r >= below && r < rows + below && c < n) \
        a##r##c = vfma(x, vload(at + (r - below) * len##j + c * VL), a##r##c);
#define ADD_00(r, c) ADD(r, c, 0, 0, left)
#define ADD_01(r, c) ADD(r, c, 0, 1, vectors)
#define ADD_10(r, c) ADD(r, c, 1, 0, left)
#define ADD_11(r, c) ADD(r, c, 1, 1, vectors)
#define PIXEL(i, j)                                             \
    for (uint64_t m = bits[2 * i + j]; m; m &= m - 1) {         \
        const size_t o = (size_t)__builtin_ctzll(m);            \
        const tn_real *at = w##j + o * (size_t)(rows * len##j); \
        const V x = vset1(v[o]);                                \
        TILE(ADD_##i##j)                                        \
    }
    if (left) {
        PIXEL(0, 0)
    }
    PIXEL(0, 1)
    if (left) {
        PIXEL(1, 0)
    }
    PIXEL(1, 1)
    tn_real number[VL];
    for (int l = 0; l < VL; l++) number[l] = (tn_real)(from + l);
    const V lane = vload(number), end = vset1((tn_real)(g->run + g->pixel));
    /* of whole rows the last vector alone may be cut short */
#define PUT(r, c)                                                                         \
    if (r <= rows && c < vectors) {                                                       \
        V add = VL == (int)TN_LANES && c + 1 < vectors                                    \
                    ? a##r##c                                                             \
                    : vsel(vlt(lane + vset1((tn_real)((c)*VL)), end), a##r##c, vset1(0)); \
        vstore(to + r * row + from + c * VL, vload(to + r * row + from + c * VL) + add);  \
    }
    TILE(PUT)
}

static void window(int rows, const layer *g, const uint64_t *bits, const tn_real *v, tn_real *to,
                   ptrdiff_t row) {
#define ROWS_CASE(n, l)                           \
    if (rows == 5)                                \
        tile(5, n, l, from, g, bits, v, to, row); \
    else                                          \
        tile(3, n, l, from, g, bits, v, to, row); \
    break;
    if (VL == (int)TN_LANES) {
        const int from = 0;
        switch ((int)(g->len[1] + g->len[0]) / VL) {
        case 2:
            ROWS_CASE(1, 1)
        case 3:
            ROWS_CASE(MOST < 2 ? MOST : 2, 1)
        case 4:
            ROWS_CASE(MOST < 2 ? MOST : 2, MOST < 2 ? MOST : 2)
        case 5:
            ROWS_CASE(MOST, 2)
        case 6:
            ROWS_CASE(MOST, MOST)
        }
        return;
    }
    for (int from = 0; from < g->len[1]; from += MOST * VL) switch (from < g->len[0]) {
        case 0:
            ROWS_CASE(MOST, 0)
        case 1:
            ROWS_CASE(MOST, MOST)
        }
}

static void careful_window(int rows, const layer *g, const uint64_t *bits, const tn_real *v, tn_real *to,
                           ptrdiff_t row) {
    tn_real sum[ROWS][LONGEST] = {0};
    for (int k = 0; k < 4; k++) {
        const int i = k / 2, j = k % 2, shift = j * g->pixel;
        for (uint64_t m = bits[k]; m; m &= m - 1) {
            const size_t o = (size_t)__builtin_ctzll(m);
            const tn_real *w = g->w[j] + o * (size_t)(rows * g->len[j]);
            for (int r = 0; r < rows; r++, w += g->len[j])
                for (int l = 0; l < g->len[j]; l += VL) {
                    V s = vload(&sum[r + i][l]), t = vfma(vset1(v[o]), vload(w + l), s);
                    tn_real old[VL], new[VL];
                    vstore(old, s), vstore(new, t);
                    for (int q = 0; q < VL; q++)
                        sum[r + i][l + q] = l + q >= shift && l + q < shift + g->run ? new[q] : old[q];
                }
        }
    }
    for (int r = 0; r <= rows; r++)
        for (int l = 0; l < g->run + g->pixel; l++) to[r * row + l] += sum[r][l];
}

static int all_finite(size_t n, const tn_real *x) {
    VI bad = vlt(vset1(0), vset1(0));
    for (size_t i = 0; i < n; i += VL) {
        V v = vload(x + i), zero = v - v;
        bad |= ~veq(zero, vset1(0));
    }
    return !vany(bad);
}

void tn_k_sparse_dx_pool(int rows, int run, const tn_sparse_window *s, int channels, const uint64_t *bits,
                         const tn_real *v, const tn_real *w, tn_real *image) {
    layer g = {.channels = channels, .run = run, .pixel = (int)s->pixel};
    for (int j = 0; j < 2; j++) g.len[j] = (run + j * (int)s->pixel + TN_LANES - 1) / TN_LANES * TN_LANES;
    g.w[0] = w, g.w[1] = w + channels * rows * g.len[0];
    const int windows = s->oh * s->ow, finite = all_finite((size_t)(windows * channels), v);
    const char *soon = s->soon;
    for (int r = 0; r < s->oh; r++)
        for (int c = 0; c < s->ow; c++, bits += 4, v += channels, soon += s->step) {
            tn_real *to = image + 2 * r * s->row + 2 * c * s->pixel;
            for (int l = 0; l < s->step; l += LINE) __builtin_prefetch(soon + l, 1);
            if (finite)
                window(rows, &g, bits, v, to, s->row);
            else
                careful_window(rows, &g, bits, v, to, s->row);
        }
}

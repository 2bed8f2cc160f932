/* SPDX-License-Identifier: MIT */
/*
 * The input's gradient as in conv_sparse.c, for windows of few rows, one or two TN_LANES wide, and 2 x 2 pooling: a
 * column of pixels of the convolution's output at a time. What the two pixels of a pooling window in that column give is a
 * tile of kh + 1 rows of the image, and the tile of the next pooling window lies two rows below, so its sums stay in
 * registers, and only the two rows that are done are added to the image.
 *
 * Beyond the end of a row of weights stand zeros. A gradient that is not finite would make NaN of them, so an image with
 * such a one takes sums in memory, real by real.
 */
#include "level.h"

/* 12 sums in 16 registers, 24 in 32; a row of weights, TN_LANES or twice that, in one pass where that suffices. */
enum { LINE = 64, PART = MR < 8 ? 2 : 4 };

typedef struct {
    int channels, len; /* len: of a row of weights */
    ptrdiff_t bits_row, v_row, row;
    const tn_real *w;
} layer;

#define TILE_ROW(m, r) m(r, 0) m(r, 1) m(r, 2) m(r, 3)
#define TILE(m)        TILE_ROW(m, 0) TILE_ROW(m, 1) TILE_ROW(m, 2) TILE_ROW(m, 3) TILE_ROW(m, 4) TILE_ROW(m, 5)
#define ZERO(r, c)     V a##r##c = vset1(0);
#define ADD(r, c, below)                               \
    if (r >= below && r < rows + below && c < vectors) \
        a##r##c = vfma(x, vload(at + (r - below) * len + c * VL), a##r##c);
#define ADD_0(r, c) ADD(r, c, 0)
#define ADD_1(r, c) ADD(r, c, 1)
/* The upper (0) or the lower (1) pixel of a pooling window, all channels. */
#define PIXEL(i)                                          \
    for (uint64_t m = bits[2 * i]; m; m &= m - 1) {       \
        const size_t l = (size_t)__builtin_ctzll(m);      \
        const tn_real *at = w + l * (size_t)(rows * len); \
        const V x = vset1(v[l]);                          \
        TILE(ADD_##i)                                     \
    }

__attribute__((always_inline)) static inline void put(tn_real *to, V sum) {
    vstore(to, vload(to) + sum);
}

/* `vectors` vectors of a column, n pooling windows high. */
__attribute__((always_inline)) static inline void column(const int rows, const int vectors, const int len,
                                                         int n, const layer *g, const uint64_t *bits,
                                                         const tn_real *v, const tn_real *w, tn_real *to) {
    const ptrdiff_t row = g->row, bits_row = g->bits_row, v_row = g->v_row;
    TILE(ZERO)
    for (int r = 0; r < n; r++, bits += bits_row, v += v_row, to += 2 * row) {
        PIXEL(0)
        PIXEL(1)
#define DONE(c)                                                 \
    if (c < vectors)                                            \
        put(to + c * VL, a0##c), put(to + row + c * VL, a1##c), \
            a0##c = a2##c, a1##c = a3##c, a2##c = a4##c, a3##c = a5##c, a4##c = vset1(0), a5##c = vset1(0);
        DONE(0) DONE(1) DONE(2) DONE(3)
    }
#define LAST(r, c) \
    if (r + 1 < rows && c < vectors) put(to + r * row + c * VL, a##r##c);
    TILE(LAST)
}

__attribute__((always_inline)) static inline void columns(const int rows, const int len,
                                                          const tn_sparse_window *s, const layer *g,
                                                          const uint64_t *bits, const tn_real *v,
                                                          tn_real *image) {
    const int vectors = len < PART * VL ? len / VL : PART;
    const char *soon = s->soon;
    for (int c = 0; c < 2 * s->ow; c++, image += s->pixel) {
        for (int l = 0; l < s->step; l += LINE) __builtin_prefetch(soon + l, 1);
        soon += s->step;
        for (int l = 0; l < len; l += vectors * VL)
            column(rows, vectors, len, s->oh, g, bits + c / 2 * 4 + c % 2, v + c / 2 * g->channels, g->w + l,
                   image + l);
    }
}

/* The same, sums in memory. */
static void careful_columns(int rows, int run, const tn_sparse_window *s, const layer *g,
                            const uint64_t *bits, const tn_real *v, tn_real *image) {
    for (int c = 0; c < 2 * s->ow; c++)
        for (int i = 0; i < 2 * s->oh + rows - 1; i++)
            for (int l = 0; l < run; l++) {
                tn_real sum[VL] = {0}, *to = image + i * s->row + c * s->pixel + l;
                for (int y = i - rows + 1 < 0 ? 0 : i - rows + 1; y <= i && y < 2 * s->oh; y++) {
                    const int at = y / 2 * s->ow + c / 2;
                    for (uint64_t m = bits[4 * at + y % 2 * 2 + c % 2]; m; m &= m - 1) {
                        const int o = __builtin_ctzll(m);
                        V term = vset1(g->w[(o * rows + i - y) * g->len + l]);
                        vstore(sum, vfma(vset1(v[at * g->channels + o]), term, vload(sum)));
                    }
                }
                *to += sum[0];
            }
}

void tn_k_sparse_dx_pool(int kh, int run, const tn_sparse_window *s, int channels, const uint64_t *bits,
                         const tn_real *v, const tn_real *w, tn_real *image) {
    const int len = run <= (int)TN_LANES ? TN_LANES : 2 * TN_LANES;
    const layer g = {channels, len, 4 * s->ow, (ptrdiff_t)s->ow * channels, s->row, w};
    if (!tn_k_all_finite((size_t)(s->oh * s->ow * channels), v))
        careful_columns(kh, run, s, &g, bits, v, image);
    else if (kh == 5 && len > (int)TN_LANES)
        columns(5, 2 * TN_LANES, s, &g, bits, v, image);
    else if (kh == 5)
        columns(5, TN_LANES, s, &g, bits, v, image);
    else if (len > (int)TN_LANES)
        columns(3, 2 * TN_LANES, s, &g, bits, v, image);
    else
        columns(3, TN_LANES, s, &g, bits, v, image);
}

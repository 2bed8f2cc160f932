/* SPDX-License-Identifier: MIT */
/*
 * The input's gradient as in conv_sparse.c, for short windows, few channels and 2 x 2 pooling. A pixel has PIXEL reals, two
 * of them TN_LANES: what the four pixels of a pooling window give is a tile of kh + 1 rows by (kw + 1) / 2 pairs of pixels,
 * and the tile of the next pooling window lies one pair further on, so its sums stay in registers, and only the pair that
 * is done is added to the image. Weights of the right-hand pixels are kept a second time, one pixel further to the right;
 * the pixels below add to the tile from its second row on.
 *
 * Where a row of weights has no pixel stand zeros. A gradient that is not finite would make NaN of them, so an image with
 * such a one takes sums in memory, real by real.
 */
#include "level.h"

/* The tile where a vector is a pair: 18 sums. Elsewhere a tile has one pair, all lanes at a time where there are registers. */
enum { PIXEL = TN_LANES / 2, PAIRS = 3, ROWS = 6, LINE = 64, PART = VL == 1 ? 1 : (int)TN_LANES / VL };

typedef struct {
    int channels, pairs, len; /* len: of a row of weights, pairs TN_LANES */
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
/* The upper (0) or the lower (1) pixels of a pooling window: of the left-hand one all channels, then of the other. */
#define PIXELS(i)                                                                 \
    for (uint64_t m = bits[2 * i] | bits[2 * i + 1] << channels; m; m &= m - 1) { \
        const size_t l = (size_t)__builtin_ctzll(m);                              \
        const tn_real *at = w + l * (size_t)(rows * len);                         \
        const V x = vset1(v[l & (size_t)(channels - 1)]);                         \
        TILE(ADD_##i)                                                             \
    }

__attribute__((always_inline)) static inline void put(tn_real *to, V sum) {
    vstore(to, vload(to) + sum);
}

/* A row of pooling windows. */
__attribute__((always_inline)) static inline void windows(const int rows, const int pairs, int n,
                                                          const layer *g, const uint64_t *bits,
                                                          const tn_real *v, tn_real *to, ptrdiff_t row) {
    const int channels = g->channels, len = pairs * (int)TN_LANES;
    if (VL == (int)TN_LANES) {
        const int vectors = pairs;
        const tn_real *w = g->w;
        TILE(ZERO)
        for (int c = 0; c < n; c++, bits += 4, v += channels, to += TN_LANES) {
            PIXELS(0)
            PIXELS(1)
#define DONE(r) \
    if (r <= rows) put(to + r * row, a##r##0), a##r##0 = a##r##1, a##r##1 = a##r##2, a##r##2 = vset1(0);
            DONE(0) DONE(1) DONE(2) DONE(3) DONE(4) DONE(5)
        }
#define LAST(r, c) \
    if (r <= rows && c + 1 < pairs) put(to + r * row + c * VL, a##r##c);
        TILE(LAST)
        return;
    }
    const int vectors = PART;
    for (int pair = 0; pair < n + pairs - 1; pair++, to += TN_LANES)
        for (int l0 = 0; l0 < (int)TN_LANES; l0 += PART * VL) {
            const int c0 = pair - pairs + 1 < 0 ? 0 : pair - pairs + 1, c1 = pair < n ? pair : n - 1;
            TILE(ZERO)
            for (int c = c0; c <= c1; c++) {
                const uint64_t *const all = bits;
                const tn_real *const first = v, *w = g->w + (pair - c) * (int)TN_LANES + l0;
                bits += 4 * c, v += c * channels;
                PIXELS(0)
                PIXELS(1)
                bits = all, v = first;
            }
#define PUT(r, c) \
    if (r <= rows && c < vectors) put(to + r * row + l0 + c * VL, a##r##c);
            TILE(PUT)
        }
}

/* The same, sums in memory. */
static void careful_windows(int rows, int n, const layer *g, int kw, const uint64_t *bits, const tn_real *v,
                            tn_real *to, ptrdiff_t row) {
    for (int i = 0; i <= rows; i++)
        for (int l = 0; l < (n + g->pairs - 1) * (int)TN_LANES; l++) {
            tn_real sum[VL] = {0};
            for (int c = 0; c < n; c++)
                for (int k = 0; k < 4; k++) {
                    const int r = i - k / 2, from = (2 * c + k % 2) * PIXEL;
                    if (r < 0 || r >= rows || l < from || l >= from + kw * PIXEL) continue;
                    for (uint64_t m = bits[4 * c + k]; m; m &= m - 1) {
                        const int o = __builtin_ctzll(m);
                        const tn_real *w = g->w + ((k % 2 * g->channels + o) * rows + r) * g->len;
                        V term = vset1(w[l - 2 * c * PIXEL]);
                        vstore(sum, vfma(vset1(v[c * g->channels + o]), term, vload(sum)));
                    }
                }
            to[i * row + l] += sum[0];
        }
}

static int all_finite(size_t n, const tn_real *x) {
    VI same = veq(vset1(0), vset1(0));
    for (size_t i = 0; i < n; i += VL) {
        V v = vload(x + i), zero = v - v;
        same &= veq(zero, vset1(0));
    }
    return vbits_of(same) == VALL;
}

void tn_k_sparse_dx_pool(int kh, int kw, const tn_sparse_window *s, int channels, const uint64_t *bits,
                         const tn_real *v, const tn_real *w, tn_real *image) {
    const int pairs = (kw + 1) / 2, n = s->ow, finite = all_finite((size_t)(s->oh * n * channels), v);
    const layer g = {channels, pairs, pairs * (int)TN_LANES, w};
    const char *soon = s->soon;
    for (int r = 0; r < s->oh; r++, bits += 4 * n, v += n * channels, image += 2 * s->row) {
        for (int l = 0; l < n * s->step; l += LINE) __builtin_prefetch(soon + l, 1);
        soon += n * s->step;
        if (!finite)
            careful_windows(kh, n, &g, kw, bits, v, image, s->row);
        else if (kh == 5)
            windows(5, 3, n, &g, bits, v, image, s->row);
        else
            windows(3, 2, n, &g, bits, v, image, s->row);
    }
}

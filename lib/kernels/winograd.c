/* SPDX-License-Identifier: MIT */
/*
 * Winograd's minimal filtering F(4x4, 3x3) (Lavin and Gray, arXiv:1509.09308, with the points 0, 1, -1, 2, -2 and
 * infinity): 4 x 4 outputs of a 3 x 3 convolution cost 36 multiplications for each pair of channels in the place of 144.
 *
 *   U = G w G'          once for each pair of channels    winograd_weights
 *   V = B' d B          for each 6 x 6 tile of the input  winograd_input
 *   M = V U             36 products of matrices           winograd_products
 *   y = A' M A + bias   for each tile                     winograd_output, winograd_output_pool
 *
 * Lanes run over channels, so images are NHWC here. One product after the other runs over all tiles of a group, because its
 * part of U stays in the first-level cache then, while V and M stream through from the second; U, the largest of the
 * three, would be the one to stream if the products of a few tiles were made together. A tile's 36 vectors pass through a
 * small array between the two halves of a transform: they are more than the registers.
 */
#include "vec_part.h"

enum { IN = 6, OUT = 4, TAPS = 3 };

/* ---- weights ---- */

/* (a, b, c) to G (a, b, c)' at out[0], out[step], ... */
static inline void filter_1d(V a, V b, V c, V *out, int step) {
    const V sixth = vset1((tn_real)(-1.0 / 6)), twelfth = vset1((tn_real)(1.0 / 12));
    V sum = a + c;
    V even = vfma(a, vset1((tn_real)(1.0 / 24)), c * vset1((tn_real)(1.0 / 6)));
    out[0] = a * vset1((tn_real)0.25);
    out[step] = (sum + b) * sixth;
    out[2 * step] = (sum - b) * sixth;
    out[3 * step] = vfma(b, twelfth, even);
    out[4 * step] = vfma(-b, twelfth, even);
    out[5 * step] = c;
}

/* Weights of output channels o..o+n-1 for input channel c, as VL lanes; missing channels are 0. */
static inline void load_filters(int n, int ci, const tn_real *w, V tap[TAPS * TAPS]) {
    tn_real lane[TAPS * TAPS][VL];
    memset(lane, 0, sizeof lane);
    for (int l = 0; l < n; l++)
        for (int k = 0; k < TAPS * TAPS; k++) lane[k][l] = w[(ptrdiff_t)l * ci * TAPS * TAPS + k];
    for (int k = 0; k < TAPS * TAPS; k++) tap[k] = vload(lane[k]);
}

void tn_k_winograd_weights(int co, int ci, int c0, int c1, const tn_real *w, tn_real *u) {
    const int panels = (co + NR - 1) / NR;
    for (int c = c0; c < c1; c++)
        for (int o = 0; o < panels * NR; o += VL) {
            V tap[TAPS * TAPS], half[IN * TAPS], whole[IN * IN];
            int n = co - o < 0 ? 0 : co - o < VL ? co - o : VL;
            load_filters(n, ci, w + ((ptrdiff_t)o * ci + c) * TAPS * TAPS, tap);
            for (int j = 0; j < TAPS; j++) filter_1d(tap[j], tap[3 + j], tap[6 + j], half + j, TAPS);
            for (int i = 0; i < IN; i++)
                filter_1d(half[3 * i], half[3 * i + 1], half[3 * i + 2], whole + IN * i, 1);
            tn_real *to = u + ((ptrdiff_t)(o / NR) * ci + c) * NR + o % NR;
            for (int t = 0; t < IN * IN; t++) vstore(to + (ptrdiff_t)t * panels * ci * NR, whole[t]);
        }
}

/* ---- input ---- */

/* B' (d0 ... d5)' */
static inline void input_1d(V d0, V d1, V d2, V d3, V d4, V d5, V out[IN]) {
    const V two = vset1(2), four = vset1(4), five = vset1(5);
    V a = vfma(-four, d2, d4), b = vfma(-four, d1, d3), c = d4 - d2, e = d3 - d1;
    out[0] = vfma(four, d0, vfma(-five, d2, d4));
    out[1] = a + b;
    out[2] = a - b;
    out[3] = vfma(two, e, c);
    out[4] = vfma(-two, e, c);
    out[5] = vfma(four, d1, vfma(-five, d3, d5));
}

/* Columns first, into d[column][row], then rows; lanes beyond n are neither read nor written. */
static inline void input_tile(size_t n, const tn_real *x, ptrdiff_t pixel, ptrdiff_t pitch, tn_real *v,
                              ptrdiff_t step) {
    V d[IN][IN], out[IN];
#define AT(i) vload_first(x + (i)*pitch + j * pixel, n)
    for (int j = 0; j < IN; j++) input_1d(AT(0), AT(1), AT(2), AT(3), AT(4), AT(5), d[j]);
#undef AT
    for (int i = 0; i < IN; i++) {
        input_1d(d[0][i], d[1][i], d[2][i], d[3][i], d[4][i], d[5][i], out);
        for (int j = 0; j < IN; j++) vstore_first(v + (IN * i + j) * step, n, out[j]);
    }
}

void tn_k_winograd_input(int ci, int tiles, const tn_real *x, ptrdiff_t pitch, tn_real *v) {
    for (int t = 0; t < tiles; t++, x += OUT * (ptrdiff_t)ci, v += IN * IN * (ptrdiff_t)ci) {
        int c = 0;
        for (; c + VL <= ci; c += VL) input_tile(VL, x + c, ci, pitch, v + c, ci);
        if (c < ci) input_tile((size_t)(ci - c), x + c, ci, pitch, v + c, ci);
    }
}

/* ---- products ---- */

/* Named accumulators, see gemm.c: tiles by two vectors, twelve where 32 registers allow, and six for the rest. */
#if defined(TN_LEVEL_AVX512) || defined(TN_LEVEL_NEON)
enum { MOST_ROWS = 2 * TN_WINOGRAD_TILES };
#else
enum { MOST_ROWS = TN_WINOGRAD_TILES };
#endif
#define ROWS(F) F(0) F(1) F(2) F(3) F(4) F(5) F(6) F(7) F(8) F(9) F(10) F(11)
/*
 * Element (i, p) of V, by three pointers four rows apart and the steps an address can have. Left to themselves compilers
 * keep a pointer for each row, more than there are registers; OPAQUE hides from them that these are related.
 */
#define OPAQUE(x) __asm__("" : "+r"(x))
#define AT_0      v0[0]
#define AT_1      v0[rs]
#define AT_2      v0[2 * rs]
#define AT_3      v0[rs3]
#define AT_4      v4[0]
#define AT_5      v4[rs]
#define AT_6      v4[2 * rs]
#define AT_7      v4[rs3]
#define AT_8      v8[0]
#define AT_9      v8[rs]
#define AT_10     v8[2 * rs]
#define AT_11     v8[rs3]
#define ZERO(i)   V l##i = vset1(0), r##i = l##i;
#define STEP(i)                                             \
    if (rows > i) {                                         \
        V a = vset1(AT_##i);                                \
        l##i = vfma(a, bl, l##i), r##i = vfma(a, br, r##i); \
    }
#define STORE(i) \
    if (rows > i) vstore(m, l##i), vstore(m + VL, r##i), m += rm;

/* Rows of V, rs apart, by a panel of U to rows of M, rm apart. */
__attribute__((always_inline)) static inline void product_tile(const int rows, int ci, const tn_real *v0,
                                                               ptrdiff_t rs, const tn_real *u, tn_real *m,
                                                               ptrdiff_t rm) {
    const tn_real *v4 = v0 + 4 * rs, *v8 = v0 + 8 * rs;
    ptrdiff_t rs3 = 3 * rs;
    OPAQUE(rs3);
    ROWS(ZERO)
#pragma GCC unroll 2
    for (int p = 0; p < ci; p++, u += NR, v0++, v4++, v8++) {
        OPAQUE(v0);
        OPAQUE(v4);
        OPAQUE(v8);
        V bl = vload(u), br = vload(u + VL);
        ROWS(STEP)
    }
    ROWS(STORE)
}

void tn_k_winograd_products(int ci, int tiles, int panels, const tn_real *v, const tn_real *u, tn_real *m,
                            ptrdiff_t step) {
    const ptrdiff_t rs = (ptrdiff_t)IN * IN * ci, rm = (ptrdiff_t)panels * NR;
    for (int t = 0; t < IN * IN; t++, v += ci, m += step)
        for (int j = 0; j < panels; j++, u += (ptrdiff_t)ci * NR) {
            int i = 0;
            for (; i + MOST_ROWS <= tiles; i += MOST_ROWS)
                product_tile(MOST_ROWS, ci, v + i * rs, rs, u, m + i * rm + j * NR, rm);
            for (; i < tiles; i += TN_WINOGRAD_TILES)
                product_tile(TN_WINOGRAD_TILES, ci, v + i * rs, rs, u, m + i * rm + j * NR, rm);
        }
}

/* ---- output ---- */

/* A' (m0 ... m5)' */
static inline void output_1d(V m0, V m1, V m2, V m3, V m4, V m5, V out[OUT]) {
    V p = m1 + m2, q = m1 - m2, r = m3 + m4, s = m3 - m4;
    out[0] = m0 + p + r;
    out[1] = vfma(vset1(2), s, q);
    out[2] = vfma(vset1(4), r, p);
    out[3] = vfma(vset1(8), s, q) + m5;
}

/* VL channels of a tile of M, step reals between its 36 parts, to y[row][column]. */
static inline void output_tile(const tn_real *m, ptrdiff_t step, V y[OUT][OUT]) {
    V d[IN][OUT];
#define AT(i) vload(m + (IN * (i) + j) * step)
    for (int j = 0; j < IN; j++) output_1d(AT(0), AT(1), AT(2), AT(3), AT(4), AT(5), d[j]);
#undef AT
    for (int i = 0; i < OUT; i++) output_1d(d[0][i], d[1][i], d[2][i], d[3][i], d[4][i], d[5][i], y[i]);
}

static inline V bias_of(const tn_real *bias, int o, size_t n) {
    return bias ? vload_first(bias + o, n) : vset1(0);
}

void tn_k_winograd_output(int channels, int rows, int cols, const tn_real *m, ptrdiff_t step,
                          const tn_real *bias, int relu, tn_real *y, ptrdiff_t pixel, ptrdiff_t pitch) {
    for (int o = 0; o < channels; o += VL) {
        size_t n = channels - o < VL ? (size_t)(channels - o) : VL;
        V z[OUT][OUT], b = bias_of(bias, o, n);
        output_tile(m + o, step, z);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < cols; j++) {
                V v = bias ? z[i][j] + b : z[i][j];
                vstore_first(y + i * pitch + j * pixel + o, n, relu ? vmax(vset1(0), v) : v);
            }
    }
}

/* The larger of two and its index; the first of equals, and the first NaN, stays. */
static inline void keep_larger(V *best, V *index, V z, V i) {
    VI take = (vgt(z, *best) | ~veq(z, z)) & veq(*best, *best);
    *best = vsel(take, z, *best), *index = vsel(take, i, *index);
}

static inline V largest_of_four(V a, V b, V c, V d, V *index) {
    V best = vmax(vmax(a, b), vmax(c, d)), check = (a + b) + (c + d);
    *index =
        vsel(veq(a, best), vset1(0), vsel(veq(b, best), vset1(1), vsel(veq(c, best), vset1(2), vset1(3))));
    if (!vany(~veq(check, check))) return best;
    best = a, *index = vset1(0); /* NaN, or infinities of both signs */
    keep_larger(&best, index, b, vset1(1));
    keep_larger(&best, index, c, vset1(2));
    keep_larger(&best, index, d, vset1(3));
    return best;
}

void tn_k_winograd_output_pool(int channels, int rows, int cols, const tn_real *m, ptrdiff_t step,
                               const tn_real *bias, int relu, tn_real *y, tn_real *winner, ptrdiff_t pixel,
                               ptrdiff_t pitch) {
    for (int o = 0; o < channels; o += VL) {
        size_t n = channels - o < VL ? (size_t)(channels - o) : VL;
        V z[OUT][OUT], b = bias_of(bias, o, n);
        output_tile(m + o, step, z);
        for (int i = 0; i < rows; i++)
            for (int j = 0; j < cols; j++) {
                const V *top = z[2 * i] + 2 * j, *below = z[2 * i + 1] + 2 * j;
                V index, best = largest_of_four(top[0], top[1], below[0], below[1], &index);
                if (bias) best = best + b; /* adding and ReLU keep the order: after the choice is enough */
                ptrdiff_t to = i * pitch + j * pixel + o;
                vstore_first(y + to, n, relu ? vmax(vset1(0), best) : best);
                vstore_first(winner + to, n, index);
            }
    }
}

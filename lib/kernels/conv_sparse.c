/* SPDX-License-Identifier: MIT */
/*
 * Gradients of a convolution whose output gradient is mostly zeros, as ReLU and max pooling leave it: only what is not
 * zero is multiplied. Images have their channels last, so that a row of a window is one stretch of kw ci reals.
 *
 *   dw: one output channel at a time. The sums of a piece of its weights, rows x cols vectors, stay in registers while all
 *       positions with a gradient pass; each adds its value times the window it saw.
 *   dx: one position at a time. The sums of a piece of its window stay in registers while all channels with a gradient
 *       pass; each adds its value times the channel's weights. The piece is as large as keeps those of all channels in the
 *       first-level cache. Then the sums are added to the image.
 *
 * The terms of an element are added in the order of the lists, whatever the pieces.
 */
#include "level.h"

/* value(i, j) for all rows i and vectors j of a piece, with names instead of an array: see gemm.c. */
#define COLS_1(F, i) F(i, 0)
#define COLS_2(F, i) COLS_1(F, i) F(i, 1)
#define COLS_3(F, i) COLS_2(F, i) F(i, 2)
#define COLS_4(F, i) COLS_3(F, i) F(i, 3)
#define COLS_5(F, i) COLS_4(F, i) F(i, 4)
#define COLS_6(F, i) COLS_5(F, i) F(i, 5)
#define GRID_1(C, F) COLS_##C(F, 0)
#define GRID_2(C, F) GRID_1(C, F) COLS_##C(F, 1)
#define GRID_3(C, F) GRID_2(C, F) COLS_##C(F, 2)
#define GRID_4(C, F) GRID_3(C, F) COLS_##C(F, 3)
#define GRID_5(C, F) GRID_4(C, F) COLS_##C(F, 4)

/* All pieces whose sums fit the registers: TN_SPARSE_CELLS of them, fewer with 16 registers. */
#define SMALL_PIECES(F)                                                                                     \
    F(1, 1)                                                                                                 \
    F(1, 2) F(1, 3) F(1, 4) F(1, 5) F(1, 6) F(2, 1) F(2, 2) F(2, 3) F(2, 4) F(2, 5) F(2, 6) F(3, 1) F(3, 2) \
        F(3, 3) F(3, 4) F(4, 1) F(4, 2) F(4, 3) F(5, 1) F(5, 2)
#ifdef TN_LEVEL_AVX2
#define PIECES(F) SMALL_PIECES(F)
#else
#define PIECES(F) SMALL_PIECES(F) F(3, 5) F(3, 6) F(4, 4) F(5, 3)
#endif

enum { MOST_ROWS = 5, MOST_COLS = 6 };

/* ---- weights ---- */

typedef void dw_fn(int n, const int *off, const tn_real *value, const tn_real *x, ptrdiff_t pitch,
                   tn_real *sum);

#define LOAD(i, j)  V a##i##j = vload(sum + (i * WIDE + j) * VL);
#define STEP(i, j)  a##i##j = vfma(v, vload(p + i * pitch + j * VL), a##i##j);
#define STORE(i, j) vstore(sum + (i * WIDE + j) * VL, a##i##j);
#define DW(R, C)                                                                                             \
    static void dw_##R##_##C(int n, const int *off, const tn_real *value, const tn_real *x, ptrdiff_t pitch, \
                             tn_real *sum) {                                                                 \
        enum { WIDE = C };                                                                                   \
        (void)pitch;                                                                                         \
        GRID_##R(C, LOAD) for (int e = 0; e < n; e++) {                                                      \
            const tn_real *p = x + off[e];                                                                   \
            V v = vset1(value[e]);                                                                           \
            GRID_##R(C, STEP)                                                                                \
        }                                                                                                    \
        GRID_##R(C, STORE)                                                                                   \
    }
PIECES(DW)

#define DW_ENTRY(R, C) [R][C] = dw_##R##_##C,
static dw_fn *const dw[MOST_ROWS + 1][MOST_COLS + 1] = {PIECES(DW_ENTRY)};

void tn_k_sparse_dw(int rows, int cols, int n, const int *off, const tn_real *value, const tn_real *x,
                    ptrdiff_t pitch, tn_real *sum) {
    dw[rows][cols](n, off, value, x, pitch, sum);
}

/* ---- input ---- */

typedef void dx_fn(int n, const int *channel, const tn_real *value, const tn_real *w, tn_real *g,
                   ptrdiff_t pitch, VI last);

#define ZERO(i, j)   V a##i##j = vset1(0);
#define STEP_W(i, j) a##i##j = vfma(v, vload(p + (i * WIDE + j) * VL), a##i##j);
/* What lies beyond the end of a row of the window belongs to other pixels and stays. */
#define ADD(i, j)                                               \
    {                                                           \
        tn_real *to = g + i * pitch + j * VL;                   \
        V old = vload(to), sum = old + a##i##j;                 \
        vstore(to, j == WIDE - 1 ? vsel(last, sum, old) : sum); \
    }
#define DX(R, C)                                                                                            \
    static void dx_##R##_##C(int n, const int *channel, const tn_real *value, const tn_real *w, tn_real *g, \
                             ptrdiff_t pitch, VI last) {                                                    \
        enum { WIDE = C };                                                                                  \
        (void)pitch;                                                                                        \
        GRID_##R(C, ZERO) for (int e = 0; e < n; e++) {                                                     \
            const tn_real *p = w + (ptrdiff_t)channel[e] * (R * C * VL);                                    \
            V v = vset1(value[e]);                                                                          \
            GRID_##R(C, STEP_W)                                                                             \
        }                                                                                                   \
        GRID_##R(C, ADD)                                                                                    \
    }
PIECES(DX)

#define DX_ENTRY(R, C) [R][C] = dx_##R##_##C,
static dx_fn *const dx[MOST_ROWS + 1][MOST_COLS + 1] = {PIECES(DX_ENTRY)};

void tn_k_sparse_dx(int rows, int cols, int lanes, int positions, const int *start, const int *channel,
                    const tn_real *value, const int *off, const tn_real *w, tn_real *g, ptrdiff_t pitch) {
    dx_fn *fn = dx[rows][cols];
    tn_real mark[VL];
    for (int l = 0; l < VL; l++) mark[l] = (tn_real)(l < lanes);
    VI last = vgt(vload(mark), vset1(0));
    for (int p = 0; p < positions; p++)
        if (start[p] < start[p + 1])
            fn(start[p + 1] - start[p], channel + start[p], value + start[p], w, g + off[p], pitch, last);
}

/* ---- lists of what is not zero ---- */

/* The lanes of v that m keeps, and the integers that belong to them, to the front; whole vectors are written. */
#ifdef TN_LEVEL_AVX512
static inline int keep(VI m, V v, const int *tag, tn_real *value, int *out) {
    __mmask16 k = _mm512_movepi32_mask((__m512i)m);
    _mm512_storeu_ps(value, _mm512_maskz_compress_ps(k, v));
    _mm512_storeu_si512(out, _mm512_maskz_compress_epi32(k, _mm512_loadu_si512(tag)));
    return __builtin_popcount(k);
}
#else
static inline int keep(VI m, V v, const int *tag, tn_real *value, int *out) {
    tn_real lane[VL], kept[VL];
    int n = 0;
    vstore(lane, v), vstore(kept, vsel(m, vset1(1), vset1(0)));
    for (int l = 0; l < VL; l++) {
        value[n] = lane[l], out[n] = tag[l];
        n += kept[l] != 0;
    }
    return n;
}
#endif

static inline V load(const tn_real *p, size_t n) {
    return n >= VL ? vload(p) : vload_part(p, n, 0);
}

int tn_k_sparse_list(int n, const tn_real *x, const tn_real *place, tn_real which, const int *tag,
                     tn_real *value, int *out) {
    int count = 0;
    for (int i = 0; i < n; i += VL) {
        V v = load(x + i, (size_t)(n - i));
        VI m = ~veq(v, vset1(0)); /* NaN is kept */
        if (place) m &= veq(load(place + i, (size_t)(n - i)), vset1(which));
        count += keep(m, v, tag + i, value + count, out + count);
    }
    return count;
}

/* SPDX-License-Identifier: MIT */
/*
 * Products of a recurrent layer: some rows by one panel of columns, which is as wide as the largest register tile: with 32
 * registers three vectors, where gemm's panels have two, because few rows meet each panel and what a tile costs to begin
 * and to end counts. The panel is cut into blocks of k that stay in L1 for all rows.
 *
 * A layer's states and gradients are larger than L2, and what comes next is known: every step of a tile's inner loop also
 * fetches a line of it, so that memory works while the multipliers do.
 */
#include "level.h"

enum { PANEL_K = 160, FETCH_LINE = 64 };

/* Named accumulators by macros, as in tile.h: v_i_j is row i, vector j. */
#define EACH_1(F, ...) F(0, __VA_ARGS__)
#define EACH_2(F, ...) EACH_1(F, __VA_ARGS__) F(1, __VA_ARGS__)
#define EACH_3(F, ...) EACH_2(F, __VA_ARGS__) F(2, __VA_ARGS__)
#define EACH_4(F, ...) EACH_3(F, __VA_ARGS__) F(3, __VA_ARGS__)
#define EACH_5(F, ...) EACH_4(F, __VA_ARGS__) F(4, __VA_ARGS__)
#define EACH_6(F, ...) EACH_5(F, __VA_ARGS__) F(5, __VA_ARGS__)
#define EACH_7(F, ...) EACH_6(F, __VA_ARGS__) F(6, __VA_ARGS__)
#define EACH_8(F, ...) EACH_7(F, __VA_ARGS__) F(7, __VA_ARGS__)

#define VECTORS_1(G, i) G(i, 0)
#define VECTORS_2(G, i) G(i, 0) G(i, 1)
#define VECTORS_3(G, i) G(i, 0) G(i, 1) G(i, 2)

#define ZERO_ONE(i, j)  V v_##i##_##j = vset1(0);
#define LOAD_ONE(i, j)  v_##i##_##j = vload(from + j * VL);
#define FMA_ONE(i, j)   v_##i##_##j = vfma(x, b_##j, v_##i##_##j);
#define STORE_ONE(i, j) vstore(c + j * VL, v_##i##_##j);
#define B_ONE(i, j)     V b_##j = vload(b + j * VL);

#define ZERO(i, n)  VECTORS_##n(ZERO_ONE, i)
#define LOAD(i, n)  VECTORS_##n(LOAD_ONE, i) from += from_row;
#define STORE(i, n) VECTORS_##n(STORE_ONE, i) c += ldc;
/* Row i of A is reached from every third row's pointer by what an address can add. */
#define STEP(i, n)                                                                         \
    {                                                                                      \
        V x = vset1(columns ? a_0[i] : (i < 3 ? a_0 : i < 6 ? a_3 : a_6)[i % 3 * stride]); \
        VECTORS_##n(FMA_ONE, i)                                                            \
    }
/* The compiler is not to see how a pointer came about: gcc would keep eight of them, and spill half. */
#define HIDE(p) __asm__("" : "+r"(p))
#define ONE_STEP(rows, n)                                                                        \
    {                                                                                            \
        VECTORS_##n(B_ONE, ) if (columns) __builtin_prefetch(a_0 + rows + MR - 1, 0, 3);         \
        EACH_##rows(STEP, n) b += columns ? ldb : n * VL, a_0 += next, a_3 += next, a_6 += next; \
    }

/*
 * A in rows or, with columns, in columns of memory, and then b's rows may lie apart; C begins with what lies at from, or
 * zeros. Two steps a turn, and one line of what is fetched.
 */
#define TILE(rows, n)                                                                                        \
    static inline __attribute__((always_inline)) void any_##rows##_##n(                                      \
        int columns, int k, const tn_real *a, ptrdiff_t stride, const tn_real *b, ptrdiff_t ldb, tn_real *c, \
        ptrdiff_t ldc, const tn_real *from, ptrdiff_t from_row, const char *far, ptrdiff_t far_step) {       \
        const ptrdiff_t next = columns ? stride : 1;                                                         \
        const tn_real *a_0 = a, *a_3 = a, *a_6 = a;                                                          \
        if (!columns && rows > 3) a_3 += 3 * stride;                                                         \
        if (!columns && rows > 6) a_6 += 6 * stride;                                                         \
        EACH_##rows(ZERO, n);                                                                                \
        if (from) {                                                                                          \
            EACH_##rows(LOAD, n)                                                                             \
        }                                                                                                    \
        for (int p = k / 2; p; p--, far += far_step) {                                                       \
            HIDE(a_0);                                                                                       \
            if (!columns && rows > 3) HIDE(a_3);                                                             \
            if (!columns && rows > 6) HIDE(a_6);                                                             \
            __builtin_prefetch(far, 0, 2);                                                                   \
            ONE_STEP(rows, n) ONE_STEP(rows, n)                                                              \
        }                                                                                                    \
        if (k % 2) ONE_STEP(rows, n)                                                                         \
        EACH_##rows(STORE, n)                                                                                \
    }                                                                                                        \
    static void rows_##rows##_##n(int k, const tn_real *a, ptrdiff_t stride, const tn_real *b,               \
                                  ptrdiff_t ldb, tn_real *c, ptrdiff_t ldc, const tn_real *from,             \
                                  ptrdiff_t from_row, const char *far, ptrdiff_t far_step) {                 \
        any_##rows##_##n(0, k, a, stride, b, ldb, c, ldc, from, from_row, far, far_step);                    \
    }                                                                                                        \
    static void columns_##rows##_##n(int k, const tn_real *a, ptrdiff_t stride, const tn_real *b,            \
                                     ptrdiff_t ldb, tn_real *c, ptrdiff_t ldc, const tn_real *from,          \
                                     ptrdiff_t from_row, const char *far, ptrdiff_t far_step) {              \
        any_##rows##_##n(1, k, a, stride, b, ldb, c, ldc, from, from_row, far, far_step);                    \
    } /* declared again, so that the macro ends with a semicolon */                                          \
    static tile_fn rows_##rows##_##n

typedef void tile_fn(int k, const tn_real *a, ptrdiff_t stride, const tn_real *b, ptrdiff_t ldb, tn_real *c,
                     ptrdiff_t ldc, const tn_real *from, ptrdiff_t from_row, const char *far,
                     ptrdiff_t far_step);

#define TILES(n) \
    TILE(1, n);  \
    TILE(2, n);  \
    TILE(3, n);  \
    TILE(4, n);  \
    TILE(5, n);  \
    TILE(6, n);  \
    TILE(7, n);  \
    TILE(8, n)
#define LIST(kind, n)                                                                             \
    {                                                                                             \
        NULL, kind##_1_##n, kind##_2_##n, kind##_3_##n, kind##_4_##n, kind##_5_##n, kind##_6_##n, \
            kind##_7_##n, kind##_8_##n                                                            \
    }

TILES(1);
TILES(2);
/* By rows or columns, vectors, rows. */
#if defined(TN_LEVEL_PLAIN) || defined(TN_LEVEL_AVX2)
static tile_fn *const tiles[2][2][TN_MR_MAX + 1] = {{LIST(rows, 1), LIST(rows, 2)},
                                                    {LIST(columns, 1), LIST(columns, 2)}};
#else
TILES(3);
static tile_fn *const tiles[2][3][TN_MR_MAX + 1] = {{LIST(rows, 1), LIST(rows, 2), LIST(rows, 3)},
                                                    {LIST(columns, 1), LIST(columns, 2), LIST(columns, 3)}};
#endif

static int rows_of_tile(int left) {
    if (left <= MR) return left;
    return left >= 2 * MR ? MR : (left + 1) / 2;
}

/* Memory that the tiles of a product fetch, a part at each pair of steps. */
typedef struct {
    const char *at;
    ptrdiff_t step;
} stream;

/* A stream of len bytes for so many pairs. */
static stream stream_of(const void *memory, size_t len, int pairs) {
    stream s = {memory, 0};
    if (!memory || pairs <= 0) return s;
    s.step = (ptrdiff_t)((uint32_t)len / (uint32_t)pairs);
    if (s.step > FETCH_LINE) s.step = FETCH_LINE;
    return s;
}

void tn_k_panel_product(const tn_panel_product *s) {
    int blocks = s->k > PANEL_K ? (s->k + PANEL_K - 1) / PANEL_K : 1, n = blocks * ((s->m + MR - 1) / MR),
        half = (n + 1) / 2, done = 0;
    const ptrdiff_t row = s->columns ? 1 : s->stride, col = s->columns ? s->stride : 1;
    const ptrdiff_t ldb = s->panel_row ? s->panel_row : s->w;
    tile_fn *const *fn = tiles[s->columns][s->w / VL - 1];
    /* the first half of the tiles fetches soon[0], the others soon[1] */
    int pairs = blocks == 1 ? s->k / 2 : s->k / 2 / blocks;
    stream far = stream_of(s->soon[0], s->soon_len[0], half * pairs);
    for (int b = 0, p = 0, end; b < blocks; b++, p = end) {
        end = blocks == 1 ? s->k : (int)((long)s->k * (b + 1) / blocks);
        for (int i = 0, rows; i < s->m; i += rows, done++) {
            if (done == half) far = stream_of(s->soon[1], s->soon_len[1], (n - half) * pairs);
            tn_real *c = s->c + i * s->ldc;
            rows = rows_of_tile(s->m - i);
            fn[rows](end - p, s->a + i * row + p * col, s->stride, s->panel + p * ldb, ldb, c, s->ldc,
                     b || s->add ? c : s->bias, b || s->add ? s->ldc : 0,
                     far.step ? far.at : (const char *)s->panel, far.step);
            far.at += far.step * pairs;
        }
    }
}

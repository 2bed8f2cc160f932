/* SPDX-License-Identifier: MIT */
/*
 * The register tile of a product: rows x NR elements of C, or one vector wide at the edge of C, or WIDE = three vectors
 * where 32 registers and a B that is read in place allow (24 sums, three of B, one of A: fewer loads for each
 * operation). B's rows are bs apart, NR in a packed panel. Included by gemm.c alone.
 */
#ifndef TN_KERNELS_TILE_H
#define TN_KERNELS_TILE_H
#include "level.h"

enum { ADD = 1, RELU = 2 }; /* flags of a tile: begin at C; end with max(0, .) */

#if defined(TN_LEVEL_AVX512) || defined(TN_LEVEL_NEON) || defined(TN_LEVEL_WIDE)
#define HAS_WIDE 1
enum { WIDE = 3 * VL };
#else
#define HAS_WIDE 0
enum { WIDE = 0 }; /* there is none */
#endif

/* What a tile of C needs beside the factors and its place. */
typedef struct {
    ptrdiff_t ldc;
    const tn_real *bias; /* NR of them, or NULL */
    int flags;
} tile_out;

typedef void tile_fn(int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b, ptrdiff_t bs,
                     tn_real *c, const tile_out *o);

/*
 * The register tile, written for each number of rows with named accumulators: compilers keep an array of
 * accumulators in memory. ROWS_r(F) is F(0) ... F(r-1).
 */
#define ROWS_1(F) F(0)
#define ROWS_2(F) ROWS_1(F) F(1)
#define ROWS_3(F) ROWS_2(F) F(2)
#define ROWS_4(F) ROWS_3(F) F(3)
#define ROWS_5(F) ROWS_4(F) F(4)
#define ROWS_6(F) ROWS_5(F) F(5)
#define ROWS_7(F) ROWS_6(F) F(6)
#define ROWS_8(F) ROWS_7(F) F(7)

#define ZERO(i) V l##i = vset1(0), r##i = vset1(0);
#define LOAD(i) l##i = vload(c + i * ldc), r##i = vload(c + i * ldc + VL);
#define STEP(i)                                             \
    {                                                       \
        V x = vset1(a[i * rs]);                             \
        l##i = vfma(x, bl, l##i), r##i = vfma(x, br, r##i); \
    }
#define FETCH(i) __builtin_prefetch(c + i * ldc, 1), __builtin_prefetch(c + i * ldc + VL, 1);
#define BIAS(i)  l##i += bl, r##i += br;
#define RECT(i)  l##i = vmax(zero, l##i), r##i = vmax(zero, r##i);
#define STORE(i) vstore(c + i * ldc, l##i), vstore(c + i * ldc + VL, r##i);

/* The same for a tile of one vector: r is gone. */
#define ZERO1(i)  V l##i = vset1(0);
#define LOAD1(i)  l##i = vload(c + i * ldc);
#define STEP1(i)  l##i = vfma(vset1(a[i * rs]), bl, l##i);
#define BIAS1(i)  l##i += bl;
#define RECT1(i)  l##i = vmax(zero, l##i);
#define STORE1(i) vstore(c + i * ldc, l##i);

#define TILE(rows)                                                                                      \
    static void tile_##rows(int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b,      \
                            ptrdiff_t bs, tn_real *c, const tile_out *o) {                              \
        V bl, br;                                                                                       \
        const ptrdiff_t ldc = o->ldc;                                                                   \
        ROWS_##rows(ZERO);                                                                              \
        if (o->flags & ADD) {                                                                           \
            ROWS_##rows(LOAD)                                                                           \
        } else {                                                                                        \
            ROWS_##rows(FETCH)                                                                          \
        }                                                                                               \
        for (int p = 0; p < k; p++, a += cs, b += bs) {                                                 \
            bl = vload(b), br = vload(b + VL);                                                          \
            ROWS_##rows(STEP)                                                                           \
        }                                                                                               \
        if (o->bias) {                                                                                  \
            bl = vload(o->bias), br = vload(o->bias + VL);                                              \
            ROWS_##rows(BIAS)                                                                           \
        }                                                                                               \
        if (o->flags & RELU) {                                                                          \
            const V zero = vset1(0);                                                                    \
            ROWS_##rows(RECT)                                                                           \
        }                                                                                               \
        ROWS_##rows(STORE)                                                                              \
    }                                                                                                   \
    static void half_tile_##rows(int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b, \
                                 ptrdiff_t bs, tn_real *c, const tile_out *o) {                         \
        V bl;                                                                                           \
        const ptrdiff_t ldc = o->ldc;                                                                   \
        ROWS_##rows(ZERO1);                                                                             \
        if (o->flags & ADD) {                                                                           \
            ROWS_##rows(LOAD1)                                                                          \
        }                                                                                               \
        for (int p = 0; p < k; p++, a += cs, b += bs) {                                                 \
            bl = vload(b);                                                                              \
            ROWS_##rows(STEP1)                                                                          \
        }                                                                                               \
        if (o->bias) {                                                                                  \
            bl = vload(o->bias);                                                                        \
            ROWS_##rows(BIAS1)                                                                          \
        }                                                                                               \
        if (o->flags & RELU) {                                                                          \
            const V zero = vset1(0);                                                                    \
            ROWS_##rows(RECT1)                                                                          \
        }                                                                                               \
        ROWS_##rows(STORE1)                                                                             \
    } /* declared again, so that the macro ends with a semicolon */                                     \
    static tile_fn tile_##rows

TILE(1);
TILE(2);
TILE(3);
TILE(4);
TILE(5);
TILE(6);
TILE(7);
TILE(8);

/* By number of rows; of two vectors and of one. */
static tile_fn *const tiles[TN_MR_MAX + 1] = {NULL,   tile_1, tile_2, tile_3, tile_4,
                                              tile_5, tile_6, tile_7, tile_8};
static tile_fn *const half_tiles[TN_MR_MAX + 1] = {NULL,        half_tile_1, half_tile_2,
                                                   half_tile_3, half_tile_4, half_tile_5,
                                                   half_tile_6, half_tile_7, half_tile_8};

#if HAS_WIDE

#define ZERO3(i) V l##i = vset1(0), m##i = l##i, r##i = l##i;
#define LOAD3(i) \
    l##i = vload(c + i * ldc), m##i = vload(c + i * ldc + VL), r##i = vload(c + i * ldc + 2 * VL);
#define FETCH3(i) FETCH(i) __builtin_prefetch(c + i * ldc + 2 * VL, 1);
#define STEP3(i)                                                                      \
    {                                                                                 \
        V x = vset1(a[i * rs]);                                                       \
        l##i = vfma(x, bl, l##i), m##i = vfma(x, bm, m##i), r##i = vfma(x, br, r##i); \
    }
#define BIAS3(i) l##i += bl, m##i += bm, r##i += br;
#define RECT3(i) l##i = vmax(zero, l##i), m##i = vmax(zero, m##i), r##i = vmax(zero, r##i);
#define STORE3(i) \
    vstore(c + i * ldc, l##i), vstore(c + i * ldc + VL, m##i), vstore(c + i * ldc + 2 * VL, r##i);

static void wide_tile(int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b, ptrdiff_t bs,
                      tn_real *c, const tile_out *o) {
    V bl, bm, br;
    const ptrdiff_t ldc = o->ldc;
    ROWS_8(ZERO3);
    if (o->flags & ADD) {
        ROWS_8(LOAD3)
    } else {
        ROWS_8(FETCH3)
    }
    for (int p = 0; p < k; p++, a += cs, b += bs) {
        bl = vload(b), bm = vload(b + VL), br = vload(b + 2 * VL);
        ROWS_8(STEP3)
    }
    if (o->bias) {
        bl = vload(o->bias), bm = vload(o->bias + VL), br = vload(o->bias + 2 * VL);
        ROWS_8(BIAS3)
    }
    if (o->flags & RELU) {
        const V zero = vset1(0);
        ROWS_8(RECT3)
    }
    ROWS_8(STORE3)
}

#endif

/* A tile at the right edge of C goes through a whole one on the stack; b is packed, hence filled up. */
static void edge_tile(int rows, int cols, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs,
                      const tn_real *b, tn_real *c, const tile_out *o) {
    tn_real whole[MR * NR], bias[NR];
    tile_out t = {NR, o->bias ? bias : NULL, o->flags};
    if (o->bias) {
        memset(bias, 0, sizeof bias);
        memcpy(bias, o->bias, (size_t)cols * sizeof *bias);
    }
    if (o->flags & ADD) {
        memset(whole, 0, sizeof whole);
        for (int i = 0; i < rows; i++) memcpy(whole + i * NR, c + i * o->ldc, (size_t)cols * sizeof *c);
    }
    (cols <= VL ? half_tiles : tiles)[rows](k, a, rs, cs, b, NR, whole, &t);
    for (int i = 0; i < rows; i++) memcpy(c + i * o->ldc, whole + i * NR, (size_t)cols * sizeof *c);
}

/* Of WIDE, NR or VL columns in full, or fewer: then b must be packed. */
static inline void any_tile(int rows, int cols, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs,
                            const tn_real *b, ptrdiff_t bs, tn_real *c, const tile_out *o) {
#if HAS_WIDE
    if (cols == WIDE && rows == 8) {
        wide_tile(k, a, rs, cs, b, bs, c, o);
        return;
    }
    if (cols == WIDE) {
        tile_out rest = {o->ldc, o->bias ? o->bias + NR : NULL, o->flags};
        tiles[rows](k, a, rs, cs, b, bs, c, o);
        half_tiles[rows](k, a, rs, cs, b + NR, bs, c + NR, &rest);
        return;
    }
#endif
    if (cols == NR)
        tiles[rows](k, a, rs, cs, b, bs, c, o);
    else if (cols == VL)
        half_tiles[rows](k, a, rs, cs, b, bs, c, o);
    else
        edge_tile(rows, cols, k, a, rs, cs, b, c, o);
}
#endif

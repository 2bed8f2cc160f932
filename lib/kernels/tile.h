/* SPDX-License-Identifier: MIT */
/*
 * The register tile of a product: rows x NR elements of C, or one vector wide at the edge of C. B's rows are bs apart, NR
 * in a packed panel; A's are rs apart. Included by gemm.c alone.
 *
 * As many rows as registers allow: 14 where there are 32 (28 sums, two of B, one of A), 6 where there are 16. Each row
 * costs a load for two operations and each of B's vectors one for all rows, so that a tall tile leaves load ports
 * free for lines that come from the second-level cache, and its start and end, when no sums run, are a smaller part
 * (measured at k = 128: 8 rows 85% of the limit, 14 rows 92%).
 */
#ifndef TN_KERNELS_TILE_H
#define TN_KERNELS_TILE_H
#include "level.h"

enum { ADD = 1, RELU = 2 }; /* flags of a tile: begin at C; end with max(0, .) */

#if defined(TN_LEVEL_AVX512) || defined(TN_LEVEL_NEON) || defined(TN_LEVEL_WIDE)
#define TALL 1
enum { TILE_ROWS = 14 };
#else
#define TALL 0
enum { TILE_ROWS = 6 };
#endif

/* What a tile of C needs beside the factors and its place. */
typedef struct {
    ptrdiff_t ldc;
    const tn_real *bias;     /* NR of them, one a column, or NULL */
    const tn_real *row_bias; /* one a row, or NULL */
    int flags;
} tile_out;

typedef void tile_fn(int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b, ptrdiff_t bs,
                     tn_real *c, const tile_out *o);

/*
 * The tile is written for each number of rows with named accumulators: compilers keep an array of accumulators in
 * memory. ROWS_r(F) is F(0) ... F(r-1).
 */
#define ROWS_1(F)  F(0)
#define ROWS_2(F)  ROWS_1(F) F(1)
#define ROWS_3(F)  ROWS_2(F) F(2)
#define ROWS_4(F)  ROWS_3(F) F(3)
#define ROWS_5(F)  ROWS_4(F) F(4)
#define ROWS_6(F)  ROWS_5(F) F(5)
#define ROWS_7(F)  ROWS_6(F) F(6)
#define ROWS_8(F)  ROWS_7(F) F(7)
#define ROWS_9(F)  ROWS_8(F) F(8)
#define ROWS_10(F) ROWS_9(F) F(9)
#define ROWS_11(F) ROWS_10(F) F(10)
#define ROWS_12(F) ROWS_11(F) F(11)
#define ROWS_13(F) ROWS_12(F) F(12)
#define ROWS_14(F) ROWS_13(F) F(13)

/*
 * Element (i, p) of A, by three pointers five rows apart and the steps an address can have: rs, 2 rs, 4 rs and 3 rs. Left
 * to themselves compilers keep a pointer for each row, more than there are registers; OPAQUE hides from them that
 * these are related.
 */
#define AT_0      a[0]
#define AT_1      a[rs]
#define AT_2      a[2 * rs]
#define AT_3      a[rs3]
#define AT_4      a[4 * rs]
#define AT_5      a5[0]
#define AT_6      a5[rs]
#define AT_7      a5[2 * rs]
#define AT_8      a5[rs3]
#define AT_9      a5[4 * rs]
#define AT_10     a10[0]
#define AT_11     a10[rs]
#define AT_12     a10[2 * rs]
#define AT_13     a10[rs3]
#define OPAQUE(x) __asm__("" : "+r"(x))

#define ZERO(i)  V l##i = vset1(0), r##i = l##i;
#define LOAD(i)  l##i = vload(at), r##i = vload(at + VL), at += ldc;
#define FETCH(i) __builtin_prefetch(at, 1), __builtin_prefetch(at + NR - 1, 1), at += ldc;
#define STEP(i)                                             \
    {                                                       \
        V x = vset1(AT_##i);                                \
        l##i = vfma(x, bl, l##i), r##i = vfma(x, br, r##i); \
    }
#define BIAS(i) l##i += bl, r##i += br;
#define ROW_BIAS(i)                  \
    {                                \
        V x = vset1(o->row_bias[i]); \
        l##i += x, r##i += x;        \
    }
#define RECT(i)  l##i = vmax(zero, l##i), r##i = vmax(zero, r##i);
#define STORE(i) vstore(c, l##i), vstore(c + VL, r##i), c += ldc;

/* The same for a tile of one vector: r is gone. */
#define ZERO1(i)     V l##i = vset1(0);
#define LOAD1(i)     l##i = vload(at), at += ldc;
#define FETCH1(i)    __builtin_prefetch(at, 1), at += ldc;
#define STEP1(i)     l##i = vfma(vset1(AT_##i), bl, l##i);
#define BIAS1(i)     l##i += bl;
#define ROW_BIAS1(i) l##i += vset1(o->row_bias[i]);
#define RECT1(i)     l##i = vmax(zero, l##i);
#define STORE1(i)    vstore(c, l##i), c += ldc;

#define B_DECLARE  V bl, br
#define B_LOAD(p)  bl = vload(p), br = vload((p) + VL)
#define B_DECLARE1 V bl
#define B_LOAD1(p) bl = vload(p)

#define TILE_OF(name, rows, n)                                                                            \
    static void name(int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b, ptrdiff_t bs, \
                     tn_real *c, const tile_out *o) {                                                     \
        B_DECLARE##n;                                                                                     \
        const ptrdiff_t ldc = o->ldc;                                                                     \
        const tn_real *at = c, *a5 = a + 5 * rs, *a10 = a + 10 * rs;                                      \
        ptrdiff_t rs3 = 3 * rs;                                                                           \
        OPAQUE(rs3);                                                                                      \
        ROWS_##rows(ZERO##n) if (o->flags & ADD) {                                                        \
            ROWS_##rows(LOAD##n)                                                                          \
        }                                                                                                 \
        else {                                                                                            \
            ROWS_##rows(FETCH##n)                                                                         \
        }                                                                                                 \
        for (int p = 0; p < k; p++, a += cs, a5 += cs, a10 += cs, b += bs) {                              \
            OPAQUE(a);                                                                                    \
            OPAQUE(a5);                                                                                   \
            OPAQUE(a10);                                                                                  \
            B_LOAD##n(b);                                                                                 \
            ROWS_##rows(STEP##n)                                                                          \
        }                                                                                                 \
        if (o->bias) {                                                                                    \
            B_LOAD##n(o->bias);                                                                           \
            ROWS_##rows(BIAS##n)                                                                          \
        }                                                                                                 \
        if (o->row_bias) {                                                                                \
            ROWS_##rows(ROW_BIAS##n)                                                                      \
        }                                                                                                 \
        if (o->flags & RELU) {                                                                            \
            const V zero = vset1(0);                                                                      \
            ROWS_##rows(RECT##n)                                                                          \
        }                                                                                                 \
        ROWS_##rows(STORE##n)                                                                             \
    }
#define TILE(rows)                     \
    TILE_OF(tile_##rows, rows, )       \
    TILE_OF(half_tile_##rows, rows, 1) \
    /* declared again, so that the macro ends with a semicolon */ static tile_fn tile_##rows

TILE(1);
TILE(2);
TILE(3);
TILE(4);
TILE(5);
TILE(6);
#if TALL
TILE(7);
TILE(8);
TILE(9);
TILE(10);
TILE(11);
TILE(12);
TILE(13);
TILE(14);
#define TALLER(name) name##7, name##8, name##9, name##10, name##11, name##12, name##13, name##14
#else
#define TALLER(name) NULL
#endif
#define UP_TO_6(name) NULL, name##1, name##2, name##3, name##4, name##5, name##6

/* By number of rows; of two vectors and of one. */
static tile_fn *const tiles[] = {UP_TO_6(tile_), TALLER(tile_)};
static tile_fn *const half_tiles[] = {UP_TO_6(half_tile_), TALLER(half_tile_)};

/* A tile at the right edge of C goes through a whole one on the stack; b is packed, hence filled up. */
static void edge_tile(int rows, int cols, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs,
                      const tn_real *b, tn_real *c, const tile_out *o) {
    tn_real whole[TILE_ROWS * NR], bias[NR];
    tile_out t = {NR, o->bias ? bias : NULL, o->row_bias, o->flags};
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

/* Of NR or VL columns in full, or fewer: then b must be packed. */
static inline void any_tile(int rows, int cols, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs,
                            const tn_real *b, ptrdiff_t bs, tn_real *c, const tile_out *o) {
    if (cols == NR)
        tiles[rows](k, a, rs, cs, b, bs, c, o);
    else if (cols == VL)
        half_tiles[rows](k, a, rs, cs, b, bs, c, o);
    else
        edge_tile(rows, cols, k, a, rs, cs, b, c, o);
}
#endif

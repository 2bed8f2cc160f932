/* SPDX-License-Identifier: MIT */
/*
 * Products of matrices: C = A B, with the sums of products in registers, the slice of B that is in use in the
 * first-level cache and the slice of A in the second (the order of Goto and van de Geijn, "Anatomy of
 * high-performance matrix multiplication", 2008).
 *
 * Every element is one chain of fused multiply-adds over k, begun at 0 or at C. Between two blocks of k the
 * chain rests in C, so its bits depend on no block or tile size.
 */
#include "level.h"

enum {
    KC = 288,                                  /* rows of B in a block: KC x NR stays in L1 */
    MC = 240,                                  /* rows of A in a block that is read in place */
    A_COPY = 80 * 1024 / (int)sizeof(tn_real), /* room for a block of A that is copied */
    B_COPY = KC * NR,                          /* room for a panel of B that is packed on the way */
    A_PAD = 16,                                /* keeps the rows of a copy out of one cache set */
    ADD = 1,                                   /* tile flags: begin at C */
    RELU = 2                                   /* end with max(0, .) */
};

/* One block of rows x NR elements of C: what its tile needs beside the factors. */
typedef struct {
    tn_real *c;
    ptrdiff_t ldc;
    const tn_real *bias; /* NR of them, or NULL */
    int flags;
} tile_out;

typedef void tile_fn(int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b, tile_out o);

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
#define LOAD(i) l##i = vload(o.c + i * o.ldc), r##i = vload(o.c + i * o.ldc + VL);
#define STEP(i)                                             \
    {                                                       \
        V x = vset1(a[i * rs]);                             \
        l##i = vfma(x, bl, l##i), r##i = vfma(x, br, r##i); \
    }
#define BIAS(i)  l##i += bl, r##i += br;
#define RECT(i)  l##i = vmax(zero, l##i), r##i = vmax(zero, r##i);
#define STORE(i) vstore(o.c + i * o.ldc, l##i), vstore(o.c + i * o.ldc + VL, r##i);

#define TILE(rows)                                                                                 \
    static void tile_##rows(int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b, \
                            tile_out o) {                                                          \
        V bl, br;                                                                                  \
        ROWS_##rows(ZERO);                                                                         \
        if (o.flags & ADD) {                                                                       \
            ROWS_##rows(LOAD)                                                                      \
        }                                                                                          \
        for (int p = 0; p < k; p++, a += cs, b += NR) {                                            \
            bl = vload(b), br = vload(b + VL);                                                     \
            ROWS_##rows(STEP)                                                                      \
        }                                                                                          \
        if (o.bias) {                                                                              \
            bl = vload(o.bias), br = vload(o.bias + VL);                                           \
            ROWS_##rows(BIAS)                                                                      \
        }                                                                                          \
        if (o.flags & RELU) {                                                                      \
            const V zero = vset1(0);                                                               \
            ROWS_##rows(RECT)                                                                      \
        }                                                                                          \
        ROWS_##rows(STORE)                                                                         \
    } /* declared again, so that the macro ends with a semicolon */                                \
    static tile_fn tile_##rows

TILE(1);
TILE(2);
TILE(3);
TILE(4);
TILE(5);
TILE(6);
TILE(7);
TILE(8);

static tile_fn *const tiles[TN_MR_MAX + 1] = {NULL,   tile_1, tile_2, tile_3, tile_4,
                                              tile_5, tile_6, tile_7, tile_8};

/* Rows of the next tile: MR, but the last two share what is left: a thin tile does not fill the units. */
static int tile_rows(int left) {
    if (left <= MR) return left;
    return left >= 2 * MR ? MR : (left + 1) / 2;
}

/* A tile at the right edge of C goes through a whole one on the stack. */
static void edge_tile(int rows, int cols, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs,
                      const tn_real *b, tile_out o) {
    tn_real whole[MR * NR], bias[NR];
    tile_out t = {whole, NR, o.bias ? bias : NULL, o.flags};
    memset(whole, 0, sizeof whole);
    memset(bias, 0, sizeof bias);
    if (o.bias) memcpy(bias, o.bias, (size_t)cols * sizeof *bias);
    if (o.flags & ADD)
        for (int i = 0; i < rows; i++) memcpy(whole + i * NR, o.c + i * o.ldc, (size_t)cols * sizeof *o.c);
    tiles[rows](k, a, rs, cs, b, t);
    for (int i = 0; i < rows; i++) memcpy(o.c + i * o.ldc, whole + i * NR, (size_t)cols * sizeof *o.c);
}

/* A block of A: element (i, p) of the tile that begins at row i0 is at tile_start(i0)[i * rs + p * cs]. */
typedef struct {
    const tn_real *a;
    ptrdiff_t rs, cs;
    int k, in_tiles; /* in_tiles: a copy, tile after tile, each k x rows */
} a_block;

/* rows of all m, k of them contiguous at a stride of cs, to dst without gaps */
static inline void copy_strip(int rows, int k, const tn_real *a, ptrdiff_t cs, tn_real *dst) {
    for (int p = 0; p < k; p++, a += cs, dst += rows) memcpy(dst, a, (size_t)rows * sizeof *a);
}

static a_block copy_transposed(int m, int k, const tn_real *a, ptrdiff_t cs, tn_real *dst) {
    for (int i = 0, rows; i < m; i += rows) {
        rows = tile_rows(m - i);
        if (rows == MR)
            copy_strip(MR, k, a + i, cs,
                       dst + (ptrdiff_t)i * k); /* a constant, so that memcpy is two moves */
        else
            copy_strip(rows, k, a + i, cs, dst + (ptrdiff_t)i * k);
    }
    return (a_block){dst, 1, 0, k, 1};
}

static a_block copy_rows(int m, int k, const tn_real *a, ptrdiff_t rs, tn_real *dst) {
    ptrdiff_t stride = k + A_PAD;
    for (int i = 0; i < m; i++) memcpy(dst + i * stride, a + i * rs, (size_t)k * sizeof *a);
    return (a_block){dst, stride, 1, k, 0};
}

/* One block of A by one panel of B. */
static void block_by_panel(int m, int cols, const a_block *a, const tn_real *b, tile_out o) {
    for (int i = 0, rows; i < m; i += rows, o.c += rows * o.ldc) {
        rows = tile_rows(m - i);
        const tn_real *start = a->in_tiles ? a->a + (ptrdiff_t)i * a->k : a->a + i * a->rs;
        ptrdiff_t cs = a->in_tiles ? rows : a->cs;
        if (cols == NR)
            tiles[rows](a->k, start, a->rs, cs, b, o);
        else
            edge_tile(rows, cols, a->k, start, a->rs, cs, b, o);
    }
}

/* B is either packed, or brs and bcs say how to read it. */
typedef struct {
    const tn_real *b;
    ptrdiff_t rs, cs;
    int packed;
} b_source;

enum copy_kind { IN_PLACE, COPY_ROWS, COPY_TRANSPOSED };

/*
 * Rows that lie a multiple of half a page apart share cache sets and push each other out, and a transposed A
 * jumps from row to row: both are copied once a block and then read from there for every panel of B.
 */
static enum copy_kind how_to_read(int n, ptrdiff_t rs, ptrdiff_t cs) {
    if (cs != 1) return COPY_TRANSPOSED;
    return n > 2 * NR && (size_t)rs * sizeof(tn_real) % 2048 == 0 ? COPY_ROWS : IN_PLACE;
}

static int rows_in_block(enum copy_kind kind, int kc) {
    if (kind == IN_PLACE) return MC;
    int rows = A_COPY / (kc + (kind == COPY_ROWS ? A_PAD : 1));
    return rows - rows % MR;
}

static void product(int m, int n, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const b_source *b,
                    tn_real *c, ptrdiff_t ldc, int add, const tn_real *bias, int relu) {
    _Alignas(64) tn_real a_copy[A_COPY];
    _Alignas(64) tn_real b_copy[B_COPY];
    enum copy_kind kind = how_to_read(n, rs, cs);
    int blocks = k > KC ? (k + KC - 1) / KC : 1;
    int kc = (k + blocks - 1) / blocks;
    int mc = rows_in_block(kind, kc);
    for (int i = 0; i < m; i += mc) {
        int mb = m - i < mc ? m - i : mc;
        for (int p = 0, first = 1; first || p < k; p += kc, first = 0) {
            int kb = k - p < kc ? k - p : kc, last = p + kb == k;
            const tn_real *from = a + i * rs + p * cs;
            a_block ab = kind == COPY_TRANSPOSED ? copy_transposed(mb, kb, from, cs, a_copy)
                         : kind == COPY_ROWS     ? copy_rows(mb, kb, from, rs, a_copy)
                                                 : (a_block){from, rs, cs, kb, 0};
            int flags = (add || !first ? ADD : 0) | (last && relu ? RELU : 0);
            for (int j = 0; j < n; j += NR) {
                int cols = n - j < NR ? n - j : NR;
                const tn_real *panel = b_copy;
                if (b->packed)
                    panel = b->b + (ptrdiff_t)j * k + (ptrdiff_t)p * NR;
                else
                    tn_k_pack_panel(kb, cols, b->b + p * b->rs + j * b->cs, b->rs, b->cs, b_copy);
                tile_out o = {c + i * ldc + j, ldc, last && bias ? bias + j : NULL, flags};
                block_by_panel(mb, cols, &ab, panel, o);
            }
        }
    }
}

void tn_k_gemm(int m, int n, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b,
               tn_real *c, ptrdiff_t ldc, int add, const tn_real *bias, int relu) {
    product(m, n, k, a, rs, cs, &(b_source){b, 0, 0, 1}, c, ldc, add, bias, relu);
}

void tn_k_gemm_raw_b(int m, int n, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b,
                     ptrdiff_t brs, ptrdiff_t bcs, tn_real *c, ptrdiff_t ldc, int add, const tn_real *bias,
                     int relu) {
    product(m, n, k, a, rs, cs, &(b_source){b, brs, bcs, 0}, c, ldc, add, bias, relu);
}

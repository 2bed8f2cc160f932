/* SPDX-License-Identifier: MIT */
/*
 * Products of matrices: C = A B, with the sums of products in registers, the slice of B that is in use in the
 * first-level cache and the slice of A in the second (the order of Goto and van de Geijn, "Anatomy of
 * high-performance matrix multiplication", 2008).
 *
 * Every element is one chain of fused multiply-adds over k, begun at 0 or at C. Between two blocks of k the
 * chain rests in C, so its bits depend on no block or tile size.
 */
#include "tile.h"

enum {
    KC = 6400 / NR, /* rows of B in a block: 25 KB stay in L1 beside the rows of A */
    MC = 280,       /* rows of A in a block that is read in place */
    A_COPY = 80 * 1024 / (int)sizeof(tn_real), /* room for a block of A that is copied */
    B_COPY = KC * NR,                          /* room for a panel of B that is packed on the way */
    LINE = 64,                                 /* bytes of a cache line */
    LINE_REALS = LINE / (int)sizeof(tn_real),
    PANEL_ROWS = 256, /* rows of B in L1 that are read in place */
    TURNED_ROWS = 140 /* of a block of C that is turned: 18 KB */
};

/* Rows of the next tile: what is left in tiles of equal height, since a thin one at the end does not fill the units. */
static int tile_rows(int left) {
    int tiles_left = (left + TILE_ROWS - 1) / TILE_ROWS;
    return (left + tiles_left - 1) / tiles_left;
}

/* A block of A, k columns wide: element (i, p) at a[i * rs + p * cs]. */
typedef struct {
    const tn_real *a;
    ptrdiff_t rs, cs;
    int k;
} a_block;

/* Of the rows of a copy, k long: whole lines, an odd number of them, so that the rows of a tile are in different sets. */
static ptrdiff_t copy_stride(int k) {
    return ((k + LINE_REALS - 1) / LINE_REALS | 1) * LINE_REALS;
}

static a_block copy_transposed(int m, int k, const tn_real *a, ptrdiff_t cs, tn_real *dst) {
    tn_k_transpose(k, m, a, cs, dst, copy_stride(k));
    return (a_block){dst, copy_stride(k), 1, k};
}

static a_block copy_rows(int m, int k, const tn_real *a, ptrdiff_t rs, tn_real *dst) {
    ptrdiff_t stride = copy_stride(k);
    for (int i = 0; i < m; i++) memcpy(dst + i * stride, a + i * rs, (size_t)k * sizeof *a);
    return (a_block){dst, stride, 1, k};
}

/* One block of A by one panel of B, whose rows are bs apart. */
static void block_by_panel(int m, int cols, const a_block *a, const tn_real *b, ptrdiff_t bs, tn_real *c,
                           const tile_out *o) {
    tile_out t = *o;
    for (int i = 0, rows; i < m; i += rows, c += rows * o->ldc) {
        rows = tile_rows(m - i);
        any_tile(rows, cols, a->k, a->a + i * a->rs, a->rs, a->cs, b, bs, c, &t);
        if (t.row_bias) t.row_bias += rows;
    }
}

/* B is either packed, or brs and bcs say how to read it. */
typedef struct {
    const tn_real *b;
    ptrdiff_t rs, cs;
    int packed;
} b_source;

/*
 * Rows of B that fill whole lines need no packing, as long as a panel of them does not crowd into few of the
 * cache's sets: with a stride of g times an odd number of lines, one set in g is used.
 */
static int readable_in_place(const b_source *b, int m, int k) {
    if (b->cs != 1) return 0;
    if (m <= TILE_ROWS) return 1; /* each row is read once */
    size_t stride = (size_t)b->rs * sizeof(tn_real);
    if (stride % LINE || (uintptr_t)b->b % LINE) return 0;
    size_t lines = stride / LINE, g = lines & (~lines + 1);
    return g * (size_t)k <= PANEL_ROWS;
}

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
    int rows = A_COPY / (int)copy_stride(kc);
    return rows > TILE_ROWS ? rows - rows % TILE_ROWS : rows; /* 3 at least: KC rows of the plain level */
}

/* What product() works on. */
typedef struct {
    int m, n, k;
    const tn_real *a;
    ptrdiff_t rs, cs; /* of A */
    enum copy_kind kind;
    b_source b;
    tn_real *c;
    ptrdiff_t ldc;
    int add;
    const tn_real *bias;
    int relu;
} factors;

/* Rows i..i+mb-1 and columns p..p+kb-1 of A as tiles can read them. */
static a_block block_of_a(const factors *f, int i, int mb, int p, int kb, tn_real *copy) {
    const tn_real *from = f->a + i * f->rs + p * f->cs;
    switch (f->kind) {
    case COPY_TRANSPOSED:
        return copy_transposed(mb, kb, from, f->cs, copy);
    case COPY_ROWS:
        return copy_rows(mb, kb, from, f->rs, copy);
    default:
        return (a_block){from, f->rs, f->cs, kb};
    }
}

static void product(const factors *f) {
    _Alignas(64) tn_real a_copy[A_COPY];
    _Alignas(64) tn_real b_copy[B_COPY];
    const b_source *b = &f->b;
    int k = f->k, blocks = k > KC ? (k + KC - 1) / KC : 1;
    int kc = (k + blocks - 1) / blocks;
    int mc = rows_in_block(f->kind, kc);
    for (int i = 0; i < f->m; i += mc) {
        int mb = f->m - i < mc ? f->m - i : mc;
        for (int p = 0, first = 1; first || p < k; p += kc, first = 0) {
            int kb = k - p < kc ? k - p : kc, last = p + kb == k;
            a_block ab = block_of_a(f, i, mb, p, kb, a_copy);
            int flags = (f->add || !first ? ADD : 0) | (last && f->relu ? RELU : 0);
            int in_place = !b->packed && readable_in_place(b, mb, kb);
            for (int j = 0, cols; j < f->n; j += cols) {
                cols = f->n - j < NR ? f->n - j : NR;
                const tn_real *panel = b_copy;
                ptrdiff_t bs = NR;
                if (b->packed) {
                    panel = b->b + (ptrdiff_t)j * k + (ptrdiff_t)p * NR;
                } else if (in_place && (cols == NR || cols == VL)) {
                    panel = b->b + p * b->rs + j, bs = b->rs;
                } else {
                    tn_k_pack_panel(kb, cols, b->b + p * b->rs + j * b->cs, b->rs, b->cs, b_copy);
                }
                tile_out o = {f->ldc, last && f->bias ? f->bias + j : NULL, NULL, flags};
                block_by_panel(mb, cols, &ab, panel, bs, f->c + i * f->ldc + j, &o);
            }
        }
    }
}

void tn_k_gemm(int m, int n, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b,
               tn_real *c, ptrdiff_t ldc, int add, const tn_real *bias, int relu) {
    product(&(factors){m, n, k, a, rs, cs, how_to_read(n, rs, cs), {b, 0, 0, 1}, c, ldc, add, bias, relu});
}

void tn_k_gemm_raw_b(int m, int n, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b,
                     ptrdiff_t brs, ptrdiff_t bcs, tn_real *c, ptrdiff_t ldc, int add, const tn_real *bias,
                     int relu) {
    product(
        &(factors){m, n, k, a, rs, cs, how_to_read(n, rs, cs), {b, brs, bcs, 0}, c, ldc, add, bias, relu});
}

/*
 * C' = A B, C's rows being B's columns, for a B in few panels and an A in place, such as weights as they are kept and
 * samples. A panel meets the blocks of k in turn, while the block of C it makes stays in L1, then that block is turned.
 */
void tn_k_gemm_turned(int m, int n, int k, const tn_real *a, ptrdiff_t rs, const tn_real *b, tn_real *c,
                      ptrdiff_t ldc, const tn_real *bias, int relu) {
    _Alignas(64) tn_real turned[TURNED_ROWS * NR];
    int blocks = k > KC ? (k + KC - 1) / KC : 1, kc = (k + blocks - 1) / blocks;
    for (int j = 0; j < n; j += NR, b += (ptrdiff_t)k * NR) {
        int cols = n - j < NR ? n - j : NR, wide = cols <= VL ? VL : NR;
        for (int i = 0, rows; i < m; i += rows) {
            rows = m - i < TURNED_ROWS ? m - i : TURNED_ROWS;
            for (int p = 0, first = 1; first || p < k; p += kc, first = 0) {
                int kb = k - p < kc ? k - p : kc, last = p + kb == k;
                a_block ab = {a + i * rs + p, rs, 1, kb};
                tile_out o = {NR, NULL, last && bias ? bias + i : NULL,
                              (first ? 0 : ADD) | (last && relu ? RELU : 0)};
                block_by_panel(rows, wide, &ab, b + (ptrdiff_t)p * NR, NR, turned, &o);
            }
            tn_k_transpose(rows, cols, turned, NR, c + j * ldc + i, ldc);
        }
    }
}

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
    MC = 240,       /* rows of A in a block that is read in place */
    A_COPY = 80 * 1024 / (int)sizeof(tn_real), /* room for a block of A that is copied */
    B_COPY = KC * NR,                          /* room for a panel of B that is packed on the way */
    TURN_K = 32,                               /* rows of A that are turned at a time: they stay in L1 */
    A_PAD = 16,                                /* keeps the rows of a copy out of one cache set */
    LINE = 64,                                 /* bytes of a cache line */
    PANEL_ROWS = 256                           /* rows of B in L1 that are read in place */
};

/* Rows of the next tile: MR, but the last two share what is left: a thin tile does not fill the units. */
static int tile_rows(int left) {
    if (left <= MR) return left;
    return left >= 2 * MR ? MR : (left + 1) / 2;
}

/* A block of A, k columns wide. */
typedef struct {
    const tn_real *a;
    ptrdiff_t rs, cs;
    int k;
    int strip; /* 0: element (i, p) at a[i * rs + p * cs]; else A lies in strips of MR rows and so many columns */
    int at; /* first column of the block in them */
} a_block;

/* rows of all m, k of them contiguous at a stride of cs, to dst without gaps */
static inline void copy_strip(int rows, int k, const tn_real *a, ptrdiff_t cs, tn_real *dst) {
    for (int p = 0; p < k; p++, a += cs, dst += rows) memcpy(dst, a, (size_t)rows * sizeof *a);
}

/* In blocks of k: a line of A holds columns of several strips, and is read once while it is near. */
void tn_k_pack_a(int m, int k, int p0, int p1, const tn_real *a, ptrdiff_t cs, tn_real *out) {
    for (int p = p0; p < p1; p += TURN_K) {
        int kb = p1 - p < TURN_K ? p1 - p : TURN_K, i = 0;
        for (; i + MR <= m; i += MR) /* MR is a constant, so that memcpy is two moves */
            copy_strip(MR, kb, a + p * cs + i, cs, out + (ptrdiff_t)i * k + p * MR);
        if (i < m) copy_strip(m - i, kb, a + p * cs + i, cs, out + (ptrdiff_t)i * k + (ptrdiff_t)p * (m - i));
    }
}

static a_block copy_transposed(int m, int k, const tn_real *a, ptrdiff_t cs, tn_real *dst) {
    tn_k_pack_a(m, k, 0, k, a, cs, dst);
    return (a_block){dst, 1, 0, k, k, 0};
}

static a_block copy_rows(int m, int k, const tn_real *a, ptrdiff_t rs, tn_real *dst) {
    ptrdiff_t stride = k + A_PAD;
    for (int i = 0; i < m; i++) memcpy(dst + i * stride, a + i * rs, (size_t)k * sizeof *a);
    return (a_block){dst, stride, 1, k, 0, 0};
}

/* One block of A by one panel of B, whose rows are bs apart. */
static void block_by_panel(int m, int cols, const a_block *a, const tn_real *b, ptrdiff_t bs, tn_real *c,
                           const tile_out *o) {
    for (int i = 0, rows; i < m; i += rows, c += rows * o->ldc) {
        rows = a->strip ? (m - i < MR ? m - i : MR) : tile_rows(m - i);
        const tn_real *start =
            a->strip ? a->a + (ptrdiff_t)i * a->strip + (ptrdiff_t)a->at * rows : a->a + i * a->rs;
        any_tile(rows, cols, a->k, start, a->rs, a->strip ? rows : a->cs, b, bs, c, o);
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
    if (m <= MR) return 1; /* each row is read once */
    size_t stride = (size_t)b->rs * sizeof(tn_real);
    if (stride % LINE || (uintptr_t)b->b % LINE) return 0;
    size_t lines = stride / LINE, g = lines & (~lines + 1);
    return g * (size_t)k <= PANEL_ROWS;
}

enum copy_kind { IN_PLACE, COPY_ROWS, COPY_TRANSPOSED, PACKED };

/*
 * Rows that lie a multiple of half a page apart share cache sets and push each other out, and a transposed A
 * jumps from row to row: both are copied once a block and then read from there for every panel of B.
 */
static enum copy_kind how_to_read(int n, ptrdiff_t rs, ptrdiff_t cs) {
    if (cs != 1) return COPY_TRANSPOSED;
    return n > 2 * NR && (size_t)rs * sizeof(tn_real) % 2048 == 0 ? COPY_ROWS : IN_PLACE;
}

static int rows_in_block(enum copy_kind kind, int kc) {
    if (kind == IN_PLACE || kind == PACKED) return MC;
    int rows = A_COPY / (kc + (kind == COPY_ROWS ? A_PAD : 1));
    return rows - rows % MR;
}

/* What product() works on. */
typedef struct {
    int m, n, k;
    const tn_real *a;
    ptrdiff_t rs, cs; /* of A, unless kind is PACKED */
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
    case PACKED:
        return (a_block){f->a + (ptrdiff_t)i * f->k, 1, 0, kb, f->k, p};
    default:
        return (a_block){from, f->rs, f->cs, kb, 0, 0};
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
                    if (WIDE > 0 && f->n - j >= WIDE) cols = WIDE;
                    panel = b->b + p * b->rs + j, bs = b->rs;
                } else {
                    tn_k_pack_panel(kb, cols, b->b + p * b->rs + j * b->cs, b->rs, b->cs, b_copy);
                }
                tile_out o = {f->ldc, last && f->bias ? f->bias + j : NULL, flags};
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

void tn_k_gemm_packed_a(int m, int n, int k, const tn_real *a, const tn_real *b, ptrdiff_t brs, ptrdiff_t bcs,
                        tn_real *c, ptrdiff_t ldc, int add) {
    product(&(factors){m, n, k, a, 0, 0, PACKED, {b, brs, bcs, 0}, c, ldc, add, NULL, 0});
}

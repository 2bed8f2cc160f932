/* SPDX-License-Identifier: MIT */
/*
 * The transpose of a matrix, by blocks of VL x VL in registers: log2(VL) rounds, each of which swaps, between vectors s
 * apart, the lanes that differ in bit s. The last block of a row or column of blocks ends at the edge and overlaps its
 * neighbour. A matrix narrower than a vector is turned by smaller blocks, one that is narrower still one by one; six rows,
 * the channels of LeNet's first layer, have shuffles of their own.
 */
#include "level.h"
#include "turn.h"

/* Lane l of the lower and the upper vector of a pair: lanes with bit s clear come from a, the others from b. */
#define LOWER(l, s) ((l) & (s) ? (VL + (l) - (s)) % (2 * VL) : (l))
#define UPPER(l, s) ((l) & (s) ? (VL + (l)) % (2 * VL) : ((l) + (s)) % (2 * VL))
#define LOWER_1(l)  LOWER(l, 1)
#define UPPER_1(l)  UPPER(l, 1)
#define LOWER_2(l)  LOWER(l, 2)
#define UPPER_2(l)  UPPER(l, 2)
#define LOWER_4(l)  LOWER(l, 4)
#define UPPER_4(l)  UPPER(l, 4)
#define LOWER_8(l)  LOWER(l, 8)
#define UPPER_8(l)  UPPER(l, 8)

#define SWAP(s, i, j)                                                       \
    if (VL > s && VL > j) {                                                 \
        V a = r##i, b = r##j;                                               \
        r##i = VSHUFFLE(a, b, LOWER_##s), r##j = VSHUFFLE(a, b, UPPER_##s); \
    }

#define LOAD(l)        \
    V r##l = vset1(0); \
    if (VL > l) r##l = vload(src + (l)*ld_src);
#define STORE(l) \
    if (VL > l) vstore(dst + (l)*ld_dst, r##l);
#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)

static void block(const tn_real *src, ptrdiff_t ld_src, tn_real *dst, ptrdiff_t ld_dst) {
    /* four rounds of swaps */
    /* clang-format off */
    EACH(LOAD)
    SWAP(8, 0, 8) SWAP(8, 1, 9) SWAP(8, 2, 10) SWAP(8, 3, 11) SWAP(8, 4, 12)
    SWAP(8, 5, 13) SWAP(8, 6, 14) SWAP(8, 7, 15)
    SWAP(4, 0, 4) SWAP(4, 1, 5) SWAP(4, 2, 6) SWAP(4, 3, 7) SWAP(4, 8, 12)
    SWAP(4, 9, 13) SWAP(4, 10, 14) SWAP(4, 11, 15)
    SWAP(2, 0, 2) SWAP(2, 1, 3) SWAP(2, 4, 6) SWAP(2, 5, 7) SWAP(2, 8, 10)
    SWAP(2, 9, 11) SWAP(2, 12, 14) SWAP(2, 13, 15)
    SWAP(1, 0, 1) SWAP(1, 2, 3) SWAP(1, 4, 5) SWAP(1, 6, 7) SWAP(1, 8, 9)
    SWAP(1, 10, 11) SWAP(1, 12, 13) SWAP(1, 14, 15)
    EACH(STORE)
    /* clang-format on */
}

static void one_by_one(int r0, int r1, int c0, int c1, const tn_real *src, ptrdiff_t ld_src, tn_real *dst,
                       ptrdiff_t ld_dst) {
    for (ptrdiff_t c = c0; c < c1; c++)
        for (ptrdiff_t r = r0; r < r1; r++) dst[c * ld_dst + r] = src[r * ld_src + c];
}

#ifndef TN_LEVEL_PLAIN
/*
 * Six rows of VL columns to VL contiguous rows of six, three vectors a half: two of the six are zipped to pairs, and three
 * vectors of pairs are dealt out to three of sixes. SIX_x: of element i of the half's 3 VL.
 */
#define SIX(l, k)               ((l) + (k)*VL)
#define SIX_PAIR(i)             ((i) % 6 / 2)
#define SIX_LANE(i)             ((i) / 6 * 2 + (i) % 2)
#define DEAL(i)                 (SIX_PAIR(i) == 1 ? VL + SIX_LANE(i) : SIX_LANE(i))
#define DEAL_LAST(l, i)         (SIX_PAIR(i) == 2 ? VL + SIX_LANE(i) : (l))
#define DEAL_0(l)               DEAL(SIX(l, 0))
#define DEAL_1(l)               DEAL(SIX(l, 1))
#define DEAL_2(l)               DEAL(SIX(l, 2))
#define DEAL_LAST_0(l)          DEAL_LAST(l, SIX(l, 0))
#define DEAL_LAST_1(l)          DEAL_LAST(l, SIX(l, 1))
#define DEAL_LAST_2(l)          DEAL_LAST(l, SIX(l, 2))
#define ZIP_LOW(l)              ((l) / 2 + (l) % 2 * VL)
#define ZIP_HIGH(l)             ((l) / 2 + (l) % 2 * VL + VL / 2)
#define SHUFFLE3(x, y, z, f, k) VSHUFFLE(VSHUFFLE(x, y, f##_##k), z, f##_LAST_##k)

static inline void sixes(V p, V q, V r, tn_real *dst) {
    vstore(dst, SHUFFLE3(p, q, r, DEAL, 0));
    vstore(dst + VL, SHUFFLE3(p, q, r, DEAL, 1));
    vstore(dst + 2 * VL, SHUFFLE3(p, q, r, DEAL, 2));
}

static void six_rows(int cols, const tn_real *src, ptrdiff_t ld, tn_real *dst) {
    for (int i = 0; i < cols; i += VL) {
        const int i0 = i + VL <= cols ? i : cols - VL;
        const tn_real *s = src + i0;
        V a = vload(s), b = vload(s + ld), c = vload(s + 2 * ld), d = vload(s + 3 * ld),
          e = vload(s + 4 * ld), f = vload(s + 5 * ld);
        sixes(VSHUFFLE(a, b, ZIP_LOW), VSHUFFLE(c, d, ZIP_LOW), VSHUFFLE(e, f, ZIP_LOW), dst + 6 * i0);
        sixes(VSHUFFLE(a, b, ZIP_HIGH), VSHUFFLE(c, d, ZIP_HIGH), VSHUFFLE(e, f, ZIP_HIGH),
              dst + 6 * i0 + 3 * VL);
    }
}

/* The way back: of a half's 3 VL reals the pairs, then of both halves' pairs the even and the odd. */
#define UNSIX(l, k)       ((l) / 2 * 6 + (l) % 2 + 2 * (k))
#define UNSIX_FIRST(l, k) (UNSIX(l, k) % (2 * VL))
#define UNSIX_LAST(l, k)  (UNSIX(l, k) >= 2 * VL ? UNSIX(l, k) - VL : (l))
#define UNSIX_0(l)        UNSIX_FIRST(l, 0)
#define UNSIX_1(l)        UNSIX_FIRST(l, 1)
#define UNSIX_2(l)        UNSIX_FIRST(l, 2)
#define UNSIX_LAST_0(l)   UNSIX_LAST(l, 0)
#define UNSIX_LAST_1(l)   UNSIX_LAST(l, 1)
#define UNSIX_LAST_2(l)   UNSIX_LAST(l, 2)

static void six_columns(int rows, const tn_real *src, tn_real *dst, ptrdiff_t ld) {
    for (int i = 0; i < rows; i += VL) {
        const int i0 = i + VL <= rows ? i : rows - VL;
        const tn_real *s = src + 6 * i0;
        tn_real *d = dst + i0;
        V a = vload(s), b = vload(s + VL), c = vload(s + 2 * VL), e = vload(s + 3 * VL),
          f = vload(s + 4 * VL), g = vload(s + 5 * VL);
#define COLUMNS(k)                                                                               \
    {                                                                                            \
        V low = SHUFFLE3(a, b, c, UNSIX, k), high = SHUFFLE3(e, f, g, UNSIX, k);                 \
        vstore(d + 2 * k * ld, veven(low, high)), vstore(d + (2 * k + 1) * ld, vodd(low, high)); \
    }
        COLUMNS(0)
        COLUMNS(1)
        COLUMNS(2)
    }
}
#endif

static void narrow(int rows, int cols, const tn_real *src, ptrdiff_t ld_src, tn_real *dst, ptrdiff_t ld_dst) {
#ifdef TN_LEVEL_PLAIN
    one_by_one(0, rows, 0, cols, src, ld_src, dst, ld_dst);
#else
    if (rows == 6 && ld_dst == 6 && cols >= VL) {
        six_rows(cols, src, ld_src, dst);
        return;
    }
    if (cols == 6 && ld_src == 6 && rows >= VL) {
        six_columns(rows, src, dst, ld_dst);
        return;
    }
    if (rows < TL || cols < 4) {
        one_by_one(0, rows, 0, cols, src, ld_src, dst, ld_dst);
        return;
    }
    for (int c = 0; c < cols; c += 4)
        for (int r = 0; r < rows; r += TL) {
            const ptrdiff_t r0 = r + TL <= rows ? r : rows - TL, c0 = c + 4 <= cols ? c : cols - 4;
            turn_block(src + r0 * ld_src + c0, ld_src, dst + c0 * ld_dst + r0, ld_dst);
        }
#endif
}

void tn_k_transpose(int rows, int cols, const tn_real *src, ptrdiff_t ld_src, tn_real *dst,
                    ptrdiff_t ld_dst) {
    if (rows < VL || cols < VL) {
        narrow(rows, cols, src, ld_src, dst, ld_dst);
        return;
    }
    for (int i = 0; i < rows; i += VL)
        for (int j = 0; j < cols; j += VL) {
            int i0 = i + VL <= rows ? i : rows - VL, j0 = j + VL <= cols ? j : cols - VL;
            block(src + i0 * ld_src + j0, ld_src, dst + j0 * ld_dst + i0, ld_dst);
        }
}

/* SPDX-License-Identifier: MIT */
/*
 * What is not zero in up to 64 rows, one bit an element: along the rows and along the columns, from one pass. A vector's
 * comparison gives a run of a row's bits, and marks this row's bit in the lanes that are not zero of a vector whose lanes are
 * columns: 32 rows later these are half of the columns' words.
 */
#include "vec_part.h"

#ifdef TN_DOUBLE
typedef uint64_t lane; /* of VU */
#else
typedef uint32_t lane;
#endif
enum { HALF = 32, BLOCK = 4 * VL, WORD = 64 };

/* Bit l: lane l of a is not zero (NaN is not); such lanes of *seen get the bit. */
static inline uint64_t mark(V a, VU bit, VU *seen) {
#if defined(TN_LEVEL_AVX512)
    const __mmask16 on = _mm512_cmp_ps_mask(a, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    *seen = (VU)_mm512_mask_or_epi32((__m512i)*seen, on, (__m512i)*seen, (__m512i)bit);
    return on;
#else
    const VI off = veq(a, vset1(0));
    *seen |= ~(VU)off & bit;
    return vbits_of(off) ^ VALL;
#endif
}

/* A whole block of columns, or the last one, of `left`. Out of HALF rows: the bits of columns. */
__attribute__((always_inline)) static inline void half_block(const int whole, int rows, int left,
                                                             const tn_real *x, ptrdiff_t ld, uint64_t *words,
                                                             int shift, ptrdiff_t row_words, lane *seen) {
    VU s0 = {0}, s1 = s0, s2 = s0, s3 = s0;
    for (int r = 0; r < rows; r++, x += ld, words += row_words) {
        const VU bit = (VU){0} + ((uint32_t)1 << r);
#define LANES(i) \
    (whole ? vload(x + (i)*VL) : left > (i)*VL ? vload_first(x + (i)*VL, (size_t)(left - (i)*VL)) : vset1(0))
        const uint64_t bits = mark(LANES(0), bit, &s0) | mark(LANES(1), bit, &s1) << VL
                              | mark(LANES(2), bit, &s2) << 2 * VL | mark(LANES(3), bit, &s3) << 3 * VL;
#undef LANES
        *words = shift ? *words | bits << shift : bits;
    }
    memcpy(seen, &s0, sizeof s0), memcpy(seen + VL, &s1, sizeof s1);
    memcpy(seen + 2 * VL, &s2, sizeof s2), memcpy(seen + 3 * VL, &s3, sizeof s3);
}

void tn_k_sparse_masks(int rows, int cols, const tn_real *x, ptrdiff_t ld, uint64_t *row_bits,
                       ptrdiff_t row_words, uint64_t *column_bits) {
    const int lower = rows < HALF ? rows : HALF, upper = rows - lower;
    for (int c = 0; c < cols; c += BLOCK) {
        const int left = cols - c, shift = c % WORD;
        uint64_t *words = row_bits + c / WORD, *more = words + lower * row_words;
        const tn_real *at = x + c, *below = at + lower * ld;
        lane low[BLOCK], high[BLOCK];
        if (left >= BLOCK) {
            half_block(1, lower, left, at, ld, words, shift, row_words, low);
            half_block(1, upper, left, below, ld, more, shift, row_words, high);
        } else {
            half_block(0, lower, left, at, ld, words, shift, row_words, low);
            half_block(0, upper, left, below, ld, more, shift, row_words, high);
        }
        if (!column_bits) continue;
        const int end = left < BLOCK ? left : BLOCK;
        for (int i = 0; i < end; i++) column_bits[c + i] = (uint64_t)low[i] | (uint64_t)high[i] << HALF;
    }
}

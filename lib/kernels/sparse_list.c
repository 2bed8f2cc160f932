/* SPDX-License-Identifier: MIT */
/*
 * Lists of what is not zero in the rows of a matrix, for sparse_panel, and the question that has to be asked before zeros
 * may be skipped: 0 times infinity is not 0.
 */
#include "vec_part.h"

#if defined(TN_LEVEL_AVX512)

/* Of the lanes of v that are not zero value and number go to the ends of the lists. */
static inline int put(V v, int number, int *at, tn_real *out) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __mmask16 m = _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    vstore(out, _mm512_maskz_compress_ps(m, v));
    _mm512_storeu_si512(at,
                        _mm512_maskz_compress_epi32(m, _mm512_add_epi32(lanes, _mm512_set1_epi32(number))));
    return __builtin_popcount(m);
}

#else

static inline int put(V v, int number, int *at, tn_real *out) {
    tn_real lane[VL];
    int n = 0;
    vstore(lane, v);
    for (uint32_t left = vbits_of(VMASK(v != vset1(0))); left; left &= left - 1, n++) {
        int l = __builtin_ctz(left);
        at[n] = number + l, out[n] = lane[l];
    }
    return n;
}

#endif

int tn_k_sparse_list(int rows, int cols, const tn_real *x, ptrdiff_t ld, int *start, int *at, tn_real *v) {
    int n = 0, whole = cols - cols % VL;
    for (int i = 0; i < rows; i++, x += ld) {
        start[i] = n;
        for (int c = 0; c < whole; c += VL) n += put(vload(x + c), c, at + n, v + n);
        if (whole < cols) n += put(vload_part(x + whole, (size_t)(cols - whole), 0), whole, at + n, v + n);
    }
    start[rows] = n;
    return n;
}

int tn_k_all_finite(size_t n, const tn_real *x) {
    V a = vset1(0), b = a, c = a, d = a, zero = a;
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL, x += 4 * VL)
        a = vfma(vload(x), zero, a), b = vfma(vload(x + VL), zero, b), c = vfma(vload(x + 2 * VL), zero, c),
        d = vfma(vload(x + 3 * VL), zero, d);
    for (; i + VL <= n; i += VL, x += VL) a = vfma(vload(x), zero, a);
    if (i < n) b = vfma(vload_part(x, n - i, 0), zero, b);
    V sum = (a + b) + (c + d);
    return !vany(VMASK(sum != sum));
}

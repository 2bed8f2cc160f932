/* SPDX-License-Identifier: MIT */
/*
 * Kernels that treat each element by itself and call no function: sums, products, masks, pixels to reals.
 */
#include "vec_part.h"

/* y[i] = expr for all i < n, where the expression may use the vectors a[i] and b[i]. */
#define FOR_EACH_PAIR(n, pa, pb, py, expr)                                            \
    do {                                                                              \
        size_t i = 0;                                                                 \
        for (; i + VL <= (n); i += VL) {                                              \
            V a = vload((pa) + i), b = vload((pb) + i);                               \
            vstore((py) + i, expr);                                                   \
        }                                                                             \
        if (i < (n)) {                                                                \
            V a = vload_part((pa) + i, (n)-i, 0), b = vload_part((pb) + i, (n)-i, 0); \
            vstore_part((py) + i, (n)-i, expr);                                       \
        }                                                                             \
    } while (0)

void tn_k_add(size_t n, const tn_real *pa, const tn_real *pb, tn_real *py) {
    FOR_EACH_PAIR(n, pa, pb, py, a + b);
}

void tn_k_mul(size_t n, const tn_real *pa, const tn_real *pb, tn_real *py) {
    FOR_EACH_PAIR(n, pa, pb, py, a * b);
}

void tn_k_accumulate(size_t n, const tn_real *x, tn_real *py) {
    FOR_EACH_PAIR(n, py, x, py, a + b);
}

void tn_k_relu_mask(size_t n, const tn_real *gy, const tn_real *y, tn_real *gx) {
    FOR_EACH_PAIR(n, gy, y, gx, vbehind_relu(a, b));
}

/* Rows come in random order from a set larger than any cache: nothing else can foresee them. */
enum { AHEAD = 4, LINE = 64 };

static inline void fetch_row(const unsigned char *row, size_t len) {
    for (size_t j = 0; j < len; j += LINE) __builtin_prefetch(row + j);
}

void tn_k_gather_u8(int n, size_t len, const unsigned char *x, const int *idx, tn_real scale, tn_real shift,
                    tn_real *out) {
    const V vscale = vset1(scale), vshift = vset1(shift);
    for (int r = 0; idx && r < AHEAD && r < n; r++) fetch_row(x + (size_t)idx[r] * len, len);
    for (int r = 0; r < n; r++, out += len) {
        const unsigned char *row = x + (idx ? (size_t)idx[r] : (size_t)r) * len;
        if (idx && r + AHEAD < n) fetch_row(x + (size_t)idx[r + AHEAD] * len, len);
        size_t j = 0;
        for (; j + VL <= len; j += VL) vstore(out + j, vfma(vload_u8(row + j), vscale, vshift));
        if (j < len) {
            unsigned char rest[VL] = {0};
            memcpy(rest, row + j, len - j);
            vstore_part(out + j, len - j, vfma(vload_u8(rest), vscale, vshift));
        }
    }
}

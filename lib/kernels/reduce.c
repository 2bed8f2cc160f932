/* SPDX-License-Identifier: MIT */
/*
 * Kernels that add up: sums over all elements, over rows, and the log-sum-exp of every row.
 *
 * Element i of a sum belongs to lane i mod TN_LANES, and the lanes are added up as a tree, whatever the width
 * of the registers.
 */
#include "vec_part.h"
#include "vmath.h"

static double add_lanes(double lane[TN_LANES]) {
    for (int half = TN_LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    return lane[0];
}

/* The inner loops have a fixed length, so that compilers make vectors of them. */
double tn_k_sum(size_t n, const tn_real *x) {
    double lane[TN_LANES] = {0};
    size_t i = 0;
    for (; i + TN_LANES <= n; i += TN_LANES)
        for (size_t l = 0; l < TN_LANES; l++) lane[l] += (double)x[i + l];
    for (size_t l = 0; i + l < n; l++) lane[l] += (double)x[i + l];
    return add_lanes(lane);
}

/* 0 x is not 0 for infinity and NaN. */
int tn_k_all_finite(size_t n, const tn_real *x) {
    const V zero = vset1(0);
    V a = zero, b = zero, c = zero, d = zero;
    size_t i = 0;
    for (; i + 4 * VL <= n; i += 4 * VL, x += 4 * VL)
        a = vfma(vload(x), zero, a), b = vfma(vload(x + VL), zero, b), c = vfma(vload(x + 2 * VL), zero, c),
        d = vfma(vload(x + 3 * VL), zero, d);
    for (; i < n; i += VL, x += VL) a = vfma(vload_first(x, n - i), zero, a);
    const V sum = (a + b) + (c + d);
    return !vany(VMASK(sum != sum));
}

/* Twice the lanes: with fewer chains the latency of a multiply-add would be what it takes. */
double tn_k_sum_sq(size_t n, const tn_real *x) {
    enum { LANES = 2 * TN_LANES, VECTORS = LANES / DL };
    VD sum[VECTORS] = {0};
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (size_t v = 0; v < VECTORS; v++) sum[v] = vd_add_squares(sum[v], x + i + v * DL);
    double lane[LANES];
    memcpy(lane, sum, sizeof lane);
    for (size_t l = 0; i + l < n; l++) lane[l] += (double)x[i + l] * (double)x[i + l];
    for (int l = 0; l < TN_LANES; l++) lane[l] += lane[l + TN_LANES];
    return add_lanes(lane);
}

void tn_k_col_sum(int rows, int cols, const tn_real *x, ptrdiff_t ld, int add, tn_real *out) {
    int j = 0;
    for (; j + 4 * VL <= cols; j += 4 * VL) { /* four chains at once hide the latency of addition */
        V s0 = vset1(0), s1 = s0, s2 = s0, s3 = s0;
        const tn_real *p = x + j;
        if (add)
            s0 = vload(out + j), s1 = vload(out + j + VL), s2 = vload(out + j + 2 * VL),
            s3 = vload(out + j + 3 * VL);
        for (int i = 0; i < rows; i++, p += ld)
            s0 += vload(p), s1 += vload(p + VL), s2 += vload(p + 2 * VL), s3 += vload(p + 3 * VL);
        vstore(out + j, s0), vstore(out + j + VL, s1), vstore(out + j + 2 * VL, s2),
            vstore(out + j + 3 * VL, s3);
    }
    for (; j + VL <= cols; j += VL) {
        V s = add ? vload(out + j) : vset1(0);
        for (int i = 0; i < rows; i++) s += vload(x + i * ld + j);
        vstore(out + j, s);
    }
    if (j < cols) { /* side by side, for the same reason */
        int rest = cols - j;
        tn_real s[VL] = {0};
        if (add) memcpy(s, out + j, (size_t)rest * sizeof *s);
        for (int i = 0; i < rows; i++)
            for (int l = 0; l < rest; l++) s[l] += x[i * ld + j + l];
        memcpy(out + j, s, (size_t)rest * sizeof *s);
    }
}

/* Classes c..c+count-1 of VL rows, turned: a vector holds one class. A missing row repeats the last. */
static inline void turn_rows(tn_real t[][VL], int rows, int classes, int count, const tn_real *x) {
    for (int l = 0; l < VL; l++) {
        const tn_real *row = x + (ptrdiff_t)(l < rows ? l : rows - 1) * classes;
        for (int c = 0; c < count; c++) t[c][l] = row[c];
    }
}

static V lse_of_rows(int rows, int classes, const tn_real *x) {
    tn_real t[TN_LANES][VL], lane[TN_LANES][VL];
    V max = vset1(-INFINITY); /* a NaN that is lost here returns in the sum */
    for (int c = 0; c < classes; c += TN_LANES) {
        int count = classes - c < TN_LANES ? classes - c : TN_LANES;
        turn_rows(t, rows, classes, count, x + c);
        for (int l = 0; l < count; l++) max = vmax(vload(t[l]), max);
    }
    memset(lane, 0, sizeof lane);
    for (int c = 0; c < classes; c += TN_LANES) {
        int count = classes - c < TN_LANES ? classes - c : TN_LANES;
        if (classes > TN_LANES) turn_rows(t, rows, classes, count, x + c); /* else t still has them */
        for (int l = 0; l < count; l++) vstore(lane[l], vload(lane[l]) + vexp(vload(t[l]) - max));
    }
    for (int half = TN_LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) vstore(lane[l], vload(lane[l]) + vload(lane[l + half]));
    return max + vlog(vload(lane[0]));
}

/* One row a lane: ten classes would fill a register badly. */
void tn_k_row_lse(int rows, int classes, const tn_real *x, tn_real *lse) {
    for (int r = 0; r < rows; r += VL, x += (ptrdiff_t)VL * classes) {
        int block = rows - r < VL ? rows - r : VL;
        V y = lse_of_rows(block, classes, x);
        vstore_first(lse + r, (size_t)block, y);
    }
}

void tn_k_softmax_rows(int rows, int classes, const tn_real *x, const tn_real *lse, const tn_real *scale,
                       tn_real *y) {
    tn_real t[TN_LANES][VL];
    for (int r = 0; r < rows; r += VL, x += (ptrdiff_t)VL * classes, y += (ptrdiff_t)VL * classes) {
        int block = rows - r < VL ? rows - r : VL;
        V of = vload_first(lse + r, (size_t)block);
        V by = vload_first(scale + r, (size_t)block);
        for (int c = 0; c < classes; c += TN_LANES) {
            int count = classes - c < TN_LANES ? classes - c : TN_LANES;
            turn_rows(t, block, classes, count, x + c);
            for (int j = 0; j < count; j++) vstore(t[j], by * vexp(vload(t[j]) - of));
            for (int l = 0; l < block; l++)
                for (int j = 0; j < count; j++) y[(ptrdiff_t)l * classes + c + j] = t[j][l];
        }
    }
}

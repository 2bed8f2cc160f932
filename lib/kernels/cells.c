/* SPDX-License-Identifier: MIT */
/*
 * Cells of recurrent layers: Elman, GRU (Cho et al., arXiv:1406.1078, PyTorch's form), LSTM; what stands between the
 * products of one time step, forward and backward. Row by row, a vector of units at a time: all gates of the same units
 * meet in registers, and what backward needs of them is kept side by side, in one stream.
 */
#include "cells.h"
#include "level.h"
#include "vmath.h"

#ifdef TN_DOUBLE

static inline V squash(V x) {
    return tanh(x);
}
static inline V logistic(V x) {
    return 1 / (1 + exp(-x));
}
static inline void two_logistic(V x, V y, V *a, V *b) {
    *a = logistic(x), *b = logistic(y);
}

#else

/*
 * vmath.h's tanh and sigmoid without what a gate can do without: gradual underflow and the sign of zero. Half of the
 * operations; within 3 units of the last place; NaN passes (it is the second argument of vmin and vmax).
 */
static inline V squash(V x) {
    V two = vmin(vset1(20.0f), vmax(vset1(-20.0f), x + x));
    exp_parts e = reduce_exp(two);
    V scale = power_of_two(e.n);
    V em1 = vfma(scale, e.expm1_r, scale - vset1(1));
    return em1 / (em1 + vset1(2));
}

static inline V logistic(V x) {
    V minus = vmin(vset1(87.0f), vmax(vset1(-87.0f), -x));
    exp_parts e = reduce_exp(minus);
    V scale = power_of_two(e.n);
    return vset1(1) / vfma(scale, e.expm1_r, scale + vset1(1));
}

/* 1 + exp(-x), for x below -43 that of -43: so two of them may be multiplied. */
static inline V logistic_divisor(V x) {
    V minus = vmin(vset1(43.0f), vmax(vset1(-43.0f), -x));
    exp_parts e = reduce_exp(minus);
    V scale = power_of_two(e.n);
    return vfma(scale, e.expm1_r, scale + vset1(1));
}

/*
 * Two by one division, which is what a cell waits for, of gates whose NaN both reach the state: of x the result is 1 / p =
 * q / (p q), not below 2e-19.
 */
static inline void two_logistic(V x, V y, V *a, V *b) {
    V p = logistic_divisor(x), q = logistic_divisor(y), both = vset1(1) / (p * q);
    *a = both * q, *b = both * p;
}

#endif

/* y (1 - y): the logistic function's slope; 1 - y^2: tanh's. */
static inline V logistic_slope(V y) {
    return vfma(-y, y, y);
}
static inline V squash_slope(V y) {
    return vfma(-y, y, vset1(1));
}

static inline tn_real *kept_of(const tn_cell_rows *s, int row, int unit, int each) {
    return s->kept + row * s->kept_row + (ptrdiff_t)unit * each;
}

static inline V put_gradient(const tn_cell_rows *s, int row, int unit, int block, V d) {
    vstore(s->dg + row * s->dg_row + block * s->dg_block + unit, d);
    if (s->panel) vstore(s->panel + block * s->panel_block + row * s->panel_row + unit, d);
    return d;
}

/* Sums of dg over rows, which stay in registers: backward goes by units, then rows. */
static inline V sum_so_far(const tn_cell_rows *s, int unit, int block) {
    return s->sum ? vload(s->sum + block * s->sum_block + unit) : vset1(0);
}
static inline void put_sum(const tn_cell_rows *s, int unit, int block, V sum) {
    if (s->sum) vstore(s->sum + block * s->sum_block + unit, sum);
}

/* Of the four blocks of a GRU or an LSTM. */
typedef struct {
    V a, b, c, d;
} four;

static inline four four_so_far(const tn_cell_rows *s, int unit) {
    return (four){sum_so_far(s, unit, 0), sum_so_far(s, unit, 1), sum_so_far(s, unit, 2),
                  sum_so_far(s, unit, 3)};
}
static inline void put_four(const tn_cell_rows *s, int unit, four sum) {
    put_sum(s, unit, 0, sum.a), put_sum(s, unit, 1, sum.b);
    put_sum(s, unit, 2, sum.c), put_sum(s, unit, 3, sum.d);
}

/* ---- Elman ---- */

void tn_k_tanh_cell(const tn_cell_rows *s) {
    for (int i = 0; i < s->rows; i++)
        for (int u = 0; u < s->units; u += VL)
            vstore(s->h1 + i * s->h_row + u, squash(vload(s->z + i * s->z_row + u)));
}

void tn_k_relu_cell(const tn_cell_rows *s) {
    for (int i = 0; i < s->rows; i++)
        for (int u = 0; u < s->units; u += VL)
            vstore(s->h1 + i * s->h_row + u, vrelu(vload(s->z + i * s->z_row + u)));
}

void tn_k_tanh_cell_back(const tn_cell_rows *s) {
    for (int u = 0; u < s->units; u += VL) {
        V s0 = sum_so_far(s, u, 0);
        for (int i = 0; i < s->rows; i++) {
            tn_real *dh = s->dh + i * s->d_row + u;
            s0 += put_gradient(s, i, u, 0, vload(dh) * squash_slope(vload(s->h1 + i * s->h_row + u)));
            vstore(dh, vset1(0));
        }
        put_sum(s, u, 0, s0);
    }
}

void tn_k_relu_cell_back(const tn_cell_rows *s) {
    const V zero = vset1(0);
    for (int u = 0; u < s->units; u += VL) {
        V s0 = sum_so_far(s, u, 0);
        for (int i = 0; i < s->rows; i++) {
            tn_real *dh = s->dh + i * s->d_row + u;
            V h = vload(s->h1 + i * s->h_row + u);
            V slope = vsel(vgt(h, zero), vset1(1), vsel(VMASK(h <= zero), zero, h));
            s0 += put_gradient(s, i, u, 0, vload(dh) * slope);
            vstore(dh, zero);
        }
        put_sum(s, u, 0, s0);
    }
}

/* ---- LSTM; kept: i f g o tanh(c) ---- */

enum { LSTM_KEPT = 5, GRU_KEPT = 4 };

void tn_k_lstm_cell(const tn_cell_rows *s) {
    for (int row = 0; row < s->rows; row++)
        for (int u = 0; u < s->units; u += VL) {
            const tn_real *z = s->z + row * s->z_row + u;
            tn_real *kept = kept_of(s, row, u, LSTM_KEPT);
            V i = logistic(vload(z)), f = logistic(vload(z + s->z_block));
            V g = squash(vload(z + 2 * s->z_block)), o = logistic(vload(z + 3 * s->z_block));
            V c = vfma(f, vload(s->c0 + row * s->c_row + u), i * g), t = squash(c);
            vstore(s->c1 + row * s->c_row + u, c);
            vstore(s->h1 + row * s->h_row + u, o * t);
            vstore(kept, i), vstore(kept + VL, f), vstore(kept + 2 * VL, g);
            vstore(kept + 3 * VL, o), vstore(kept + 4 * VL, t);
        }
}

void tn_k_lstm_cell_back(const tn_cell_rows *s) {
    for (int u = 0; u < s->units; u += VL) {
        four sum = four_so_far(s, u);
        for (int row = 0; row < s->rows; row++) {
            const tn_real *kept = kept_of(s, row, u, LSTM_KEPT);
            tn_real *dh = s->dh + row * s->d_row + u, *dc = s->dc + row * s->d_row + u;
            V i = vload(kept), f = vload(kept + VL), g = vload(kept + 2 * VL), o = vload(kept + 3 * VL);
            V t = vload(kept + 4 * VL), dh1 = vload(dh);
            V d = vfma(dh1 * o, squash_slope(t), vload(dc));
            sum.a += put_gradient(s, row, u, 0, d * g * logistic_slope(i));
            sum.b += put_gradient(s, row, u, 1, d * vload(s->c0 + row * s->c_row + u) * logistic_slope(f));
            sum.c += put_gradient(s, row, u, 2, d * i * squash_slope(g));
            sum.d += put_gradient(s, row, u, 3, dh1 * t * logistic_slope(o));
            vstore(dc, d * f);
            vstore(dh, vset1(0));
        }
        put_four(s, u, sum);
    }
}

/* ---- GRU; kept: r z n and the state's part of n before the reset gate ---- */

void tn_k_gru_cell(const tn_cell_rows *s) {
    for (int row = 0; row < s->rows; row++)
        for (int u = 0; u < s->units; u += VL) {
            const tn_real *from = s->z + row * s->z_row + u;
            tn_real *kept = kept_of(s, row, u, GRU_KEPT);
            V r, z;
            two_logistic(vload(from), vload(from + s->z_block), &r, &z);
            V hn = vload(from + 3 * s->z_block), n = squash(vfma(r, hn, vload(from + 2 * s->z_block)));
            V h0 = vload(s->h0 + row * s->h_row + u);
            vstore(s->h1 + row * s->h_row + u, vfma(z, h0, (vset1(1) - z) * n));
            vstore(kept, r), vstore(kept + VL, z), vstore(kept + 2 * VL, n), vstore(kept + 3 * VL, hn);
        }
}

void tn_k_gru_cell_back(const tn_cell_rows *s) {
    for (int u = 0; u < s->units; u += VL) {
        four sum = four_so_far(s, u);
        for (int row = 0; row < s->rows; row++) {
            const tn_real *kept = kept_of(s, row, u, GRU_KEPT);
            tn_real *dh = s->dh + row * s->d_row + u;
            V r = vload(kept), z = vload(kept + VL), n = vload(kept + 2 * VL), hn = vload(kept + 3 * VL);
            V dh1 = vload(dh), h0 = vload(s->h0 + row * s->h_row + u);
            V dn = dh1 * (vset1(1) - z) * squash_slope(n);
            sum.a += put_gradient(s, row, u, 0, dn);
            sum.b += put_gradient(s, row, u, 1, dn * hn * logistic_slope(r));
            sum.c += put_gradient(s, row, u, 2, dh1 * (h0 - n) * logistic_slope(z));
            sum.d += put_gradient(s, row, u, 3, dn * r);
            vstore(dh, dh1 * z);
        }
        put_four(s, u, sum);
    }
}

/* SPDX-License-Identifier: MIT */
/*
 * Cells of recurrent layers: Elman, GRU (Cho et al., arXiv:1406.1078, PyTorch's form), LSTM; what stands between the
 * products of one time step, forward and backward. Row by row, a vector of units at a time: all gates of the same units
 * meet in registers, and what backward needs of them is kept side by side, in one stream.
 */
#include "cells.h"
#include "level.h"
#include "gates.h"
#include "vmath.h"

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

/* Two rows together; the last of an odd number twice. */
typedef struct {
    ptrdiff_t a, b;
} row_pair;

static inline row_pair rows_from(const tn_cell_rows *s, int i) {
    return (row_pair){i, i + 1 < s->rows ? i + 1 : i};
}

/* ---- Elman ---- */

void tn_k_tanh_cell(const tn_cell_rows *s) {
    for (int i = 0; i < s->rows; i += 2) {
        row_pair p = rows_from(s, i);
        for (int u = 0; u < s->units; u += VL)
            pair_store(s->h1 + p.a * s->h_row + u, s->h1 + p.b * s->h_row + u,
                       gate_tanh(pair_load(s->z + p.a * s->z_row + u, s->z + p.b * s->z_row + u)));
    }
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
    const ptrdiff_t block = s->z_block;
    for (int row = 0; row < s->rows; row += 2) {
        row_pair p = rows_from(s, row);
        const tn_real *za = s->z + p.a * s->z_row, *zb = s->z + p.b * s->z_row;
        const tn_real *c0a = s->c0 + p.a * s->c_row, *c0b = s->c0 + p.b * s->c_row;
        tn_real *c1a = s->c1 + p.a * s->c_row, *c1b = s->c1 + p.b * s->c_row;
        tn_real *ha = s->h1 + p.a * s->h_row, *hb = s->h1 + p.b * s->h_row;
        tn_real *ka = s->kept + p.a * s->kept_row, *kb = s->kept + p.b * s->kept_row;
        for (int u = 0; u < s->units; u += VL, ka += LSTM_KEPT * VL, kb += LSTM_KEPT * VL) {
            pair i = gate_logistic(pair_load(za + u, zb + u));
            pair f = gate_logistic(pair_load(za + block + u, zb + block + u));
            pair g = gate_tanh(pair_load(za + 2 * block + u, zb + 2 * block + u));
            pair_store(c1a + u, c1b + u, pair_fma(f, pair_load(c0a + u, c0b + u), pair_mul(i, g)));
            pair_store(ka, kb, i), pair_store(ka + VL, kb + VL, f), pair_store(ka + 2 * VL, kb + 2 * VL, g);
        }
        ka = s->kept + p.a * s->kept_row, kb = s->kept + p.b * s->kept_row;
        for (int u = 0; u < s->units; u += VL, ka += LSTM_KEPT * VL, kb += LSTM_KEPT * VL) {
            pair o = gate_logistic(pair_load(za + 3 * block + u, zb + 3 * block + u));
            pair t = gate_tanh(pair_load(c1a + u, c1b + u));
            pair_store(ha + u, hb + u, pair_mul(o, t));
            pair_store(ka + 3 * VL, kb + 3 * VL, o), pair_store(ka + 4 * VL, kb + 4 * VL, t);
        }
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
    const ptrdiff_t block = s->z_block;
    for (int row = 0; row < s->rows; row += 2) {
        row_pair p = rows_from(s, row);
        const tn_real *za = s->z + p.a * s->z_row, *zb = s->z + p.b * s->z_row;
        const tn_real *h0a = s->h0 + p.a * s->h_row, *h0b = s->h0 + p.b * s->h_row;
        tn_real *ha = s->h1 + p.a * s->h_row, *hb = s->h1 + p.b * s->h_row;
        tn_real *ka = s->kept + p.a * s->kept_row, *kb = s->kept + p.b * s->kept_row;
        for (int u = 0; u < s->units; u += VL, ka += GRU_KEPT * VL, kb += GRU_KEPT * VL) {
            pair r = gate_logistic(pair_load(za + u, zb + u));
            pair z = gate_logistic(pair_load(za + block + u, zb + block + u));
            pair_store(ka, kb, r), pair_store(ka + VL, kb + VL, z);
        }
        ka = s->kept + p.a * s->kept_row, kb = s->kept + p.b * s->kept_row;
        for (int u = 0; u < s->units; u += VL, ka += GRU_KEPT * VL, kb += GRU_KEPT * VL) {
            pair r = pair_load(ka, kb), z = pair_load(ka + VL, kb + VL);
            pair hn = pair_load(za + 3 * block + u, zb + 3 * block + u);
            pair n = gate_tanh(pair_fma(r, hn, pair_load(za + 2 * block + u, zb + 2 * block + u)));
            pair_store(ha + u, hb + u, pair_fma(z, pair_sub(pair_load(h0a + u, h0b + u), n), n));
            pair_store(ka + 2 * VL, kb + 2 * VL, n), pair_store(ka + 3 * VL, kb + 3 * VL, hn);
        }
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

/* SPDX-License-Identifier: MIT */
/*
 * Cells of recurrent layers: Elman, GRU (Cho et al., arXiv:1406.1078, PyTorch's form), LSTM; what stands between the
 * products of one time step, forward and backward. A vector of units at a time; what backward needs of its gates is kept
 * side by side, in one stream. Forward takes two rows together, and what follows from the first gates in a loop of its
 * own: in a chain twice as long the processor finds too few operations that could begin.
 */
#include "cells.h"
#include "gates.h"
#include "level.h"
#include "vmath.h"

/* y (1 - y): the logistic function's slope; 1 - y^2: tanh's. */
static inline V logistic_slope(V y) {
    return vfma(-y, y, y);
}
static inline V squash_slope(V y) {
    return vfma(-y, y, vset1(1));
}

/* Where a row of some units' dg goes. Kept apart from *s, which a store might change for all that the compiler knows. */
typedef struct {
    tn_real *dg;
    ptrdiff_t row, block;
} target;

static inline target target_of(const tn_cell_rows *s, int unit) {
    return (target){s->dg + unit, s->dg_row, s->dg_block};
}

/* What waits here is lines on their way into L1 to be written: those of the next row are asked for. */
static inline V put_gradient(const target *t, int block, V d) {
    tn_real *to = t->dg + block * t->block;
    vstore(to, d);
    __builtin_prefetch(to + t->row, 1, 3);
    return d;
}
static inline void next_row(target *t) {
    t->dg += t->row;
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

/*
 * A row of units and its companion: the next row or, of the last of an odd number, its own later half (with the unit in
 * the middle, of an odd number of vectors, in both).
 */
typedef struct {
    int units; /* of each */
    ptrdiff_t rows, unit;
} companion;

static inline companion companion_of(const tn_cell_rows *s, int row) {
    int half = (s->units / VL + 1) / 2 * VL;
    return row + 1 < s->rows ? (companion){s->units, 1, 0} : (companion){half, 0, s->units - half};
}

/* ---- Elman ---- */

void tn_k_tanh_cell(const tn_cell_rows *s) {
    for (int row = 0; row < s->rows; row += 2) {
        const companion to = companion_of(s, row);
        const tn_real *za = s->z + row * s->z_row, *zb = za + to.rows * s->z_row + to.unit;
        tn_real *ha = s->h1 + row * s->h_row, *hb = ha + to.rows * s->h_row + to.unit;
        for (int u = 0; u < to.units; u += VL)
            pair_store(ha + u, hb + u, gate_tanh(pair_load(za + u, zb + u)));
    }
}

void tn_k_relu_cell(const tn_cell_rows *s) {
    for (int i = 0; i < s->rows; i++)
        for (int u = 0; u < s->units; u += VL)
            vstore(s->h1 + i * s->h_row + u, vrelu(vload(s->z + i * s->z_row + u)));
}

void tn_k_tanh_cell_back(const tn_cell_rows *s) {
    const ptrdiff_t d_row = s->d_row, h_row = s->h_row;
    for (int u = 0; u < s->units; u += VL) {
        V sum = sum_so_far(s, u, 0);
        target to = target_of(s, u);
        const tn_real *h = s->h1 + u;
        tn_real *dh = s->dh + u;
        for (int n = s->rows; n > 0; n--, dh += d_row, h += h_row, next_row(&to)) {
            sum += put_gradient(&to, 0, vload(dh) * squash_slope(vload(h)));
            vstore(dh, vset1(0));
        }
        put_sum(s, u, 0, sum);
    }
}

void tn_k_relu_cell_back(const tn_cell_rows *s) {
    const ptrdiff_t d_row = s->d_row, h_row = s->h_row;
    const V zero = vset1(0);
    for (int u = 0; u < s->units; u += VL) {
        V sum = sum_so_far(s, u, 0);
        target to = target_of(s, u);
        const tn_real *h1 = s->h1 + u;
        tn_real *dh = s->dh + u;
        for (int n = s->rows; n > 0; n--, dh += d_row, h1 += h_row, next_row(&to)) {
            V h = vload(h1), slope = vsel(vgt(h, zero), vset1(1), vsel(VMASK(h <= zero), zero, h));
            sum += put_gradient(&to, 0, vload(dh) * slope);
            vstore(dh, zero);
        }
        put_sum(s, u, 0, sum);
    }
}

/* ---- LSTM; kept: i f g o tanh(c) ---- */

enum { LSTM_KEPT = 5, GRU_KEPT = 4 };

/* With keep, what backward needs is kept. */
static inline __attribute__((always_inline)) void lstm_cell(const tn_cell_rows *s, int keep) {
    const ptrdiff_t block = s->z_block;
    for (int row = 0; row < s->rows; row += 2) {
        const companion to = companion_of(s, row);
        const tn_real *za = s->z + row * s->z_row, *zb = za + to.rows * s->z_row + to.unit;
        const tn_real *c0a = s->c0 + row * s->c_row, *c0b = c0a + to.rows * s->c_row + to.unit;
        tn_real *c1a = s->c1 + row * s->c_row, *c1b = c1a + to.rows * s->c_row + to.unit;
        tn_real *ha = s->h1 + row * s->h_row, *hb = ha + to.rows * s->h_row + to.unit;
        tn_real *ka = s->kept, *kb = ka;
        if (keep) ka += row * s->kept_row, kb = ka + to.rows * s->kept_row + to.unit * LSTM_KEPT;
        for (int u = 0; u < to.units; u += VL) {
            pair i = gate_logistic(pair_load(za + u, zb + u));
            pair f = gate_logistic(pair_load(za + block + u, zb + block + u));
            pair g = gate_tanh(pair_load(za + 2 * block + u, zb + 2 * block + u));
            pair_store(c1a + u, c1b + u, pair_fma(f, pair_load(c0a + u, c0b + u), pair_mul(i, g)));
            if (!keep) continue;
            tn_real *kau = ka + u * LSTM_KEPT, *kbu = kb + u * LSTM_KEPT;
            pair_store(kau, kbu, i), pair_store(kau + VL, kbu + VL, f),
                pair_store(kau + 2 * VL, kbu + 2 * VL, g);
        }
        for (int u = 0; u < to.units; u += VL) {
            pair o = gate_logistic(pair_load(za + 3 * block + u, zb + 3 * block + u));
            pair t = gate_tanh(pair_load(c1a + u, c1b + u));
            pair_store(ha + u, hb + u, pair_mul(o, t));
            if (!keep) continue;
            tn_real *kau = ka + u * LSTM_KEPT, *kbu = kb + u * LSTM_KEPT;
            pair_store(kau + 3 * VL, kbu + 3 * VL, o), pair_store(kau + 4 * VL, kbu + 4 * VL, t);
        }
    }
}

void tn_k_lstm_cell(const tn_cell_rows *s) {
    s->kept ? lstm_cell(s, 1) : lstm_cell(s, 0);
}

void tn_k_lstm_cell_back(const tn_cell_rows *s) {
    const ptrdiff_t d_row = s->d_row, c_row = s->c_row, kept_row = s->kept_row;
    for (int u = 0; u < s->units; u += VL) {
        four sum = four_so_far(s, u);
        target to = target_of(s, u);
        const tn_real *kept = s->kept + (ptrdiff_t)u * LSTM_KEPT, *c0 = s->c0 + u;
        tn_real *dh = s->dh + u, *dc = s->dc + u;
        for (int left = s->rows; left > 0; left--, next_row(&to)) {
            V i = vload(kept), f = vload(kept + VL), g = vload(kept + 2 * VL), o = vload(kept + 3 * VL);
            V t = vload(kept + 4 * VL), dh1 = vload(dh);
            V d = vfma(dh1 * o, squash_slope(t), vload(dc));
            sum.a += put_gradient(&to, 0, d * g * logistic_slope(i));
            sum.b += put_gradient(&to, 1, d * vload(c0) * logistic_slope(f));
            sum.c += put_gradient(&to, 2, d * i * squash_slope(g));
            sum.d += put_gradient(&to, 3, dh1 * t * logistic_slope(o));
            vstore(dc, d * f);
            vstore(dh, vset1(0));
            kept += kept_row, c0 += c_row, dh += d_row, dc += d_row;
        }
        put_four(s, u, sum);
    }
}

/* ---- GRU; kept: r z n and the state's part of n before the reset gate ---- */

/* r and z wait for the second loop where they are kept or, without keep, in a place of their own. */
static inline __attribute__((always_inline)) void gru_cell(const tn_cell_rows *s, int keep) {
    enum { WAIT = 4 * VL };
    _Alignas(64) tn_real wait[4 * WAIT];
    const ptrdiff_t block = s->z_block, next = keep ? VL : WAIT, each = keep ? GRU_KEPT : 1;
    for (int row = 0; row < s->rows; row += 2) {
        const companion to = companion_of(s, row);
        const tn_real *za = s->z + row * s->z_row, *zb = za + to.rows * s->z_row + to.unit;
        const tn_real *h0a = s->h0 + row * s->h_row, *h0b = h0a + to.rows * s->h_row + to.unit;
        tn_real *ha = s->h1 + row * s->h_row, *hb = ha + to.rows * s->h_row + to.unit;
        tn_real *ka = wait, *kb = wait + 2 * WAIT;
        if (keep) ka = s->kept + row * s->kept_row, kb = ka + to.rows * s->kept_row + to.unit * GRU_KEPT;
        for (int first = 0, units = to.units, end; first < units; first = end) {
            end = keep || units - first < WAIT ? units : first + WAIT;
            for (int u = first; u < end; u += VL) {
                tn_real *kau = ka + (u - first) * each, *kbu = kb + (u - first) * each;
                pair r = gate_logistic(pair_load(za + u, zb + u));
                pair z = gate_logistic(pair_load(za + block + u, zb + block + u));
                pair_store(kau, kbu, r), pair_store(kau + next, kbu + next, z);
            }
            for (int u = first; u < end; u += VL) {
                tn_real *kau = ka + (u - first) * each, *kbu = kb + (u - first) * each;
                pair r = pair_load(kau, kbu), z = pair_load(kau + next, kbu + next);
                pair hn = pair_load(za + 3 * block + u, zb + 3 * block + u);
                pair n = gate_tanh(pair_fma(r, hn, pair_load(za + 2 * block + u, zb + 2 * block + u)));
                pair_store(ha + u, hb + u, pair_fma(z, pair_sub(pair_load(h0a + u, h0b + u), n), n));
                if (keep)
                    pair_store(kau + 2 * VL, kbu + 2 * VL, n), pair_store(kau + 3 * VL, kbu + 3 * VL, hn);
            }
        }
    }
}

void tn_k_gru_cell(const tn_cell_rows *s) {
    s->kept ? gru_cell(s, 1) : gru_cell(s, 0);
}

void tn_k_gru_cell_back(const tn_cell_rows *s) {
    const ptrdiff_t d_row = s->d_row, h_row = s->h_row, kept_row = s->kept_row;
    for (int u = 0; u < s->units; u += VL) {
        four sum = four_so_far(s, u);
        target to = target_of(s, u);
        const tn_real *kept = s->kept + (ptrdiff_t)u * GRU_KEPT, *h0 = s->h0 + u;
        tn_real *dh = s->dh + u;
        for (int left = s->rows; left > 0; left--, next_row(&to)) {
            V r = vload(kept), z = vload(kept + VL), n = vload(kept + 2 * VL), hn = vload(kept + 3 * VL);
            V dh1 = vload(dh), dn = dh1 * (vset1(1) - z) * squash_slope(n);
            sum.a += put_gradient(&to, 0, dn);
            sum.b += put_gradient(&to, 1, dn * hn * logistic_slope(r));
            sum.c += put_gradient(&to, 2, dh1 * (vload(h0) - n) * logistic_slope(z));
            sum.d += put_gradient(&to, 3, dn * r);
            vstore(dh, dh1 * z);
            kept += kept_row, h0 += h_row, dh += d_row;
        }
        put_four(s, u, sum);
    }
}

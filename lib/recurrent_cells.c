/* SPDX-License-Identifier: MIT */
/* The cells' formulas, one row at a time: Elman, GRU (Cho et al., arXiv:1406.1078, PyTorch's form), LSTM. */
#include "recurrent.h"

static void elman_forward(const tn_recurrent *r, const tn_kernels_t *k, const tn_real *gx, tn_real *act,
                          tn_real *h1) {
    size_t n = (size_t)r->hidden;
    k->unary[r->cell == TN_RNN_RELU ? TN_RELU : TN_TANH](n, gx, act);
    for (size_t i = 0; i < n; i++) h1[i] = act[i];
}

static void lstm_forward(const tn_recurrent *r, const tn_kernels_t *k, const tn_real *gx, const tn_real *c0,
                         tn_real *act, tn_real *keep, tn_real *h1, tn_real *c1) {
    size_t n = (size_t)r->hidden;
    k->unary[TN_SIGMOID](2 * n, gx, act);
    k->unary[TN_TANH](n, gx + 2 * n, act + 2 * n);
    k->unary[TN_SIGMOID](n, gx + 3 * n, act + 3 * n);
    const tn_real *i = act, *f = act + n, *g = act + 2 * n, *o = act + 3 * n;
    for (size_t u = 0; u < n; u++) c1[u] = f[u] * c0[u] + i[u] * g[u];
    k->unary[TN_TANH](n, c1, keep);
    for (size_t u = 0; u < n; u++) h1[u] = o[u] * keep[u];
}

static void gru_forward(const tn_recurrent *r, const tn_kernels_t *k, const tn_real *gx, const tn_real *gh,
                        const tn_real *h0, tn_real *act, tn_real *keep, tn_real *h1) {
    size_t n = (size_t)r->hidden;
    for (size_t u = 0; u < 2 * n; u++) act[u] = gx[u] + gh[u];
    k->unary[TN_SIGMOID](2 * n, act, act);
    const tn_real *reset = act, *z = act + n;
    tn_real *new = act + 2 * n;
    for (size_t u = 0; u < n; u++) keep[u] = gh[2 * n + u], new[u] = gx[2 * n + u] + reset[u] * keep[u];
    k->unary[TN_TANH](n, new, new);
    for (size_t u = 0; u < n; u++) h1[u] = (1 - z[u]) * new[u] + z[u] * h0[u];
}

void tn_cell_forward(const tn_recurrent *r, const tn_kernels_t *k, const tn_real *gx, const tn_real *gh,
                     const tn_real *h0, const tn_real *c0, tn_real *act, tn_real *keep, tn_real *h1,
                     tn_real *c1) {
    if (r->cell == TN_LSTM)
        lstm_forward(r, k, gx, c0, act, keep, h1, c1);
    else if (r->cell == TN_GRU)
        gru_forward(r, k, gx, gh, h0, act, keep, h1);
    else
        elman_forward(r, k, gx, act, h1);
}

static void lstm_backward(size_t n, const tn_real *act, const tn_real *keep, const tn_real *c0, tn_real *dh,
                          tn_real *dc, tn_real *dg) {
    const tn_real *i = act, *f = act + n, *g = act + 2 * n, *o = act + 3 * n;
    for (size_t u = 0; u < n; u++) {
        tn_real t = keep[u], d = dc[u] + dh[u] * o[u] * (1 - t * t);
        dg[u] = d * g[u] * (i[u] * (1 - i[u]));
        dg[n + u] = d * c0[u] * (f[u] * (1 - f[u]));
        dg[2 * n + u] = d * i[u] * (1 - g[u] * g[u]);
        dg[3 * n + u] = dh[u] * t * (o[u] * (1 - o[u]));
        dc[u] = d * f[u];
        dh[u] = 0;
    }
}

static void gru_backward(size_t n, const tn_real *act, const tn_real *keep, const tn_real *h0, tn_real *dh,
                         tn_real *dgx, tn_real *dgh) {
    const tn_real *r = act, *z = act + n, *new = act + 2 * n;
    for (size_t u = 0; u < n; u++) {
        tn_real dn = dh[u] * (1 - z[u]) * (1 - new[u] * new[u]);
        dgx[u] = dgh[u] = dn * keep[u] * (r[u] * (1 - r[u]));
        dgx[n + u] = dgh[n + u] = dh[u] * (h0[u] - new[u]) * (z[u] * (1 - z[u]));
        dgx[2 * n + u] = dn;
        dgh[2 * n + u] = dn * r[u];
        dh[u] = dh[u] * z[u];
    }
}

void tn_cell_backward(const tn_recurrent *r, const tn_real *act, const tn_real *keep, const tn_real *h0,
                      const tn_real *c0, tn_real *dh, tn_real *dc, tn_real *dgx, tn_real *dgh) {
    size_t n = (size_t)r->hidden;
    if (r->cell == TN_LSTM)
        lstm_backward(n, act, keep, c0, dh, dc, dgx);
    else if (r->cell == TN_GRU)
        gru_backward(n, act, keep, h0, dh, dgx, dgh);
    else
        for (size_t u = 0; u < n; u++) {
            tn_real slope = r->cell == TN_RNN_RELU ? (act[u] > 0    ? 1
                                                      : act[u] <= 0 ? 0
                                                                    : act[u])
                                                   : 1 - act[u] * act[u];
            dgx[u] = dh[u] * slope, dh[u] = 0;
        }
}

/* SPDX-License-Identifier: MIT */
/* Cases of test_ops.c: the recurrent op, against the cells' formulas unit by unit. */
#include "opcheck.h"
#include <math.h>
#include <stdlib.h>

/* i: cell, which inputs are given (bits), reverse, hidden units; idx: lengths or NULL. */
enum { HAS_H0 = 1, HAS_C0 = 2, HAS_BIAS = 4 };

static tn_t *apply_recurrent(tn_t *const x[], const op_case *c) {
    int k = 1, bits = c->i[1];
    tn_t *h0 = bits & HAS_H0 ? x[k++] : NULL, *c0 = bits & HAS_C0 ? x[k++] : NULL;
    tn_t *w_ih = x[k++], *w_hh = x[k++], *b_ih = bits & HAS_BIAS ? x[k] : NULL,
         *b_hh = b_ih ? x[k + 1] : NULL;
    return tn_recurrent_op((tn_cell)c->i[0], x[0], h0, c0, w_ih, w_hh, b_ih, b_hh, c->idx, c->i[2]);
}

static double logistic(double z) {
    return 1 / (1 + exp(-z));
}

/* One unit's new state from the two products of its gates. */
static double unit_step(int cell, const double gx[4], const double gh[4], double h, double *c) {
    if (cell == TN_RNN_TANH) return tanh(gx[0] + gh[0]);
    if (cell == TN_RNN_RELU) return fmax(gx[0] + gh[0], 0);
    if (cell == TN_GRU) {
        double r = logistic(gx[0] + gh[0]), z = logistic(gx[1] + gh[1]), n = tanh(gx[2] + r * gh[2]);
        return (1 - z) * n + z * h;
    }
    *c = logistic(gx[1] + gh[1]) * *c + logistic(gx[0] + gh[0]) * tanh(gx[2] + gh[2]);
    return logistic(gx[3] + gh[3]) * tanh(*c);
}

static double dot_row(const double *w, int row, int n, const double *x, const double *bias) {
    double s = bias ? bias[row] : 0;
    for (int k = 0; k < n; k++) s += w[row * n + k] * x[k];
    return s;
}

static void recurrent_ref(const op_case *c, const double *const x[], double *y) {
    int steps = c->in[0].dim[0], rows = c->in[0].dim[1], in = c->in[0].dim[2], h = c->i[3], cell = c->i[0],
        k = 1;
    int gates = cell == TN_LSTM ? 4 : cell == TN_GRU ? 3 : 1, bits = c->i[1];
    const double *h0 = bits & HAS_H0 ? x[k++] : NULL, *c0 = bits & HAS_C0 ? x[k++] : NULL, *w_ih = x[k++],
                 *w_hh = x[k++];
    const double *b_ih = bits & HAS_BIAS ? x[k] : NULL, *b_hh = b_ih ? x[k + 1] : NULL;
    double *state = malloc(3 * (size_t)h * sizeof *state), *cells = state + h, *next = cells + h;
    memset(y, 0, shape_len(&c->out) * sizeof *y);
    for (int r = 0; r < rows; r++) {
        int len = c->idx ? c->idx[r] : steps;
        for (int u = 0; u < h; u++) state[u] = h0 ? h0[r * h + u] : 0, cells[u] = c0 ? c0[r * h + u] : 0;
        for (int s = 0; s < len; s++) {
            int t = c->i[2] ? len - 1 - s : s;
            for (int u = 0; u < h; u++) {
                double gx[4] = {0}, gh[4] = {0};
                for (int g = 0; g < gates; g++) {
                    gx[g] = dot_row(w_ih, g * h + u, in, x[0] + (t * rows + r) * in, b_ih);
                    gh[g] = dot_row(w_hh, g * h + u, h, state, b_hh);
                }
                next[u] = unit_step(cell, gx, gh, state[u], &cells[u]);
            }
            memcpy(state, next, (size_t)h * sizeof *state);
            memcpy(y + (t * rows + r) * h, state, (size_t)h * sizeof *state);
        }
        memcpy(y + (steps * rows + r) * h, state, (size_t)h * sizeof *state);
        if (cell == TN_LSTM) memcpy(y + ((steps + 1) * rows + r) * h, cells, (size_t)h * sizeof *state);
    }
    free(state);
}

static void case_recurrent_op(void **state) {
    (void)state;
    /* 17 and 33 rows: more than one chunk of rows, the last a small one */
    static const int sizes[][4] = {{1, 1, 1, 1}, {3, 2, 2, 3},  {2, 3, 5, 1},
                                   {4, 1, 3, 2}, {2, 17, 2, 2}, {2, 33, 1, 9}};
    static int length[33];
    for (int i = 0; i < 33; i++) length[i] = 1 + i * 7 % 5 % 2;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int cell = TN_RNN_TANH; cell <= TN_LSTM; cell++)
            for (int way = 0; way < 8; way++) { /* reverse; lengths; all inputs or only those that must be */
                int t = sizes[s][0], n = sizes[s][1], in = sizes[s][2], h = sizes[s][3], k = 0;
                int gates = cell == TN_LSTM ? 4 : cell == TN_GRU ? 3 : 1;
                int bits = !(way & 4) ? 0 : HAS_H0 | HAS_BIAS | (cell == TN_LSTM ? HAS_C0 : 0);
                op_case c = {.name = "recurrent",
                             .out = SHAPE((t + 1 + (cell == TN_LSTM)) * n * h),
                             .f = apply_recurrent,
                             .ref = recurrent_ref,
                             .idx = way & 2 ? length : NULL,
                             .i = {cell, bits, way & 1, h}};
                if (way & 2 && t < 2) continue;
                c.in[k++] = (test_shape)SHAPE(t, n, in);
                if (bits & HAS_H0) c.in[k++] = (test_shape)SHAPE(n, h);
                if (bits & HAS_C0) c.in[k++] = (test_shape)SHAPE(n, h);
                c.in[k++] = (test_shape)SHAPE(gates * h, in);
                c.in[k++] = (test_shape)SHAPE(gates * h, h);
                if (bits & HAS_BIAS) c.in[k] = c.in[k + 1] = (test_shape)SHAPE(gates * h), k += 2;
                c.n = k;
                if (n < 17 || cell != TN_RNN_RELU)
                    check_op(&c);
                else
                    check_paths(&c); /* among so many units some lie at the kink */
            }
}

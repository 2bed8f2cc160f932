/* SPDX-License-Identifier: MIT */
/*
 * Recurrent layers: Elman, GRU and LSTM of any depth, in one direction or both, with PyTorch's names, shapes and initial
 * weights (uniform in +-1/sqrt(hidden)).
 */
#include "recurrent.h"
#include <math.h>
#include <string.h>

tn_rnn tn_rnn_new(tn_params *p, const char *name, tn_cell cell, int in, int hidden, int layers, int both,
                  double dropout) {
    static const char *const words[] = {"weight_ih", "weight_hh", "bias_ih", "bias_hh"};
    TN_CHECK(NULL, layers >= 1 && layers <= TN_MAX_RNN_LAYERS, "tn_rnn_new: %s has %d layers; 1 ... %d", name,
             layers, TN_MAX_RNN_LAYERS);
    tn_rnn l = {
        .cell = cell, .hidden = hidden, .layers = layers, .directions = both ? 2 : 1, .dropout = dropout};
    int gates = cell == TN_LSTM ? 4 : cell == TN_GRU ? 3 : 1;
    double bound = 1 / sqrt((double)hidden);
    snprintf(l.name, sizeof l.name, "%s", name);
    for (int i = 0; i < layers; i++)
        for (int d = 0; d < l.directions; d++)
            for (int k = 0; k < 4; k++) {
                char full[TN_MAX_NAME];
                int cols = k == 1 ? hidden : i == 0 ? in : hidden * l.directions;
                snprintf(full, sizeof full, "%s_l%d%s", words[k], i, d ? "_reverse" : "");
                l.w[i][d][k] =
                    tn_param_add(p, name, full, k < 2 ? 0 : TN_NO_DECAY, tn_init_uniform(-bound, bound),
                                 k < 2 ? 2 : 1, (int[]){gates * hidden, cols});
            }
    return l;
}

/* Part i of an initial state (layers directions, N, H), or NULL. */
static tn_t *state_of(tn_t *given, int i) {
    return given ? tn_reshape(tn_slice(given, 0, i, i + 1), 2, given->dim + 1) : NULL;
}

/* Masks are keyed by sequence (axis 1), as everywhere by the sample: rows go first while the mask is drawn. */
static tn_t *drop_between(const tn_rnn *l, tn_t *x, int layer) {
    char key[TN_MAX_NAME + 16];
    if (l->dropout == 0 || !tn_tape_mode(x->tape).train) return x;
    snprintf(key, sizeof key, "%s.%d", l->name, layer);
    return tn_transpose(tn_dropout(tn_transpose(x, 0, 1), l->dropout, key), 0, 1);
}

/* Layer i in direction d. */
static tn_t *run(const tn_rnn *l, int i, int d, tn_t *x, tn_t *h0, tn_t *c0, const int *length, int flags) {
    tn_t *w[4];
    for (int k = 0; k < 4; k++) w[k] = tn_use(x->tape, l->w[i][d][k]);
    return tn_recurrent_run(l->cell, x, h0, c0, w[0], w[1], w[2], w[3], length, d, flags);
}

/* Part of a result from place `at`, in this shape. */
static tn_t *part(tn_t *out, int at, int nd, const int *dim) {
    int len = 1;
    for (int i = 0; i < nd; i++) len *= dim[i];
    if (at || (size_t)len != out->len) out = tn_slice(out, 0, at, at + len);
    return tn_reshape(out, nd, dim);
}

tn_t *tn_rnn_last(const tn_rnn *l, tn_t *x) {
    TN_CHECK(x->tape, x->nd == 3, "tn_rnn_last: the input must be (rows, steps, in); it has %d dimensions",
             x->nd);
    int rows = x->dim[0], whole[3] = {x->dim[1], rows, l->hidden}, last[2] = {rows, l->hidden};
    for (int i = 0; i < l->layers; i++) {
        int end = i == l->layers - 1, flags = (i ? 0 : TN_ROWS_FIRST) | (end ? TN_LAST_ONLY : 0);
        tn_t *y[2];
        if (i) x = drop_between(l, x, i - 1);
        for (int d = 0; d < l->directions; d++)
            y[d] = part(run(l, i, d, x, NULL, NULL, NULL, flags), 0, end ? 2 : 3, end ? last : whole);
        x = l->directions == 2 ? tn_concat(2, y, end ? 1 : 2) : y[0];
    }
    return x;
}

tn_rnn_out tn_rnn_fwd(const tn_rnn *l, tn_t *x, tn_t *h0, tn_t *c0, const int *length) {
    tn_tape *t = x->tape;
    TN_CHECK(t, x->nd == 3, "tn_rnn_fwd: the input must be (steps, rows, in); it has %d dimensions", x->nd);
    int steps = x->dim[0], rows = x->dim[1], h = l->hidden, n = l->layers * l->directions;
    int size = rows * h, whole[3] = {steps, rows, h}, one[3] = {1, rows, h};
    for (int k = 0; k < 2; k++) {
        tn_t *s = k ? c0 : h0;
        TN_CHECK(t, !s || (s->nd == 3 && s->dim[0] == n && s->dim[1] == rows && s->dim[2] == h),
                 "tn_rnn_fwd: an initial state must have shape (%d, %d, %d)", n, rows, h);
    }
    tn_t *hn[2 * TN_MAX_RNN_LAYERS], *cn[2 * TN_MAX_RNN_LAYERS];
    for (int i = 0; i < l->layers; i++) {
        tn_t *y[2];
        if (i) x = drop_between(l, x, i - 1);
        for (int d = 0; d < l->directions; d++) {
            int at = i * l->directions + d;
            tn_t *out = run(l, i, d, x, state_of(h0, at), state_of(c0, at), length, 0);
            y[d] = part(out, 0, 3, whole), hn[at] = part(out, steps * size, 3, one);
            if (l->cell == TN_LSTM) cn[at] = part(out, (steps + 1) * size, 3, one);
        }
        x = l->directions == 2 ? tn_concat(2, y, 2) : y[0];
    }
    tn_rnn_out o = {x, n == 1 ? hn[0] : tn_concat(n, hn, 0), NULL};
    if (l->cell == TN_LSTM) o.c_n = n == 1 ? cn[0] : tn_concat(n, cn, 0);
    return o;
}

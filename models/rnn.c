/* SPDX-License-Identifier: MIT */
/*
 * Recurrent classifiers rnn, gru and lstm: the rows of a picture are the steps of a sequence, the last state of the last
 * layer (of both directions, side by side) goes to the classes.
 */
#include "tern_models.h"

typedef struct {
    long hidden, layers;
    int bidirectional, nonlinearity; /* nonlinearity: rnn alone */
    double dropout;
} cfg;
typedef struct {
    tn_rnn rnn;
    tn_linear fc;
} net;

#define SHARED                                                                                           \
    TN_OPT_INT(cfg, hidden, 128, 1, 65536, "width of the state"),                                        \
        TN_OPT_INT(cfg, layers, 1, 1, TN_MAX_RNN_LAYERS, "recurrent layers, one on top of the other"),   \
        TN_OPT_BOOL(cfg, bidirectional, 0, "a second pass from the last row to the first"),              \
        TN_OPT_REAL(cfg, dropout, 0, 0, 1, TN_OPEN_MAX, "share dropped between the layers in training"), \
        TN_OPT_END

static const tn_opt rnn_options[] = {
    TN_OPT_WORD(cfg, nonlinearity, "tanh|relu", 0, "nonlinearity of the state"), SHARED};
static const tn_opt options[] = {SHARED};

static int build(net *m, const char *name, tn_cell cell, const cfg *c, const tn_model_shape *s, tn_params *p,
                 tn_err *e) {
    int directions = c->bidirectional ? 2 : 1;
    if (s->nd != 2 && s->nd != 3)
        return tn_fail(e, "model %s: needs pictures or sequences (steps, features) as samples; try mlp",
                       name);
    if (c->dropout > 0 && c->layers == 1)
        return tn_fail(e, "model %s: dropout acts between layers; with layers=1 there is nothing between",
                       name);
    long in = s->nd == 3 ? (long)s->dim[0] * s->dim[2] : s->dim[1];
    if (in > 1 << 26) return tn_fail(e, "model %s: a row has %ld numbers; at most %d fit", name, in, 1 << 26);
    m->rnn = tn_rnn_new(p, name, cell, (int)in, (int)c->hidden, (int)c->layers, c->bidirectional, c->dropout);
    m->fc = tn_linear_new(p, "fc", directions * (int)c->hidden, s->outputs, 1);
    return 0;
}

static int build_rnn(void *m, const void *cfg_, const tn_model_shape *s, tn_params *p, tn_err *e) {
    const cfg *c = cfg_;
    return build(m, "rnn", c->nonlinearity ? TN_RNN_RELU : TN_RNN_TANH, c, s, p, e);
}
static int build_gru(void *m, const void *c, const tn_model_shape *s, tn_params *p, tn_err *e) {
    return build(m, "gru", TN_GRU, c, s, p, e);
}
static int build_lstm(void *m, const void *c, const tn_model_shape *s, tn_params *p, tn_err *e) {
    return build(m, "lstm", TN_LSTM, c, s, p, e);
}

/* (n, c, rows, columns) or (n, rows, columns) -> (n, rows, c columns) */
static tn_t *as_steps(tn_t *x) {
    int n = x->dim[0];
    if (x->nd == 3) return x;
    if (x->dim[1] == 1) return tn_reshape(x, 3, (int[]){n, x->dim[2], x->dim[3]});
    x = tn_transpose(x, 1, 2);
    return tn_reshape(x, 3, (int[]){n, x->dim[1], -1});
}

static tn_t *forward(const void *net_, tn_t *x) {
    const net *m = net_;
    return tn_linear_fwd(&m->fc, tn_rnn_last(&m->rnn, as_steps(x)), TN_ACT_NONE);
}

const tn_model_def tn_model_rnn = {
    TN_ABI,      sizeof(tn_model_def), "rnn",       "Elman network over the rows",
    sizeof(cfg), rnn_options,          sizeof(net), build_rnn,
    forward};
const tn_model_def tn_model_gru = {TN_ABI,      sizeof(tn_model_def),
                                   "gru",       "gated recurrent unit over the rows",
                                   sizeof(cfg), options,
                                   sizeof(net), build_gru,
                                   forward};
const tn_model_def tn_model_lstm = {
    TN_ABI,      sizeof(tn_model_def), "lstm", "long short-term memory over the rows", sizeof(cfg), options,
    sizeof(net), build_lstm,           forward};

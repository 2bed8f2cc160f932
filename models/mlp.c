/* SPDX-License-Identifier: MIT */
/* Multi-layer perceptron: fc1 ... fcN, an activation between, PyTorch's initial weights. */
#include "tern_models.h"

enum { MAX_LAYERS = TN_MAX_LIST + 1 };
typedef struct {
    tn_list hidden;
    int activation, layer_norm;
    double dropout;
} cfg;
typedef struct {
    int n; /* hidden layers */
    tn_act act;
    double dropout;
    int normed;
    tn_linear fc[MAX_LAYERS];
    tn_norm norm[MAX_LAYERS];
    char name[MAX_LAYERS][16];
} net;

static const tn_opt options[] = {
    TN_OPT_LIST(cfg, hidden, "128", 1, 65536,
                "width of each hidden layer, as 512/256; 0 layers: use logistic"),
    TN_OPT_WORD(cfg, activation, "relu|tanh|sigmoid|gelu", 0, "activation between the layers"),
    TN_OPT_REAL(cfg, dropout, 0, 0, 1, TN_OPEN_MAX, "share of hidden units dropped in training"),
    TN_OPT_BOOL(cfg, layer_norm, 0, "layer norm before each activation"),
    TN_OPT_END,
};

static int build(void *net_, const void *cfg_, const tn_model_shape *s, tn_params *p, tn_err *e) {
    static const tn_act acts[] = {TN_ACT_RELU, TN_ACT_TANH, TN_ACT_SIGMOID, TN_ACT_GELU};
    net *m = net_;
    const cfg *c = cfg_;
    long in = 1;
    for (int i = 0; i < s->nd; i++) in *= s->dim[i];
    if (in > 1 << 26) return tn_fail(e, "model mlp: a sample has %ld numbers; at most %d fit", in, 1 << 26);
    m->n = c->hidden.n, m->act = acts[c->activation], m->dropout = c->dropout, m->normed = c->layer_norm;
    for (int i = 0; i <= m->n; i++) {
        int out = i < m->n ? (int)c->hidden.v[i] : s->outputs;
        if (i < m->n && c->hidden.v[i] != out)
            return tn_fail(e, "model mlp: hidden=%g is not a whole number of units", c->hidden.v[i]);
        snprintf(m->name[i], sizeof m->name[i], "fc%d", i + 1);
        m->fc[i] = tn_linear_new(p, m->name[i], (int)in, out, 1);
        if (m->normed && i < m->n) {
            char norm[16];
            snprintf(norm, sizeof norm, "norm%d", i + 1);
            m->norm[i] = tn_layer_norm_new(p, norm, out);
        }
        in = out;
    }
    return 0;
}

static tn_t *activate(tn_t *x, tn_act a) {
    switch (a) {
    case TN_ACT_TANH:
        return tn_tanh(x);
    case TN_ACT_SIGMOID:
        return tn_sigmoid(x);
    case TN_ACT_GELU:
        return tn_gelu(x);
    default:
        return tn_relu(x);
    }
}

static tn_t *forward(const void *net_, tn_t *x) {
    const net *m = net_;
    x = tn_reshape(x, 2, (int[]){x->dim[0], -1});
    for (int i = 0; i < m->n; i++) {
        if (m->normed)
            x = activate(tn_layer_norm_fwd(&m->norm[i], tn_linear_fwd(&m->fc[i], x, TN_ACT_NONE)), m->act);
        else
            x = tn_linear_fwd(&m->fc[i], x, m->act);
        x = tn_dropout(x, m->dropout, m->name[i]);
    }
    return tn_linear_fwd(&m->fc[m->n], x, TN_ACT_NONE);
}

const tn_model_def tn_model_mlp = {
    TN_ABI, sizeof(tn_model_def), "mlp", "fully connected layers", sizeof(cfg), options, sizeof(net), build,
    forward};

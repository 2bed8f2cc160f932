/* SPDX-License-Identifier: MIT */
/*
 * LeNet-5 (LeCun et al., Proceedings of the IEEE 86, 1998) as it is taught now: two convolutions with pooling, then
 * fully connected layers of 120 and 84 units; ReLU and max pooling unless asked otherwise.
 */
#include "tern_models.h"

typedef struct {
    int activation, pool, conv;
} cfg;
typedef struct {
    tn_act act;
    int average;
    tn_conv_layer conv1, conv2;
    tn_linear fc1, fc2, fc3;
} net;

static const tn_opt options[] = {
    TN_OPT_WORD(cfg, activation, "relu|tanh|sigmoid", 0, "activation after each layer"),
    TN_OPT_WORD(cfg, pool, "max|average", 0, "pooling after each convolution"),
    TN_OPT_WORD(cfg, conv, "auto|direct", 0,
                "convolution: auto: Winograd's algorithm where it is faster; direct: never"),
    TN_OPT_END,
};

static int build(void *net_, const void *cfg_, const tn_model_shape *s, tn_params *p, tn_err *e) {
    static const tn_act acts[] = {TN_ACT_RELU, TN_ACT_TANH, TN_ACT_SIGMOID};
    net *m = net_;
    const cfg *c = cfg_;
    if (s->nd != 3 || s->dim[1] < 12 || s->dim[2] < 12)
        return tn_fail(
            e, "model lenet: needs pictures (channels, height, width) of at least 12 x 12 pixels; try mlp");
    int h = (s->dim[1] / 2 - 4) / 2, w = (s->dim[2] / 2 - 4) / 2;
    tn_conv same = tn_conv_same(5), valid = tn_conv_valid();
    same.algorithm = valid.algorithm = (tn_conv_algorithm)c->conv;
    m->act = acts[c->activation], m->average = c->pool;
    m->conv1 = tn_conv_new(p, "conv1", s->dim[0], 6, 5, same, 1);
    m->conv2 = tn_conv_new(p, "conv2", 6, 16, 5, valid, 1);
    m->fc1 = tn_linear_new(p, "fc1", 16 * h * w, 120, 1);
    m->fc2 = tn_linear_new(p, "fc2", 120, 84, 1);
    m->fc3 = tn_linear_new(p, "fc3", 84, s->outputs, 1);
    return 0;
}

static tn_t *pooled(const net *m, const tn_conv_layer *conv, tn_t *x) {
    tn_pool two = tn_pool_square(2);
    if (!m->average) return tn_conv_pool_fwd(conv, x, m->act, &two);
    return tn_avg_pool2d(tn_conv_fwd(conv, x, m->act), &two);
}

static tn_t *forward(const void *net_, tn_t *x) {
    const net *m = net_;
    x = pooled(m, &m->conv2, pooled(m, &m->conv1, x));
    x = tn_reshape(x, 2, (int[]){x->dim[0], -1});
    x = tn_linear_fwd(&m->fc2, tn_linear_fwd(&m->fc1, x, m->act), m->act);
    return tn_linear_fwd(&m->fc3, x, TN_ACT_NONE);
}

const tn_model_def tn_model_lenet = {TN_ABI,      sizeof(tn_model_def),
                                     "lenet",     "LeNet-5: two convolutions, three linear layers",
                                     sizeof(cfg), options,
                                     sizeof(net), build,
                                     forward};

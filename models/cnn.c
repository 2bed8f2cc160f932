/* SPDX-License-Identifier: MIT */
/*
 * The network of PyTorch's MNIST example (pytorch/examples, mnist/main.py): two 3x3 convolutions, max pooling, dropout, a
 * linear layer, dropout, the classes.
 */
#include "tern_models.h"

typedef struct {
    long filters, hidden;
    double dropout;
    int conv;
} cfg;
typedef struct {
    double dropout;
    tn_conv_layer conv1, conv2;
    tn_linear fc1, fc2;
} net;

static const tn_opt options[] = {
    TN_OPT_INT(cfg, filters, 32, 1, 1024, "filters of the first convolution; the second has twice as many"),
    TN_OPT_INT(cfg, hidden, 128, 1, 65536, "width of the hidden linear layer"),
    TN_OPT_REAL(cfg, dropout, 0.5, 0, 1, TN_OPEN_MAX,
                "share dropped before the last layer; half as much after pooling"),
    TN_OPT_WORD(cfg, conv, "auto|direct", 0,
                "convolution: auto: Winograd's algorithm where it is faster; direct: never"),
    TN_OPT_END,
};

static int build(void *net_, const void *cfg_, const tn_model_shape *s, tn_params *p, tn_err *e) {
    net *m = net_;
    const cfg *c = cfg_;
    if (s->nd != 3 || s->dim[1] < 6 || s->dim[2] < 6)
        return tn_fail(
            e, "model cnn: needs pictures (channels, height, width) of at least 6 x 6 pixels; try mlp");
    int f = (int)c->filters, hidden = (int)c->hidden;
    long flat = 2L * f * ((s->dim[1] - 4) / 2) * ((s->dim[2] - 4) / 2);
    if (flat > 1 << 26)
        return tn_fail(e, "model cnn: %ld numbers enter the linear layer; at most %d fit", flat, 1 << 26);
    tn_conv valid = tn_conv_valid();
    valid.algorithm = (tn_conv_algorithm)c->conv;
    m->dropout = c->dropout;
    m->conv1 = tn_conv_new(p, "conv1", s->dim[0], f, 3, valid, 1);
    m->conv2 = tn_conv_new(p, "conv2", f, 2 * f, 3, valid, 1);
    m->fc1 = tn_linear_new(p, "fc1", (int)flat, hidden, 1);
    m->fc2 = tn_linear_new(p, "fc2", hidden, s->outputs, 1);
    return 0;
}

static tn_t *forward(const void *net_, tn_t *x) {
    const net *m = net_;
    tn_pool two = tn_pool_square(2);
    x = tn_conv_block_fwd(&m->conv1, &m->conv2, x, TN_ACT_RELU, &two, m->dropout / 2, "dropout1");
    x = tn_linear_fwd(&m->fc1, tn_reshape(x, 2, (int[]){x->dim[0], -1}), TN_ACT_RELU);
    return tn_linear_fwd(&m->fc2, tn_dropout(x, m->dropout, "dropout2"), TN_ACT_NONE);
}

const tn_model_def tn_model_cnn = {
    TN_ABI,      sizeof(tn_model_def),
    "cnn",       "PyTorch's MNIST example: two convolutions, two linear layers",
    sizeof(cfg), options,
    sizeof(net), build,
    forward};

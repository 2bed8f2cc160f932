/* SPDX-License-Identifier: MIT */
/*
 * A small residual network with batch norm: the CIFAR-10 form of He et al., arXiv:1512.03385, section 4.2. Three stages
 * of basic blocks, the second and third of half the size and twice the channels; the mean over positions goes to the
 * classes. Names are torchvision's: conv1, bn1, layer1.0.conv1 ... layer2.0.downsample.0, fc.
 */
#include "tern_models.h"

enum { STAGES = 3, MAX_BLOCKS = 9 };
typedef struct {
    long width, blocks;
    int conv;
} cfg;
typedef struct {
    tn_conv_layer conv1, conv2, shortcut;
    tn_batch_norm_layer bn1, bn2, shortcut_bn;
    int projected; /* the shortcut is a strided 1x1 convolution */
} block;
typedef struct {
    int blocks;
    tn_conv_layer conv1;
    tn_batch_norm_layer bn1;
    block stage[STAGES][MAX_BLOCKS];
    tn_linear fc;
} net;

static const tn_opt options[] = {
    TN_OPT_INT(cfg, width, 16, 1, 1024, "channels of the first stage; each later stage has twice as many"),
    TN_OPT_INT(cfg, blocks, 1, 1, MAX_BLOCKS, "blocks of two convolutions in each of the three stages"),
    TN_OPT_WORD(cfg, conv, "auto|direct", 0,
                "convolution: auto: Winograd's algorithm where it is faster; direct: never"),
    TN_OPT_END,
};

static void new_block(block *b, tn_params *p, tn_conv same, int stage, int i, int in, int out) {
    char name[40];
    tn_conv strided = same, point = tn_conv_valid();
    if (i == 0 && stage > 0) strided.stride[0] = strided.stride[1] = point.stride[0] = point.stride[1] = 2;
    int n = snprintf(name, sizeof name, "layer%d.%d.", stage + 1, i);
#define NAMED(part) (snprintf(name + n, sizeof name - (size_t)n, part), name)
    b->conv1 = tn_conv_new(p, NAMED("conv1"), in, out, 3, strided, 0);
    b->bn1 = tn_batch_norm_new(p, NAMED("bn1"), out);
    b->conv2 = tn_conv_new(p, NAMED("conv2"), out, out, 3, same, 0);
    b->bn2 = tn_batch_norm_new(p, NAMED("bn2"), out);
    b->projected = in != out;
    if (b->projected) {
        b->shortcut = tn_conv_new(p, NAMED("downsample.0"), in, out, 1, point, 0);
        b->shortcut_bn = tn_batch_norm_new(p, NAMED("downsample.1"), out);
    }
#undef NAMED
}

static int build(void *net_, const void *cfg_, const tn_model_shape *s, tn_params *p, tn_err *e) {
    net *m = net_;
    const cfg *c = cfg_;
    int in = (int)c->width;
    tn_conv same = tn_conv_same(3);
    same.algorithm = (tn_conv_algorithm)c->conv;
    if (s->nd != 3) return tn_fail(e, "model resnet: needs pictures (channels, height, width); try mlp");
    m->blocks = (int)c->blocks;
    m->conv1 = tn_conv_new(p, "conv1", s->dim[0], in, 3, same, 0);
    m->bn1 = tn_batch_norm_new(p, "bn1", in);
    for (int k = 0; k < STAGES; k++)
        for (int i = 0; i < m->blocks; i++) {
            int out = (int)c->width << k;
            new_block(&m->stage[k][i], p, same, k, i, in, out);
            in = out;
        }
    m->fc = tn_linear_new(p, "fc", in, s->outputs, 1);
    return 0;
}

static tn_t *through(const block *b, tn_t *x) {
    tn_t *y = tn_batch_norm_fwd(&b->bn1, tn_conv_fwd(&b->conv1, x, TN_ACT_NONE), TN_ACT_RELU);
    y = tn_batch_norm_fwd(&b->bn2, tn_conv_fwd(&b->conv2, y, TN_ACT_NONE), TN_ACT_NONE);
    if (b->projected)
        x = tn_batch_norm_fwd(&b->shortcut_bn, tn_conv_fwd(&b->shortcut, x, TN_ACT_NONE), TN_ACT_NONE);
    return tn_relu(tn_add(y, x));
}

static tn_t *forward(const void *net_, tn_t *x) {
    const net *m = net_;
    x = tn_batch_norm_fwd(&m->bn1, tn_conv_fwd(&m->conv1, x, TN_ACT_NONE), TN_ACT_RELU);
    for (int k = 0; k < STAGES; k++)
        for (int i = 0; i < m->blocks; i++) x = through(&m->stage[k][i], x);
    tn_pool all = {{x->dim[2], x->dim[3]}, {1, 1}, {0, 0}};
    x = tn_avg_pool2d(x, &all);
    return tn_linear_fwd(&m->fc, tn_reshape(x, 2, (int[]){x->dim[0], -1}), TN_ACT_NONE);
}

const tn_model_def tn_model_resnet = {TN_ABI,      sizeof(tn_model_def),
                                      "resnet",    "small residual network with batch norm",
                                      sizeof(cfg), options,
                                      sizeof(net), build,
                                      forward};

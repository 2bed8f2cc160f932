/* SPDX-License-Identifier: MIT */
/* act(conv2d(x, w) + b) in one op: bias and ReLU ride on the product. */
#include "conv.h"
#include "kernels/kernels.h"

typedef struct {
    tn_conv c;
    tn_conv_plan p;
    tn_act act;
} conv_act_aux;

/* Sum over images and positions of each channel, in double, images in order. */
typedef struct {
    int n, channels;
    size_t positions;
    const tn_real *gy;
    tn_real *out;
    int add;
} channel_job;

static void channel_sum(void *arg, int c) {
    const channel_job *j = arg;
    double sum = 0;
    for (int n = 0; n < j->n; n++)
        sum += tn_kernels_get(NULL)->sum(
            j->positions, j->gy + ((size_t)n * (size_t)j->channels + (size_t)c) * j->positions);
    j->out[c] = (tn_real)sum + (j->add ? j->out[c] : 0);
}

void tn_channel_sums(int n, int channels, size_t positions, const tn_real *x, int add, tn_real *out) {
    channel_job j = {n, channels, positions, x, out, add};
    tn_parallel(channels, channel_sum, &j);
}

static void conv_act_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const conv_act_aux *a = y->aux;
    const int relu = a->act == TN_ACT_RELU;
    if (!(need & 1) && (relu || a->act == TN_ACT_NONE) && tn_conv_planes_fit(&a->p)) {
        tn_conv_planes_grad(y->tape, &a->p, y->src[0]->x, gy, relu ? y->x : NULL, add >> 1,
                            need & 2 ? gx[1] : NULL, need & 4 ? gx[2] : NULL);
        return;
    }
    const tn_real *dz = tn_act_back(y, a->act, gy);
    if (need & 1) tn_conv_input_grad(y->tape, &a->p, dz, y->src[1]->x, add & 1, gx[0]);
    if (need & 2) tn_conv_weight_grad(y->tape, &a->p, y->src[0]->x, dz, (add >> 1) & 1, gx[1]);
    if (need & 4)
        tn_channel_sums(y->dim[0], y->dim[1], (size_t)(y->dim[2] * y->dim[3]), dz, (add >> 2) & 1, gx[2]);
}

static tn_t *conv_act_expand(tn_t *y) {
    const conv_act_aux *a = y->aux;
    tn_t *z = tn_conv2d(y->src[0], y->src[1], &a->c);
    if (y->src[2]) z = tn_add(z, tn_reshape(y->src[2], 3, (int[]){y->dim[1], 1, 1}));
    return tn_activate(z, a->act);
}

static double conv_act_flops(const tn_t *y) {
    return 2.0 * (double)y->len * ((const conv_act_aux *)y->aux)->p.k;
}

static const tn_op op_conv2d_act = {
    .name = "conv2d_act", .expand = conv_act_expand, .bwd = conv_act_bwd, .flops = conv_act_flops};

tn_t *tn_conv2d_act(tn_t *x, tn_t *w, tn_t *b, const tn_conv *c, tn_act act) {
    TN_CHECK(x->tape, x->nd == 4 && w->nd == 4,
             "conv2d: input and weight must have four dimensions, not %d and %d", x->nd, w->nd);
    TN_CHECK(x->tape, !b || (b->nd == 1 && b->dim[0] == w->dim[0]), "conv2d: the bias must have shape (%d,)",
             w->dim[0]);
    if (act == TN_ACT_GELU) return tn_gelu(tn_conv2d_act(x, w, b, c, TN_ACT_NONE));
    conv_act_aux a = {*c, tn_conv_shape(x->tape, "conv2d", x->dim, w->dim, c), act};
    if (w->param) a.p.kept = w;
    tn_t *y = tn_new(x->tape, 4, (int[]){x->dim[0], w->dim[0], a.p.g.oh, a.p.g.ow});
    tn_conv_forward(x->tape, &a.p, x->x, w->x, b ? b->x : NULL, act == TN_ACT_RELU, y->x);
    if (act == TN_ACT_TANH || act == TN_ACT_SIGMOID) tn_act_all(act, y->len, y->x);
    return tn_result(&op_conv2d_act, y, 3, (tn_t *[]){x, w, b}, &a, sizeof a);
}

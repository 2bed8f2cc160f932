/* SPDX-License-Identifier: MIT */
/* Multinomial logistic regression: one linear layer, fc. */
#include "tern_models.h"

typedef struct {
    int bias;
} cfg;
typedef struct {
    tn_linear fc;
} net;

static const tn_opt options[] = {TN_OPT_BOOL(cfg, bias, 1, "a bias for each class"), TN_OPT_END};

static int build(void *net_, const void *cfg_, const tn_model_shape *s, tn_params *p, tn_err *e) {
    long in = 1;
    for (int i = 0; i < s->nd; i++) in *= s->dim[i];
    if (in > 1 << 26)
        return tn_fail(e, "model logistic: a sample has %ld numbers; at most %d fit", in, 1 << 26);
    ((net *)net_)->fc = tn_linear_new(p, "fc", (int)in, s->outputs, ((const cfg *)cfg_)->bias);
    return 0;
}

static tn_t *forward(const void *net_, tn_t *x) {
    return tn_linear_fwd(&((const net *)net_)->fc, tn_reshape(x, 2, (int[]){x->dim[0], -1}), TN_ACT_NONE);
}

const tn_model_def tn_model_logistic = {
    TN_ABI, sizeof(tn_model_def), "logistic", "one linear layer", sizeof(cfg), options, sizeof(net), build,
    forward};

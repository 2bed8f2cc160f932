/* SPDX-License-Identifier: MIT */
/* Layer norm and batch norm: weight (the gain, ones) and bias (zeros), neither of which decays; eps 1e-5 as PyTorch's. */
#include "internal.h"

tn_norm tn_layer_norm_new(tn_params *p, const char *name, int n) {
    return (tn_norm){tn_param_add(p, name, "weight", TN_NO_DECAY, tn_init_const(1), 1, &n),
                     tn_param_add(p, name, "bias", TN_NO_DECAY, tn_init_const(0), 1, &n), 1e-5};
}

tn_t *tn_layer_norm_fwd(const tn_norm *l, tn_t *x) {
    tn_t *gain = tn_use(x->tape, l->weight);
    return tn_layer_norm(x, gain, tn_use(x->tape, l->bias), l->eps);
}

tn_batch_norm_layer tn_batch_norm_new(tn_params *p, const char *name, int channels) {
    tn_batch_norm_layer l = {.eps = 1e-5, .momentum = 0.1};
    l.weight = tn_param_add(p, name, "weight", TN_NO_DECAY, tn_init_const(1), 1, &channels);
    l.bias = tn_param_add(p, name, "bias", TN_NO_DECAY, tn_init_const(0), 1, &channels);
    l.running_mean =
        tn_param_add(p, name, "running_mean", TN_BUFFER | TN_NO_DECAY, tn_init_const(0), 1, &channels);
    l.running_var =
        tn_param_add(p, name, "running_var", TN_BUFFER | TN_NO_DECAY, tn_init_const(1), 1, &channels);
    return l;
}

tn_t *tn_batch_norm_fwd(const tn_batch_norm_layer *l, tn_t *x, tn_act act) {
    tn_tape *t = x->tape;
    tn_t *gain = tn_use(t, l->weight), *bias = tn_use(t, l->bias), *mean, *var, *y;
    if (tn_tape_mode(t).train) {
        y = tn_batch_norm(x, gain, bias, l->eps, &mean, &var);
        tn_plan_buffer(l->running_mean, mean, l->momentum);
        tn_plan_buffer(l->running_var, var, l->momentum);
    } else {
        y = tn_batch_norm_fixed(x, gain, bias, tn_use(t, l->running_mean), tn_use(t, l->running_var), l->eps);
    }
    return tn_activate(y, act);
}

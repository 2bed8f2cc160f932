/* SPDX-License-Identifier: MIT */
/* Layer norm: weight (the gain, ones) and bias (zeros), neither of which decays; eps 1e-5 as PyTorch's. */
#include "internal.h"

tn_norm tn_layer_norm_new(tn_params *p, const char *name, int n) {
    return (tn_norm){tn_param_add(p, name, "weight", TN_NO_DECAY, tn_init_const(1), 1, &n),
                     tn_param_add(p, name, "bias", TN_NO_DECAY, tn_init_const(0), 1, &n), 1e-5};
}

tn_t *tn_layer_norm_fwd(const tn_norm *l, tn_t *x) {
    tn_t *gain = tn_use(x->tape, l->weight);
    return tn_layer_norm(x, gain, tn_use(x->tape, l->bias), l->eps);
}

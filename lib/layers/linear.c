/* SPDX-License-Identifier: MIT */
/* Linear layer: weight (out, in) and bias (out,), initialised as PyTorch's nn.Linear. */
#include "internal.h"
#include <math.h>

tn_linear tn_linear_new(tn_params *p, const char *name, int in, int out, int bias) {
    double bound = 1 / sqrt((double)in);
    tn_linear l = {tn_param_add(p, name, "weight", 0, tn_init_pytorch(), 2, (int[]){out, in}), NULL};
    if (bias) l.bias = tn_param_add(p, name, "bias", TN_NO_DECAY, tn_init_uniform(-bound, bound), 1, &out);
    return l;
}

tn_t *tn_linear_fwd(const tn_linear *l, tn_t *x, tn_act act) {
    tn_t *w = tn_use(x->tape, l->weight); /* apart: the order on the tape must not be the compiler's choice */
    return tn_linear_act(x, w, l->bias ? tn_use(x->tape, l->bias) : NULL, act);
}

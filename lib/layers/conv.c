/* SPDX-License-Identifier: MIT */
/* Convolution layer: weight (co, ci / groups, k, k) and bias (co,), initialised as PyTorch's nn.Conv2d; its usual windows. */
#include "internal.h"
#include <math.h>

tn_conv tn_conv_same(int k) {
    return (tn_conv){{1, 1}, {k / 2, k / 2}, {1, 1}, 1, TN_CONV_AUTO};
}

tn_conv tn_conv_valid(void) {
    return tn_conv_same(1);
}

tn_pool tn_pool_square(int k) {
    return (tn_pool){{k, k}, {k, k}, {0, 0}};
}

tn_conv_layer tn_conv_new(tn_params *p, const char *name, int ci, int co, int k, tn_conv c, int bias) {
    int in = c.groups > 0 ? ci / c.groups : ci;
    double bound = 1 / sqrt((double)in * k * k);
    tn_conv_layer l = {tn_param_add(p, name, "weight", 0, tn_init_pytorch(), 4, (int[]){co, in, k, k}), NULL,
                       c};
    if (bias) l.bias = tn_param_add(p, name, "bias", TN_NO_DECAY, tn_init_uniform(-bound, bound), 1, &co);
    return l;
}

tn_t *tn_conv_fwd(const tn_conv_layer *l, tn_t *x, tn_act act) {
    return tn_conv2d_act(x, tn_use(x->tape, l->weight), l->bias ? tn_use(x->tape, l->bias) : NULL, &l->conv,
                         act);
}

tn_t *tn_conv_pool_fwd(const tn_conv_layer *l, tn_t *x, tn_act act, const tn_pool *pool) {
    return tn_conv2d_pool(x, tn_use(x->tape, l->weight), l->bias ? tn_use(x->tape, l->bias) : NULL, &l->conv,
                          act, pool);
}

tn_t *tn_conv_block_fwd(const tn_conv_layer *first, const tn_conv_layer *second, tn_t *x, tn_act act,
                        const tn_pool *pool, double p, const char *name) {
    tn_tape *t = x->tape;
    tn_t *w1 = tn_use(t, first->weight), *b1 = first->bias ? tn_use(t, first->bias) : NULL;
    tn_t *w2 = tn_use(t, second->weight), *b2 = second->bias ? tn_use(t, second->bias) : NULL;
    return tn_conv2d_block(x, w1, b1, &first->conv, w2, b2, &second->conv, act, pool, p, name);
}

/* SPDX-License-Identifier: MIT */
/* Two convolutions with ReLU, max pooling and dropout in one op, see conv_chain.c. */
#include "conv_chain.h"

typedef struct {
    tn_conv c1, c2;
    tn_conv_chain p;
    unsigned char *winner;
} block_aux;

enum { X, W1, B1, W2, B2, SOURCES };

static tn_conv_chain_weights weights_of(tn_t *const src[]) {
    return (tn_conv_chain_weights){src[W1]->x, src[B1] ? src[B1]->x : NULL, src[W2]->x,
                                   src[B2] ? src[B2]->x : NULL};
}

static void block_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const block_aux *a = y->aux;
    const tn_conv_chain_weights w = weights_of(y->src);
    const tn_conv_chain_grads g = {need >> W1 & 1 ? gx[W1] : NULL, need >> B1 & 1 ? gx[B1] : NULL,
                                   need >> W2 & 1 ? gx[W2] : NULL, need >> B2 & 1 ? gx[B2] : NULL};
    tn_conv_chain_backward(y->tape, &a->p, y->src[X]->x, &w, y->x, a->winner, gy, add >> W1, &g);
}

static tn_t *block_expand(tn_t *y) {
    const block_aux *a = y->aux;
    tn_t *z = tn_conv2d_act(y->src[X], y->src[W1], y->src[B1], &a->c1, TN_ACT_RELU);
    z = tn_conv_pool_again(z, y->src[W2], y->src[B2], &a->c2, &a->p.second, a->winner);
    return a->p.drop.p > 0 ? tn_dropout_planned(z, &a->p.drop) : z;
}

/* Of the first convolution, and of the second. */
static double flops_of(const tn_t *y, int second) {
    const tn_conv_chain *p = &((const block_aux *)y->aux)->p;
    const tn_conv_plan *c = second ? &p->second.conv : &p->first;
    const double rows = second ? p->second.pool.h : c->g.oh, cols = second ? p->second.pool.w : c->g.ow;
    return 2.0 * c->n * c->co * c->k * rows * cols;
}

static double block_flops(const tn_t *y) {
    return flops_of(y, 0) + flops_of(y, 1);
}

static double block_back_flops(const tn_t *y) {
    const int w1 = y->src[W1]->needs, b1 = y->src[B1] && y->src[B1]->needs, w2 = y->src[W2]->needs;
    return w1 * flops_of(y, 0) + ((w1 || b1) + w2) * flops_of(y, 1);
}

static const tn_op op_conv2d_block = {.name = "conv2d_block",
                                      .expand = block_expand,
                                      .bwd = block_bwd,
                                      .flops = block_flops,
                                      .back_flops = block_back_flops};

static int plan(tn_t *x, tn_t *w1, tn_t *b1, const tn_conv *c1, tn_t *w2, tn_t *b2, const tn_conv *c2,
                const tn_pool *pool, tn_conv_chain *p) {
    if (x->needs || x->nd != 4 || w1->nd != 4 || (b1 && (b1->nd != 1 || b1->dim[0] != w1->dim[0]))) return 0;
    p->first = tn_conv_shape(x->tape, "conv2d_block", x->dim, w1->dim, c1);
    const int middle[] = {x->dim[0], w1->dim[0], p->first.g.oh, p->first.g.ow};
    return tn_conv_pool_plan_make(x->tape, middle, w2, b2, c2, TN_ACT_RELU, pool, &p->second)
           && tn_conv_chain_fits(p);
}

tn_t *tn_conv2d_block(tn_t *x, tn_t *w1, tn_t *b1, const tn_conv *c1, tn_t *w2, tn_t *b2, const tn_conv *c2,
                      tn_act act, const tn_pool *pool, double drop, const char *name) {
    block_aux a = {.c1 = *c1, .c2 = *c2};
    if (act != TN_ACT_RELU || !plan(x, w1, b1, c1, w2, b2, c2, pool, &a.p)) {
        tn_t *z = tn_conv2d_act(x, w1, b1, c1, act); /* these also say what does not fit */
        return tn_dropout(tn_conv2d_pool(z, w2, b2, c2, act, pool), drop, name);
    }
    const tn_window *g = &a.p.second.pool;
    tn_dropout_plan_make(x->tape, drop, name, &a.p.drop);
    tn_t *y = tn_new(x->tape, 4, (int[]){x->dim[0], g->c, g->oh, g->ow}), *src[SOURCES] = {x, w1, b1, w2, b2};
    const tn_conv_chain_weights w = weights_of(src);
    if (tn_tape_mode(x->tape).record) a.winner = tn_scratch(x->tape, y->len);
    tn_conv_chain_forward(x->tape, &a.p, x->x, &w, y->x, a.winner);
    return tn_result(&op_conv2d_block, y, SOURCES, src, &a, sizeof a);
}

/* SPDX-License-Identifier: MIT */
/*
 * Max pooling of act(conv2d(x, w) + b) in one op: what the convolution makes is pooled while it is in the cache and
 * never stored; of each window one byte remembers which element won.
 */
#include "conv_pool.h"

enum { MAX_WINDOW = 16 }; /* so that a place in a window fits a byte */

typedef struct {
    tn_conv c;
    tn_conv_pool_plan p;
    unsigned char *winner;
} conv_pool_aux;

static void conv_pool_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const conv_pool_aux *a = y->aux;
    tn_conv_pool_backward(y->tape, &a->p, y->src[0]->x, y->src[1]->x, y->x, a->winner, gy, add,
                          need & 1 ? gx[0] : NULL, need & 2 ? gx[1] : NULL, need & 4 ? gx[2] : NULL);
}

/* The pooling is a gather by the winners that were found. */
tn_t *tn_conv_pool_again(tn_t *x, tn_t *w, tn_t *b, const tn_conv *c, const tn_conv_pool_plan *p,
                         const unsigned char *winner) {
    const tn_window *g = &p->pool;
    const int n = p->conv.n, planes = n * g->c;
    tn_t *z = tn_conv2d(x, w, c);
    if (b) z = tn_add(z, tn_reshape(b, 3, (int[]){g->c, 1, 1}));
    if (p->relu) z = tn_relu(z);
    int *index = tn_scratch(x->tape, (size_t)planes * (size_t)(g->oh * g->ow) * sizeof *index), at = 0;
    for (int plane = 0; plane < planes; plane++)
        for (int r = 0; r < g->oh; r++)
            for (int q = 0; q < g->ow; q++, at++) {
                int i = winner[at] / g->kw, j = winner[at] % g->kw;
                index[at] = (plane * g->h + r * g->kh + i) * g->w + q * g->kw + j;
            }
    return tn_take(z, index, 4, (int[]){n, g->c, g->oh, g->ow});
}

static tn_t *conv_pool_expand(tn_t *y) {
    const conv_pool_aux *a = y->aux;
    return tn_conv_pool_again(y->src[0], y->src[1], y->src[2], &a->c, &a->p, a->winner);
}

static double conv_pool_flops(const tn_t *y) {
    const tn_conv_pool_plan *p = &((const conv_pool_aux *)y->aux)->p;
    return 2.0 * p->conv.n * p->conv.co * p->conv.k * (double)(p->pool.h * p->pool.w);
}

static const tn_op op_conv2d_pool = {
    .name = "conv2d_pool", .expand = conv_pool_expand, .bwd = conv_pool_bwd, .flops = conv_pool_flops};

static int plain_window(const tn_conv *c, const tn_pool *p) {
    int ok = c->groups == 1;
    for (int i = 0; i < 2; i++)
        ok &= c->stride[i] == 1 && c->dilation[i] == 1 && p->stride[i] == p->kernel[i] && p->pad[i] == 0
              && p->kernel[i] > 0 && p->kernel[i] <= MAX_WINDOW;
    return ok;
}

int tn_conv_pool_plan_make(tn_tape *t, const int x[4], const tn_t *w, const tn_t *b, const tn_conv *c,
                           tn_act act, const tn_pool *pool, tn_conv_pool_plan *p) {
    if (w->nd != 4 || (act != TN_ACT_NONE && act != TN_ACT_RELU) || !plain_window(c, pool)
        || (b && (b->nd != 1 || b->dim[0] != w->dim[0])))
        return 0;
    *p = (tn_conv_pool_plan){.conv = tn_conv_shape(t, "conv2d_pool", x, w->dim, c),
                             .relu = act == TN_ACT_RELU};
    if (w->param) p->conv.kept = w;
    const tn_window *g = &p->conv.g;
    int kh = pool->kernel[0], kw = pool->kernel[1];
    p->pool = (tn_window){w->dim[0], g->oh, g->ow, kh, kw, g->oh / kh, g->ow / kw, kh, kw, 0, 0, 1, 1};
    return p->pool.oh > 0 && p->pool.ow > 0
           && (double)x[0] * w->dim[0] * g->oh * g->ow <= INT32_MAX; /* indices of expand */
}

tn_t *tn_conv2d_pool(tn_t *x, tn_t *w, tn_t *b, const tn_conv *c, tn_act act, const tn_pool *pool) {
    conv_pool_aux a = {.c = *c};
    if (x->nd != 4 || !tn_conv_pool_plan_make(x->tape, x->dim, w, b, c, act, pool, &a.p))
        return tn_max_pool2d(tn_conv2d_act(x, w, b, c, act), pool); /* also says what does not fit */
    tn_t *y = tn_new(x->tape, 4, (int[]){x->dim[0], w->dim[0], a.p.pool.oh, a.p.pool.ow});
    if (tn_tape_mode(x->tape).record) a.winner = tn_scratch(x->tape, y->len);
    tn_conv_pool_forward(x->tape, &a.p, x->x, w->x, b ? b->x : NULL, y->x, a.winner);
    return tn_result(&op_conv2d_pool, y, 3, (tn_t *[]){x, w, b}, &a, sizeof a);
}

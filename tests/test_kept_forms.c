/* SPDX-License-Identifier: MIT */
/*
 * The packed and transformed forms of weights that a parameter set keeps: layers of a parameter, batch after batch, with and
 * without recording, in turn with other layers of the same weights and after the weights have changed, give bit for bit what
 * the same layers give from tensors that are no parameters, for which nothing is kept.
 */
#include "support.h"
#include <stdlib.h>

enum {
    BATCH = 200, /* so that of three threads each takes rows of the wide layer */
    IN = 2100,
    OUT = 260,
    CO = 24,
    CI = 16,
    SIDE = 14
};

typedef struct {
    tn_tape *t;
    tn_params *params;
    tn_param *linear, *small, *three, *five;
    tn_real *x;
} rig;

static tn_t *plain(tn_tape *t, const tn_param *p) {
    return tn_leaf(t, p->w, p->nd, p->dim);
}

static tn_t *run(const rig *r, int layer, tn_t *w) {
    const int picture[] = {3, CI, SIDE, SIDE};
    tn_conv c = tn_conv_valid(), direct = c;
    const tn_pool two = tn_pool_square(2);
    direct.algorithm = TN_CONV_DIRECT;
    tn_t *x = layer < 2 ? tn_input(r->t, r->x, 2, (int[]){BATCH, layer ? 96 : IN})
                        : tn_input(r->t, r->x, 4, picture);
    switch (layer) {
    case 0:
    case 1:
        return tn_linear_act(x, w, NULL, TN_ACT_RELU);
    case 2:
        return tn_conv2d_act(x, w, NULL, &c, TN_ACT_RELU);
    case 3:
        return tn_conv2d_pool(x, w, NULL, &c, TN_ACT_RELU, &two);
    case 4:
        return tn_conv2d_act(x, w, NULL, &direct, TN_ACT_RELU);
    case 5:
        return tn_conv2d(x, w, &c);
    case 6:
        return tn_conv2d_pool(x, w, NULL, &c, TN_ACT_RELU, &two);
    default:
        return tn_conv2d_pool(x, w, NULL, &direct, TN_ACT_NONE, &two);
    }
}

static void check(const rig *r, int layer, const char *when) {
    tn_param *p = layer == 0 ? r->linear : layer == 1 ? r->small : layer < 6 ? r->three : r->five;
    for (int record = 0; record < 2; record++) {
        tn_tape_reset(r->t);
        tn_record(r->t, record);
        const tn_t *kept = run(r, layer, tn_use(r->t, p)), *fresh = run(r, layer, plain(r->t, p));
        for (size_t i = 0; i < kept->len; i++)
            if (memcmp(kept->x + i, fresh->x + i, sizeof *kept->x) != 0)
                fail_msg("layer %d %s, record %d: element %zu is %g, not %g", layer, when, record, i,
                         (double)kept->x[i], (double)fresh->x[i]);
    }
    tn_record(r->t, 1);
}

static void kept_forms(void **state) {
    (void)state;
    rig r = {.t = tn_tape_new(NULL), .params = tn_params_new()};
    tn_err e;
    r.linear = tn_param_add(r.params, "linear", "weight", 0, tn_init_uniform(-1, 1), 2, (int[]){OUT, IN});
    r.small = tn_param_add(r.params, "small", "weight", 0, tn_init_uniform(-1, 1), 2, (int[]){33, 96});
    r.three = tn_param_add(r.params, "three", "weight", 0, tn_init_uniform(-1, 1), 4, (int[]){CO, CI, 3, 3});
    r.five = tn_param_add(r.params, "five", "weight", 0, tn_init_uniform(-1, 1), 4, (int[]){CO, CI, 5, 5});
    assert_int_equal(tn_params_seal(r.params, 1, &e), 0);
    r.x = malloc((size_t)BATCH * IN * sizeof *r.x);
    assert_non_null(r.x);
    for (int i = 0; i < BATCH * IN; i++) r.x[i] = (tn_real)((i % 1009 * 7919 % 1009) / 504.5 - 1);
    size_t len;
    tn_real *w = tn_params_flat(r.params, &len);
    for (int threads = 1; threads <= 3; threads++) {
        tn_set_threads(threads);
        for (int layer = 0; layer < 8; layer++) check(&r, layer, "first"), check(&r, layer, "again");
        for (int layer = 7; layer >= 0; layer--) check(&r, layer, "in turn");
        for (size_t i = 0; i < len; i++) w[i] = -w[i] / 2;
        tn_params_touch(r.params);
        for (int layer = 0; layer < 8; layer++) check(&r, layer, "after a change");
    }
    tn_set_threads(0);
    free(r.x);
    tn_params_free(r.params), tn_tape_free(r.t);
}

/* Without recording pooling keeps no places; what it gives is the same, and on the next tape with recording it has a gradient. */
static void nothing_kept_for_backward(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    tn_real x[CI * SIDE * SIDE];
    for (int i = 0; i < CI * SIDE * SIDE; i++) x[i] = (tn_real)((i % 1009 * 7919 % 1009) / 504.5 - 1);
    const int dim[] = {1, CI, SIDE, SIDE};
    const tn_pool two = tn_pool_square(2), three = tn_pool_square(3);
    tn_real y[2][CI * SIDE * SIDE];
    for (int record = 0; record < 2; record++) {
        tn_tape_reset(t);
        tn_record(t, record);
        tn_t *in = tn_leaf(t, x, 4, dim), *z = tn_max_pool2d(in, &two), *q = tn_max_pool2d(in, &three), *g;
        memcpy(y[record], z->x, z->len * sizeof *y[0]);
        memcpy(y[record] + z->len, q->x, q->len * sizeof *y[0]);
        if (!record) continue;
        assert_memory_equal(y[0], y[1], (z->len + q->len) * sizeof *y[0]);
        tn_grad(tn_sum(z), NULL, 1, &in, &g, 0);
        tn_real sum = 0;
        for (size_t i = 0; i < g->len; i++) sum += g->x[i];
        assert_true(sum == (tn_real)z->len);
    }
    tn_tape_free(t);
}

/* A convolution with pooling, or with `block` two of them, by each of its ways forward: the same bits with and without recording. */
typedef struct {
    int ci, co, k, side, pool, pad, block;
    tn_act act;
} pooled_layer;

static const pooled_layer pooled_layers[] = {
    {1, 6, 5, 28, 2, 2, 0, TN_ACT_RELU},   {3, 5, 3, 17, 3, 0, 0, TN_ACT_NONE},   /* planes */
    {16, 24, 3, 14, 2, 0, 0, TN_ACT_RELU}, {16, 24, 3, 15, 2, 1, 0, TN_ACT_NONE}, /* Winograd 3 x 3 */
    {6, 16, 5, 14, 2, 0, 0, TN_ACT_RELU},                                         /* Winograd along rows */
    {6, 20, 3, 13, 3, 1, 0, TN_ACT_RELU},  {2, 3, 3, 6, 2, 0, 0, TN_ACT_RELU},    /* channels last */
    {1, 32, 3, 13, 2, 0, 1, TN_ACT_RELU},
};

static void pooling_without_recording(void **state) {
    (void)state;
    enum { N = 3, MOST = N * CI * 15 * 15 };
    tn_real x[MOST], w[2 * 32 * 32 * 9], before[MOST];
    for (int i = 0; i < MOST; i++) x[i] = (tn_real)((i % 1009 * 7919 % 1009) / 504.5 - 1);
    for (size_t i = 0; i < sizeof w / sizeof *w; i++) w[i] = (tn_real)((i % 997 * 5003 % 997) / 498.5 - 1);
    tn_tape *t = tn_tape_new(NULL);
    for (size_t i = 0; i < sizeof pooled_layers / sizeof *pooled_layers; i++) {
        const pooled_layer *l = &pooled_layers[i];
        const int x_dim[] = {N, l->ci, l->side, l->side}, w_dim[] = {l->co, l->ci, l->k, l->k},
                  next[] = {l->co, l->co, l->k, l->k};
        const tn_pool pool = tn_pool_square(l->pool);
        tn_conv c = tn_conv_valid();
        c.pad[0] = c.pad[1] = l->pad;
        for (int record = 0; record < 2; record++) {
            tn_tape_reset(t);
            tn_record(t, record);
            tn_t *in = tn_input(t, x, 4, x_dim), *first = tn_leaf(t, w, 4, w_dim), *y;
            if (l->block)
                y = tn_conv2d_block(in, first, NULL, &c, tn_leaf(t, w + 32 * 9, 4, next), NULL, &c, l->act,
                                    &pool, 0, "drop");
            else
                y = tn_conv2d_pool(in, first, NULL, &c, l->act, &pool);
            if (!record)
                memcpy(before, y->x, y->len * sizeof *y->x);
            else if (memcmp(before, y->x, y->len * sizeof *y->x) != 0)
                fail_msg("layer %zu: recording changes the result", i);
        }
    }
    tn_tape_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(kept_forms),
                                       cmocka_unit_test(nothing_kept_for_backward),
                                       cmocka_unit_test(pooling_without_recording)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Convolution, pooling, batch norm, embedding and recurrent layers against PyTorch's recorded values and gradients. The
 * recorded parameters are bound to the layers' own, under PyTorch's names.
 */
#include "golden_case.h"

static tn_params *run_conv(const golden_case *c, tn_t *y[GOLDEN_OUT]) {
    tn_conv conv = {.groups = (int)golden_number(c, "groups", 0)};
    golden_pair(c, "stride", conv.stride), golden_pair(c, "padding", conv.pad),
        golden_pair(c, "dilation", conv.dilation);
    y[0] = tn_conv2d_act(c->x[0], c->x[1], golden_input(c, "bias"), &conv, TN_ACT_NONE);
    tn_t *z = tn_conv2d(c->x[0], c->x[1], &conv); /* the primitive is the fused form without its bias */
    if (!golden_input(c, "bias")) assert_true(same_bits(z->x, y[0]->x, z->len));
    return NULL;
}

static tn_params *run_pool(const golden_case *c, tn_t *y[GOLDEN_OUT]) {
    tn_pool p;
    golden_pair(c, "kernel", p.kernel), golden_pair(c, "stride", p.stride), golden_pair(c, "padding", p.pad);
    y[0] = !strcmp(c->op, "max_pool2d") ? tn_max_pool2d(c->x[0], &p) : tn_avg_pool2d(c->x[0], &p);
    return NULL;
}

static void conv(void **state) {
    (void)state;
    golden_check("ops/conv.json", run_conv, NULL, 12);
}
static void pool(void **state) {
    (void)state;
    golden_check("ops/pool.json", run_pool, NULL, 13);
}

/* ---- layers: parameters by name ---- */

/* Every parameter that has a recorded input of its name (without the layer's) stands for it; returns how many. */
static int bind_all(const golden_case *c, tn_params *ps) {
    int bound = 0;
    for (int i = 0; i < tn_params_count(ps); i++) {
        tn_param *p = tn_params_at(ps, i);
        tn_t *x = golden_input(c, strchr(p->name, '.') + 1);
        if (!x || p->flags & TN_BUFFER) continue;
        tn_bind(c->tape, p, x), bound++;
    }
    return bound;
}

static tn_params *run_embedding(const golden_case *c, tn_t *y[GOLDEN_OUT]) {
    tn_params *ps = tn_params_new();
    tn_embedding l =
        tn_embedding_new(ps, "e", c->x[0]->dim[0], c->x[0]->dim[1], (int)golden_number(c, "padding_idx", -1));
    assert_int_equal(tn_params_seal(ps, 1, NULL), 0);
    assert_int_equal(bind_all(c, ps), 1);
    y[0] = tn_embedding_fwd(&l, c->tape, c->ints, c->ints_nd, c->ints_dim);
    return ps;
}

static tn_params *run_recurrent(const golden_case *c, tn_t *y[GOLDEN_OUT]) {
    int relu = golden_word_is(c, "nonlinearity", "relu"),
        both = json_is_true(json_object_get(c->args, "bidirectional"));
    tn_cell cell = !strcmp(c->op, "lstm")  ? TN_LSTM
                   : !strcmp(c->op, "gru") ? TN_GRU
                   : relu                  ? TN_RNN_RELU
                                           : TN_RNN_TANH;
    const json_t *lengths = json_object_get(c->args, "lengths");
    int length[16], layers = (int)golden_number(c, "num_layers", 0);
    for (size_t i = 0; i < json_array_size(lengths); i++)
        length[i] = (int)json_integer_value(json_array_get(lengths, i));
    tn_params *ps = tn_params_new();
    tn_rnn l =
        tn_rnn_new(ps, "r", cell, c->x[0]->dim[2], golden_input(c, "weight_hh_l0")->dim[1], layers, both, 0);
    assert_int_equal(tn_params_seal(ps, 1, NULL), 0);
    assert_int_equal(bind_all(c, ps), tn_params_count(ps));
    assert_int_equal(tn_params_count(ps), 4 * layers * (1 + both));
    tn_rnn_out o = tn_rnn_fwd(&l, c->x[0], golden_input(c, "h0"), golden_input(c, "c0"),
                              json_is_array(lengths) ? length : NULL);
    assert_int_equal(o.c_n != NULL, cell == TN_LSTM);
    y[0] = o.y, y[1] = o.h_n, y[2] = o.c_n;
    return ps;
}

static void embedding(void **state) {
    (void)state;
    golden_check("ops/embedding.json", run_embedding, NULL, 3);
}
static void recurrent(void **state) {
    (void)state;
    golden_check("ops/recurrent.json", run_recurrent, NULL, 25);
}

/* The buffers after the step, as they stand when the step is committed. */
static tn_params *run_batch_norm(const golden_case *c, tn_t *y[GOLDEN_OUT]) {
    tn_params *ps = tn_params_new();
    tn_t *mean = golden_input(c, "running_mean"), *var = golden_input(c, "running_var");
    tn_batch_norm_layer l = tn_batch_norm_new(ps, "bn", mean->dim[0]);
    assert_int_equal(tn_params_seal(ps, 1, NULL), 0);
    assert_near(l.eps, golden_number(c, "eps", 0), 0);
    assert_near(l.momentum, golden_number(c, "momentum", 0), 0);
    memcpy(l.running_mean->w, mean->x, mean->len * sizeof(tn_real));
    memcpy(l.running_var->w, var->x, var->len * sizeof(tn_real));
    tn_params_touch(ps);
    assert_int_equal(bind_all(c, ps), 2);
    if (json_is_true(json_object_get(c->args, "train")))
        tn_train_mode(c->tape, 1, 0, 0);
    else
        tn_eval_mode(c->tape);
    y[0] = tn_batch_norm_fwd(&l, c->x[0], TN_ACT_NONE);
    assert_true(same_bits(l.running_mean->w, mean->x, mean->len)); /* not before the commit */
    tn_params_commit(ps);
    y[1] = tn_input(c->tape, l.running_mean->w, 1, mean->dim);
    y[2] = tn_input(c->tape, l.running_var->w, 1, var->dim);
    return ps;
}

static void batch_norm(void **state) {
    (void)state;
    golden_check("ops/norm.json", run_batch_norm, "layer_norm", 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv),      cmocka_unit_test(pool),       cmocka_unit_test(embedding),
        cmocka_unit_test(recurrent), cmocka_unit_test(batch_norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

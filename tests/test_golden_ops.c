/* SPDX-License-Identifier: MIT */
/* Operations, losses and layer norm against PyTorch's recorded values and gradients; see test_golden_layers.c, too. */
#include "golden_case.h"
#include <math.h>

static tn_reduction reduction(const golden_case *c) {
    return golden_word_is(c, "reduction", "sum") ? TN_SUM : TN_MEAN;
}

static tn_t *bias_of(const golden_case *c) {
    return c->n > 2 ? c->x[2] : NULL;
}

static tn_t *run_linear(const golden_case *c) {
    static const char *const acts[] = {"none", "relu", "tanh", "sigmoid", "gelu"};
    for (int a = 0; a < 5; a++)
        if (golden_word_is(c, "act", acts[a])) return tn_linear_act(c->x[0], c->x[1], bias_of(c), (tn_act)a);
    assert_true(golden_word_is(c, "act", "gelu_tanh"));
    return tn_gelu_tanh(tn_linear_act(c->x[0], c->x[1], bias_of(c), TN_ACT_NONE));
}

static tn_t *run_cross_entropy(const golden_case *c) {
    int weighted = json_is_true(json_object_get(c->args, "weighted"));
    return tn_cross_entropy(c->x[0], c->ints,
                            &(tn_ce_options){golden_number(c, "label_smoothing", 0), 1,
                                             (int)golden_number(c, "ignore_index", -100),
                                             weighted ? c->class_weight : NULL, reduction(c)});
}

static tn_t *result_of(const golden_case *c, const char *op) {
    static const struct {
        const char *name;
        tn_t *(*f)(tn_t *);
    } unary[] = {{"relu", tn_relu},           {"tanh", tn_tanh},
                 {"sigmoid", tn_sigmoid},     {"gelu", tn_gelu},
                 {"gelu_tanh", tn_gelu_tanh}, {"softplus", tn_softplus},
                 {"softmax", tn_softmax},     {"log_softmax", tn_log_softmax}};
    for (size_t i = 0; i < sizeof unary / sizeof *unary; i++)
        if (!strcmp(op, unary[i].name)) return unary[i].f(c->x[0]);
    if (!strcmp(op, "clamp"))
        return tn_clamp(c->x[0], golden_number(c, "min", -INFINITY), golden_number(c, "max", INFINITY));
    if (!strcmp(op, "linear")) return run_linear(c);
    if (!strcmp(op, "cross_entropy")) return run_cross_entropy(c);
    if (!strcmp(op, "mse")) return tn_mse(c->x[0], c->x[1], reduction(c));
    if (!strcmp(op, "bce_with_logits")) return tn_bce_with_logits(c->x[0], c->x[1], reduction(c));
    if (!strcmp(op, "huber")) return tn_huber(c->x[0], c->x[1], golden_number(c, "delta", 1), reduction(c));
    if (!strcmp(op, "layer_norm"))
        return tn_layer_norm(c->x[0], c->n > 1 ? c->x[1] : NULL, bias_of(c), golden_number(c, "eps", 1e-5));
    fail_msg("no operation %s", op);
    return NULL;
}

static tn_params *run_case(const golden_case *c, tn_t *y[GOLDEN_OUT]) {
    y[0] = result_of(c, c->op);
    return NULL;
}

static void elementwise(void **state) {
    (void)state;
    golden_check("ops/elementwise.json", run_case, NULL, 32);
}
static void linear(void **state) {
    (void)state;
    golden_check("ops/linear.json", run_case, NULL, 19);
}
static void loss(void **state) {
    (void)state;
    golden_check("ops/loss.json", run_case, NULL, 45);
}
static void norm(void **state) {
    (void)state;
    golden_check("ops/norm.json", run_case, "batch_norm", 6);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise),
        cmocka_unit_test(linear),
        cmocka_unit_test(loss),
        cmocka_unit_test(norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Operations, losses and layer norm against PyTorch's recorded values and gradients. */
#include "support.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#ifdef TN_DOUBLE
static const double tolerance = 1e-10;
#else
static const double tolerance = 2e-3; /* a coarse look: the numbers are meant for double */
#endif

enum { MAX_IN = 4 };
typedef struct {
    json_t *c, *args;
    tn_t *x[MAX_IN];
    int *ints, n;
    const tn_real *class_weight;
} golden_case;

static double number(const golden_case *c, const char *key, double if_null) {
    json_t *v = json_object_get(c->args, key);
    return json_is_number(v) ? json_number_value(v) : if_null;
}
static int word_is(const golden_case *c, const char *key, const char *word) {
    return !strcmp(json_string_value(json_object_get(c->args, key)), word);
}
static tn_reduction reduction(const golden_case *c) {
    return word_is(c, "reduction", "sum") ? TN_SUM : TN_MEAN;
}

static int shape_of(const json_t *in, int dim[TN_MAX_DIM], size_t *len) {
    const json_t *s = json_object_get(in, "shape");
    int nd = (int)json_array_size(s);
    *len = 1;
    for (int i = 0; i < nd; i++)
        dim[i] = (int)json_integer_value(json_array_get(s, (size_t)i)), *len *= (size_t)dim[i];
    return nd;
}

/* Values by formula or as given. */
static void fill(const json_t *in, size_t n, tn_real *out) {
    const json_t *values = json_object_get(in, "values");
    if (values) {
        golden_reals(values, n, out);
        return;
    }
    double *u = malloc(n * sizeof *u), shift = json_number_value(json_object_get(in, "shift"));
    golden_uniform((uint64_t)json_integer_value(json_object_get(in, "seed")),
                   json_number_value(json_object_get(in, "scale")), n, u);
    for (size_t i = 0; i < n; i++) out[i] = (tn_real)(u[i] + shift);
    free(u);
}

static tn_t *bias_of(const golden_case *c) {
    return c->n > 2 ? c->x[2] : NULL;
}

static tn_t *run_linear(const golden_case *c) {
    static const char *const acts[] = {"none", "relu", "tanh", "sigmoid", "gelu"};
    for (int a = 0; a < 5; a++)
        if (word_is(c, "act", acts[a])) return tn_linear_act(c->x[0], c->x[1], bias_of(c), (tn_act)a);
    assert_true(word_is(c, "act", "gelu_tanh"));
    return tn_gelu_tanh(tn_linear_act(c->x[0], c->x[1], bias_of(c), TN_ACT_NONE));
}

static tn_t *run_cross_entropy(const golden_case *c) {
    int weighted = json_is_true(json_object_get(c->args, "weighted"));
    return tn_cross_entropy(c->x[0], c->ints,
                            &(tn_ce_options){number(c, "label_smoothing", 0), 1,
                                             (int)number(c, "ignore_index", -100),
                                             weighted ? c->class_weight : NULL, reduction(c)});
}

static tn_t *run_case(const golden_case *c, const char *op) {
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
        return tn_clamp(c->x[0], number(c, "min", -INFINITY), number(c, "max", INFINITY));
    if (!strcmp(op, "linear")) return run_linear(c);
    if (!strcmp(op, "cross_entropy")) return run_cross_entropy(c);
    if (!strcmp(op, "mse")) return tn_mse(c->x[0], c->x[1], reduction(c));
    if (!strcmp(op, "bce_with_logits")) return tn_bce_with_logits(c->x[0], c->x[1], reduction(c));
    if (!strcmp(op, "huber")) return tn_huber(c->x[0], c->x[1], number(c, "delta", 1), reduction(c));
    if (!strcmp(op, "layer_norm"))
        return tn_layer_norm(c->x[0], c->n > 1 ? c->x[1] : NULL, bias_of(c), number(c, "eps", 1e-5));
    fail_msg("no operation %s", op);
    return NULL;
}

/* A gradient that is 0 but for rounding (layer norm of one feature) is held against 0.01. */
static void compare(const char *op, const char *name, const char *what, const tn_real *got,
                    const json_t *want) {
    double top = 0.01, worst = 0;
    for (size_t i = 0; i < json_array_size(want); i++) {
        double w = json_number_value(json_array_get(want, i)), d = fabs((double)got[i] - w);
        top = fmax(top, fabs(w));
        worst = d >= 0 ? fmax(worst, d) : INFINITY;
    }
    if (!(worst <= tolerance * top)) fail_msg("%s %s: %s is off by %.3g", op, name, what, worst / top);
}

static void check_case(tn_tape *tape, json_t *json, const char *op) {
    golden_case c = {.c = json, .args = json_object_get(json, "args")};
    const char *name = json_string_value(json_object_get(json, "name"));
    json_t *inputs = json_object_get(json, "inputs"), *in, *grads = json_object_get(json, "grads"), *g;
    const json_t *out = json_array_get(json_object_get(json, "outputs"), 0);
    tn_t *wrt[MAX_IN], *grad[MAX_IN];
    size_t i, len;
    int dim[TN_MAX_DIM], wanted = 0;
    tn_tape_reset(tape);
    json_array_foreach(inputs, i, in) {
        int nd = shape_of(in, dim, &len);
        const json_t *ints = json_object_get(in, "ints");
        if (ints) {
            c.ints = tn_scratch(tape, len * sizeof *c.ints);
            for (size_t k = 0; k < len; k++) c.ints[k] = (int)json_integer_value(json_array_get(ints, k));
            continue;
        }
        tn_real *values = tn_scratch(tape, len * sizeof *values);
        fill(in, len, values);
        if (!strcmp(json_string_value(json_object_get(in, "name")), "class_weight")) {
            c.class_weight = values;
            continue;
        }
        int leaf = json_is_true(json_object_get(in, "grad"));
        c.x[c.n] = (leaf ? tn_leaf : tn_input)(tape, values, nd, dim);
        if (leaf) wrt[wanted++] = c.x[c.n];
        c.n++;
    }
    tn_t *y = run_case(&c, op);
    int nd = shape_of(out, dim, &len);
    assert_int_equal(y->nd, nd);
    assert_memory_equal(y->dim, dim, sizeof(int) * (size_t)nd);
    compare(op, name, "value", y->x, json_object_get(out, "values"));
    tn_real *gy = tn_scratch(tape, len * sizeof *gy);
    fill(json_object_get(out, "gy"), len, gy);
    assert_int_equal(json_array_size(grads), wanted);
    for (int graph = 0; graph < 2; graph++) {
        tn_grad(y, tn_input(tape, gy, nd, dim), wanted, wrt, grad, graph);
        json_array_foreach(grads, i, g) compare(op, name, json_string_value(json_object_get(g, "name")),
                                                grad[i]->x, json_object_get(g, "values"));
    }
}

/* Cases of one file; those of later operations are named and counted, so that none is left out unseen. */
static void check_file(const char *file, const char *later, int expected) {
    tn_tape *tape = tn_tape_new(NULL);
    json_t *root = golden_load(file), *c;
    int done = 0, skipped = 0;
    size_t i;
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        const char *op = json_string_value(json_object_get(c, "op"));
        if (later && !strcmp(op, later))
            skipped++;
        else
            check_case(tape, c, op), done++;
    }
    if (skipped) print_message("%s: %d cases of %s are not compared here\n", file, skipped, later);
    assert_int_equal(done, expected);
    json_decref(root);
    tn_tape_free(tape);
}

static void elementwise(void **state) {
    (void)state;
    check_file("ops/elementwise.json", NULL, 32);
}
static void linear(void **state) {
    (void)state;
    check_file("ops/linear.json", NULL, 19);
}
static void loss(void **state) {
    (void)state;
    check_file("ops/loss.json", NULL, 45);
}
static void norm(void **state) {
    (void)state;
    check_file("ops/norm.json", "batch_norm", 6);
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

/* SPDX-License-Identifier: MIT */
/*
 * Every operation of lib/ops.def: values against a reference of its own, gradients of order 1 and 2 against
 * differences, special values, and panics. The last tests show that the checks find a wrong rule.
 */
#include "catch.h"
#include "ops_elementwise.h"
#include "ops_fused.h"
#include "ops_conv.h"
#include "ops_norm.h"
#include "ops_recurrent.h"
#include "ops_shape.h"

/* ---- special values: y and dy/dx for each of up to 8 values of x ---- */

typedef struct {
    const char *what;
    tn_t *(*f)(tn_t *);
    int n;
    double x[8], y[8], g[8];
} special;

static tn_t *root(tn_t *x) {
    return tn_pow(x, 0.5);
}
static tn_t *cube_root(tn_t *x) {
    return tn_pow(x, 1.0 / 3);
}
static tn_t *inverse(tn_t *x) {
    return tn_pow(x, -1);
}
static tn_t *power_0(tn_t *x) {
    return tn_pow(x, 0);
}
static tn_t *power_1(tn_t *x) {
    return tn_pow(x, 1);
}
static tn_t *power_15(tn_t *x) {
    return tn_pow(x, 1.5);
}
static tn_t *power_3(tn_t *x) {
    return tn_pow(x, 3);
}
static tn_t *power_65(tn_t *x) {
    return tn_pow(x, 65);
}
static tn_t *power_66(tn_t *x) {
    return tn_pow(x, -66);
}
static tn_t *clamped(tn_t *x) {
    return tn_clamp(x, -1, 2);
}
static tn_t *over(tn_t *x) {
    return tn_div(tn_const(x->tape, 1), x);
}

#define INF INFINITY
static const special specials[] = {
    {"sqrt", tn_sqrt, 6, {0, 4, INF, NAN, -1, 0.25}, {0, 2, INF, NAN, NAN, 0.5}, {0, 0.25, 0, NAN, NAN, 1}},
    {"pow 1/2", root, 4, {0, 4, NAN, -1}, {0, 2, NAN, NAN}, {0, 0.25, NAN, NAN}},
    {"pow 1/3", cube_root, 4, {0, 8, NAN, -1}, {0, 2, NAN, NAN}, {0, 1.0 / 12, NAN, NAN}},
    {"pow -1", inverse, 4, {0, 2, -2, INF}, {INF, 0.5, -0.5, 0}, {0, -0.25, -0.25, 0}},
    {"pow 0", power_0, 3, {0, 2, -2}, {1, 1, 1}, {0, 0, 0}},
    {"pow 1", power_1, 3, {0, 2, -2}, {0, 2, -2}, {1, 1, 1}},
    {"pow 1.5", power_15, 3, {0, 4, INF}, {0, 8, INF}, {0, 3, INF}},
    {"pow 3", power_3, 5, {0, 2, -2, -INF, NAN}, {0, 8, -8, -INF, NAN}, {0, 12, 12, INF, NAN}},
    {"pow 65", power_65, 4, {0, 1, -1, -2}, {0, 1, -1, -0x1p65}, {0, 65, 65, 65 * 0x1p64}},
    {"pow -66", power_66, 3, {1, -1, -2}, {1, 1, 0x1p-66}, {-66, 66, 66 * 0x1p-67}},
    {"relu", tn_relu, 6, {-1, 0, 2, INF, -INF, NAN}, {0, 0, 2, INF, 0, NAN}, {0, 0, 1, 1, 0, NAN}},
    {"abs", tn_abs, 6, {-1, 0, 2, INF, -INF, NAN}, {1, 0, 2, INF, INF, NAN}, {-1, 0, 1, 1, -1, NAN}},
    {"step", tn_step, 6, {-1, 0, 2, INF, -INF, NAN}, {0, 0, 1, 1, 0, NAN}, {0}},
    {"sign", tn_sign, 6, {-1, 0, 2, INF, -INF, NAN}, {-1, 0, 1, 1, -1, NAN}, {0}},
    {"clamp", clamped, 7, {-2, -1, 0, 2, 3, -INF, NAN}, {-1, -1, 0, 2, 2, -1, NAN}, {0, 1, 1, 1, 0, 0, NAN}},
    {"exp", tn_exp, 5, {0, INF, -INF, 1000, NAN}, {1, INF, 0, INF, NAN}, {1, INF, 0, INF, NAN}},
    {"log", tn_log, 5, {1, 0, INF, -1, NAN}, {0, -INF, INF, NAN, NAN}, {1, INF, 0, -1, NAN}},
    {"tanh", tn_tanh, 5, {0, INF, -INF, 100, NAN}, {0, 1, -1, 1, NAN}, {1, 0, 0, 0, NAN}},
    {"sigmoid", tn_sigmoid, 5, {0, INF, -INF, -1000, NAN}, {0.5, 1, 0, 0, NAN}, {0.25, 0, 0, 0, NAN}},
    {"softplus", tn_softplus, 5, {INF, -INF, 1000, -1000, NAN}, {INF, 0, 1000, 0, NAN}, {1, 0, 1, 0, NAN}},
    {"erf", tn_erf, 5, {0, INF, -INF, 7, NAN}, {0, 1, -1, 1, NAN}, {1.1283791670955126, 0, 0, 5.9e-22, NAN}},
    {"1 / x", over, 4, {0, 2, INF, NAN}, {INF, 0.5, 0, NAN}, {-INF, -0.25, 0, NAN}},
};

static void same_value(const char *what, const char *which, double x, double got, double want) {
    double tol = sizeof(tn_real) == 8 ? 1e-14 : 1e-6;
    if (want != want ? got != got : got == want || fabs(got - want) <= tol * fabs(want) + 1e-20) return;
    fail_msg("%s: %s at %g is %.17g, not %.17g", what, which, x, got, want);
}

static void special_values(void **state) {
    (void)state;
    tn_tape *tape = tn_tape_new(NULL);
    for (size_t s = 0; s < sizeof specials / sizeof *specials; s++) {
        const special *c = &specials[s];
        tn_real in[8];
        for (int i = 0; i < c->n; i++) in[i] = (tn_real)c->x[i];
        for (int graph = 0; graph < 2; graph++) {
            tn_tape_reset(tape);
            tn_t *x = tn_leaf(tape, in, 1, &c->n), *y = c->f(x), *g;
            tn_grad(y, NULL, 1, &x, &g, graph);
            for (int i = 0; i < c->n; i++) {
                same_value(c->what, "value", c->x[i], (double)y->x[i], c->y[i]);
                same_value(c->what, "slope", c->x[i], (double)g->x[i], c->g[i]);
            }
        }
    }
    tn_tape_free(tape);
}

/* The second derivative at the defined slope of 0 is a number, too: Adam can be differentiated twice. */
static void second_order_at_zero(void **state) {
    (void)state;
    tn_t *(*const f[])(tn_t *) = {tn_sqrt, root, cube_root, power_15, tn_relu, tn_abs, clamped};
    tn_tape *tape = tn_tape_new(NULL);
    for (size_t i = 0; i < sizeof f / sizeof *f; i++) {
        tn_tape_reset(tape);
        tn_t *x = tn_leaf(tape, (tn_real[]){0, 0}, 1, (int[]){2}), *g, *h;
        tn_grad(f[i](tn_square(x)), NULL, 1, &x, &g, 1);
        tn_grad(g, NULL, 1, &x, &h, 1);
        assert_true(h->x[0] == h->x[1]);
        assert_true(h->x[0] == (f[i] == clamped ? 2 : 0));
    }
    tn_tape_free(tape);
}

static void ties_and_nan(void **state) {
    (void)state;
    tn_tape *tape = tn_tape_new(NULL);
    for (int min = 0; min < 2; min++) {
        tn_tape_reset(tape);
        tn_t *x[2], *g[2], *y;
        x[0] = tn_leaf(tape, (tn_real[]){1, 2, NAN, 3, INF}, 1, (int[]){5});
        x[1] = tn_leaf(tape, (tn_real[]){1, 5, 3, NAN, INF}, 1, (int[]){5});
        y = min ? tn_minimum(x[0], x[1]) : tn_maximum(x[0], x[1]);
        tn_grad(y, NULL, 2, x, g, 0);
        assert_true(y->x[0] == 1 && y->x[1] == (min ? 2 : 5) && isnan(y->x[2]) && isnan(y->x[3])
                    && y->x[4] == INF);
        assert_true(g[0]->x[0] == 0.5 && g[1]->x[0] == 0.5 && g[0]->x[4] == 0.5 && g[1]->x[4] == 0.5);
        assert_true(g[0]->x[1] == min && g[1]->x[1] == !min);
    }
    /* NaN is neither summed away nor lost in a product */
    tn_t *n = tn_input(tape, (tn_real[]){1, NAN, 0, 2}, 2, (int[]){2, 2}),
         *zero = tn_full(tape, 0, 2, (int[]){2, 2});
    assert_true(isnan(tn_value(tn_sum(n))));
    assert_true(isnan(tn_sum_axis(n, 0)->x[1]) && tn_sum_axis(n, 0)->x[0] == 1);
    assert_true(isnan(tn_sum_axis(n, 1)->x[0]) && tn_sum_axis(n, 1)->x[1] == 2);
    assert_true(isnan(tn_matmul(n, zero, 0, 0)->x[0]) && tn_matmul(n, zero, 0, 0)->x[2] == 0);
    for (int act = TN_ACT_NONE; act <= TN_ACT_GELU; act++)
        assert_true(isnan(tn_linear_act(n, zero, NULL, (tn_act)act)->x[0]));
    assert_true(isnan(tn_value(tn_cross_entropy(n, (int[]){0, 0}, NULL))));
    tn_tape_free(tape);
}

/* A class that is masked by minus infinity: value and gradient are those of the others, to any order. */
static void masked_class(void **state) {
    (void)state;
    tn_tape *tape = tn_tape_new(NULL);
    const int label[] = {0, 2};
    tn_t *full = tn_leaf(tape, (tn_real[]){1, -INF, 2, 0.5f, -INF, -1}, 2, (int[]){2, 3}), *g[2], *h[2];
    tn_t *part = tn_leaf(tape, (tn_real[]){1, 2, 0.5f, -1}, 2, (int[]){2, 2});
    tn_t *a = tn_cross_entropy(full, label, NULL), *b = tn_cross_entropy(part, (int[]){0, 1}, NULL);
    assert_near(tn_value(a), tn_value(b), 1e-6);
    for (int graph = 0; graph < 2; graph++) {
        tn_grad(a, NULL, 1, &full, g, graph), tn_grad(b, NULL, 1, &part, h, graph);
        for (int i = 0; i < 4; i++) {
            int at = i / 2 * 3 + i % 2 * 2;
            assert_near((double)g[0]->x[at], (double)h[0]->x[i], 1e-6);
        }
        assert_true(g[0]->x[1] == 0 && g[0]->x[4] == 0);
    }
    tn_grad(tn_sum(tn_square(g[0])), NULL, 1, &full, g, 1),
        tn_grad(tn_sum(tn_square(h[0])), NULL, 1, &part, h, 1);
    for (int i = 0; i < 4; i++) assert_near((double)g[0]->x[i / 2 * 3 + i % 2 * 2], (double)h[0]->x[i], 1e-5);
    tn_tape_free(tape);
}

/* ---- panics ---- */

static tn_t *ones(tn_tape *t, int rows, int cols) {
    return tn_full(t, 1, 2, (int[]){rows, cols});
}

static void wrong_shapes(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL), *other = tn_tape_new(NULL);
    static const struct {
        const char *name;
        tn_t *(*f)(tn_t *, tn_t *);
    } pairs[] = {{"add", tn_add}, {"sub", tn_sub},         {"mul", tn_mul},
                 {"div", tn_div}, {"maximum", tn_maximum}, {"minimum", tn_minimum}};
    for (int i = 0; i < 6; i++) {
        assert_panics(t, pairs[i].f(ones(t, 2, 3), ones(t, 2, 4)), pairs[i].name, "(2, 3)", "(2, 4)");
        assert_panics(t, pairs[i].f(ones(t, 2, 3), ones(t, 3, 2)), pairs[i].name, "(2, 3)", "(3, 2)");
        assert_panics(t, pairs[i].f(ones(t, 2, 3), tn_full(t, 1, 1, (int[]){2})), pairs[i].name, "(2, 3)",
                      "(2,)");
        assert_panics(t, pairs[i].f(ones(t, 2, 3), ones(other, 2, 3)), pairs[i].name, "tape", "");
    }
    assert_panics(t, tn_matmul(ones(t, 2, 3), ones(t, 2, 4), 0, 0), "matmul", "(2, 3)", "(2, 4)");
    assert_panics(t, tn_matmul(ones(t, 2, 3), ones(t, 2, 4), 1, 1), "matmul", "(2, 3)", "(2, 4)");
    assert_panics(t, tn_matmul(ones(t, 2, 3), tn_full(t, 1, 1, (int[]){3}), 0, 0), "matmul", "(2, 3)",
                  "(3,)");
    assert_panics(t, tn_matmul(ones(t, 2, 3), ones(other, 3, 4), 0, 0), "matmul", "tape", "");
    assert_panics(t, tn_reshape(ones(t, 2, 3), 2, (int[]){4, -1}), "reshape", "(2, 3)", "(4, -1)");
    assert_panics(t, tn_reshape(ones(t, 2, 3), 1, (int[]){5}), "reshape", "(2, 3)", "(5,)");
    assert_panics(t, tn_reshape(ones(t, 2, 3), 2, (int[]){-1, -1}), "reshape", "-1", "");
    assert_panics(t, tn_reshape(ones(t, 2, 3), 4, (int[]){65536, 65536, 65536, 65536}), "reshape", "(2, 3)",
                  "65536");
    assert_panics(t, tn_transpose(ones(t, 2, 3), 0, 2), "transpose", "2", "");
    assert_panics(t, tn_sum_to(ones(t, 2, 3), 1, (int[]){2}), "sum_to", "(2, 3)", "(2,)");
    assert_panics(t, tn_broadcast_to(ones(t, 2, 3), 2, (int[]){2, 4}), "broadcast_to", "(2, 3)", "(2, 4)");
    assert_panics(t, tn_broadcast_to(ones(t, 2, 3), 1, (int[]){3}), "broadcast_to", "(2, 3)", "(3,)");
    assert_panics(t, tn_slice(ones(t, 2, 3), 1, 1, 4), "slice", "[1, 4)", "3");
    assert_panics(t, tn_slice(ones(t, 2, 3), 1, 2, 2), "slice", "[2, 2)", "3");
    assert_panics(t, tn_slice(ones(t, 2, 3), 2, 0, 1), "slice", "axis 2", "");
    assert_panics(t, tn_embed_in(ones(t, 2, 3), 1, 2, 4), "embed_in", "4", "");
    assert_panics(t, tn_embed_in(ones(t, 2, 3), 1, INT32_MAX, 4), "embed_in", "4", "");
    tn_t *x[2];
    assert_panics(t, (x[0] = ones(t, 2, 3), x[1] = ones(t, 3, 3), tn_concat(2, x, 1)), "concat", "(2, 3)",
                  "(3, 3)");

    assert_panics(t, tn_take(ones(t, 2, 3), (int[]){6}, 0, NULL), "take", "6", "5");
    assert_panics(t, tn_take(ones(t, 2, 3), (int[]){-1}, 0, NULL), "take", "-1", "5");
    assert_panics(t, tn_put_add(tn_const(t, 1), (int[]){4}, 2, (int[]){2, 2}), "put_add", "4", "3");
    assert_panics(t, tn_linear_act(ones(t, 2, 3), ones(t, 4, 5), NULL, TN_ACT_RELU), "linear", "(2, 3)",
                  "(4, 5)");
    assert_panics(t, tn_linear_act(ones(t, 2, 3), ones(t, 4, 3), ones(t, 1, 4), TN_ACT_NONE), "linear",
                  "(4, 3)", "(1, 4)");
    assert_panics(t, tn_cross_entropy(tn_full(t, 1, 1, (int[]){3}), (int[]){0}, NULL), "cross_entropy",
                  "(3,)", "");
    assert_panics(t, tn_cross_entropy(ones(t, 2, 3), (int[]){0, 3}, NULL), "cross_entropy", "label 3",
                  "row 1");
    assert_panics(t, tn_cross_entropy(ones(t, 2, 3), (int[]){0, -1}, NULL), "cross_entropy", "label -1",
                  "row 1");
    assert_panics(t, tn_clamp(ones(t, 2, 3), 1, 0), "clamp", "1", "0");
    assert_panics(t, tn_full(t, 1, 5, (int[]){1, 1, 1, 1, 1}), "dimensions", "5", "4");
    assert_panics(t, tn_full(t, 1, 2, (int[]){3, 0}), "dimension 1", "0", "");
    assert_panics(t, tn_value(ones(t, 2, 3)), "tn_value", "6", "");
    tn_tape_free(t), tn_tape_free(other);
}

/* ---- do the checks find what is wrong? ---- */

static void cube_right(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(gy, tn_scale(tn_square(y->src[0]), 3));
}
static void cube_wrong(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(gy, tn_scale(tn_square(y->src[0]), 2));
}
static void cube_wrong_at_2(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(gy, tn_stop(tn_scale(tn_square(y->src[0]), 3)));
}
static tn_t *cube_expand(tn_t *y) {
    return tn_mul(tn_square(y->src[0]), y->src[0]);
}
static void cube_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    for (size_t i = 0; need && i < y->len; i++) {
        tn_real x = y->src[0]->x[i];
        gx[0][i] = 3 * x * x * gy[i] + (add ? gx[0][i] : 0);
    }
}
static void cube_bwd_wrong(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    (void)add;
    for (size_t i = 0; need && i < y->len; i++) gx[0][i] = 3 * y->src[0]->x[i] * gy[i];
}
static void cube_bwd_overwrites(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need,
                                unsigned add) {
    (void)add;
    cube_bwd(y, gy, gx, need, 0);
}

static const tn_op cubes[] = {
    {.name = "cube", .vjp = cube_right},
    {.name = "wrong", .vjp = cube_wrong},
    {.name = "wrong at order 2", .vjp = cube_wrong_at_2},
    {.name = "fused", .expand = cube_expand, .bwd = cube_bwd},
    {.name = "fused wrong", .expand = cube_expand, .bwd = cube_bwd_wrong},
    {.name = "overwrites", .expand = cube_expand, .bwd = cube_bwd_overwrites},
};

static tn_t *apply_cube(tn_t *const x[], const op_case *c) {
    tn_t *y = tn_new(x[0]->tape, x[0]->nd, x[0]->dim);
    for (size_t i = 0; i < y->len; i++) y->x[i] = x[0]->x[i] * x[0]->x[i] * x[0]->x[i] * (tn_real)(c->a + 1);
    return tn_result(&cubes[c->i[0]], y, 1, x, NULL, 0);
}
static void cube_ref(const op_case *c, const double *const x[], double *y) {
    for (size_t i = 0; i < shape_len(&c->out); i++) y[i] = x[0][i] * x[0][i] * x[0][i];
}

static void checks_find_wrong_rules(void **state) {
    (void)state;
    op_case c = {.name = "cube",
                 .n = 1,
                 .in = {SHAPE(2, 3)},
                 .out = SHAPE(2, 3),
                 .f = apply_cube,
                 .ref = cube_ref,
                 .gap = 0.2};
    check_op(&c);
    c.i[0] = 3;
    check_op(&c);
    c.a = 0.01; /* the value is wrong */
    assert_true(forward_error(&c) > 1e-3);
    c.a = 0, c.i[0] = 4;
    assert_true(path_error(&c) > 1e-3);
    c.i[0] = 5;
    assert_true(path_error(&c) > 1e-3);
#ifdef TN_DOUBLE
    c.i[0] = 1;
    assert_true(gradient_error(&c, 1) > 1e-3);
    c.i[0] = 2;
    assert_true(gradient_error(&c, 1) < 1e-9);
    assert_true(gradient_error(&c, 2) > 1e-3);
    c.i[0] = 4;
    assert_true(gradient_error(&c, 1) > 1e-3);
#endif
    c.i[0] = 0, c.out = (test_shape)SHAPE(3, 2);
    assert_true(forward_error(&c) == INFINITY);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define OP(name) cmocka_unit_test(case_##name),
#include "ops.def"
        cmocka_unit_test(special_values), cmocka_unit_test(second_order_at_zero),
        cmocka_unit_test(ties_and_nan),   cmocka_unit_test(masked_class),
        cmocka_unit_test(wrong_shapes),   cmocka_unit_test(checks_find_wrong_rules),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

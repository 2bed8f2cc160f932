/* SPDX-License-Identifier: MIT */
/* exp, log, tanh and others at every vector level: the accuracy, special values, the same bits. */
#include "kernel_levels.h"

static const char *const unary_name[TN_UNARY_COUNT] = {"exp", "log", "tanh", "sigmoid", "relu", "softplus"};

static ref unary_ref(int f, ref x) {
    switch (f) {
    case TN_EXP:
        return REF(exp)(x);
    case TN_LOG:
        return REF(log)(x);
    case TN_TANH:
        return REF(tanh)(x);
    case TN_SIGMOID:
        return x < 0 ? REF(exp)(x) / (1 + REF(exp)(x)) : 1 / (1 + REF(exp)(-x));
    case TN_RELU:
        return x < 0 ? 0 : x;
    default:
        return x > 0 ? x + REF(log1p)(REF(exp)(-x)) : REF(log1p)(REF(exp)(x));
    }
}

/* Distance in units of the last place of a tn_real near want. */
static double ulps(tn_real got, ref want) {
    if (isnan(want) || isnan(got)) return isnan(want) && isnan(got) ? 0 : INFINITY;
    if (isinf((tn_real)want) || isinf(got)) {
        if (same(got, (tn_real)want)) return 0;
        return isinf(want) || REF(fabs)(want) < BIGGEST * (1 - (ref)EPS) ? INFINITY : 1;
    }
    int e = want == 0 ? MIN_EXP : REF(ilogb)(want) - DIGITS + 1;
    return (double)REF(fabs)(REF(ldexp)((ref)got - want, -(e < MIN_EXP ? MIN_EXP : e)));
}

static void test_unary_accuracy(void **state) {
    (void)state;
    size_t n;
    tn_real *x = sweep(&n), *y = room(n);
    for (int f = 0; f < TN_UNARY_COUNT; f++) {
        double worst = 0;
        plain->unary[f](n, x, y);
        for (size_t i = 0; i < n; i++) {
            double u = ulps(y[i], unary_ref(f, x[i]));
            if (u > worst) worst = u;
            if (!(u <= 2.5)) fail_msg("%s(%a) = %a: %g ulp", unary_name[f], (double)x[i], (double)y[i], u);
        }
        print_message("%s: %.3f ulp\n", unary_name[f], worst);
    }
    free(x), free(y);
}

static void test_unary_specials(void **state) {
    (void)state;
    /* clang-format off */
    static const struct { int f; tn_real x, y; } cases[] = {
        {TN_EXP, 0, 1}, {TN_EXP, INFINITY, INFINITY}, {TN_EXP, -INFINITY, 0}, {TN_EXP, NAN, NAN},
        {TN_EXP, BIGGEST, INFINITY}, {TN_EXP, -BIGGEST, 0}, {TN_LOG, 0, -INFINITY},
        {TN_LOG, (tn_real)-0.0, -INFINITY}, {TN_LOG, 1, 0}, {TN_LOG, -1, NAN}, {TN_LOG, -INFINITY, NAN},
        {TN_LOG, INFINITY, INFINITY}, {TN_LOG, NAN, NAN}, {TN_TANH, (tn_real)-0.0, (tn_real)-0.0},
        {TN_TANH, INFINITY, 1}, {TN_TANH, -INFINITY, -1}, {TN_TANH, NAN, NAN},
        {TN_TANH, SMALLEST / 4, SMALLEST / 4}, {TN_SIGMOID, 0, (tn_real)0.5}, {TN_SIGMOID, INFINITY, 1},
        {TN_SIGMOID, -INFINITY, 0}, {TN_SIGMOID, NAN, NAN}, {TN_RELU, NAN, NAN}, {TN_RELU, -1, 0},
        {TN_RELU, -INFINITY, 0}, {TN_RELU, INFINITY, INFINITY}, {TN_SOFTPLUS, INFINITY, INFINITY},
        {TN_SOFTPLUS, -INFINITY, 0}, {TN_SOFTPLUS, NAN, NAN}};
    /* clang-format on */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        tn_real y;
        plain->unary[cases[i].f](1, &cases[i].x, &y);
        assert_same(unary_name[cases[i].f], "special value", &y, &cases[i].y, 1);
    }
}

static void test_unary_levels(void **state) {
    (void)state;
    size_t n;
    tn_real *x = sweep(&n), *want = room(n), *got = room(n);
    for (int f = 0; f < TN_UNARY_COUNT; f++) {
        plain->unary[f](n, x, want);
        for (int l = 1; l < levels; l++) {
            level[l]->unary[f](n, x, got);
            assert_same(unary_name[f], level[l]->name, got, want, n);
            for (size_t part = 0; part <= 35; part++) { /* in place, every remainder, and nothing beyond */
                memcpy(got, x + n - 36, 36 * sizeof *got);
                level[l]->unary[f](part, got, got);
                assert_same(unary_name[f], level[l]->name, got, want + n - 36, part);
                assert_same("beyond the end", level[l]->name, got + part, x + n - 36 + part, 36 - part);
            }
        }
    }
    free(x), free(want), free(got);
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_unary_accuracy),
        cmocka_unit_test(test_unary_specials),
        cmocka_unit_test(test_unary_levels),
    };
    find_levels();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

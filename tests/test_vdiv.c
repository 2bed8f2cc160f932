/* SPDX-License-Identifier: MIT */
/*
 * Quotients and reciprocal roots made of multiplications, against the same in double: every mantissa, exponents over the
 * whole range, and what is sent to the divider. The plain level here; that the others agree is test_optim_levels' subject.
 */
#define TN_LEVEL_PLAIN
#include "kernels/vdiv.h"
#include "support.h"
#include <float.h>

#ifdef TN_DOUBLE
enum { MANTISSAS = 1 << 20 };
#else
enum { MANTISSAS = 1 << 23 };
#endif

/* Distance in units of want's last place, which is normal. */
static double units(tn_real got, double want) {
    int e;
    frexp(want, &e);
    return fabs((double)got - want) / ldexp(1, e - (sizeof(tn_real) == 4 ? FLT_MANT_DIG : DBL_MANT_DIG));
}

/* Number i of [1, 2). */
static tn_real mantissa(uint32_t i) {
    return 1 + (tn_real)i / MANTISSAS;
}

static void test_mantissas(void **state) {
    (void)state;
    double quotient = 0, over = 0, root = 0;
    for (uint32_t i = 0; i < MANTISSAS; i++) {
        const tn_real b = mantissa(i), a = mantissa((uint32_t)(i * 2654435761u) % MANTISSAS);
        quotient = fmax(quotient, units(vquotient(a, b), (double)a / (double)b));
        over = fmax(over, units(vover_root(a, b), (double)a / (double)b));
        root = fmax(root, units(vrsqrt(b), 1 / sqrt((double)b)));
        root = fmax(root, units(vrsqrt(2 * b), 1 / sqrt(2 * (double)b)));
    }
    if (quotient > 1.8 || over > 1.8 || root > 1.5)
        fail_msg("%.3f, %.3f and %.3f units of the last place", quotient, over, root);
}

/* One mantissa after the other over all exponents of b for which the quotient is normal. */
static void test_exponents(void **state) {
    (void)state;
    const int least = sizeof(tn_real) == 4 ? FLT_MIN_EXP : DBL_MIN_EXP, most = 3 - least;
    for (int e = least; e < most - 1; e++)
        for (uint32_t i = 1; i < 1000; i++) {
            const tn_real a = mantissa(i * 1031 % MANTISSAS);
            const tn_real b = (tn_real)ldexp((double)mantissa(i * 7919 % MANTISSAS), e);
            const double want = (double)a / (double)b;
            if (isinf(want) || fabs(want) < (sizeof(tn_real) == 4 ? (double)FLT_MIN : DBL_MIN)) continue;
            if (want > (sizeof(tn_real) == 4 ? (double)FLT_MAX : DBL_MAX)) continue;
            assert_true(units(vquotient(a, b), want) <= 1.8);
            if (e < 92) assert_true(units(vover_root(a, b), want) <= 1.8);
            assert_true(units(vrsqrt(b), 1 / sqrt((double)b)) <= 1.5);
        }
}

/* What no multiplication gets right is the divider's own result. */
static void test_special(void **state) {
    (void)state;
    const tn_real tiny = sizeof(tn_real) == 4 ? (tn_real)1e-40 : (tn_real)1e-310;
    const tn_real b[] = {0, tiny, INFINITY, NAN, (tn_real)-0.0, (tn_real)1e-31, -1},
                  a[] = {0, (tn_real)-0.0, 1, -1, tiny, INFINITY, -INFINITY, NAN};
    for (size_t i = 0; i < sizeof b / sizeof *b; i++) {
        tn_real want = 1 / (tn_real)sqrt((double)b[i]);
        if (b[i] != (tn_real)1e-31 && !(isnan(want) && isnan(vrsqrt(b[i])))) {
            if (b[i] == tiny)
                assert_true(units(vrsqrt(b[i]), (double)want) <= 1.5);
            else
                assert_true(same_bits((tn_real[]){vrsqrt(b[i])}, &want, 1));
        }
        for (size_t j = 0; j < sizeof a / sizeof *a; j++) {
            want = a[j] / b[i];
            const tn_real got[] = {vquotient(a[j], b[i]), vover_root(a[j], b[i])};
            for (int k = 0; k < 2; k++)
                if (isnan(want) ? !isnan(got[k]) : !same_bits(&got[k], &want, 1))
                    fail_msg("%g / %g: %g, not %g", (double)a[j], (double)b[i], (double)got[k], (double)want);
        }
    }
}

/* A power of two in the square, or in both sides, goes through: 8 times the gradient is the same step. */
static void test_scaling(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 100000; i++) {
        const tn_real a = mantissa(i * 1031 % MANTISSAS), b = mantissa(i * 7919 % MANTISSAS);
        const tn_real q[] = {vquotient(a, b), vover_root(a, b), vrsqrt(b)},
                      scaled[] = {vquotient(8 * a, 8 * b), vover_root(8 * a, 8 * b), 8 * vrsqrt(64 * b)};
        assert_true(same_bits(q, scaled, 3));
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_mantissas), cmocka_unit_test(test_exponents),
                                       cmocka_unit_test(test_special), cmocka_unit_test(test_scaling)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

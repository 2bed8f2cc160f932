/* SPDX-License-Identifier: MIT */
/*
 * tanh and the logistic function of recurrent cells against double: every so many-th float of both signs and all sizes,
 * what they promise at the ends, NaN of every kind. The plain level here; that the others agree is test_recurrent_kernels'
 * subject.
 */
#define TN_LEVEL_PLAIN
#include "kernels/gates.h"
#include "support.h"
#include <float.h>

/* In a pair with a NaN, which is not to be seen in the other. */
static tn_real tanh_of(tn_real x) {
    pair y = gate_tanh((pair){x, NAN});
    assert_true(isnan(y.b));
    return y.a;
}
static tn_real logistic_of(tn_real x) {
    pair y = gate_logistic((pair){NAN, x});
    assert_true(isnan(y.a));
    return y.b;
}

static double logistic(double x) {
    return 1 / (1 + exp(-fmax(-87, x)));
}

/* Distance in units of want's last place. */
static double units(tn_real got, double want) {
    int e;
    frexp(want, &e);
    return fabs((double)got - want) / ldexp(1, (e < FLT_MIN_EXP ? FLT_MIN_EXP : e) - FLT_MANT_DIG);
}

static void check(tn_real x) {
    const double t = tanh((double)x), l = logistic((double)x);
    const tn_real got_t = tanh_of(x), got_l = logistic_of(x);
    if (!(units(got_t, t) <= 2.55) || !(fabs((double)got_t - t) <= 1.5e-7) || !(got_t >= -1 && got_t <= 1))
        fail_msg("tanh(%a): %.9g, not %.9g", (double)x, (double)got_t, t);
    if (!(units(got_l, l) <= (x < -20 ? 4.5 : 2.45)) || !(fabs((double)got_l - l) <= 9e-8)
        || !(got_l > 0 && got_l <= 1))
        fail_msg("logistic(%a): %.9g, not %.9g", (double)x, (double)got_l, l);
    assert_true(tanh_of(-x) == -got_t);
}

static void test_accuracy(void **state) {
    (void)state;
    for (uint32_t i = 0; i < 0x7f800000u; i += 1511) check(vfrom_bits(i)), check(vfrom_bits(i | 0x80000000u));
    for (int i = -3000000; i <= 3000000; i++) check((tn_real)i * 0x1p-15f), check((tn_real)i * 0x1p-21f);
}

static void test_ends(void **state) {
    (void)state;
    assert_true(tanh_of(0) == 0 && tanh_of((tn_real)-0.0) == 0 && logistic_of(0) == 0.5f);
    assert_true(logistic_of((tn_real)-0.0) == 0.5f);
    const tn_real big[] = {(tn_real)9.01, 87, 89, 1000, FLT_MAX, INFINITY};
    for (size_t i = 0; i < sizeof big / sizeof *big; i++) {
        assert_true(tanh_of(big[i]) == 1 && tanh_of(-big[i]) == -1);
        if (i) assert_true(logistic_of(big[i]) == 1 && logistic_of(-big[i]) == logistic_of(-87));
    }
    assert_true(tanh_of(FLT_MIN / 8) == FLT_MIN / 8 && tanh_of(-FLT_TRUE_MIN) == -FLT_TRUE_MIN);
}

/* Whatever a NaN's low bits are, which go where those of an integer do. */
static void test_nan(void **state) {
    (void)state;
    for (uint32_t payload = 1; payload < 0x800000u; payload += payload < 2000 ? 1 : 997)
        for (uint32_t sign = 0; sign < 2; sign++) {
            tn_real x = vfrom_bits(0x7f800000u | payload | sign << 31);
            assert_true(isnan(tanh_of(x)) && isnan(logistic_of(x)));
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_accuracy), cmocka_unit_test(test_ends),
                                       cmocka_unit_test(test_nan)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

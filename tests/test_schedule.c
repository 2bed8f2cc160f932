/* SPDX-License-Identifier: MIT */
/* Schedules: PyTorch's recorded multipliers, closed forms, warm-up, options. */
#include "support.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

static tn_schedule *schedule(const char *spec) {
    tn_err e = {""};
    tn_schedule *s = tn_schedule_new(spec, &e);
    if (!s) fail_msg("%s: %s", spec, e.msg);
    return s;
}

static const char *refused(const char *spec) {
    static tn_err e;
    e.msg[0] = 0;
    if (tn_schedule_new(spec, &e)) fail_msg("%s was taken", spec);
    return e.msg;
}

static double mul(const char *spec, long step, long total) {
    tn_schedule *s = schedule(spec);
    double m = tn_schedule_mul(s, step, total);
    tn_schedule_free(s);
    return m;
}

/* ",key=value" for each. */
static void spec_options(json_t *args, char *out, size_t cap) {
    const char *key;
    json_t *value;
    json_object_foreach(args, key, value) {
        int n = json_is_string(value) ? snprintf(out, cap, ",%s=%s", key, json_string_value(value))
                                      : snprintf(out, cap, ",%s=%.17g", key, json_number_value(value));
        assert_true(n > 0 && (size_t)n < cap);
        out += n, cap -= (size_t)n;
    }
}

static void test_golden(void **state) {
    (void)state;
    json_t *root = golden_load("schedules/schedules.json"), *c;
    size_t i;
    assert_true(json_array_size(json_object_get(root, "cases")) >= 104);
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        char spec[256];
        long total = (long)json_integer_value(json_object_get(c, "total"));
        int at = snprintf(spec, sizeof spec, "%s:warmup=%d", json_string_value(json_object_get(c, "name")),
                          (int)json_integer_value(json_object_get(c, "warmup")));
        spec_options(json_object_get(c, "args"), spec + at, sizeof spec - (size_t)at);
        tn_schedule *s = schedule(spec);
        const json_t *want = json_object_get(c, "mul");
        assert_int_equal(json_array_size(want), total);
        for (long k = 0; k < total; k++) {
            double got = tn_schedule_mul(s, k, total), w = json_number_value(json_array_get(want, (size_t)k));
            if (!(fabs(got - w) <= 1e-13)) fail_msg("%s, step %ld: %.17g, PyTorch %.17g", spec, k, got, w);
        }
        tn_schedule_free(s);
    }
    json_decref(root);
}

/* Loss by loss as PyTorch's ReduceLROnPlateau; a copy of the state goes on alike; a warm-up is multiplied with it. */
static void test_plateau(void **state) {
    (void)state;
    json_t *root = golden_load("schedules/plateau.json"), *c;
    size_t i;
    assert_true(json_array_size(json_object_get(root, "cases")) >= 5);
    json_array_foreach(json_object_get(root, "cases"), i, c) {
        char spec[256] = "plateau:warmup=4";
        spec_options(json_object_get(c, "args"), spec + strlen(spec), sizeof spec - strlen(spec));
        tn_schedule *s = schedule(spec), *copy = NULL;
        const json_t *loss = json_object_get(c, "loss"), *want = json_object_get(c, "mul");
        assert_true(tn_schedule_observes(s) && tn_schedule_mul(s, 9, 0) == 1);
        for (size_t k = 0; k < json_array_size(loss); k++) {
            const json_t *v = json_array_get(loss, k);
            const double x = json_is_null(v) ? NAN : json_number_value(v);
            const double w = json_number_value(json_array_get(want, k));
            int n;
            if (k == 11) {
                copy = schedule(spec);
                double *from = tn_schedule_state(s, &n), *to = tn_schedule_state(copy, &n);
                memcpy(to, from, (size_t)n * sizeof *to);
            }
            tn_schedule_observe(s, x);
            if (copy) {
                tn_schedule_observe(copy, x);
                assert_true(tn_schedule_mul(copy, 7, 0) == tn_schedule_mul(s, 7, 0));
            }
            const double got = tn_schedule_mul(s, 100, 0);
            if (!(fabs(got - w) <= 1e-15)) fail_msg("%s, loss %zu: %.17g, PyTorch %.17g", spec, k, got, w);
            assert_true(tn_schedule_mul(s, 1, 0) == 0.5 * got);
        }
        tn_schedule_free(s), tn_schedule_free(copy);
    }
    json_decref(root);
    int n;
    tn_schedule *s = schedule("cosine");
    tn_schedule_observe(s, 1); /* nothing to it */
    tn_schedule_state(s, &n);
    assert_true(n == 0 && !tn_schedule_observes(s) && tn_schedule_mul(s, 0, 9) == 1);
    tn_schedule_free(s);
}

static void test_closed_forms(void **state) {
    (void)state;
    const double pi = acos(-1);
    for (long k = 0; k < 50; k++) {
        double x = (double)k / 50;
        assert_true(mul("constant", k, 50) == 1);
        assert_near(mul("cosine", k, 50), (1 + cos(pi * x)) / 2, 1e-12);
        assert_near(mul("cosine:end=0.25", k, 50), 0.25 + 0.75 * (1 + cos(pi * x)) / 2, 1e-12);
        assert_near(mul("linear", k, 50), 1 - x, 1e-13);
        assert_near(mul("linear:end=0.2", k, 50), 1 - 0.8 * x, 1e-13);
        assert_near(mul("exponential:gamma=0.9", k, 50), pow(0.9, (double)k), 1e-13);
        assert_near(mul("step:size=10,gamma=0.5", k, 50), pow(0.5, floor((double)k / 10)), 1e-15);
    }
    assert_near(mul("exponential", 1000, 0), pow(0.999, 1000), 1e-12);
    assert_true(mul("step", 999, 0) == 1);
    assert_near(mul("step", 1000, 0), 0.1, 1e-15);
    /* Cycles of 2, 6, 18 ...: each begins at 1, and halfway stands at (1 + end) / 2; far out the sum is still exact. */
    long start = 0, length = 2;
    for (int c = 0; c < 30; c++, start += length, length *= 3) {
        assert_true(mul("cosine_restarts:T_0=2,T_mult=3,end=0.5", start, 0) == 1);
        assert_near(mul("cosine_restarts:T_0=2,T_mult=3,end=0.5", start + length / 2, 0), 0.75, 1e-15);
    }
    assert_true(mul("one_cycle:pct_start=0.5", 24, 50) == 1); /* the top is at pct_start n - 1 */
    assert_near(mul("one_cycle", 0, 50), 1.0 / 25, 1e-15);
    assert_near(mul("one_cycle", 49, 50), 1.0 / 25e4, 1e-15);
    assert_true(mul("one_cycle", 50, 50) == mul("one_cycle", 90, 50) && mul("one_cycle", 50, 50) < 1e-5);
    assert_true(mul("one_cycle", 0, 1) > 0 && mul("one_cycle:pct_start=1", 0, 1) == 1);
    assert_true(mul("polynomial:total=10", 10, 50) == 0 && mul("polynomial:total=10", 9, 50) > 0);
    assert_true(mul("wsd", 45, 50) == 1 && mul("wsd", 46, 50) == 0.8 && mul("wsd", 50, 50) == 0);
    assert_true(mul("wsd:decay=0", 49, 50) == 1);
}

static void test_warmup(void **state) {
    (void)state;
    int n;
    const tn_schedule_def *const *defs = tn_schedules(&n);
    assert_int_equal(n, 10);
    for (int i = 0; i < n; i++) {
        char spec[64], plain[64];
        snprintf(plain, sizeof plain, "%s", defs[i]->name);
        snprintf(spec, sizeof spec, "%s:warmup=8", defs[i]->name);
        for (long k = 0; k < 8; k++) assert_true(mul(spec, k, 40) == (double)(k + 1) / 8);
        for (long k = 8; k < 40; k++) assert_true(mul(spec, k, 40) == mul(plain, k - 8, 32));
        assert_near(mul(plain, 0, 40), strcmp(plain, "one_cycle") ? 1 : 1.0 / 25, 1e-15);
    }
    /* Beyond the plan, and a warm-up that is longer than the run. */
    assert_true(mul("cosine", 40, 40) == 0 && mul("cosine", 100, 40) == 0);
    assert_true(mul("linear:end=0.5", 41, 40) == 0.5);
    assert_true(mul("cosine:warmup=50,end=0.5", 49, 40) == 1
                && mul("cosine:warmup=50,end=0.5", 50, 40) == 0.5);
}

static void test_uses_total(void **state) {
    (void)state;
    int n;
    const tn_schedule_def *const *defs = tn_schedules(&n);
    for (int i = 0; i < n; i++) {
        tn_schedule *s = schedule(defs[i]->name);
        int differs = 0;
        for (long k = 0; k < 30; k++) differs |= tn_schedule_mul(s, k, 30) != tn_schedule_mul(s, k, 60);
        assert_int_equal(tn_schedule_uses_total(s), differs);
        tn_schedule_free(s);
    }
}

static void test_options(void **state) {
    (void)state;
    assert_contains(refused("cosin"), "unknown schedule \"cosin\" (did you mean \"cosine\"?)");
    assert_contains(
        refused("zzz"),
        "constant, linear, step, exponential, cosine, cosine_restarts, one_cycle, polynomial, wsd, plateau");
    assert_contains(refused(""), "unknown schedule");
    assert_contains(refused("cosine:warmpu=5"),
                    "schedule cosine: unknown option \"warmpu\" (did you mean \"warmup\"?)");
    assert_contains(refused("cosine:warmup=-1"), "out of range");
    assert_contains(refused("cosine:warmup=1.5"), "not a whole number");
    assert_contains(refused("cosine:gamma=0.5"), "unknown option");
    assert_contains(refused("constant:end=0.5"), "unknown option");
    assert_contains(refused("step:size=0"), "1 <= size");
    assert_contains(refused("step:gamma=0"), "0 < gamma <= 1");
    assert_contains(refused("step:step_size=3"), "did you mean \"size\"");
    assert_contains(refused("exponential:gamma=1.1"), "out of range");
    assert_contains(refused("linear:end=2"), "out of range");
    assert_contains(refused("cosine_restarts:T_0=0"), "1 <= T_0");
    assert_contains(refused("cosine_restarts:T_mult=1.5"), "not a whole number");
    assert_contains(refused("one_cycle:pct_start=1.1"), "0 <= pct_start <= 1");
    assert_contains(refused("one_cycle:anneal=sine"), "cos");
    assert_contains(refused("polynomial:power=0"), "0 < power");
    assert_contains(refused("wsd:shape=cubic"), "linear");
    assert_contains(refused("plateau:factor=1"), "0 < factor < 1");
    assert_contains(refused("plateau:patience=-1"), "out of range");
    assert_contains(refused("plateau:mode=min"), "unknown option");
    char text[256];
    tn_schedule *s = schedule("step:gamma=0.25,warmup=3");
    assert_int_equal(tn_schedule_text(s, text, sizeof text), 34);
    assert_string_equal(text, "step:size=1000,gamma=0.25,warmup=3");
    assert_int_equal(tn_schedule_text(s, text, 8), -1);
    tn_schedule_free(s);
    tn_schedule_free(NULL);
}

static void without_total(void *arg) {
    tn_schedule_mul(arg, 0, 0);
}
static void before_start(void *arg) {
    tn_schedule_mul(arg, -1, 10);
}

static void test_misuse(void **state) {
    (void)state;
    tn_schedule *s = schedule("cosine");
    assert_true(panics(without_total, s, "needs the planned number of steps"));
    assert_true(panics(before_start, s, "steps count from 0"));
    tn_schedule_free(s);
    s = schedule("constant");
    assert_true(tn_schedule_mul(s, 5, 0) == 1);
    tn_schedule_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden), cmocka_unit_test(test_plateau),    cmocka_unit_test(test_closed_forms),
        cmocka_unit_test(test_warmup), cmocka_unit_test(test_uses_total), cmocka_unit_test(test_options),
        cmocka_unit_test(test_misuse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

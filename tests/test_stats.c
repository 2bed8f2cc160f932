/* SPDX-License-Identifier: MIT */
/* Paired statistics against SciPy (golden/stats), against plain enumeration, by hand, and by their
 * symmetries. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <jansson.h>

#include "tern_stats.h"

#ifndef TN_GOLDEN_DIR
#define TN_GOLDEN_DIR "tests/golden"
#endif

enum { MAX_N = 64 };

/* -- helpers --------------------------------------------------------------------------------------------- */

static void check_near(double got, double want, double rel, double abs_tol, const char *file, int line) {
    int same_inf = isinf(want) && got == want;
    if (same_inf || fabs(got - want) <= abs_tol + rel * fabs(want)) return;
    print_error("got %.17g, want %.17g\n", got, want);
    _fail(file, line);
}
#define NEAR(got, want, rel, abs_tol) check_near(got, want, rel, abs_tol, __FILE__, __LINE__)

static uint64_t random_state;
static double uniform(void) { /* an LCG, so that the tests do not share the library's generator */
    random_state = random_state * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return ((double)(random_state >> 11) + 0.5) / 9007199254740992.0;
}
static double normal(void) {
    double r = sqrt(-2 * log(uniform()));
    return r * cos(2 * acos(-1) * uniform());
}

static double sign_p(const double *d, int n) {
    double p = NAN;
    assert_int_equal(tn_signflip(d, n, 0, 1, &p, 0, NULL, NULL, NULL), 0);
    return p;
}
static tn_interval sign_ci(const double *d, int n, double level) {
    tn_interval ci = {NAN, NAN};
    assert_int_equal(tn_signflip(d, n, 0, 1, NULL, 1, &level, &ci, NULL), 0);
    return ci;
}

static json_t *golden(const char *section) {
    json_error_t e;
    json_t *root = json_load_file(TN_GOLDEN_DIR "/stats/stats.json", 0, &e);
    if (!root) fail_msg("%s:%d: %s", e.source, e.line, e.text);
    json_t *list = json_incref(json_object_get(root, section));
    json_decref(root);
    assert_true(json_array_size(list) > 0);
    return list;
}
static double number(const json_t *row, const char *key) {
    json_t *v = json_object_get(row, key);
    if (!json_is_number(v)) fail_msg("no number \"%s\"", key);
    return json_number_value(v);
}
static int numbers(const json_t *row, const char *key, double unit, double *x) {
    json_t *list = json_object_get(row, key);
    int n = (int)json_array_size(list);
    assert_in_range(n, 1, MAX_N);
    for (int i = 0; i < n; i++) x[i] = json_number_value(json_array_get(list, (size_t)i)) / unit;
    return n;
}

/* -- the sign-flip test ---------------------------------------------------------------------------------- */

static void p_values_equal_scipy(void **state) {
    (void)state;
    json_t *list = golden("paired"), *row;
    size_t k;
    double a[MAX_N], b[MAX_N];
    json_array_foreach(list, k, row) {
        int n = numbers(row, "a", 10000, a);
        tn_paired r;
        assert_int_equal(numbers(row, "b", 10000, b), n);
        assert_int_equal(tn_paired_stats(a, b, n, 0.95, 1, 0.001, 7, &r, NULL), 0);
        NEAR(r.p, number(row, "p"), 1e-12, 0);
        NEAR(r.dz, number(row, "dz"), 1e-9, 1e-12);
        assert_int_equal(r.exact, 1);
    }
    json_decref(list);
}

static void p_values_by_hand(void **state) {
    (void)state;
    assert_true(sign_p((double[]){1, 2, 3, 4, 5}, 5) == 0.0625); /* five seeds never reach 0.05 */
    assert_true(sign_p((double[]){-1, -2, -3, -4, -5}, 5) == 0.0625);
    assert_true(sign_p((double[]){3}, 1) == 1);
    assert_true(sign_p((double[]){1, 3}, 2) == 0.5);
    assert_true(sign_p((double[]){1, -1}, 2) == 1);
    assert_true(sign_p((double[]){0, 0, 0, 0}, 4) == 1);
    assert_true(sign_p((double[]){1, 0, 0}, 3) == 1);         /* |1| is reached by all eight */
    assert_true(sign_p((double[]){1, 1, 0}, 3) == 0.5);       /* 2, 0, 0, -2, each twice */
    assert_true(sign_p((double[]){0.1, 0.2, -0.3}, 3) == 1);  /* a sum of 0 that binary arithmetic misses */
    assert_true(sign_p((double[]){1, 2, 3, -1}, 4) == 0.375); /* sums 7 5 5 3 1 1.. : |sum| >= 5 in 6 of 16 */
    assert_true(sign_p((double[]){0.1, 0.2, 0.3, -0.1}, 4) == 0.375);
}

static void scale_widens_the_tie(void **state) {
    (void)state;
    /* Near 1e6 a double's step is u; x + y against x and y is a tie that rounding hides by one step. */
    double u = ldexp(1, -33), x = 1000.4 * u, y = 2000.4 * u;
    double a[3] = {1e6 + (x + y), 1e6, 1e6}, b[3] = {1e6, 1e6 + x, 1e6 + y}, d[3], p = 0;
    for (int i = 0; i < 3; i++) d[i] = a[i] - b[i];
    assert_true(d[0] + d[1] + d[2] == u);
    assert_int_equal(tn_signflip(d, 3, 1e6, 0, &p, 0, NULL, NULL, NULL), 0);
    assert_true(p == 1);
    tn_paired r;
    assert_int_equal(tn_paired_stats(a, b, 3, 0.95, 1, 1, 0, &r, NULL), 0);
    assert_true(r.p == 1 && r.mean == 0 && r.dz == 0);
}

static void intervals_equal_enumeration(void **state) {
    (void)state;
    json_t *list = golden("intervals"), *row;
    size_t k;
    double d[MAX_N], want[2];
    json_array_foreach(list, k, row) {
        int n = numbers(row, "d", 1, d);
        tn_interval ci = sign_ci(d, n, number(row, "level"));
        if (json_is_null(json_object_get(row, "ci"))) {
            assert_true(ci.lo == -INFINITY && ci.hi == INFINITY);
            continue;
        }
        numbers(row, "ci", 1, want);
        NEAR(ci.lo, want[0], 1e-12, 1e-12);
        NEAR(ci.hi, want[1], 1e-12, 1e-12);
    }
    json_decref(list);
}

static void intervals_by_hand(void **state) {
    (void)state;
    double d[6] = {1, 2, 3, 4, 5, 6};
    tn_interval ci =
        sign_ci(d, 6, 0.93); /* p in 32nds; 2.24 of them reject, so p(1) = 2/32 does: next is 1.5 */
    NEAR(ci.lo, 1.5, 1e-14, 0);
    NEAR(ci.hi, 5.5, 1e-14, 0);
    ci = sign_ci(d, 6, 0.95); /* 1.6 of 32: p(1) = 2/32 no longer rejects */
    NEAR(ci.lo, 1, 1e-14, 0);
    NEAR(ci.hi, 6, 1e-14, 0);
    ci = sign_ci(d, 6, 1 - 2.0 / 64); /* p = 1/32 rejects at alpha = 1/32 */
    NEAR(ci.lo, 1, 1e-14, 0);
    NEAR(ci.hi, 6, 1e-14, 0);
    assert_true(sign_ci(d, 6, 0.97).hi == INFINITY);
    assert_true(sign_ci(d, 5, 0.95).lo == -INFINITY);
    ci = sign_ci((double[]){2, 2, 2, 2, 2, 2}, 6, 0.95);
    assert_true(ci.lo == 2 && ci.hi == 2);
    assert_int_equal(tn_signflip_pairs_needed(0.95), 6);
    assert_int_equal(tn_signflip_pairs_needed(0.99), 8);
    assert_int_equal(tn_signflip_pairs_needed(1 - 0.05 / 18), 10);
    assert_int_equal(tn_signflip_pairs_needed(0.9375), 5);
    assert_int_equal(tn_signflip_pairs_needed(1), -1);
}

/* p(mu) straight from its definition: every sign vector, every sum. */
static double naive_p(const double *d, int n, double mu) {
    double observed = 0, guard = 0;
    int hits = 0;
    for (int i = 0; i < n; i++) observed += d[i] - mu, guard += 1e-12 * fabs(d[i] - mu);
    for (unsigned flips = 0; flips < 1u << n; flips++) {
        double sum = 0;
        for (int i = 0; i < n; i++) sum += flips >> i & 1 ? mu - d[i] : d[i] - mu;
        hits += fabs(sum) >= fabs(observed) - guard;
    }
    return hits / ldexp(1, n);
}

static double bisect_end(const double *d, int n, double level, double in, double out) {
    for (int k = 0; k < 60; k++) {
        double mid = (in + out) / 2;
        if (naive_p(d, n, mid) > 1 - level) {
            in = mid;
        } else {
            out = mid;
        }
    }
    return in;
}

static void intervals_equal_bisection(void **state) {
    (void)state;
    random_state = 11;
    for (int round = 0; round < 6; round++) {
        double d[11], level = round % 2 ? 0.95 : 1 - 0.05 / 9, mean = 0;
        int n = 9 + round % 3;
        for (int i = 0; i < n; i++) d[i] = 0.3 + normal(), mean += d[i] / n;
        tn_interval ci = sign_ci(d, n, level);
        NEAR(ci.lo, bisect_end(d, n, level, mean, mean - 10), 0, 1e-9);
        NEAR(ci.hi, bisect_end(d, n, level, mean, mean + 10), 0, 1e-9);
        NEAR(sign_p(d, n), naive_p(d, n, 0), 1e-14, 0);
    }
}

static void interval_and_p_never_disagree(void **state) {
    (void)state;
    random_state = 5;
    int rejected = 0, kept = 0;
    for (int round = 0; round < 3000; round++) {
        double d[10], level = 0.5 + 0.49 * uniform(), p;
        int n = 4 + round % 7;
        tn_interval ci;
        for (int i = 0; i < n; i++) d[i] = round % 2 ? floor(7 * uniform() - 1.5) / 10 : 0.7 + normal();
        assert_int_equal(tn_signflip(d, n, 0, 0, &p, 1, &level, &ci, NULL), 0);
        int out = ci.lo > 0 || ci.hi < 0;
        assert_int_equal(out, p <= 1 - level);
        *(out ? &rejected : &kept) += 1;
    }
    assert_true(rejected > 300 && kept > 300);
}

static void symmetries(void **state) {
    (void)state;
    random_state = 3;
    for (int n = 7; n <= 12; n++) {
        double d[12], neg[12], moved[12], scaled[12], turned[12], dyadic[12];
        for (int i = 0; i < n; i++) {
            d[i] = 0.4 + normal();
            neg[i] = -d[i];
            moved[i] = d[i] + 2.5;
            scaled[i] = 1e-5 * d[i];
            dyadic[i] = ldexp(d[i], -40);
        }
        for (int i = 0; i < n; i++) turned[i] = d[(5 * i + 2) % n == i ? i : n - 1 - i];
        tn_interval ci = sign_ci(d, n, 0.95), x = sign_ci(neg, n, 0.95);
        NEAR(x.lo, -ci.hi, 1e-12, 1e-14);
        NEAR(x.hi, -ci.lo, 1e-12, 1e-14);
        assert_true(sign_p(neg, n) == sign_p(d, n));
        x = sign_ci(moved, n, 0.95);
        NEAR(x.lo, ci.lo + 2.5, 1e-12, 0);
        NEAR(x.hi, ci.hi + 2.5, 1e-12, 0);
        x = sign_ci(scaled, n, 0.95);
        NEAR(x.lo, 1e-5 * ci.lo, 1e-12, 0);
        NEAR(x.hi, 1e-5 * ci.hi, 1e-12, 0);
        assert_true(sign_p(scaled, n) == sign_p(d, n));
        x = sign_ci(dyadic, n, 0.95);
        assert_true(x.lo == ldexp(ci.lo, -40) && x.hi == ldexp(ci.hi, -40));
        x = sign_ci(turned, n, 0.95);
        assert_true(x.lo == ci.lo && x.hi == ci.hi && sign_p(turned, n) == sign_p(d, n));
        tn_interval wide = sign_ci(d, n, 0.98);
        assert_true(wide.lo <= ci.lo && wide.hi >= ci.hi);
    }
}

static void coverage_is_the_level(void **state) {
    (void)state;
    enum { SAMPLES = 4000, N = 8 };
    random_state = 2024;
    int missed = 0;
    for (int s = 0; s < SAMPLES; s++) {
        double d[N];
        for (int i = 0; i < N; i++) d[i] = 0.5 + normal();
        tn_interval ci = sign_ci(d, N, 0.95);
        missed += ci.lo > 0.5 || ci.hi < 0.5;
    }
    /* Theory: 6 of 128 splits may be cut, a miss rate of 0.0469; four standard errors are 0.0134. */
    NEAR((double)missed / SAMPLES, 6.0 / 128, 0, 0.0134);
}

static void drawn_test_is_near_the_exact_one(void **state) {
    (void)state;
    json_t *list = golden("large"), *row;
    size_t k;
    double d[MAX_N], level = 0.95;
    json_array_foreach(list, k, row) {
        int n = numbers(row, "d", 10000, d);
        double want = number(row, "p"), p, again, other;
        tn_interval ci, ci2;
        assert_int_equal(tn_signflip(d, n, 1, 42, &p, 1, &level, &ci, NULL), 0);
        assert_int_equal(tn_signflip(d, n, 1, 42, &again, 1, &level, &ci2, NULL), 0);
        assert_int_equal(tn_signflip(d, n, 1, 43, &other, 0, NULL, NULL, NULL), 0);
        NEAR(p, want, 0, 5 * sqrt(want * (1 - want) / TN_SIGNFLIP_DRAWS) + 1e-5);
        assert_true(p == again && ci.lo == ci2.lo && ci.hi == ci2.hi);
        assert_true(p != other);
        assert_int_equal(ci.lo > 0 || ci.hi < 0, p <= 1 - level);
    }
    json_decref(list);
    for (int i = 0; i < 30; i++) d[i] = 1 + i;
    double p = sign_p(d, 30); /* the observed assignment counts, so never 0 */
    assert_true(p == 1.0 / TN_SIGNFLIP_DRAWS);
    /* For normal data the interval is close to Student's. */
    random_state = 9;
    for (int i = 0; i < 21; i++) d[i] = 1 + normal();
    double mean, sd;
    tn_interval t, s = sign_ci(d, 21, 0.95);
    assert_int_equal(tn_mean_interval(d, 21, 0.95, &mean, &sd, &t, NULL), 0);
    NEAR(s.lo, t.lo, 0, 0.1 * (t.hi - t.lo));
    NEAR(s.hi, t.hi, 0, 0.1 * (t.hi - t.lo));
}

static void twenty_pairs_are_exact(void **state) {
    (void)state;
    double d[20];
    for (int i = 0; i < 20; i++) d[i] = ldexp(1, i); /* all positive: only the observed one and its mirror */
    assert_true(sign_p(d, 20) == ldexp(2, -20));
    d[19] = -d[19]; /* now the total is -1, and every assignment of powers of two has an odd sum: p = 1 */
    assert_true(sign_p(d, 20) == 1);
    tn_interval ci = sign_ci(d, 20, 1 - ldexp(2, -20));
    assert_true(ci.lo == -ldexp(1, 19) && ci.hi == ldexp(1, 18));
}

/* -- bootstrap, distributions, small intervals ----------------------------------------------------------- */

static void bca_is_near_scipy(void **state) {
    (void)state;
    json_t *list = golden("bca"), *row;
    size_t k;
    double d[MAX_N], want[2];
    json_array_foreach(list, k, row) {
        int n = numbers(row, "d", 1, d);
        numbers(row, "ci", 1, want);
        tn_interval ci, again, turned;
        assert_int_equal(tn_bca(d, n, 0.95, 1, &ci, NULL), 0);
        NEAR(ci.lo, want[0], 0, 0.03 * (want[1] - want[0]));
        NEAR(ci.hi, want[1], 0, 0.03 * (want[1] - want[0]));
        assert_int_equal(tn_bca(d, n, 0.95, 1, &again, NULL), 0);
        double first = d[0];
        d[0] = d[n - 1], d[n - 1] = first;
        assert_int_equal(tn_bca(d, n, 0.95, 1, &turned, NULL), 0);
        assert_true(ci.lo == again.lo && ci.hi == again.hi && ci.lo == turned.lo && ci.hi == turned.hi);
        assert_int_equal(tn_bca(d, n, 0.95, 2, &again, NULL), 0);
        assert_true(ci.lo != again.lo);
    }
    json_decref(list);
    tn_interval ci;
    assert_int_equal(tn_bca((double[]){0.25, 0.25, 0.25}, 3, 0.95, 1, &ci, NULL), 0);
    assert_true(ci.lo == 0.25 && ci.hi == 0.25);
    assert_int_equal(tn_bca((double[]){0.25}, 1, 0.95, 1, &ci, NULL), 0);
    assert_true(ci.lo == -INFINITY && ci.hi == INFINITY);
    assert_int_equal(tn_bca((double[]){0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, 10, 0.9999999, 1, &ci, NULL), 0);
    assert_true(ci.lo >= 0 && ci.hi > 0.2 && ci.hi <= 1);
}

static void quantiles_equal_scipy(void **state) {
    (void)state;
    json_t *list = golden("t"), *row;
    size_t k;
    json_array_foreach(list, k, row) {
        NEAR(tn_t_quantile(number(row, "p"), number(row, "df")), number(row, "t"), 1e-12, 1e-15);
    }
    json_decref(list);
    list = golden("normal");
    json_array_foreach(list, k, row) {
        NEAR(tn_normal_quantile(number(row, "p")), number(row, "x"), 1e-13, 0);
        NEAR(tn_normal_cdf(number(row, "x")), number(row, "p"), 1e-10, 0);
    }
    json_decref(list);
    NEAR(tn_t_quantile(0.75, 1), 1, 1e-14, 0); /* Cauchy: tan(pi/4) */
    NEAR(tn_t_quantile(0.75, 2), sqrt(2.0 / 3), 1e-14, 0);
    assert_true(tn_t_quantile(0.5, 3) == 0 && tn_t_quantile(1, 3) == INFINITY
                && tn_t_quantile(0, 3) == -INFINITY);
    assert_true(tn_t_quantile(0.9, INFINITY) == tn_normal_quantile(0.9));
    assert_true(isnan(tn_t_quantile(1.5, 3)) && isnan(tn_t_quantile(NAN, 3)) && isnan(tn_t_quantile(0.9, 0)));
    assert_true(isnan(tn_normal_quantile(-0.1)) && isnan(tn_t_quantile(0.9, NAN)));
}

static void mean_intervals_equal_scipy(void **state) {
    (void)state;
    json_t *list = golden("mean"), *row;
    size_t k;
    double x[MAX_N], want[2], mean, sd;
    tn_interval ci;
    json_array_foreach(list, k, row) {
        int n = numbers(row, "x", 1, x);
        numbers(row, "ci", 1, want);
        assert_int_equal(tn_mean_interval(x, n, number(row, "level"), &mean, &sd, &ci, NULL), 0);
        NEAR(mean, number(row, "mean"), 1e-14, 0);
        NEAR(sd, number(row, "sd"), 1e-11, 0);
        NEAR(ci.lo, want[0], 1e-12, 0);
        NEAR(ci.hi, want[1], 1e-12, 0);
    }
    json_decref(list);
    assert_int_equal(tn_mean_interval((double[]){0.1, 0.1, 0.1}, 3, 0.95, &mean, &sd, &ci, NULL), 0);
    assert_true(mean == 0.1 && sd == 0 && ci.lo == 0.1 && ci.hi == 0.1);
    assert_int_equal(tn_mean_interval((double[]){0.1}, 1, 0.95, &mean, &sd, &ci, NULL), 0);
    assert_true(mean == 0.1 && isnan(sd) && ci.lo == -INFINITY && ci.hi == INFINITY);
}

static void wilson_equals_scipy(void **state) {
    (void)state;
    json_t *list = golden("wilson"), *row;
    size_t k;
    double want[2];
    tn_interval ci;
    json_array_foreach(list, k, row) {
        numbers(row, "ci", 1, want);
        assert_int_equal(tn_wilson(number(row, "k"), number(row, "n"), number(row, "level"), &ci, NULL), 0);
        NEAR(ci.lo, want[0], 1e-12, 1e-15);
        NEAR(ci.hi, want[1], 1e-12, 0);
    }
    json_decref(list);
    assert_int_equal(tn_wilson(13, 12, 0.95, &ci, NULL), TN_STATS_RANGE);
    assert_int_equal(tn_wilson(0, 0, 0.95, &ci, NULL), TN_STATS_RANGE);
    assert_int_equal(tn_wilson(NAN, 3, 0.95, &ci, NULL), TN_STATS_RANGE);
}

static void holm_by_hand(void **state) {
    (void)state;
    double p[4] = {0.01, 0.04, 0.03, 0.005}, out[4], want[4] = {0.03, 0.06, 0.06, 0.02};
    assert_int_equal(tn_holm(p, 4, out, NULL), 0);
    for (int i = 0; i < 4; i++) NEAR(out[i], want[i], 1e-15, 0);
    assert_int_equal(tn_holm(p, 4, p, NULL), 0); /* in place */
    assert_memory_equal(p, out, sizeof p);
    double q[5] = {0.5, 0.01, 0.9, 0.01, 0.3}, want_q[5] = {1, 0.05, 1, 0.05, 0.9}; /* clipped; ties alike */
    assert_int_equal(tn_holm(q, 5, q, NULL), 0);
    for (int i = 0; i < 5; i++) NEAR(q[i], want_q[i], 1e-15, 0);
    double one = 0.2;
    assert_int_equal(tn_holm(&one, 1, &one, NULL), 0);
    assert_true(one == 0.2);
    double bad[2] = {0.1, NAN}, over[2] = {0.1, 1.5};
    assert_int_equal(tn_holm(bad, 2, out, NULL), TN_STATS_NONFINITE);
    assert_int_equal(tn_holm(over, 2, out, NULL), TN_STATS_RANGE);
    assert_int_equal(tn_holm(p, 0, out, NULL), TN_STATS_RANGE);
}

/* -- the comparison -------------------------------------------------------------------------------------- */

static void effect_sizes_by_hand(void **state) {
    (void)state;
    double a[8] = {0.98, 0.97, 0.99, 0.98, 0.96, 0.98, 0.97, 0.99};
    double b[8] = {0.97, 0.97, 0.98, 0.99, 0.95, 0.97, 0.97, 0.98}; /* five wins, one loss, two ties */
    tn_paired r;
    tn_interval w;
    assert_int_equal(tn_paired_stats(a, b, 8, 0.95, 3, 0.001, 1, &r, NULL), 0);
    assert_true(r.wins == 5 && r.losses == 1 && r.ties == 2 && r.prob == 0.75);
    assert_int_equal(tn_wilson(6, 8, 0.95, &w, NULL), 0);
    assert_true(r.prob_ci.lo == w.lo && r.prob_ci.hi == w.hi);
    NEAR(r.mean, 0.005, 1e-12, 0);
    NEAR(r.mean_a - r.mean_b, r.mean, 1e-12, 0);
    NEAR(r.sd, sqrt((6 * 1e-4 - 8 * 25e-6) / 7), 1e-12, 0);
    NEAR(r.p, 28.0 / 128, 1e-14, 0); /* six units: |sum| >= 4 in 14 of 64 */
    NEAR(r.ci_sim.lo, sign_ci((double[]){1, 0, 1, -1, 1, 1, 0, 1}, 8, 1 - 0.05 / 3).lo / 100, 1e-12, 0);
    assert_true(r.ci_sim.lo <= r.ci.lo && r.ci_sim.hi >= r.ci.hi);

    double c[3] = {0.3, 0.6, 0.8},
           d[3] = {0.2, 0.5, 0.7}; /* equal differences that binary arithmetic spreads */
    assert_int_equal(tn_paired_stats(c, d, 3, 0.95, 1, 0, 1, &r, NULL), 0);
    assert_true(r.sd == 0 && r.dz == INFINITY);
    assert_int_equal(tn_paired_stats(d, c, 3, 0.95, 1, 0, 1, &r, NULL), 0);
    assert_true(r.sd == 0 && r.dz == -INFINITY);
    assert_int_equal(tn_paired_stats(c, c, 3, 0.95, 1, 0, 1, &r, NULL), 0);
    assert_true(r.mean == 0 && r.sd == 0 && r.dz == 0 && r.p == 1 && r.prob == 0.5 && r.ties == 3);
    assert_int_equal(tn_paired_stats(c, d, 1, 0.95, 1, 0, 1, &r, NULL), 0);
    assert_true(isnan(r.sd) && isnan(r.dz) && r.p == 1 && r.verdict == TN_UNDECIDED);
}

static void verdicts(void **state) {
    (void)state;
    static const struct {
        double lo, hi, margin;
        tn_verdict want;
        int side;
    } row[] = {
        {-0.0005, 0.0005, 0.001, TN_EQUIVALENT, 0},
        {0.0002, 0.0005, 0.001, TN_EQUIVALENT, 1},
        {-0.0005, -0.0002, 0.001, TN_EQUIVALENT, -1},
        {0.0002, 0.002, 0.001, TN_BETTER, 1},
        {-0.002, -0.0002, 0.001, TN_WORSE, -1},
        {-0.0002, 0.002, 0.001, TN_UNDECIDED, 0},
        {0, 0.002, 0.001, TN_UNDECIDED, 0},
        {-0.002, 0, 0.001, TN_UNDECIDED, 0},
        {0, 0, 0, TN_UNDECIDED, 0},
        {0, 0, 0.001, TN_EQUIVALENT, 0},
        {-0.0005, 0.001, 0.001, TN_UNDECIDED, 0}, /* the margin itself is outside */
        {-0.0005, 0.0012 - 0.0002, 0.001, TN_UNDECIDED, 0},
        {-0.001, 0.0005, 0.001, TN_UNDECIDED, 0},
        {0.001, 0.001, 0.001, TN_BETTER, 1},
        {-INFINITY, INFINITY, 0.001, TN_UNDECIDED, 0},
    };
    for (size_t i = 0; i < sizeof row / sizeof *row; i++) {
        int side = 9;
        assert_int_equal(tn_verdict_of((tn_interval){row[i].lo, row[i].hi}, row[i].margin, &side),
                         row[i].want);
        assert_int_equal(side, row[i].side);
        assert_int_equal(tn_verdict_of((tn_interval){row[i].lo, row[i].hi}, row[i].margin, NULL),
                         row[i].want);
    }
    assert_string_equal(tn_verdict_word(TN_BETTER), "better");
    assert_string_equal(tn_verdict_word(TN_WORSE), "worse");
    assert_string_equal(tn_verdict_word(TN_EQUIVALENT), "equivalent");
    assert_string_equal(tn_verdict_word(TN_UNDECIDED), "undecided");
}

static void expect_sentence(const double *units, int n, double margin, const char *want) {
    double a[12], b[12];
    char text[512];
    tn_paired r;
    for (int i = 0; i < n; i++) a[i] = 0.98 + units[i] / 10000, b[i] = 0.98;
    assert_int_equal(tn_paired_stats(a, b, n, 0.95, 3, margin, 1, &r, NULL), 0);
    int len = tn_paired_sentence(&r, "adamw", "adam", text, sizeof text);
    assert_int_equal(len, strlen(text));
    assert_string_equal(text, want);
    char tiny[8];
    assert_int_equal(tn_paired_sentence(&r, "adamw", "adam", tiny, sizeof tiny), len);
    assert_int_equal(strlen(tiny), 7);
}

static void sentences(void **state) {
    (void)state;
    double d[12];
    for (int i = 0; i < 12; i++) d[i] = 40;
    expect_sentence(
        d, 12, 0.001,
        "At these settings adamw is better than adam: mean difference +0.400 points, simultaneous 95% "
        "interval +0.400 to +0.400.");
    for (int i = 0; i < 12; i++) d[i] = -40;
    expect_sentence(
        d, 12, 0.001,
        "At these settings adamw is worse than adam: mean difference -0.400 points, simultaneous 95% "
        "interval -0.400 to -0.400.");
    expect_sentence(
        d, 12, 0.005,
        "At these settings adamw and adam are equivalent: mean difference -0.400 points, simultaneous 95% "
        "interval -0.400 to -0.400, inside the margin of 0.5; it excludes 0: adam is ahead, by less "
        "than the margin.");
    for (int i = 0; i < 12; i++) d[i] = 0;
    expect_sentence(
        d, 12, 0.001,
        "At these settings adamw and adam are equivalent: mean difference 0.000 points, simultaneous 95% "
        "interval 0.000 to 0.000, inside the margin of 0.1.");
    expect_sentence(
        d, 5, 0.001,
        "At these settings adamw and adam are undecided: mean difference 0.000 points, but 5 pairs give no "
        "interval at this level (95% over 3 comparisons); at least 7 are needed.");
    double e[7] = {-30, -20, -10, 0,
                   10,  20,  30}; /* 1.07 of 64 may reject: only p = 1/64, the extremes stay */
    expect_sentence(
        e, 7, 0.001,
        "At these settings adamw and adam are undecided: mean difference 0.000 points, simultaneous 95% "
        "interval -0.300 to +0.300 holds 0 and is not inside the margin of 0.1.");
}

static void swapping_names_mirrors_the_result(void **state) {
    (void)state;
    random_state = 77;
    for (int round = 0; round < 20; round++) {
        double a[12], b[12];
        for (int i = 0; i < 12; i++) {
            a[i] = floor(9800 + 20 * normal()) / 10000;
            b[i] = floor(9790 + 20 * normal()) / 10000;
        }
        tn_paired r, s;
        assert_int_equal(tn_paired_stats(a, b, 12, 0.95, 9, 0.002, 1, &r, NULL), 0);
        assert_int_equal(tn_paired_stats(b, a, 12, 0.95, 9, 0.002, 1, &s, NULL), 0);
        assert_true(r.p == s.p && r.side == -s.side && r.wins == s.losses && r.ties == s.ties);
        assert_true(r.ci_sim.lo < r.ci.lo && r.ci_sim.hi > r.ci.hi);
        NEAR(r.mean, -s.mean, 1e-12, 1e-15);
        NEAR(r.ci_sim.lo, -s.ci_sim.hi, 1e-10, 1e-15);
        NEAR(r.ci.hi, -s.ci.lo, 1e-10, 1e-15);
        NEAR(r.prob, 1 - s.prob, 1e-14, 0);
        NEAR(r.prob_ci.lo, 1 - s.prob_ci.hi, 1e-12, 1e-15);
        assert_true(r.verdict == s.verdict || (r.verdict == TN_BETTER && s.verdict == TN_WORSE)
                    || (r.verdict == TN_WORSE && s.verdict == TN_BETTER));
        assert_int_equal(r.side != 0, r.p <= 0.05 / 9);
    }
}

static void bad_input_is_refused(void **state) {
    (void)state;
    double a[3] = {1, 2, 3}, b[3] = {1, NAN, 3}, c[3] = {1, 2, INFINITY}, huge[3] = {1e308, 1e308, 1e308};
    tn_paired r = {.n = -7};
    tn_stats_err err;
    assert_int_equal(tn_paired_stats(a, b, 3, 0.95, 1, 0, 1, &r, &err), TN_STATS_NONFINITE);
    assert_non_null(strstr(err.msg, "b[1] is nan"));
    assert_int_equal(tn_paired_stats(c, a, 3, 0.95, 1, 0, 1, &r, &err), TN_STATS_NONFINITE);
    assert_non_null(strstr(err.msg, "a[2] is inf"));
    assert_int_equal(tn_paired_stats(huge, a, 3, 0.95, 1, 0, 1, &r, NULL), TN_STATS_NONFINITE);
    assert_int_equal(tn_paired_stats(a, a, 0, 0.95, 1, 0, 1, &r, &err), TN_STATS_RANGE);
    assert_int_equal(tn_paired_stats(a, a, 3, 1, 1, 0, 1, &r, &err), TN_STATS_RANGE);
    assert_non_null(strstr(err.msg, "between 0 and 1"));
    assert_int_equal(tn_paired_stats(a, a, 3, NAN, 1, 0, 1, &r, NULL), TN_STATS_RANGE);
    assert_int_equal(tn_paired_stats(a, a, 3, 0.95, 0, 0, 1, &r, NULL), TN_STATS_RANGE);
    assert_int_equal(tn_paired_stats(a, a, 3, 0.95, 1, -0.1, 1, &r, NULL), TN_STATS_RANGE);
    assert_int_equal(tn_paired_stats(a, a, 3, 0.95, 1, NAN, 1, &r, NULL), TN_STATS_RANGE);
    assert_int_equal(r.n, -7); /* untouched */
    double p = -1, level = 0;
    tn_interval ci = {-5, -5};
    assert_int_equal(tn_signflip(b, 3, 0, 1, &p, 0, NULL, NULL, NULL), TN_STATS_NONFINITE);
    assert_int_equal(tn_signflip(a, 3, NAN, 1, &p, 0, NULL, NULL, NULL), TN_STATS_RANGE);
    assert_int_equal(tn_signflip(a, 3, 0, 1, &p, 1, &level, &ci, NULL), TN_STATS_RANGE);
    assert_int_equal(tn_bca(b, 3, 0.95, 1, &ci, NULL), TN_STATS_NONFINITE);
    assert_int_equal(tn_bca(a, 3, -1, 1, &ci, NULL), TN_STATS_RANGE);
    assert_int_equal(tn_mean_interval(b, 3, 0.95, NULL, NULL, &ci, NULL), TN_STATS_NONFINITE);
    assert_int_equal(tn_mean_interval(a, -1, 0.95, NULL, NULL, &ci, NULL), TN_STATS_RANGE);
    assert_true(p == -1 && ci.lo == -5);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(p_values_equal_scipy),
        cmocka_unit_test(p_values_by_hand),
        cmocka_unit_test(scale_widens_the_tie),
        cmocka_unit_test(intervals_equal_enumeration),
        cmocka_unit_test(intervals_by_hand),
        cmocka_unit_test(intervals_equal_bisection),
        cmocka_unit_test(interval_and_p_never_disagree),
        cmocka_unit_test(symmetries),
        cmocka_unit_test(coverage_is_the_level),
        cmocka_unit_test(drawn_test_is_near_the_exact_one),
        cmocka_unit_test(twenty_pairs_are_exact),
        cmocka_unit_test(bca_is_near_scipy),
        cmocka_unit_test(quantiles_equal_scipy),
        cmocka_unit_test(mean_intervals_equal_scipy),
        cmocka_unit_test(wilson_equals_scipy),
        cmocka_unit_test(holm_by_hand),
        cmocka_unit_test(effect_sizes_by_hand),
        cmocka_unit_test(verdicts),
        cmocka_unit_test(sentences),
        cmocka_unit_test(swapping_names_mirrors_the_result),
        cmocka_unit_test(bad_input_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

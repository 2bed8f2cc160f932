/* SPDX-License-Identifier: MIT */
/* Parameters, initial weights, random numbers, exact functions, norms and clipping. */
#include "internal.h"
#include "support.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* ---- random numbers ---- */

static void control_values(void **state) {
    (void)state;
    static const double u[] = {0.5665615751722809, 0.74578175726270113, 0.97100275358679622};
    static const double z[] = {-0.034267321791851144, -2.5000674933698677, 0.087722468314886351};
    tn_rng a = {1}, b = {1}, c = {0};
    for (int i = 0; i < 3; i++) {
        assert_true(tn_uniform(&a) == u[i]);
        assert_true(fabs(tn_normal(&b) - z[i]) < 1e-15); /* these have 2 pi u rounded */
    }
    assert_true(tn_rng_next(&c) == UINT64_C(0xE220A8397B1DCDAF)); /* splitmix64 from 0: as published */
    assert_true(tn_rng_next(&c) == UINT64_C(0x6E789E6AA1B965F4));
}

static void streams(void **state) {
    (void)state;
    tn_rng r[] = {tn_rng_make(1, "init", "a", 0, 0), tn_rng_make(2, "init", "a", 0, 0),
                  tn_rng_make(1, "inita", "", 0, 0), tn_rng_make(1, "ini", "ta", 0, 0),
                  tn_rng_make(1, "init", "b", 0, 0), tn_rng_make(1, "init", "a", 1, 0),
                  tn_rng_make(1, "init", "a", 0, 1), tn_rng_make(1, "init", "", 0, 0),
                  tn_rng_make(1, "", "init", 0, 0),  tn_rng_make(0, "init", "a", 0, 0)};
    enum { N = sizeof r / sizeof *r };
    for (int i = 0; i < N; i++)
        for (int j = 0; j < i; j++) assert_true(r[i].s != r[j].s);
    assert_true(tn_rng_make(1, "init", "a", 0, 0).s == r[0].s);
    assert_true(tn_rng_make(1, "init", NULL, 0, 0).s == r[7].s);
    /* neighbouring streams are not shifts of each other, and do not correlate */
    double sum = 0;
    for (int i = 0; i < 4000; i++) {
        tn_rng a = tn_rng_make(3, "dropout", "fc1", 5, (uint64_t)i),
               b = tn_rng_make(3, "dropout", "fc1", 5, (uint64_t)i + 1);
        assert_true(tn_rng_next(&a) != b.s);
        sum += (tn_uniform(&a) - 0.5) * (tn_uniform(&b) - 0.5) * 12;
    }
    assert_true(fabs(sum / 4000) < 4 / sqrt(4000.0));
}

static void permutations(void **state) {
    (void)state;
    tn_rng r = tn_rng_make(1, "shuffle", NULL, 0, 0);
    int p[10], seen[10][10] = {{0}};
    for (int round = 0; round < 10000; round++) {
        int mask = 0;
        tn_permutation(&r, 10, p);
        for (int i = 0; i < 10; i++) mask |= 1 << p[i], seen[i][p[i]]++;
        assert_int_equal(mask, 1023);
    }
    double chi = 0; /* 81 degrees of freedom: 150 is a probability below 1e-5 */
    for (int i = 0; i < 100; i++) chi += pow(seen[i / 10][i % 10] - 1000, 2) / 1000;
    assert_true(chi < 150);
    tn_rng a = {1}, b = {1};
    tn_permutation(&a, 3, p); /* by hand: i = 2, 1, j = floor(u (i + 1)) */
    int q[3] = {0, 1, 2};
    for (int i = 2; i > 0; i--) {
        int j = (int)floor(tn_uniform(&b) * (i + 1)), t = q[i];
        q[i] = q[j], q[j] = t;
    }
    assert_memory_equal(p, q, sizeof q);
    tn_permutation(&a, 0, p), tn_permutation(&a, 1, p);
    for (int i = 0; i < 1000; i++) assert_int_equal(tn_below(&a, 1), 0);
}

/* ---- exact functions ---- */

static double ulps(double got, double want) {
    if (got == want || (got != got && want != want)) return 0;
    double ulp = nextafter(fabs(want), INFINITY) - fabs(want);
    return fabs(got - want) / ulp;
}

static void exact_functions(void **state) {
    (void)state;
    tn_rng r = {99};
    double log_e = 0, exp_e = 0, cos_e = 0, erf_e = 0, powi_e = 0, pow_e = 0;
    for (int i = 0; i < 200000; i++) {
        double u = tn_uniform(&r), wide = ldexp(1 + tn_uniform(&r), (int)(2000 * u) - 1000);
        log_e = fmax(log_e, ulps(tn_exact_log(u + 0x1p-53), log(u + 0x1p-53)));
        log_e = fmax(log_e, ulps(tn_exact_log(wide), log(wide)));
        exp_e = fmax(exp_e, ulps(tn_exact_exp(1400 * u - 700), exp(1400 * u - 700)));
        exp_e = fmax(exp_e, ulps(tn_exact_exp(u - 0.5), exp(u - 0.5)));
        cos_e = fmax(cos_e, fabs(tn_exact_cos2pi(u)
                                 - (double)cosl(6.283185307179586476925286766559L * (long double)u)));
        erf_e = fmax(erf_e, ulps(tn_exact_erf(14 * u - 7), erf(14 * u - 7)));
        erf_e = fmax(erf_e, ulps(tn_exact_erf(u * 0.01), erf(u * 0.01)));
        long n = (long)(u * 1000);
        powi_e = fmax(powi_e,
                      ulps(tn_exact_powi(0.9 + 0.0999 * u, n), pow(0.9 + 0.0999 * u, (double)n)) / (n + 1));
        pow_e = fmax(pow_e, ulps(tn_exact_pow(4 * u, 0.3), pow(4 * u, 0.3)));
    }
    print_message("largest errors in ulp: log %.2f exp %.2f cos(2 pi x) %.2g absolute, erf %.2f powi / n "
                  "%.2f pow %.2f\n",
                  log_e, exp_e, cos_e, erf_e, powi_e, pow_e);
    assert_true(log_e <= 1.5 && exp_e <= 1.5 && cos_e < 2.3e-16 && erf_e <= 16 && powi_e < 1 && pow_e <= 4);
    assert_true(tn_exact_log(0) == -INFINITY && tn_exact_log(INFINITY) == INFINITY
                && isnan(tn_exact_log(-1)));
    assert_true(isnan(tn_exact_log(NAN)) && tn_exact_log(1) == 0);
    assert_near(tn_exact_log(4.9e-324), log(4.9e-324), 1e-15);
    assert_true(tn_exact_exp(0) == 1 && tn_exact_exp(1000) == INFINITY && tn_exact_exp(-1000) == 0
                && isnan(tn_exact_exp(NAN)));
    assert_true(tn_exact_exp(INFINITY) == INFINITY && tn_exact_exp(-INFINITY) == 0);
    assert_near(tn_exact_exp(709.7), exp(709.7), 1e-14);
    assert_true(fabs(tn_exact_exp(-740) - exp(-740)) <= 4.9e-324);
    static const double turn[] = {0, 0.25, 0.5, 0.75, 1, -0.25, 2.125},
                        cosine[] = {1, 0, -1, 0, 1, 0, 0.70710678118654752};
    for (int i = 0; i < 7; i++) assert_true(fabs(tn_exact_cos2pi(turn[i]) - cosine[i]) < 2e-16);
    static const double base[] = {2, -2, -2, 0, 0, -1, 10, 0.5, -3, INFINITY, -2},
                        power[] = {10, 3, -3, 3, -2, 1e15, 0, 64, 65, -1, 0x1p53};
    for (int i = 0; i < 11; i++) {
        double want = pow(base[i], power[i]), got = tn_exact_pow(base[i], power[i]);
        if (got != want && !(fabs(got / want - 1) < 1e-13)) fail_msg("%g^%g: %.17g", base[i], power[i], got);
    }
    assert_true(isnan(tn_exact_pow(-2, 0.3)) && isnan(tn_exact_pow(NAN, 2)) && isnan(tn_exact_pow(2, NAN)));
    assert_true(isnan(tn_exact_pow(0, NAN)) && tn_exact_pow(0, 0.3) == 0
                && tn_exact_pow(0, -0.3) == INFINITY);
    assert_near(tn_exact_powi(0.999, 100000), pow(0.999, 100000), 1e-10);
    assert_near(tn_exact_powi(2, -3), 0.125, 0);
}

/* ---- the set ---- */

static void layout(void **state) {
    (void)state;
    tn_params *s = tn_params_new();
    tn_param *a = tn_param_add(s, "conv1", "weight", 0, tn_init_const(1), 4, (int[]){2, 3, 1, 5});
    tn_param *b = tn_param_add(s, NULL, "scale", TN_FROZEN, tn_init_const(2), 0, NULL);
    tn_param *c = tn_param_add(s, "", "mean", TN_BUFFER, tn_init_const(3), 1, (int[]){17});
    size_t len;
    assert_null(a->w);
    tn_err e;
    assert_int_equal(tn_params_seal(s, 1, &e), 0);
    assert_string_equal(a->name, "conv1.weight");
    assert_string_equal(b->name, "scale");
    assert_string_equal(c->name, "mean");
    assert_int_equal(tn_params_count(s), 3);
    assert_int_equal(tn_params_total(s), 31);
    assert_ptr_equal(tn_params_find(s, "scale"), b);
    assert_null(tn_params_find(s, "scal"));
    assert_ptr_equal(tn_params_at(s, 2), c);
    assert_null(tn_params_at(s, 3));
    assert_null(tn_params_at(s, -1));
    tn_real *w = tn_params_flat(s, &len), *g = tn_params_flat_grad(s, NULL);
    assert_int_equal(len, 32 + 16 + 32);
    for (int i = 0; i < 3; i++) {
        const tn_param *p = tn_params_at(s, i);
        assert_int_equal(p->index, i);
        assert_int_equal(p->offset % 16, 0);
        assert_int_equal((uintptr_t)p->w % 64, 0);
        assert_ptr_equal(p->w, w + p->offset);
        assert_ptr_equal(p->g, g + p->offset);
        for (size_t k = 0; k < p->len; k++) assert_true(p->w[k] == (tn_real)(i + 1) && p->g[k] == 0);
    }
    for (size_t k = 30; k < 32; k++) assert_true(w[k] == 0); /* gaps */
    uint64_t v = tn_params_version(s);
    tn_params_touch(s);
    assert_true(tn_params_version(s) > v);
    w[3] = 9;
    tn_params_init(s, 1);
    assert_true(w[3] == 1 && tn_params_version(s) > v + 1);
    tn_params_free(s);
    s = tn_params_new(); /* a set without parameters is one, too */
    assert_int_equal(tn_params_seal(s, 1, NULL), 0);
    assert_true(tn_grad_norm(s) == 0);
    tn_params_free(s);
}

static void add(tn_params *s, const char *name, int n) {
    tn_param_add(s, "fc", name, 0, tn_init_const(0), 1, &n);
}
static void twice(void *s) {
    add(s, "w", 1), add(s, "w", 1);
}
static void empty(void *s) {
    add(s, "w", 0);
}
static void too_long(void *s) {
    add(s, "a-name-that-is-longer-than-sixty-three-bytes-together-with-its-layer", 1);
}
static void after_the_seal(void *s) {
    tn_params_seal(s, 1, NULL);
    add(s, "v", 1);
}
static void sealed_twice(void *s) {
    tn_params_seal(s, 1, NULL);
    tn_params_seal(s, 1, NULL);
}
static void used_unsealed(void *s) {
    add(s, "u", 1);
    tn_use(tn_tape_new(NULL), tn_params_find(s, "fc.u"));
}

static void misuse(void **state) {
    (void)state;
    tn_params *s = tn_params_new();
    assert_true(panics(twice, s, "fc.w is used twice"));
    assert_true(panics(empty, s, "fc.w is 0"));
    assert_true(panics(too_long, s, "longer than 63"));
    assert_true(panics(after_the_seal, s, "fc.v comes after"));
    assert_true(panics(sealed_twice, s, "twice"));
    assert_true(panics(used_unsealed, s, "fc.u is used before"));
    tn_params_free(s);
}

/* ---- initial weights ---- */

typedef struct {
    double mean, std, low, high;
} moments;

static moments drawn(tn_init init, int nd, const int *dim, uint64_t seed) {
    tn_params *s = tn_params_new();
    tn_param *p = tn_param_add(s, "fc", "weight", 0, init, nd, dim);
    moments m = {0, 0, INFINITY, -INFINITY};
    assert_int_equal(tn_params_seal(s, seed, NULL), 0);
    for (size_t i = 0; i < p->len; i++) {
        double w = (double)p->w[i];
        m.mean += w / (double)p->len, m.std += w * w / (double)p->len, m.low = fmin(m.low, w),
                                                                       m.high = fmax(m.high, w);
    }
    m.std = sqrt(m.std - m.mean * m.mean);
    tn_params_free(s);
    return m;
}

static void is_uniform(tn_init init, int nd, const int *dim, double low, double high) {
    moments m = drawn(init, nd, dim, 1);
    double width = high - low, tiny = 1e-6 * width;
    assert_true(m.low >= low - tiny && m.high <= high + tiny);
    assert_true(m.low < low + 0.001 * width && m.high > high - 0.001 * width);
    assert_true(fabs(m.mean - (low + high) / 2) < 0.006 * width);
    assert_near(m.std, width / sqrt(12.0), 0.02);
}

static void is_normal(tn_init init, int nd, const int *dim, double mean, double std) {
    moments m = drawn(init, nd, dim, 1);
    assert_true(fabs(m.mean - mean) < 0.02 * std);
    assert_near(m.std, std, 0.02);
    assert_true(m.high > mean + 3.2 * std && m.high < mean + 6 * std && m.low < mean - 3.2 * std
                && m.low > mean - 6 * std);
}

static void distributions(void **state) {
    (void)state;
    const int matrix[] = {100, 400}, conv[] = {50, 32, 5, 5}, line[] = {40000}; /* all of 40,000 */
    is_uniform(tn_init_uniform(-1, 3), 1, line, -1, 3);
    is_normal(tn_init_normal(2, 0.5), 1, line, 2, 0.5);
    is_uniform(tn_init_pytorch(), 2, matrix, -0.05, 0.05);
    is_uniform(tn_init_pytorch(), 4, conv, -1 / sqrt(800.0), 1 / sqrt(800.0));
    is_uniform(tn_init_kaiming_uniform(2), 2, matrix, -2 * sqrt(3.0 / 400), 2 * sqrt(3.0 / 400));
    is_normal(tn_init_kaiming_normal(sqrt(2.0)), 4, conv, 0, sqrt(2.0 / 800));
    is_uniform(tn_init_xavier_uniform(1), 2, matrix, -sqrt(6.0 / 500), sqrt(6.0 / 500));
    is_uniform(tn_init_xavier_uniform(3), 4, conv, -3 * sqrt(6.0 / 2050), 3 * sqrt(6.0 / 2050));
    is_normal(tn_init_xavier_normal(1), 2, matrix, 0, sqrt(2.0 / 500));
    is_normal(tn_init_xavier_normal(1), 4, conv, 0, sqrt(2.0 / 2050));
    moments m = drawn(tn_init_const(0.25), 1, line, 1);
    assert_true(m.low == 0.25 && m.high == 0.25);
    /* nn.Linear's: both within 1 / sqrt(in), the bias not decayed */
    tn_params *s = tn_params_new();
    tn_linear l = tn_linear_new(s, "fc", 25, 4000, 1);
    tn_norm n = tn_layer_norm_new(s, "norm", 5);
    assert_null(tn_linear_new(s, "plain", 2, 3, 0).bias);
    assert_int_equal(tn_params_seal(s, 1, NULL), 0);
    tn_real low = 0, high = 0;
    for (size_t i = 0; i < l.bias->len; i++) {
        low = l.bias->w[i] < low ? l.bias->w[i] : low;
        high = l.bias->w[i] > high ? l.bias->w[i] : high;
    }
    assert_true(low < -0.199 && low >= -0.2 - 1e-8 && high > 0.199 && high <= 0.2 + 1e-8);
    assert_int_equal(l.weight->flags, 0);
    assert_int_equal(l.bias->flags, TN_NO_DECAY);
    assert_true(n.weight->flags == TN_NO_DECAY && n.bias->flags == TN_NO_DECAY && n.eps == 1e-5);
    assert_true(n.weight->w[4] == 1 && n.bias->w[4] == 0);
    tn_params_free(s);
}

static void orthogonal(void **state) {
    (void)state;
    static const int shapes[][2] = {{5, 9}, {9, 5}, {8, 8}, {1, 6}, {6, 1}, {40, 64}};
    for (int k = 0; k < 6; k++) {
        tn_params *s = tn_params_new();
        tn_param *p = tn_param_add(s, NULL, "w", 0, tn_init_orthogonal(2), 2, shapes[k]);
        assert_int_equal(tn_params_seal(s, 1, NULL), 0);
        int rows = shapes[k][0], cols = shapes[k][1], wide = rows <= cols, n = wide ? rows : cols,
            len = wide ? cols : rows;
        for (int i = 0; i < n; i++)
            for (int j = 0; j <= i; j++) {
                double dot = 0;
                for (int e = 0; e < len; e++)
                    dot += wide ? (double)p->w[i * cols + e] * (double)p->w[j * cols + e]
                                : (double)p->w[e * cols + i] * (double)p->w[e * cols + j];
                assert_true(fabs(dot - (i == j ? 4 : 0)) < (sizeof(tn_real) == 8 ? 1e-13 : 2e-6));
            }
        tn_params_free(s);
    }
}

/* A parameter's start is a function of seed and name: not of order, of others, or of where the set came from. */
static void independent_of_others(void **state) {
    (void)state;
    tn_real first[12];
    for (int variant = 0; variant < 4; variant++) {
        tn_params *s = tn_params_new();
        if (variant & 1) tn_linear_new(s, "other", 30, 20, 1);
        tn_param *p = tn_param_add(s, "fc", "weight", 0, tn_init_normal(0, 1), 2, (int[]){3, 4});
        if (variant & 2) tn_layer_norm_new(s, "norm", 9);
        assert_int_equal(tn_params_seal(s, 42, NULL), 0);
        if (variant == 0) memcpy(first, p->w, sizeof first);
        assert_true(same_bits(p->w, first, 12));
        tn_params_init(s, 43);
        assert_false(same_bits(p->w, first, 12));
        tn_params_init(s, 42);
        assert_true(same_bits(p->w, first, 12));
        tn_params_free(s);
    }
}

/* ---- norms and clipping ---- */

static void clipping(void **state) {
    (void)state;
    tn_params *s = tn_params_new();
    tn_param *a = tn_param_add(s, NULL, "a", 0, tn_init_const(1), 1, (int[]){2});
    tn_param *b = tn_param_add(s, NULL, "b", 0, tn_init_const(1), 0, NULL);
    tn_param *frozen = tn_param_add(s, NULL, "frozen", TN_FROZEN, tn_init_const(1), 0, NULL);
    tn_param *buffer = tn_param_add(s, NULL, "buffer", TN_BUFFER, tn_init_const(1), 0, NULL);
    assert_int_equal(tn_params_seal(s, 1, NULL), 0);
    double tol = sizeof(tn_real) == 8 ? 1e-15 : 1e-7;
    a->g[0] = 2, a->g[1] = -3, b->g[0] = 6, frozen->g[0] = 100, buffer->g[0] = 100;
    assert_near(tn_grad_norm(s), 7, 1e-15);
    assert_near(tn_clip_norm(s, 8), 7, 1e-15); /* nothing to do */
    assert_true(a->g[0] == 2 && a->g[1] == -3 && b->g[0] == 6);
    assert_near(tn_clip_norm(s, 3.5), 7, 1e-15);
    double c = 3.5 / 7.000001; /* PyTorch's: max / (norm + 1e-6) */
    assert_near((double)a->g[0], 2 * c, tol);
    assert_near((double)a->g[1], -3 * c, tol);
    assert_near((double)b->g[0], 6 * c, tol);
    a->g[0] = 2, a->g[1] = -3, b->g[0] = 0.5f;
    tn_clip_value(s, 1);
    assert_true(a->g[0] == 1 && a->g[1] == -1 && b->g[0] == 0.5);
    assert_null(tn_nonfinite_grad(s));
    assert_null(tn_nonfinite_weight(s));
    frozen->g[0] = NAN;
    assert_null(tn_nonfinite_grad(s));
    b->g[0] = NAN;
    assert_string_equal(tn_nonfinite_grad(s), "b");
    assert_true(isnan(tn_grad_norm(s)));
    tn_clip_value(s, 1);
    assert_true(isnan((double)b->g[0]));
    a->g[1] = -INFINITY;
    assert_string_equal(tn_nonfinite_grad(s), "a");
    frozen->w[0] = INFINITY;
    assert_string_equal(tn_nonfinite_weight(s), "frozen");
    tn_params_free(s);
}

/* The norm of a gradient whose squares neither fit float nor fit one piece. */
static void large_norm(void **state) {
    (void)state;
    enum { N = 50001 };
    tn_params *s = tn_params_new();
    tn_param *p = tn_param_add(s, NULL, "w", 0, tn_init_const(0), 1, (int[]){N});
    assert_int_equal(tn_params_seal(s, 1, NULL), 0);
    for (int i = 0; i < N; i++) p->g[i] = (tn_real)(i % 2 ? 1e25 : -1e25);
    assert_near(tn_grad_norm(s), 1e25 * sqrt(N), 1e-6);
    tn_params_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(control_values),
        cmocka_unit_test(streams),
        cmocka_unit_test(permutations),
        cmocka_unit_test(exact_functions),
        cmocka_unit_test(layout),
        cmocka_unit_test(misuse),
        cmocka_unit_test(distributions),
        cmocka_unit_test(orthogonal),
        cmocka_unit_test(independent_of_others),
        cmocka_unit_test(clipping),
        cmocka_unit_test(large_norm),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

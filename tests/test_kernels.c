/* SPDX-License-Identifier: MIT */
/*
 * Every kernel at every vector level that this machine runs: bit for bit equal to the plain level, and close
 * to (where one operation is rounded, equal to) a naive reference. Built for float, with the test-only level
 * "wide" where TN_TEST_WIDE is defined, and for double.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "kernels.h"

#ifdef TN_DOUBLE
typedef long double ref;
typedef uint64_t bits;
#define REF(f)   f##l
#define EPS      DBL_EPSILON
#define BIGGEST  DBL_MAX
#define SMALLEST DBL_MIN
#define FMA      fma
enum { DIGITS = 53, MIN_EXP = -1074 };
#else
typedef double ref;
typedef uint32_t bits;
#define REF(f)   f
#define EPS      FLT_EPSILON
#define BIGGEST  FLT_MAX
#define SMALLEST FLT_MIN
#define FMA      fmaf
enum { DIGITS = 24, MIN_EXP = -149 };
#endif

static const tn_kernels_t *plain, *level[8];
static int levels;

#ifdef TN_TEST_WIDE
extern const tn_kernels_t tn_k_table_wide;
#endif

static void find_levels(void) {
    static const char *const names[] = {"plain", "avx2", "avx512", "neon"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const tn_kernels_t *k = tn_kernels_level(names[i]);
        if (k) level[levels++] = k;
    }
    plain = level[0];
#ifdef TN_TEST_WIDE
    if (tn_kernels_level("avx2")) level[levels++] = &tn_k_table_wide;
#endif
    for (int i = 0; i < levels; i++) print_message("level %s: %d wide\n", level[i]->name, level[i]->width);
}

/* ---- helpers --------------------------------------------------------------------------------------- */

static uint64_t seed = 1;
static uint64_t next(void) {
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static tn_real uniform(void) {
    return (tn_real)((double)(next() >> 11) * 0x1p-52 - 1);
}
static tn_real *room(size_t n) {
    tn_real *p = malloc((n ? n : 1) * sizeof *p);
    assert_non_null(p);
    return p;
}
static tn_real *random_reals(size_t n) {
    tn_real *p = room(n);
    for (size_t i = 0; i < n; i++) p[i] = uniform();
    return p;
}
static tn_real *copy_of(const tn_real *x, size_t n) {
    tn_real *p = room(n);
    if (n) memcpy(p, x, n * sizeof *p);
    return p;
}
static int same(tn_real a, tn_real b) {
    return memcmp(&a, &b, sizeof a) == 0 || (isnan(a) && isnan(b)); /* which NaN is not specified */
}
static void assert_same(const char *what, const char *name, const tn_real *got, const tn_real *want,
                        size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!same(got[i], want[i]))
            fail_msg("%s, %s: element %zu of %zu is %a, not %a", what, name, i, n, (double)got[i],
                     (double)want[i]);
}
static void assert_near(const char *what, ref got, ref want, ref tolerance) {
    if (!(REF(fabs)(got - want) <= tolerance))
        fail_msg("%s: %.17g, not %.17g (+- %g)", what, (double)got, (double)want, (double)tolerance);
}

static const tn_real specials[] = {0,
                                   (tn_real)-0.0,
                                   1,
                                   -1,
                                   (tn_real)0.5,
                                   NAN,
                                   INFINITY,
                                   -INFINITY,
                                   BIGGEST,
                                   -BIGGEST,
                                   SMALLEST,
                                   -SMALLEST,
                                   SMALLEST / 2,
                                   -SMALLEST / 4,
                                   SMALLEST *EPS,
                                   (tn_real)1e-20,
                                   (tn_real)-1e-20,
                                   (tn_real)88.7,
                                   (tn_real)-103.9};
enum { SPECIALS = sizeof specials / sizeof *specials };

/* Random numbers with the special ones strewn in. */
static tn_real *mixed_reals(size_t n) {
    tn_real *p = random_reals(n);
    for (size_t i = 0; i < n; i++)
        if (next() % 4 == 0) p[i] = specials[next() % SPECIALS];
    return p;
}

/* ---- products -------------------------------------------------------------------------------------- */

enum { A_TURNED = 1, B_TURNED = 2, ADD = 4, BIAS = 8, RELU = 16, RAW = 32, VARIANTS = 64 };
enum { TURNED_C = 64 }; /* without A_TURNED and ADD; the bias is that of rows */

typedef struct {
    int m, n, k, variant, lda; /* lda 0: as small as it can be */
    tn_real *a, *b, *bias, *c;
    ptrdiff_t rs, cs, brs, bcs, ldc;
} problem;

static problem make_problem(int m, int n, int k, int variant, int lda) {
    problem p = {.m = m, .n = n, .k = k, .variant = variant, .lda = lda, .ldc = n + 3};
    int turned = variant & A_TURNED, least = turned ? m : k;
    if (lda < least) lda = least;
    p.rs = turned ? 1 : lda, p.cs = turned ? lda : 1;
    p.brs = variant & B_TURNED ? 1 : n, p.bcs = variant & B_TURNED ? k : 1;
    p.a = random_reals((size_t)lda * (size_t)(turned ? k : m));
    p.b = random_reals((size_t)k * (size_t)n);
    p.bias = random_reals((size_t)(m > n ? m : n));
    p.c = random_reals((size_t)(m * p.ldc));
    return p;
}
static void free_problem(problem *p) {
    free(p->a), free(p->b), free(p->bias), free(p->c);
}

static tn_real *run_product(const tn_kernels_t *kn, const problem *p) {
    tn_real *c = copy_of(p->c, (size_t)(p->m * p->ldc)), *bias = p->variant & BIAS ? p->bias : NULL;
    int add = !!(p->variant & ADD), relu = !!(p->variant & RELU);
    if (p->variant & TURNED_C) {
        tn_real *packed = room((size_t)((p->n + kn->nr - 1) / kn->nr * kn->nr * p->k));
        kn->pack_b(p->k, p->n, p->b, p->brs, p->bcs, packed);
        ptrdiff_t ld = p->m + 2; /* two to the right of each row, to be left alone */
        tn_real *turned = room((size_t)(p->n * ld));
        for (ptrdiff_t i = 0; i < p->n * ld; i++) turned[i] = 77;
        kn->gemm_turned(p->m, p->n, p->k, p->a, p->rs, packed, turned, ld, bias, relu);
        for (int j = 0; j < p->n; j++) {
            for (int i = 0; i < p->m; i++) c[i * p->ldc + j] = turned[j * ld + i];
            assert_true(turned[j * ld + p->m] == 77 && turned[j * ld + p->m + 1] == 77);
        }
        free(turned), free(packed);
        return c;
    }
    if (p->variant & RAW) {
        kn->gemm_raw_b(p->m, p->n, p->k, p->a, p->rs, p->cs, p->b, p->brs, p->bcs, c, p->ldc, add, bias,
                       relu);
        return c;
    }
    size_t panels = (size_t)((p->n + kn->nr - 1) / kn->nr);
    tn_real *packed = room(panels * (size_t)(kn->nr * p->k));
    kn->pack_b(p->k, p->n, p->b, p->brs, p->bcs, packed);
    kn->gemm(p->m, p->n, p->k, p->a, p->rs, p->cs, packed, c, p->ldc, add, bias, relu);
    free(packed);
    return c;
}

/* Also sees that the three columns to the right of C are left alone. */
static void check_naive(const problem *p, const tn_real *c) {
    for (int i = 0; i < p->m; i++) {
        for (int j = 0; j < p->n; j++) {
            ref start = p->variant & ADD ? p->c[i * p->ldc + j] : 0, s = start, size = REF(fabs)(start) + 1;
            for (int q = 0; q < p->k; q++) {
                ref term = (ref)p->a[i * p->rs + q * p->cs] * p->b[q * p->brs + j * p->bcs];
                s += term, size += REF(fabs)(term);
            }
            if (p->variant & BIAS) s += p->bias[p->variant & TURNED_C ? i : j];
            if (p->variant & RELU && s < 0) s = 0;
            assert_near("product", c[i * p->ldc + j], s, size * (p->k + 2) * EPS / 2);
        }
        assert_memory_equal(c + i * p->ldc + p->n, p->c + i * p->ldc + p->n, 3 * sizeof *c);
    }
}

static void check_product(int m, int n, int k, int variant, int lda) {
    problem p = make_problem(m, n, k, variant, lda);
    tn_real *want = run_product(plain, &p);
    check_naive(&p, want);
    for (int l = 1; l < levels; l++) {
        tn_real *got = run_product(level[l], &p);
        char what[96];
        snprintf(what, sizeof what, "product %d x %d x %d, variant %d", m, n, k, variant);
        assert_same(what, level[l]->name, got, want, (size_t)(m * p.ldc));
        free(got);
    }
    free(want);
    free_problem(&p);
}

static void test_product_remainders(void **state) {
    (void)state;
    static const int short_k[] = {0, 1, 2, 7};
    for (int m = 1; m <= 2 * TN_TILE_MAX + 1; m++)
        for (int n = 1; n <= 2 * TN_NR_MAX + 1; n++)
            for (int k = 0; k < 4; k++) check_product(m, n, short_k[k], (int)(next() % VARIANTS), 0);
}

static void test_product_variants(void **state) {
    (void)state;
    for (int v = 0; v < VARIANTS; v++) {
        check_product(7, 41, 11, v, 0);
        check_product(13, 32, 0, v, 0);
        check_product(17, 70, 37, v, 40);
    }
}

static void test_product_blocks_of_k(void **state) {
    (void)state;
    static const int long_k[] = {255, 256, 257, 287, 288, 289, 600}, widths[] = {1, 15, 16, 33};
    for (int k = 0; k < 7; k++)
        for (int n = 0; n < 4; n++)
            for (int m = 1; m <= TN_TILE_MAX + 2; m++)
                check_product(m, widths[n], long_k[k], (int)(next() % VARIANTS), 0);
}

/* More rows than one block holds; rows a power of two apart; a transposed A that is copied in parts. */
static void test_product_large(void **state) {
    (void)state;
    for (int v = 0; v < VARIANTS; v += 11) {
        check_product(251, 70, 40, v, 0);
        check_product(150, 66, 300, v, 0);
        check_product(83, 67, 520, v, 1024);
    }
}

/* x w' + bias by gemm_turned: also with more rows and blocks of k than are in cache at once. */
static void test_product_turned(void **state) {
    (void)state;
    for (int i = 0; i < 8; i++) {
        int variant = TURNED_C | (i & 1 ? BIAS : 0) | (i & 2 ? RELU : 0) | (i & 4 ? B_TURNED : 0);
        for (int m = 1; m <= 2 * TN_TILE_MAX + 1; m++)
            for (int k = 0; k < 40; k += 13) check_product(m, 1 + (int)(next() % 80), k, variant, 0);
        check_product(300, 48, 40, variant, 0);
        check_product(150, 80, 300, variant, 320);
        check_product(20, 100, 620, variant, 1024);
    }
}

/* Both ways round give the same bits, so that a layer may take either. */
static void test_product_turned_is_the_other(void **state) {
    (void)state;
    enum { M = 37, N = 45, K = 431 }; /* C' (N x M) = B' A' */
    problem p = make_problem(M, N, K, TURNED_C | BIAS | RELU, 0);
    problem q = p;
    q.m = N, q.n = M, q.variant = BIAS | RELU, q.ldc = M + 3;
    q.a = p.b, q.rs = p.bcs, q.cs = p.brs, q.b = p.a, q.brs = p.cs, q.bcs = p.rs;
    q.c = random_reals((size_t)(N * q.ldc));
    for (int l = 0; l < levels; l++) {
        tn_real *one = run_product(level[l], &p), *other = run_product(level[l], &q);
        for (int i = 0; i < M; i++)
            for (int j = 0; j < N; j++) assert_true(same(one[i * p.ldc + j], other[j * q.ldc + i]));
        free(one), free(other);
    }
    free(q.c);
    free_problem(&p);
}

/* Rows of B a whole number of lines apart, on a line: those are read in place. */
static void test_product_b_in_place(void **state) {
    (void)state;
    static const int widths[] = {16, 32, 48, 64, 80, 256, 272};
    for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
        for (int k = 5; k <= 325; k += 64) {
            problem p = make_problem(21, widths[w], k, RAW | A_TURNED, 0);
            size_t bytes = (size_t)k * (size_t)widths[w] * sizeof *p.b;
            tn_real *aligned = aligned_alloc(64, (bytes + 63) / 64 * 64);
            assert_non_null(aligned);
            memcpy(aligned, p.b, bytes);
            free(p.b), p.b = aligned;
            tn_real *want = run_product(plain, &p);
            check_naive(&p, want);
            for (int l = 1; l < levels; l++) {
                tn_real *got = run_product(level[l], &p);
                assert_same("product, B in place", level[l]->name, got, want, (size_t)(p.m * p.ldc));
                free(got);
            }
            free(want);
            free_problem(&p);
        }
}

static void test_product_specials(void **state) {
    (void)state;
    problem p = make_problem(9, 40, 20, BIAS | RELU, 0);
    p.a[2 * p.rs + 3] = NAN;
    p.a[5 * p.rs] = INFINITY;
    p.b[4 * p.brs + 7] = -INFINITY;
    p.bias[39] = NAN;
    tn_real *want = run_product(plain, &p);
    for (int j = 0; j < p.n; j++) assert_true(isnan(want[2 * p.ldc + j]));
    for (int i = 0; i < p.m; i++) {
        assert_true(isnan(want[i * p.ldc + 39]));
        tn_real x = want[i * p.ldc + 7];
        assert_true(isnan(x) || x == 0 || x == INFINITY);
    }
    tn_real x = want[5 * p.ldc];
    assert_true(x == (p.b[0] > 0 ? INFINITY : 0));
    for (int l = 1; l < levels; l++) {
        tn_real *got = run_product(level[l], &p);
        assert_same("product with NaN", level[l]->name, got, want, (size_t)(p.m * p.ldc));
        free(got);
    }
    free(want);
    free_problem(&p);
}

static void check_pack(const tn_kernels_t *kn, int k, int n, int turned) {
    int panels = (n + kn->nr - 1) / kn->nr;
    size_t size = (size_t)(panels * kn->nr * k);
    ptrdiff_t rs = turned ? 1 : n + 2, cs = turned ? k + 1 : 1;
    tn_real *b = random_reals((size_t)((n + 2) * (k + 1))), *out = room(size + 1);
    out[size] = 77;
    kn->pack_b(k, n, b, rs, cs, out);
    for (int j = 0; j < panels * kn->nr; j++)
        for (int p = 0; p < k; p++) {
            tn_real want = j < n ? b[p * rs + j * cs] : 0;
            if (!same(out[(j / kn->nr * k + p) * kn->nr + j % kn->nr], want))
                fail_msg("%s: pack %d x %d turned %d, element %d, %d", kn->name, k, n, turned, p, j);
        }
    assert_true(out[size] == 77);
    free(b), free(out);
}

static void test_pack(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++)
        for (int n = 1; n <= 2 * TN_NR_MAX + 1; n++)
            for (int k = 0; k <= 21; k++) check_pack(level[l], k, n, 0), check_pack(level[l], k, n, 1);
}

/* ---- functions of one variable --------------------------------------------------------------------- */

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

/* Every so many-th bit pattern, so every exponent and both signs; then what lies where the functions bend. */
static tn_real *sweep(size_t *n) {
    size_t patterns = 400000, dense = 200000;
    tn_real *x = room(*n = patterns + dense + SPECIALS);
    for (size_t i = 0; i < patterns; i++) {
        bits b = (bits)i * (((bits)-1) / (bits)patterns) + (bits)(next() % 997);
        memcpy(&x[i], &b, sizeof b);
    }
    for (size_t i = 0; i < dense; i++) x[patterns + i] = uniform() * (i % 2 ? 2 : 110);
    memcpy(x + patterns + dense, specials, sizeof specials);
    return x;
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

/* ---- elementwise ----------------------------------------------------------------------------------- */

static tn_real mask_ref(tn_real gy, tn_real y) {
    if (isnan(gy) || isnan(y)) return NAN;
    return y > 0 ? gy : 0;
}

static void test_elementwise(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++)
        for (size_t n = 0; n <= 70; n++) {
            const tn_kernels_t *kn = level[l];
            tn_real *a = mixed_reals(n), *b = mixed_reals(n), *y = room(n + 1), *want = room(n + 1),
                    *acc = copy_of(b, n);
            want[n] = y[n] = 77;
            kn->add(n, a, b, y);
            for (size_t i = 0; i < n; i++) want[i] = a[i] + b[i];
            assert_same("add", kn->name, y, want, n + 1);
            kn->accumulate(n, a, acc);
            assert_same("accumulate", kn->name, acc, want, n);
            kn->mul(n, a, b, y);
            for (size_t i = 0; i < n; i++) want[i] = a[i] * b[i];
            assert_same("mul", kn->name, y, want, n + 1);
            kn->relu_mask(n, a, b, y);
            for (size_t i = 0; i < n; i++) want[i] = mask_ref(a[i], b[i]);
            assert_same("relu_mask", kn->name, y, want, n + 1);
            free(a), free(b), free(y), free(want), free(acc);
        }
}

static void test_gather_u8(void **state) {
    (void)state;
    enum { IMAGES = 5 };
    static const int idx[] = {4, 0, 0, 3};
    const tn_real scale = (tn_real)(1 / 255.0 / 0.3081), shift = (tn_real)(-0.1307 / 0.3081);
    for (int l = 0; l < levels; l++)
        for (size_t len = 1; len <= 784; len += len < 40 ? 1 : 124) {
            unsigned char *x = malloc(IMAGES * len);
            tn_real *y = room(IMAGES * len), *want = room(IMAGES * len);
            for (size_t i = 0; i < IMAGES * len; i++) x[i] = (unsigned char)(next() >> 56);
            for (size_t i = 0; i < IMAGES * len; i++) want[i] = FMA((tn_real)x[i], scale, shift);
            level[l]->gather_u8(IMAGES, len, x, NULL, scale, shift, y);
            assert_same("gather_u8", level[l]->name, y, want, IMAGES * len);
            level[l]->gather_u8(4, len, x, idx, scale, shift, y);
            for (size_t r = 0; r < 4; r++)
                assert_same("gather_u8", level[l]->name, y + r * len, want + (size_t)idx[r] * len, len);
            free(x), free(y), free(want);
        }
}

/* ---- sums ------------------------------------------------------------------------------------------ */

static void test_sums(void **state) {
    (void)state;
    for (size_t n = 0; n <= 5000; n += n < 70 ? 1 : 617) {
        tn_real *x = random_reals(n);
        ref sum = 0, square = 0, size = 0;
        for (size_t i = 0; i < n; i++) sum += x[i], square += (ref)x[i] * x[i], size += REF(fabs)(x[i]);
        double s = plain->sum(n, x), q = plain->sum_sq(n, x);
        assert_near("sum", s, sum, size * DBL_EPSILON * (ref)(n + 1));
        assert_near("sum_sq", q, square, square * DBL_EPSILON * (ref)(n + 1));
        for (int l = 1; l < levels; l++) {
            double ls = level[l]->sum(n, x), lq = level[l]->sum_sq(n, x);
            assert_memory_equal(&ls, &s, sizeof s);
            assert_memory_equal(&lq, &q, sizeof q);
        }
        for (int l = 0; l < levels && n; l++) {
            tn_real keep = x[n - 1];
            x[n - 1] = INFINITY;
            assert_true(isinf(level[l]->sum(n, x)) && isinf(level[l]->sum_sq(n, x)));
            x[n - 1] = NAN;
            assert_true(isnan(level[l]->sum(n, x)) && isnan(level[l]->sum_sq(n, x)));
            x[n - 1] = keep;
        }
        free(x);
    }
}

static void test_col_sum(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++)
        for (int cols = 1; cols <= 150; cols += cols < 70 ? 1 : 13)
            for (int rows = 0; rows <= 9; rows += 3)
                for (int add = 0; add < 2; add++) {
                    int ld = cols + 5;
                    tn_real *x = mixed_reals((size_t)(rows * ld)), *out = random_reals((size_t)cols + 1);
                    tn_real *want = copy_of(out, (size_t)cols + 1);
                    for (int j = 0; j < cols; j++) {
                        if (!add) want[j] = 0;
                        for (int i = 0; i < rows; i++) want[j] += x[i * ld + j];
                    }
                    level[l]->col_sum(rows, cols, x, ld, add, out);
                    assert_same("col_sum", level[l]->name, out, want, (size_t)cols + 1);
                    free(x), free(out), free(want);
                }
}

static void test_row_lse(void **state) {
    (void)state;
    static const int classes[] = {1, 2, 10, 15, 16, 17, 31, 32, 33, 65, 1000};
    for (size_t c = 0; c < sizeof classes / sizeof *classes; c++)
        for (int rows = 1; rows <= 130; rows += rows == 1 ? 62 : rows < 66 ? 1 : 64) {
            int k = classes[c];
            tn_real *x = random_reals((size_t)(rows * k)), *want = room((size_t)rows + 1),
                    *got = room((size_t)rows);
            for (int i = 0; i < rows * k; i++) x[i] *= i % 3 ? 5 : 200;
            plain->row_lse(rows, k, x, want);
            for (int i = 0; i < rows; i++) {
                ref max = -INFINITY, sum = 0;
                for (int j = 0; j < k; j++) max = x[i * k + j] > max ? x[i * k + j] : max;
                for (int j = 0; j < k; j++) sum += REF(exp)(x[i * k + j] - max);
                assert_near("row_lse", want[i], max + REF(log)(sum), (REF(fabs)(max) + 8) * 2 * EPS);
            }
            for (int l = 1; l < levels; l++) {
                level[l]->row_lse(rows, k, x, got);
                assert_same("row_lse", level[l]->name, got, want, (size_t)rows);
            }
            free(x), free(want), free(got);
        }
}

static void test_softmax_rows(void **state) {
    (void)state;
    static const int classes[] = {1, 2, 10, 15, 16, 17, 33, 100};
    for (size_t c = 0; c < sizeof classes / sizeof *classes; c++)
        for (int rows = 1; rows <= 35; rows++) {
            int k = classes[c];
            size_t n = (size_t)(rows * k);
            tn_real *x = random_reals(n), *lse = room((size_t)rows), *scale = random_reals((size_t)rows),
                    *want = room(n), *got = random_reals(n + 1);
            for (size_t i = 0; i < n; i++) x[i] *= 9;
            if (rows % 5 == 0) x[n - 1] = rows % 2 ? NAN : -INFINITY;
            plain->row_lse(rows, k, x, lse);
            plain->softmax_rows(rows, k, x, lse, scale, want);
            for (int i = 0; i < rows; i++)
                for (int j = 0; j < k; j++) {
                    ref e = scale[i] * REF(exp)((ref)x[i * k + j] - lse[i]);
                    if (isnan(lse[i]))
                        assert_true(isnan(want[i * k + j]));
                    else
                        assert_near("softmax_rows", want[i * k + j], e, 40 * EPS);
                }
            for (int l = 1; l < levels; l++) {
                tn_real beyond = got[n];
                level[l]->softmax_rows(rows, k, x, lse, scale, got);
                assert_same("softmax_rows", level[l]->name, got, want, n);
                assert_true(got[n] == beyond);
            }
            free(x), free(lse), free(scale), free(want), free(got);
        }
}

static void test_row_lse_specials(void **state) {
    (void)state;
    tn_real x[4][20], lse[4];
    for (int j = 0; j < 20; j++) x[0][j] = x[1][j] = j, x[2][j] = -INFINITY, x[3][j] = j ? -INFINITY : 3;
    for (int l = 0; l < levels; l++)
        for (int at = 0; at < 20; at++) {
            tn_real keep = x[0][at];
            x[0][at] = NAN, x[1][at] = INFINITY;
            level[l]->row_lse(4, 20, &x[0][0], lse);
            assert_true(isnan(lse[0]) && isnan(lse[1]) && isnan(lse[2]) && lse[3] == 3);
            x[0][at] = x[1][at] = keep;
        }
}

/* ---- the same bits everywhere ---------------------------------------------------------------------- */

#ifndef TN_DOUBLE
static uint64_t digest;
static void add_to_digest(const tn_real *x, size_t n) { /* FNV-1a over the words; NaN counts as one value */
    for (size_t i = 0; i < n; i++) {
        bits b = 0x7fc00000;
        if (!isnan(x[i])) memcpy(&b, &x[i], sizeof b);
        digest = (digest ^ b) * 0x100000001b3u;
    }
}

/* One number for all compilers, processors and C libraries: a change of any bit shows here. */
static void test_digest(void **state) {
    (void)state;
    seed = 20240229, digest = 0xcbf29ce484222325u;
    size_t n;
    tn_real *x = sweep(&n), *y = room(n);
    for (int f = 0; f < TN_UNARY_COUNT; f++) plain->unary[f](n, x, y), add_to_digest(y, n);
    for (size_t i = 0; i < n; i++) x[i] = uniform() * 9;
    plain->row_lse((int)(n / 37), 37, x, y), add_to_digest(y, n / 37);
    tn_real sums[] = {(tn_real)plain->sum(n, x), (tn_real)plain->sum_sq(n, x)};
    add_to_digest(sums, 2);
    problem p = make_problem(29, 77, 700, BIAS | RELU, 0);
    tn_real *c = run_product(plain, &p);
    add_to_digest(c, (size_t)(p.m * p.ldc));
    free(x), free(y), free(c);
    free_problem(&p);
    if (digest != 0x44447e78fedaaec3u) fail_msg("digest %#llx", (unsigned long long)digest);
}
#endif

/* ---- the table ------------------------------------------------------------------------------------- */

static void test_peak(void **state) {
    (void)state;
    for (int l = 0; l < levels; l++) {
        tn_real sink = 0;
        double ops = level[l]->peak(100, &sink);
        assert_true(ops >= 2.0 * 10 * level[l]->width && isfinite(sink) && sink > 0);
    }
}

/* a[k] += zero g, for each number of arrays. */
static void test_stream(void **state) {
    (void)state;
    enum { N = 64, MOST = 7 };
    for (int l = 0; l < levels; l++)
        for (int arrays = 1; arrays <= MOST; arrays++) {
            tn_real a[MOST][N], g[N], *p[MOST];
            for (int k = 0; k < MOST; k++) p[k] = a[k];
            for (int i = 0; i < N; i++) g[i] = (tn_real)(i + 1);
            for (int k = 0; k < MOST; k++)
                for (int i = 0; i < N; i++) a[k][i] = (tn_real)(100 * k - i);
            level[l]->stream(N, arrays, p, g, 0);
            level[l]->stream(N, arrays, p, g, 2);
            for (int k = 0; k < MOST; k++)
                for (int i = 0; i < N; i++)
                    assert_true(a[k][i] == (tn_real)(100 * k - i + (k < arrays ? 2 * (i + 1) : 0)));
        }
}

static void test_table(void **state) {
    (void)state;
    assert_null(tn_kernels_level("sse9"));
    assert_null(tn_kernels_level(""));
    assert_null(tn_kernels_level(NULL));
    for (int l = 0; l < levels; l++) assert_true(level[l]->mr <= TN_MR_MAX && level[l]->nr <= TN_NR_MAX);
    tn_err err = {.msg = ""};
#ifndef TN_DOUBLE
    setenv("TERN_SIMD", "sse9", 1);
    assert_null(tn_kernels_get(&err));
    assert_non_null(strstr(err.msg, "sse9"));
    assert_non_null(strstr(err.msg, "plain"));
    setenv("TERN_SIMD", "plain", 1);
#endif
    assert_ptr_equal(tn_kernels_get(&err), plain);
    unsetenv("TERN_SIMD");
    assert_ptr_equal(tn_kernels_get(&err), plain); /* a level is chosen once */
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_product_remainders),
        cmocka_unit_test(test_product_variants),
        cmocka_unit_test(test_product_blocks_of_k),
        cmocka_unit_test(test_product_large),
        cmocka_unit_test(test_product_turned),
        cmocka_unit_test(test_product_turned_is_the_other),
        cmocka_unit_test(test_product_b_in_place),
        cmocka_unit_test(test_product_specials),
        cmocka_unit_test(test_unary_accuracy),
        cmocka_unit_test(test_unary_specials),
        cmocka_unit_test(test_unary_levels),
        cmocka_unit_test(test_elementwise),
        cmocka_unit_test(test_gather_u8),
        cmocka_unit_test(test_sums),
        cmocka_unit_test(test_col_sum),
        cmocka_unit_test(test_row_lse),
        cmocka_unit_test(test_row_lse_specials),
        cmocka_unit_test(test_softmax_rows),
#ifndef TN_DOUBLE
        cmocka_unit_test(test_digest),
#endif
        cmocka_unit_test(test_peak),
        cmocka_unit_test(test_stream),
    };
    find_levels();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

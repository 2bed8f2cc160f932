/* SPDX-License-Identifier: MIT */
/*
 * Matrix products at every vector level: bit for bit equal to the plain level, and close to a naive reference; and
 * one number for the bits of all kinds of kernels.
 */
#include "kernel_levels.h"

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

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack),
        cmocka_unit_test(test_product_remainders),
        cmocka_unit_test(test_product_variants),
        cmocka_unit_test(test_product_blocks_of_k),
        cmocka_unit_test(test_product_large),
        cmocka_unit_test(test_product_turned),
        cmocka_unit_test(test_product_turned_is_the_other),
        cmocka_unit_test(test_product_b_in_place),
        cmocka_unit_test(test_product_specials),
#ifndef TN_DOUBLE
        cmocka_unit_test(test_digest),
#endif
    };
    find_levels();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

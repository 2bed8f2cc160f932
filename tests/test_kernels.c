/* SPDX-License-Identifier: MIT */
/*
 * Every kernel is tested at every vector level that this machine runs: bit for bit equal to the plain level, and close
 * to (where one operation is rounded, equal to) a naive reference. Here those that go element by element, and the table;
 * products, sums and functions have files of their own. Built for float, with the test-only level "wide" where
 * TN_TEST_WIDE is defined, and for double.
 */
#include "kernel_levels.h"

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

/* Against a loop over the elements: what a row or a column does not have is 0, and what lies between its words stays. */
static void test_sparse_masks(void **state) {
    (void)state;
    const tn_real some[] = {0, (tn_real)-0.0, NAN, INFINITY, SMALLEST / 4, -1};
    const int sizes[][2] = {{1, 1},    {3, 15},   {7, 16},  {31, 63}, {32, 64}, {33, 65},
                            {63, 128}, {64, 200}, {20, 47}, {64, 1},  {40, 784}};
    for (int l = 0; l < levels; l++)
        for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++) {
            const int rows = sizes[c][0], cols = sizes[c][1], words = (cols + 63) / 64, ld = cols + 3,
                      row_words = words + 1;
            const size_t len = (size_t)((rows - 1) * ld + cols);
            tn_real *x = room(len);
            uint64_t *across = malloc((size_t)(rows * row_words) * sizeof *across);
            uint64_t *down = malloc((size_t)(cols + 1) * sizeof *down), *again = NULL;
            for (size_t i = 0; i < len; i++) x[i] = next() % 3 ? 0 : some[next() % 6];
            memset(across, 0xa5, (size_t)(rows * row_words) * sizeof *across);
            memset(down, 0xa5, (size_t)(cols + 1) * sizeof *down);
            level[l]->sparse_masks(rows, cols, x, ld, across, row_words, down);
            for (int r = 0; r < rows; r++) {
                for (int i = 0; i < words * 64; i++)
                    assert_int_equal(across[r * row_words + i / 64] >> i % 64 & 1,
                                     i < cols && x[r * ld + i] != 0);
                assert_true(across[r * row_words + words] == 0xa5a5a5a5a5a5a5a5);
            }
            for (int i = 0; i < cols; i++) {
                for (int r = 0; r < 64; r++)
                    assert_int_equal(down[i] >> r & 1, r < rows && x[r * ld + i] != 0);
            }
            assert_true(down[cols] == 0xa5a5a5a5a5a5a5a5);
            again = malloc((size_t)(rows * row_words) * sizeof *again);
            memset(again, 0xa5, (size_t)(rows * row_words) * sizeof *again);
            level[l]->sparse_masks(rows, cols, x, ld, again, row_words, NULL);
            assert_memory_equal(again, across, (size_t)(rows * row_words) * sizeof *again);
            free(x), free(across), free(down), free(again);
        }
}

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table), cmocka_unit_test(test_elementwise), cmocka_unit_test(test_gather_u8),
        cmocka_unit_test(test_peak),  cmocka_unit_test(test_stream),      cmocka_unit_test(test_sparse_masks),
    };
    find_levels();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

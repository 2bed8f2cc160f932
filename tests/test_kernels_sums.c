/* SPDX-License-Identifier: MIT */
/* Sums and what is made of them, over all, rows and columns: every vector level against the plain one and a naive one. */
#include "kernel_levels.h"

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

int main(void) {
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sums),         cmocka_unit_test(test_col_sum),
        cmocka_unit_test(test_row_lse),      cmocka_unit_test(test_row_lse_specials),
        cmocka_unit_test(test_softmax_rows),
    };
    find_levels();
    return cmocka_run_group_tests(tests, NULL, NULL);
}

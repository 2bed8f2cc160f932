/* SPDX-License-Identifier: MIT */
/*
 * Convolution, pooling and embedding as layers: start, panics, NaN, large shapes whose windows go through many blocks.
 * Values and gradients of small shapes: test_ops.c, test_golden_layers.c.
 */
#include "catch.h"
#include <math.h>
#include <stdlib.h>

static tn_t *image(tn_tape *t, int n, int c, int h, int w) {
    tn_t *x = tn_new(t, 4, (int[]){n, c, h, w});
    double *u = malloc(x->len * sizeof *u);
    golden_uniform((uint64_t)(n + c), 1, x->len, u);
    for (size_t i = 0; i < x->len; i++) x->x[i] = (tn_real)u[i];
    free(u);
    tn_result(NULL, x, 0, NULL, NULL, 0);
    return x;
}

/* Sizes of real networks, some elements by hand: blocks of rows, chunks of images and their edges. */
static void large_shapes(void **state) {
    (void)state;
    static const int sizes[][6] = {
        {20, 1, 28, 28, 32, 3}, {3, 32, 26, 26, 64, 3}, {2, 3, 70, 65, 4, 7}, {33, 6, 14, 14, 16, 5}};
    tn_tape *t = tn_tape_new(NULL);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        const int *z = sizes[s];
        tn_tape_reset(t);
        tn_conv c = tn_conv_same(z[5]);
        tn_t *x = image(t, z[0], z[1], z[2], z[3]), *w = image(t, z[4], z[1], z[5], z[5]),
             *y = tn_conv2d(x, w, &c);
        double worst = 0;
        for (size_t i = 0; i < y->len; i += 97) {
            int q = (int)(i % (size_t)z[3]), r = (int)(i / (size_t)z[3] % (size_t)z[2]);
            size_t o = i / (size_t)(z[2] * z[3]) % (size_t)z[4], n = i / (size_t)(z[2] * z[3] * z[4]);
            double sum = 0;
            for (int k = 0; k < z[1] * z[5] * z[5]; k++) {
                int ch = k / (z[5] * z[5]), a = r - z[5] / 2 + k / z[5] % z[5], b = q - z[5] / 2 + k % z[5];
                if (a < 0 || a >= z[2] || b < 0 || b >= z[3]) continue;
                sum +=
                    (double)w->x[o * (size_t)(z[1] * z[5] * z[5]) + (size_t)k]
                    * (double)x->x[((n * (size_t)z[1] + (size_t)ch) * (size_t)z[2] + (size_t)a) * (size_t)z[3]
                                   + (size_t)b];
            }
            worst = fmax(worst, fabs((double)y->x[i] - sum));
        }
        assert_true(worst < (sizeof(tn_real) == 8 ? 1e-12 : 1e-4));
        /* the adjoints belong to it: <g, conv(x, w)> = <dx(g, w), x> = <dw(x, g), w> */
        tn_t *g = image(t, y->dim[0], y->dim[1], y->dim[2], y->dim[3]);
        double one = tn_value(tn_sum(tn_mul(g, y))), size = sqrt((double)y->len) * 10;
        double two = tn_value(tn_sum(tn_mul(tn_conv2d_dx(g, w, &c, z[2], z[3]), x)));
        double three = tn_value(tn_sum(tn_mul(tn_conv2d_dw(x, g, &c, z[5], z[5]), w)));
        double limit = (sizeof(tn_real) == 8 ? 1e-13 : 1e-5) * size;
        assert_true(fabs(one - two) < limit && fabs(one - three) < limit);
    }
    tn_tape_free(t);
}

static void start(void **state) {
    (void)state;
    tn_params *ps = tn_params_new();
    tn_conv grouped = tn_conv_same(3);
    grouped.groups = 2;
    tn_conv_layer a = tn_conv_new(ps, "a", 8, 6, 3, grouped, 1),
                  b = tn_conv_new(ps, "b", 5, 7, 1, tn_conv_valid(), 0);
    tn_embedding e = tn_embedding_new(ps, "e", 50, 20, 3);
    assert_int_equal(tn_params_seal(ps, 1, NULL), 0);
    assert_true(a.weight->dim[0] == 6 && a.weight->dim[1] == 4 && a.weight->dim[2] == 3 && a.bias->len == 6);
    assert_null(b.bias);
    assert_int_equal(tn_params_count(ps), 4);
    assert_true(a.bias->flags & TN_NO_DECAY && !(a.weight->flags & TN_NO_DECAY));
    double bound = 1 / sqrt(4 * 9), top = 0, square = 0;
    for (size_t i = 0; i < a.weight->len; i++) top = fmax(top, fabs((double)a.weight->w[i]));
    for (size_t i = 0; i < 6; i++) top = fmax(top, fabs((double)a.bias->w[i]));
    assert_true(top <= bound && top > 0.9 * bound);
    for (int i = 0; i < 20; i++) assert_true(e.weight->w[3 * 20 + i] == 0);
    for (size_t i = 0; i < e.weight->len; i++) square += (double)(e.weight->w[i] * e.weight->w[i]);
    assert_true(square / 980 > 0.8 && square / 980 < 1.2);
    tn_params_free(ps);
}

static void pooling_values(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    tn_pool two = tn_pool_square(2), wide = {{3, 3}, {1, 1}, {1, 1}};
    tn_real v[] = {1, (tn_real)NAN, -1, -2, 0, 3, -3, -4};
    tn_t *x = tn_leaf(t, v, 4, (int[]){1, 1, 2, 4}), *g, *y = tn_max_pool2d(x, &two);
    assert_true(isnan(y->x[0]) && y->x[1] == -1); /* NaN wins */
    tn_grad(y, NULL, 1, &x, &g, 0);
    assert_true(g->x[1] == 1 && g->x[2] == 1 && g->x[5] == 0);
    tn_real low[] = {-5, -6, -7, -8};
    x = tn_leaf(t, low, 4, (int[]){1, 1, 2, 2});
    y = tn_max_pool2d(x, &wide); /* padding never wins */
    for (int i = 0; i < 4; i++) assert_true(y->x[i] == -5);
    y = tn_avg_pool2d(x, &wide);
    for (int i = 0; i < 4; i++) assert_near(y->x[i], -26.0 / 9, 1e-6);
    tn_tape_free(t);
}

static void embedding(void **state) {
    (void)state;
    tn_params *ps = tn_params_new();
    tn_embedding e = tn_embedding_new(ps, "e", 4, 3, 1), plain = tn_embedding_new(ps, "p", 4, 3, -1);
    assert_int_equal(tn_params_seal(ps, 1, NULL), 0);
    for (int i = 0; i < 12; i++) e.weight->w[i] = (tn_real)i;
    tn_params_touch(ps);
    tn_tape *t = tn_tape_new(NULL);
    tn_t *y = tn_embedding_fwd(&e, t, (int[]){2, 1, 2, 0}, 2, (int[]){2, 2});
    assert_true(y->nd == 3 && y->dim[0] == 2 && y->dim[1] == 2 && y->dim[2] == 3);
    assert_true(y->x[0] == 6 && y->x[3] == 3 && y->x[11] == 2);
    tn_backward(tn_sum(y), ps, 0);
    for (int i = 0; i < 12; i++) assert_true(e.weight->g[i] == (i / 3 == 2 ? 2 : i / 3 == 0));
    y = tn_embedding_fwd(&plain, t, (int[]){3}, 0, NULL); /* one index without dimensions: one row */
    assert_true(y->nd == 1 && same_bits(y->x, plain.weight->w + 9, 3));
    assert_panics(t, tn_embedding_fwd(&e, t, (int[]){0, 4}, 1, (int[]){2}), "embedding", "index 4",
                  "0 ... 3");
    assert_panics(t, tn_embedding_fwd(&e, t, (int[]){-1}, 1, (int[]){1}), "embedding", "index -1", "0 ... 3");
    assert_panics(t, tn_embedding_fwd(&e, t, (int[]){0}, 4, (int[]){1, 1, 1, 1}), "embedding", "4 dimensions",
                  "");
    tn_tape_free(t);
    tn_params_free(ps);
}

static void padding_row_missing(void *unused) {
    (void)unused;
    tn_embedding_new(tn_params_new(), "e", 4, 3, 4);
}

static void wrong_shapes(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    tn_conv one = tn_conv_valid(), bad = one, two = one;
    two.groups = 2, bad.stride[1] = 0;
    tn_pool p = {{2, 2}, {2, 2}, {2, 0}}, big = tn_pool_square(5), none = tn_pool_square(0);
    int flat[] = {4};
    assert_panics(t, tn_conv2d(image(t, 1, 3, 4, 4), image(t, 2, 2, 3, 3), &one), "conv2d", "(1, 3, 4, 4)",
                  "(2, 2, 3, 3)");
    assert_panics(t, tn_conv2d(image(t, 1, 4, 4, 4), image(t, 3, 2, 3, 3), &two), "conv2d", "(3, 2, 3, 3)",
                  "2 groups");
    assert_panics(t, tn_conv2d(image(t, 1, 1, 2, 4), image(t, 1, 1, 3, 3), &one), "conv2d", "3 x 3", "2 x 4");
    assert_panics(t, tn_conv2d(image(t, 1, 1, 4, 4), image(t, 1, 1, 3, 3), &bad), "conv2d", "stride", "");
    assert_panics(t, tn_conv2d(tn_full(t, 1, 1, flat), image(t, 1, 1, 3, 3), &one), "conv2d", "(4,)",
                  "four dimensions");
    assert_panics(t, tn_conv2d_dx(image(t, 1, 2, 4, 4), image(t, 2, 1, 3, 3), &one, 7, 6), "conv2d_dx", "4",
                  "");
    assert_panics(t, tn_conv2d_dw(image(t, 1, 2, 4, 4), image(t, 1, 2, 4, 4), &one, 3, 3), "conv2d_dw",
                  "(1, 2, 4, 4)", "3 x 3");
    assert_panics(t, tn_conv2d_dw(image(t, 1, 2, 4, 4), image(t, 2, 2, 2, 2), &one, 3, 3), "conv2d_dw",
                  "(2, 2, 2, 2)", "");
    assert_panics(
        t,
        tn_conv2d_act(image(t, 1, 1, 4, 4), image(t, 2, 1, 3, 3), tn_full(t, 1, 1, flat), &one, TN_ACT_RELU),
        "conv2d", "bias", "(2,)");
    assert_panics(t, tn_max_pool2d(image(t, 1, 1, 4, 4), &p), "max_pool2d", "padding", "half");
    assert_panics(t, tn_avg_pool2d(image(t, 1, 1, 4, 4), &big), "avg_pool2d", "5 x 5", "4 x 4");
    assert_panics(t, tn_avg_pool2d(image(t, 1, 1, 4, 4), &none), "avg_pool2d", "kernel", "positive");
    assert_panics(t, tn_max_pool2d(tn_full(t, 1, 1, flat), &big), "max_pool2d", "1 dimensions", "4");
    tn_tape_free(t);
    assert_true(panics(padding_row_missing, NULL, "row 4 is none of them"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(large_shapes), cmocka_unit_test(start),        cmocka_unit_test(pooling_values),
        cmocka_unit_test(embedding),    cmocka_unit_test(wrong_shapes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

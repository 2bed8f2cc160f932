/* SPDX-License-Identifier: MIT */
/*
 * Linear layers that skip the zeros of their input (lib/linear_sparse.c): bit for bit the chains that kernels.h promises, at
 * every vector level (a process each), for 1 to 5 threads, stored and added, odd sizes; and numbers that are not finite
 * show where the dense products show them.
 */
#include "internal.h"
#include "kernels.h"
#include "kernel_rig.h"
#include "linear_sparse.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>

typedef struct {
    int n, in, out, bias, relu;
} shape;
enum { MOST_UNITS = 130 };

static const shape shapes[] = {{16, 128, 32, 1, 1},  {128, 784, 128, 1, 1}, {33, 131, 67, 1, 0},
                               {150, 257, 40, 0, 1}, {17, 800, 130, 1, 1},  {300, 130, 33, 0, 0}};

/* Numbers with all bits of a float, most of them 0. */
static tn_real *mostly_zeros(size_t n, int of) {
    tn_real *x = reals(n);
    for (size_t i = 0; i < n; i++) x[i] = draw(0, of) ? 0 : x[i] / 3;
    return x;
}

static void check(const char *what, size_t i, const tn_real *got, tn_real want) {
    if (isnan(want) ? !isnan(*got) : memcmp(got, &want, sizeof want) != 0)
        fail_msg("%s %zu: %.9g, not %.9g", what, i, (double)*got, (double)want);
}

/* Gradients of weights and bias; odd ones also go through a rectifier whose outputs y are. NaN where a sum is NaN. */
static void gradients(tn_tape *t, const tn_sparse_input *input, const shape *s, const tn_real *x,
                      const tn_real *y, const tn_real *gy, int odd) {
    const size_t n = (size_t)s->n, in = (size_t)s->in, out = (size_t)s->out;
    tn_real *dw = reals(out * in), *db = reals(out), *dz = reals(n * out), *was = reals(out * in);
    memcpy(was, dw, out * in * sizeof *dw);
    for (size_t i = 0; i < n * out; i++) dz[i] = odd && !(y[i] > 0) && !isnan(gy[i]) ? 0 : gy[i];
    tn_sparse_back b = {.out = s->out, .act = odd ? TN_ACT_RELU : TN_ACT_NONE, .y = y, .gy = gy, .dw = dw};
    b.add_dw = odd, b.add_db = !odd;
    if (s->bias) b.db = db;
    tn_real bias[MOST_UNITS];
    for (size_t o = 0; o < out; o++) {
        bias[o] = b.add_db ? db[o] : 0;
        for (size_t r = 0; r < n; r++) bias[o] += dz[r * out + o];
    }
    tn_linear_sparse_back(t, input, &b);
    for (size_t i = 0; i < out * in; i++) {
        tn_real sum = odd ? was[i] : 0;
        for (size_t r = 0; r < n; r++) sum = fused(dz[r * out + i / in], x[r * in + i % in], sum);
        check("gradient", i, dw + i, sum);
    }
    for (size_t o = 0; o < out && s->bias; o++) check("bias's gradient", o, db + o, bias[o]);
    free(dw), free(db), free(dz), free(was);
}

static void one_shape(const shape *s, int threads) {
    const size_t n = (size_t)s->n, in = (size_t)s->in, out = (size_t)s->out;
    tn_real *x = mostly_zeros(n * in, 9), *w = reals(out * in), *b = reals(out), *dz = reals(n * out),
            *y = reals(n * out);
    tn_tape *t = tn_tape_new(NULL);
    tn_set_threads(threads);
    const tn_sparse_input *input = tn_linear_sparse_input(t, s->n, s->in, s->out, x, 1);
    assert_non_null(input);
    assert_true(tn_linear_sparse_forward(t, input, s->out, w, s->bias ? b : NULL, s->relu, y));
    for (size_t i = 0; i < n * out; i++) {
        tn_real sum = 0;
        for (size_t p = 0; p < in; p++) sum = fused(x[i / out * in + p], w[i % out * in + p], sum);
        if (s->bias) sum += b[i % out];
        check("output", i, y + i, s->relu && sum < 0 ? 0 : sum);
    }
    tn_real *signs = reals(n * out);
    for (int odd = 0; odd < 2; odd++) gradients(t, input, s, x, signs, dz, odd);
    dz[n * out - 1] = (tn_real)NAN, dz[0] = (tn_real)INFINITY, signs[0] = 1;
    for (int odd = 0; odd < 2; odd++) gradients(t, input, s, x, signs, dz, odd);
    w[out / 2 * in + in - 1] = (tn_real)-INFINITY;
    assert_false(tn_linear_sparse_forward(t, input, s->out, w, NULL, 0, y));
    tn_tape_free(t);
    free(x), free(w), free(b), free(dz), free(y), free(signs);
}

static void chains(void **unused) {
    (void)unused;
    if (!tn_gemm_own()) skip(); /* the double build */
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int threads = 1; threads <= 5; threads += 2 + (int)i % 2) one_shape(&shapes[i], threads);
}

static void dense_input(void **unused) {
    (void)unused;
    tn_tape *t = tn_tape_new(NULL);
    tn_real *x = mostly_zeros(64 * 784, 0), *sparse = mostly_zeros(64 * 784, 9);
    assert_null(tn_linear_sparse_input(t, 64, 784, 128, x, 1));
    assert_null(tn_linear_sparse_input(t, 4, 784, 128, sparse, 1));
    if (tn_gemm_own()) { /* a third of x: worth it where units fill a panel */
        tn_real *third = mostly_zeros(64 * 784, 2);
        assert_null(tn_linear_sparse_input(t, 64, 784, 32, third, 1));
        assert_non_null(tn_linear_sparse_input(t, 64, 784, 64, third, 1));
        free(third);
    }
    tn_tape_free(t);
    free(x), free(sparse);
}

/* Through the layer: an infinite weight of an input that is 0 in every sample gives NaN, as x w' does. */
static void layer(void **unused) {
    (void)unused;
    enum { N = 32, IN = 200, OUT = 40 };
    tn_tape *t = tn_tape_new(NULL);
    tn_real *xs = mostly_zeros((size_t)N * IN, 5), *ws = reals((size_t)OUT * IN);
    for (int i = 0; i < N; i++) xs[i * IN + 7] = 0;
    tn_t *x = tn_leaf(t, xs, 2, (int[]){N, IN}), *w = tn_leaf(t, ws, 2, (int[]){OUT, IN});
    const tn_t *y = tn_linear_act(x, w, NULL, TN_ACT_NONE);
    for (size_t i = 0; i < y->len; i++) assert_true(isfinite(y->x[i]));
    w->x[3 * IN + 7] = (tn_real)INFINITY;
    y = tn_linear_act(x, w, NULL, TN_ACT_NONE);
    for (size_t i = 0; i < y->len; i++) assert_int_equal(isnan(y->x[i]) != 0, i % OUT == 3);
    tn_t *gy = tn_new(t, 2, (int[]){N, OUT}), *gw;
    for (size_t i = 0; i < gy->len; i++) gy->x[i] = i == 5 ? (tn_real)INFINITY : 1;
    tn_t *z = tn_linear_act(x, w, NULL, TN_ACT_NONE);
    tn_grad(z, gy, 1, &w, &gw, 0);
    for (size_t i = 0; i < gw->len; i++) /* sample 0's infinity times its input */
        assert_int_equal(isnan(gw->x[i]) != 0, i / IN == 5 && xs[i % IN] == 0);
    tn_tape_free(t);
    free(xs), free(ws);
}

/* Rows shorter than a vector, in memory of exactly their size. */
static void narrow_rows(void **unused) {
    (void)unused;
    enum { MOST = 7 };
    for (int rows = 1; rows <= MOST; rows++)
        for (int n = 1; n <= MOST; n++) {
            tn_real *x = malloc((size_t)(rows * n) * sizeof *x);
            uint64_t bits[MOST];
            assert_non_null(x);
            for (int i = 0; i < rows * n; i++) x[i] = (tn_real)(i % 3 ? 0 : NAN);
            tn_kernels_get(NULL)->sparse_bits(rows, n, x, n, bits);
            for (int i = 0; i < rows * n; i++) assert_int_equal(bits[i / n] >> i % n & 1, i % 3 == 0);
            for (int r = 0; r < rows; r++) assert_int_equal(bits[r] >> n, 0);
            free(x);
        }
}

/* A sum that underflows to -0 is +0 in the end, whichever zeros were visited after it. */
static void sign_of_zero(void **unused) {
    (void)unused;
    enum { N = 34, IN = 128, OUT = 160 };
    if (!tn_gemm_own()) skip();
    tn_real *x = calloc((size_t)N * IN, sizeof *x), *w = malloc((size_t)OUT * IN * sizeof *w), one[N * OUT],
            more[N * OUT];
    assert_true(x && w);
    for (int i = 0; i < N; i++) x[i * IN + i % 2] = i % 2 ? 1 : (tn_real)1e-30;
    for (int i = 0; i < OUT * IN; i++) w[i] = i % IN ? 1 : (tn_real)-1e-30;
    tn_tape *t = tn_tape_new(NULL);
    for (int threads = 1; threads <= 5; threads++) {
        tn_set_threads(threads);
        const tn_sparse_input *input = tn_linear_sparse_input(t, N, IN, OUT, x, 0);
        assert_non_null(input);
        assert_true(tn_linear_sparse_forward(t, input, OUT, w, NULL, 0, threads == 1 ? one : more));
        if (threads > 1) assert_memory_equal(one, more, sizeof one);
        for (int i = 0; i < N * OUT; i++) assert_false(signbit(one[i]));
    }
    tn_tape_free(t);
    free(x), free(w);
}

static const struct CMUnitTest tests[] = {cmocka_unit_test(chains), cmocka_unit_test(dense_input),
                                          cmocka_unit_test(layer), cmocka_unit_test(narrow_rows),
                                          cmocka_unit_test(sign_of_zero)};

static int run(void) {
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return run_at_every_level(run);
}

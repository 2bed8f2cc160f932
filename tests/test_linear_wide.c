/* SPDX-License-Identifier: MIT */
/*
 * Linear layers with many inputs, whose products have passes of their own (lib/linear_wide.c): bit for bit the chains that
 * kernels.h promises, at every vector level (a process each), for 1 to 5 threads, stored and added, odd sizes.
 */
#include "internal.h"
#include "kernels.h"
#include "linear_wide.h"
#include "kernel_rig.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>

typedef struct {
    int n, in, out, bias, relu;
} shape;

static const shape shapes[] = {
    {40, 9216, 64, 1, 1},  {33, 4099, 130, 1, 0}, {32, 2048, 256, 0, 1},
    {45, 2051, 259, 1, 1}, {35, 8200, 67, 0, 0},
};

/* Numbers with all bits of a float: rounding depends on the order of a sum. */
static uint64_t state = 1;
static tn_real *full_reals(size_t n) {
    tn_real *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) {
        state = state * 6364136223846793005u + 1442695040888963407u;
        x[i] = (tn_real)((double)(state >> 40) / (1 << 23) - 1);
    }
    return x;
}

static void check(const tn_real *got, tn_real want) {
    if (memcmp(got, &want, sizeof want) != 0) fail_msg("%.9g, not %.9g", (double)*got, (double)want);
}

/* All of the outputs, and of the gradients some: a chain is long. */
static void one_shape(const shape *s, int threads, int zeros) {
    const size_t n = (size_t)s->n, in = (size_t)s->in, out = (size_t)s->out;
    tn_real *x = full_reals(n * in), *w = full_reals(out * in), *b = full_reals(out),
            *dz = full_reals(n * out), *y = full_reals(n * out);
    tn_real *dx = full_reals(n * in), *dw = full_reals(out * in), *dx0 = malloc(n * in * sizeof *dx0),
            *dw0 = malloc(out * in * sizeof *dw0);
    for (size_t i = 0; i < n * out && zeros; i++) /* most of them: the products that skip them */
        if (i % 7 > 1 || i / out == 5) dz[i] = 0;
    memcpy(dx0, dx, n * in * sizeof *dx), memcpy(dw0, dw, out * in * sizeof *dw);
    tn_tape *t = tn_tape_new(NULL);
    tn_set_threads(threads);
    tn_linear_wide_forward(t, s->n, s->in, s->out, x, w, NULL, s->bias ? b : NULL, s->relu, y);
    for (size_t i = 0; i < n; i += threads == 1 ? 5 : 17)
        for (size_t o = 0; o < out; o++) {
            tn_real sum = 0;
            for (size_t p = 0; p < in; p++) sum = fused(x[i * in + p], w[o * in + p], sum);
            if (s->bias) sum += b[o];
            check(y + i * out + o, s->relu && sum < 0 ? 0 : sum);
        }
    for (unsigned add = 0; add < 4; add++) {
        memcpy(dx, dx0, n * in * sizeof *dx), memcpy(dw, dw0, out * in * sizeof *dw);
        tn_linear_wide_back(t, s->n, s->in, s->out, dz, x, w, add, add == 1 ? NULL : dx,
                            add == 2 ? NULL : dw);
        for (size_t i = 0; i < n * in; i += 19 + i % 5) {
            tn_real sum = add & 1 ? dx0[i] : 0;
            for (size_t o = 0; o < out; o++) sum = fused(dz[i / in * out + o], w[o * in + i % in], sum);
            check(dx + i, add == 1 ? dx0[i] : sum);
        }
        for (size_t i = 0; i < out * in; i += 19 + i % 5) {
            tn_real sum = add & 2 ? dw0[i] : 0;
            for (size_t r = 0; r < n; r++) sum = fused(dz[r * out + i / in], x[r * in + i % in], sum);
            check(dw + i, add == 2 ? dw0[i] : sum);
        }
    }
    tn_tape_free(t);
    free(x), free(w), free(b), free(dz), free(y), free(dx), free(dw), free(dx0), free(dw0);
}

static void chains(void **unused) {
    (void)unused;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int threads = 1; threads <= 5; threads += 2 + (int)i % 2)
            one_shape(&shapes[i], threads, threads > 1);
}

/* 0 times infinity is NaN, also where most zeros are skipped; columns with finite factors stay finite. */
static void infinite_weights(void **unused) {
    (void)unused;
    enum { N = 32, IN = 2048 + 64 + 63, OUT = 256, FIRST = 700, LAST = 1500 };
    tn_real *x = full_reals((size_t)N * IN), *w = full_reals((size_t)OUT * IN),
            *dz = full_reals((size_t)N * OUT), *dx = full_reals((size_t)N * IN),
            *dw = full_reals((size_t)OUT * IN);
    for (int i = 0; i < N * OUT; i++) dz[i] = i % OUT % 4 ? 0 : 1;
    for (int p = FIRST; p < LAST; p++)
        w[IN + p] = (tn_real)INFINITY; /* of unit 1, whose gradients are all 0 */
    x[3 * IN + IN - 1] = (tn_real)NAN;
    tn_tape *t = tn_tape_new(NULL);
    tn_linear_wide_back(t, N, IN, OUT, dz, x, w, 0, dx, dw);
    for (int i = 0; i < N * IN; i++)
        if (!isnan(dx[i]) != (i % IN < FIRST || i % IN >= LAST))
            fail_msg("column %d: %g", i % IN, (double)dx[i]);
    for (int i = 0; i < OUT * IN; i++)
        if (!isnan(dw[i]) != (i % IN < IN - 1)) fail_msg("dw, column %d: %g", i % IN, (double)dw[i]);
    tn_tape_free(t);
    free(x), free(w), free(dz), free(dx), free(dw);
}

/* The layer takes these passes, and its gradients by numbers are those by create_graph. */
static void layer(void **unused) {
    (void)unused;
    const int n = 40, in = 2100, out = 256;
    if (sizeof(tn_real) == 4)
        assert_true(tn_linear_wide_fits(n, in, out, 0) && tn_linear_wide_fits(n, in, out, 1));
    tn_tape *t = tn_tape_new(NULL);
    tn_real *xs = full_reals((size_t)(n * in)), *ws = full_reals((size_t)(out * in)),
            *bs = full_reals((size_t)out);
    tn_t *src[] = {tn_leaf(t, xs, 2, (int[]){n, in}), tn_leaf(t, ws, 2, (int[]){out, in}),
                   tn_leaf(t, bs, 1, &out)};
    for (int act = TN_ACT_NONE; act <= TN_ACT_TANH; act++) {
        tn_t *numbers[3], *graph[3];
        tn_t *y = tn_linear_act(src[0], src[1], src[2], (tn_act)act);
        tn_grad(y, NULL, 3, src, numbers, 0);
        tn_grad(y, NULL, 3, src, graph, 1);
        for (int i = 0; i < 3; i++)
            for (size_t l = 0; l < src[i]->len; l++) {
                double a = (double)numbers[i]->x[l], b = (double)graph[i]->x[l];
                if (!(fabs(a - b) <= 1e-3 + 1e-4 * fabs(b))) fail_msg("act %d, %d: %g, %g", act, i, a, b);
            }
    }
    tn_tape_free(t);
    free(xs), free(ws), free(bs);
}

static int run(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(chains), cmocka_unit_test(infinite_weights),
                                       cmocka_unit_test(layer)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return run_at_every_level(run);
}

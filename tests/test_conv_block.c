/* SPDX-License-Identifier: MIT */
/*
 * tn_conv2d_block against the ops that it stands for, at every vector level that this machine runs (a process each) and for
 * 1 to 4 threads: values and the second layer's gradients bit for bit, the first layer's, whose sums have another order, to
 * rounding; over odd shapes, with and without padding, bias and dropout, with NaN, with layers that are not trained, through
 * create_graph.
 */
#include "kernels.h"
#include "kernel_rig.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>

typedef struct {
    int n, ci, h, w, co1, k1, pad1, co2, pad2, bias, fused;
    double drop;
} shape;

static const shape shapes[] = {
    {19, 1, 28, 28, 32, 3, 0, 64, 0, 1, 1, 0.25}, /* the cnn model's */
    {2, 1, 14, 17, 16, 5, 2, 9, 1, 1, 1, 0.5},
    {1, 3, 12, 13, 48, 3, 1, 33, 0, 0, 1, 0},
    {3, 2, 11, 21, 16, 4, 0, 8, 1, 0, 1, 0.1},
    {17, 1, 9, 10, 32, 1, 0, 70, 1, 1, 1, 0.75},
    {2, 1, 12, 12, 64, 2, 1, 16, 2, 1, 1, 0},
    {2, 1, 12, 12, 24, 3, 0, 16, 0, 1, 0, 0.5}, /* left to the ops */
    {2, 1, 9, 9, 16, 3, 0, 6, 0, 1, 0, 0.5},
};

enum { X, W1, B1, W2, B2, SOURCES };

static uint64_t state = 1;
static tn_real uniform(void) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (tn_real)((double)(state >> 40) / (1 << 23) - 1);
}

static tn_t *filled(tn_tape *t, int leaf, int nd, const int *dim) {
    size_t len = 1;
    for (int i = 0; i < nd; i++) len *= (size_t)dim[i];
    tn_real *x = malloc(len * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < len; i++) x[i] = uniform();
    tn_t *y = leaf ? tn_leaf(t, x, nd, dim) : tn_input(t, x, nd, dim);
    free(x);
    return y;
}

static void sources(tn_tape *t, const shape *s, unsigned trained, int nan, tn_t *src[SOURCES]) {
    state = 42;
    src[X] = filled(t, trained >> X & 1, 4, (int[]){s->n, s->ci, s->h, s->w});
    src[W1] = filled(t, trained >> W1 & 1, 4, (int[]){s->co1, s->ci, s->k1, s->k1});
    src[B1] = s->bias ? filled(t, trained >> B1 & 1, 1, &s->co1) : NULL;
    src[W2] = filled(t, trained >> W2 & 1, 4, (int[]){s->co2, s->co1, 3, 3});
    src[B2] = s->bias ? filled(t, trained >> B2 & 1, 1, &s->co2) : NULL;
    if (nan) src[X]->x[src[X]->len / 2] = NAN;
}

static tn_conv padded(int pad) {
    tn_conv c = tn_conv_valid();
    c.pad[0] = c.pad[1] = pad;
    return c;
}

static tn_t *apply(const shape *s, tn_t *const src[SOURCES], int fused) {
    const tn_conv c1 = padded(s->pad1), c2 = padded(s->pad2);
    const tn_pool two = tn_pool_square(2);
    if (fused)
        return tn_conv2d_block(src[X], src[W1], src[B1], &c1, src[W2], src[B2], &c2, TN_ACT_RELU, &two,
                               s->drop, "drop");
    tn_t *z = tn_conv2d_act(src[X], src[W1], src[B1], &c1, TN_ACT_RELU);
    return tn_dropout(tn_conv2d_pool(z, src[W2], src[B2], &c2, TN_ACT_RELU, &two), s->drop, "drop");
}

typedef struct {
    tn_real *y, *g[SOURCES];
    size_t len, glen[SOURCES];
    int fused;
} result;

static tn_real *kept(const tn_t *x) {
    tn_real *p = malloc(x->len * sizeof *p);
    assert_non_null(p);
    return memcpy(p, x->x, x->len * sizeof *p);
}

static result run_once(const shape *s, int fused, unsigned trained, int nan, int threads, int graph) {
    tn_tape *t = tn_tape_new(NULL);
    tn_t *src[SOURCES], *wrt[SOURCES], *out[SOURCES];
    int of[SOURCES], n = 0;
    result r = {0};
    tn_set_threads(threads);
    tn_train_mode(t, 5, 3, 100);
    sources(t, s, trained, nan, src);
    tn_t *y = apply(s, src, fused), *v = filled(t, 0, 4, y->dim);
    r.fused = y->op && !strcmp(y->op->name, "conv2d_block");
    for (int i = 0; i < SOURCES; i++)
        if (src[i] && trained >> i & 1) wrt[n] = src[i], of[n++] = i;
    tn_grad(y, v, n, wrt, out, graph);
    r.y = kept(y), r.len = y->len;
    for (int i = 0; i < n; i++) r.g[of[i]] = kept(out[i]), r.glen[of[i]] = out[i]->len;
    tn_tape_free(t);
    return r;
}

static void release(result *r) {
    free(r->y);
    for (int i = 0; i < SOURCES; i++) free(r->g[i]);
}

/* Largest difference over the largest value; infinite where one alone is NaN. */
static double distance(const tn_real *a, const tn_real *b, size_t n) {
    double most = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        if (a[i] != a[i] && b[i] != b[i]) continue;
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= most)) most = d == d ? d : INFINITY;
        if (fabs((double)b[i]) > largest) largest = fabs((double)b[i]);
    }
    return most > 0 ? most / largest : 0;
}

static int same(const tn_real *a, const tn_real *b, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(a + i, b + i, sizeof *a) != 0 && !(a[i] != a[i] && b[i] != b[i])) return 0;
    return 1;
}

static void compare(const shape *s, unsigned trained, int nan) {
    result want = run_once(s, 0, trained, nan, 1, 0), one = run_once(s, 1, trained, nan, 1, 0),
           graph = run_once(s, 1, trained, nan, 1, 1);
    assert_int_equal(one.fused, tn_simd(NULL) && sizeof(tn_real) == 4 ? s->fused && !(trained >> X & 1) : 0);
    assert_true(same(one.y, want.y, want.len));
    for (int i = 0; i < SOURCES; i++) {
        if (!want.g[i]) continue;
        double d = distance(one.g[i], want.g[i], want.glen[i]);
        if (!(d < 1e-5)) fail_msg("gradient %d: %g", i, d);
        if (i >= W2) assert_true(same(one.g[i], want.g[i], want.glen[i]));
        d = nan ? 0 : distance(graph.g[i], want.g[i], want.glen[i]);
        if (!(d < 1e-4)) fail_msg("create_graph, gradient %d: %g", i, d);
    }
    for (int threads = 2; threads <= 4; threads++) {
        result many = run_once(s, 1, trained, nan, threads, 0);
        assert_true(same(many.y, one.y, one.len));
        for (int i = 0; i < SOURCES; i++) assert_true(!one.g[i] || same(many.g[i], one.g[i], one.glen[i]));
        release(&many);
    }
    release(&want), release(&one), release(&graph);
}

enum { ALL = 1 << W1 | 1 << B1 | 1 << W2 | 1 << B2 };

static void over_shapes(void **unused) {
    (void)unused;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) compare(&shapes[i], ALL, 0);
}

static void some_trained(void **unused) {
    (void)unused;
    static const unsigned sets[] = {1 << W1, 1 << B1, 1 << W2, 1 << B2, 1 << W1 | 1 << B2, ALL | 1 << X};
    for (size_t i = 0; i < sizeof sets / sizeof *sets; i++) compare(&shapes[1], sets[i], 0);
}

static void nan_passes(void **unused) {
    (void)unused;
    compare(&shapes[0], ALL, 1);
    compare(&shapes[2], ALL, 1);
}

/* The gradient of a sum of the block with itself: the second time it is added. */
static void added(void **unused) {
    (void)unused;
    const shape *s = &shapes[1];
    tn_tape *t = tn_tape_new(NULL);
    tn_t *src[SOURCES], *once[SOURCES], *twice[SOURCES];
    sources(t, s, ALL, 0, src);
    tn_train_mode(t, 5, 3, 0);
    tn_t *y = apply(s, src, 1), *z = apply(s, src, 1);
    tn_grad(y, NULL, 4, src + W1, once, 0);
    tn_grad(tn_add(y, z), NULL, 4, src + W1, twice, 0);
    for (int i = 0; i < 4; i++)
        for (size_t l = 0; l < once[i]->len; l++)
            assert_near((double)twice[i]->x[l], 2 * (double)once[i]->x[l], 1e-6);
    tn_tape_free(t);
}

static int run(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(over_shapes), cmocka_unit_test(some_trained),
                                       cmocka_unit_test(nan_passes), cmocka_unit_test(added)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return run_at_every_level(run);
}

/* SPDX-License-Identifier: MIT */
/*
 * Convolution's forward pass, pooled or not, at every vector level that this machine runs (a process each): direct sums bit
 * for bit against one chain of fused multiply-adds an element, over odd shapes, with NaN and infinity.
 */
#include "catch.h"
#include "conv_pool.h"
#include "kernel_rig.h"
#include "kernels.h"
#include <math.h>
#include <stdlib.h>

typedef struct {
    int n, ci, h, w, co, kh, kw, ph, pw, pool_h, pool_w; /* pool_h 0: no pooling */
} shape;

static const shape shapes[] = {
    {128, 1, 28, 28, 6, 5, 5, 2, 2, 2, 2},                                       /* lenet's */
    {3, 6, 14, 14, 16, 5, 5, 0, 0, 2, 2},  {2, 1, 28, 28, 32, 3, 3, 0, 0, 0, 0}, /* cnn's */
    {1, 32, 26, 26, 64, 3, 3, 0, 0, 2, 2}, {1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1},
    {5, 3, 9, 33, 7, 3, 2, 1, 0, 3, 2},    {2, 2, 12, 17, 70, 1, 7, 0, 3, 1, 1},
    {17, 70, 5, 6, 33, 4, 4, 2, 1, 2, 2},  {2, 5, 7, 7, 17, 7, 7, 0, 0, 1, 1},
    {1, 4, 8, 40, 9, 2, 3, 1, 2, 4, 16},   {3, 1, 19, 8, 13, 3, 1, 1, 0, 2, 2},
    {2, 3, 16, 65, 15, 3, 3, 1, 1, 2, 2},
};

/* One element, as the header of conv_forward.c promises. */
static tn_real element(const shape *s, const tn_real *x, const tn_real *w, const tn_real *bias, int relu,
                       int n, int o, int r, int c) {
    tn_real sum = 0;
    for (int k = 0; k < s->ci; k++)
        for (int i = 0; i < s->kh; i++)
            for (int j = 0; j < s->kw; j++) {
                int a = r + i - s->ph, b = c + j - s->pw, in = a >= 0 && a < s->h && b >= 0 && b < s->w;
                sum = fused(in ? x[((n * s->ci + k) * s->h + a) * s->w + b] : 0,
                            w[((o * s->ci + k) * s->kh + i) * s->kw + j], sum);
            }
    if (bias) sum += bias[o];
    return relu && sum < 0 ? 0 : sum;
}

static int same(tn_real a, tn_real b) {
    return a == b || (a != a && b != b);
}

static void check(tn_tape *t, const shape *s, int with_bias, int relu, int special) {
    size_t xn = (size_t)(s->n * s->ci * s->h * s->w), wn = (size_t)(s->co * s->ci * s->kh * s->kw);
    tn_real *x = reals(xn), *w = reals(wn), *b = reals((size_t)s->co), *bias = with_bias ? b : NULL;
    for (int i = 0; special && i < 3; i++) {
        x[draw(0, (int)xn - 1)] = i ? (tn_real)INFINITY : (tn_real)NAN;
        if (special > 1) w[draw(0, (int)wn - 1)] = i ? (tn_real)NAN : (tn_real)INFINITY;
    }
    for (int n = 0; n < s->n && draw(0, 1); n++) { /* pictures with margins, or rows, of zeros */
        int lo = draw(0, s->h), hi = draw(0, s->h), inside = draw(0, 1);
        for (int r = 0; r < s->ci * s->h; r++)
            if ((r % s->h >= lo && r % s->h < hi) == inside)
                for (int q = 0; q < s->w; q++) x[(n * s->ci * s->h + r) * s->w + q] = 0;
    }
    tn_conv c = {{1, 1}, {s->ph, s->pw}, {1, 1}, 1, TN_CONV_DIRECT};
    tn_conv_pool_plan p = {.relu = relu};
    p.conv =
        tn_conv_shape(t, "test", (int[]){s->n, s->ci, s->h, s->w}, (int[]){s->co, s->ci, s->kh, s->kw}, &c);
    int kh = s->pool_h ? s->pool_h : 1, kw = s->pool_w ? s->pool_w : 1, h = p.conv.g.oh, v = p.conv.g.ow;
    int oh = h / kh, ow = v / kw;
    p.pool = (tn_window){s->co, h, v, kh, kw, oh, ow, kh, kw, 0, 0, 1, 1};
    size_t len = (size_t)s->n * (size_t)(s->co * oh * ow), at = 0;
    enum { GUARD = 77 };
    tn_real *y = malloc((len + GUARD) * sizeof *y);
    unsigned char *winner = malloc(len + GUARD);
    assert_true(y && winner);
    for (int i = 0; i < GUARD; i++)
        y[len + (size_t)i] = (tn_real)i, winner[len + (size_t)i] = (unsigned char)i;
    if (s->pool_h)
        tn_conv_pool_forward(t, &p, x, w, bias, y, winner);
    else
        tn_conv_forward(t, &p.conv, x, w, bias, relu, y);
    for (int n = 0; n<s->n; n += s->n> 20 ? 13 : 1) {
        at = (size_t)n * (size_t)(s->co * oh * ow);
        for (int o = 0; o < s->co; o++)
            for (int r = 0; r < oh; r++)
                for (int q = 0; q < ow; q++, at++) {
                    int place = 0;
                    tn_real best = element(s, x, w, bias, relu, n, o, r * kh, q * kw);
                    for (int i = 1; i < kh * kw; i++) {
                        tn_real e = element(s, x, w, bias, relu, n, o, r * kh + i / kw, q * kw + i % kw);
                        if (best == best && !(e <= best)) best = e, place = i;
                    }
                    if (!same(y[at], best) || (s->pool_h && winner[at] != place))
                        fail_msg("image %d, channel %d, (%d, %d): %.9g at %d, not %.9g at %d; shape %d %d %d "
                                 "%d %d %d %d",
                                 n, o, r, q, (double)y[at], s->pool_h ? winner[at] : 0, (double)best, place,
                                 s->n, s->ci, s->h, s->w, s->co, s->kh, s->kw);
                }
    }
    for (int i = 0; i < GUARD; i++)
        assert_true(y[len + (size_t)i] == (tn_real)i && winner[len + (size_t)i] == i);
    free(x), free(w), free(b), free(y), free(winner);
    tn_tape_reset(t);
}

static void known_shapes(void **unused) {
    (void)unused;
    tn_tape *t = tn_tape_new(NULL);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int way = 0; way < 4; way++) check(t, &shapes[i], way & 1, way >> 1, 0);
    tn_tape_free(t);
}

static shape any_shape(void) {
    shape s = {.n = draw(1, 5), .ci = draw(1, 9), .co = draw(1, 70), .kh = draw(1, 7), .kw = draw(1, 7)};
    if (draw(0, 2) == 0) s.co = draw(1, 16);
    s.ph = draw(0, s.kh - 1), s.pw = draw(0, s.kw - 1);
    int pool = draw(0, 3), h = 1, w = 1;
    if (pool) s.pool_h = h = pool, s.pool_w = w = pool == 3 ? 2 : pool;
    int least_h = s.kh + h - 1 - 2 * s.ph, least_w = s.kw + w - 1 - 2 * s.pw;
    s.h = (least_h < 1 ? 1 : least_h) + draw(0, 12), s.w = (least_w < 1 ? 1 : least_w) + draw(0, 40);
    return s;
}

static void odd_shapes(void **unused) {
    (void)unused;
    tn_tape *t = tn_tape_new(NULL);
    for (int i = 0; i < 150; i++) {
        shape s = any_shape();
        check(t, &s, draw(0, 1), draw(0, 1), 0);
    }
    tn_tape_free(t);
}

static void nan_and_infinity(void **unused) {
    (void)unused;
    tn_tape *t = tn_tape_new(NULL);
    for (int i = 0; i < 40; i++) {
        shape s = any_shape();
        check(t, &s, draw(0, 1), draw(0, 1), draw(1, 2));
    }
    const shape picture = {2, 1, 18, 20, 6, 5, 5, 2, 2, 2, 2}; /* rows of zeros meet infinite weights */
    for (int i = 0; i < 12; i++) check(t, &picture, 1, i & 1, 2);
    tn_tape_free(t);
}

/* Winograd's algorithm by default, its error within 1e-5 of the largest output; direct sums for who asks for them. */
static void algorithms(void **unused) {
    (void)unused;
    static const int sizes[][6] = {
        /* ci, co, h, pad, n, kernel; 5 x 5 with pooling alone */
        {32, 64, 26, 0, 2, 3}, {17, 33, 13, 1, 3, 3}, {16, 16, 28, 1, 1, 3}, {6, 16, 14, 0, 3, 5},
        {2, 12, 7, 0, 5, 5},   {9, 33, 6, 0, 1, 5},   {3, 70, 22, 2, 2, 5},  {40, 17, 31, 4, 1, 5},
    };
    tn_tape *t = tn_tape_new(NULL);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int pool = sizes[i][5] == 5; pool < 2; pool++) {
            const int *z = sizes[i], xs[] = {z[4], z[0], z[2], z[2]}, ws[] = {z[1], z[0], z[5], z[5]};
            tn_real *x = reals((size_t)(xs[0] * xs[1] * xs[2] * xs[3])),
                    *w = reals((size_t)(z[1] * z[0] * z[5] * z[5]));
            tn_real *b = reals((size_t)z[1]), *y[2], largest = 0;
            double worst = 0;
            size_t len = 0;
            for (int direct = 0; direct < 2; direct++) {
                tn_conv c = {{1, 1}, {z[3], z[3]}, {1, 1}, 1, direct ? TN_CONV_DIRECT : TN_CONV_AUTO};
                tn_conv_pool_plan p = {.conv = tn_conv_shape(t, "test", xs, ws, &c), .relu = 1};
                int h = p.conv.g.oh, o = pool ? h / 2 : h;
                p.pool = (tn_window){z[1], h, h, 2, 2, h / 2, h / 2, 2, 2, 0, 0, 1, 1};
                len = (size_t)(z[4] * z[1] * o * o);
                y[direct] = reals(len);
                unsigned char *winner = malloc(len);
                assert_non_null(winner);
                if (pool)
                    tn_conv_pool_forward(t, &p, x, w, b, y[direct], winner);
                else
                    tn_conv_forward(t, &p.conv, x, w, b, 1, y[direct]);
                free(winner);
            }
            for (size_t k = 0; k < len; k++) {
                worst = fmax(worst, fabs((double)(y[0][k] - y[1][k])));
                if (y[1][k] > largest) largest = y[1][k];
            }
            assert_true(worst > 0 && worst < 1e-5 * (double)largest);
            free(x), free(w), free(b), free(y[0]), free(y[1]);
            tn_tape_reset(t);
        }
    tn_tape_free(t);
}

static void transposes(void **unused) {
    (void)unused;
    const tn_kernels_t *k = tn_kernels_get(NULL);
    for (int rows = 1; rows < 50; rows += rows < 20 ? 1 : 7)
        for (int cols = 1; cols < 50; cols += cols < 20 ? 1 : 9) {
            int ls = cols + 3, ld = rows + 5;
            tn_real *a = reals((size_t)(rows * ls)), *b = reals((size_t)(cols * ld)), *c = reals(0);
            c = realloc(c, (size_t)(cols * ld) * sizeof *c);
            assert_non_null(c);
            memcpy(c, b, (size_t)(cols * ld) * sizeof *c);
            k->transpose(rows, cols, a, ls, b, ld);
            for (int j = 0; j < cols; j++)
                for (int i = 0; i < ld; i++)
                    assert_true(b[j * ld + i] == (i < rows ? a[i * ls + j] : c[j * ld + i]));
            free(a), free(b), free(c);
        }
}

static int run(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(transposes), cmocka_unit_test(algorithms),
                                       cmocka_unit_test(known_shapes), cmocka_unit_test(odd_shapes),
                                       cmocka_unit_test(nan_and_infinity)};
    tn_gemm_backend("own", NULL); /* the double build would take OpenBLAS */
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return run_at_every_level(run);
}

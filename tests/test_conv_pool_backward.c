/* SPDX-License-Identifier: MIT */
/*
 * The gradients of convolution + bias + ReLU + max pooling, at every vector level that this machine runs (a process each)
 * and for 1 to 4 threads: bit for bit against the sums in the order that conv_pool_backward.c promises, over odd shapes,
 * with zeros, NaN and infinity, stored and added.
 */
#include "conv_pool.h"
#include "internal.h"
#include "kernels.h"
#include "kernel_rig.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>

typedef struct {
    int n, ci, h, w, co, kh, kw, ph, pw, pool_h, pool_w;
} shape;

static const shape shapes[] = {
    {67, 1, 28, 28, 6, 5, 5, 2, 2, 2, 2},  {3, 6, 14, 14, 16, 5, 5, 0, 0, 2, 2}, /* lenet's */
    {1, 32, 26, 26, 64, 3, 3, 0, 0, 2, 2}, {1, 1, 1, 1, 1, 1, 1, 0, 0, 1, 1},    /* cnn's */
    {1, 4, 36, 40, 9, 2, 3, 1, 2, 16, 16}, {17, 70, 5, 6, 130, 4, 4, 2, 1, 2, 2},
    {2, 3, 30, 9, 33, 11, 1, 5, 0, 3, 2},  {1, 200, 6, 6, 65, 3, 3, 1, 1, 2, 2},
};

static tn_real *copy(const tn_real *x, size_t n) {
    tn_real *y = malloc((n + 1) * sizeof *y);
    assert_non_null(y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

static int same(tn_real a, tn_real b) {
    return memcmp(&a, &b, sizeof a) == 0 || (a != a && b != b);
}

typedef struct {
    shape s;
    tn_conv_pool_plan p;
    size_t xn, wn, yn;
    tn_real *x, *w, *y, *gy, *gx, *gw, *gb; /* g.: what stands there before */
    unsigned char *winner;
} layer;

static tn_real slope(const layer *l, size_t at) {
    if (!l->p.relu) return l->gy[at];
    if (l->gy[at] != l->gy[at] || l->y[at] != l->y[at]) return l->gy[at] + l->y[at];
    return l->y[at] > 0 ? l->gy[at] : 0;
}

/* Output position of element i of the result, in its plane. */
static int position(const layer *l, size_t at, int *row, int *col) {
    const tn_window *g = &l->p.pool;
    int q = (int)(at % (size_t)(g->oh * g->ow));
    *row = q / g->ow * g->kh + l->winner[at] / g->kw, *col = q % g->ow * g->kw + l->winner[at] % g->kw;
    return q;
}

static void want_weights(const layer *l, int add, tn_real *gw) {
    const tn_window *g = &l->p.conv.g;
    int windows = l->p.pool.oh * l->p.pool.ow, chunks = tn_conv_chunks(l->s.n);
    for (int e = 0; e < (int)l->wn; e++) {
        int o = e / (g->c * g->kh * g->kw), c = e / (g->kh * g->kw) % g->c, i = e / g->kw % g->kh,
            j = e % g->kw;
        tn_real total = 0;
        for (int k = 0; k < chunks; k++) {
            tn_real sum = 0;
            for (int n = l->s.n * k / chunks; n < l->s.n * (k + 1) / chunks; n++)
                for (int q = 0; q < windows; q++) {
                    size_t at = ((size_t)n * (size_t)l->s.co + (size_t)o) * (size_t)windows + (size_t)q;
                    int r, v;
                    tn_real d = slope(l, at);
                    if (d == 0) continue;
                    position(l, at, &r, &v);
                    r += i - g->ph, v += j - g->pw;
                    int in = r >= 0 && r < g->h && v >= 0 && v < g->w;
                    sum = fused(d, in ? l->x[((n * g->c + c) * g->h + r) * g->w + v] : 0, sum);
                }
            total = k ? total + sum : sum;
        }
        gw[e] = add ? gw[e] + total : total;
    }
}

/* The part of one block of the windows: rows i0 ... and, of a row, whose real l is column l / ci, channel l % ci, from l0. */
static void add_block(const layer *l, int i0, int rows, int l0, int run, tn_real *sum) {
    const tn_window *g = &l->p.conv.g, *pool = &l->p.pool;
    int windows = pool->oh * pool->ow;
    for (int n = 0; n < l->s.n; n++)
        for (int q = 0; q < windows; q++)
            for (int place = 0; place < pool->kh * pool->kw; place++)
                for (int i = i0; i < i0 + rows && i < g->kh; i++)
                    for (int k = l0; k < l0 + run && k < g->kw * g->c; k++) {
                        int c = k % g->c, j = k / g->c, r = 0, v = 0, any = 0;
                        tn_real chain = 0;
                        for (int o = 0; o < l->s.co; o++) {
                            size_t at =
                                ((size_t)n * (size_t)l->s.co + (size_t)o) * (size_t)windows + (size_t)q;
                            if (l->winner[at] != place || slope(l, at) == 0) continue;
                            position(l, at, &r, &v), any = 1;
                            chain =
                                fused(slope(l, at), l->w[((o * g->c + c) * g->kh + i) * g->kw + j], chain);
                        }
                        r += i - g->ph, v += j - g->pw;
                        if (any && r >= 0 && r < g->h && v >= 0 && v < g->w)
                            sum[((n * g->c + c) * g->h + r) * g->w + v] += chain;
                    }
}

/* All pixels of a column of the output in one chain. */
static void add_by_columns(const layer *l, tn_real *sum) {
    const tn_window *g = &l->p.conv.g, *pool = &l->p.pool;
    size_t windows = (size_t)(pool->oh * pool->ow);
    for (int e = 0; e < (int)l->xn; e++) {
        int n = e / (g->c * g->h * g->w), c = e / (g->h * g->w) % g->c, y = e / g->w % g->h, x = e % g->w;
        for (int v = 0; v < 2 * pool->ow; v++) {
            tn_real chain = 0;
            for (int r = 0; r < 2 * pool->oh; r++)
                for (int o = 0; o < l->s.co; o++) {
                    size_t at = ((size_t)n * (size_t)l->s.co + (size_t)o) * windows
                                + (size_t)(r / 2 * pool->ow + v / 2);
                    int i = y + g->ph - r, j = x + g->pw - v;
                    if (l->winner[at] != r % 2 * 2 + v % 2 || slope(l, at) == 0) continue;
                    if (i >= 0 && i < g->kh && j >= 0 && j < g->kw)
                        chain = fused(slope(l, at), l->w[((o * g->c + c) * g->kh + i) * g->kw + j], chain);
                }
            sum[e] += chain;
        }
    }
}

static void want_input(const layer *l, int add, tn_real *gx) {
    const tn_window *g = &l->p.conv.g;
    tn_real *sum = calloc(l->xn + 1, sizeof *sum);
    int rows, run;
    assert_non_null(sum);
    tn_conv_pool_block(&l->p, &rows, &run);
    if (tn_conv_pool_by_columns(&l->p)) add_by_columns(l, sum), rows = g->kh + 1;
    for (int i = 0; i < g->kh && rows <= g->kh; i += rows)
        for (int k = 0; k < g->kw * g->c; k += run) add_block(l, i, rows, k, run, sum);
    for (size_t i = 0; i < l->xn; i++) gx[i] = add ? gx[i] + sum[i] : sum[i];
    free(sum);
}

static void want_bias(const layer *l, int add, double *gb) {
    int windows = l->p.pool.oh * l->p.pool.ow;
    for (int o = 0; o < l->s.co; o++) {
        gb[o] = add ? (double)l->gb[o] : 0;
        for (int n = 0; n < l->s.n; n++)
            for (int q = 0; q < windows; q++)
                gb[o] +=
                    (double)slope(l, ((size_t)n * (size_t)l->s.co + (size_t)o) * (size_t)windows + (size_t)q);
    }
}

static layer new_layer(tn_tape *t, const shape *s, int relu, int special) {
    layer l = {.s = *s, .p.relu = relu};
    tn_conv c = {{1, 1}, {s->ph, s->pw}, {1, 1}, 1, TN_CONV_AUTO};
    l.p.conv =
        tn_conv_shape(t, "test", (int[]){s->n, s->ci, s->h, s->w}, (int[]){s->co, s->ci, s->kh, s->kw}, &c);
    int h = l.p.conv.g.oh, w = l.p.conv.g.ow, oh = h / s->pool_h, ow = w / s->pool_w;
    l.p.pool = (tn_window){s->co, h, w, s->pool_h, s->pool_w, oh, ow, s->pool_h, s->pool_w, 0, 0, 1, 1};
    l.xn = (size_t)(s->n * s->ci * s->h * s->w), l.wn = (size_t)(s->co * s->ci * s->kh * s->kw);
    l.yn = (size_t)(s->n * s->co * oh * ow);
    l.x = reals(l.xn), l.w = reals(l.wn), l.y = reals(l.yn), l.gy = reals(l.yn);
    l.gx = reals(l.xn), l.gw = reals(l.wn), l.gb = reals((size_t)s->co);
    l.winner = malloc(l.yn + 1);
    assert_non_null(l.winner);
    int mostly = draw(0, 3); /* dropout: few zeros, or nearly nothing else */
    for (size_t i = 0; i < l.yn; i++) {
        l.winner[i] = (unsigned char)draw(0, s->pool_h * s->pool_w - 1);
        if (relu && l.y[i] < 0) l.y[i] = 0;
        if (draw(0, 3) < mostly) l.gy[i] = 0;
    }
    for (int i = 0; special && i < 2; i++) {
        tn_real bad = i ? (tn_real)INFINITY : (tn_real)NAN;
        if (special & 1) l.gy[draw(0, (int)l.yn - 1)] = bad;
        if (special & 2) l.y[draw(0, (int)l.yn - 1)] = bad;
        if (special & 4) l.x[draw(0, (int)l.xn - 1)] = bad;
        if (special & 8) l.w[draw(0, (int)l.wn - 1)] = bad;
    }
    return l;
}

static void free_layer(layer *l) {
    free(l->x), free(l->w), free(l->y), free(l->gy), free(l->gx), free(l->gw), free(l->gb), free(l->winner);
}

static void expect(const layer *l, const char *what, size_t n, const tn_real *got, const tn_real *want) {
    const shape *s = &l->s;
    for (size_t i = 0; i < n; i++)
        if (!same(got[i], want[i]))
            fail_msg("%s[%zu]: %.9g, not %.9g; %d images %d x %d x %d, %d filters %d x %d, padding %d %d, "
                     "pool %d %d",
                     what, i, (double)got[i], (double)want[i], s->n, s->ci, s->h, s->w, s->co, s->kh, s->kw,
                     s->ph, s->pw, s->pool_h, s->pool_w);
}

static void check(tn_tape *t, const shape *s, int relu, int special) {
    layer l = new_layer(t, s, relu, special);
    unsigned add = (unsigned)draw(0, 7), need = draw(0, 2) ? 7 : (unsigned)draw(1, 7);
    tn_real *gx = copy(l.gx, l.xn), *gw = copy(l.gw, l.wn), *gb = copy(l.gb, (size_t)s->co), *bias = NULL;
    double *wide = malloc((size_t)s->co * sizeof *wide);
    assert_non_null(wide);
    if (need & 1) want_input(&l, add & 1, gx);
    if (need & 2) want_weights(&l, add >> 1 & 1, gw);
    want_bias(&l, add >> 2 & 1, wide);
    for (int threads = 1; threads <= 4; threads++) {
        tn_real *hx = copy(l.gx, l.xn), *hw = copy(l.gw, l.wn), *hb = copy(l.gb, (size_t)s->co);
        tn_set_threads(threads);
        tn_conv_pool_backward(t, &l.p, l.x, l.w, l.y, l.winner, l.gy, add, need & 1 ? hx : NULL,
                              need & 2 ? hw : NULL, need & 4 ? hb : NULL);
        expect(&l, "gx", l.xn, hx, gx), expect(&l, "gw", l.wn, hw, gw);
        if (bias) expect(&l, "gb of another number of threads", (size_t)s->co, hb, bias);
        for (int o = 0; threads == 1 && need & 4 && o < s->co; o++)
            if (!(fabs((double)hb[o] - wide[o]) <= 1e-5 * (1 + fabs(wide[o])))
                && !same(hb[o], (tn_real)wide[o]))
                fail_msg("gb[%d]: %.9g, not %.9g", o, (double)hb[o], wide[o]);
        if (!bias) bias = copy(hb, (size_t)s->co);
        free(hx), free(hw), free(hb);
    }
    free(gx), free(gw), free(gb), free(bias), free(wide), free_layer(&l);
    tn_set_threads(0), tn_tape_reset(t);
}

static void known_shapes(void **unused) {
    (void)unused;
    tn_tape *t = tn_tape_new(NULL);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) check(t, &shapes[i], (int)i & 1, 0);
    tn_tape_free(t);
}

static void odd_shapes(void **unused) {
    (void)unused;
    tn_tape *t = tn_tape_new(NULL);
    for (int i = 0; i < 150; i++) {
        shape s = {.n = draw(1, 5), .ci = draw(1, 9), .co = draw(1, 70), .kh = draw(1, 7), .kw = draw(1, 7)};
        if (draw(0, 2) == 0) s.co = draw(1, 16);
        if (draw(0, 9) == 0) s.n = draw(15, 35), s.co = 3;
        s.pool_h = draw(1, 3), s.pool_w = draw(1, 3);
        if (draw(0, 2) == 0)
            s.kh = s.kw = draw(1, 2) * 2 + 1, s.pool_h = s.pool_w = 2,
            s.co = draw(1, 64); /* by columns, if ci fits */
        s.ph = draw(0, s.kh - 1), s.pw = draw(0, s.kw - 1);
        int least_h = s.kh + s.pool_h - 1 - 2 * s.ph, least_w = s.kw + s.pool_w - 1 - 2 * s.pw;
        s.h = (least_h < 1 ? 1 : least_h) + draw(0, 8), s.w = (least_w < 1 ? 1 : least_w) + draw(0, 20);
        check(t, &s, draw(0, 1), i < 100 ? 0 : draw(1, 15));
    }
    tn_tape_free(t);
}

/*
 * Wherever a block of the tape's memory ends, nothing beyond it is read: for the address sanitizer, which sees it. Before
 * there are other threads, whose room would not fit into the first block.
 */
static void ends_of_memory(void **unused) {
    (void)unused;
    enum { BLOCK = 1 << 17, LINE = 64 };
    /* 272 windows; the second band begins with the 256th of them */
    const shape s = {1, 6, 34, 36, 3, 3, 3, 0, 0, 2, 2};
    tn_tape *t = tn_tape_new(NULL);
    layer l = new_layer(t, &s, 1, 0);
    tn_set_threads(1);
    for (size_t taken = LINE; taken < BLOCK; taken += LINE) {
        tn_tape *of_its_own = tn_tape_new(NULL);
        const tn_place begin = tn_mark(of_its_own);
        tn_scratch(of_its_own, BLOCK), tn_rewind(of_its_own, begin); /* the first block, of this size */
        tn_scratch(of_its_own, taken);
        tn_conv_pool_backward(of_its_own, &l.p, l.x, l.w, l.y, l.winner, l.gy, 0, NULL, l.gw, NULL);
        tn_tape_free(of_its_own);
    }
    tn_set_threads(0);
    free_layer(&l), tn_tape_free(t);
}

static int run(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(ends_of_memory), cmocka_unit_test(known_shapes),
                                       cmocka_unit_test(odd_shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void) {
    return run_at_every_level(run);
}

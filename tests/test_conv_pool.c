/* SPDX-License-Identifier: MIT */
/*
 * The gradients of convolution + ReLU + max pooling, and of a first convolution, against their definition in double: over
 * sizes with every kind of edge, with gradients that are zero, added to what is there, for 1 to 4 threads; the kernels
 * bit for bit at every vector level; NaN.
 */
#include "support.h"
#include "conv_pool.h"
#include "kernels/kernels.h"
#include "tern.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 11;
static double uniform(void) {
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1;
}

static void *room(size_t bytes) {
    void *p = calloc(bytes + 1, 1);
    assert_non_null(p);
    return p;
}

static tn_real *reals(size_t n) {
    tn_real *x = room(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = (tn_real)uniform();
    return x;
}

typedef struct {
    int n, ci, co, h, w, kh, kw, ph, pw, pool_h, pool_w, relu;
} size;

/* A layer with made-up winners: backward must believe them. */
typedef struct {
    tn_conv_pool_plan p;
    tn_real *x, *w, *y, *gy;
    unsigned char *winner;
    size_t nx, nw, ny;
} layer;

static layer new_layer(tn_tape *t, const size *s) {
    const tn_conv c = {{1, 1}, {s->ph, s->pw}, {1, 1}, 1, TN_CONV_AUTO};
    layer l = {.p = {.conv = tn_conv_shape(t, "test", (int[]){s->n, s->ci, s->h, s->w},
                                           (int[]){s->co, s->ci, s->kh, s->kw}, &c),
                     .relu = s->relu}};
    const tn_window *g = &l.p.conv.g;
    l.p.pool = (tn_window){
        s->co,     g->oh, g->ow, s->pool_h, s->pool_w, g->oh / s->pool_h, g->ow / s->pool_w, s->pool_h,
        s->pool_w, 0,     0,     1,         1};
    l.nx = (size_t)(s->n * s->ci * s->h * s->w), l.nw = (size_t)(s->co * s->ci * s->kh * s->kw);
    l.ny = (size_t)(s->n * s->co * l.p.pool.oh * l.p.pool.ow);
    l.x = reals(l.nx), l.w = reals(l.nw), l.y = reals(l.ny), l.gy = reals(l.ny), l.winner = room(l.ny);
    for (size_t i = 0; i < l.ny; i++) {
        l.winner[i] = (unsigned char)((uniform() + 1) / 2 * s->pool_h * s->pool_w);
        if (s->relu && l.y[i] < 0) l.y[i] = 0;
        if (uniform() < -0.5) l.gy[i] = 0;
    }
    return l;
}

static void free_layer(layer *l) {
    free(l->x), free(l->w), free(l->y), free(l->gy), free(l->winner);
}

/* d sum(gy y) by the definition, into gx, gw, gb. */
static void by_definition(const layer *l, double *gx, double *gw, double *gb) {
    const tn_window *g = &l->p.conv.g, *q = &l->p.pool;
    size_t at = 0;
    for (int n = 0; n < l->p.conv.n; n++)
        for (int o = 0; o < q->c; o++)
            for (int r = 0; r < q->oh; r++)
                for (int c = 0; c < q->ow; c++, at++) {
                    double v = l->p.relu && !(l->y[at] > 0) ? 0 : (double)l->gy[at];
                    int row = r * q->kh + l->winner[at] / q->kw, col = c * q->kw + l->winner[at] % q->kw;
                    gb[o] += v;
                    for (int i = 0; i < g->c; i++)
                        for (int a = 0; a < g->kh; a++)
                            for (int b = 0; b < g->kw; b++) {
                                int y = row + a - g->ph, x = col + b - g->pw;
                                if (y < 0 || x < 0 || y >= g->h || x >= g->w) continue;
                                size_t ix = (size_t)(((n * g->c + i) * g->h + y) * g->w + x);
                                size_t iw = (size_t)(((o * g->c + i) * g->kh + a) * g->kw + b);
                                gx[ix] += v * (double)l->w[iw], gw[iw] += v * (double)l->x[ix];
                            }
                }
}

static void assert_close(const char *what, const tn_real *got, const double *want, size_t n, double was) {
    double worst = 0, most = 1e-3;
    for (size_t i = 0; i < n; i++) {
        worst = fmax(worst, fabs((double)got[i] - was - want[i])), most = fmax(most, fabs(want[i]));
        if (isnan(got[i])) worst = INFINITY;
    }
    if (!(worst <= 2e-5 * most)) fail_msg("%s: off by %g of %g", what, worst, most);
}

static const size sizes[] = {
    {3, 6, 16, 14, 14, 5, 5, 0, 0, 2, 2, 1},  {2, 1, 6, 28, 28, 5, 5, 2, 2, 2, 2, 1},
    {2, 32, 64, 26, 26, 3, 3, 0, 0, 2, 2, 1}, {5, 3, 7, 9, 11, 3, 4, 1, 2, 3, 2, 1},
    {1, 17, 5, 6, 7, 1, 1, 0, 0, 1, 1, 0},    {2, 2, 33, 13, 8, 7, 2, 3, 0, 2, 3, 1},
    {1, 40, 3, 8, 8, 6, 6, 0, 0, 1, 3, 0},    {18, 4, 9, 7, 5, 3, 3, 1, 1, 5, 4, 1},
    {1, 1, 1, 3, 3, 3, 3, 0, 0, 1, 1, 1},     {2, 5, 70, 10, 10, 2, 5, 0, 4, 2, 2, 1},
    {1, 3, 4, 20, 20, 3, 3, 1, 1, 16, 16, 0}, {3, 1, 5, 26, 20, 4, 3, 1, 1, 2, 2, 1},
};

static void against_definition(void **state) {
    tn_tape *t = tn_tape_new(NULL);
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (unsigned add = 0; add < 8; add += 7) {
            layer l = new_layer(t, &sizes[i]);
            size_t co = (size_t)sizes[i].co;
            double *gx = room(l.nx * sizeof *gx), *gw = room(l.nw * sizeof *gw), *gb = room(co * sizeof *gb);
            tn_real *dx = room(l.nx * sizeof *dx), *dw = room(l.nw * sizeof *dw), *db = room(co * sizeof *db);
            double was = add ? 0.5 : 0;
            for (size_t k = 0; k < l.nx; k++) dx[k] = (tn_real)(add ? 0.5 : NAN);
            for (size_t k = 0; k < l.nw; k++) dw[k] = (tn_real)(add ? 0.5 : NAN);
            for (size_t k = 0; k < co; k++) db[k] = (tn_real)(add ? 0.5 : NAN);
            by_definition(&l, gx, gw, gb);
            tn_conv_pool_backward(t, &l.p, l.x, l.w, l.y, l.winner, l.gy, add, dx, dw, db);
            assert_close("gx", dx, gx, l.nx, was), assert_close("gw", dw, gw, l.nw, was);
            assert_close("gb", db, gb, co, was);
            free(gx), free(gw), free(gb), free(dx), free(dw), free(db), free_layer(&l);
        }
    tn_tape_free(t);
}

static void any_threads(void **state) {
    tn_tape *t = tn_tape_new(NULL);
    (void)state;
    for (size_t i = 0; i < 4; i++) {
        layer l = new_layer(t, &sizes[i]);
        size_t co = (size_t)sizes[i].co, n = l.nx + l.nw + co;
        tn_real *one = room(n * sizeof *one), *many = room(n * sizeof *many);
        for (int threads = 1; threads <= 4; threads++) {
            tn_real *out = threads == 1 ? one : many;
            tn_set_threads(threads);
            tn_conv_pool_backward(t, &l.p, l.x, l.w, l.y, l.winner, l.gy, 0, out, out + l.nx,
                                  out + l.nx + l.nw);
            assert_true(same_bits(one, out, n));
        }
        free(one), free(many), free_layer(&l);
    }
    tn_set_threads(1);
    tn_tape_free(t);
}

static void nan_passes(void **state) {
    tn_tape *t = tn_tape_new(NULL);
    (void)state;
    layer l = new_layer(t, &sizes[0]);
    tn_real *dx = room(l.nx * sizeof *dx), *dw = room(l.nw * sizeof *dw), db[16];
    l.gy[30] = (tn_real)NAN, l.y[30] = 1; /* image 0, channel 1, second row, first column: 14 x 14 input */
    tn_conv_pool_backward(t, &l.p, l.x, l.w, l.y, l.winner, l.gy, 0, dx, dw, db);
    int row = 2 + l.winner[30] / 2, col = l.winner[30] % 2;
    for (int c = 0; c < 6; c++)
        for (int y = 0; y < 14; y++)
            for (int x = 0; x < 14; x++) {
                int inside = y >= row && y < row + 5 && x >= col && x < col + 5;
                assert_true((isnan(dx[(c * 14 + y) * 14 + x]) != 0) == inside); /* and nowhere else */
            }
    for (int o = 0; o < 16; o++) {
        assert_true((isnan(db[o]) != 0) == (o == 1));
        for (int k = 0; k < 150; k++) assert_true((isnan(dw[o * 150 + k]) != 0) == (o == 1));
    }
    free(dx), free(dw), free_layer(&l);
    tn_tape_free(t);
}

/* ---- a first convolution, without pooling ---- */

static void planes(void **state) {
    static const size first[] = {{2, 1, 32, 28, 28, 3, 3, 0, 0, 1, 1, 1},
                                 {3, 1, 6, 28, 28, 5, 5, 2, 2, 1, 1, 1},
                                 {1, 3, 5, 9, 11, 2, 4, 1, 3, 1, 1, 0},
                                 {17, 2, 3, 8, 12, 5, 5, 0, 2, 1, 1, 1},
                                 {1, 1, 1, 8, 8, 1, 1, 0, 0, 1, 1, 0}};
    tn_tape *t = tn_tape_new(NULL);
    (void)state;
    for (size_t i = 0; i < sizeof first / sizeof *first; i++)
        for (unsigned add = 0; add < 4; add += 3) {
            layer l = new_layer(t, &first[i]);
            if (!tn_conv_planes_fit(&l.p.conv)) { /* products are OpenBLAS's */
                free_layer(&l), tn_tape_free(t);
                skip();
            }
            size_t co = (size_t)first[i].co;
            double *gx = room(l.nx * sizeof *gx), *gw = room(l.nw * sizeof *gw), *gb = room(co * sizeof *gb);
            tn_real *one = room((l.nw + co) * sizeof *one), *got = room((l.nw + co) * sizeof *got);
            by_definition(&l, gx, gw, gb);
            for (int threads = 1; threads <= 4; threads++) {
                tn_real *out = threads == 1 ? one : got;
                for (size_t k = 0; k < l.nw + co; k++) out[k] = (tn_real)(add ? 0.5 : NAN);
                tn_set_threads(threads);
                tn_conv_planes_grad(t, &l.p.conv, l.x, l.gy, l.p.relu ? l.y : NULL, add, out, out + l.nw);
                assert_true(same_bits(one, out, l.nw + co));
            }
            assert_close("gw", one, gw, l.nw, add ? 0.5 : 0),
                assert_close("gb", one + l.nw, gb, co, add ? 0.5 : 0);
            free(gx), free(gw), free(gb), free(one), free(got), free_layer(&l);
        }
    tn_set_threads(1);
    tn_tape_free(t);
}

/* ---- kernels at every level ---- */

static const tn_kernels_t *levels[8];
static int level_count;

static void masks_at_every_level(void **state) {
    enum { N = 77, PITCH = 11, ROWS = 7 };
    tn_real *x = reals(N + 32), *place = room((N + 32) * sizeof *place);
    (void)state;
    for (int i = 0; i < N + 32; i++) place[i] = (tn_real)(i % 4);
    x[13] = (tn_real)NAN, x[14] = (tn_real)INFINITY;
    for (int cols = 1; cols <= PITCH; cols++)
        for (int l = 0; l < level_count; l++) {
            tn_real plane[ROWS * PITCH + 32];
            levels[l]->planes_gradient(ROWS, cols, x, place, plane, PITCH);
            for (int r = 0; r < ROWS; r++)
                for (int c = 0; c < PITCH; c++) {
                    tn_real v = plane[r * PITCH + c], gy = x[r * cols + c];
                    tn_real should = c >= cols ? 0 : isnan(gy) ? gy : place[r * cols + c] > 0 ? gy : 0;
                    assert_true(v == should || (isnan(v) && isnan(should)));
                }
        }
    free(x), free(place);
}

static void dropout_at_every_level(void **state) {
    enum { N = 53 };
    tn_real *x = reals(N), want[N], got[N];
    (void)state;
    for (size_t n = 0; n <= N; n++)
        for (int l = 0; l < level_count; l++) {
            levels[0]->dropout(n, 99, 1u << 30, 2, x, want);
            levels[l]->dropout(n, 99, 1u << 30, 2, x, got);
            assert_memory_equal(got, want, n * sizeof *got);
        }
    free(x);
}

int main(void) {
    static const char *const names[] = {"plain", "avx2", "avx512", "neon"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const tn_kernels_t *k = tn_kernels_level(names[i]);
        if (k) levels[level_count++] = k;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_definition),   cmocka_unit_test(any_threads),
        cmocka_unit_test(nan_passes),           cmocka_unit_test(planes),
        cmocka_unit_test(masks_at_every_level), cmocka_unit_test(dropout_at_every_level),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

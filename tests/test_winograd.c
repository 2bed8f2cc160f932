/* SPDX-License-Identifier: MIT */
/*
 * Winograd's convolution at every vector level: against the definition in double, bit for bit against the plain level, with
 * bias, ReLU and pooling, over sizes with every kind of edge; NaN and infinity.
 */
#include "support.h"
#include "conv_winograd.h"
#include "conv_winograd_rows.h"
#include "tern.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static uint64_t seed = 3;
static tn_real uniform(void) {
    uint64_t z = seed += 0x9e3779b97f4a7c15u;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return (tn_real)((double)((z ^ (z >> 31)) >> 11) * 0x1p-52 - 1);
}

static tn_real *random_reals(size_t n) {
    tn_real *x = malloc(n * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = uniform();
    return x;
}

/* Room of n reals on a cache line; scratch begins full of NaN, so that what is read before it is written shows. */
static tn_real *room(size_t n) {
    tn_real *x = aligned_alloc(64, (n * sizeof *x + 63) / 64 * 64);
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) x[i] = (tn_real)NAN;
    return x;
}

typedef struct {
    tn_conv_plan p;
    tn_real *x, *w, *bias;
} layer;

static layer new_layer(tn_tape *t, int ci, int co, int h, int w, int pad) {
    const tn_conv c = {{1, 1}, {pad, pad}, {1, 1}, 1, TN_CONV_AUTO};
    layer l = {.p = tn_conv_shape(t, "test", (int[]){1, ci, h, w}, (int[]){co, ci, 3, 3}, &c)};
    l.x = random_reals((size_t)(ci * h * w)), l.w = random_reals((size_t)(co * ci * 9));
    l.bias = random_reals((size_t)co);
    return l;
}

static void free_layer(layer *l) {
    free(l->x), free(l->w), free(l->bias);
}

static tn_real fused(tn_real a, tn_real b, tn_real c) {
#ifdef TN_DOUBLE
    return fma(a, b, c);
#else
    return fmaf(a, b, c);
#endif
}

/* The convolution's value before bias, in double. */
static double value_at(const layer *l, int o, int row, int col) {
    const tn_window *g = &l->p.g;
    double sum = 0;
    for (int c = 0; c < g->c; c++)
        for (int i = 0; i < 3; i++)
            for (int j = 0; j < 3; j++) {
                int y = row + i - g->ph, x = col + j - g->pw;
                if (y < 0 || x < 0 || y >= g->h || x >= g->w) continue;
                sum +=
                    (double)l->x[(c * g->h + y) * g->w + x] * (double)l->w[((o * g->c + c) * 3 + i) * 3 + j];
            }
    return sum;
}

typedef struct {
    tn_real *y;
    unsigned char *winner;
    size_t n;
} result;

static result run(const tn_kernels_t *k, const layer *l, int bias, int relu, int pool) {
    const tn_window *g = &l->p.g;
    result r = {.n = (size_t)(l->p.co * (pool ? g->oh / 2 * (g->ow / 2) : g->oh * g->ow))};
    tn_real *u = room(tn_winograd_u_len(k, l->p.co, g->c)), *scratch = room(tn_winograd_scratch(k, &l->p));
    r.y = room(r.n), r.winner = calloc(r.n + 1, 1);
    tn_winograd_weights(k, l->p.co, g->c, l->w, u);
    tn_winograd_image(k, &l->p, l->x, l->w, u, bias ? l->bias : NULL, relu, pool, r.y, r.winner, scratch);
    free(u), free(scratch);
    return r;
}

static void free_result(result *r) {
    free(r->y), free(r->winner);
}

static const tn_kernels_t *levels[8];
static int level_count;
static void find_levels(void) {
    static const char *const names[] = {"plain", "avx2", "avx512", "neon"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        const tn_kernels_t *k = tn_kernels_level(names[i]);
        if (k) levels[level_count++] = k;
    }
}

static void same_as_plain(const layer *l, int bias, int relu, int pool) {
    result plain = run(levels[0], l, bias, relu, pool);
    for (int i = 1; i < level_count; i++) {
        result r = run(levels[i], l, bias, relu, pool);
        for (size_t j = 0; j < r.n; j++)
            if (memcmp(&r.y[j], &plain.y[j], sizeof *r.y) != 0 && !(isnan(r.y[j]) && isnan(plain.y[j])))
                fail_msg("%s: element %zu is %a, not %a", levels[i]->name, j, (double)r.y[j],
                         (double)plain.y[j]);
        if (pool) assert_memory_equal(r.winner, plain.winner, r.n);
        free_result(&r);
    }
    free_result(&plain);
}

/* Within 1e-5 of the largest output; a winner is the first whose value is the largest that was computed. */
static void close_to_definition(const layer *l) {
    const tn_window *g = &l->p.g;
    result whole = run(levels[level_count - 1], l, 1, 0, 0),
           pooled = run(levels[level_count - 1], l, 1, 1, 1);
    double worst = 0, largest = 0;
    for (int o = 0; o < l->p.co; o++)
        for (int r = 0; r < g->oh; r++)
            for (int c = 0; c < g->ow; c++) {
                double want = value_at(l, o, r, c) + (double)l->bias[o];
                double got = (double)whole.y[(o * g->oh + r) * g->ow + c];
                worst = fmax(worst, fabs(got - want)), largest = fmax(largest, fabs(want));
            }
    if (!(worst <= 1e-5 * largest)) fail_msg("error %g of the largest output", worst / largest);
    int ph = g->oh / 2, pw = g->ow / 2;
    for (int o = 0; o < l->p.co; o++)
        for (int r = 0; r < ph; r++)
            for (int c = 0; c < pw; c++) {
                const tn_real *z = whole.y + (o * g->oh + 2 * r) * g->ow + 2 * c;
                const tn_real window[4] = {z[0], z[1], z[g->ow], z[g->ow + 1]};
                size_t at = (size_t)((o * ph + r) * pw + c);
                int best = 0;
                for (int i = 1; i < 4; i++)
                    if (window[i] > window[best]) best = i;
                assert_true(window[pooled.winner[at]] == window[best]);
                assert_true(pooled.y[at] == (window[best] > 0 ? window[best] : 0));
            }
    free_result(&whole), free_result(&pooled);
}

static void sizes(void **state) {
    static const struct {
        int ci, co, h, w, pad;
    } shape[] = {{32, 64, 26, 26, 0}, {8, 8, 8, 8, 0},     {8, 9, 8, 9, 0},
                 {9, 8, 11, 10, 1},   {17, 33, 13, 7, 1},  {16, 16, 6, 6, 1},
                 {31, 15, 14, 9, 2},  {33, 70, 12, 12, 1}, {8, 100, 30, 21, 0}};
    tn_tape *t = tn_tape_new(NULL);
    (void)state;
    for (size_t i = 0; i < sizeof shape / sizeof *shape; i++) {
        layer l = new_layer(t, shape[i].ci, shape[i].co, shape[i].h, shape[i].w, shape[i].pad);
        close_to_definition(&l);
        for (int bias = 0; bias < 2; bias++)
            for (int relu = 0; relu < 2; relu++)
                for (int pool = 0; pool < 2; pool++) same_as_plain(&l, bias, relu, pool);
        free_layer(&l);
    }
    tn_tape_free(t);
}

/* The output by its definition: one chain of fused multiply-adds in the order of the weights, then bias and ReLU. */
static tn_real direct_at(const layer *l, int o, int row, int col) {
    const tn_window *g = &l->p.g;
    tn_real sum = 0;
    for (int p = 0; p < g->c * 9; p++) {
        const int c = p / 9, y = row + p / 3 % 3 - g->ph, x = col + p % 3 - g->pw;
        const int inside = y >= 0 && x >= 0 && y < g->h && x < g->w;
        sum = fused(inside ? l->x[(c * g->h + y) * g->w + x] : 0, l->w[o * g->c * 9 + p], sum);
    }
    sum += l->bias[o];
    return sum < 0 ? 0 : sum;
}

/* Both the same number that is not finite, or both finite and close. */
static void check_close(const char *level, size_t at, tn_real got, tn_real want) {
    const int same = isnan(want)   ? isnan(got)
                     : isinf(want) ? got == want
                                   : fabs((double)got - (double)want) <= 1e-4 * fmax(1, fabs((double)want));
    if (!same) fail_msg("%s: element %zu is %g, not %g", level, at, (double)got, (double)want);
}

/*
 * Where a tile reads NaN, infinity or what overflows in the transform, its outputs are the definition's: only windows that
 * hold an infinite pixel are infinite, and not NaN, and pooling takes what is larger, or the first NaN.
 */
static void like_definition(const tn_kernels_t *k, const layer *l) {
    const tn_window *g = &l->p.g;
    const int ph = g->oh / 2, pw = g->ow / 2;
    result whole = run(k, l, 1, 1, 0), pooled = run(k, l, 1, 1, 1);
    for (int o = 0; o < l->p.co; o++) {
        for (int i = 0; i < g->oh * g->ow; i++) {
            const size_t at = (size_t)(o * g->oh * g->ow + i);
            check_close(k->name, at, whole.y[at], direct_at(l, o, i / g->ow, i % g->ow));
        }
        for (int i = 0; i < ph * pw; i++) {
            const size_t at = (size_t)(o * ph * pw + i);
            tn_real best = 0;
            for (int q = 0; q < 4; q++) {
                const tn_real v = direct_at(l, o, 2 * (i / pw) + q / 2, 2 * (i % pw) + q % 2);
                if (q == 0 || (!isnan(best) && !(v <= best))) best = v;
            }
            check_close(k->name, at, pooled.y[at], best);
        }
    }
    free_result(&whole), free_result(&pooled);
}

static void not_finite(void **state) {
    tn_tape *t = tn_tape_new(NULL);
    (void)state;
    const tn_real odd[] = {(tn_real)NAN, (tn_real)INFINITY, (tn_real)-INFINITY, (tn_real)2e38};
    for (size_t i = 0; i < sizeof odd / sizeof *odd; i++)
        for (int two = 0; two < 2; two++) {
            layer l = new_layer(t, 17, 19, 12, 11, 1);
            l.x[(5 * 12 + 6) * 11 + 4] = odd[i];
            if (two) l.x[(3 * 12 + 7) * 11 + 5] = -odd[i], l.x[11 * 11 + 10] = odd[i];
            same_as_plain(&l, 1, 1, 0), same_as_plain(&l, 1, 1, 1);
            for (int k = 0; k < level_count; k++) like_definition(levels[k], &l);
            free_layer(&l);
        }
    layer l = new_layer(t, 9, 20, 12, 11, 0); /* a weight, of one channel */
    l.w[(17 * 9 + 4) * 9 + 4] = (tn_real)INFINITY;
    same_as_plain(&l, 1, 1, 0), same_as_plain(&l, 1, 1, 1);
    for (int k = 0; k < level_count; k++) like_definition(levels[k], &l);
    free_layer(&l);
    tn_tape_free(t);
}

/* ---- 5 x 5 with pooling, by rows ---- */

typedef struct {
    int ci, co, h, w; /* h, w: with what padding there is */
} rows_shape;

typedef struct {
    tn_real *x, *w, *bias;
} rows_data;

/* One image at one level; y and the winners' places (co, down, across). */
static void rows_run(const tn_kernels_t *k, const rows_shape *s, const rows_data *d, int bias, int relu,
                     tn_real *y, tn_real *place) {
    enum { TERMS = 25 };
    tn_winograd_rows j = {.k = k, .ci = s->ci, .relu = relu, .row = s->w, .plane = s->h * s->w};
    j.panel = (s->co > k->width ? 2 : 1) * k->width, j.ld = (s->co + j.panel - 1) / j.panel * j.panel;
    j.down = (s->h - 4) / 2, j.across = (s->w - 4) / 2;
    const size_t n = (size_t)(j.down * j.across * j.ld), terms = (size_t)(s->ci * TERMS);
    tn_real *panels = room((size_t)j.ld * terms), *u = room((size_t)j.ld * terms / 5 * 6),
            *filled = room((size_t)j.ld);
    tn_real *out = room(n), *places = room(n), *scratch = room(tn_winograd_rows_scratch(&j));
    int *off = malloc(terms * sizeof *off);
    assert_non_null(off);
    for (int o = 0; o < j.ld; o++) {
        filled[o] = o < s->co ? d->bias[o] : 0;
        for (size_t t = 0; t < terms; t++)
            panels[(size_t)(o / j.panel * j.panel) * terms + t * (size_t)j.panel + (size_t)(o % j.panel)] =
                o < s->co ? d->w[(size_t)o * terms + t] : 0;
    }
    tn_winograd_rows_weights(&j, panels, u);
    tn_winograd_rows_terms(&j, off);
    j.u = u, j.off = off, j.bias = bias ? filled : NULL;
    tn_winograd_rows_image(&j, d->x, out, places, scratch);
    for (int q = 0; q < j.down * j.across; q++)
        for (int o = 0; o < s->co; o++) {
            y[o * j.down * j.across + q] = out[q * j.ld + o];
            place[o * j.down * j.across + q] = places[q * j.ld + o];
        }
    free(panels), free(u), free(filled), free(out), free(places), free(scratch), free(off);
}

/* The value of the largest of a window, in double, and whether `place` holds one that is as good as the largest. */
static void rows_close(const rows_shape *s, const rows_data *d, const tn_real *y, const tn_real *place) {
    const int down = (s->h - 4) / 2, across = (s->w - 4) / 2;
    double worst = 0, largest = 0;
    for (int o = 0; o < s->co; o++)
        for (int q = 0; q < down * across; q++) {
            double best = -INFINITY, at_place = 0;
            for (int i = 0; i < 4; i++) {
                double sum = (double)d->bias[o];
                const int row = 2 * (q / across) + i / 2, col = 2 * (q % across) + i % 2;
                for (int t = 0; t < s->ci * 25; t++)
                    sum += (double)d->w[o * s->ci * 25 + t]
                           * (double)d->x[(t / 25 * s->h + row + t % 25 / 5) * s->w + col + t % 5];
                best = fmax(best, sum), largest = fmax(largest, fabs(sum));
                if (i == (int)place[o * down * across + q]) at_place = sum;
            }
            worst = fmax(worst, fabs(best - (double)y[o * down * across + q]));
            worst = fmax(worst, fabs(best - at_place));
        }
    if (!(worst <= 1e-5 * largest)) fail_msg("rows: error %g of the largest output", worst / largest);
}

/* Every level gives the plain level's bits; NaN and infinity at the last pixel and inside too. */
static void rows(void **state) {
    static const rows_shape shapes[] = {{6, 16, 14, 14}, {2, 12, 6, 6},   {3, 17, 9, 33},
                                        {9, 33, 11, 7},  {1, 40, 20, 36}, {2, 70, 8, 21}};
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int way = 0; way < 6; way++) {
            const rows_shape *s = &shapes[i];
            const size_t pixels = (size_t)(s->ci * s->h * s->w),
                         n = (size_t)(s->co * ((s->h - 4) / 2) * ((s->w - 4) / 2));
            rows_data d = {random_reals(pixels), random_reals((size_t)(s->co * s->ci * 25)),
                           random_reals((size_t)s->co)};
            if (way > 3) d.x[pixels - 1] = (tn_real)NAN, d.x[pixels / 2] = (tn_real)(way > 4 ? INFINITY : 0);
            tn_real *y = room(n), *place = room(n), *other = room(n), *elsewhere = room(n);
            rows_run(levels[0], s, &d, way & 1, way & 2, y, place);
            if (way == 1) rows_close(s, &d, y, place);
            for (int l = 1; l < level_count; l++) {
                rows_run(levels[l], s, &d, way & 1, way & 2, other, elsewhere);
                for (size_t a = 0; a < n; a++)
                    if ((memcmp(&y[a], &other[a], sizeof *y) != 0 && !(isnan(y[a]) && isnan(other[a])))
                        || place[a] != elsewhere[a])
                        fail_msg("%s: shape %zu, element %zu is %a at %g, not %a at %g", levels[l]->name, i,
                                 a, (double)other[a], (double)elsewhere[a], (double)y[a], (double)place[a]);
            }
            if (way > 3) assert_true(s->h % 2 || s->w % 2 || isnan(y[n - 1]));
            free(d.x), free(d.w), free(d.bias), free(y), free(place), free(other), free(elsewhere);
        }
}

int main(void) {
    find_levels();
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(not_finite),
                                       cmocka_unit_test(rows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Winograd's 3 x 3 convolution at every vector level: against the definition in double, bit for bit against the plain level, with
 * bias, ReLU and pooling, over sizes with every kind of edge; NaN and infinity.
 */
#include "kernel_levels.h"
#include "conv_winograd.h"
#include "tern.h"

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
    tn_real *u = aligned_room(tn_winograd_u_len(k, l->p.co, g->c)),
            *scratch = aligned_room(tn_winograd_scratch(k, &l->p));
    r.y = aligned_room(r.n), r.winner = calloc(r.n + 1, 1);
    tn_winograd_weights(k, l->p.co, g->c, l->w, u);
    tn_winograd_image(k, &l->p, l->x, l->w, u, bias ? l->bias : NULL, relu, pool, r.y, r.winner, scratch);
    free(u), free(scratch);
    return r;
}

static void free_result(result *r) {
    free(r->y), free(r->winner);
}

static void same_as_plain(const layer *l, int bias, int relu, int pool) {
    result plain = run(level[0], l, bias, relu, pool);
    for (int i = 1; i < levels; i++) {
        result r = run(level[i], l, bias, relu, pool);
        for (size_t j = 0; j < r.n; j++)
            if (memcmp(&r.y[j], &plain.y[j], sizeof *r.y) != 0 && !(isnan(r.y[j]) && isnan(plain.y[j])))
                fail_msg("%s: element %zu is %a, not %a", level[i]->name, j, (double)r.y[j],
                         (double)plain.y[j]);
        if (pool) assert_memory_equal(r.winner, plain.winner, r.n);
        free_result(&r);
    }
    free_result(&plain);
}

/* Within 1e-5 of the largest output; a winner is the first whose value is the largest that was computed. */
static void close_to_definition(const layer *l) {
    const tn_window *g = &l->p.g;
    result whole = run(level[levels - 1], l, 1, 0, 0), pooled = run(level[levels - 1], l, 1, 1, 1);
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
        sum = FMA(inside ? l->x[(c * g->h + y) * g->w + x] : 0, l->w[o * g->c * 9 + p], sum);
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
            for (int k = 0; k < levels; k++) like_definition(level[k], &l);
            free_layer(&l);
        }
    layer l = new_layer(t, 9, 20, 12, 11, 0); /* a weight, of one channel */
    l.w[(17 * 9 + 4) * 9 + 4] = (tn_real)INFINITY;
    same_as_plain(&l, 1, 1, 0), same_as_plain(&l, 1, 1, 1);
    for (int k = 0; k < levels; k++) like_definition(level[k], &l);
    free_layer(&l);
    tn_tape_free(t);
}

int main(void) {
    find_levels();
    const struct CMUnitTest tests[] = {cmocka_unit_test(sizes), cmocka_unit_test(not_finite)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * 5 x 5 convolution with 2 x 2 pooling by Winograd's row transform, at every vector level: against the definition in double,
 * bit for bit against the plain level, over sizes with every kind of edge; and what is not finite, or overflows in the
 * transform alone, bit for bit against direct sums.
 */
#include "kernel_levels.h"
#include "conv_pool.h"
#include "conv_winograd_rows.h"
#include "tern.h"

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
    tn_real *panels = aligned_room((size_t)j.ld * terms), *u = aligned_room((size_t)j.ld * terms / 5 * 6),
            *filled = aligned_room((size_t)j.ld);
    tn_real *out = aligned_room(n), *places = aligned_room(n),
            *scratch = aligned_room(tn_winograd_rows_scratch(&j));
    int *off = malloc(terms / 5 * 6 * sizeof *off);
    assert_non_null(off);
    for (int o = 0; o < j.ld; o++) {
        filled[o] = o < s->co ? d->bias[o] : 0;
        for (size_t t = 0; t < terms; t++)
            panels[(size_t)(o / j.panel * j.panel) * terms + t * (size_t)j.panel + (size_t)(o % j.panel)] =
                o < s->co ? d->w[(size_t)o * terms + t] : 0;
    }
    j.w = panels;
    tn_winograd_rows_weights(&j, u);
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
            tn_real *y = aligned_room(n), *place = aligned_room(n), *other = aligned_room(n),
                    *elsewhere = aligned_room(n);
            rows_run(level[0], s, &d, way & 1, way & 2, y, place);
            if (way == 1) rows_close(s, &d, y, place);
            for (int l = 1; l < levels; l++) {
                rows_run(level[l], s, &d, way & 1, way & 2, other, elsewhere);
                for (size_t a = 0; a < n; a++)
                    if ((memcmp(&y[a], &other[a], sizeof *y) != 0 && !(isnan(y[a]) && isnan(other[a])))
                        || place[a] != elsewhere[a])
                        fail_msg("%s: shape %zu, element %zu is %a at %g, not %a at %g", level[l]->name, i, a,
                                 (double)other[a], (double)elsewhere[a], (double)y[a], (double)place[a]);
            }
            if (way > 3) assert_true(s->h % 2 || s->w % 2 || isnan(y[n - 1]));
            free(d.x), free(d.w), free(d.bias), free(y), free(place), free(other), free(elsewhere);
        }
}

/* ---- not finite ---- */

/* By definition: chains of fused multiply-adds in the order of the weights, bias, ReLU; the first largest, or first NaN. */
static void rows_direct(const rows_shape *s, const rows_data *d, int relu, tn_real *y, tn_real *place) {
    const int down = (s->h - 4) / 2, across = (s->w - 4) / 2, terms = s->ci * 25;
    for (int o = 0; o < s->co; o++)
        for (int q = 0; q < down * across; q++, y++, place++)
            for (int i = 0; i < 4; i++) {
                const int row = 2 * (q / across) + i / 2, col = 2 * (q % across) + i % 2;
                tn_real sum = 0;
                for (int t = 0; t < terms; t++)
                    sum = FMA(d->x[(t / 25 * s->h + row + t % 25 / 5) * s->w + col + t % 5],
                              d->w[o * terms + t], sum);
                sum += d->bias[o];
                if (relu && sum < 0) sum = 0;
                if (i == 0 || (!isnan(*y) && !(sum <= *y))) *y = sum, *place = (tn_real)i;
            }
}

/* Written over one pixel, its neighbour in the next column, one weight, one bias; 0: as it was. */
typedef struct {
    tn_real x, next, w, bias;
    int taps; /* the row of w's tap; its column is one that meets the pixel */
    /* Rows of windows that must have the direct form's bits; bit i: those whose i-th of six rows has the pixel. */
    unsigned exact;
} oddity;

enum { ALL = 0x3f, EVERY_ROW = 1 << 6 };
#ifdef TN_DOUBLE
#define LARGEST DBL_MAX
#else
#define LARGEST FLT_MAX
#endif
static const oddity oddities[] = {
    {.x = (tn_real)NAN, .exact = ALL},
    {.x = (tn_real)INFINITY, .exact = ALL},
    {.x = (tn_real)-INFINITY, .exact = ALL},
    {.x = (tn_real)INFINITY, .next = (tn_real)-INFINITY, .exact = ALL},
    {.x = (tn_real)-INFINITY, .next = (tn_real)NAN, .exact = ALL},
    {.w = (tn_real)NAN, .taps = 4, .exact = EVERY_ROW},
    {.w = (tn_real)INFINITY, .taps = 0, .exact = EVERY_ROW},
    {.w = (tn_real)-INFINITY, .taps = 2, .exact = EVERY_ROW},
    {.x = (tn_real)INFINITY, .w = (tn_real)-INFINITY, .taps = 1, .exact = EVERY_ROW},
    {.bias = (tn_real)NAN},
    {.bias = (tn_real)INFINITY},
    {.bias = (tn_real)-INFINITY},
    /* an overflow in the transform of the image, of the weights, in the products */
    {.x = (tn_real)(0.6 * LARGEST), .exact = 0xf},
    {.x = (tn_real)(-0.6 * LARGEST), .exact = 0xf},
    {.w = (tn_real)(0.6 * LARGEST), .taps = 2, .exact = EVERY_ROW},
    {.x = (tn_real)(1e-8 * LARGEST), .w = (tn_real)0.9e8, .taps = 0, .exact = 1 << 2},
};
enum { ODDITIES = sizeof oddities / sizeof *oddities, PLACES = 3 };

/* The pixel is the first, one inside, or the last that is read. */
static int put_oddity(const oddity *e, int where, const rows_shape *s, rows_data *d) {
    const int down = (s->h - 4) / 2, across = (s->w - 4) / 2, channel = where * (s->ci - 1) / 2;
    const int row = where * (2 * down + 3) / 2, col = where == 2 ? 2 * across + 3 : where * across;
    const int o = where * (s->co - 1) / 2;
    tn_real *x = d->x + (channel * s->h + row) * s->w + col;
    if (e->x != 0) *x = e->x;
    if (e->next != 0) x[where == 2 ? -1 : 1] = e->next;
    if (e->w != 0) d->w[(o * s->ci + channel) * 25 + 5 * e->taps + (where == 2 ? 4 : 0)] = e->w;
    if (e->bias != 0) d->bias[o] = e->bias;
    return row;
}

/* Is this row of windows exact, the pixel being in this row of the image? */
static int is_exact(const oddity *e, int windows, int row) {
    const int i = row - 2 * windows;
    return e->exact & EVERY_ROW || (i >= 0 && i < 6 && e->exact >> i & 1);
}

/* How far results may be apart where nothing is odd, or what is odd meets no overflow. */
static double tolerance(const oddity *e) {
    const double x = fabs((double)e->x), w = fabs((double)e->w);
    return 1e-4 * (x > 1 && isfinite(x) ? x : 1) * (w > 1 && isfinite(w) ? w : 1);
}

static void check(const char *name, size_t number, size_t at, int exact, double off, tn_real y, tn_real place,
                  tn_real want, tn_real want_place) {
    const int close = same(y, want) || (!exact && fabs((double)y - (double)want) <= off);
    if (!close || ((exact || !isfinite(want)) && place != want_place))
        fail_msg("%s: oddity %zu, element %zu is %a at %g, not %a at %g", name, number, at, (double)y,
                 (double)place, (double)want, (double)want_place);
}

static void like_direct(const rows_shape *s, size_t number, int where, int relu) {
    const oddity *e = &oddities[number];
    const int down = (s->h - 4) / 2, across = (s->w - 4) / 2;
    const size_t n = (size_t)(s->co * down * across);
    rows_data d = {random_reals((size_t)(s->ci * s->h * s->w)), random_reals((size_t)(s->co * s->ci * 25)),
                   random_reals((size_t)s->co)};
    const int row = put_oddity(e, where, s, &d);
    tn_real *want = aligned_room(n), *want_place = aligned_room(n), *plain = aligned_room(n),
            *y = aligned_room(n), *place = aligned_room(n), *plain_place = aligned_room(n);
    rows_direct(s, &d, relu, want, want_place);
    for (int l = 0; l < levels; l++) {
        rows_run(level[l], s, &d, 1, relu, y, place);
        if (l == 0) memcpy(plain, y, n * sizeof *y), memcpy(plain_place, place, n * sizeof *place);
        for (size_t a = 0; a < n; a++) {
            const int exact = is_exact(e, (int)a / across % down, row);
            check(level[l]->name, number, a, exact, tolerance(e), y[a], place[a], want[a], want_place[a]);
            check(level[l]->name, number, a, 1, 0, y[a], place[a], plain[a], plain_place[a]);
        }
    }
    free(d.x), free(d.w), free(d.bias);
    free(want), free(want_place), free(plain), free(plain_place), free(y), free(place);
}

static void not_finite(void **state) {
    static const rows_shape shapes[] = {
        {6, 16, 12, 12}, {2, 12, 6, 6}, {3, 17, 9, 33}, {5, 33, 11, 7}, {2, 40, 17, 20}};
    (void)state;
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t e = 0; e < ODDITIES; e++)
            for (int where = 0; where < PLACES; where++)
                for (int relu = 0; relu < 2; relu++) like_direct(&shapes[i], e, where, relu);
}

/* ---- layers ---- */

typedef struct {
    int n, ci, co, h, w, pad;
} layer_shape;

static tn_conv_pool_plan plan_of(tn_tape *t, const layer_shape *s, int relu, int algorithm) {
    tn_conv c = {{1, 1}, {s->pad, s->pad}, {1, 1}, 1, TN_CONV_AUTO};
    if (algorithm) c.algorithm = TN_CONV_DIRECT;
    tn_conv_pool_plan p = {
        .conv = tn_conv_shape(t, "test", (int[]){s->n, s->ci, s->h, s->w}, (int[]){s->co, s->ci, 5, 5}, &c),
        .relu = relu};
    const int oh = p.conv.g.oh, ow = p.conv.g.ow;
    p.pool = (tn_window){s->co, oh, ow, 2, 2, oh / 2, ow / 2, 2, 2, 0, 0, 1, 1};
    return p;
}

/* The second image has an oddity: where it is met, the layer's results are those of direct sums; without winners too. */
static void layer_like_direct(tn_tape *t, const layer_shape *s, size_t number, int relu) {
    const oddity *e = &oddities[number];
    const tn_conv_pool_plan fast = plan_of(t, s, relu, 0), direct = plan_of(t, s, relu, 1);
    assert_true(tn_winograd_rows_fits(&fast.conv, &fast.pool));
    const int down = fast.pool.oh, across = fast.pool.ow, row = s->h / 2;
    const size_t image = (size_t)(s->ci * s->h * s->w), one = (size_t)(s->co * down * across),
                 n = one * (size_t)s->n;
    tn_real *x = random_reals(image * (size_t)s->n), *w = random_reals((size_t)(s->co * s->ci * 25)),
            *bias = random_reals((size_t)s->co);
    tn_real *pixel = x + image + row * s->w + s->w / 2;
    if (e->x != 0) *pixel = e->x;
    if (e->next != 0) pixel[1] = e->next;
    if (e->w != 0) w[(s->co - 1) * s->ci * 25 + 5 * e->taps + 2] = e->w;
    if (e->bias != 0) bias[s->co - 1] = e->bias;
    tn_real *y = aligned_room(n), *alone = aligned_room(n), *want = aligned_room(n);
    unsigned char *winner = calloc(2 * n, 1), *want_winner = winner + n;
    assert_non_null(winner);
    tn_conv_pool_forward(t, &direct, x, w, bias, want, want_winner);
    tn_conv_pool_forward(t, &fast, x, w, bias, y, winner);
    tn_conv_pool_forward(t, &fast, x, w, bias, alone, NULL);
    for (size_t a = 0; a < n; a++) {
        const int has_pixel = a / one == 1;
        const int exact = is_exact(e, (int)a / across % down, has_pixel ? row + s->pad : -1);
        check("layer", number, a, exact, tolerance(e), y[a], winner[a], want[a], want_winner[a]);
        check("without winners", number, a, 1, 0, alone[a], winner[a], y[a], winner[a]);
    }
    free(x), free(w), free(bias), free(y), free(alone), free(want), free(winner);
}

static void layers(void **state) {
    static const layer_shape shapes[] = {{2, 6, 16, 12, 12, 0}, {3, 2, 12, 9, 14, 2}, {2, 3, 37, 8, 21, 1}};
    tn_tape *t = tn_tape_new(NULL);
    (void)state;
    for (int threads = 1; threads < 3; threads++) {
        tn_set_threads(threads);
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (size_t e = 0; e < ODDITIES; e++)
                for (int relu = 0; relu < 2; relu++) layer_like_direct(t, &shapes[i], e, relu);
    }
    tn_set_threads(1);
    tn_tape_free(t);
}

int main(void) {
    find_levels();
    const struct CMUnitTest tests[] = {cmocka_unit_test(rows), cmocka_unit_test(not_finite),
                                       cmocka_unit_test(layers)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

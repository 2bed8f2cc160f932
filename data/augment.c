/* SPDX-License-Identifier: MIT */
/*
 * Augmentation. A pixel of the result is looked up in the sample: back through the shift, the turn and the
 * size about the middle, and on by a smooth random displacement. Everything is made of operations that IEEE
 * 754 rounds correctly, so a seed means the same pixels everywhere.
 *
 * The displacement is a cubic B-spline with independent normal coefficients at knots `smooth` pixels apart
 * (elastic distortion as Simard, Steinkraus and Platt had it, ICDAR 2003, with a spline in the place of their
 * Gaussian). The mean over a knot's cell of the sum of the squared weights is 151/315 in each direction, so
 * coefficients with standard deviation elastic 315/151 give displacements with standard deviation elastic.
 */
#include "data_internal.h"
#include "internal.h"
#include <math.h>
#include <string.h>

static const tn_opt table[] = {
    TN_OPT_INT(tn_augment, shift, 0, 0, 64, "whole pixels, each way, both directions"),
    TN_OPT_REAL(tn_augment, rotate, 0, 0, 180, 0, "degrees, each way"),
    TN_OPT_REAL(tn_augment, scale, 0, 0, 0.9, 0, "size times 1 - scale to 1 + scale"),
    TN_OPT_REAL(tn_augment, elastic, 0, 0, 64, 0, "standard deviation of a smooth displacement, in pixels"),
    TN_OPT_INT(tn_augment, smooth, 6, 2, 256, "pixels between the knots of that displacement"),
    TN_OPT_BOOL(tn_augment, flip, 0, "exchange left and right in half of the samples"),
    TN_OPT_END,
};

const tn_opt *tn_augment_options(void) {
    return table;
}

int tn_augment_any(const tn_augment *a) {
    return a->shift > 0 || a->rotate > 0 || a->scale > 0 || a->elastic > 0 || a->flip;
}

int tn_augment_parse(const char *text, tn_augment *out, tn_err *e) {
    uint64_t given;
    tn_opts_default(table, out);
    if (tn_opts_parse(table, out, text, "--augment", &given, e)) return -1;
    if (given >> 4 & 1 && out->elastic == 0)
        return tn_fail(e, "--augment: smooth belongs to elastic, which is 0: give both, or neither");
    return 0;
}

int tn_augment_check(const tn_augment *a, const tn_data *d, tn_err *e) {
    if (tn_augment_any(a) && d->nd < 2)
        return tn_fail(e, "--augment: the samples are no pictures: they have one dimension");
    return 0;
}

/* ---- one sample ---- */

typedef struct {
    const tn_data *d;
    const tn_augment *a;
    uint64_t seed;
    long epoch;
    const int *idx;
    int n, first, rows;  /* rows a chunk */
    int c, h, w, gh, gw; /* channels, size; knots of the displacement */
    double *scratch;     /* a chunk has 2 gh gw + 2 gw doubles */
    double scale, shift;
    tn_real *out;
} job;

/* How one sample is changed. */
typedef struct {
    double cos, sin, zoom, dy, dx;
    int flip;
    double *knot, *row; /* gh gw pairs; a pair for each column of knots, at one row of pixels */
} change;

static double both_ways(tn_rng *r, double most) {
    return most * (2 * tn_uniform(r) - 1);
}

static tn_rng stream(const job *j, const char *what, int sample) {
    return tn_rng_make(j->seed, "augment", what, (uint64_t)j->epoch, (uint64_t)sample);
}

/* Each kind has a stream of its own: adding one leaves the others as they are. */
static void draw(const job *j, int sample, change *g) {
    const tn_augment *a = j->a;
    int n = (int)a->shift;
    tn_rng shift = stream(j, "shift", sample), turn = stream(j, "rotate", sample),
           size = stream(j, "scale", sample), flip = stream(j, "flip", sample),
           bend = stream(j, "elastic", sample);
    double turns = both_ways(&turn, a->rotate) / 360;
    g->dy = tn_below(&shift, 2 * n + 1) - n;
    g->dx = tn_below(&shift, 2 * n + 1) - n;
    g->cos = tn_exact_cos2pi(turns);
    g->sin = tn_exact_cos2pi(turns - 0.25);
    g->zoom = 1 + both_ways(&size, a->scale);
    g->flip = a->flip && tn_below(&flip, 2);
    if (a->elastic > 0)
        for (int i = 0; i < 2 * j->gh * j->gw; i++)
            g->knot[i] = a->elastic * (315.0 / 151) * tn_normal(&bend);
}

/* The four weights of the uniform cubic B-spline, u in [0, 1). */
static void spline(double u, double b[4]) {
    double v = 1 - u;
    b[0] = v * v * v / 6;
    b[1] = (3 * u * u * u - 6 * u * u + 4) / 6;
    b[2] = (3 * v * v * v - 6 * v * v + 4) / 6;
    b[3] = u * u * u / 6;
}

/* Displacements along row y of pixels, at the columns of knots. */
static void bend_row(const job *j, const change *g, int y) {
    double b[4], at = (double)y / (double)j->a->smooth;
    int k = (int)at;
    spline(at - k, b);
    for (int i = 0; i < 2 * j->gw; i++) {
        double s = 0;
        for (int r = 0; r < 4; r++) s += b[r] * g->knot[(size_t)(k + r) * 2 * (size_t)j->gw + (size_t)i];
        g->row[i] = s;
    }
}

static void bend(const job *j, const change *g, int x, double *sy, double *sx) {
    double b[4], at = (double)x / (double)j->a->smooth;
    int k = (int)at;
    spline(at - k, b);
    for (int i = 0; i < 4; i++) {
        *sy += b[i] * g->row[2 * (k + i)];
        *sx += b[i] * g->row[2 * (k + i) + 1];
    }
}

static double inside(double v, int size) {
    return v > 0 ? v < size - 1 ? v : size - 1 : 0;
}

static double element(const tn_data *d, size_t at) {
    return d->xtype == TN_U8 ? ((const unsigned char *)d->x)[at] : (double)((const float *)d->x)[at];
}

/* The value at (y, x) between four pixels of the plane that starts at `from`. */
static double between(const job *j, size_t from, double y, double x) {
    int y0 = (int)y, x0 = (int)x, y1 = y0 + (y0 < j->h - 1), x1 = x0 + (x0 < j->w - 1);
    double fy = y - y0, fx = x - x0;
    size_t a = from + (size_t)y0 * (size_t)j->w, b = from + (size_t)y1 * (size_t)j->w;
    double top = element(j->d, a + (size_t)x0) * (1 - fx) + element(j->d, a + (size_t)x1) * fx;
    double bottom = element(j->d, b + (size_t)x0) * (1 - fx) + element(j->d, b + (size_t)x1) * fx;
    return top * (1 - fy) + bottom * fy;
}

static void one(const job *j, int sample, change *g, tn_real *out) {
    size_t plane = (size_t)j->h * (size_t)j->w, from = (size_t)sample * j->d->len;
    double my = (j->h - 1) / 2.0, mx = (j->w - 1) / 2.0;
    draw(j, sample, g);
    for (int y = 0; y < j->h; y++) {
        if (j->a->elastic > 0) bend_row(j, g, y);
        for (int x = 0; x < j->w; x++) {
            double v = y - my - g->dy, u = x - mx - g->dx;
            double sy = my + (v * g->cos - u * g->sin) / g->zoom,
                   sx = mx + (v * g->sin + u * g->cos) / g->zoom;
            if (j->a->elastic > 0) bend(j, g, x, &sy, &sx);
            sy = inside(sy, j->h);
            sx = inside(sx, j->w);
            if (g->flip) sx = j->w - 1 - sx;
            for (int c = 0; c < j->c; c++) {
                size_t p = (size_t)c * plane;
                out[p + (size_t)y * (size_t)j->w + (size_t)x] =
                    (tn_real)(between(j, from + p, sy, sx) * j->scale + j->shift);
            }
        }
    }
}

/* ---- a batch ---- */

static void chunk(void *arg, int number) {
    const job *j = arg;
    int lo = number * j->rows, hi = lo + j->rows < j->n ? lo + j->rows : j->n;
    size_t pairs = (size_t)j->gh * (size_t)j->gw;
    change g = {.knot = j->scratch + (size_t)number * 2 * (pairs + (size_t)j->gw)};
    g.row = g.knot + 2 * pairs;
    for (int i = lo; i < hi; i++)
        one(j, j->idx ? j->idx[i] : j->first + i, &g, j->out + (size_t)i * j->d->len);
}

tn_t *tn_batch_input_augmented(tn_tape *t, const tn_data *d, const tn_augment *a, uint64_t seed, long epoch,
                               int n, const int *idx, int first) {
    enum { LEAST = 4096 }; /* elements that are worth a thread's while */
    int dim[TN_MAX_DIM] = {n};
    if (!a || !tn_augment_any(a)) return tn_batch_input(t, d, n, idx, first);
    TN_CHECK(t, d->nd >= 2, "tn_batch_input_augmented: samples of one dimension are no pictures");
    tn_batch_check(t, "tn_batch_input_augmented", d, n, idx, first);
    memcpy(dim + 1, d->dim, sizeof d->dim);
    tn_t *y = tn_new(t, d->nd + 1, dim);
    job j = {.d = d,
             .a = a,
             .seed = seed,
             .epoch = epoch,
             .idx = idx,
             .n = n,
             .first = first,
             .rows = 1,
             .out = y->x};
    j.c = d->nd == 3 ? d->dim[0] : 1;
    j.h = d->dim[d->nd - 2];
    j.w = d->dim[d->nd - 1];
    if (a->elastic > 0) {
        j.gh = (j.h - 1) / (int)a->smooth + 4;
        j.gw = (j.w - 1) / (int)a->smooth + 4;
    }
    j.scale = d->scale;
    j.shift = d->shift;
    while ((size_t)j.rows * d->len < LEAST) j.rows *= 2;
    int chunks = (n - 1) / j.rows + 1;
    j.scratch = tn_scratch(t, (size_t)chunks * 2 * (size_t)(j.gh + 1) * (size_t)j.gw * sizeof *j.scratch + 1);
    tn_parallel(chunks, chunk, &j);
    return tn_result(NULL, y, 0, NULL, NULL, 0);
}

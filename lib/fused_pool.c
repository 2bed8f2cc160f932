/* SPDX-License-Identifier: MIT */
/*
 * Max and average pooling over windows of (n, c, h, w). Max pooling remembers which element won, so that its gradient,
 * and the gradient of that, is a gather or a scatter by the same indices; padding counts as -infinity for max and as
 * zeros for the average, which divides by the whole window: PyTorch's defaults.
 */
#include "im2col.h"
#include "kernels/kernels.h"
#include <math.h>
#include <string.h>

typedef struct {
    tn_window g;
    tn_pool pool;
    int *winner; /* flat index into x of each output; max only, and NULL where no gradient will be wanted */
} pool_aux;

typedef struct {
    const tn_window *g;
    const tn_real *x;
    tn_real *y;
    int *winner;
    int add;
} plane_job;

static tn_window window_of(const char *op, const tn_t *x, const tn_pool *p) {
    TN_CHECK(x->tape, x->nd == 4, "%s: the input has %d dimensions, not 4", op, x->nd);
    for (int i = 0; i < 2; i++)
        TN_CHECK(x->tape,
                 p->kernel[i] > 0 && p->stride[i] > 0 && p->pad[i] >= 0 && 2 * p->pad[i] <= p->kernel[i],
                 "%s: kernel and stride must be positive, padding at most half the kernel", op);
    tn_window g = {1, x->dim[2],    x->dim[3],    p->kernel[0], p->kernel[1], 0,
                   0, p->stride[0], p->stride[1], p->pad[0],    p->pad[1],    1,
                   1};
    g.oh = tn_window_out(g.h, g.kh, g.sh, g.ph, 1), g.ow = tn_window_out(g.w, g.kw, g.sw, g.pw, 1);
    TN_CHECK(x->tape, g.oh > 0 && g.ow > 0, "%s: a %d x %d window does not fit a %d x %d image", op, g.kh,
             g.kw, g.h, g.w);
    TN_CHECK(x->tape, x->len <= INT32_MAX, "%s: the input has more than 2^31 elements", op);
    return g;
}

/* The part of window (r, c) that lies inside the image. */
static void clip_window(const tn_window *g, int r, int c, int *y0, int *y1, int *x0, int *x1) {
    *y0 = r * g->sh - g->ph, *x0 = c * g->sw - g->pw;
    *y1 = *y0 + g->kh < g->h ? *y0 + g->kh : g->h, *x1 = *x0 + g->kw < g->w ? *x0 + g->kw : g->w;
    *y0 = *y0 < 0 ? 0 : *y0, *x0 = *x0 < 0 ? 0 : *x0;
}

static void max_plane(void *arg, int plane) {
    const plane_job *j = arg;
    const tn_window *g = j->g;
    int base = plane * g->h * g->w, out = plane * g->oh * g->ow;
    for (int r = 0; r < g->oh; r++)
        for (int c = 0; c < g->ow; c++, out++) {
            int y0, y1, x0, x1;
            clip_window(g, r, c, &y0, &y1, &x0, &x1);
            int best = base + y0 * g->w + x0;
            for (int y = y0; y < y1; y++)
                for (int x = x0; x < x1; x++) {
                    int at = base + y * g->w + x;
                    tn_real b = j->x[best];
                    if (b == b && !(j->x[at] <= b)) best = at; /* larger, or the first NaN */
                }
            j->y[out] = j->x[best];
            if (j->winner) j->winner[out] = best;
        }
}

static void max_back_plane(void *arg, int plane) { /* x: gy, y: gx */
    const plane_job *j = arg;
    const tn_window *g = j->g;
    size_t in = (size_t)(g->h * g->w), out = (size_t)(g->oh * g->ow), at = (size_t)plane * out;
    if (!j->add) memset(j->y + (size_t)plane * in, 0, in * sizeof *j->y);
    for (size_t i = at; i < at + out; i++) j->y[j->winner[i]] += j->x[i];
}

static void avg_plane(void *arg, int plane) {
    const plane_job *j = arg;
    const tn_window *g = j->g;
    const tn_real *x = j->x + (size_t)plane * (size_t)(g->h * g->w);
    tn_real *out = j->y + (size_t)plane * (size_t)(g->oh * g->ow), scale = (tn_real)(1.0 / (g->kh * g->kw));
    for (int r = 0; r < g->oh; r++)
        for (int c = 0; c < g->ow; c++) {
            int y0, y1, x0, x1;
            tn_real sum = 0;
            clip_window(g, r, c, &y0, &y1, &x0, &x1);
            for (int y = y0; y < y1; y++)
                for (int i = x0; i < x1; i++) sum += x[y * g->w + i];
            *out++ = sum * scale;
        }
}

static void avg_back_plane(void *arg, int plane) {
    const plane_job *j = arg;
    const tn_window *g = j->g;
    const tn_real *gy = j->x + (size_t)plane * (size_t)(g->oh * g->ow);
    tn_real *gx = j->y + (size_t)plane * (size_t)(g->h * g->w), scale = (tn_real)(1.0 / (g->kh * g->kw));
    if (!j->add) memset(gx, 0, (size_t)(g->h * g->w) * sizeof *gx);
    for (int r = 0; r < g->oh; r++)
        for (int c = 0; c < g->ow; c++) {
            int y0, y1, x0, x1;
            tn_real v = *gy++ * scale;
            clip_window(g, r, c, &y0, &y1, &x0, &x1);
            for (int y = y0; y < y1; y++)
                for (int i = x0; i < x1; i++) gx[y * g->w + i] += v;
        }
}

static tn_t *max_pool_expand(tn_t *y) {
    return tn_take(y->src[0], ((const pool_aux *)y->aux)->winner, y->nd, y->dim);
}
static void max_pool_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const pool_aux *a = y->aux;
    plane_job j = {&a->g, gy, gx[0], a->winner, add & 1};
    if (need & 1) tn_parallel(y->dim[0] * y->dim[1], max_back_plane, &j);
}
static const tn_op op_max_pool = {.name = "max_pool2d", .expand = max_pool_expand, .bwd = max_pool_bwd};
tn_t *tn_max_pool2d(tn_t *x, const tn_pool *p) {
    pool_aux a = {window_of("max_pool2d", x, p), *p, NULL};
    tn_t *y = tn_new(x->tape, 4, (int[]){x->dim[0], x->dim[1], a.g.oh, a.g.ow});
    if (tn_tape_mode(x->tape).record) a.winner = tn_scratch(x->tape, y->len * sizeof *a.winner);
    plane_job j = {&a.g, x->x, y->x, a.winner, 0};
    tn_parallel(x->dim[0] * x->dim[1], max_plane, &j);
    return tn_result(&op_max_pool, y, 1, &x, &a, sizeof a);
}

/* A convolution of each channel by itself with a constant window. */
static tn_t *avg_pool_expand(tn_t *y) {
    const pool_aux *a = y->aux;
    tn_t *x = y->src[0];
    int c = x->dim[1], one[4] = {c, 1, a->g.kh, a->g.kw};
    tn_conv conv = {{a->g.sh, a->g.sw}, {a->g.ph, a->g.pw}, {1, 1}, c, TN_CONV_AUTO};
    return tn_conv2d(x, tn_full(x->tape, 1.0 / (a->g.kh * a->g.kw), 4, one), &conv);
}
static void avg_pool_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const pool_aux *a = y->aux;
    plane_job j = {&a->g, gy, gx[0], NULL, add & 1};
    if (need & 1) tn_parallel(y->dim[0] * y->dim[1], avg_back_plane, &j);
}
static const tn_op op_avg_pool = {.name = "avg_pool2d", .expand = avg_pool_expand, .bwd = avg_pool_bwd};
tn_t *tn_avg_pool2d(tn_t *x, const tn_pool *p) {
    pool_aux a = {window_of("avg_pool2d", x, p), *p, NULL};
    tn_t *y = tn_new(x->tape, 4, (int[]){x->dim[0], x->dim[1], a.g.oh, a.g.ow});
    plane_job j = {&a.g, x->x, y->x, NULL, 0};
    tn_parallel(x->dim[0] * x->dim[1], avg_plane, &j);
    return tn_result(&op_avg_pool, y, 1, &x, &a, sizeof a);
}

/* SPDX-License-Identifier: MIT */
/*
 * 3 x 3 convolution by Winograd's F(4x4, 3x3): the image to NHWC with zeros around it, all tiles through the input
 * transform, the 36 products and the output transform, and the result back to NCHW.
 */
#include "conv_winograd.h"
#include "kernels/kernels.h"
#include <string.h>

enum {
    TILE = 4,           /* output rows and columns of a tile; it reads two more of each */
    PRODUCTS = 36,      /* (TILE + 2)^2 */
    M_LEN = 100 * 1024, /* reals of M that may lie in the second-level cache */
    LEAST_CHANNELS = 8,
    LEAST_OUTPUT = 6
};

int tn_winograd_fits(const tn_conv_plan *p) {
    const tn_window *g = &p->g;
    int plain = g->kh == 3 && g->kw == 3 && g->sh == 1 && g->sw == 1 && g->dh == 1 && g->dw == 1;
    return plain && tn_gemm_own() && p->groups == 1 && g->c >= LEAST_CHANNELS && p->co >= LEAST_CHANNELS
           && g->oh >= LEAST_OUTPUT && g->ow >= LEAST_OUTPUT;
}

/* ---- weights ---- */

enum { CHANNELS = 8 }; /* input channels of a chunk */

typedef struct {
    const tn_kernels_t *k;
    int co, ci;
    const tn_real *w;
    tn_real *u;
} weights_job;

size_t tn_winograd_u_len(const tn_kernels_t *k, int co, int ci) {
    int nr = k->nr;
    return (size_t)((co + nr - 1) / nr) * PRODUCTS * (size_t)ci * (size_t)nr;
}

static void weights_range(void *arg, size_t lo, size_t hi) {
    const weights_job *j = arg;
    j->k->winograd_weights(j->co, j->ci, (int)lo, (int)hi, j->w, j->u);
}

void tn_winograd_weights(const tn_kernels_t *k, int co, int ci, const tn_real *w, tn_real *u) {
    tn_parallel_range((size_t)ci, CHANNELS, weights_range, &(weights_job){k, co, ci, w, u});
}

const tn_real *tn_winograd_kept(tn_tape *t, const tn_kernels_t *k, const tn_conv_plan *p, const tn_real *w) {
    int stale;
    tn_real *u = tn_conv_form(t, p, TN_FORM_WINOGRAD, tn_winograd_u_len(k, p->co, p->g.c), &stale);
    if (stale) tn_winograd_weights(k, p->co, p->g.c, w, u);
    return u;
}

/* ---- one image ---- */

/* Sizes in tiles and pixels; the padded image is as large as whole tiles need it. */
typedef struct {
    int down, across; /* tiles */
    int h, w;         /* of the padded image */
    int oh, ow;       /* of the result: pooled or not */
} grid;

static grid grid_of(const tn_conv_plan *p, int pool) {
    grid g = {.down = (p->g.oh + TILE - 1) / TILE, .across = (p->g.ow + TILE - 1) / TILE};
    g.h = TILE * g.down + 2, g.w = TILE * g.across + 2;
    g.oh = pool ? p->g.oh / 2 : p->g.oh, g.ow = pool ? p->g.ow / 2 : p->g.ow;
    return g;
}

static size_t image_len(const grid *g, int channels) {
    return tn_whole_lines((size_t)g->h * (size_t)g->w * (size_t)channels);
}
static size_t result_len(const grid *g, int channels) {
    return tn_whole_lines((size_t)g->oh * (size_t)g->ow * (size_t)channels);
}

/* Tiles go through the products in groups, so that V and M stay in the second-level cache whatever the image. */
typedef struct {
    int tiles;   /* of a group, a multiple of TN_WINOGRAD_TILES */
    int columns; /* of M: the output channels, filled up to whole panels */
    size_t
        step; /* reals of one product's M; an odd number of cache lines, so that the 36 do not share cache sets */
} group;

static int round_up(int n, int to) {
    return (n + to - 1) / to * to;
}

static group group_of(const tn_kernels_t *k, const grid *g, int co) {
    group b = {.columns = round_up(co, k->nr)};
    int all = round_up(g->down * g->across, TN_WINOGRAD_TILES), fit = M_LEN / (PRODUCTS * b.columns);
    fit -= fit % TN_WINOGRAD_TILES;
    b.tiles = all < fit ? all : fit < TN_WINOGRAD_TILES ? TN_WINOGRAD_TILES : fit;
    b.step = tn_whole_lines((size_t)b.tiles * (size_t)b.columns);
    if (b.step / 16 % 2 == 0) b.step += 16;
    return b;
}

static size_t v_len(const group *b, int channels) {
    return tn_whole_lines((size_t)b->tiles * PRODUCTS * (size_t)channels);
}

size_t tn_winograd_scratch(const tn_kernels_t *k, const tn_conv_plan *p) {
    grid g = grid_of(p, 0);
    group b = group_of(k, &g, p->co);
    return image_len(&g, p->g.c) + v_len(&b, p->g.c) + PRODUCTS * b.step + 2 * result_len(&g, p->co);
}

/* x (c, h, w) to NHWC with its padding; what lies beyond the image is zero. */
static void to_nhwc(const tn_kernels_t *k, const tn_window *win, const grid *g, const tn_real *x,
                    tn_real *out) {
    size_t c = (size_t)win->c, row = (size_t)g->w * c;
    if (g->h == win->h && g->w == win->w && !win->ph && !win->pw) { /* no padding: one matrix */
        k->transpose(win->c, win->h * win->w, x, (ptrdiff_t)win->h * win->w, out, win->c);
        return;
    }
    for (int r = 0; r < g->h; r++) {
        tn_real *to = out + (size_t)r * row;
        int y = r - win->ph, wide = win->w < g->w - win->pw ? win->w : g->w - win->pw;
        if (y < 0 || y >= win->h) {
            memset(to, 0, row * sizeof *to);
            continue;
        }
        memset(to, 0, (size_t)win->pw * c * sizeof *to);
        k->transpose(win->c, wide, x + (size_t)y * (size_t)win->w, (ptrdiff_t)win->h * win->w,
                     to + (size_t)win->pw * c, win->c);
        size_t end = (size_t)(win->pw + wide) * c;
        memset(to + end, 0, (row - end) * sizeof *to);
    }
}

typedef struct {
    const tn_kernels_t *k;
    const tn_conv_plan *p;
    grid g;
    const tn_real *image, *w;
    tn_winograd_put to; /* the whole result, NHWC */
} output;

/* Tile number `tile` of the image, whose channels begin at m. */
static void put_tile(const output *o, int tile, const tn_real *m, ptrdiff_t m_step) {
    const int ci = o->p->g.c, step = o->to.pool ? TILE / 2 : TILE;
    const int down = tile / o->g.across, across = tile % o->g.across, row = down * step, col = across * step;
    const ptrdiff_t at = row * o->to.pitch + col * o->to.pixel, pitch = (ptrdiff_t)o->g.w * ci;
    tn_winograd_put to = o->to;
    to.rows = tn_least(step, o->g.oh - row), to.cols = tn_least(step, o->g.ow - col);
    if (to.rows <= 0 || to.cols <= 0) return; /* pooling drops an odd last row or column */
    to.y += at;
    if (to.winner) to.winner += at;
    if (o->k->winograd_output(&to, m, m_step))
        o->k->winograd_direct_tile(&to, ci, o->w, o->image + TILE * (down * pitch + (ptrdiff_t)across * ci),
                                   pitch);
}

/* V of tiles from ... from + n - 1; the rest of the group is zeros. */
static void input_tiles(const tn_kernels_t *k, const grid *g, int ci, int from, int n, int group_tiles,
                        const tn_real *image, tn_real *v) {
    const size_t one = PRODUCTS * (size_t)ci;
    const ptrdiff_t pitch = (ptrdiff_t)g->w * ci;
    for (int t = 0, run; t < n; t += run) { /* as far as the row of tiles goes */
        int row = (from + t) / g->across, col = (from + t) % g->across;
        run = g->across - col < n - t ? g->across - col : n - t;
        k->winograd_input(ci, run, image + TILE * (row * pitch + (ptrdiff_t)col * ci), pitch,
                          v + (size_t)t * one);
    }
    memset(v + (size_t)n * one, 0, (size_t)(group_tiles - n) * one * sizeof *v);
}

/* Piece i of n of what will be written: it comes from the last cache, or from memory, while tiles are worked on. */
static void fetch_soon(const tn_real *y, size_t len, int i, int n) {
    enum { LINE = 64 / (int)sizeof *y };
    for (size_t at = len * (size_t)i / (size_t)n, end = len * (size_t)(i + 1) / (size_t)n; at < end;
         at += LINE)
        __builtin_prefetch(y + at, 1);
}

void tn_winograd_frame(const tn_conv_plan *p, int *h, int *w) {
    grid g = grid_of(p, 0);
    *h = g.h, *w = g.w;
}

void tn_winograd_framed(const tn_kernels_t *k, const tn_conv_plan *p, const tn_real *w, const tn_real *u,
                        const tn_real *bias, int relu, int pool, tn_real *y, unsigned char *winner,
                        tn_real *scratch) {
    output o = {k,       p, grid_of(p, pool),
                scratch, w, {.channels = p->co, .relu = relu, .pool = pool, .bias = bias}};
    const int ci = p->g.c, tiles = o.g.down * o.g.across, area = o.g.oh * o.g.ow;
    const group b = group_of(k, &o.g, p->co);
    tn_real *v = scratch + image_len(&o.g, ci), *m = v + v_len(&b, ci), *result = m + PRODUCTS * b.step;
    o.to.y = result, o.to.pixel = p->co, o.to.pitch = (ptrdiff_t)o.g.ow * p->co;
    if (winner) o.to.winner = result + result_len(&o.g, p->co);
    for (int from = 0; from < tiles; from += b.tiles) {
        int n = tiles - from < b.tiles ? tiles - from : b.tiles, padded = round_up(n, TN_WINOGRAD_TILES);
        input_tiles(k, &o.g, ci, from, n, padded, scratch, v);
        k->winograd_products(ci, padded, b.columns / k->nr, v, u, m, (ptrdiff_t)b.step);
        for (int t = 0; t < n; t++) {
            fetch_soon(y, (size_t)p->co * (size_t)area, from + t, tiles);
            put_tile(&o, from + t, m + (size_t)t * (size_t)b.columns, (ptrdiff_t)b.step);
        }
    }
    k->transpose(area, p->co, result, p->co, y, area);
    if (!winner) return;
    k->transpose(area, p->co, o.to.winner, p->co, result, area);
    k->to_u8((size_t)area * (size_t)p->co, result, winner);
}

void tn_winograd_image(const tn_kernels_t *k, const tn_conv_plan *p, const tn_real *x, const tn_real *w,
                       const tn_real *u, const tn_real *bias, int relu, int pool, tn_real *y,
                       unsigned char *winner, tn_real *scratch) {
    const grid g = grid_of(p, pool);
    to_nhwc(k, &p->g, &g, x, scratch);
    tn_winograd_framed(k, p, w, u, bias, relu, pool, y, winner, scratch);
}

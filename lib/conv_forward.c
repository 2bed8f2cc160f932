/* SPDX-License-Identifier: MIT */
/*
 * The forward pass of convolution without columns, and with max pooling while the result is in the cache: one image at a
 * time, images dealt to a fixed number of chunks. By shape, lanes run over the pixels of a row (few filters or short sums)
 * or over the output channels; both add the terms of an element in the order of the weights, as the product over columns
 * does, so which of them runs changes no bit. 3 x 3 windows with enough channels, and 5 x 5 ones before 2 x 2 pooling, go by
 * Winograd's algorithm unless the caller asked for direct sums. Strides, dilation and groups are left to the columns. An
 * input gradient without strides is such a pass, too, with other weights (ops_conv.c).
 */
#include "conv_pool.h"
#include "conv_winograd.h"
#include "conv_winograd_rows.h"
#include "kernels/kernels.h"
#include <math.h>
#include <string.h>

enum {
    CHUNKS = 16,
    BAND =
        8
        * 1024, /* reals of a band of output rows with channels last: three quarters of a first-level cache */
    SLACK = 64, /* vectors may be loaded beyond the last row */
    WORD = 64
};
enum way { COLUMNS, PIXELS, POOLED_PIXELS, CHANNELS, WINOGRAD, WINOGRAD_ROWS };

static enum way choose(const tn_conv_plan *p, const tn_window *pool) {
    const tn_window *g = &p->g;
    if (!tn_gemm_own() || p->groups != 1 || g->sh != 1 || g->sw != 1 || g->dh != 1 || g->dw != 1)
        return COLUMNS;
    if (p->algorithm == TN_CONV_AUTO && (!pool || (pool->kh == 2 && pool->kw == 2)) && tn_winograd_fits(p))
        return WINOGRAD;
    if (p->algorithm == TN_CONV_AUTO && tn_winograd_rows_fits(p, pool)) return WINOGRAD_ROWS;
    if (g->ow < 8 || (p->co >= 16 && p->k > 32)) return CHANNELS;
    return pool && pool->kh == 2 && pool->kw == 2 ? POOLED_PIXELS : PIXELS;
}

typedef struct {
    const tn_conv_plan *p;
    const tn_window *pool; /* NULL: none */
    const tn_kernels_t *k;
    enum way way;
    int relu, chunks;
    int oh, ow;           /* output that is made: without what pooling drops at the edges */
    int padded;           /* images are copied into a frame of zeros */
    int pitch;            /* pixels: of a row that will be pooled, whole vectors */
    int row, plane;       /* of an image as the kernels see it */
    int vectors, ld;      /* channels: vectors of a panel; all channels, whole panels */
    int band;             /* channels: output rows at a time */
    const int *off;       /* of each term of a sum, from the window's first pixel */
    const int *odd;       /* pooled pixels: the same for odd columns; off is for even ones */
    int skip;             /* pooled pixels: rows of zeros are looked for: the weights are finite */
    const tn_real *x, *w; /* weights: (k, co), panels (k, vectors width), or transformed */
    const tn_real *raw;   /* the weights as they are */
    const tn_real *bias;  /* filled up to ld */
    tn_real *y;
    unsigned char *winner;
    tn_winograd_rows rows; /* Winograd by rows */
    tn_real *scratch;
    size_t image_len, z_len, pooled_len, live_len,
        scratch_len; /* the frame; the output; pooled, channels last; see live_terms; all, of a thread */
} job;

/* With room for what vectors load beyond the end. */
static size_t with_slack(size_t n) {
    return tn_whole_lines(n + SLACK);
}

/* ---- what all images share ---- */

tn_real *tn_conv_form(tn_tape *t, const tn_conv_plan *p, int kind, size_t len, int *stale) {
    *stale = 1;
    return p->kept ? tn_kept_form(p->kept, kind, len, stale) : tn_scratch(t, len * sizeof(tn_real));
}

static void pack_panel(void *arg, int i) {
    const job *j = arg;
    int width = j->vectors * j->k->width, o = i * width, k = j->p->k;
    int n = j->p->co - o < width ? j->p->co - o : width;
    tn_real *out = (tn_real *)j->w + (size_t)o * (size_t)k;
    if (n < width) memset(out, 0, (size_t)width * (size_t)k * sizeof *out);
    j->k->transpose(n, k, j->x + (size_t)o * (size_t)k, k, out, width);
}

static void pack(tn_tape *t, job *j, const tn_real *w, const tn_real *bias) {
    int co = j->p->co, k = j->p->k, width = j->k->width;
    if (j->way == WINOGRAD) {
        j->w = tn_winograd_kept(t, j->k, j->p, w), j->bias = bias;
        return;
    }
    j->vectors = co <= width ? 1 : 2;
    int pixels = j->way == PIXELS || j->way == POOLED_PIXELS;
    j->ld = pixels ? co : (co + j->vectors * width - 1) / (j->vectors * width) * j->vectors * width;
    const size_t len = tn_whole_lines((size_t)j->ld * (size_t)k),
                 u_len = j->way == WINOGRAD_ROWS ? (size_t)j->ld * (size_t)(6 * (k / 5)) : 0;
    int stale;
    tn_real *packed = tn_conv_form(t, j->p, TN_FORM_CONV + (int)j->way, len + u_len, &stale);
    if (pixels && stale) {
        j->k->transpose(co, k, w, k, packed, co);
    } else if (stale) {
        job panels = *j;
        panels.w = packed, panels.x = w;
        tn_parallel(j->ld / (j->vectors * width), pack_panel, &panels);
    }
    j->w = packed;
    if (bias && j->ld > co) {
        tn_real *b = tn_scratch(t, (size_t)j->ld * sizeof *b);
        memcpy(b, bias, (size_t)co * sizeof *b);
        memset(b + co, 0, (size_t)(j->ld - co) * sizeof *b);
        bias = b;
    }
    j->bias = bias;
    if (j->way == WINOGRAD_ROWS) {
        j->rows = (tn_winograd_rows){
            .k = j->k, .ci = j->p->g.c, .panel = j->vectors * width, .ld = j->ld, .w = packed};
        tn_real *u = packed + len;
        if (stale) tn_winograd_rows_weights(&j->rows, u);
        j->rows.u = u, j->rows.bias = bias, j->rows.relu = j->relu;
    }
}

/* A frame with rows of even length is one run of pixels, whose even ones are even columns; then both parts. */
static void lay_out_pooled(tn_tape *t, job *j) {
    const tn_window *g = &j->p->g;
    j->padded = 1;
    j->row = (g->w + 2 * g->pw + 1) / 2 * 2, j->plane = j->row * (g->h + 2 * g->ph);
    int k = j->p->k, n = 0, *off = tn_scratch(t, 2 * (size_t)k * sizeof *off);
    size_t len = (size_t)g->c * (size_t)j->plane;
    j->image_len = with_slack(len), j->z_len = 2 * with_slack(len / 2);
    int half[] = {0, (int)(j->z_len / 2)};
    for (int c = 0; c < g->c; c++)
        for (int i = 0; i < g->kh; i++)
            for (int l = 0; l < g->kw; l++, n++) {
                int first = (c * j->plane + i * j->row) / 2;
                off[n] = first + l / 2 + half[l % 2], off[n + k] = first + (l + 1) / 2 + half[(l + 1) % 2];
            }
    j->off = off, j->odd = off + k;
    /* of pictures alone: feature maps have few rows of zeros, and a sum would end with another channel's */
    j->skip = g->c == 1 && isfinite(j->k->sum((size_t)(k * j->p->co), j->w));
    const size_t words = (size_t)(j->plane / j->row * tn_pieces(j->row, WORD)) * sizeof(uint64_t),
                 terms = 2 * (size_t)(j->pool->oh + j->plane / j->row) * sizeof(int);
    if (j->skip) j->live_len = with_slack((words + terms) / sizeof(tn_real));
    j->scratch_len = j->image_len + j->z_len + j->live_len;
    j->scratch = tn_scratch(t, (size_t)tn_worker_slots() * j->scratch_len * sizeof(tn_real));
}

static void lay_out_rows(tn_tape *t, job *j) {
    const tn_window *g = &j->p->g, *pool = j->pool;
    j->padded = g->ph || g->pw;
    j->row = g->w + 2 * g->pw, j->plane = j->row * (g->h + 2 * g->ph);
    if (j->padded) j->image_len = with_slack((size_t)g->c * (size_t)j->plane);
    tn_winograd_rows *r = &j->rows;
    r->down = pool->oh, r->across = pool->ow, r->row = j->row, r->plane = j->plane;
    int *off = tn_scratch(t, (size_t)(j->p->k / 5 * 6) * sizeof *off);
    tn_winograd_rows_terms(r, off);
    r->off = off;
    j->z_len = with_slack(tn_winograd_rows_scratch(r));
    j->pooled_len = with_slack((size_t)(pool->oh * pool->ow) * (size_t)j->ld);
    j->scratch_len = j->image_len + j->z_len + 3 * j->pooled_len;
    j->scratch = tn_scratch(t, (size_t)tn_worker_slots() * j->scratch_len * sizeof(tn_real));
}

static void lay_out(tn_tape *t, job *j) {
    const tn_window *g = &j->p->g, *pool = j->pool;
    if (j->way == WINOGRAD) {
        j->scratch_len = with_slack(tn_winograd_scratch(j->k, j->p));
        j->scratch = tn_scratch(t, (size_t)tn_worker_slots() * j->scratch_len * sizeof(tn_real));
        return;
    }
    if (j->way == POOLED_PIXELS) {
        lay_out_pooled(t, j);
        return;
    }
    if (j->way == WINOGRAD_ROWS) {
        lay_out_rows(t, j);
        return;
    }
    j->oh = pool ? pool->oh * pool->kh : g->oh, j->ow = pool ? pool->ow * pool->kw : g->ow;
    j->pitch = (j->ow + j->k->width - 1) / j->k->width * j->k->width;
    j->padded = g->ph || g->pw || (j->way == PIXELS && (pool || j->ow < j->k->width));
    j->row = g->w + 2 * g->pw, j->plane = j->row * (g->h + 2 * g->ph);
    int *off = tn_scratch(t, (size_t)j->p->k * sizeof *off), n = 0;
    for (int c = 0; c < g->c; c++)
        for (int i = 0; i < g->kh; i++)
            for (int l = 0; l < g->kw; l++) off[n++] = c * j->plane + i * j->row + l;
    j->off = off;
    size_t pixels = (size_t)j->oh * (size_t)j->pitch;
    if (j->padded) j->image_len = with_slack((size_t)g->c * (size_t)j->plane);
    if (j->way == CHANNELS) {
        int unit = 2 * (pool ? pool->kh : 1), line = j->ow * j->ld;
        j->band = BAND / line / unit * unit;
        j->band = j->band < unit ? unit : j->band;
        if (j->band > j->oh) j->band = j->oh;
        pixels = (size_t)j->band * (size_t)j->ow;
        /* pooled values and places, then the places in the order of y */
        if (pool) j->pooled_len = with_slack((size_t)(pool->oh * pool->ow) * (size_t)j->ld);
    }
    if (j->way == CHANNELS || pool) j->z_len = with_slack(pixels * (size_t)j->ld);
    j->scratch_len = j->image_len + j->z_len + 3 * j->pooled_len;
    j->scratch = tn_scratch(t, (size_t)tn_worker_slots() * j->scratch_len * sizeof(tn_real));
}

/* ---- one image ---- */

/* The inside of the frame; its zeros are written once a chunk. */
static void frame(const job *j, const tn_real *x, tn_real *out) {
    const tn_window *g = &j->p->g;
    for (int c = 0; c < g->c; c++, x += (ptrdiff_t)g->h * g->w, out += j->plane)
        j->k->copy_rows(g->h, g->w, x, g->w, out + (ptrdiff_t)g->ph * j->row + g->pw, j->row);
}

static void by_pixels(const job *j, const tn_real *x, tn_real *z, tn_real *y, unsigned char *winner) {
    const tn_window *pool = j->pool;
    int co = j->p->co, pitch = pool ? j->pitch : j->ow, plane = j->oh * pitch;
    j->k->conv_pixels(j->p->k, j->off, j->oh, j->ow, x, j->row, co, j->w, co, j->bias, j->relu, pool ? z : y,
                      pitch, plane);
    if (!pool) return;
    size_t out = (size_t)(pool->oh * pool->ow);
    for (int o = 0; o < co; o++)
        j->k->max_pool_plane(pool->oh, pool->ow, pool->kh, pool->kw, z + (size_t)o * (size_t)plane, pitch,
                             y + (size_t)o * out, winner + (size_t)o * out, (size_t)(co - o) * out);
}

/*
 * A picture has margins: of each row of pooling windows the terms of the rows of the image that are not all zeros, but for
 * those between them. What is left out would add 0 times a finite weight.
 */
static const int *live_terms(const job *j, const tn_real *image, tn_real *scratch) {
    const tn_window *g = &j->p->g;
    const int rows = j->plane / j->row, words = tn_pieces(j->row, WORD), high = g->kh + 1;
    uint64_t *live = (uint64_t *)scratch;
    int *const terms = (int *)(live + rows * words), *const next = terms + 2 * j->pool->oh,
               *const last = next + rows;
    j->k->sparse_bits(rows, j->row, image, j->row, live);
    for (int i = 0; words > 1 && i < rows; i++) {
        uint64_t any = 0;
        for (int l = 0; l < words; l++) any |= live[i * words + l];
        live[i] = any;
    }
    /* from each row the next one that is not all zeros, and the last one so far: without branches, hard to predict here */
    for (int i = rows - 1, at = rows; i >= 0; i--) next[i] = at = live[i] ? i : at;
    for (int i = 0, at = -1; i < rows; i++) last[i] = at = live[i] ? i : at;
    for (int r = 0; r < j->pool->oh; r++) {
        const int first = next[2 * r] - 2 * r, end = last[2 * r + high - 1] + 1 - 2 * r, none = first >= high;
        /* row i of the image meets row i - 2 r of the weights in the upper windows, the one before in the lower */
        terms[2 * r] = none || first == 0 ? 0 : (first - 1) * g->kw;
        terms[2 * r + 1] = none ? 0 : tn_least(end, g->kh) * g->kw;
    }
    return terms;
}

static void by_pooled_pixels(const job *j, const tn_real *x, tn_real *z, tn_real *y, unsigned char *winner) {
    size_t half = j->z_len / 2;
    j->k->unzip((size_t)(j->p->g.c * j->plane / 2), x, z, z + half);
    j->k->conv_pixels_pool(j->p->k, j->skip ? live_terms(j, x, z + j->z_len) : NULL, j->off, j->odd,
                           j->pool->oh, j->pool->ow, z, j->row / 2, j->p->co, j->w, j->bias, j->relu, y,
                           winner);
}

/* Pooled values and the winners' places from channels last to planes. */
static void put_pooled(const job *j, const tn_real *pooled, const tn_real *place, tn_real *places, tn_real *y,
                       unsigned char *winner) {
    const int out = j->pool->oh * j->pool->ow, co = j->p->co;
    j->k->transpose(out, co, pooled, j->ld, y, out);
    if (!winner) return;
    j->k->transpose(out, co, place, j->ld, places, out);
    j->k->to_u8((size_t)out * (size_t)co, places, winner);
}

static void by_channels(const job *j, const tn_real *x, tn_real *z, tn_real *y, unsigned char *winner) {
    const tn_window *pool = j->pool;
    const tn_kernels_t *k = j->k;
    int co = j->p->co, width = j->vectors * k->width;
    tn_real *pooled = z + j->z_len, *place = pooled + j->pooled_len, *places = place + j->pooled_len;
    for (int r = 0; r < j->oh; r += j->band) {
        int rows = j->oh - r < j->band ? j->oh - r : j->band;
        for (int o = 0; o < j->ld; o += width)
            k->conv_channels(j->p->k, j->off, j->p->g.kw, rows, j->ow, x + (ptrdiff_t)r * j->row, j->row,
                             j->vectors, j->w + (size_t)o * (size_t)j->p->k, j->bias ? j->bias + o : NULL,
                             j->relu, z + o, j->ld);
        if (pool) {
            size_t at = (size_t)(r / pool->kh * pool->ow) * (size_t)j->ld;
            k->max_pool_channels(rows / pool->kh, pool->ow, pool->kh, pool->kw, j->ld, z,
                                 (ptrdiff_t)j->ow * j->ld, j->ld, pooled + at, place + at);
        } else {
            k->transpose(rows * j->ow, co, z, j->ld, y + (ptrdiff_t)r * j->ow, (ptrdiff_t)j->oh * j->ow);
        }
    }
    if (pool) put_pooled(j, pooled, place, places, y, winner);
}

static void by_winograd_rows(const job *j, const tn_real *x, tn_real *z, tn_real *y, unsigned char *winner) {
    tn_real *pooled = z + j->z_len, *place = pooled + j->pooled_len, *places = place + j->pooled_len;
    tn_winograd_rows_image(&j->rows, x, pooled, place, z);
    put_pooled(j, pooled, place, places, y, winner);
}

static void forward_chunk(void *arg, int chunk) {
    const job *j = arg;
    const tn_conv_plan *p = j->p;
    tn_real *image = j->scratch + (size_t)tn_worker() * j->scratch_len, *z = image + j->image_len;
    size_t in = (size_t)p->g.c * (size_t)(p->g.h * p->g.w);
    size_t out = (size_t)p->co * (size_t)(j->pool ? j->pool->oh * j->pool->ow : p->g.oh * p->g.ow);
    int n0 = (int)((long)p->n * chunk / j->chunks), n1 = (int)((long)p->n * (chunk + 1) / j->chunks);
    if (j->padded) memset(image, 0, j->image_len * sizeof *image);
    for (int n = n0; n < n1; n++) {
        const tn_real *x = j->x + (size_t)n * in;
        tn_real *y = j->y + (size_t)n * out;
        unsigned char *winner = j->winner ? j->winner + (size_t)n * out : NULL;
        if (j->padded) frame(j, x, image), x = image;
        if (j->way == WINOGRAD)
            tn_winograd_image(j->k, p, x, j->raw, j->w, j->bias, j->relu, j->pool != NULL, y, winner, z);
        else if (j->way == WINOGRAD_ROWS)
            by_winograd_rows(j, x, z, y, winner);
        else if (j->way == PIXELS)
            by_pixels(j, x, z, y, winner);
        else if (j->way == POOLED_PIXELS)
            by_pooled_pixels(j, x, z, y, winner);
        else
            by_channels(j, x, z, y, winner);
    }
}

static size_t places_len(const tn_conv_plan *p, const tn_window *pool) {
    return (size_t)p->n * (size_t)p->co * (size_t)(pool->oh * pool->ow);
}

int tn_conv_fast_forward(tn_tape *t, const tn_conv_plan *p, const tn_window *pool, const tn_real *x,
                         const tn_real *w, const tn_real *bias, int relu, tn_real *y, unsigned char *winner) {
    job j = {.p = p,
             .pool = pool,
             .k = tn_kernels_get(NULL),
             .way = choose(p, pool),
             .relu = relu,
             .chunks = p->n < CHUNKS ? p->n : CHUNKS,
             .x = x,
             .raw = w,
             .y = y,
             .winner = winner};
    if (j.way == COLUMNS) return 0;
    tn_place place = tn_mark(t);
    if (pool && !winner && (j.way == PIXELS || j.way == POOLED_PIXELS)) /* these write places anyway */
        j.winner = tn_scratch(t, places_len(p, pool));
    pack(t, &j, w, bias);
    lay_out(t, &j);
    tn_parallel(j.chunks, forward_chunk, &j);
    tn_rewind(t, place);
    return 1;
}

/* ---- pooling after columns ---- */

typedef struct {
    const tn_window *pool;
    const tn_real *z;
    tn_real *y;
    unsigned char *winner;
} pool_job;

static void pool_plane(void *arg, int plane) {
    const pool_job *j = arg;
    const tn_window *g = j->pool;
    size_t out = (size_t)g->oh * (size_t)g->ow;
    tn_kernels_get(NULL)->max_pool_plane(g->oh, g->ow, g->kh, g->kw,
                                         j->z + (size_t)plane * (size_t)g->h * (size_t)g->w, g->w,
                                         j->y + (size_t)plane * out, j->winner + (size_t)plane * out, out);
}

void tn_conv_pool_forward(tn_tape *t, const tn_conv_pool_plan *p, const tn_real *x, const tn_real *w,
                          const tn_real *bias, tn_real *y, unsigned char *winner) {
    if (tn_conv_fast_forward(t, &p->conv, &p->pool, x, w, bias, p->relu, y, winner)) return;
    tn_place place = tn_mark(t);
    if (!winner) winner = tn_scratch(t, places_len(&p->conv, &p->pool));
    size_t len = (size_t)p->conv.n * (size_t)p->pool.c * (size_t)p->pool.h * (size_t)p->pool.w;
    tn_real *z = tn_scratch(t, (len + SLACK) * sizeof *z);
    tn_conv_forward(t, &p->conv, x, w, bias, p->relu, z);
    tn_parallel(p->conv.n * p->pool.c, pool_plane, &(pool_job){&p->pool, z, y, winner});
    tn_rewind(t, place);
}

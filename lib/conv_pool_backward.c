/* SPDX-License-Identifier: MIT */
/*
 * The gradients of convolution + bias + ReLU + max pooling. At the convolution's output at most one element of each pooling
 * window has a gradient, and none where ReLU was off or the output's gradient is 0 (dropout): what is zero is skipped, so a
 * zero gradient times an infinite weight or pixel is 0 here, on purpose; NaN in gy or y is not zero and passes.
 *
 * An image at a time, channels last, images dealt to a fixed number of chunks. The order of the terms of every sum depends
 * on the shape alone: a weight's gradient is one chain over the images and pooling windows of a chunk, then the chunks are
 * added in order; the gradient of a pixel is a sum of chains over the output channels, one for each window that holds it, in
 * order of the block of the window (tn_conv_pool_block) where it holds it, then of the pooling window, then of the place in
 * that, or (tn_conv_pool_by_columns) of one chain for each column of the convolution's output whose windows hold it, over
 * rows and channels; the bias' is summed in TN_LANES lanes a chunk, which are added up in double.
 */
#include "conv_pool_job.h"
#include <string.h>

enum {
    BAND = 7 * 1024,   /* reals of a band of an image, for all filters: of a first-level cache of 32 KB */
    SPREAD = 5 * 1024, /* reals of an image whose windows' rows are copied to whole lines */
    WORD = 64,         /* bits */
    LINE = 64,         /* bytes */
    SLACK = 128        /* vectors may be loaded beyond the last row */
};

typedef tn_conv_pool_job job;

/* With room for what vectors load beyond the end. */
static size_t with_slack(size_t n) {
    return tn_whole_lines(n + SLACK);
}

/* ---- one image ---- */

/* The image with its channels last in its frame of zeros. */
static void frame(const job *j, const tn_real *x, tn_real *out) {
    const tn_window *g = &j->p->conv.g;
    int plane = g->h * g->w;
    out += (size_t)g->ph * (size_t)j->row + (size_t)(g->pw * g->c);
    if (g->c == 1)
        j->k->copy_rows(g->h, g->w, x, g->w, out, j->row);
    else if (g->pw == 0)
        j->k->transpose(g->c, plane, x, plane, out, g->c);
    else
        for (int r = 0; r < g->h; r++, x += g->w, out += j->row)
            j->k->transpose(g->c, g->w, x, plane, out, g->c);
}

static void unframe(const job *j, const tn_real *image, tn_real *gx, tn_real *turned) {
    const tn_window *g = &j->p->conv.g;
    int plane = g->h * g->w;
    tn_real *out = j->add ? turned : gx;
    image += g->ph * j->row + g->pw * g->c;
    if (g->pw == 0)
        j->k->transpose(plane, g->c, image, g->c, out, plane);
    else
        for (int r = 0; r < g->h; r++)
            j->k->transpose(g->w, g->c, image + (size_t)r * (size_t)j->row, g->c,
                            out + (size_t)r * (size_t)g->w, plane);
    if (j->add) j->k->accumulate((size_t)plane * (size_t)g->c, turned, gx);
}

/*
 * The image as windows' rows: column after column of windows, each row of one on whole lines. A load that spans two lines
 * costs two, and nearly each would in the image itself, where pixels are few reals wide.
 */
static const tn_real *spread(const job *j, const tn_real *image, tn_real *out) {
    const tn_window *g = &j->p->conv.g;
    if (!j->spread_len) return image;
    for (int c = 0; c < g->ow; c++)
        j->k->copy_rows(g->h + 2 * g->ph, j->dw_row, image + c * g->c, j->row, out + c * j->dw_pixel,
                        j->dw_row);
    return out;
}

static void weight_image(const job *j, const tn_real *image, tn_sparse_lists list, tn_real *sum) {
    const tn_window *g = &j->p->conv.g, *pool = &j->p->pool;
    int width = j->k->width, sum_row = j->vectors * width, n = j->band * pool->ow;
    for (int r = 0; r < pool->oh; r += j->band, list.v += n, list.off += n, list.count++)
        for (int i = 0; i < g->kh; i += j->dw.rows)
            for (int c = 0; c < j->vectors; c += j->dw.vectors)
                j->k->sparse_dw(tn_least(j->dw.rows, g->kh - i), tn_least(j->dw.vectors, j->vectors - c),
                                tn_least(width, j->run - (j->vectors - 1) * width), &list,
                                image + i * j->dw_row + c * width, j->dw_row, sum + i * sum_row + c * width,
                                sum_row, (ptrdiff_t)g->kh * sum_row);
}

static void input_image(const job *j, const tn_real *v, const tn_real *key, uint64_t *bits, tn_real *image,
                        const tn_real *gx) {
    const tn_window *g = &j->p->conv.g, *pool = &j->p->pool;
    const size_t bytes = (size_t)(g->c * g->h * g->w) * sizeof *gx;
    const int steps = j->by_columns ? pool->ow * pool->kw : j->windows * j->places;
    tn_sparse_window s = {pool->oh, pool->ow, pool->kh, pool->kw, j->row, g->c, (const char *)gx, 0};
    s.step = gx ? (int)(bytes / (size_t)steps) / LINE * LINE : 0;
    const tn_real *w = j->w;
    int width = j->k->width;
    j->k->sparse_keys(j->windows, j->places, j->ld, key, bits);
    memset(image, 0, j->image_len * sizeof *image);
    if (j->by_columns) {
        j->k->sparse_dx_pool(g->kh, j->run, &s, j->ld, bits, v, w, image);
        return;
    }
    for (int i = 0; i < g->kh; i += j->block_rows)
        for (int l = 0; l < j->run; l += j->block_run) {
            tn_sparse_block b = tn_conv_pool_block_at(j, i, l);
            j->k->sparse_dx(&b, &s, j->ld, bits, v, w, image + i * j->row + l);
            s.step = 0;
            w += (size_t)j->ld * (size_t)(b.rows * b.vectors * width);
        }
}

/* The input of image n, in its frame of zeros. */
static void put_image(const job *j, int n, tn_real *image) {
    const tn_window *g = &j->p->conv.g;
    if (j->from)
        j->from->make(j->from->arg, n, image + (ptrdiff_t)g->ph * j->row + (ptrdiff_t)g->pw * g->c, j->row);
    else
        frame(j, j->x + (size_t)n * (size_t)g->c * (size_t)(g->h * g->w), image);
}

static void take_gradient(const job *j, int n, int chunk, const tn_real *image, const tn_real *gradient,
                          tn_real *spare) {
    const tn_window *g = &j->p->conv.g;
    const ptrdiff_t inside = (ptrdiff_t)g->ph * j->row + (ptrdiff_t)g->pw * g->c;
    if (j->from)
        j->from->take(j->from->arg, n, chunk, image + inside, gradient + inside, j->row);
    else
        unframe(j, gradient, j->gx + (size_t)n * (size_t)g->c * (size_t)(g->h * g->w), spare);
}

static void backward_chunk(void *arg, int chunk) {
    const job *j = arg;
    const tn_kernels_t *k = j->k;
    const tn_conv_plan *p = &j->p->conv;
    const tn_window *pool = &j->p->pool;
    int co = pool->c, n0 = (int)((long)p->n * chunk / j->chunks),
        n1 = (int)((long)p->n * (chunk + 1) / j->chunks);
    size_t out = (size_t)co * (size_t)j->windows;
    size_t last = (size_t)j->windows * (size_t)j->ld, room = with_slack(out);
    tn_real *image = j->scratch + (size_t)tn_worker() * j->scratch_len, *gradient = image + j->second_len;
    tn_real *v = gradient + j->image_len, *key = v + room, *v_last = key + room, *key_last = v_last + last;
    tn_real *by_windows = key_last + last, *terms = by_windows + j->spread_len;
    int *off = (int *)(terms + room);
    uint64_t *bits = (uint64_t *)(off + room);
    int bands = tn_pieces(pool->oh, j->band),
        *count = (int *)bits; /* bits are made once the lists are done with */
    tn_real *sum = j->gw ? j->gw + (size_t)chunk * j->dw_len : NULL;
    tn_real *bias = j->gb ? j->gb + (size_t)chunk * (size_t)(co * TN_LANES) : NULL;
    if (bias) memset(bias, 0, (size_t)(co * TN_LANES) * sizeof *bias);
    memset(image, 0, j->image_len * sizeof *image);
    if (sum) memset(sum, 0, j->dw_len * sizeof *sum);
    for (size_t i = 0; j->dx && i < last; i++) v_last[i] = 0, key_last[i] = -1;
    tn_sparse_split split = {.relu = j->p->relu, .width = pool->kw, .row = j->dw_row, .pixel = j->dw_pixel};
    split.planes = co, split.n = j->windows, split.band = j->band * pool->ow;
    split.scale = j->scale, split.base = j->base, split.bias = bias;
    if (j->dx) split.v = v, split.key = key;
    split.list = (tn_sparse_lists){co, j->windows, bands, terms, off, sum ? count : NULL};
    for (int n = n0; n < n1; n++) {
        size_t at = (size_t)n * out;
        if (sum && j->dx && gradient == image && n > n0) memset(image, 0, j->image_len * sizeof *image);
        if (sum || j->from) put_image(j, n, image);
        /* between what writes the image and what reads it otherwise, so that the stores have left for the cache */
        k->sparse_split(&split, j->gy + at, j->y + at, j->winner + at);
        if (sum) weight_image(j, spread(j, image, by_windows), split.list, sum);
        if (j->dx) {
            k->transpose(co, j->windows, v, j->windows, v_last, j->ld);
            k->transpose(co, j->windows, key, j->windows, key_last, j->ld);
            input_image(j, v_last, key_last, bits, gradient,
                        j->from ? NULL : j->gx + (size_t)n * (size_t)p->g.c * (size_t)(p->g.h * p->g.w));
            take_gradient(j, n, chunk, image, gradient, (tn_real *)bits);
        }
    }
}

/* ---- what all images share ---- */

typedef struct {
    const job *j;
    int add, add_bias;
    tn_real *gw, *gb; /* NULL: not wanted */
} finish_job;

/* The chunks' sums of some filters, in order, and from their layout to the weights'. */
static void finish_weights(const finish_job *f, size_t lo, size_t hi) {
    const job *j = f->j;
    const tn_window *g = &j->p->conv.g;
    const int sum_row = j->vectors * j->k->width;
    const size_t one = (size_t)g->kh * (size_t)sum_row;
    tn_real *sum = j->gw + lo * one;
    for (int i = 1; i < j->chunks; i++) j->k->accumulate((hi - lo) * one, sum + (size_t)i * j->dw_len, sum);
    for (int o = (int)lo; o < (int)hi; o++)
        for (int i = 0; i < g->kh; i++)
            for (int l = 0; l < g->kw; l++)
                for (int c = 0; c < g->c; c++) {
                    tn_real *to = f->gw + ((o * g->c + c) * g->kh + i) * g->kw + l;
                    tn_real s = sum[((size_t)(o - (int)lo) * (size_t)g->kh + (size_t)i) * (size_t)sum_row
                                    + (size_t)(l * g->c + c)];
                    *to = f->add ? *to + s : s;
                }
}

static void finish_filters(void *arg, size_t lo, size_t hi) {
    const finish_job *f = arg;
    const job *j = f->j;
    if (f->gw) finish_weights(f, lo, hi);
    for (int o = (int)lo; f->gb && o < (int)hi; o++) {
        double sum = 0;
        for (int i = 0; i < j->chunks; i++)
            sum += j->k->sum(TN_LANES, j->gb + (i * j->p->pool.c + o) * TN_LANES);
        f->gb[o] = (tn_real)sum + (f->add_bias ? f->gb[o] : 0);
    }
}

static void plan_job(tn_tape *t, job *j) {
    const tn_window *g = &j->p->conv.g, *pool = &j->p->pool;
    int most = TN_SPARSE_TILE(j->k->mr), width = j->k->width;
    j->run = g->kw * g->c, j->vectors = tn_pieces(j->run, width);
    j->row = (g->w + 2 * g->pw) * g->c, j->ld = tn_pieces(pool->c, TN_LANES) * TN_LANES;
    j->windows = pool->oh * pool->ow, j->places = pool->kh * pool->kw, j->words = tn_pieces(j->ld, WORD);
    const int high = g->h + 2 * g->ph, line = tn_pieces(j->run, TN_LANES) * TN_LANES,
              spread = j->gw && j->run > TN_LANES / 2 && g->ow * high * line <= SPREAD;
    if (spread) j->spread_len = with_slack((size_t)(g->ow * high * line));
    j->dw_row = spread ? line : j->row, j->dw_pixel = spread ? high * line : g->c;
    j->band = (BAND / j->row - g->kh + 1) / pool->kh;
    j->band = j->band < 1 ? 1 : tn_least(j->band, pool->oh);
    j->dw = tn_conv_pool_tile(g->kh, j->vectors, most);
    tn_conv_pool_block(j->p, &j->block_rows, &j->block_run);
    j->by_columns = !j->from && tn_conv_pool_by_columns(j->p);
    j->w_len = j->by_columns ? tn_conv_pool_by_columns_room(j->p)
                             : (size_t)j->ld * (size_t)(g->kh * j->vectors * width);
    j->dw_len = (size_t)pool->c * (size_t)(g->kh * j->vectors * width);
    j->image_len = with_slack((size_t)(g->h + 2 * g->ph) * (size_t)j->row);
    size_t room = with_slack((size_t)pool->c * (size_t)j->windows), last = (size_t)j->windows * (size_t)j->ld;
    size_t words = (size_t)j->windows * (size_t)j->places * (size_t)j->words,
           in = (size_t)(g->c * g->h * g->w);
    size_t counts = (size_t)(pool->c * tn_pieces(pool->oh, j->band)) * sizeof(int),
           bits = words * sizeof(uint64_t);
    bits = (bits > counts ? bits : counts) / sizeof(tn_real) + 1;
    /* the input's gradient beside the input */
    j->second_len = (j->from || j->by_columns) && j->dx ? j->image_len : 0;
    j->scratch_len = j->second_len + j->image_len + 4 * room + 2 * last + j->spread_len
                     + with_slack(bits > in ? bits : in);
    j->scratch = tn_scratch(t, (size_t)tn_worker_slots() * j->scratch_len * sizeof *j->scratch);
    int *base = tn_scratch(t, with_slack((size_t)j->windows) * sizeof *base);
    for (int r = 0, q = 0; r < pool->oh; r++)
        for (int c = 0; c < pool->ow; c++, q++)
            base[q] = r * pool->kh * j->dw_row + c * pool->kw * j->dw_pixel;
    j->base = base;
}

static void run(tn_tape *t, job *j, const tn_real *w, unsigned add, tn_real *gw, tn_real *gb) {
    tn_place place = tn_mark(t);
    j->k = tn_kernels_get(NULL), j->chunks = tn_conv_chunks(j->p->conv.n);
    j->gw = gw; /* wanted */
    plan_job(t, j);
    if (gw) j->gw = tn_scratch(t, (size_t)j->chunks * j->dw_len * sizeof *j->gw);
    if (gb) j->gb = tn_scratch(t, (size_t)(j->chunks * j->p->pool.c * TN_LANES) * sizeof *j->gb);
    if (j->dx) {
        tn_real *packed = tn_scratch(t, j->w_len * sizeof *packed);
        tn_conv_pool_pack(t, j, w, packed);
        j->w = packed;
    }
    tn_parallel(j->chunks, backward_chunk, j);
    finish_job f = {j, (add >> 1) & 1, (add >> 2) & 1, gw, gb};
    if (gw || gb) tn_parallel_range((size_t)j->p->pool.c, TN_CONV_POOL_FILTERS, finish_filters, &f);
    tn_rewind(t, place);
}

void tn_conv_pool_backward(tn_tape *t, const tn_conv_pool_plan *p, const tn_real *x, const tn_real *w,
                           const tn_real *y, const unsigned char *winner, const tn_real *gy, unsigned add,
                           tn_real *gx, tn_real *gw, tn_real *gb) {
    job j = {.p = p, .x = x, .y = y, .gy = gy, .winner = winner, .gx = gx, .dx = gx != NULL, .scale = 1};
    j.add = add & 1;
    run(t, &j, w, add, gw, gb);
}

void tn_conv_pool_backward_from(tn_tape *t, const tn_conv_pool_plan *p, const tn_conv_source *from,
                                const tn_real *w, const tn_real *y, const unsigned char *winner,
                                const tn_real *gy, unsigned add, tn_real *gw, tn_real *gb) {
    job j = {.p = p, .from = from, .y = y, .gy = gy, .winner = winner, .dx = from->take != NULL};
    j.scale = from->scale;
    run(t, &j, w, add, gw, gb);
}

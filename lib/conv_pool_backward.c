/* SPDX-License-Identifier: MIT */
/*
 * The gradients of convolution + bias + ReLU + max pooling. At most one element of each pooling window has a gradient, and
 * none where ReLU is off, so three quarters or more of the gradient at the convolution's output are zeros: they are
 * skipped (kernels/conv_sparse.c). One image at a time with channels last; images are dealt to a fixed number of chunks,
 * each with its own sums for the weights, which are added up in order.
 *
 * A zero gradient times an infinite input, which would be NaN, is skipped, too. NaN in the gradient passes.
 */
#include "conv_pool.h"
#include "kernels/kernels.h"
#include <string.h>

enum {
    CHUNKS = 16,
    PIECES = 512,      /* of a window, at most */
    NARROW = 6,        /* reals across a piece at the level with the shortest vectors */
    BAND = 28 * 1024,  /* bytes of image that stay in the first-level cache while all channels pass */
    SLICE = 36 * 1024, /* bytes of weights that stay there while all positions pass */
    LEAST = 8,         /* sums at once: fewer do not hide the latency of a multiply-add */
    MOST_ROWS = 5,
    MOST_COLS = 6,
    ROOM = 64 /* vectors may reach beyond an end */
};

/* A rectangle of a window's rows of kw ci reals. */
typedef struct {
    int row, rows, lane, cols; /* rows, and vectors from a lane on */
    int lanes;                 /* that count in the last vector */
    size_t at;                 /* where its weights or sums begin */
} piece;

typedef struct {
    int n;
    size_t len; /* reals of one channel in all pieces (sums), or of all channels (weights) */
    piece p[PIECES];
} pieces;

typedef struct {
    const tn_kernels_t *k;
    const tn_conv_pool_plan *p;
    const tn_real *x, *w, *y, *gy;
    const unsigned char *winner;
    unsigned add;
    tn_real *gx;
    int chunks, want_w, want_b;
    int h, wide, pitch;       /* of the padded image: rows, pixels of a row, reals of a row */
    int places, out, band;    /* elements of a pooling window; of a pooled plane; pooled rows of a band */
    int *base, *shift, *iota; /* offset of each pooling window, of each place in one; 0, 1, ... */
    pieces sums, slices;
    tn_real *slice; /* weights by piece and channel */
    tn_real *part;  /* sums by chunk and channel */
    double *bias_part;
    char *scratch;
    size_t image_len, plane_len, list_len, chunk_bytes;
} job;

/* ---- pieces ---- */

static int at_most(int a, int b) {
    return a < b ? a : b;
}

/* Of at most cells vectors. whole: several rows only where a piece is as wide as the window. */
static void piece_shape(int kh, int vectors, int cells, int whole, int *rows, int *cols) {
    *rows = at_most(at_most(kh, MOST_ROWS), cells);
    *cols = at_most(at_most(cells / *rows, MOST_COLS), vectors);
    if (!whole || *cols == vectors) return;
    *cols = at_most(at_most(cells, MOST_COLS), vectors);
    *rows = *cols == vectors ? at_most(at_most(kh, MOST_ROWS), cells / vectors) : 1;
}

/* Cuts a window into pieces of at most cells vectors; width reals a vector. */
static void cut(pieces *ps, int kh, int segment, int width, int cells, int whole) {
    int vectors = (segment + width - 1) / width, rows, cols;
    piece_shape(kh, vectors, cells, whole, &rows, &cols);
    int across = (vectors + cols - 1) / cols;
    ps->n = 0;
    for (int r = 0; r < kh; r += rows)
        for (int c = 0; c < across; c++) {
            int v0 = vectors * c / across, v1 = vectors * (c + 1) / across;
            int end = at_most(segment, v1 * width);
            ps->p[ps->n++] =
                (piece){r, at_most(rows, kh - r), v0 * width, v1 - v0, end - (v1 - 1) * width, 0};
        }
}

/* ---- one image ---- */

/* x (c, h, w) into the inside of a frame of zeros, channels last. */
static void to_channels_last(const job *j, const tn_real *x, tn_real *image) {
    const tn_window *g = &j->p->conv.g;
    const ptrdiff_t plane = (ptrdiff_t)g->h * g->w;
    if (!g->pw) {
        j->k->transpose(g->c, g->h * g->w, x, plane, image + (size_t)g->ph * (size_t)j->pitch, g->c);
        return;
    }
    for (int r = 0; r < g->h; r++)
        j->k->transpose(g->c, g->w, x + (ptrdiff_t)r * g->w, plane,
                        image + (size_t)(r + g->ph) * (size_t)j->pitch + (size_t)(g->pw * g->c), g->c);
}

static void from_channels_last(const job *j, const tn_real *image, tn_real *gx) {
    const tn_window *g = &j->p->conv.g;
    const ptrdiff_t plane = (ptrdiff_t)g->h * g->w;
    if (!g->pw) {
        j->k->transpose(g->h * g->w, g->c, image + (size_t)g->ph * (size_t)j->pitch, g->c, gx, plane);
        return;
    }
    for (int r = 0; r < g->h; r++)
        j->k->transpose(g->w, g->c, image + (size_t)(r + g->ph) * (size_t)j->pitch + (size_t)(g->pw * g->c),
                        g->c, gx + (ptrdiff_t)r * g->w, plane);
}

/* What a chunk works with. */
typedef struct {
    tn_real *image; /* input, or its gradient, channels last */
    tn_real *value, *turned, *place,
        *turned_place; /* gradient of one band or of all channels; winners as numbers */
    tn_real *list;     /* what is not zero */
    int *off, *tag, *start;
} room;

static room room_of(const job *j, int chunk) {
    char *at = j->scratch + (size_t)chunk * j->chunk_bytes;
    room r;
#define TAKE(field, n) r.field = (void *)at, at += (n) * sizeof *r.field
    TAKE(image, j->image_len);
    TAKE(value, j->plane_len);
    TAKE(turned, j->plane_len);
    TAKE(place, j->plane_len);
    TAKE(turned_place, j->plane_len);
    TAKE(list, j->list_len);
    TAKE(off, j->list_len);
    TAKE(tag, j->list_len);
    TAKE(start, (size_t)(j->out * j->places + 16));
#undef TAKE
    return r;
}

/* The gradient behind ReLU: n elements from gy and y. */
static const tn_real *behind_relu(const job *j, size_t n, const tn_real *gy, const tn_real *y, tn_real *out) {
    if (!j->p->relu) return gy;
    j->k->relu_mask(n, gy, y, out);
    return out;
}

/* Adds what image i gives to the sums of a chunk. */
static void weights_of_image(const job *j, const room *r, int chunk, int i) {
    const tn_window *pool = &j->p->pool;
    const int co = pool->c;
    tn_real *part = j->part + (size_t)chunk * (size_t)co * j->sums.len;
    double *bias = j->bias_part + (size_t)chunk * (size_t)co;
    if (j->want_w)
        to_channels_last(j, j->x + (size_t)i * (size_t)(j->p->conv.g.c * j->p->conv.g.h * j->p->conv.g.w),
                         r->image);
    for (int row = 0; row < pool->oh; row += j->band) {
        const int n = at_most(j->band, pool->oh - row) * pool->ow, from = row * pool->ow;
        for (int o = 0; o < co; o++) {
            const size_t at = ((size_t)i * (size_t)co + (size_t)o) * (size_t)j->out + (size_t)from;
            const tn_real *v = behind_relu(j, (size_t)n, j->gy + at, j->y + at, r->value);
            for (int q = 0; q < n; q++) r->tag[q] = j->base[from + q] + j->shift[j->winner[at + (size_t)q]];
            int count = j->k->sparse_list(n, v, NULL, 0, r->tag, r->list, r->off);
            bias[o] += j->k->sum((size_t)count, r->list);
            for (int c = 0; j->want_w && c < j->sums.n; c++) {
                const piece *p = &j->sums.p[c];
                j->k->sparse_dw(p->rows, p->cols, count, r->off, r->list,
                                r->image + (size_t)p->row * (size_t)j->pitch + p->lane, j->pitch,
                                part + (size_t)o * j->sums.len + p->at);
            }
        }
    }
}

/* For every position that pooling sees, row by row: its channels with a gradient. */
static void lists_of_positions(const job *j, const room *r, int i) {
    const tn_window *pool = &j->p->pool;
    const int co = pool->c, out = j->out;
    const size_t all = (size_t)co * (size_t)out, at = (size_t)i * all;
    const tn_real *v = behind_relu(j, all, j->gy + at, j->y + at, r->value);
    j->k->transpose(co, out, v, out, r->turned, co);
    if (j->places > 1) {
        for (size_t q = 0; q < all; q++) r->place[q] = (tn_real)j->winner[at + q];
        j->k->transpose(co, out, r->place, out, r->turned_place, co);
    }
    int n = 0, p = 0;
    for (int y = 0; y < pool->oh * pool->kh; y++)
        for (int x = 0; x < pool->ow * pool->kw; x++, p++) {
            const int q = y / pool->kh * pool->ow + x / pool->kw;
            const int s = y % pool->kh * pool->kw + x % pool->kw;
            const size_t row = (size_t)q * (size_t)co;
            r->start[p] = n, r->tag[p] = j->base[q] + j->shift[s];
            n += j->k->sparse_list(co, r->turned + row, j->places > 1 ? r->turned_place + row : NULL,
                                   (tn_real)s, j->iota, r->list + n, r->off + n);
        }
    r->start[p] = n;
}

/*
 * A pixel gets its terms in the order of the positions, however a level cuts the window: positions go row by row, so a
 * pixel meets the window's last rows first, and in a row its last columns; the pieces are passed in that order, and none
 * has several rows but a part of the columns.
 */
static void input_of_image(const job *j, const room *r, int i) {
    const tn_window *g = &j->p->conv.g;
    const size_t len = (size_t)g->c * (size_t)g->h * (size_t)g->w;
    tn_real *gx = j->gx + (size_t)i * len;
    lists_of_positions(j, r, i);
    memset(r->image, 0, j->image_len * sizeof *r->image);
    for (int c = j->slices.n - 1; c >= 0; c--) {
        const piece *p = &j->slices.p[c];
        j->k->sparse_dx(p->rows, p->cols, p->lanes, j->out * j->places, r->start, r->off, r->list, r->tag,
                        j->slice + p->at, r->image + (size_t)p->row * (size_t)j->pitch + p->lane, j->pitch);
    }
    if (!(j->add & 1)) {
        from_channels_last(j, r->image, gx);
        return;
    }
    const ptrdiff_t plane = (ptrdiff_t)g->h * g->w;
    for (int y = 0; y < g->h; y++) /* adding is rare: a convolution's input that is used twice */
        for (int x = 0; x < g->w; x++)
            for (int c = 0; c < g->c; c++)
                gx[c * plane + y * g->w + x] +=
                    r->image[(size_t)(y + g->ph) * (size_t)j->pitch + (size_t)((x + g->pw) * g->c + c)];
}

static void weights_chunk(void *arg, int chunk) {
    const job *j = arg;
    const room r = room_of(j, chunk);
    const int n = j->p->conv.n, co = j->p->pool.c;
    memset(r.image, 0, j->image_len * sizeof *r.image);
    memset(j->part + (size_t)chunk * (size_t)co * j->sums.len, 0, (size_t)co * j->sums.len * sizeof *j->part);
    memset(j->bias_part + (size_t)chunk * (size_t)co, 0, (size_t)co * sizeof *j->bias_part);
    for (int i = (int)((long)n * chunk / j->chunks); i < (int)((long)n * (chunk + 1) / j->chunks); i++)
        weights_of_image(j, &r, chunk, i);
}

static void input_chunk(void *arg, int chunk) {
    const job *j = arg;
    const room r = room_of(j, chunk);
    const int n = j->p->conv.n;
    for (int i = (int)((long)n * chunk / j->chunks); i < (int)((long)n * (chunk + 1) / j->chunks); i++)
        input_of_image(j, &r, i);
}

/* ---- weights to slices, sums to weights ---- */

/* Weight (channel o, row i, lane l of a row of the window): lanes run over columns, then input channels. */
static size_t weight_at(const tn_window *g, int o, int i, int l) {
    return (((size_t)o * (size_t)g->c + (size_t)(l % g->c)) * (size_t)g->kh + (size_t)i) * (size_t)g->kw
           + (size_t)(l / g->c);
}

static void slice_channel(void *arg, int o) {
    const job *j = arg;
    const tn_window *g = &j->p->conv.g;
    const int width = j->k->width;
    for (int c = 0; c < j->slices.n; c++) {
        const piece *p = &j->slices.p[c];
        tn_real *to = j->slice + p->at + (size_t)o * (size_t)(p->rows * p->cols * width);
        for (int i = 0; i < p->rows; i++)
            for (int l = 0; l < p->cols * width; l++, to++)
                *to = p->lane + l < g->kw * g->c ? j->w[weight_at(g, o, p->row + i, p->lane + l)] : 0;
    }
}

typedef struct {
    const job *j;
    tn_real *gw, *gb;
} sum_job;

static void sum_channel(void *arg, int o) {
    const sum_job *s = arg;
    const job *j = s->j;
    const tn_window *g = &j->p->conv.g;
    const int co = j->p->pool.c, width = j->k->width;
    tn_real *sum = j->part + (size_t)o * j->sums.len;
    if (s->gb) {
        double b = 0;
        for (int c = 0; c < j->chunks; c++) b += j->bias_part[(size_t)c * (size_t)co + (size_t)o];
        s->gb[o] = (tn_real)b + (j->add & 4 ? s->gb[o] : 0);
    }
    if (!s->gw) return;
    for (int c = 1; c < j->chunks; c++)
        j->k->accumulate(j->sums.len, sum + (size_t)c * (size_t)co * j->sums.len, sum);
    for (int c = 0; c < j->sums.n; c++) {
        const piece *p = &j->sums.p[c];
        const tn_real *from = sum + p->at;
        for (int i = 0; i < p->rows; i++)
            for (int l = 0; l < p->cols * width; l++, from++) {
                if (p->lane + l >= g->kw * g->c) continue;
                tn_real *to = s->gw + weight_at(g, o, p->row + i, p->lane + l);
                *to = *from + (j->add & 2 ? *to : 0);
            }
    }
}

/* ---- all of it ---- */

static size_t lines(size_t n) {
    return (n + ROOM + 15) / 16 * 16;
}

static void offsets(tn_tape *t, job *j) {
    const tn_window *pool = &j->p->pool;
    const int ci = j->p->conv.g.c;
    j->base = tn_scratch(t, (size_t)j->out * sizeof *j->base);
    j->shift = tn_scratch(t, (size_t)j->places * sizeof *j->shift);
    j->iota = tn_scratch(t, lines((size_t)pool->c) * sizeof *j->iota);
    for (int r = 0; r < pool->oh; r++)
        for (int c = 0; c < pool->ow; c++)
            j->base[r * pool->ow + c] = r * pool->kh * j->pitch + c * pool->kw * ci;
    for (int s = 0; s < j->places; s++) j->shift[s] = s / pool->kw * j->pitch + s % pool->kw * ci;
    for (int o = 0; o < (int)lines((size_t)pool->c); o++) j->iota[o] = o;
}

static void lay_out(tn_tape *t, job *j) {
    const tn_window *g = &j->p->conv.g, *pool = &j->p->pool;
    const int co = pool->c, width = j->k->width, segment = g->kw * g->c;
    j->h = g->h + 2 * g->ph, j->wide = g->w + 2 * g->pw, j->pitch = j->wide * g->c;
    j->places = pool->kh * pool->kw, j->out = pool->oh * pool->ow;
    int fit = (BAND / (int)sizeof(tn_real) / j->pitch - g->kh + 1) / pool->kh;
    j->band = fit < 1 ? 1 : at_most(fit, pool->oh);
    offsets(t, j);
    cut(&j->sums, g->kh, segment, width, j->k->sparse_cells, 0);
    for (int c = 0; c < j->sums.n; c++)
        j->sums.p[c].at = j->sums.len, j->sums.len += (size_t)(j->sums.p[c].rows * j->sums.p[c].cols * width);
    int cells = SLICE / (int)sizeof(tn_real) / width / co;
    cells = cells < LEAST ? LEAST : at_most(cells, j->k->sparse_cells);
    cut(&j->slices, g->kh, segment, width, cells, 1);
    for (int c = 0; c < j->slices.n; c++) {
        const piece *p = &j->slices.p[c];
        j->slices.p[c].at = j->slices.len, j->slices.len += (size_t)co * (size_t)(p->rows * p->cols * width);
    }
    /* the window of the last position begins at most here; a piece may reach a few vectors beyond its end */
    j->image_len = lines((size_t)j->h * (size_t)j->pitch);
    j->plane_len = lines((size_t)co * (size_t)j->out);
    j->list_len = lines((size_t)j->out * (size_t)(co > j->places ? co : j->places));
    j->chunk_bytes = (j->image_len + 4 * j->plane_len + j->list_len) * sizeof(tn_real)
                     + 2 * j->list_len * sizeof(int) + (size_t)(j->out * j->places + 16) * sizeof(int);
    j->chunk_bytes = (j->chunk_bytes + 63) / 64 * 64;
    j->scratch = tn_scratch(t, (size_t)j->chunks * j->chunk_bytes);
}

/* The way of convolution's own gradients: for OpenBLAS's products and windows of very many pieces. */
static void by_scattering(tn_tape *t, const tn_conv_pool_plan *p, const tn_real *x, const tn_real *w,
                          const tn_real *y, const unsigned char *winner, const tn_real *gy, unsigned add,
                          tn_real *gx, tn_real *gw, tn_real *gb) {
    const tn_window *g = &p->pool;
    size_t plane = (size_t)g->h * (size_t)g->w, planes = (size_t)p->conv.n * (size_t)g->c, at = 0;
    tn_real *dz = tn_scratch(t, planes * plane * sizeof *dz);
    memset(dz, 0, planes * plane * sizeof *dz);
    for (size_t i = 0; i < planes; i++)
        for (int r = 0; r < g->oh; r++)
            for (int c = 0; c < g->ow; c++, at++) {
                int row = r * g->kh + winner[at] / g->kw, col = c * g->kw + winner[at] % g->kw;
                if (!p->relu || !(y[at] <= 0)) dz[i * plane + (size_t)(row * g->w + col)] = gy[at];
            }
    if (gx) tn_conv_input_grad(t, &p->conv, dz, w, add & 1, gx);
    if (gw) tn_conv_weight_grad(t, &p->conv, x, dz, (add >> 1) & 1, gw);
    if (gb) tn_channel_sums(p->conv.n, g->c, plane, dz, (add >> 2) & 1, gb);
}

void tn_conv_pool_backward(tn_tape *t, const tn_conv_pool_plan *p, const tn_real *x, const tn_real *w,
                           const tn_real *y, const unsigned char *winner, const tn_real *gy, unsigned add,
                           tn_real *gx, tn_real *gw, tn_real *gb) {
    const tn_place place = tn_mark(t);
    const tn_window *g = &p->conv.g;
    job j = {.k = tn_kernels_get(NULL),
             .p = p,
             .x = x,
             .w = w,
             .y = y,
             .gy = gy,
             .winner = winner,
             .add = add,
             .gx = gx};
    j.chunks = at_most(p->conv.n, CHUNKS), j.want_w = gw != NULL, j.want_b = gb != NULL;
    const int across =
        (g->kw * g->c + NARROW - 1) / NARROW; /* the same way at all levels: it decides the bits */
    if (!tn_gemm_own() || g->kh > PIECES / across) {
        by_scattering(t, p, x, w, y, winner, gy, add, gx, gw, gb);
        tn_rewind(t, place);
        return;
    }
    lay_out(t, &j);
    if (gw || gb) {
        const size_t channels = (size_t)j.chunks * (size_t)p->pool.c;
        j.part = tn_scratch(t, channels * j.sums.len * sizeof *j.part);
        j.bias_part = tn_scratch(t, channels * sizeof *j.bias_part);
        tn_parallel(j.chunks, weights_chunk, &j);
        tn_parallel(p->pool.c, sum_channel, &(sum_job){&j, gw, gb});
    }
    if (gx) {
        j.slice = tn_scratch(t, j.slices.len * sizeof *j.slice);
        tn_parallel(p->pool.c, slice_channel, &j);
        tn_parallel(j.chunks, input_chunk, &j);
    }
    tn_rewind(t, place);
}

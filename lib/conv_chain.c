/* SPDX-License-Identifier: MIT */
/*
 * Two convolutions as one pass over the images. The first has short sums (one channel, 3 x 3), so its output costs less to
 * make than to read back from memory: it is made with its channels last, as Winograd's transform and the sparse gradients
 * want it, into the frame of zeros that they read, once forward and once more backward. There its gradient, too, lives for
 * one image only: it goes into the first layer's weight gradient at once.
 *
 * Images are dealt to a fixed number of chunks. The first layer's gradients are, for each image, one chain over its pixels,
 * which are added up in the order of the images of a chunk, then of the chunks.
 */
#include "conv_chain.h"
#include "conv_winograd.h"
#include "kernels/kernels.h"
#include <string.h>

enum { LINE = 16 };

/* The first layer, ready to run. */
typedef struct {
    const tn_kernels_t *k;
    const tn_conv_plan *p;
    const tn_real *x, *w, *bias; /* w: panels (k, vectors width) */
    int vectors;
    int padded, row, plane; /* of an image in its frame of zeros */
    int *off;               /* of each term of a sum */
    size_t frame_len;
    tn_real *frames; /* one a thread */
    tn_real *sums;   /* (chunks, k + 1, co) of gradients */
} layer;

int tn_conv_chain_fits(const tn_conv_chain *p) {
    const tn_window *pool = &p->second.pool;
    return tn_conv_planes_fit(&p->first) && p->first.co % TN_LANES == 0 && p->second.relu && pool->kh == 2
           && pool->kw == 2 && p->second.conv.algorithm == TN_CONV_AUTO && tn_winograd_fits(&p->second.conv);
}

static layer layer_new(tn_tape *t, const tn_conv_chain *p, const tn_real *x, const tn_conv_chain_weights *w) {
    const tn_window *g = &p->first.g;
    layer l = {.k = tn_kernels_get(NULL), .p = &p->first, .x = x, .bias = w->b1};
    const int taps = p->first.k, co = p->first.co;
    l.vectors = co % (2 * l.k->width) ? 1 : 2;
    l.padded = g->ph || g->pw, l.row = g->w + 2 * g->pw, l.plane = l.row * (g->h + 2 * g->ph);
    l.off = tn_scratch(t, (size_t)taps * sizeof *l.off);
    for (int c = 0, n = 0; c < g->c; c++)
        for (int i = 0; i < g->kh; i++)
            for (int j = 0; j < g->kw; j++) l.off[n++] = c * l.plane + i * l.row + j;
    tn_real *packed = tn_scratch(t, (size_t)co * (size_t)taps * sizeof *packed);
    for (int o = 0, width = l.vectors * l.k->width; o < co; o += width)
        l.k->transpose(width, taps, w->w1 + (size_t)o * (size_t)taps, taps, packed + (size_t)o * (size_t)taps,
                       width);
    l.w = packed;
    if (l.padded) {
        l.frame_len = tn_whole_lines((size_t)g->c * (size_t)l.plane);
        size_t bytes = (size_t)tn_worker_slots() * l.frame_len * sizeof *l.frames;
        l.frames = memset(tn_scratch(t, bytes), 0, bytes);
    }
    return l;
}

/* Image n of the input, in its frame. */
static const tn_real *input_of(const layer *l, int n) {
    const tn_window *g = &l->p->g;
    const tn_real *x = l->x + (size_t)n * (size_t)g->c * (size_t)(g->h * g->w);
    if (!l->padded) return x;
    tn_real *frame = l->frames + (size_t)tn_worker() * l->frame_len,
            *to = frame + (ptrdiff_t)g->ph * l->row + g->pw;
    for (int c = 0; c < g->c; c++, x += (ptrdiff_t)g->h * g->w, to += l->plane)
        l->k->copy_rows(g->h, g->w, x, g->w, to, l->row);
    return frame;
}

/* What the layer makes of image n, channels last, rows `row` reals apart. */
static void make(const void *arg, int n, tn_real *out, ptrdiff_t row) {
    const layer *l = arg;
    const tn_window *g = &l->p->g;
    const tn_real *x = input_of(l, n);
    const int co = l->p->co, width = l->vectors * l->k->width, whole = row == (ptrdiff_t)g->ow * co;
    for (int o = 0; o < co; o += width)
        for (int r = 0; r < g->oh; r += whole ? g->oh : 1)
            l->k->conv_channels(l->p->k, l->off, g->kw, whole ? g->oh : 1, g->ow, x + (ptrdiff_t)r * l->row,
                                l->row, l->vectors, l->w + (size_t)o * (size_t)l->p->k,
                                l->bias ? l->bias + o : NULL, 1, out + r * row + o, co);
}

/* ---- forward ---- */

typedef struct {
    layer first;
    const tn_conv_chain *p;
    const tn_real *w2, *u, *bias;
    int chunks, h, w; /* h, w: of the second layer's input in its frame */
    tn_real *y, *scratch;
    unsigned char *winner;
    size_t scratch_len;
} forward_job;

static void forward_chunk(void *arg, int chunk) {
    const forward_job *j = arg;
    const tn_conv_plan *p = &j->p->second.conv;
    const tn_window *pool = &j->p->second.pool;
    tn_real *image = j->scratch + (size_t)tn_worker() * j->scratch_len;
    const ptrdiff_t row = (ptrdiff_t)j->w * p->g.c;
    const size_t out = (size_t)pool->c * (size_t)(pool->oh * pool->ow);
    memset(image, 0, (size_t)j->h * (size_t)row * sizeof *image);
    for (int n = (int)((long)p->n * chunk / j->chunks); n < (int)((long)p->n * (chunk + 1) / j->chunks);
         n++) {
        tn_real *y = j->y + (size_t)n * out;
        make(&j->first, n, image + p->g.ph * row + (ptrdiff_t)p->g.pw * p->g.c, row);
        tn_winograd_framed(j->first.k, p, j->w2, j->u, j->bias, 1, 1, y,
                           j->winner ? j->winner + (size_t)n * out : NULL, image);
        if (j->p->drop.p > 0) tn_dropout_row(&j->p->drop, (size_t)n, out, y, y);
    }
}

static int chunks_of(const tn_conv_chain *p) {
    return tn_conv_chunks(p->first.n);
}

void tn_conv_chain_forward(tn_tape *t, const tn_conv_chain *p, const tn_real *x,
                           const tn_conv_chain_weights *w, tn_real *y, unsigned char *winner) {
    tn_place place = tn_mark(t);
    const tn_conv_plan *second = &p->second.conv;
    forward_job j = {
        .first = layer_new(t, p, x, w), .p = p, .w2 = w->w2, .bias = w->b2, .y = y, .winner = winner};
    const tn_kernels_t *k = j.first.k;
    j.u = tn_winograd_kept(t, k, second, w->w2), j.chunks = chunks_of(p);
    tn_winograd_frame(second, &j.h, &j.w);
    j.scratch_len = tn_whole_lines(tn_winograd_scratch(k, second)) + LINE;
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    tn_parallel(j.chunks, forward_chunk, &j);
    tn_rewind(t, place);
}

/* ---- backward ---- */

static size_t sums_len(const tn_conv_plan *p) {
    return (size_t)(p->k + 1) * (size_t)p->co;
}

static void take(const void *arg, int n, int chunk, const tn_real *y, const tn_real *gy, ptrdiff_t row) {
    const layer *l = arg;
    const tn_window *g = &l->p->g;
    const tn_channels_dw s = {l->p->k, g->oh, g->ow, l->p->co, l->off, l->row, row};
    l->k->channels_dw(&s, input_of(l, n), y, gy, l->sums + (size_t)chunk * sums_len(l->p));
}

static void finish_first(const layer *l, int chunks, unsigned add, tn_real *gw, tn_real *gb) {
    const int taps = l->p->k, co = l->p->co;
    const size_t len = sums_len(l->p);
    if (gw)
        for (int o = 0; o < co; o++)
            for (int t = 0; t < taps; t++) {
                tn_real sum = 0, *to = gw + o * taps + t;
                for (int c = 0; c < chunks; c++) sum += l->sums[(size_t)c * len + (size_t)(t * co + o)];
                *to = add & 1 ? *to + sum : sum;
            }
    for (int o = 0; gb && o < co; o++) {
        double sum = 0;
        for (int c = 0; c < chunks; c++) sum += l->sums[(size_t)c * len + (size_t)(taps * co + o)];
        gb[o] = (tn_real)sum + (add & 2 ? gb[o] : 0);
    }
}

void tn_conv_chain_backward(tn_tape *t, const tn_conv_chain *p, const tn_real *x,
                            const tn_conv_chain_weights *w, const tn_real *y, const unsigned char *winner,
                            const tn_real *gy, unsigned add, const tn_conv_chain_grads *g) {
    tn_place place = tn_mark(t);
    const int chunks = chunks_of(p), first = g->w1 || g->b1;
    layer l = layer_new(t, p, x, w);
    if (first) {
        size_t bytes = (size_t)chunks * sums_len(&p->first) * sizeof *l.sums;
        l.sums = memset(tn_scratch(t, bytes), 0, bytes);
    }
    tn_conv_source from = {make, first ? take : NULL, &l, p->drop.p > 0 ? tn_dropout_scale(&p->drop) : 1};
    tn_conv_pool_backward_from(t, &p->second, &from, w->w2, y, winner, gy, add >> 1, g->w2, g->b2);
    if (first) finish_first(&l, chunks, add, g->w1, g->b1);
    tn_rewind(t, place);
}

/* SPDX-License-Identifier: MIT */
/*
 * Weight and bias gradients of act(conv2d(x, w) + b) where a sum has few terms: one pass over the gradient of each output
 * plane does ReLU's mask, the bias and all taps (kernels/conv_planes.c). Images are dealt to a fixed number of chunks, each
 * with its own sums, added up in order.
 */
#include "conv.h"
#include "kernels/kernels.h"
#include <string.h>

enum { CHUNKS = 16, MOST_TAPS = 50, LEAST_WIDTH = 8, ROOM = 64 };

int tn_conv_planes_fit(const tn_conv_plan *p) {
    const tn_window *g = &p->g;
    return tn_gemm_own() && p->groups == 1 && p->k <= MOST_TAPS && g->ow >= LEAST_WIDTH && g->sh == 1
           && g->sw == 1 && g->dh == 1 && g->dw == 1;
}

typedef struct {
    const tn_kernels_t *k;
    const tn_conv_plan *p;
    const tn_real *x, *y, *gy;
    int chunks,
        blocks; /* blocks: of TN_LANES pixels in a plane of the gradient, which has the pitch of the image */
    int row, plane;          /* of the image in its frame of zeros */
    int *off;                /* of each tap */
    tn_real *part, *scratch; /* (chunks, co, k, TN_LANES) sums */
    double *bias_part;
    size_t image_len, scratch_len;
    tn_real *gw, *gb;
    unsigned add;
} job;

static void frame(const job *j, const tn_real *x, tn_real *out) {
    const tn_window *g = &j->p->g;
    for (int c = 0; c < g->c; c++)
        for (int r = 0; r < g->h; r++, x += g->w)
            memcpy(out + (size_t)c * (size_t)j->plane + (size_t)((r + g->ph) * j->row + g->pw), x,
                   (size_t)g->w * sizeof *x);
}

static void planes_chunk(void *arg, int chunk) {
    const job *j = arg;
    const tn_conv_plan *p = j->p;
    const int co = p->co, taps = p->k;
    const size_t area = (size_t)p->g.oh * (size_t)p->g.ow, sums = (size_t)taps * TN_LANES;
    const size_t padded = (size_t)j->blocks * TN_LANES;
    tn_real *image = j->scratch + (size_t)tn_worker() * j->scratch_len, *g = image + j->image_len;
    tn_real *part = j->part + (size_t)chunk * (size_t)co * sums;
    double *bias = j->bias_part + (size_t)chunk * (size_t)co;
    memset(image, 0, j->scratch_len * sizeof *image);
    memset(part, 0, (size_t)co * sums * sizeof *part);
    memset(bias, 0, (size_t)co * sizeof *bias);
    for (int n = (int)((long)p->n * chunk / j->chunks); n < (int)((long)p->n * (chunk + 1) / j->chunks);
         n++) {
        frame(j, j->x + (size_t)n * (size_t)(p->g.c * p->g.h * p->g.w), image);
        for (int o = 0; o < co; o++) {
            const size_t at = ((size_t)n * (size_t)co + (size_t)o) * area;
            j->k->planes_gradient(p->g.oh, p->g.ow, j->gy + at, j->y ? j->y + at : NULL, g, j->row);
            if (j->gb) bias[o] += j->k->sum(padded, g);
            if (j->gw) j->k->planes_dw(taps, j->off, j->blocks, g, image, part + (size_t)o * sums);
        }
    }
}

static void sum_channel(void *arg, int o) {
    const job *j = arg;
    const int co = j->p->co, taps = j->p->k;
    const size_t sums = (size_t)taps * TN_LANES;
    if (j->gb) {
        double b = 0;
        for (int c = 0; c < j->chunks; c++) b += j->bias_part[(size_t)c * (size_t)co + (size_t)o];
        j->gb[o] = (tn_real)b + (j->add & 2 ? j->gb[o] : 0);
    }
    if (!j->gw) return;
    tn_real *sum = j->part + (size_t)o * sums, *gw = j->gw + (size_t)o * (size_t)taps;
    for (int c = 1; c < j->chunks; c++) j->k->accumulate(sums, sum + (size_t)c * (size_t)co * sums, sum);
    for (int t = 0; t < taps; t++, sum += TN_LANES) {
        for (int half = TN_LANES / 2; half; half /= 2)
            for (int l = 0; l < half; l++) sum[l] += sum[l + half];
        gw[t] = sum[0] + (j->add & 1 ? gw[t] : 0);
    }
}

void tn_conv_planes_grad(tn_tape *t, const tn_conv_plan *p, const tn_real *x, const tn_real *gy,
                         const tn_real *y, unsigned add, tn_real *gw, tn_real *gb) {
    const tn_place place = tn_mark(t);
    const tn_window *g = &p->g;
    job j = {.k = tn_kernels_get(NULL), .p = p, .x = x, .y = y, .gy = gy, .gw = gw, .gb = gb, .add = add};
    int n = 0;
    j.chunks = p->n < CHUNKS ? p->n : CHUNKS;
    j.row = g->w + 2 * g->pw, j.plane = j.row * (g->h + 2 * g->ph);
    j.blocks = (g->oh * j.row + TN_LANES - 1) / TN_LANES;
    j.off = tn_scratch(t, (size_t)p->k * sizeof *j.off);
    for (int c = 0; c < g->c; c++)
        for (int i = 0; i < g->kh; i++)
            for (int l = 0; l < g->kw; l++) j.off[n++] = c * j.plane + i * j.row + l;
    j.image_len = ((size_t)g->c * (size_t)j.plane + ROOM + 15) / 16 * 16;
    j.scratch_len = j.image_len + (size_t)j.blocks * TN_LANES + ROOM;
    j.scratch = tn_scratch(t, (size_t)tn_worker_slots() * j.scratch_len * sizeof *j.scratch);
    j.part = tn_scratch(t, (size_t)(j.chunks * p->co) * (size_t)p->k * TN_LANES * sizeof *j.part);
    j.bias_part = tn_scratch(t, (size_t)(j.chunks * p->co) * sizeof *j.bias_part);
    tn_parallel(j.chunks, planes_chunk, &j);
    tn_parallel(p->co, sum_channel, &j);
    tn_rewind(t, place);
}

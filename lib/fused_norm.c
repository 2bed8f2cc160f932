/* SPDX-License-Identifier: MIT */
/*
 * Batch norm. A channel belongs to one chunk of work, so its statistics are the whole batch's for any number of threads;
 * sums run in double, the variance over what is left after the mean has been taken off.
 */
#include "internal.h"
#include "kernels/kernels.h"
#include <math.h>

typedef struct {
    int n, channels;
    size_t positions;
    double eps;
    tn_real *mean, *scale; /* of each channel; scale: 1 / sqrt(var + eps) */
} norm_aux;

typedef struct {
    const norm_aux *a;
    const tn_kernels_t *k;
    const tn_real *x, *gy, *gain, *bias;
    tn_real *out, *var, *dgain, *dbias;
    unsigned add;
} norm_job;

static size_t slice_of(const norm_aux *a, int image, int channel) {
    return ((size_t)image * (size_t)a->channels + (size_t)channel) * a->positions;
}

static void forward_channel(void *arg, int c) {
    const norm_job *j = arg;
    const norm_aux *a = j->a;
    double count = (double)a->n * (double)a->positions, sum = 0, square = 0;
    for (int i = 0; i < a->n; i++) sum += j->k->sum(a->positions, j->x + slice_of(a, i, c));
    tn_real mean = a->mean[c] = (tn_real)(sum / count);
    for (int i = 0; i < a->n; i++) {
        const tn_real *x = j->x + slice_of(a, i, c);
        tn_real *y = j->out + slice_of(a, i, c);
        for (size_t p = 0; p < a->positions; p++) y[p] = x[p] - mean;
        square += j->k->sum_sq(a->positions, y);
    }
    double off = sum / count - (double)mean; /* what rounding the mean left */
    double var = square / count - off * off;
    if (var < 0) var = 0; /* NaN stays */
    a->scale[c] = (tn_real)(1 / sqrt(var + a->eps));
    if (j->var) j->var[c] = (tn_real)(var * count / (count - 1));
    tn_real scale = a->scale[c] * (j->gain ? j->gain[c] : 1), bias = j->bias ? j->bias[c] : 0;
    for (int i = 0; i < a->n; i++) {
        tn_real *y = j->out + slice_of(a, i, c);
        for (size_t p = 0; p < a->positions; p++) y[p] = y[p] * scale + bias;
    }
}

/* Sums of gy and of gy times the normalised input over one channel. */
static void channel_sums(const norm_job *j, int c, double *plain, double *with_x) {
    enum { LANES = 8 };
    const norm_aux *a = j->a;
    double g[LANES] = {0}, gx[LANES] = {0};
    double mean = (double)a->mean[c];
    for (int i = 0; i < a->n; i++) {
        const tn_real *x = j->x + slice_of(a, i, c), *gy = j->gy + slice_of(a, i, c);
        size_t p = 0;
        for (; p + LANES <= a->positions; p += LANES)
            for (int l = 0; l < LANES; l++) {
                g[l] += (double)gy[p + (size_t)l];
                gx[l] += (double)gy[p + (size_t)l] * ((double)x[p + (size_t)l] - mean);
            }
        for (; p < a->positions; p++) g[0] += (double)gy[p], gx[0] += (double)gy[p] * ((double)x[p] - mean);
    }
    for (int l = 1; l < LANES; l++) g[0] += g[l], gx[0] += gx[l];
    *plain = g[0], *with_x = gx[0] * (double)a->scale[c];
}

static void put(tn_real *to, int c, double value, unsigned add) {
    if (to) to[c] = (tn_real)value + (add ? to[c] : 0);
}

static void backward_channel(void *arg, int c) {
    const norm_job *j = arg;
    const norm_aux *a = j->a;
    double count = (double)a->n * (double)a->positions, plain, with_x;
    channel_sums(j, c, &plain, &with_x);
    put(j->dgain, c, with_x, j->add & 2), put(j->dbias, c, plain, j->add & 4);
    if (!j->out) return;
    tn_real mean = a->mean[c], scale = a->scale[c], slope = scale * (j->gain ? j->gain[c] : 1);
    tn_real of_one = (tn_real)(plain / count), of_x = (tn_real)(with_x / count * (double)scale);
    for (int i = 0; i < a->n; i++) {
        size_t at = slice_of(a, i, c);
        const tn_real *x = j->x + at, *gy = j->gy + at;
        tn_real *out = j->out + at;
        for (size_t p = 0; p < a->positions; p++) {
            tn_real g = slope * (gy[p] - of_one - (x[p] - mean) * of_x);
            out[p] = j->add & 1 ? out[p] + g : g;
        }
    }
}

static void norm_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const norm_aux *a = y->aux;
    const tn_t *gain = y->src[1];
    norm_job j = {.a = a,
                  .x = y->src[0]->x,
                  .gy = gy,
                  .gain = gain ? gain->x : NULL,
                  .out = need & 1 ? gx[0] : NULL,
                  .dgain = need & 2 ? gx[1] : NULL,
                  .dbias = need & 4 ? gx[2] : NULL,
                  .add = add};
    tn_parallel(a->channels, backward_channel, &j);
}

static tn_t *per_channel(tn_t *v) {
    return tn_reshape(v, 2, (int[]){v->dim[0], 1});
}

static tn_t *norm_expand(tn_t *y) {
    const norm_aux *a = y->aux;
    int dim[3] = {a->n, a->channels, (int)a->positions}, one[3] = {1, a->channels, 1};
    double count = (double)a->n * (double)a->positions;
    tn_t *x = tn_reshape(y->src[0], 3, dim);
    tn_t *d = tn_sub(x, tn_scale(tn_sum_to(x, 3, one), 1 / count));
    tn_t *var = tn_scale(tn_sum_to(tn_square(d), 3, one), 1 / count);
    tn_t *z = tn_div(d, tn_sqrt(tn_shift(var, a->eps)));
    if (y->src[1]) z = tn_mul(z, per_channel(y->src[1]));
    if (y->src[2]) z = tn_add(z, per_channel(y->src[2]));
    return tn_reshape(z, y->nd, y->dim);
}

static const tn_op op_norm = {.name = "batch_norm", .expand = norm_expand, .bwd = norm_bwd};

static void check(const tn_t *x, int n, const tn_t *const channel[]) {
    char shape[64], other[64];
    tn_shape_text(x, shape);
    TN_CHECK(x->tape, x->nd == 2 || x->nd == 4,
             "batch_norm: the input has shape %s; it must be (n, c) or (n, c, h, w)", shape);
    for (int i = 0; i < n; i++) {
        if (!channel[i]) continue;
        tn_shape_text(channel[i], other);
        TN_CHECK(x->tape, channel[i]->nd == 1 && channel[i]->dim[0] == x->dim[1],
                 "batch_norm: the input %s needs gain, bias and statistics of shape (%d,), not %s", shape,
                 x->dim[1], other);
    }
}

tn_t *tn_batch_norm(tn_t *x, tn_t *gain, tn_t *bias, double eps, tn_t **mean, tn_t **var) {
    tn_tape *t = x->tape;
    check(x, 2, (const tn_t *const[]){gain, bias});
    norm_aux a = {.n = x->dim[0],
                  .channels = x->dim[1],
                  .positions = x->nd == 4 ? (size_t)x->dim[2] * (size_t)x->dim[3] : 1,
                  .eps = eps};
    TN_CHECK(t, x->len > (size_t)a.channels,
             "batch_norm: one value a channel has no variance: a batch of one sample cannot be trained on");
    tn_t *m = tn_new(t, 1, &a.channels), *v = var ? tn_new(t, 1, &a.channels) : NULL,
         *y = tn_new(t, x->nd, x->dim);
    a.mean = m->x, a.scale = tn_scratch(t, (size_t)a.channels * sizeof *a.scale);
    norm_job j = {.a = &a,
                  .k = tn_kernels_get(NULL),
                  .x = x->x,
                  .gain = gain ? gain->x : NULL,
                  .bias = bias ? bias->x : NULL,
                  .out = y->x,
                  .var = v ? v->x : NULL};
    tn_parallel(a.channels, forward_channel, &j);
    if (mean) *mean = tn_result(NULL, m, 0, NULL, NULL, 0);
    if (var) *var = tn_result(NULL, v, 0, NULL, NULL, 0);
    return tn_result(&op_norm, y, 3, (tn_t *[]){x, gain, bias}, &a, sizeof a);
}

tn_t *tn_batch_norm_fixed(tn_t *x, tn_t *gain, tn_t *bias, tn_t *mean, tn_t *var, double eps) {
    check(x, 4, (const tn_t *const[]){gain, bias, mean, var});
    tn_t *root = tn_sqrt(tn_shift(var, eps)), *scale = tn_div(gain ? gain : tn_const(x->tape, 1), root);
    tn_t *shift = tn_neg(tn_mul(mean, scale));
    if (bias) shift = tn_add(bias, shift);
    int dim[3] = {x->dim[1], 1, 1}, nd = x->nd == 4 ? 3 : 1;
    return tn_add(tn_mul(x, tn_reshape(scale, nd, dim)), tn_reshape(shift, nd, dim));
}

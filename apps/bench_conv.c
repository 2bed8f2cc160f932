/* SPDX-License-Identifier: MIT */
/*
 * tern bench conv: convolution alone, layer by layer: forward, input gradient and weight gradient of tern's op, beside
 * the usual way in the same process, windows copied to columns (im2col) and OpenBLAS' product, an image at a time on
 * as many threads.
 */
#include "bench.h"
#include "im2col.h"
#include "run_state.h"
#include "signals.h"
#include "tape.h"
#include <cblas.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* pooled: with ReLU and 2 x 2 max pooling after it, as in the model: one op, which no zero of its gradient costs time. */
typedef struct {
    int n, ci, h, w, co, k, stride, pad, pooled;
    const char *name;
} layer;

/* n 0: --batch */
static const layer table[] = {
    {0, 1, 28, 28, 6, 5, 1, 2, 1, "lenet conv1+pool"}, {0, 6, 14, 14, 16, 5, 1, 0, 1, "lenet conv2+pool"},
    {0, 1, 28, 28, 32, 3, 1, 0, 0, "cnn conv1"},       {0, 32, 26, 26, 64, 3, 1, 0, 1, "cnn conv2+pool"},
    {0, 1, 28, 28, 16, 3, 1, 1, 0, "resnet conv1"},    {0, 16, 28, 28, 16, 3, 1, 1, 0, "resnet stage 1"},
    {0, 16, 28, 28, 32, 3, 2, 1, 0, "resnet to 2"},    {0, 32, 14, 14, 32, 3, 1, 1, 0, "resnet stage 2"},
    {0, 16, 28, 28, 32, 1, 2, 0, 0, "resnet down 2"},  {0, 32, 14, 14, 64, 3, 2, 1, 0, "resnet to 3"},
    {0, 64, 7, 7, 64, 3, 1, 1, 0, "resnet stage 3"},   {0, 32, 14, 14, 64, 1, 2, 0, 0, "resnet down 3"},
};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

typedef struct {
    bench_options common;
    char given[16][64];
    long batch;
} options;

static const arg rows[] = {
    ARG_MANY(
        options, given, "shape", "CIxHxWxCOxK", 16,
        "channels, height and width of the input, filters and their size; sN and pN may follow: stride and "
        "padding; may be repeated [the layers of lenet, cnn and resnet]"),
    ARG_INT(options, batch, "batch", 128, 1, 4096, "images"), BENCH_ARGS(options, common, 3, 0.02), ARG_END};

enum { FORWARD, INPUT_GRAD, WEIGHT_GRAD, PASSES };
static const char *const pass_name[PASSES] = {"forward", "input_gradient", "weight_gradient"};

typedef struct {
    layer l;
    double ops; /* of any of the three */
    tn_tape *tape;
    tn_params *params;
    tn_conv_layer conv;
    tn_t *y; /* the op's result: what its backward needs */
    tn_real *x, *gy,
        *out[2];        /* gy: of the convolution; out: own, reference; large enough for any of the three */
    tn_tape *aside;     /* of what stands beside the measurements */
    tn_real *gy_pooled; /* of the pooled result */
    const tn_real *gy_own; /* what the op's backward gets: the one or the other */
    tn_window g;
    tn_real *col, *part; /* columns, and a weight gradient, of every chunk of images */
} work;

/* ---- tern's own ---------------------------------------------------------------------------------------- */

/* What a training step calls: the op with new weights; the numeric backward, for the gradient that is asked for. */
static void own(work *w, int pass, tn_real *out) {
    const tn_pool two = tn_pool_square(2);
    if (pass == FORWARD) {
        tn_tape_reset(w->tape);
        tn_params_touch(w->params);
        tn_t *x = tn_view(w->tape, w->x, 4, (int[]){w->l.n, w->l.ci, w->l.h, w->l.w});
        tn_result(NULL, x, 0, NULL, NULL, 0)->needs = 1;
        w->y = w->l.pooled ? tn_conv_pool_fwd(&w->conv, x, TN_ACT_RELU, &two)
                           : tn_conv_fwd(&w->conv, x, TN_ACT_NONE);
        return;
    }
    tn_real *gx[3] = {out, out, NULL};
    tn_place place = tn_mark(w->tape);
    w->y->op->bwd(w->y, w->gy_own, gx, pass == INPUT_GRAD ? 1 : 2, 0);
    tn_rewind(w->tape, place);
}

/* ---- The reference ------------------------------------------------------------------------------------- */

enum { CHUNK = 8 }; /* images */

typedef struct {
    const work *w;
    int pass;
    tn_real *out;
} columns_job;

static void product(CBLAS_TRANSPOSE ta, CBLAS_TRANSPOSE tb, int m, int n, int k, const tn_real *a,
                    const tn_real *b, int add, tn_real *c) {
    cblas_sgemm(CblasRowMajor, ta, tb, m, n, k, 1, a, ta == CblasTrans ? m : k, b, tb == CblasTrans ? k : n,
                (float)add, c, n);
}

static void columns_chunk(void *arg, int chunk) {
    const columns_job *j = arg;
    const work *w = j->w;
    const tn_window *g = &w->g;
    int k = g->c * g->kh * g->kw, p = g->oh * g->ow, last = (chunk + 1) * CHUNK;
    size_t in = (size_t)g->c * (size_t)g->h * (size_t)g->w, out = (size_t)w->l.co * (size_t)p;
    tn_real *col = w->col + (size_t)chunk * (size_t)k * (size_t)p, *weight = w->conv.weight->w;
    tn_real *part = w->part + (size_t)chunk * w->conv.weight->len;
    for (int i = chunk * CHUNK; i < last && i < w->l.n; i++) {
        const tn_real *gy = w->gy + (size_t)i * out;
        if (j->pass == INPUT_GRAD) {
            tn_real *gx = j->out + (size_t)i * in;
            product(CblasTrans, CblasNoTrans, k, p, w->l.co, weight, gy, 0, col);
            memset(gx, 0, in * sizeof *gx);
            tn_col2im(g, col, 0, g->oh, gx);
            continue;
        }
        tn_im2col(g, w->x + (size_t)i * in, 0, g->oh, col);
        if (j->pass == FORWARD)
            product(CblasNoTrans, CblasNoTrans, w->l.co, p, k, weight, col, 0, j->out + (size_t)i * out);
        else
            product(CblasNoTrans, CblasTrans, w->l.co, k, p, gy, col, i > chunk * CHUNK, part);
    }
}

static int chunks(const layer *l) {
    return (l->n + CHUNK - 1) / CHUNK;
}

static void columns(work *w, int pass, tn_real *out) {
    columns_job j = {w, pass, out};
    size_t len = w->conv.weight->len;
    tn_parallel(chunks(&w->l), columns_chunk, &j);
    if (pass == WEIGHT_GRAD) memcpy(out, w->part, len * sizeof *out);
    for (int c = 1; pass == WEIGHT_GRAD && c < chunks(&w->l); c++)
        for (size_t i = 0; i < len; i++) out[i] += w->part[(size_t)c * len + i];
}

/* ---- One layer ----------------------------------------------------------------------------------------- */

static tn_real *reals(size_t n) {
    return tn_mem_aligned(n * sizeof(tn_real));
}

/* Numbers in [-1/2, 1/2). */
static void fill(tn_real *x, size_t n, const char *name) {
    tn_rng r = tn_rng_make(1, "bench", name, 0, 0);
    for (size_t i = 0; i < n; i++) x[i] = (tn_real)(tn_uniform(&r) - 0.5);
}

/* ReLU and pooling of a convolution's result z, by the plain ops; g (NULL: none) gets the gradient gp seen from z. */
static tn_t *pooled(const work *w, const tn_real *z, const tn_real *gp, tn_real *g) {
    const tn_pool two = tn_pool_square(2);
    tn_tape_reset(w->aside);
    tn_t *leaf = tn_leaf(w->aside, z, 4, (int[]){w->l.n, w->l.co, w->g.oh, w->g.ow}), *dz;
    tn_t *y = tn_max_pool2d(tn_relu(leaf), &two);
    if (g) {
        tn_grad(y, tn_input(w->aside, gp, 4, y->dim), 1, &leaf, &dz, 0);
        memcpy(g, dz->x, dz->len * sizeof *g);
    }
    return y;
}

/* Euclidean, relative. */
static double difference(const tn_real *a, const tn_real *b, size_t n) {
    double d = 0, size = 0;
    for (size_t i = 0; i < n; i++) {
        d += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        size += (double)b[i] * (double)b[i];
    }
    return sqrt(d / size);
}

/*
 * What is measured must be the same thing. Not to the last digits: where two numbers of a window are nearly equal,
 * rounding decides which one the gradient goes to.
 */
static int check(work *w, size_t x, tn_err *e) {
    const size_t len[PASSES] = {0, x, w->conv.weight->len};
    columns(w, FORWARD, w->out[1]);
    own(w, FORWARD, NULL);
    const tn_real *y = w->l.pooled ? pooled(w, w->out[1], w->gy_own, w->gy)->x : w->out[1];
    double d = difference(w->y->x, y, w->y->len);
    for (int pass = INPUT_GRAD; pass < PASSES && d < 0.02; pass++) {
        own(w, pass, w->out[0]);
        columns(w, pass, w->out[1]);
        d = difference(w->out[0], w->out[1], len[pass]);
    }
    return d < 0.02 ? 0 : tn_fail(e, "%s: differs from im2col by %.2g", w->l.name, d);
}

static int open_work(work *w, const layer *l, tn_err *e) {
    *w = (work){.l = *l, .tape = tn_tape_new(e), .aside = tn_tape_new(e), .params = tn_params_new()};
    if (!w->tape || !w->aside || !w->params) return -1;
    tn_conv c = tn_conv_valid();
    c.stride[0] = c.stride[1] = l->stride, c.pad[0] = c.pad[1] = l->pad;
    int oh = tn_window_out(l->h, l->k, l->stride, l->pad, 1),
        ow = tn_window_out(l->w, l->k, l->stride, l->pad, 1);
    w->g = (tn_window){l->ci, l->h, l->w, l->k, l->k, oh, ow, l->stride, l->stride, l->pad, l->pad, 1, 1};
    size_t x = (size_t)l->n * (size_t)l->ci * (size_t)l->h * (size_t)l->w;
    size_t y = (size_t)l->n * (size_t)l->co * (size_t)oh * (size_t)ow, most = x > y ? x : y;
    size_t k = (size_t)l->ci * (size_t)l->k * (size_t)l->k, weights = k * (size_t)l->co,
           parts = (size_t)chunks(l);
    w->conv = tn_conv_new(w->params, "conv", l->ci, l->co, l->k, c, 0);
    if (tn_params_seal(w->params, 1, e)) return -1;
    if (weights > most) most = weights;
    w->ops = 2.0 * (double)y * (double)k;
    w->x = reals(x), w->gy = reals(y), w->gy_pooled = reals(y), w->out[0] = reals(most),
    w->out[1] = reals(most);
    w->col = reals(parts * k * (size_t)(oh * ow)), w->part = reals(parts * weights);
    if (!w->x || !w->gy || !w->gy_pooled || !w->out[0] || !w->out[1] || !w->col || !w->part)
        return tn_fail(e, "not enough memory for %s", l->name);
    fill(w->x, x, "x"), fill(w->gy, y, "gy");
    w->gy_own = w->gy;
    if (l->pooled) {
        fill(w->gy_pooled, y, "pooled");
        w->gy_own = w->gy_pooled;
    }
    return check(w, x, e);
}

static void close_work(work *w) {
    tn_tape_free(w->tape);
    tn_tape_free(w->aside);
    tn_params_free(w->params);
    tn_real *all[] = {w->x, w->gy, w->gy_pooled, w->out[0], w->out[1], w->col, w->part};
    for (int i = 0; i < COUNT(all); i++) tn_mem_aligned_free(all[i]);
}

typedef void pass_fn(work *, int pass, tn_real *out);

/* Operations a second. */
static double rate(work *w, pass_fn *fn, int pass, double seconds) {
    double start = now_seconds(), took;
    long n = 0;
    do fn(w, pass, w->out[0]), n++;
    while ((took = now_seconds() - start) < seconds);
    return w->ops * (double)n / took;
}

/* ---- The table ----------------------------------------------------------------------------------------- */

typedef struct {
    double own, columns, percent;
} speed;

static void show(bench *b, const work *w, int threads, const speed s[PASSES], double limit) {
    const layer *l = &w->l;
    json_t *row = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:b, s:i, s:f}", "layer", l->name,
                            "batch", l->n, "channels", l->ci, "height", l->h, "width", l->w, "filters", l->co,
                            "kernel", l->k, "stride", l->stride, "padding", l->pad, "pooled", l->pooled,
                            "threads", threads, "limit_gflops", limit / 1e9);
    for (int i = 0; i < PASSES; i++)
        json_object_set_new(row, pass_name[i],
                            json_pack("{s:f, s:f, s:f}", "own", s[i].own / 1e9, "im2col_openblas",
                                      s[i].columns / 1e9, "percent_of_limit", s[i].percent));
    const char *mark = bench_row_end(b, row);
    if (b->o->json) return;
    if (printf("%-18s", l->name) > 18) printf("\n%18s", "");
    printf(" %3d", threads);
    for (int i = 0; i < PASSES; i++) printf(" %7.1f %6.1f", s[i].own / 1e9, s[i].columns / 1e9);
    printf(" %4.0f%4.0f%4.0f%s\n", bench_column(s[0].percent), bench_column(s[1].percent),
           bench_column(s[2].percent), mark);
    fflush(stdout);
}

static void measure(bench *b, work *w, int threads) {
    static double v[PASSES][3][BENCH_MAX_REPEAT], limit[BENCH_MAX_REPEAT];
    speed s[PASSES];
    int n = 0;
    bench_row_begin(b, threads);
    for (; n < b->o->repeat && !signal_stop; n++) {
        limit[n] = bench_limit(b, threads, b->o->seconds / 2);
        for (int pass = 0; pass < PASSES; pass++) {
            v[pass][0][n] = rate(w, own, pass, b->o->seconds);
            v[pass][1][n] = rate(w, columns, pass, b->o->seconds);
            v[pass][2][n] = 100 * v[pass][0][n] / limit[n];
        }
    }
    if (signal_stop) return;
    for (int pass = 0; pass < PASSES; pass++)
        s[pass] =
            (speed){bench_median(v[pass][0], n), bench_median(v[pass][1], n), bench_median(v[pass][2], n)};
    show(b, w, threads, s, bench_median(limit, n));
}

/* "32x26x26x64x3", "16x28x28x32x3s2p1": 0, or -1. */
static int parse_shape(const char *text, layer *l) {
    long v[7] = {0, 0, 0, 0, 0, 1, 0};
    const char *at = text;
    for (int i = 0; i < 5; i++) {
        char *end;
        v[i] = strtol(at, &end, 10);
        if (end == at || v[i] < 1 || v[i] > 1024 || (i < 4 && *end != 'x')) return -1;
        at = end + (i < 4);
    }
    while (*at == 's' || *at == 'p') {
        char *end;
        long x = strtol(at + 1, &end, 10), *to = &v[*at == 's' ? 5 : 6];
        if (end == at + 1 || x < (*at == 's') || x > 64) return -1;
        *to = x, at = end;
    }
    *l = (layer){0, (int)v[0], (int)v[1], (int)v[2], (int)v[3], (int)v[4], (int)v[5], (int)v[6], 0, text};
    return *at || tn_window_out(l->h, l->k, l->stride, l->pad, 1) < 1
                   || tn_window_out(l->w, l->k, l->stride, l->pad, 1) < 1
               ? -1
               : 0;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static options o;
    args_rest rest;
    bench b;
    layer chosen[16];
    int n = 0, code = args_parse(cmd, &o, argc, argv, &rest);
    char head[160];
    if (code >= 0) return code;
    for (; n < 16 && o.given[n][0]; n++)
        if (parse_shape(o.given[n], &chosen[n]))
            return args_usage_error(
                cmd, "--shape: '%.60s' is not CIxHxWxCOxK, such as 32x26x26x64x3 or 16x28x28x32x3s2p1",
                o.given[n]);
    if (!n) memcpy(chosen, table, sizeof table), n = COUNT(table);
    tn_gemm_backend("own", NULL); /* also where "auto" would be OpenBLAS */
    snprintf(head, sizeof head, "convolution, float, batch %ld, GFLOP/s; median of %ld x %g s", o.batch,
             o.common.repeat, o.common.seconds);
    code = bench_begin(&b, cmd, &o.common, head);
    if (code >= 0) return code;
    if (!o.common.json)
        printf("%-18s %3s %7s %6s %7s %6s %7s %6s %4s%4s%4s\n", "layer", "thr", "forward", "im2col", "dx",
               "im2col", "dw", "im2col", "fw%", "dx%", "dw%");
    code = EXIT_OK;
    for (int i = 0; i < n && code == EXIT_OK && !signal_stop; i++) {
        work w;
        tn_err e;
        chosen[i].n = (int)o.batch;
        if (open_work(&w, &chosen[i], &e)) code = args_failed(cmd, &e);
        for (int k = 0; k < b.n && code == EXIT_OK && !signal_stop; k++) measure(&b, &w, b.threads[k]);
        close_work(&w);
    }
    return bench_end(&b, code);
}

const command bench_conv = {
    "bench conv",
    "Convolution alone, layer by layer, beside im2col and OpenBLAS.",
    "[options]",
    "GFLOP/s of forward, input gradient (dx) and weight gradient (dw), each beside\n"
    "windows copied to columns and multiplied by OpenBLAS in the same process on as\n"
    "many threads. All by the operations of the direct algorithm, 2 a multiply-add\n"
    "(Winograd's needs fewer, and so does a gradient whose zeros are skipped). +pool:\n"
    "tern's op includes ReLU and 2 x 2 max pooling, as in the model, and gradients\n"
    "come through them; the other way is the products alone. fw%, dx%, dw%: percent\n"
    "of fused multiply-adds on registers alone (tern bench train --help).\n",
    rows,
    0,
    run_command};

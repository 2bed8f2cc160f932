/* SPDX-License-Identifier: MIT */
/*
 * tern bench gemm: products alone, shape by shape: tern's kernels with B packed before and with B packed on the way,
 * beside OpenBLAS in the same process on as many threads, in turns with each other and with the machine's limit.
 */
#include "bench.h"
#include "internal.h"
#include "run_state.h"
#include "signals.h"
#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/*
 * C (m, n) = A (m, k) B (k, n). A and B as they lie in memory, row major: 'n' as they are, 't' transposed. A layer's
 * forward pass is x w' (B transposed), its input gradient gy w, its weight gradient gy' x (A transposed).
 */
typedef struct {
    int m, n, k;
    char ta, tb;
    char what[18];
} shape;

/* What OpenBLAS and tern's first kernels were measured with. */
static const shape reference[] = {
    {64, 128, 784, 'n', 't', "reference"},  {128, 512, 784, 'n', 't', "reference"},
    {32, 512, 784, 'n', 't', "reference"},  {512, 784, 128, 't', 'n', "reference"},
    {64, 512, 128, 'n', 't', "reference"},  {64, 9216, 128, 'n', 'n', "reference"},
    {64, 128, 9216, 'n', 't', "reference"},
};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static const char *const usual[] = {
    "mlp:hidden=128", "mlp:hidden=512/256", "lenet", "cnn", "rnn", "gru", "lstm"};

typedef struct {
    bench_options common;
    char given[16][64], model[8][CONFIG_SPEC], batch[256];
} options;

static const arg rows[] = {
    ARG_MANY(options, given, "shape", "MxNxK", 16,
             "C (m, n) = A (m, k) B (k, n); may be repeated; 64tx9x5 takes A transposed, 64x9tx5 B [those of "
             "the models]"),
    ARG_MANY(options, model, "model", "SPEC", 8,
             "the linear and recurrent layers of this model; may be repeated [those of tern bench train]"),
    ARG_TEXT(options, batch, "batch", "LIST", "128/32", "for which batches, separated by '/'"),
    BENCH_ARGS(options, common, 3, 0.01), ARG_END};

/* ---- Shapes -------------------------------------------------------------------------------------------- */

typedef struct {
    shape s[256];
    int n;
} shape_list;

/* Once each. */
static void add_shape(shape_list *l, int m, int n, int k, char ta, char tb, const char *model,
                      const char *layer, const char *pass) {
    for (int i = 0; i < l->n; i++) {
        const shape *s = &l->s[i];
        if (s->m == m && s->n == n && s->k == k && s->ta == ta && s->tb == tb) return;
    }
    if (l->n == COUNT(l->s)) return;
    shape *s = &l->s[l->n++];
    *s = (shape){m, n, k, ta, tb, ""};
    snprintf(s->what, sizeof s->what, "%s %s%s", model, layer, pass);
}

/*
 * The products of a training step, from the shapes of the weights: (out, in) of a linear layer; of a recurrent one
 * weight_ih for all steps at once, weight_hh step by step forward and back, and its gradient over all steps.
 */
static void add_layers(shape_list *l, const tn_model *m, int batch) {
    int steps = m->shape.dim[1];
    for (int i = 0; i < tn_params_count(m->params); i++) {
        const tn_param *p = tn_params_at(m->params, i);
        const char *dot = strrchr(p->name, '.'), *name = m->def->name;
        if (p->nd != 2 || !dot) continue;
        int out = p->dim[0], in = p->dim[1];
        int ih = strncmp(dot, ".weight_ih", 10) == 0, hh = strncmp(dot, ".weight_hh", 10) == 0;
        char layer[TN_MAX_NAME];
        snprintf(layer, sizeof layer, "%.*s", ih || hh ? 2 : (int)(dot - p->name),
                 ih || hh ? dot + 8 : p->name);
        add_shape(l, ih ? steps * batch : batch, out, in, 'n', 't', name, layer, "");
        if (i > 0) add_shape(l, ih ? steps * batch : batch, in, out, 'n', 'n', name, layer, " dx");
        add_shape(l, out, in, ih || hh ? steps * batch : batch, 't', 'n', name, layer, " dw");
    }
}

/* ---- One product, three ways --------------------------------------------------------------------------- */

enum { PACKED, RAW, BLAS, WAYS };
static const char *const way_name[WAYS] = {"packed", "unpacked", "openblas"};

typedef struct {
    shape s;
    tn_gemm_args g; /* B not packed */
    tn_real *a, *b, *c, *packed;
    int threads;
} product;

static void multiply(const product *p, int way) {
    tn_gemm_args g = p->g;
    if (way == BLAS) {
        int ta = p->s.ta == 't', tb = p->s.tb == 't';
        cblas_sgemm(CblasRowMajor, ta ? CblasTrans : CblasNoTrans, tb ? CblasTrans : CblasNoTrans, g.m, g.n,
                    g.k, 1, p->a, ta ? g.m : g.k, p->b, tb ? g.k : g.n, 0, p->c, g.n);
        return;
    }
    if (way == PACKED) g.packed_b = p->packed;
    tn_gemm(&g);
}

static int open_product(product *p, const shape *s, tn_err *e) {
    size_t a = (size_t)s->m * (size_t)s->k, b = (size_t)s->n * (size_t)s->k, c = (size_t)s->m * (size_t)s->n;
    int ta = s->ta == 't', tb = s->tb == 't';
    *p = (product){.s = *s,
                   .a = tn_mem_aligned(a * sizeof(tn_real)),
                   .b = tn_mem_aligned(b * sizeof(tn_real)),
                   .c = tn_mem_aligned(c * sizeof(tn_real)),
                   .packed = tn_mem_aligned(tn_gemm_packed_len(s->n, s->k) * sizeof(tn_real))};
    if (!p->a || !p->b || !p->c || !p->packed)
        return tn_fail(e, "not enough memory for a product of %d x %d x %d", s->m, s->n, s->k);
    for (size_t i = 0; i < a; i++) p->a[i] = (tn_real)(i * 7 % 13) / 13 - (tn_real)0.5;
    for (size_t i = 0; i < b; i++) p->b[i] = (tn_real)(i * 5 % 17) / 17 - (tn_real)0.5;
    p->g = (tn_gemm_args){.m = s->m,
                          .n = s->n,
                          .k = s->k,
                          .a = p->a,
                          .ars = ta ? 1 : s->k,
                          .acs = ta ? s->m : 1,
                          .b = p->b,
                          .brs = tb ? 1 : s->n,
                          .bcs = tb ? s->k : 1,
                          .c = p->c,
                          .ldc = s->n};
    tn_gemm_pack(s->n, s->k, p->b, p->g.brs, p->g.bcs, p->packed);
    return 0;
}

static void close_product(product *p) {
    tn_mem_aligned_free(p->a);
    tn_mem_aligned_free(p->b);
    tn_mem_aligned_free(p->c);
    tn_mem_aligned_free(p->packed);
}

enum { SETTLE = 25000000 }; /* ns that OpenBLAS' threads go on spinning for after their last product */

/* Operations a second. */
static double rate(const product *p, int way, double seconds) {
    double start, took, ops = 2.0 * p->s.m * p->s.n * p->s.k;
    long n = 0, many = (long)(1e6 / ops) + 1; /* products between two readings of the clock */
    int was = openblas_get_num_threads();
    if (way == BLAS) openblas_set_num_threads(p->threads);
    multiply(p, way);
    start = now_seconds();
    do
        for (long i = 0; i < many; i++, n++) multiply(p, way);
    while ((took = now_seconds() - start) < seconds);
    if (way == BLAS) {
        openblas_set_num_threads(was);
        if (p->threads > 1) nanosleep(&(struct timespec){0, SETTLE}, NULL);
    }
    return ops * (double)n / took;
}

/* ---- The table ----------------------------------------------------------------------------------------- */

static void shape_text(const shape *s, char out[64]) {
    snprintf(out, 64, "%d%sx%d%sx%d", s->m, s->ta == 't' ? "t" : "", s->n, s->tb == 't' ? "t" : "", s->k);
}

static void show(bench *b, const product *p, double speed[WAYS], const bench_stat *percent, double limit) {
    char name[64];
    shape_text(&p->s, name);
    const char *mark =
        bench_row_end(b, json_pack("{s:s, s:i, s:i, s:i, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "shape",
                                   name, "m", p->s.m, "n", p->s.n, "k", p->s.k, "what", p->s.what, "threads",
                                   p->threads, way_name[PACKED], speed[PACKED] / 1e9, way_name[RAW],
                                   speed[RAW] / 1e9, way_name[BLAS], speed[BLAS] / 1e9, "percent_of_limit",
                                   percent->median, "spread", percent->spread, "limit_gflops", limit / 1e9));
    if (b->o->json) return;
    printf("%-16s %3d %8.1f %8.1f %8.1f %5.0f%% %4.0f%%  %s%s\n", name, p->threads, speed[PACKED] / 1e9,
           speed[RAW] / 1e9, speed[BLAS] / 1e9, bench_column(percent->median),
           bench_column(100 * percent->spread), p->s.what, mark);
    fflush(stdout);
}

static void measure(bench *b, product *p, int threads) {
    static double v[WAYS][BENCH_MAX_REPEAT], limit[BENCH_MAX_REPEAT], percent[BENCH_MAX_REPEAT];
    double speed[WAYS];
    int n = 0;
    p->threads = threads;
    bench_row_begin(b, threads);
    for (; n < b->o->repeat && !signal_stop; n++) {
        limit[n] = bench_limit(b, threads, b->o->seconds);
        for (int way = 0; way < WAYS; way++) v[way][n] = rate(p, way, b->o->seconds);
        percent[n] = 100 * v[PACKED][n] / limit[n];
    }
    if (signal_stop) return;
    for (int way = 0; way < WAYS; way++) speed[way] = bench_median(v[way], n);
    bench_stat of_limit = bench_stats(percent, n);
    show(b, p, speed, &of_limit, bench_median(limit, n));
}

/* "64x128x784", "512tx784x128": 0, or -1. */
static int parse_shape(const char *text, shape *s) {
    int v[3];
    char flip[2] = {'n', 'n'};
    for (int i = 0; i < 3; i++) {
        char *end;
        long x = strtol(text, &end, 10);
        if (end == text || x < 1 || x > 1 << 20) return -1;
        if (i < 2 && *end == 't') flip[i] = 't', end++;
        if (*end != (i < 2 ? 'x' : 0)) return -1;
        v[i] = (int)x;
        text = end + 1;
    }
    *s = (shape){v[0], v[1], v[2], flip[0], flip[1], ""};
    return 0;
}

/* What the options ask for; -1: go on, else the exit code. */
static int choose(const command *cmd, const options *o, shape_list *l) {
    const tn_model_shape mnist = {3, {1, 28, 28}, 10};
    int batch[BENCH_MAX_LIST], batches = bench_list(o->batch, batch, 10000);
    tn_err e;
    if (!batches) return bench_list_error(cmd, "batch", o->batch, 10000);
    for (int i = 0; i < COUNT(o->given) && o->given[i][0]; i++)
        if (parse_shape(o->given[i], &l->s[l->n++]))
            return args_usage_error(cmd, "--shape: '%.60s' is not MxNxK, such as 64x128x784", o->given[i]);
    int all = !o->given[0][0] && !o->model[0][0];
    if (all) memcpy(l->s, reference, sizeof reference), l->n = COUNT(reference);
    for (int i = 0; all ? i < COUNT(usual) : i < COUNT(o->model) && o->model[i][0]; i++) {
        tn_model *m = tn_model_new(all ? usual[i] : o->model[i], &mnist, 1, &e);
        if (!m) return args_usage_error(cmd, "%s", e.msg);
        for (int k = 0; k < batches; k++) add_layers(l, m, batch[k]);
        tn_model_free(m);
    }
    return -1;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static options o;
    static shape_list list;
    args_rest rest;
    bench b;
    int code = args_parse(cmd, &o, argc, argv, &rest);
    char head[160];
    if (code < 0) code = choose(cmd, &o, &list);
    if (code >= 0) return code;
    tn_gemm_backend("own", NULL); /* also where "auto" would be OpenBLAS */
    snprintf(head, sizeof head, "products, float, GFLOP/s; median of %ld x %g s", o.common.repeat,
             o.common.seconds);
    code = bench_begin(&b, cmd, &o.common, head);
    if (code >= 0) return code;
    if (!o.common.json)
        printf("%-16s %3s %8s %8s %8s %6s %5s\n", "m x n x k", "thr", "packed", "unpacked", "OpenBLAS",
               "limit", "+-");
    code = EXIT_OK;
    for (int i = 0; i < list.n && code == EXIT_OK && !signal_stop; i++) {
        product p;
        tn_err e;
        if (open_product(&p, &list.s[i], &e)) code = args_failed(cmd, &e);
        for (int k = 0; k < b.n && code == EXIT_OK && !signal_stop; k++) measure(&b, &p, b.threads[k]);
        close_product(&p);
    }
    return bench_end(&b, code);
}

const command bench_gemm = {
    "bench gemm",
    "Products alone, shape by shape, beside OpenBLAS.",
    "[options]",
    "GFLOP/s of C (m, n) = A (m, k) B (k, n): with B packed before, as a layer's\n"
    "weights are (a step packs them once); unpacked, as in weight gradients; and\n"
    "OpenBLAS' in the same process on as many threads. t after m or n: A or B lies\n"
    "transposed. limit: packed, in percent of fused multiply-adds on registers alone\n"
    "(tern bench train --help). +-: (most - least) / median of that.\n",
    rows,
    0,
    run_command};

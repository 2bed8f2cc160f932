/* SPDX-License-Identifier: MIT */
/*
 * tern bench optim: the step of each elementwise optimizer, beside a loop that only streams the same arrays: the
 * optimizer's own, in the same process, on as many threads, in turns.
 */
#include "bench.h"
#include "kernels/kernels.h"
#include "run_state.h"
#include "signals.h"
#include <stdlib.h>
#include <string.h>

/* Numbers of parameters are rounded up to multiples of ROW: the copy loop knows whole vectors only. */
enum { MOST_PARAMETERS = 1 << 26, LEAST_PIECE = 4096, PIECES = 64, ROW = 64 };

typedef struct {
    bench_options common;
    char optimizer[16][CONFIG_SPEC], parameters[256];
} options;

static const arg rows[] = {
    ARG_MANY(options, optimizer, "optimizer", "SPEC", 16,
             "optimizer; may be repeated [every elementwise one, sgd with momentum, rmsprop centered]"),
    ARG_TEXT(options, parameters, "parameters", "LIST", "131072/1048576/16777216",
             "numbers of parameters, separated by '/'"),
    BENCH_ARGS(options, common, 25, 0.002), ARG_END};

static const char *const more[] = {"sgd:momentum=0.9", "rmsprop:centered=on"};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- What is measured ---------------------------------------------------------------------------------- */

typedef struct {
    const char *spec;
    tn_params *params;
    tn_optim *optim;
    long t;
    size_t n, piece; /* parameters; of a piece of the copy loop */
    int arrays;      /* that a step reads and writes: the weights and the optimizer's state */
    tn_real *array[1 + 3 * TN_MAX_SLOT];
    const tn_real *g;
} subject;

static void close_subject(subject *s) {
    tn_optim_free(s->optim);
    if (s->params) tn_params_free(s->params);
}

static int open_subject(subject *s, const char *spec, int parameters, tn_err *e) {
    const int dim[] = {(parameters + ROW - 1) / ROW, ROW};
    *s = (subject){.spec = spec, .params = tn_params_new()};
    if (!s->params) return tn_fail(e, "not enough memory");
    const tn_param *p = tn_param_add(s->params, "layer", "weight", 0, tn_init_const(0.5), 2, dim);
    if (tn_params_seal(s->params, 1, e) || !(s->optim = tn_optim_new(s->params, spec, e))) return -1;
    if (tn_optim_definition(s->optim)->scope != TN_ELEMENT)
        return tn_fail(e, "--optimizer %s: is not elementwise; it is measured by tern bench train", spec);
    s->n = p->len, s->g = p->g;
    s->array[s->arrays++] = p->w;
    for (tn_real *x;
         s->arrays < COUNT(s->array) && (x = tn_optim_slot(s->optim, 0, s->arrays - 1, NULL, NULL));)
        s->array[s->arrays++] = x;
    s->piece = s->n / PIECES < LEAST_PIECE ? LEAST_PIECE : (s->n / PIECES + ROW - 1) / ROW * ROW;
    for (size_t i = 0; i < s->n; i++) p->g[i] = (tn_real)(1e-3 * ((double)(i % 1009) / 504.5 - 1));
    return 0;
}

static void step(subject *s) {
    tn_tick k = {.t = ++s->t,
                 .total = 1000000000,
                 .steps_per_epoch = 1,
                 .batch = 1,
                 .images = 1,
                 .lr_mul = 1,
                 .wd_mul = 1};
    tn_optim_step(s->optim, &k);
}

static void copy_piece(void *arg, int i) {
    const subject *s = arg;
    size_t lo = (size_t)i * s->piece, len = s->n - lo < s->piece ? s->n - lo : s->piece;
    tn_real *a[1 + TN_MAX_SLOT];
    for (int k = 0; k < s->arrays; k++) a[k] = s->array[k] + lo;
    tn_kernels_get(NULL)->stream(len, s->arrays, a, s->g + lo, 0);
}

static void copy(subject *s) {
    tn_parallel((int)((s->n + s->piece - 1) / s->piece), copy_piece, s);
}

/* Seconds of so many calls. */
static double timed(void (*fn)(subject *), subject *s, long calls) {
    double start = now_seconds();
    for (long i = 0; i < calls; i++) fn(s);
    return now_seconds() - start;
}

/* How many calls take `seconds`; finding out warms caches and threads up. */
static long calls_for(void (*fn)(subject *), subject *s, double seconds) {
    long calls = 1;
    while (timed(fn, s, calls) < seconds) calls *= 2;
    return calls;
}

static void measure(bench *b, subject *s, int threads) {
    static double optim[BENCH_MAX_REPEAT], loop[BENCH_MAX_REPEAT], percent[BENCH_MAX_REPEAT];
    int n = 0;
    bench_row_begin(b, threads);
    const double limit = bench_limit(b, threads, 0.01); /* tells whether the threads have their cores */
    const long steps = calls_for(step, s, b->o->seconds), copies = calls_for(copy, s, b->o->seconds);
    for (; n < b->o->repeat && !signal_stop; n++) {
        optim[n] = timed(step, s, steps) / (double)steps;
        loop[n] = timed(copy, s, copies) / (double)copies;
        percent[n] = 100 * loop[n] / optim[n];
    }
    if (signal_stop) return;
    const double bytes = (double)(2 * s->arrays + 1) * (double)(s->n * sizeof(tn_real));
    const double took = bench_median(optim, n), copied = bench_median(loop, n);
    bench_stat of_copy = bench_stats(percent, n);
    json_t *row =
        json_pack("{s:s, s:I, s:i, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f}", "optimizer", s->spec,
                  "parameters", (json_int_t)s->n, "threads", threads, "arrays_read", s->arrays + 1,
                  "arrays_written", s->arrays, "ns_per_parameter", took / (double)s->n * 1e9,
                  "bytes_per_second", bytes / took, "copy_bytes_per_second", bytes / copied,
                  "percent_of_copy", of_copy.median, "spread", of_copy.spread, "limit_gflops", limit * 1e-9);
    const char *mark = bench_row_end(b, row);
    if (b->o->json) return;
    if (printf("%-24s", s->spec) > 24) printf("\n%24s", "");
    printf(" %9zu %3d %d/%d %7.3f %6.1f %6.1f %5.0f%% %4.0f%%%s\n", s->n, threads, s->arrays + 1, s->arrays,
           took / (double)s->n * 1e9, bytes / took * 1e-9, bytes / copied * 1e-9,
           bench_column(of_copy.median), bench_column(100 * of_copy.spread), mark);
    fflush(stdout);
}

/* ---- The command --------------------------------------------------------------------------------------- */

static int choose(const options *o, const char *out[], int cap) {
    int n = 0, defs;
    const tn_optim_def *const *def = tn_optims(&defs);
    for (int i = 0; i < COUNT(o->optimizer) && o->optimizer[i][0]; i++) out[n++] = o->optimizer[i];
    if (n) return n;
    for (int i = 0; i < defs && n < cap; i++)
        if (def[i]->scope == TN_ELEMENT) out[n++] = def[i]->name;
    for (int i = 0; i < COUNT(more) && n < cap; i++) out[n++] = more[i];
    return n;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static options o;
    const char *specs[64];
    int size[BENCH_MAX_LIST], sizes, code;
    args_rest rest;
    subject s;
    bench b;
    char head[160];
    tn_err e;
    if ((code = args_parse(cmd, &o, argc, argv, &rest)) >= 0) return code;
    if (!(sizes = bench_list(o.parameters, size, MOST_PARAMETERS)))
        return bench_list_error(cmd, "parameters", o.parameters, MOST_PARAMETERS);
    if (!tn_kernels_get(&e)) return args_failed(cmd, &e);
    const int n = choose(&o, specs, COUNT(specs));
    for (int i = 0; i < n; i++) { /* refused before anything is printed */
        int bad = open_subject(&s, specs[i], ROW, &e);
        close_subject(&s);
        if (bad) return args_usage_error(cmd, "%s", e.msg);
    }
    snprintf(head, sizeof head, "one step of an optimizer, float; median of %ld x %g s", o.common.repeat,
             o.common.seconds);
    if ((code = bench_begin(&b, cmd, &o.common, head)) >= 0) return code;
    if (!o.common.json)
        printf("%-24s %9s %3s %3s %7s %6s %6s %6s %5s\n", "optimizer", "params", "thr", "r/w", "ns/par",
               "GB/s", "copy", "of it", "+-");
    code = EXIT_OK;
    for (int k = 0; k < sizes && code == EXIT_OK && !signal_stop; k++)
        for (int i = 0; i < n && code == EXIT_OK && !signal_stop; i++) {
            if (open_subject(&s, specs[i], size[k], &e)) code = args_failed(cmd, &e);
            for (int t = 0; t < b.n && code == EXIT_OK && !signal_stop; t++) measure(&b, &s, b.threads[t]);
            close_subject(&s);
        }
    return bench_end(&b, code);
}

const command bench_optim = {
    "bench optim",
    "Optimizer steps, beside a loop that only moves memory.",
    "[options]",
    "ns/par: nanoseconds of a step for each parameter. r/w: arrays of that length\n"
    "that a step reads and writes (AdamW reads w, g, m, v and writes w, m, v), and\n"
    "GB/s the traffic of these. copy: GB/s of a loop of loads and stores on the same\n"
    "arrays, in turns with the steps on as many threads; of it: the steps' traffic in\n"
    "percent of the loop's. 131072 parameters lie in a cache, 16777216 in none.\n"
    "+-: (most - least) / median of the percentage.\n",
    rows,
    0,
    run_command};

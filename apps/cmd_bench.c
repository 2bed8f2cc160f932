/* SPDX-License-Identifier: MIT */
/*
 * tern bench: whole training steps a second, and what share of the machine's limit they reach. The limit is
 * measured in this process, in turns with the steps: a loop of fused multiply-adds on registers at the vector
 * level in use, on as many threads.
 */
#include "commands.h"
#include "host.h"
#include "kernels/kernels.h"
#include "rundir.h"
#include "run_state.h"
#include "signals.h"
#include "terminal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char model[8][CONFIG_SPEC], optimizer[CONFIG_SPEC], threads[256], gemm[16];
    long batch, repeat;
    double seconds;
    int json;
} bench_options;

static const arg rows[] = {
    ARG_MANY(bench_options, model, "model", "SPEC", 8,
             "model; may be repeated [mlp:hidden=128, mlp:hidden=512/256, lenet, cnn, rnn, gru, lstm]"),
    ARG_TEXT(bench_options, optimizer, "optimizer", "SPEC", "adamw", "optimizer"),
    ARG_INT(bench_options, batch, "batch", 128, 1, 65536, "images a step"),
    ARG_TEXT(bench_options, threads, "threads", "LIST", "1/2", "numbers of threads, separated by '/'"),
    ARG_INT(bench_options, repeat, "repeat", 7, 1, 1000, "repetitions; the median is shown"),
    ARG_REAL(bench_options, seconds, "seconds", 0.3, 0.001, 1000, "length of one repetition"),
    ARG_WORD_TEXT(bench_options, gemm, "gemm", "auto|own|openblas", "auto", "kernels that multiply matrices"),
    ARG_FLAG(bench_options, json, "json", "as JSON"),
    ARG_END};

static const char *const usual[] = {
    "mlp:hidden=128", "mlp:hidden=512/256", "lenet", "cnn", "rnn", "gru", "lstm"};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

enum { MAX_REPEAT = 1000, IMAGES = 2048, PIXELS = 784, CLASSES = 10 };

typedef struct {
    double images, limit, percent, operations; /* a second; FMA operations a second; of the limit; a step */
    double spread;                             /* (max - min) / median of images a second */
    long allocations;                          /* of the tape while it was warm: must be 0 */
} result;

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

/* ---- The limit ----------------------------------------------------------------------------------------- */

typedef struct {
    const tn_kernels_t *k;
    long rounds;
    double ops[64];
} peak_job;

static void peak_chunk(void *arg, int i) {
    peak_job *j = arg;
    tn_real sink;
    j->ops[i] = j->k->peak(j->rounds, &sink) * (double)j->rounds;
}

/* Operations a second on this many threads. */
static double measure_limit(int threads, double seconds) {
    peak_job j = {tn_kernels_get(NULL), 1000, {0}};
    for (;;) {
        double start = now_seconds(), ops = 0;
        tn_parallel(threads, peak_chunk, &j);
        double took = now_seconds() - start;
        for (int i = 0; i < threads; i++) ops += j.ops[i];
        if (took >= seconds) return ops / took;
        j.rounds *= took < seconds / 8 ? 4 : 2;
    }
}

/* ---- Steps --------------------------------------------------------------------------------------------- */

typedef struct {
    tn_model *model;
    tn_optim *optim;
    tn_stepper *stepper;
    tn_tape *tape;
    tn_data data;
    int *order, *labels, batch, first;
    long step;
} bench;

static tn_t *loss(void *arg, tn_tape *t, int micro, double *weight) {
    bench *b = arg;
    (void)micro;
    *weight = b->batch;
    const int *idx = b->order + b->first;
    tn_batch_labels(&b->data, b->batch, idx, 0, b->labels);
    return tn_cross_entropy(tn_forward(b->model, tn_batch_input(t, &b->data, b->batch, idx, 0)), b->labels,
                            NULL);
}

static void step(bench *b) {
    tn_step_result r;
    tn_tick k = {.t = ++b->step,
                 .total = 1000000,
                 .steps_per_epoch = 429,
                 .batch = b->batch,
                 .lr_mul = 1,
                 .wd_mul = 1};
    b->first = b->first + 2 * b->batch > b->data.n ? 0 : b->first + b->batch;
    tn_stepper_run(b->stepper, b->tape, loss, b, &k, &r);
}

/* Pictures with one pixel in five lit, as in MNIST. */
static int make_data(bench *b, tn_err *e) {
    int n = b->batch > IMAGES ? b->batch : IMAGES;
    unsigned char *x = malloc((size_t)n * PIXELS);
    int *label = malloc((size_t)n * sizeof *label);
    b->order = malloc((size_t)n * sizeof *b->order);
    b->labels = malloc((size_t)b->batch * sizeof *b->labels);
    if (!x || !label || !b->order || !b->labels) {
        free(x);
        free(label);
        return tn_fail(e, "not enough memory for %d images", n);
    }
    tn_rng g = tn_rng_make(1, "bench", "", 0, 0);
    for (size_t i = 0; i < (size_t)n * PIXELS; i++)
        x[i] = tn_below(&g, 5) ? 0 : (unsigned char)(1 + tn_below(&g, 255));
    for (int i = 0; i < n; i++) label[i] = tn_below(&g, CLASSES);
    tn_permutation(&g, n, b->order);
    return tn_data_from_arrays(&b->data, n, 3, (int[]){1, 28, 28}, TN_U8, x, label, CLASSES, NULL, 0, e);
}

static int open_bench(bench *b, const bench_options *o, const char *model, tn_err *e) {
    const tn_model_shape shape = {3, {1, 28, 28}, CLASSES};
    memset(b, 0, sizeof *b);
    b->batch = (int)o->batch;
    if (!(b->model = tn_model_new(model, &shape, 1, e))) return -2;
    if (!(b->optim = tn_optim_new(b->model->params, o->optimizer, e))) return -2;
    if (!(b->stepper = tn_stepper_new(b->model->params, b->optim, NULL, e)) || !(b->tape = tn_tape_new(e)))
        return -1;
    return make_data(b, e);
}

static void close_bench(bench *b) {
    tn_stepper_free(b->stepper);
    tn_optim_free(b->optim);
    tn_model_free(b->model);
    tn_tape_free(b->tape);
    free((void *)(uintptr_t)b->data.x);
    free((void *)(uintptr_t)b->data.label);
    free(b->order);
    free(b->labels);
}

static result measure(bench *b, const bench_options *o, int threads) {
    static double rate[MAX_REPEAT], limit[MAX_REPEAT], share[MAX_REPEAT];
    result r;
    tn_set_threads(threads);
    for (int i = 0; i < 30; i++) step(b);
    r.operations = tn_tape_flops(b->tape, 1);
    long before = tn_tape_allocations(b->tape);
    for (long k = 0; k < o->repeat; k++) {
        limit[k] = measure_limit(threads, o->seconds / 3);
        double start = now_seconds(), took = 0;
        long steps = 0;
        do {
            for (int i = 0; i < 8; i++, steps++) step(b);
        } while ((took = now_seconds() - start) < o->seconds && !signal_stop);
        rate[k] = (double)steps * b->batch / took;
        share[k] = r.operations * (double)steps / took / limit[k];
    }
    int n = (int)o->repeat;
    r.allocations = tn_tape_allocations(b->tape) - before;
    r.percent = 100 * median(share, n);
    r.limit = median(limit, n);
    r.images = median(rate, n);
    r.spread = (rate[n - 1] - rate[0]) / r.images;
    return r;
}

/* ---- The command --------------------------------------------------------------------------------------- */

static int parse_threads(const char *text, int out[8]) {
    int n = 0;
    for (char *end;; text = end + 1) {
        long v = strtol(text, &end, 10);
        if (end == text || v < 1 || v > 64 || n == 8 || (*end && *end != '/')) return 0;
        out[n++] = (int)v;
        if (!*end) return n;
    }
}

static void show(json_t *list, const bench_options *o, const char *model, int threads, const result *r,
                 double one) {
    char rate[32];
    count_text(r->images, rate);
    if (o->json) {
        json_array_append_new(
            list, json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:I}", "model", model, "batch",
                            (int)o->batch, "threads", threads, "images_per_second", r->images,
                            "percent_of_limit", r->percent, "limit_gflops", r->limit / 1e9,
                            "operations_per_step", r->operations, "spread", r->spread, "speedup",
                            one > 0 ? r->images / one : 1.0, "allocations", (json_int_t)r->allocations));
        return;
    }
    printf("%-19s %7ld %8d %12s %9.1f%% %9.1f %8.0f%%", model, o->batch, threads, rate, r->percent,
           r->limit / 1e9, 100 * r->spread);
    if (one > 0) printf("  %.2f times %s", r->images / one, "one thread");
    if (r->allocations) printf("  %ld allocations!", r->allocations);
    putchar('\n');
    fflush(stdout);
}

static int bench_model(const command *cmd, const bench_options *o, const char *model, int n,
                       const int *threads, json_t *list) {
    bench b;
    tn_err e;
    double one = 0;
    int code = open_bench(&b, o, model, &e);
    for (int i = 0; i < n && !code && !signal_stop; i++) {
        result r = measure(&b, o, threads[i]);
        show(list, o, model, threads[i], &r, one);
        if (threads[i] == 1) one = r.images;
    }
    close_bench(&b);
    if (code == -2) return args_usage_error(cmd, "%s", e.msg);
    return code ? args_failed(cmd, &e) : EXIT_OK;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static bench_options o;
    args_rest rest;
    tn_err e;
    int threads[8], code = args_parse(cmd, &o, argc, argv, &rest);
    char line[CONFIG_SPEC + 128];
    if (code >= 0) return code;
    int n = parse_threads(o.threads, threads);
    if (!n)
        return args_usage_error(
            cmd, "--threads: '%.60s' is not a list of up to 8 numbers from 1 to 64, such as 1/2", o.threads);
    if (strcmp(o.gemm, "auto") != 0 && tn_gemm_backend(o.gemm, &e)) return args_failed(cmd, &e);
    for (int i = 0; i < COUNT(usual) && (i || !o.model[0][0]); i++) strcpy(o.model[i], usual[i]);
    signals_catch();
    app_threads(0);
    host_line(line, sizeof line);
    if (!o.json) {
        args_wrapped(stdout, line, 0, 2);
        snprintf(line, sizeof line, "whole training steps with %s, float; median of %ld x %g s", o.optimizer,
                 o.repeat, o.seconds);
        args_wrapped(stdout, line, 0, 2);
        printf("%-19s %7s %8s %12s %10s %9s %9s\n", "model", "batch", "threads", "images/s", "of limit",
               "GFLOP/s", "spread");
    }
    json_t *list = json_array();
    code = EXIT_OK;
    for (int i = 0; i < 8 && o.model[i][0] && !code; i++)
        code = bench_model(cmd, &o, o.model[i], n, threads, list);
    if (o.json && !code) {
        json_t *j =
            json_pack("{s:o, s:s, s:O}", "host", host_json(), "optimizer", o.optimizer, "results", list);
        json_dumpf(j, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(j);
    }
    json_decref(list);
    return signal_stop ? 128 + (int)signal_stop : code;
}

const command cmd_bench = {"bench",
                           "Measure training steps a second and the share of the machine's limit.",
                           "[options]",
                           "GFLOP/s is the limit: fused multiply-adds on registers alone, on as many\n"
                           "threads, measured in turns with the steps. Operations are those of the textbook\n"
                           "algorithm, 2 a multiply-add.\n",
                           rows,
                           0,
                           run_command};

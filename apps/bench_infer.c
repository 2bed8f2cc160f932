/* SPDX-License-Identifier: MIT */
/*
 * tern bench infer: forward passes alone. A batch: the evaluation of the test images as training does it. One image: the
 * time from its pixels to the class, each image by itself.
 */
#include "bench.h"
#include "evaluate.h"
#include "run_state.h"
#include "signals.h"
#include "terminal.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    bench_options common;
    char model[8][CONFIG_SPEC];
} options;

static const arg rows[] = {
    ARG_MANY(
        options, model, "model", "SPEC", 8,
        "model; may be repeated [mlp:hidden=128, mlp:hidden=512/256, lenet, cnn, resnet, rnn, gru, lstm]"),
    BENCH_ARGS(options, common, 5, 0.2), BENCH_GEMM_ARG(options, common), ARG_END};

static const char *const usual[] = {
    "mlp:hidden=128", "mlp:hidden=512/256", "lenet", "cnn", "resnet", "rnn", "gru", "lstm"};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))
enum { MOST_LATENCIES = 1 << 16, LEAST_LATENCIES = 200 };

typedef struct {
    bench_stat images;                  /* a second, in batches */
    double percent, limit, one_percent; /* one_percent: of the limit, one image at a time */
    double median, p99;                 /* seconds from one image to its class */
    double operations;                  /* of one image */
} result;

typedef struct {
    const tn_data *data;
    tn_model *model;
    tn_tape *tape;
    int next; /* image */
    double *latency;
} runner;

/* Pixels of one image to its class. */
static int classify(runner *w) {
    tn_tape_reset(w->tape);
    tn_t *y = tn_forward(w->model, tn_batch_input(w->tape, w->data, 1, &w->next, 0));
    int best = 0;
    for (int j = 1; j < (int)y->len; j++)
        if (y->x[j] > y->x[best]) best = j;
    w->next = (w->next + 1) % w->data->n;
    return best;
}

/* The times of single images, for so many seconds and at most `room` of them, from latency[n] on; the new n. */
static int one_by_one(runner *w, double seconds, int room, int n) {
    double start = now_seconds(), before = start, now;
    volatile int class;
    do {
        class = classify(w);
        now = now_seconds();
        w->latency[n++] = now - before;
        before = now;
    } while (now - start < seconds && --room > 0);
    (void)class;
    return n;
}

static result measure(bench *b, runner *w, int threads) {
    static double images[BENCH_MAX_REPEAT], limit[BENCH_MAX_REPEAT], share[BENCH_MAX_REPEAT];
    const bench_options *o = b->o;
    int n = 0, latencies = 0;
    evaluate(w->model, w->tape, w->data, NULL, NULL);
    tn_record(w->tape, 0);
    classify(w);
    result r = {.operations = tn_tape_flops(w->tape, 0)};
    for (int i = 0; i < 20; i++) classify(w);
    while (n < o->repeat && !signal_stop) {
        limit[n] = bench_limit(b, threads, o->seconds / 4);
        double start = now_seconds(), took;
        long done = 0;
        do evaluate(w->model, w->tape, w->data, NULL, NULL), done += w->data->n;
        while ((took = now_seconds() - start) < o->seconds && !signal_stop);
        images[n] = (double)done / took;
        share[n] = 100 * images[n] * r.operations / limit[n];
        n++;
        tn_record(w->tape, 0);
        latencies = one_by_one(w, o->seconds / 4, MOST_LATENCIES / (int)o->repeat, latencies);
    }
    while (latencies < LEAST_LATENCIES && !signal_stop) latencies = one_by_one(w, 0, 1, latencies);
    if (!n) return r;
    r.images = bench_stats(images, n);
    r.percent = bench_median(share, n);
    r.limit = bench_median(limit, n);
    r.median = bench_median(w->latency, latencies); /* sorts */
    r.p99 = w->latency[(latencies - 1) * 99L / 100];
    r.one_percent = 100 * r.operations / r.median / r.limit;
    return r;
}

static void show(bench *b, const char *model, int threads, const runner *w, const result *r) {
    const char *mark = bench_row_end(
        b, json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "model", model, "threads",
                     threads, "images", w->data->n, "images_per_second", r->images.median, "percent_of_limit",
                     r->percent, "limit_gflops", r->limit / 1e9, "spread", r->images.spread,
                     "operations_per_image", r->operations, "latency_us", 1e6 * r->median, "latency_p99_us",
                     1e6 * r->p99, "latency_percent_of_limit", r->one_percent));
    if (b->o->json) return;
    char rate[32];
    count_text(r->images.median, rate);
    if (printf("%-18s", model) > 18) printf("\n%18s", "");
    printf(" %3d %11s %6.1f%% %5.0f%% %12.1f %9.1f %5.1f%%%s\n", threads, rate, bench_column(r->percent),
           bench_column(100 * r->images.spread), 1e6 * r->median, 1e6 * r->p99, bench_column(r->one_percent),
           mark);
    fflush(stdout);
}

static int bench_model(bench *b, const char *model, const tn_data *d) {
    static double latency[MOST_LATENCIES];
    tn_model_shape shape = {d->nd, {d->dim[0], d->dim[1], d->dim[2]}, d->classes};
    tn_err e;
    runner w = {.data = d, .model = tn_model_new(model, &shape, 1, &e), .latency = latency};
    if (!w.model) return args_usage_error(b->cmd, "%s", e.msg);
    if (!(w.tape = tn_tape_new(&e))) {
        tn_model_free(w.model);
        return args_failed(b->cmd, &e);
    }
    for (int i = 0; i < b->n && !signal_stop; i++) {
        bench_row_begin(b, b->threads[i]);
        result r = measure(b, &w, b->threads[i]);
        if (!signal_stop) show(b, model, b->threads[i], &w, &r);
    }
    tn_tape_free(w.tape);
    tn_model_free(w.model);
    return EXIT_OK;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static options o;
    args_rest rest;
    bench b;
    tn_err e;
    tn_dataset set;
    char head[512], note[128];
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code >= 0) return code;
    for (int i = 0; i < COUNT(usual) && (i || !o.model[0][0]); i++) strcpy(o.model[i], usual[i]);
    if (bench_data(&set, note, sizeof note, &e)) return args_failed(cmd, &e);
    snprintf(head, sizeof head, "forward passes, float; %d test images of %s; median of %ld x %g s%s%s",
             set.test.n, set.name, o.common.repeat, o.common.seconds, note[0] ? "; " : "", note);
    code = bench_begin(&b, cmd, &o.common, head);
    if (code < 0) {
        code = EXIT_OK;
        json_object_set_new(b.root, "data", json_string(set.name));
        if (!o.common.json)
            printf("%-18s %3s %11s %7s %6s %12s %9s %6s\n", "model", "thr", "images/s", "limit", "+-",
                   "one image us", "99th %", "limit");
        for (int i = 0; i < 8 && o.model[i][0] && !code && !signal_stop; i++)
            code = bench_model(&b, o.model[i], &set.test);
        code = bench_end(&b, code);
    }
    tn_dataset_free(&set);
    return code;
}

const command bench_infer = {
    "bench infer",
    "Forward passes: the test images in batches, and one image at a time.",
    "[options]",
    "images/s and limit: the evaluation of the test images, loss and accuracy\n"
    "included, as tern train does it. one image us and 99th %: microseconds from the\n"
    "pixels of one image to its class, after start-up: the median, and what 99 of 100\n"
    "stay below. limit: operations / time / fused multiply-adds on registers alone on\n"
    "as many threads (tern bench train --help). +-: (most - least) / median.\n",
    rows,
    0,
    run_command};

/* SPDX-License-Identifier: MIT */
/*
 * tern bench train: whole training steps a second, and what share of the machine's limit they reach. The limit is
 * measured in turns with the steps. Batches are gathered by index from the training images in memory, in the shuffled
 * order of an epoch, as in a run.
 */
#include "bench.h"
#include "run_state.h"
#include "signals.h"
#include "terminal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    bench_options common;
    char model[8][CONFIG_SPEC], optimizer[CONFIG_SPEC], batch[256];
} options;

static const arg rows[] = {
    ARG_MANY(options, model, "model", "SPEC", 8,
             "model; may be repeated [mlp:hidden=128, mlp:hidden=512/256, lenet, cnn, rnn, gru, lstm]"),
    ARG_TEXT(options, optimizer, "optimizer", "SPEC", "adamw", "optimizer"),
    ARG_TEXT(options, batch, "batch", "LIST", "32/128", "images a step, separated by '/'"),
    BENCH_ARGS(options, common, 7, 0.2),
    BENCH_GEMM_ARG(options, common),
    ARG_END};

static const char *const usual[] = {
    "mlp:hidden=128", "mlp:hidden=512/256", "lenet", "cnn", "rnn", "gru", "lstm"};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

typedef struct {
    bench_stat images;           /* a second */
    double limit, percent, rate; /* operations a second: the limit, of it, the steps' */
    double operations;           /* of a step */
    double share[4];             /* of the time: forward, backward, optimizer, data */
    long allocations;            /* of the tape while it was warm: must be 0 */
} result;

/* ---- Steps --------------------------------------------------------------------------------------------- */

typedef struct {
    const tn_data *data;
    tn_model *model;
    tn_optim *optim;
    tn_stepper *stepper;
    tn_tape *tape;
    tn_profile *profile;
    int *order, *labels, batch, first;
    long step, epoch;
} trainer;

static tn_t *loss(void *arg, tn_tape *t, int micro, double *weight) {
    trainer *w = arg;
    (void)micro;
    *weight = w->batch;
    const int *idx = w->order + w->first;
    tn_batch_labels(w->data, w->batch, idx, 0, w->labels);
    tn_t *x = tn_batch_input(t, w->data, w->batch, idx, 0);
    return tn_cross_entropy(tn_forward(w->model, x), w->labels, NULL);
}

static void step(trainer *w) {
    tn_step_result r;
    tn_tick k = {.t = ++w->step,
                 .total = 1000000,
                 .steps_per_epoch = w->data->n / w->batch,
                 .batch = w->batch,
                 .images = w->data->n,
                 .lr_mul = 1,
                 .wd_mul = 1};
    if (w->first + w->batch > w->data->n) {
        tn_epoch_order(1, w->epoch++, w->data->n, 1, w->order);
        w->first = 0;
    }
    tn_stepper_run(w->stepper, w->tape, loss, w, &k, &r);
    w->first += w->batch;
}

static int open_trainer(trainer *w, const options *o, const char *model, int batch, const tn_data *d,
                        tn_err *e) {
    const tn_model_shape shape = {d->nd, {d->dim[0], d->dim[1], d->dim[2]}, d->classes};
    *w = (trainer){.data = d, .batch = batch, .first = d->n};
    if (!(w->model = tn_model_new(model, &shape, 1, e))) return -2;
    if (!(w->optim = tn_optim_new(w->model->params, o->optimizer, e))) return -2;
    if (!(w->stepper = tn_stepper_new(w->model->params, w->optim, NULL, e)) || !(w->tape = tn_tape_new(e)))
        return -1;
    w->order = malloc((size_t)d->n * sizeof *w->order);
    w->labels = malloc((size_t)batch * sizeof *w->labels);
    return w->order && w->labels ? 0 : tn_fail(e, "not enough memory for the order of %d images", d->n);
}

static void close_trainer(trainer *w) {
    tn_stepper_free(w->stepper);
    tn_optim_free(w->optim);
    tn_model_free(w->model);
    tn_tape_free(w->tape);
    tn_profile_free(w->profile);
    free(w->order);
    free(w->labels);
}

/* Steps for so many seconds; *took: how long it was. */
static long run_steps(trainer *w, double seconds, double *took) {
    double start = now_seconds();
    long steps = 0;
    do step(w), steps++;
    while ((*took = now_seconds() - start) < seconds && !signal_stop);
    return steps;
}

/* Where the time of the profiled steps went. The gradient's norm is part of what the optimizer's step needs. */
static void shares(const tn_profile *p, double share[4]) {
    double total = tn_profile_seconds(p);
    const tn_profile_line *l;
    for (int i = 0; (l = tn_profile_at(p, i)); i++) {
        double part = total > 0 ? l->seconds / total : 0;
        if (l->kind != TN_LAP)
            share[l->kind == TN_BACKWARD] += part;
        else if (strcmp(l->name, "optimizer") == 0 || strcmp(l->name, "gradient norm") == 0)
            share[2] += part;
        else if (strcmp(l->name, "data") == 0 || strcmp(l->name, "between steps") == 0)
            share[3] += part;
    }
}

/* In turns: the limit, steps, and some steps with a profile, which the rate does not count. */
static result measure(bench *b, trainer *w, int threads) {
    static double images[BENCH_MAX_REPEAT], limit[BENCH_MAX_REPEAT], share[BENCH_MAX_REPEAT];
    const bench_options *o = b->o;
    double took;
    int n = 0;
    for (int i = 0; i < 3; i++) step(w);
    run_steps(w, o->seconds / 2, &took);
    result r = {.operations = tn_tape_flops(w->tape, 1)};
    long before = tn_tape_allocations(w->tape);
    while (n < o->repeat && !signal_stop) {
        limit[n] = bench_limit(b, threads, o->seconds / 4);
        long steps = run_steps(w, o->seconds, &took);
        images[n] = (double)steps * w->batch / took;
        share[n] = r.operations * (double)steps / took / limit[n];
        n++;
        tn_tape_profile(w->tape, w->profile);
        run_steps(w, o->seconds / 8, &took);
        tn_tape_profile(w->tape, NULL);
    }
    if (!n) return r;
    shares(w->profile, r.share);
    r.allocations = tn_tape_allocations(w->tape) - before;
    r.images = bench_stats(images, n);
    r.percent = 100 * bench_median(share, n);
    r.limit = bench_median(limit, n);
    r.rate = r.operations * r.images.median / w->batch;
    return r;
}

/* ---- The table ----------------------------------------------------------------------------------------- */

static void show_head(void) {
    printf("%-18s %5s %3s %9s %7s %7s %6s %4s %3s%3s%3s%3s\n", "model", "batch", "thr", "samples/s",
           "ms/step", "GFLOP/s", "limit", "+-", "fw", "bw", "op", "da");
}

static json_t *row_json(const char *model, const trainer *w, int threads, const result *r, double one) {
    json_t *share = json_pack("{s:f, s:f, s:f, s:f}", "forward", r->share[0], "backward", r->share[1],
                              "optimizer", r->share[2], "data", r->share[3]);
    return json_pack("{s:s, s:i, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o, s:f, s:I}", "model", model,
                     "batch", w->batch, "threads", threads, "images_per_second", r->images.median,
                     "ms_per_step", 1000 * w->batch / r->images.median, "gflops", r->rate / 1e9,
                     "percent_of_limit", r->percent, "limit_gflops", r->limit / 1e9, "operations_per_step",
                     r->operations, "spread", r->images.spread, "share", share, "speedup",
                     one > 0 ? r->images.median / one : 1.0, "allocations", (json_int_t)r->allocations);
}

static void show(const char *model, const trainer *w, int threads, const result *r, const char *mark) {
    char rate[32];
    count_text(r->images.median, rate);
    if (printf("%-18s", model) > 18) printf("\n%18s", "");
    printf(" %5d %3d %9s %7.3f %7.1f %5.1f%% %3.0f%% %3.0f%3.0f%3.0f%3.0f%s\n", w->batch, threads, rate,
           1000 * w->batch / r->images.median, r->rate / 1e9, bench_column(r->percent),
           bench_column(100 * r->images.spread), 100 * r->share[0], 100 * r->share[1], 100 * r->share[2],
           100 * r->share[3], mark);
    if (r->allocations) printf("  %ld allocations in warm steps!\n", r->allocations);
    fflush(stdout);
}

static int bench_model(bench *b, const options *o, const char *model, int batch, const tn_data *d) {
    trainer w;
    tn_err e;
    double one = 0;
    int code = open_trainer(&w, o, model, batch, d, &e);
    for (int i = 0; i < b->n && !code && !signal_stop; i++) {
        tn_profile_free(w.profile);
        if (!(w.profile = tn_profile_new(&e))) {
            code = -1;
            break;
        }
        bench_row_begin(b, b->threads[i]);
        result r = measure(b, &w, b->threads[i]);
        if (signal_stop) break;
        const char *mark = bench_row_end(b, row_json(model, &w, b->threads[i], &r, one));
        if (!o->common.json) show(model, &w, b->threads[i], &r, mark);
        if (b->threads[i] == 1) one = r.images.median;
    }
    close_trainer(&w);
    if (code == -2) return args_usage_error(b->cmd, "%s", e.msg);
    return code ? args_failed(b->cmd, &e) : EXIT_OK;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static options o;
    args_rest rest;
    bench b;
    tn_err e;
    tn_dataset set;
    int batch[BENCH_MAX_LIST];
    char head[CONFIG_SPEC + 512], note[128];
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code >= 0) return code;
    int batches = bench_list(o.batch, batch, 10000);
    if (!batches) return bench_list_error(cmd, "batch", o.batch, 10000);
    for (int i = 0; i < COUNT(usual) && (i || !o.model[0][0]); i++) strcpy(o.model[i], usual[i]);
    if (bench_data(&set, note, sizeof note, &e)) return args_failed(cmd, &e);
    snprintf(head, sizeof head,
             "whole training steps, float, %s; %d images of %s by index, shuffled; median of %ld x %g s%s%s",
             o.optimizer, set.train.n, set.name, o.common.repeat, o.common.seconds, note[0] ? "; " : "",
             note);
    code = bench_begin(&b, cmd, &o.common, head);
    if (code < 0) {
        code = EXIT_OK;
        json_object_set_new(b.root, "optimizer", json_string(o.optimizer));
        json_object_set_new(b.root, "data", json_string(set.name));
        if (!o.common.json) show_head();
        for (int i = 0; i < 8 && o.model[i][0]; i++)
            for (int k = 0; k < batches && !code && !signal_stop; k++)
                code = bench_model(&b, &o, o.model[i], batch[k], &set.train);
        code = bench_end(&b, code);
    }
    tn_dataset_free(&set);
    return code;
}

const command bench_train = {
    "bench train",
    "Training steps a second, and the share of the machine's limit.",
    "[options]",
    "Operations are those of the textbook algorithm, 2 a multiply-add: forward, input\n"
    "gradients where needed, weight gradients. limit = operations / time / L, where L\n"
    "is the rate of fused multiply-adds on registers alone at the vector level in\n"
    "use, on as many threads, measured in turns with the steps. It may pass 100%\n"
    "where a kernel needs fewer operations than the textbook. +-: (most - least) /\n"
    "median. fw, bw, op, da: percent of the time in forward, backward, optimizer\n"
    "(with the norm of the gradient) and data, from steps of their own. The OpenBLAS\n"
    "core in the head obeys OPENBLAS_CORETYPE.\n",
    rows,
    0,
    run_command};

/* SPDX-License-Identifier: MIT */
/*
 * What the sub-commands of tern bench share: options, the head, the machine's limit, medians, other processes on
 * the cores, the JSON around the rows. A new sub-command: one file bench_NAME.c with its
 * `const command bench_NAME`, one line in bench.def. Its run():
 *
 *     int code = args_parse(cmd, &o, argc, argv, &rest);
 *     if (code < 0) code = bench_begin(&b, cmd, &o.common, "what is measured, for the head");
 *     if (code >= 0) return code;
 *     for each row and each of b.threads[0 ... b.n - 1]:
 *         bench_row_begin(&b, b.threads[i]);
 *         measure, with bench_limit(&b, ...) in turns
 *         const char *mark = bench_row_end(&b, json);
 *     return bench_end(&b, code);
 */
#ifndef TERN_APP_BENCH_H
#define TERN_APP_BENCH_H
#include "commands.h"
#include "tern_data.h"
#include <jansson.h>

#define BENCH(name) extern const command bench_##name;
#include "bench.def"
#undef BENCH

enum { BENCH_MAX_LIST = 8, BENCH_MAX_REPEAT = 1000 };

typedef struct {
    char threads[256], gemm[16]; /* gemm "": as it is */
    long repeat;
    double seconds;
    int json;
} bench_options;

/* The rows of these options, for the table of a command whose struct S has them as field f. */
#define BENCH_ARGS(S, f, repeats, length)                                                                 \
    ARG_TEXT(S, f.threads, "threads", "LIST", "1/2", "numbers of threads, separated by '/'"),             \
        ARG_INT(S, f.repeat, "repeat", repeats, 1, BENCH_MAX_REPEAT, "repetitions; the median is shown"), \
        ARG_REAL(S, f.seconds, "seconds", length, 0.001, 1000, "length of one repetition"),               \
        ARG_FLAG(S, f.json, "json", "as JSON")
/* And of what runs whole models. */
#define BENCH_GEMM_ARG(S, f) \
    ARG_WORD_TEXT(S, f.gemm, "gemm", "auto|own|openblas", "auto", "kernels that multiply matrices")

typedef struct {
    double wall, own, busy; /* seconds: of the clock, of this process's cores, of all cores in use */
} bench_clocks;

typedef struct {
    const command *cmd;
    const bench_options *o;
    int n, threads[BENCH_MAX_LIST]; /* what --threads asks for */
    json_t *root, *results;         /* root: what bench_end prints with --json */
    bench_clocks start;             /* of the row that is measured */
    int row_threads;                /* and its threads */
    double asked, got;              /* core seconds that bench_limit's threads wanted, and had */
    double worst;                   /* cores that others had in the worst row */
    int lacked;                     /* rows that were short of cores */
} bench;

/*
 * -1: go on. Else the exit code; the message has been printed. Without --json the head goes to stdout: machine, vector
 * level, compiler, OpenBLAS core, then `what`. OpenBLAS gets one thread, signals are caught (see signal_stop).
 */
int bench_begin(bench *, const command *, const bench_options *, const char *what);
/* Whole numbers from 1 to most, separated by '/': how many, or 0 if that is not what the text is. */
int bench_list(const char *text, int out[BENCH_MAX_LIST], int most);
int bench_list_error(const command *, const char *option, const char *text, int most); /* EXIT_USAGE */
/* tn_set_threads(threads); what other processes do on the cores is looked after from here to bench_row_end. */
void bench_row_begin(bench *, int threads);
/*
 * Adds other_cores, the cores that other processes had meanwhile (null: too short to tell), and short_of_cores to the
 * row's JSON and takes it. Returns a mark for the row's line, "" or "*", which bench_end explains.
 */
const char *bench_row_end(bench *, json_t *);
/* JSON or the explanation of the marks; a warning on stderr. Returns the exit code. */
int bench_end(bench *, int code);

/*
 * Operations a second of a loop of fused multiply-adds on registers, on this many threads, in some `seconds`: the
 * machine's limit. Also finds out whether the threads had their cores.
 */
double bench_limit(bench *, int threads, double seconds);

/* Sorts v. */
double bench_median(double *v, int n);
typedef struct {
    double median, spread; /* spread: (max - min) / median */
} bench_stat;
bench_stat bench_stats(double *v, int n);

double bench_column(double percent); /* at most 999: on a busy machine a short measurement may be nonsense */

/*
 * MNIST as tern train would open it, all training images in one part; else pictures made by formula, and *note (of
 * size cap, "" else) says so. -1 with a message: there is a file, but it is damaged.
 */
int bench_data(tn_dataset *, char *note, size_t cap, tn_err *);
#endif

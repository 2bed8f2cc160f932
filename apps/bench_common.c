/* SPDX-License-Identifier: MIT */
/* What the parts of tern bench share. */
#include "bench.h"
#include "host.h"
#include "kernels/kernels.h"
#include "rundir.h"
#include "run_state.h"
#include "signals.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

/* ---- Statistics ---------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *v, int n) {
    qsort(v, (size_t)n, sizeof *v, ascending);
    return n % 2 ? v[n / 2] : (v[n / 2 - 1] + v[n / 2]) / 2;
}

bench_stat bench_stats(double *v, int n) {
    bench_stat s = {bench_median(v, n), 0};
    s.spread = s.median > 0 ? (v[n - 1] - v[0]) / s.median : 0;
    return s;
}

double bench_column(double percent) {
    return fmin(percent, 999);
}

/* ---- The limit ----------------------------------------------------------------------------------------- */

static double process_seconds(void) {
    struct rusage u;
    if (getrusage(RUSAGE_SELF, &u)) return 0;
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec)
           + 1e-6 * (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec);
}

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

double bench_limit(bench *b, int threads, double seconds) {
    peak_job j = {tn_kernels_get(NULL), 1000, {0}};
    for (;;) {
        double start = now_seconds(), cpu = process_seconds(), ops = 0;
        tn_parallel(threads, peak_chunk, &j);
        double took = now_seconds() - start;
        for (int i = 0; i < threads; i++) ops += j.ops[i];
        if (took >= seconds) {
            b->asked += took * threads;
            b->got += process_seconds() - cpu;
            return ops / took;
        }
        j.rounds *= took < seconds / 8 ? 4 : 2;
    }
}

/* ---- Others on the cores ------------------------------------------------------------------------------- */

/*
 * Core seconds that were not idle, of the whole machine, since it was started: user, nice, system, interrupts and what
 * other guests of a host took. -1: this system does not say.
 */
static double machine_seconds(void) {
    double v[8];
    FILE *f = fopen("/proc/stat", "r");
    if (!f) return -1;
    int n =
        fscanf(f, "cpu %lf %lf %lf %lf %lf %lf %lf %lf", v, v + 1, v + 2, v + 3, v + 4, v + 5, v + 6, v + 7);
    fclose(f);
    return n == 8 ? (v[0] + v[1] + v[2] + v[5] + v[6] + v[7]) / (double)sysconf(_SC_CLK_TCK) : -1;
}

static bench_clocks read_clocks(void) {
    return (bench_clocks){now_seconds(), process_seconds(), machine_seconds()};
}

void bench_row_begin(bench *b, int threads) {
    tn_set_threads(threads);
    b->row_threads = threads;
    b->asked = b->got = 0;
    b->start = read_clocks();
}

/*
 * Short of cores: others had so many that the row's threads and they are more than there are; or the threads of the
 * limit's loop, which never wait, did not run all the time. Both within what the clocks' ticks of 10 ms allow.
 */
const char *bench_row_end(bench *b, json_t *row) {
    const double least = 0.2;
    bench_clocks now = read_clocks();
    double wall = now.wall - b->start.wall, others = -1;
    if (now.busy >= 0 && b->start.busy >= 0 && wall > least)
        others = fmax(0, (now.busy - b->start.busy - (now.own - b->start.own)) / wall);
    int lacks = others > 0.15 && others + b->row_threads > host_cores() + 0.15;
    lacks |= b->asked > least && b->got < 0.9 * b->asked;
    json_object_set_new(row, "other_cores", others < 0 ? json_null() : json_real(others));
    json_object_set_new(row, "short_of_cores", json_boolean(lacks));
    json_array_append_new(b->results, row);
    if (others > b->worst) b->worst = others;
    b->lacked += lacks;
    return lacks ? "*" : "";
}

/* ---- Begin and end ------------------------------------------------------------------------------------- */

int bench_list(const char *text, int out[BENCH_MAX_LIST], int most) {
    int n = 0;
    for (char *end;; text = end + 1) {
        long v = strtol(text, &end, 10);
        if (end == text || v < 1 || v > most || n == BENCH_MAX_LIST || (*end && *end != '/')) return 0;
        out[n++] = (int)v;
        if (!*end) return n;
    }
}

int bench_list_error(const command *cmd, const char *option, const char *text, int most) {
    return args_usage_error(cmd,
                            "--%s: '%.60s' is not a list of up to %d numbers from 1 to %d, such as 32/64",
                            option, text, BENCH_MAX_LIST, most);
}

int bench_begin(bench *b, const command *cmd, const bench_options *o, const char *what) {
    tn_err e;
    char line[512];
    *b = (bench){.cmd = cmd, .o = o};
    b->n = bench_list(o->threads, b->threads, 64);
    if (!b->n) return bench_list_error(cmd, "threads", o->threads, 64);
    if (o->gemm[0] && strcmp(o->gemm, "auto") != 0 && tn_gemm_backend(o->gemm, &e))
        return args_failed(cmd, &e);
    signals_catch();
    app_threads(0);
    b->results = json_array();
    b->root = json_pack("{s:s, s:o, s:O}", "bench", strchr(cmd->name, ' ') + 1, "host", host_json(),
                        "results", b->results);
    if (o->json) return -1;
    host_line(line, sizeof line);
    args_wrapped(stdout, line, 0, 2);
    args_wrapped(stdout, what, 0, 2);
    return -1;
}

int bench_end(bench *b, int code) {
    char text[160];
    snprintf(text, sizeof text, "other processes took up to %.1f of %d cores: these figures are too low",
             b->worst, host_cores());
    if (code == EXIT_OK && b->o->json) {
        json_object_set_new(b->root, "warning", b->lacked ? json_string(text) : json_null());
        json_dumpf(b->root, stdout, JSON_INDENT(2));
        putchar('\n');
    }
    if (b->lacked) fprintf(stderr, "tern %s: warning: %s%s\n", b->cmd->name, b->o->json ? "" : "* ", text);
    json_decref(b->results);
    json_decref(b->root);
    return signal_stop ? 128 + (int)signal_stop : code;
}

/* ---- Data ---------------------------------------------------------------------------------------------- */

int bench_data(tn_dataset *set, char *note, size_t cap, tn_err *e) {
    run_config c = run_config_default();
    note[0] = 0;
    c.val_size = 0;
    if (run_open_data(&c, set, e) == 0) return 0;
    if (strncmp(e->msg, "no MNIST files", 14) != 0) return -1;
    snprintf(note, cap, "no MNIST files: pictures made by formula instead (their zeros are others)");
    strcpy(c.data, "synthetic:noise=0,test=10000");
    return run_open_data(&c, set, e);
}

/* SPDX-License-Identifier: MIT */
/* tern bench optim: to come. */
#include "bench.h"

typedef struct {
    bench_options common;
} options;

static const arg rows[] = {BENCH_ARGS(options, common, 7, 0.1), ARG_END};

static int run_command(const command *cmd, int argc, char **argv) {
    options o;
    args_rest rest;
    bench b;
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code < 0) code = bench_begin(&b, cmd, &o.common, "optim");
    if (code >= 0) return code;
    return bench_end(&b, EXIT_OK);
}

const command bench_optim = {"bench optim", "To come.", "[options]", NULL, rows, 0, run_command};

/* SPDX-License-Identifier: MIT */
/* tern bench: a table of measurements, one file bench_NAME.c each. */
#include "bench.h"
#include <string.h>

static const command *const parts[] = {
#define BENCH(name) &bench_##name,
#include "bench.def"
#undef BENCH
};
enum { PARTS = sizeof parts / sizeof *parts };

/* "train" of "bench train". */
static const char *word(const command *c) {
    return strchr(c->name, ' ') + 1;
}

static int help(const command *cmd) {
    args_help(cmd, stdout);
    printf("\n");
    for (int i = 0; i < PARTS; i++)
        args_wrapped(stdout, parts[i]->summary, printf("  %-10s ", word(parts[i])), 13);
    printf("\ntern bench PART --help shows a part's options; without PART it is %s.\n", word(parts[0]));
    return EXIT_OK;
}

static int run_command(const command *cmd, int argc, char **argv) {
    const char *first = argc ? argv[0] : "", *names[PARTS];
    if (strcmp(first, "--help") == 0 || strcmp(first, "-h") == 0) return help(cmd);
    if (!*first || first[0] == '-') return parts[0]->run(parts[0], argc, argv);
    for (int i = 0; i < PARTS; i++) {
        names[i] = word(parts[i]);
        if (strcmp(names[i], first) == 0) return parts[i]->run(parts[i], argc - 1, argv + 1);
    }
    const char *near = tn_nearest(first, PARTS, names);
    return args_usage_error(cmd, "unknown part '%.60s'%s%s%s", first, near ? "; did you mean " : "",
                            near ? near : "", near ? "?" : "");
}

static const arg rows[] = {ARG_END};
const command cmd_bench = {
    "bench",    "Measure speed, beside the limit of the machine.", "[PART] [options]", NULL, rows, 0,
    run_command};

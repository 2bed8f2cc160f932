/* SPDX-License-Identifier: MIT */
/* tern help: all commands, or one. */
#include "commands.h"
#include <string.h>

static void overview(FILE *f) {
    fprintf(f, "tern %s: train small neural networks and compare optimizers\n\n", tn_version());
    fprintf(f, "usage: tern COMMAND [options]\n\n");
    for (const command *const *c = app_commands; *c; c++)
        args_wrapped(f, (*c)->summary, fprintf(f, "  %-10s ", (*c)->name), 13);
    fprintf(f, "\ntern COMMAND --help shows a command's options; tern list shows models,\n"
               "optimizers, schedules and data sets with theirs. Exit codes: 0 done, 1 failed,\n"
               "2 wrong usage, 130 and 143 ended by SIGINT and SIGTERM.\n\n"
               "environment: TERN_DATA (directory of the default data set), TERN_SIMD (vector\n"
               "level: plain, avx2, avx512, neon), OMP_NUM_THREADS (up to 64), NO_COLOR\n");
}

static int run_command(const command *cmd, int argc, char **argv) {
    char none;
    args_rest rest;
    int code = args_parse(cmd, &none, argc, argv, &rest);
    if (code >= 0) return code;
    if (!rest.n) {
        overview(stdout);
        return EXIT_OK;
    }
    const char *names[32];
    int n = 0;
    for (const command *const *c = app_commands; *c && n < 32; c++) {
        if (strcmp((*c)->name, rest.plain[0]) == 0) {
            char *words[] = {(char *)(uintptr_t)rest.plain[1], "--help"}; /* of a part, or of the command */
            return rest.n > 1 ? (*c)->run(*c, 2, words) : (*c)->run(*c, 1, words + 1);
        }
        names[n++] = (*c)->name;
    }
    const char *near = tn_nearest(rest.plain[0], n, names);
    return args_usage_error(cmd, "unknown command '%.60s'%s%s%s", rest.plain[0],
                            near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
}

static const arg rows[] = {ARG_END};
const command cmd_help = {
    "help", "Show this, or the help of a command.", "[COMMAND [PART]]", NULL, rows, 2, run_command};

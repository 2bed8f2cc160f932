/* SPDX-License-Identifier: MIT */
/* tern: one program, a table of commands. */
#include "commands.h"
#include "signals.h"
#include "streams.h"
#include <string.h>

const command *const app_commands[] = {
#define COMMAND(name) &cmd_##name,
#include "commands.def"
#undef COMMAND
    NULL};

static const command *find(const char *name) {
    for (const command *const *c = app_commands; *c; c++)
        if (strcmp((*c)->name, name) == 0) return *c;
    return NULL;
}

static int unknown(const char *name) {
    const char *names[32];
    int n = 0;
    for (const command *const *c = app_commands; *c && n < 32; c++) names[n++] = (*c)->name;
    const char *near = tn_nearest(name, n, names);
    if (near)
        fprintf(stderr, "tern: unknown command '%.60s'; did you mean %s? (see tern help)\n", name, near);
    else
        fprintf(stderr, "tern: unknown command '%.60s' (see tern help)\n", name);
    return EXIT_USAGE;
}

static int dispatch(int argc, char **argv, const char **ran) {
    const char *name = argc > 1 ? argv[1] : NULL;
    *ran = cmd_help.name;
    if (!name) {
        cmd_help.run(&cmd_help, 0, argv);
        return EXIT_USAGE;
    }
    tn_err e;
    if (strcmp(name, "--version") == 0) {
        printf("tern %s\n", tn_version());
        return EXIT_OK;
    }
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0) return cmd_help.run(&cmd_help, 0, argv);
    const command *c = find(name);
    if (!c && name[0] == '-') {
        fprintf(stderr, "tern: unknown option %.60s; options stand after the command (see tern help)\n",
                name);
        return EXIT_USAGE;
    }
    if (!c) return unknown(name);
    if (c != &cmd_help && !tn_simd(&e)) {
        fprintf(stderr, "tern: %s\n", e.msg);
        return EXIT_USAGE;
    }
    *ran = c->name;
    return c->run(c, argc - 2, argv + 2);
}

int main(int argc, char **argv) {
    const char *ran;
    streams_start();
    signals_ignore();
    int code = dispatch(argc, argv, &ran);
    return streams_end(ran, code);
}

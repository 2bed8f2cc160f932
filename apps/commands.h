/* SPDX-License-Identifier: MIT */
/*
 * The commands, and what they share. A new one: one file with its `const command cmd_NAME`, one line in
 * commands.def.
 */
#ifndef TERN_APP_COMMANDS_H
#define TERN_APP_COMMANDS_H
#include "args.h"
#include "run.h"

#define COMMAND(name) extern const command cmd_##name;
#include "commands.def"
#undef COMMAND

extern const command *const app_commands[]; /* ends with NULL */

/* tn_set_threads when n > 0. OpenBLAS gets one thread: tern's own are above it. */
void app_threads(long n);
/* What failed to open: a usage error when it is the wording of --data or of its options, else a failure. */
int app_data_failed(const command *, const char *where, const tn_err *);
/* A model and the part of its input that eval and inspect need, from a weights file written by a run. */
typedef struct {
    char path[CONFIG_PATH], model[CONFIG_SPEC], data_hash[65], test_hash[65];
    tn_model_shape shape;
    double scale, shift;
    char (*class_name)[TN_MAX_NAME]; /* one an output, or NULL: they have no names */
} weights_head;
void app_weights_head_free(weights_head *);
/* where: a run directory (its last.safetensors) or a file. */
int app_weights_head(const char *where, weights_head *, tn_err *);
#endif

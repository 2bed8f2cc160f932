/* SPDX-License-Identifier: MIT */
/*
 * Command lines: one table a command gives parsing, range checks, messages and help.
 * Long options only: --name value, --name=value; "--" ends them; of a repeated option the last one holds.
 */
#ifndef TERN_APP_ARGS_H
#define TERN_APP_ARGS_H
#include "tern.h"
#include <limits.h>
#include <stddef.h>
#include <stdint.h>

/* Exit codes of every command. */
enum { EXIT_OK = 0, EXIT_FAILED = 1, EXIT_USAGE = 2, EXIT_INT = 130, EXIT_TERM = 143 };

/*
 * Field of each: char[size] | long | double | int, 0 or 1 | int, index of the word | char[count][size] |
 * char[size]
 */
typedef enum {
    ARG_TEXT_T,
    ARG_INT_T,
    ARG_REAL_T,
    ARG_FLAG_T,
    ARG_WORD_T,
    ARG_MANY_T,
    ARG_WORD_TEXT_T
} arg_type;

typedef struct {
    const char *name; /* without the dashes */
    arg_type type;
    size_t offset, size;
    int count;            /* ARG_MANY: how often at most */
    double def, min, max; /* numbers; words: def is the index */
    const char *words;    /* "a|b|c" */
    const char *metavar;  /* for the help */
    const char *text;     /* default of a text */
    const char *help;
} arg;

#define ARG_FIELD(S, f) offsetof(S, f), sizeof(((S *)0)->f)
#define ARG_TEXT(S, f, name, metavar, def, help) \
    { name, ARG_TEXT_T, ARG_FIELD(S, f), 0, 0, 0, 0, NULL, metavar, def, help }
#define ARG_INT(S, f, name, def, lo, hi, help) \
    { name, ARG_INT_T, ARG_FIELD(S, f), 0, def, lo, (double)(hi), NULL, "N", NULL, help }
#define ARG_REAL(S, f, name, def, lo, hi, help) \
    { name, ARG_REAL_T, ARG_FIELD(S, f), 0, def, lo, hi, NULL, "X", NULL, help }
#define ARG_FLAG(S, f, name, help) \
    { name, ARG_FLAG_T, ARG_FIELD(S, f), 0, 0, 0, 1, NULL, NULL, NULL, help }
#define ARG_WORD(S, f, name, words, def, help) \
    { name, ARG_WORD_T, ARG_FIELD(S, f), 0, def, 0, 0, words, NULL, NULL, help }
#define ARG_WORD_TEXT(S, f, name, words, def, help) \
    { name, ARG_WORD_TEXT_T, ARG_FIELD(S, f), 0, 0, 0, 0, words, NULL, def, help }
#define ARG_MANY(S, f, name, metavar, count, help) \
    { name, ARG_MANY_T, ARG_FIELD(S, f) / (count), count, 0, 0, 0, NULL, metavar, NULL, help }
#define ARG_END \
    { NULL, ARG_TEXT_T, 0, 0, 0, 0, 0, 0, NULL, NULL, NULL, NULL }

enum { ARG_MAX_GIVEN = 64, ARG_MAX_PLAIN = 4096 };
typedef struct {
    uint64_t given; /* bit i: row i was named on the command line */
    int n;          /* arguments that are not options */
    const char *plain[ARG_MAX_PLAIN];
} args_rest;

/* A command of tern. run gets what follows the command's name and returns the exit code. */
typedef struct command {
    const char *name, *summary;
    const char *usage;  /* after "tern name ": "[options] FILE" */
    const char *detail; /* paragraphs and examples below the options, or NULL */
    const arg *args;
    int max_plain;
    int (*run)(const struct command *, int argc, char **argv);
} command;

void args_default(const arg *, void *dst);
/*
 * Parses into dst, defaults first. -1: go on. Else the exit code: 0 after --help or --version, 2 after an
 * error, which has been printed to stderr in one line.
 */
int args_parse(const command *, void *dst, int argc, char **argv, args_rest *);
/* One value for one row, with the same checks; for JSON and tests. */
int args_set(const arg *row, void *dst, const char *value, tn_err *);
/* The row's value as text that args_set takes back to the same bits; "" for an empty one. */
void args_text(const arg *row, const void *src, char *out, size_t cap);
const arg *args_find(const arg *, const char *name);
int args_given(const command *, const args_rest *, const char *name);
void args_help(const command *, FILE *);
/*
 * Writes text and a newline, wrapped to 80 columns: the first line goes on in column at, the others start in column
 * indent. A word that is too long for any line, such as a spec, is broken after its commas.
 */
void args_wrapped(FILE *, const char *text, int at, int indent);
/* "tern name: message" and a pointer to the help, to stderr; returns EXIT_USAGE. */
int args_usage_error(const command *, const char *fmt, ...) TN_PRINTF(2, 3);
/* "tern name: message" to stderr; returns EXIT_FAILED. */
int args_failed(const command *, const tn_err *);
#endif

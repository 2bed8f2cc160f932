/* SPDX-License-Identifier: MIT */
/* Command lines: parsing and range checks from a command's table. The help is in args_help.c. */
#include "args.h"
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

const arg *args_find(const arg *rows, const char *name) {
    for (const arg *r = rows; r && r->name; r++)
        if (strcmp(r->name, name) == 0) return r;
    return NULL;
}

int args_given(const command *c, const args_rest *rest, const char *name) {
    const arg *r = args_find(c->args, name);
    return r && rest->given >> (r - c->args) & 1;
}

/* The fewest digits that read back to the same bits. */
static void shortest(double v, char *out, size_t cap) {
    char text[40];
    for (int digits = 6; digits <= 17; digits++) {
        snprintf(text, sizeof text, "%.*g", digits, v);
        if (strtod(text, NULL) == v) break;
    }
    snprintf(out, cap, "%s", text);
}

void args_default(const arg *rows, void *dst) {
    for (const arg *r = rows; r && r->name; r++) {
        void *p = (char *)dst + r->offset;
        switch (r->type) {
        case ARG_TEXT_T:
        case ARG_WORD_TEXT_T:
            snprintf(p, r->size, "%s", r->text);
            break;
        case ARG_INT_T:
            *(long *)p = (long)r->def;
            break;
        case ARG_REAL_T:
            *(double *)p = r->def;
            break;
        case ARG_FLAG_T:
            *(int *)p = 0;
            break;
        case ARG_WORD_T:
            *(int *)p = (int)r->def;
            break;
        case ARG_MANY_T:
            memset(p, 0, r->size * (size_t)r->count);
            break;
        }
    }
}

/* ---- One value ----------------------------------------------------------------------------------------- */

/* Index of value in "a|b|c", or -1. */
static int word_index(const char *words, const char *value) {
    size_t len = strlen(value);
    for (int i = 0; *words; i++) {
        size_t n = strcspn(words, "|");
        if (n == len && strncmp(words, value, n) == 0) return i;
        words += n + (words[n] == '|');
    }
    return -1;
}

static void word_at(const char *words, int index, char *out, size_t cap) {
    for (; index > 0; index--) {
        words += strcspn(words, "|");
        words += *words == '|';
    }
    snprintf(out, cap, "%.*s", (int)strcspn(words, "|"), words);
}

static int set_word(const arg *r, void *p, const char *value, tn_err *e) {
    int i = word_index(r->words, value);
    if (i < 0) return tn_fail(e, "--%s: '%.60s' is not one of %s", r->name, value, r->words);
    if (r->type == ARG_WORD_T)
        *(int *)p = i;
    else
        snprintf(p, r->size, "%s", value);
    return 0;
}

static int set_int(const arg *r, long *p, const char *value, tn_err *e) {
    char *end;
    errno = 0;
    long v = strtol(value, &end, 10);
    if (end == value || *end || strchr(" \t\n", *value))
        return tn_fail(e, "--%s: '%.60s' is not a whole number", r->name, value);
    if (errno || (double)v < r->min || (double)v > r->max)
        return tn_fail(e,
                       r->max >= (double)LONG_MAX ? "--%s: %.60s is out of range: at least %.0f"
                                                  : "--%s: %.60s is out of range %.0f ... %.0f",
                       r->name, value, r->min, r->max);
    *p = v;
    return 0;
}

static int set_real(const arg *r, double *p, const char *value, tn_err *e) {
    char *end;
    double v = strtod(value, &end);
    if (end == value || *end || strchr(" \t\n", *value) || isnan(v))
        return tn_fail(e, "--%s: '%.60s' is not a number", r->name, value);
    if (v < r->min || v > r->max)
        return tn_fail(e, "--%s: %.60s is out of range %g ... %g", r->name, value, r->min, r->max);
    *p = v;
    return 0;
}

static int set_text(const arg *r, char *p, const char *value, tn_err *e) {
    if (strlen(value) >= r->size)
        return tn_fail(e, "--%s: longer than %zu bytes: '%.40s...'", r->name, r->size - 1, value);
    strcpy(p, value);
    return 0;
}

static int add_text(const arg *r, char *p, const char *value, tn_err *e) {
    if (!*value) return tn_fail(e, "--%s: is empty", r->name);
    for (int i = 0; i < r->count; i++, p += r->size)
        if (!*p) return set_text(r, p, value, e);
    return tn_fail(e, "--%s: given more than %d times", r->name, r->count);
}

int args_set(const arg *r, void *dst, const char *value, tn_err *e) {
    void *p = (char *)dst + r->offset;
    switch (r->type) {
    case ARG_TEXT_T:
        return set_text(r, p, value, e);
    case ARG_INT_T:
        return set_int(r, p, value, e);
    case ARG_REAL_T:
        return set_real(r, p, value, e);
    case ARG_MANY_T:
        return add_text(r, p, value, e);
    case ARG_FLAG_T: {
        int i = word_index("off|on", value);
        if (i < 0) return tn_fail(e, "--%s: takes no value ('%.60s')", r->name, value);
        *(int *)p = i;
        return 0;
    }
    case ARG_WORD_T:
    case ARG_WORD_TEXT_T:
        return set_word(r, p, value, e);
    }
    return -1;
}

void args_text(const arg *r, const void *src, char *out, size_t cap) {
    const void *p = (const char *)src + r->offset;
    switch (r->type) {
    case ARG_TEXT_T:
    case ARG_MANY_T:
    case ARG_WORD_TEXT_T:
        snprintf(out, cap, "%s", (const char *)p);
        break;
    case ARG_INT_T:
        snprintf(out, cap, "%ld", *(const long *)p);
        break;
    case ARG_FLAG_T:
        snprintf(out, cap, "%s", *(const int *)p ? "on" : "off");
        break;
    case ARG_WORD_T:
        word_at(r->words, *(const int *)p, out, cap);
        break;
    case ARG_REAL_T:
        shortest(*(const double *)p, out, cap);
        break;
    }
}

/* ---- The command line ---------------------------------------------------------------------------------- */

/* One line, which a program can read; wrapped where a person does. */
__attribute__((format(printf, 1, 2))) static void complain(const char *fmt, ...) {
    char text[1400];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (isatty(STDERR_FILENO))
        args_wrapped(stderr, text, 0, 2);
    else
        fprintf(stderr, "%s\n", text);
}

int args_usage_error(const command *c, const char *fmt, ...) {
    char msg[1024];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(msg, sizeof msg, fmt, ap);
    va_end(ap);
    complain("tern %s: %s (see tern %s --help)", c->name, msg, c->name);
    return EXIT_USAGE;
}

int args_failed(const command *c, const tn_err *e) {
    complain("tern %s: %s", c->name, e->msg);
    return EXIT_FAILED;
}

static int unknown_option(const command *c, const char *name) {
    const char *names[ARG_MAX_GIVEN + 2];
    int n = 0;
    for (const arg *r = c->args; r && r->name && n < ARG_MAX_GIVEN; r++) names[n++] = r->name;
    names[n++] = "help";
    names[n++] = "version";
    const char *near = tn_nearest(name, n, names);
    if (near) return args_usage_error(c, "unknown option --%.60s; did you mean --%s?", name, near);
    return args_usage_error(c, "unknown option --%.60s", name);
}

/* argv[i] is "--name" or "--name=value"; *used: how many arguments it took. */
static int parse_option(const command *c, void *dst, int left, char **argv, args_rest *rest, int *used) {
    const char *text = argv[0] + 2, *eq = strchr(text, '=');
    char name[64];
    size_t len = eq ? (size_t)(eq - text) : strlen(text);
    snprintf(name, sizeof name, "%.*s", (int)(len < 63 ? len : 63), text);
    *used = 1;
    if (!eq && strcmp(name, "help") == 0) {
        args_help(c, stdout);
        return EXIT_OK;
    }
    if (!eq && strcmp(name, "version") == 0) {
        printf("tern %s\n", tn_version());
        return EXIT_OK;
    }
    const arg *r = args_find(c->args, name);
    if (!r) return unknown_option(c, name);
    const char *value = eq ? eq + 1 : r->type == ARG_FLAG_T ? "on" : left > 1 ? argv[1] : NULL;
    if (!value) return args_usage_error(c, "--%s: needs a value", name);
    if (!eq && r->type != ARG_FLAG_T) *used = 2;
    /* "--out --force" forgot the value; one that really starts so can be given as --out=--force */
    if (*used == 2 && strncmp(value, "--", 2) == 0) return args_usage_error(c, "--%s: needs a value", name);
    /* --resume "$UNSET" must not start a new run */
    if (!*value && r->type == ARG_TEXT_T) return args_usage_error(c, "--%s: is empty", name);
    tn_err e;
    if (args_set(r, dst, value, &e)) return args_usage_error(c, "%s", e.msg);
    rest->given |= (uint64_t)1 << (r - c->args);
    return -1;
}

int args_parse(const command *c, void *dst, int argc, char **argv, args_rest *rest) {
    *rest = (args_rest){0};
    args_default(c->args, dst);
    int options = 1;
    for (int i = 0, used; i < argc; i += used) {
        used = 1;
        if (options && strcmp(argv[i], "--") == 0) {
            options = 0;
        } else if (options && strncmp(argv[i], "--", 2) == 0) {
            int code = parse_option(c, dst, argc - i, argv + i, rest, &used);
            if (code >= 0) return code;
        } else if (options && argv[i][0] == '-' && argv[i][1]) {
            if (strcmp(argv[i], "-h") == 0) {
                args_help(c, stdout);
                return EXIT_OK;
            }
            return args_usage_error(c, "unknown option %.60s; options are long: --name", argv[i]);
        } else if (rest->n >= c->max_plain) {
            return args_usage_error(c, "unexpected argument '%.60s'", argv[i]);
        } else if (!*argv[i]) {
            return args_usage_error(c, "an argument is empty"); /* eval "$UNSET" */
        } else {
            rest->plain[rest->n++] = argv[i];
        }
    }
    return -1;
}

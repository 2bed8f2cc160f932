/* SPDX-License-Identifier: MIT */
/* tern explain: every intermediate of an optimizer's steps, for one weight. */
#include "commands.h"
#include "compare.h"
#include "explain.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    char optimizer[CONFIG_SPEC], vs[CONFIG_SPEC], schedule[CONFIG_SPEC], wd_schedule[CONFIG_SPEC];
    char grads[32 * EXPLAIN_STEPS]; /* longer than any list of so many */
    double w;
    int json;
} options;

static const arg rows[] = {
    ARG_TEXT(options, optimizer, "optimizer", "SPEC", "adamw", "optimizer; see tern list optimizers"),
    ARG_TEXT(
        options, vs, "vs", "SPECS", "",
        "others beside it, separated by commas; options of --optimizer hold for them, too, where they have "
        "them and say nothing else"),
    ARG_TEXT(options, grads, "grads", "LIST", "0.5,0.5,-1",
             "the gradient of each step, separated by commas; 1,000 at most"),
    ARG_REAL(options, w, "w", 1, -1e30, 1e30, "the weight before the first step"),
    ARG_TEXT(options, schedule, "schedule", "SPEC", "constant", "learning-rate schedule over these steps"),
    ARG_TEXT(options, wd_schedule, "wd-schedule", "SPEC", "constant", "schedule of weight_decay"),
    ARG_FLAG(options, json, "json", "as JSON, with all digits"),
    ARG_END};

static int count(const char *list) {
    int n = 1;
    for (; *list; list++) n += *list == ',';
    return n;
}

static int parse_grads(const char *text, explain_input *in, tn_err *e) {
    for (const char *p = text;; p++) {
        char *end;
        const double g = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !isfinite(g) || fabs(g) > 1e30)
            return tn_fail(e, "--grads: '%.*s' is not a number from -1e30 to 1e30; must be like 0.5,0.5,-1",
                           (int)strcspn(p, ","), p);
        if (in->n == EXPLAIN_STEPS)
            return tn_fail(e, "--grads: %d gradients; %d at most: leave out the last ones", count(text),
                           EXPLAIN_STEPS);
        in->g[in->n++] = g;
        if (!*(p = end)) return 0;
    }
}

/* NULL with *bad 0: nothing to multiply with. */
static tn_schedule *schedule_of(const char *spec, const char *option, int *bad, tn_err *e) {
    tn_schedule *s = tn_schedule_new(spec, e);
    char text[CONFIG_SPEC];
    *bad = !s;
    if (s && tn_schedule_observes(s))
        *bad = tn_fail(e, "--%s: it follows a validation loss, and there is none here", option);
    if (s
        && (*bad || (tn_schedule_text(s, text, sizeof text) > 0 && strcmp(text, "constant:warmup=0") == 0))) {
        tn_schedule_free(s);
        s = NULL;
    }
    return s;
}

static int explain(const command *cmd, const options *o, explain_input *in) {
    static char spec[COMPARE_MOST][CONFIG_SPEC];
    char full[CONFIG_SPEC];
    tn_err e = {""};
    int n = 0, bad = 0;
    explained *x = calloc(EXPLAIN_MOST, sizeof *x);
    if (!x) return args_failed(cmd, &(tn_err){"not enough memory"});
    if (*o->vs && (n = split_specs(o->vs, "vs", spec, &e)) < 0) bad = 1;
    if (n >= EXPLAIN_MOST) bad = tn_fail(&e, "--vs: %d optimizers; %d at most", n, EXPLAIN_MOST - 1);
    bad = bad || explain_run(o->optimizer, in, &x[0], &e);
    for (int i = 0; i < n && !bad; i++) {
        explain_inherit(spec[i], o->optimizer, full);
        bad = explain_run(full, in, &x[i + 1], &e);
    }
    if (!bad && n) { /* two of a kind get numbers */
        static char all[EXPLAIN_MOST][CONFIG_SPEC], label[EXPLAIN_MOST][COMPARE_LABEL];
        for (int i = 0; i <= n; i++) memcpy(all[i], x[i].spec, sizeof all[i]);
        label_specs(n + 1, all, label);
        for (int i = 0; i <= n; i++)
            snprintf(x[i].label, sizeof x[i].label, "%.*s", COMPARE_LABEL - 1, label[i]);
    }
    if (!bad && o->json) {
        json_t *j = explain_json(n + 1, x, in);
        json_dumpf(j, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(j);
    } else if (!bad) {
        explain_print(stdout, n + 1, x, in);
    }
    free(x);
    return bad ? args_usage_error(cmd, "%s", e.msg) : EXIT_OK;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static options o;
    explain_input in = {.n = 0};
    args_rest rest;
    tn_err e = {""};
    int code = args_parse(cmd, &o, argc, argv, &rest), bad;
    if (code >= 0) return code;
    in.w = o.w;
    if (parse_grads(o.grads, &in, &e)) return args_usage_error(cmd, "%s", e.msg);
    tn_schedule *lr = schedule_of(o.schedule, "schedule", &bad, &e), *wd = NULL;
    if (!bad) wd = schedule_of(o.wd_schedule, "wd-schedule", &bad, &e);
    in.schedule = lr, in.wd_schedule = wd;
    code = bad ? args_usage_error(cmd, "%s", e.msg) : explain(cmd, &o, &in);
    tn_schedule_free(lr);
    tn_schedule_free(wd);
    return code;
}

const command cmd_explain = {
    "explain",
    "Show every intermediate of an optimizer's steps for one weight.",
    "[options]",
    "The optimizer itself makes the steps, in the arithmetic that it trains in; the\n"
    "gradients are given. Every column's formula stands below the table.\n\n"
    "  tern explain --optimizer adamw:lr=0.1,weight_decay=0.1 --grads 0.5,0.5,-1\n"
    "  tern explain --optimizer adamw:lr=0.1,weight_decay=0.1 --vs adaml2,adam\n"
    "  tern explain --optimizer sgd:lr=0.1,momentum=0.9 --grads 1,1,1,1 --w 0\n",
    rows,
    0,
    run_command};

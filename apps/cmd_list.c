/* SPDX-License-Identifier: MIT */
/* tern list: models, optimizers, wrappers, schedules, data sets and augmentation with their options, from their tables. */
#include "commands.h"
#include "tern_models.h"
#include <string.h>

typedef struct {
    int json, verbose;
} list_options;
static const arg rows[] = {
    ARG_FLAG(list_options, json, "json", "as JSON"),
    ARG_FLAG(list_options, verbose, "verbose", "of optimizers also formulas, state, and what they take"),
    ARG_END};

/* One registered thing, whatever its kind. */
typedef struct {
    const char *name, *summary, *source;
    const tn_opt *opts;
    size_t size;
    const tn_optim_def *optim; /* or NULL */
} thing;
typedef struct {
    const char *name;
    int (*at)(int i, thing *); /* 0 beyond the last */
} kind;

#define KIND(fn, list, options, bytes, origin, def)                           \
    static int fn(int i, thing *t) {                                          \
        int n;                                                                \
        const void *all = list(&n);                                           \
        if (i >= n) return 0;                                                 \
        const fn##_def *d = ((const fn##_def *const *)all)[i];                \
        *t = (thing){d->name, d->summary, origin, d->options, d->bytes, def}; \
        return 1;                                                             \
    }
typedef tn_model_def model_def;
typedef tn_optim_def optim_def, wrapper_def;
typedef tn_schedule_def schedule_def;
typedef tn_dataset_def dataset_def;
KIND(model, tn_models, cfg, cfg_size, NULL, NULL)
KIND(optim, tn_optims, hp, hp_size, d->source, d)
KIND(wrapper, tn_optim_wrappers, hp, hp_size, d->source, d)
KIND(schedule, tn_schedules, hp, hp_size, d->source, NULL)
KIND(dataset, tn_datasets, cfg, cfg_size, NULL, NULL)

/* Not a list of things, but one with options. */
static int augment(int i, thing *t) {
    *t = (thing){"augment",
                 "random changes of the training pictures: --augment key=value,...",
                 NULL,
                 tn_augment_options(),
                 sizeof(tn_augment),
                 NULL};
    return i == 0;
}

static const kind kinds[] = {{"models", model},       {"optimizers", optim}, {"wrappers", wrapper},
                             {"schedules", schedule}, {"data", dataset},     {"augment", augment}};
enum { KINDS = sizeof kinds / sizeof *kinds };

static json_t *options_json(const thing *t) {
    static const char *const types[] = {"number", "integer", "boolean", "word", "text", "list"};
    json_t *all = json_array();
    _Alignas(max_align_t) char value[1 << 14];
    if (!t->opts || t->size > sizeof value) return all;
    memset(value, 0, t->size);
    tn_opts_default(t->opts, value);
    for (const tn_opt *o = t->opts; o->name; o++) {
        char text[TN_MAX_TEXT + 64] = "";
        tn_opt_value(o, value, text, sizeof text);
        json_t *j = json_pack("{s:s, s:s, s:s, s:s}", "name", o->name, "type", types[o->type], "default",
                              text, "help", o->help ? o->help : "");
        if (o->type == TN_WORD_OPT) json_object_set_new(j, "words", json_string(o->text));
        json_array_append_new(all, j);
    }
    return all;
}

static json_t *kind_json(const kind *k) {
    json_t *all = json_array();
    thing t;
    for (int i = 0; k->at(i, &t); i++) {
        json_t *j =
            json_pack("{s:s, s:s, s:o}", "name", t.name, "summary", t.summary, "options", options_json(&t));
        if (t.source) json_object_set_new(j, "source", json_string(t.source));
        json_array_append_new(all, j);
    }
    return all;
}

/* "name       text", wrapped below a thing's options. */
static void note(const char *name, const char *text) {
    args_wrapped(stdout, text, printf("      %-11s ", name), 18);
}

/* What a definition keeps for each weight by its defaults. */
static void show_state(const tn_optim_def *d) {
    _Alignas(max_align_t) char hp[1 << 14];
    tn_slot slot[TN_MAX_SLOT] = {{0}};
    char text[TN_MAX_SLOT * (TN_MAX_NAME + 40)] = "nothing by default";
    tn_err e;
    if (d->hp_size > sizeof hp) return;
    memset(hp, 0, d->hp_size);
    tn_opts_default(d->hp, hp);
    if (d->check && d->check(hp, 0, &e)) return;
    const int dim[] = {64, 32}, n = d->slots ? d->slots(hp, 2, dim, slot) : 0;
    for (int i = 0, at = 0; i < n; i++) {
        const int whole = slot[i].len == 64 * 32;
        at += snprintf(text + at, sizeof text - (size_t)at, "%s%s%s", i ? ", " : "", slot[i].name,
                       whole ? "" : " (not one a weight)");
    }
    note("keeps", text);
}

static void show_verbose(const tn_optim_def *d) {
    char text[512];
    show_state(d);
    note("works on", d->scope == TN_ELEMENT ? "each weight by itself" : "whole tensors");
    if (d->takes && d->rest) {
        snprintf(text, sizeof text, "not every tensor; the others go to %s, see --group of tern train",
                 d->rest);
        note("takes", text);
    }
    if (d->eval_weights) note("evaluation", "on other weights than those that train");
    for (const tn_explain *x = d->explain; x && x->name; x++) note(x->name, x->formula);
}

static void show_kind(const kind *k, int verbose) {
    thing t;
    printf("%s\n", k->name);
    for (int i = 0; k->at(i, &t); i++) {
        args_wrapped(stdout, t.summary, printf("  %-12s ", t.name), 15);
        if (t.source) {
            char source[512];
            snprintf(source, sizeof source, "(%s)", t.source);
            args_wrapped(stdout, source, printf("  %-12s ", ""), 15);
        }
        if (t.opts) tn_opts_help(t.opts, stdout, "      ");
        if (t.optim && verbose) show_verbose(t.optim);
    }
}

static int run_command(const command *cmd, int argc, char **argv) {
    list_options o;
    args_rest rest;
    const kind *only = NULL;
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code >= 0) return code;
    if (rest.n) {
        const char *names[KINDS];
        for (int i = 0; i < KINDS; i++) {
            names[i] = kinds[i].name;
            if (strcmp(kinds[i].name, rest.plain[0]) == 0) only = &kinds[i];
        }
        const char *near = tn_nearest(rest.plain[0], KINDS, names);
        if (!only)
            return args_usage_error(
                cmd, "'%.60s' is not one of models, optimizers, wrappers, schedules, data, augment%s%s%s",
                rest.plain[0], near ? "; did you mean " : "", near ? near : "", near ? "?" : "");
    }
    if (o.verbose && only && only->at != optim && only->at != wrapper)
        return args_usage_error(cmd, "--verbose: only with optimizers or wrappers");
    json_t *all = json_object();
    for (int i = 0, shown = 0; i < KINDS; i++) {
        /* wrappers stand behind optimizers, on the page, too */
        if (only && only != &kinds[i] && (only->at != optim || kinds[i].at != wrapper)) continue;
        if (o.json)
            json_object_set_new(all, kinds[i].name, kind_json(&kinds[i]));
        else
            printf("%s", shown++ ? "\n" : ""), show_kind(&kinds[i], o.verbose);
    }
    if (o.json) json_dumpf(all, stdout, JSON_INDENT(2)), putchar('\n');
    json_decref(all);
    return EXIT_OK;
}

const command cmd_list = {"list",
                          "List models, optimizers, wrappers, schedules and data sets, with their options.",
                          "[models|optimizers|wrappers|schedules|data|augment] [options]",
                          NULL,
                          rows,
                          1,
                          run_command};

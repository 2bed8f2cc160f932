/* SPDX-License-Identifier: MIT */
/*
 * What an optimizer is made of: finding definitions by name, reading specs, groups and wrappers. An optimizer that
 * exists is changed as a copy, which takes its place when all went well.
 */
#include "optim_private.h"
#include "kernels/kernels.h"
#include <ctype.h>
#include <string.h>

/* ---- finding definitions ---- */

/* Those of the vector level in use; where TERN_SIMD names none, of the plain one, which every machine runs. */
static const tn_optim_def *const *listed(int wraps, int *n) {
    const tn_kernels_t *k = tn_kernels_get(NULL);
    if (!k) k = tn_kernels_level("plain");
    const tn_optim_def *const *defs = wraps ? k->wrappers : k->optims;
    for (*n = 0; defs[*n]; ++*n)
        ;
    return defs;
}

static const tn_optim_def *find(int wraps, const char *name) {
    int n;
    const tn_optim_def *const *defs = listed(wraps, &n);
    for (int i = 0; i < n; i++)
        if (!strcmp(defs[i]->name, name)) return defs[i];
    return NULL;
}

const tn_optim_def *const *tn_optims(int *n) {
    return listed(0, n);
}

const tn_optim_def *const *tn_optim_wrappers(int *n) {
    return listed(1, n);
}

const tn_optim_def *tn_optim_find(const char *name) {
    return find(0, name);
}

const tn_optim_def *tn_optim_find_wrapper(const char *name) {
    return find(1, name);
}

static int unknown_name(int wraps, const char *name, tn_err *e) {
    enum { MOST = 64 };
    const char *names[MOST];
    char list[512] = "", hint[128] = "";
    int n;
    const tn_optim_def *const *defs = listed(wraps, &n);
    if (n > MOST) n = MOST;
    for (int i = 0; i < n; i++) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", names[i] = defs[i]->name);
    }
    if (wraps && tn_optim_find(name))
        return tn_fail(e, "\"+%.60s\": this is an optimizer, no wrapper; wrappers are %s", name, list);
    if (!wraps && tn_optim_find_wrapper(name))
        return tn_fail(e, "\"%.60s\" is a wrapper; it stands behind an optimizer: adamw+%.60s", name, name);
    const char *near = tn_nearest(name, n, names);
    if (near) snprintf(hint, sizeof hint, " (did you mean \"%s\"?)", near);
    return tn_fail(e, "unknown %s \"%.60s\"%s; there are %s%s", wraps ? "wrapper" : "optimizer", name, hint,
                   list, wraps ? "" : ", and plug-ins: ./my_opt.so");
}

static int has_option(const tn_optim_def *d, const char *key, size_t len) {
    for (const tn_opt *o = d->hp; o->name; o++)
        if (strlen(o->name) == len && !memcmp(o->name, key, len)) return 1;
    return 0;
}

/* An option that a definition lacks and its relatives (same slots) have: the message names those. */
static int only_relatives_have(const tn_optim_def *d, const char *options, tn_err *e) {
    int n;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (const char *p = options; p && *p; p += strcspn(p, ","), p += *p == ',') {
        size_t len = strcspn(p, "=,");
        char list[256] = "";
        if (has_option(d, p, len)) continue;
        for (int i = 0; i < n; i++) {
            size_t at = strlen(list);
            if (defs[i]->slots == d->slots && d->slots && has_option(defs[i], p, len))
                snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", defs[i]->name);
        }
        if (*list)
            return tn_fail(e, "optimizer %s has no option %.*s; the same optimizer with it: %s", d->name,
                           (int)len, p, list);
    }
    return 0;
}

static int usable(const tn_optim_def *d, int wraps, tn_err *e) {
    if (d->abi != TN_ABI || d->size < offsetof(tn_optim_def, eval_weights) || d->size > sizeof *d)
        return tn_fail(
            e, "this optimizer was compiled for another version of tern; compile it with the header of %s",
            TN_VERSION);
    if (!tn_kernels_get(e)) return -1;
    const int is_wrapper = d->size > offsetof(tn_optim_def, wraps) && d->wraps;
    if (wraps && !is_wrapper) return tn_fail(e, "%s is an optimizer, no wrapper", d->name);
    if (!wraps && is_wrapper)
        return tn_fail(e, "%s is a wrapper; it stands behind an optimizer: adamw+%s", d->name, d->name);
    if (!d->update || !d->hp || (!wraps && !has_option(d, "lr", 2)))
        return tn_fail(e, "optimizer %s: its definition needs update, and an option table%s", d->name,
                       wraps ? "" : " with a row lr");
    return 0;
}

/* ---- specs ---- */

/* name:options+wrapper:options..., cut in place. */
typedef struct {
    char *name, *options, *next; /* next: what follows the '+', or NULL */
} spec;

/* "+name" begins a wrapper; the plus of a number like 1e+3 stands before a digit. */
static char *find_plus(char *text) {
    for (char *p = strchr(text, '+'); p; p = strchr(p + 1, '+'))
        if (!isdigit((unsigned char)p[1])) return p;
    return NULL;
}

static int ends_in(const char *text, size_t len, const char *end) {
    size_t n = strlen(end);
    return len > n && !memcmp(text + len - n, end, n);
}

static int is_file(const char *name, size_t len) {
    return memchr(name, '/', len) || ends_in(name, len, ".so") || ends_in(name, len, ".dylib");
}

/* A plug-in's path may hold a '+'; it goes on to its ".so" or ".dylib". */
static spec cut_spec(char *text) {
    spec s = {.name = text};
    char *colon = strchr(text, ':'), *plus = find_plus(text);
    while (plus && (!colon || plus < colon) && memchr(text, '/', (size_t)(plus - text))
           && !ends_in(text, (size_t)(plus - text), ".so") && !ends_in(text, (size_t)(plus - text), ".dylib"))
        plus = find_plus(plus + 1);
    if (colon && (!plus || colon < plus)) {
        *colon = 0;
        s.options = colon + 1;
    }
    if (plus) {
        *plus = 0;
        s.next = plus + 1;
    }
    if (!s.options) s.options = text + strlen(text);
    return s;
}

static char *copy_text(const char *text, tn_err *e) {
    char *copy = tn_mem_new(strlen(text) + 1);
    if (!copy) {
        tn_fail(e, "optimizer: out of memory");
        return NULL;
    }
    return strcpy(copy, text);
}

/* A built-in one, or one that is loaded now. */
static const tn_optim_def *definition(int wraps, const char *name, tn_err *e) {
    if (is_file(name, strlen(name))) return tn_optim_load(name, e);
    const tn_optim_def *d = find(wraps, name);
    if (!d) unknown_name(wraps, name, e);
    return d;
}

/* ---- parts ---- */

static void free_part(tn_optim_part *part) {
    tn_free(part->copy);
    tn_free(part->file);
    tn_free(part->hp);
    *part = (tn_optim_part){0};
}

static const char *file_of(const char *name) {
    return is_file(name, strlen(name)) ? name : NULL;
}

/* The default options, or a copy of base; out holds nothing on an error. */
static int new_part(const tn_optim_def *d, const char *file, const tn_optim_part *base, tn_optim_part *out,
                    tn_err *e) {
    *out = (tn_optim_part){.def = d, .hp = tn_mem_new(d->hp_size)};
    if (!out->hp || (file && !(out->file = copy_text(file, e)))) goto short_of_memory;
    if (d->size < sizeof *d) {
        if (!(out->copy = tn_mem_new(sizeof *d))) goto short_of_memory;
        out->def = memcpy(out->copy, d, d->size);
    }
    if (base) {
        memcpy(out->hp, base->hp, d->hp_size);
        out->given = base->given;
    } else {
        tn_opts_default(d->hp, out->hp);
    }
    return 0;
short_of_memory:
    tn_fail(e, "optimizer %s: out of memory", d->name);
    free_part(out);
    return -1;
}

/* Options over what the part has, checked; the part holds nothing after an error. */
static int set_options(tn_optim_part *part, const char *pattern, const char *options, tn_err *e) {
    char what[2 * TN_MAX_NAME + 64];
    const tn_optim_def *d = part->def;
    uint64_t given = 0;
    snprintf(what, sizeof what, "%s %.60s%s%.60s", d->wraps ? "wrapper" : "optimizer", d->name,
             pattern ? ", group " : "", pattern ? pattern : "");
    if ((d->wraps || !only_relatives_have(d, options, e))
        && !tn_opts_parse(d->hp, part->hp, options, what, &given, e)) {
        part->given |= given;
        if (!d->check || !d->check(part->hp, part->given, e)) return 0;
    }
    free_part(part);
    return -1;
}

/* ---- rules and the groups that they make ---- */

static int push(void **list, int n, size_t bytes, tn_err *e) {
    void *more = tn_mem_resize(*list, (size_t)(n + 1) * bytes);
    if (!more) return tn_fail(e, "optimizer: out of memory");
    *list = more;
    return 0;
}

static int push_group(tn_optim *o, tn_optim_part part, tn_err *e) {
    void *list = o->groups;
    if (push(&list, o->ngroup, sizeof *o->groups, e)) {
        free_part(&part);
        return -1;
    }
    o->groups = list;
    o->groups[o->ngroup++] = part;
    return 0;
}

/* How many of a rule's parameters a definition takes, and whether there are others: their first one. */
static int taken(const tn_optim *o, const char *pattern, const tn_optim_part *part, const tn_param **other) {
    int n = 0;
    *other = NULL;
    for (int i = 0; i < o->params->n; i++) {
        const tn_param *p = o->params->p[i];
        if (p->flags & TN_BUFFER || (pattern && !tn_optim_matches(pattern, p->name))) continue;
        if (tn_optim_takes(part, p))
            n++;
        else if (!*other)
            *other = p;
    }
    return n;
}

/* For what d does not take. Options of the first group's definition are those of the first group. */
static int push_rest(tn_optim *o, const tn_optim_def *d, const char *pattern, const char *options,
                     const tn_param *first, tn_err *e) {
    tn_optim_part part;
    char shape[64];
    tn_dims_text(first->nd, first->dim, shape);
    if (!d->rest)
        return tn_fail(e,
                       "optimizer %s does not take %s %s: give it a group with an optimizer of its own, such "
                       "as %s=adamw",
                       d->name, first->name, shape, first->name);
    char *text = copy_text(d->rest, e);
    if (!text) return -1;
    spec s = cut_spec(text);
    const tn_optim_def *rest = definition(0, s.name, e);
    const tn_optim_part *base = o->ngroup && rest == o->groups[0].def ? &o->groups[0] : NULL;
    int bad = !rest || usable(rest, 0, e)
              || (rest->size > offsetof(tn_optim_def, takes) && rest->takes ? tn_fail(
                      e, "optimizer %s: what it leaves to %s must take every parameter", d->name, rest->name)
                                                                            : 0)
              || new_part(rest, NULL, base, &part, e) || (!base && set_options(&part, pattern, s.options, e))
              || set_options(&part, pattern, options, e) || push_group(o, part, e);
    tn_free(text);
    return bad ? -1 : 0;
}

/* Groups of a rule: main with base's definition and options on top, and rest where it is needed. */
static int push_groups(tn_optim *o, tn_optim_rule *rule, const tn_optim_def *d, const char *file,
                       const tn_optim_part *base, const char *options, tn_err *e) {
    tn_optim_part main_part;
    const tn_param *other;
    const char *for_rest = NULL; /* options alone that are meant for it */
    rule->main = rule->rest = -1;
    if (base) {
        const int some = taken(o, rule->pattern, base, &other) > 0;
        if (other) for_rest = options;
        if (other && !some) goto rest; /* they are not for this definition at all */
    }
    if (new_part(d, file, base, &main_part, e)) return -1;
    if (set_options(&main_part, rule->pattern, options, e)) return -1;
    if (!taken(o, rule->pattern, &main_part, &other) && other && rule->pattern)
        free_part(&main_part);
    else if (push_group(o, main_part, e))
        return -1;
    else
        rule->main = o->ngroup - 1;
rest:
    if (!other) return 0;
    if (push_rest(o, d, rule->pattern, for_rest, other, e)) return -1;
    rule->rest = o->ngroup - 1;
    return 0;
}

static int push_rule(tn_optim *o, const char *pattern, const tn_optim_def *d, const char *file,
                     const char *options, tn_err *e) {
    tn_optim_rule rule = {.named = d != NULL};
    const tn_optim_part *base = d ? NULL : &o->groups[0];
    void *list = o->rules;
    if (push(&list, o->nrule, sizeof *o->rules, e)) return -1;
    o->rules = list;
    if (pattern && !(rule.pattern = copy_text(pattern, e))) return -1;
    o->rules[o->nrule++] = rule; /* held from here on, whatever happens */
    tn_optim_part copy;          /* the list that base lies in may move */
    if (base) copy = *base;
    int bad =
        push_groups(o, &rule, d ? d : base->def, d ? file : base->file, base ? &copy : NULL, options, e);
    o->rules[o->nrule - 1] = rule;
    return bad;
}

/* ---- what does not go together ---- */

static int keeps_two(const tn_optim_def *d, const tn_optim_def *w, tn_err *e) {
    return tn_fail(
        e,
        "+%s around %s: %s already keeps a second set of weights and is evaluated on it; leave +%s "
        "out",
        w->name, d->name, d->name, w->name);
}

static int goes_together(const tn_optim *o, tn_err *e) {
    for (int w = 0; w < o->nwrap; w++) {
        const tn_optim_def *d = o->wraps[w].def;
        for (int g = 0; g < o->ngroup; g++)
            if (o->groups[g].def->eval_weights) return keeps_two(o->groups[g].def, d, e);
        for (int v = 0; v < w; v++) {
            if (!strcmp(o->wraps[v].def->name, d->name)) return tn_fail(e, "+%s is given twice", d->name);
            if (d->eval_weights && o->wraps[v].def->eval_weights) return keeps_two(o->wraps[v].def, d, e);
        }
    }
    return 0;
}

/* "+ema:decay=0.99+lookahead" without its first plus; cut in place. */
static int push_wrappers(tn_optim *o, char *text, tn_err *e) {
    while (text) {
        spec s = cut_spec(text);
        tn_optim_part part;
        void *list = o->wraps;
        const tn_optim_def *d = definition(1, s.name, e);
        if (!d || usable(d, 1, e) || new_part(d, file_of(s.name), NULL, &part, e)
            || set_options(&part, NULL, s.options, e))
            return -1;
        if (push(&list, o->nwrap, sizeof *o->wraps, e)) {
            free_part(&part);
            return -1;
        }
        o->wraps = list;
        o->wraps[o->nwrap++] = part;
        text = s.next;
    }
    return 0;
}

/* ---- making and changing ---- */

/* Releases the rules, groups and wrappers that `kept` has not (NULL: all of them), and the lists. */
static void free_parts(tn_optim *o, const tn_optim *kept) {
    for (int i = kept ? kept->nrule : 0; i < o->nrule; i++) tn_free(o->rules[i].pattern);
    for (int i = kept ? kept->ngroup : 0; i < o->ngroup; i++) free_part(&o->groups[i]);
    for (int i = kept ? kept->nwrap : 0; i < o->nwrap; i++) free_part(&o->wraps[i]);
    tn_free(o->rules);
    tn_free(o->groups);
    tn_free(o->wraps);
}

void tn_optim_free(tn_optim *o) {
    if (!o) return;
    tn_optim_free_built(o);
    free_parts(o, NULL);
    tn_free(o);
}

/* wrappers: cut in place. */
static tn_optim *new_optim(tn_params *params, const tn_optim_def *d, const char *file, const char *options,
                           char *wrappers, tn_err *e) {
    TN_CHECK(NULL, params->sealed, "tn_optim_new: the parameters are not sealed; call tn_params_seal first");
    if (usable(d, 0, e)) return NULL;
    tn_optim *o = tn_mem_new(sizeof *o);
    if (!o) {
        tn_fail(e, "optimizer %s: out of memory", d->name);
        return NULL;
    }
    o->params = params;
    if (!push_rule(o, NULL, d, file, options, e) && !push_wrappers(o, wrappers, e) && !goes_together(o, e)
        && !tn_optim_build(o, e))
        return o;
    tn_optim_free(o);
    return NULL;
}

tn_optim *tn_optim_new_def(tn_params *params, const tn_optim_def *d, const char *options, tn_err *e) {
    char *text = copy_text(options ? options : "", e), *plus = text ? find_plus(text) : NULL;
    if (!text) return NULL;
    if (plus) *plus++ = 0;
    tn_optim *o = new_optim(params, d, NULL, text, plus, e);
    tn_free(text);
    return o;
}

tn_optim *tn_optim_new(tn_params *params, const char *text, tn_err *e) {
    char *copy = copy_text(text, e);
    if (!copy) return NULL;
    spec s = cut_spec(copy);
    const tn_optim_def *d = definition(0, s.name, e);
    tn_optim *o = d ? new_optim(params, d, file_of(s.name), s.options, s.next, e) : NULL;
    tn_free(copy);
    return o;
}

/* A copy whose lists can grow; -1: out of memory, nothing held. */
static int begin_change(const tn_optim *o, tn_optim *next, tn_err *e) {
    if (o->evaluating) return tn_fail(e, "optimizer: the weights to evaluate with are in place");
    if (o->scalar[0] > 0)
        return tn_fail(e, "optimizer %s: groups and wrappers have to be made before the first step",
                       o->groups[0].def->name);
    *next = (tn_optim){
        .params = o->params, .nrule = o->nrule, .ngroup = o->ngroup, .nwrap = o->nwrap, .report = o->report};
    const size_t rules = (size_t)o->nrule * sizeof *o->rules, groups = (size_t)o->ngroup * sizeof *o->groups,
                 wraps = (size_t)o->nwrap * sizeof *o->wraps;
    next->rules = tn_mem_new(rules), next->groups = tn_mem_new(groups);
    next->wraps = wraps ? tn_mem_new(wraps) : NULL;
    if (!next->rules || !next->groups || (wraps && !next->wraps)) {
        free_parts(next, o);
        return tn_fail(e, "optimizer %s: out of memory", o->groups[0].def->name);
    }
    memcpy(next->rules, o->rules, rules);
    memcpy(next->groups, o->groups, groups);
    if (wraps) memcpy(next->wraps, o->wraps, wraps);
    return 0;
}

/* bad: the change failed. Otherwise next takes the place of o. */
static int end_change(tn_optim *o, tn_optim *next, int bad, tn_err *e) {
    if (bad || goes_together(next, e) || tn_optim_build(next, e)) {
        free_parts(next, o);
        return -1;
    }
    tn_optim_free_built(o);
    tn_free(o->rules);
    tn_free(o->groups);
    tn_free(o->wraps);
    *o = *next;
    return 0;
}

static int pattern_fits(const tn_optim *o, const char *pattern, tn_err *e) {
    char hint[TN_MAX_NAME + 32] = "";
    const char *near = NULL;
    for (int i = 0; i < o->params->n; i++) {
        const char *name = o->params->p[i]->name;
        if (tn_optim_matches(pattern, name)) return 0;
        if (!near) near = tn_nearest(pattern, 1, &name);
    }
    if (near) snprintf(hint, sizeof hint, " (did you mean \"%s\"?)", near);
    return tn_fail(
        e,
        "optimizer %s: no parameter's name matches the pattern \"%.60s\"%s; '*' and '?' stand for any "
        "characters, as in \"*.bias\"",
        o->groups[0].def->name, pattern, hint);
}

/* "lr=0.1" has options alone, "sgd:lr=0.1" and "sgd" name a definition. */
static int names_definition(const tn_optim_def *d, const char *text) {
    size_t len = strcspn(text, ":=");
    if (!*text || is_file(text, len)) return *text != 0;
    return text[len] == ':' || (text[len] != '=' && !has_option(d, text, len));
}

int tn_optim_group(tn_optim *o, const char *pattern, const char *text, tn_err *e) {
    tn_optim next;
    const tn_optim_def *base = o->groups[0].def, *d = NULL;
    char *copy = copy_text(text ? text : "", e);
    spec s = {.options = copy};
    int bad = !copy || begin_change(o, &next, e);
    if (bad) goto done;
    bad = pattern_fits(o, pattern, e);
    if (!bad && names_definition(base, copy)) {
        s = cut_spec(copy);
        d = definition(0, s.name, e);
        bad = !d || usable(d, 0, e);
        if (!bad && s.next)
            bad = tn_fail(e,
                          "optimizer %s, group %.60s: +%.60s: wrappers hold for all parameters; they stand "
                          "behind the optimizer, not in a group",
                          base->name, pattern, s.next);
    }
    bad = end_change(o, &next,
                     bad || push_rule(&next, pattern, d, file_of(s.name ? s.name : ""), s.options, e), e);
done:
    tn_free(copy);
    return bad ? -1 : 0;
}

int tn_optim_wrap(tn_optim *o, const tn_optim_def *d, const char *options, tn_err *e) {
    tn_optim next;
    tn_optim_part part;
    if (usable(d, 1, e) || begin_change(o, &next, e)) return -1;
    void *list = next.wraps;
    int bad = new_part(d, NULL, NULL, &part, e) || set_options(&part, NULL, options, e);
    if (!bad && !(bad = push(&list, next.nwrap, sizeof part, e))) {
        next.wraps = list;
        next.wraps[next.nwrap++] = part;
    } else if (!bad) {
        free_part(&part);
    }
    return end_change(o, &next, bad, e);
}

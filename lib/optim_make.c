/* SPDX-License-Identifier: MIT */
/*
 * What an optimizer is made of: groups by rules, and wrappers. One that exists is changed as a copy, which takes its place
 * when all went well.
 */
#include "optim_private.h"
#include <string.h>

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
        tn_optim_part_free(&part);
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
    char *text = tn_optim_copy(d->rest, e);
    if (!text) return -1;
    tn_optim_spec s = tn_optim_cut(text);
    const tn_optim_def *rest = tn_optim_named(0, s.name, e);
    const tn_optim_part *base = o->ngroup && rest == o->groups[0].def ? &o->groups[0] : NULL;
    int bad = !rest || tn_optim_usable(rest, 0, NULL, e)
              || (rest->size > offsetof(tn_optim_def, takes) && rest->takes ? tn_fail(
                      e, "optimizer %s: what it leaves to %s must take every parameter", d->name, rest->name)
                                                                            : 0)
              || tn_optim_part_new(rest, NULL, base, &part, e)
              || (!base && tn_optim_part_set(&part, pattern, s.options, e))
              || tn_optim_part_set(&part, pattern, options, e) || push_group(o, part, e);
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
    if (tn_optim_part_new(d, file, base, &main_part, e)) return -1;
    if (tn_optim_part_set(&main_part, rule->pattern, options, e)) return -1;
    if (!taken(o, rule->pattern, &main_part, &other) && other && rule->pattern)
        tn_optim_part_free(&main_part);
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
    if (pattern && !(rule.pattern = tn_optim_copy(pattern, e))) return -1;
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
        tn_optim_spec s = tn_optim_cut(text);
        tn_optim_part part;
        void *list = o->wraps;
        const tn_optim_def *d = tn_optim_named(1, s.name, e);
        if (!d || tn_optim_usable(d, 1, tn_optim_file_of(s.name), e)
            || tn_optim_part_new(d, tn_optim_file_of(s.name), NULL, &part, e)
            || tn_optim_part_set(&part, NULL, s.options, e))
            return -1;
        if (push(&list, o->nwrap, sizeof *o->wraps, e)) {
            tn_optim_part_free(&part);
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
    for (int i = kept ? kept->ngroup : 0; i < o->ngroup; i++) tn_optim_part_free(&o->groups[i]);
    for (int i = kept ? kept->nwrap : 0; i < o->nwrap; i++) tn_optim_part_free(&o->wraps[i]);
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
    if (tn_optim_usable(d, 0, file, e)) return NULL;
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
    char *text = tn_optim_copy(options ? options : "", e), *plus = text ? tn_optim_plus(text) : NULL;
    if (!text) return NULL;
    if (plus) *plus++ = 0;
    tn_optim *o = new_optim(params, d, NULL, text, plus, e);
    tn_free(text);
    return o;
}

tn_optim *tn_optim_new(tn_params *params, const char *text, tn_err *e) {
    char *copy = tn_optim_copy(text, e);
    if (!copy) return NULL;
    tn_optim_spec s = tn_optim_cut(copy);
    const tn_optim_def *d = tn_optim_named(0, s.name, e);
    tn_optim *o = d ? new_optim(params, d, tn_optim_file_of(s.name), s.options, s.next, e) : NULL;
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
    if (!*text || tn_optim_is_file(text, len)) return *text != 0;
    return text[len] == ':' || (text[len] != '=' && !tn_optim_has(d, text, len));
}

int tn_optim_group(tn_optim *o, const char *pattern, const char *text, tn_err *e) {
    tn_optim next;
    const tn_optim_def *base = o->groups[0].def, *d = NULL;
    char *copy = tn_optim_copy(text ? text : "", e);
    tn_optim_spec s = {.options = copy};
    int bad = !copy || begin_change(o, &next, e);
    if (bad) goto done;
    bad = pattern_fits(o, pattern, e);
    if (!bad && names_definition(base, copy)) {
        s = tn_optim_cut(copy);
        d = tn_optim_named(0, s.name, e);
        bad = !d || tn_optim_usable(d, 0, tn_optim_file_of(s.name), e);
        if (!bad && s.next)
            bad = tn_fail(e,
                          "optimizer %s, group %.60s: +%.60s: wrappers hold for all parameters; they stand "
                          "behind the optimizer, not in a group",
                          base->name, pattern, s.next);
    }
    bad = end_change(
        o, &next, bad || push_rule(&next, pattern, d, tn_optim_file_of(s.name ? s.name : ""), s.options, e),
        e);
done:
    tn_free(copy);
    return bad ? -1 : 0;
}

int tn_optim_wrap(tn_optim *o, const tn_optim_def *d, const char *options, tn_err *e) {
    tn_optim next;
    tn_optim_part part;
    if (tn_optim_usable(d, 1, NULL, e) || begin_change(o, &next, e)) return -1;
    void *list = next.wraps;
    int bad = tn_optim_part_new(d, NULL, NULL, &part, e) || tn_optim_part_set(&part, NULL, options, e);
    if (!bad && (bad = push(&list, next.nwrap, sizeof part, e))) tn_optim_part_free(&part);
    if (!bad) {
        next.wraps = list;
        next.wraps[next.nwrap++] = part;
    }
    return end_change(o, &next, bad, e);
}

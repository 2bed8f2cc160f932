/* SPDX-License-Identifier: MIT */
/*
 * The optimizer module: the step, the weights to evaluate with, and what an optimizer holds. The definitions in optim/
 * are pure; what they work on is laid out in optim_build.c. A step allocates nothing.
 */
#include "optim_private.h"
#include "optim_report.h"
#include <string.h>

/* ---- the step ---- */

static int is_trained(const tn_optim *o, int i) {
    return !(o->tensor[i].flags & (TN_FROZEN | TN_BUFFER));
}

/* A wrapper's update follows while the range is still in cache. */
static void update_chunk(void *arg, int c) {
    const tn_optim *o = arg;
    for (int r = o->ranges.chunk[c]; r < o->ranges.chunk[c + 1]; r++) {
        const tn_range *at = &o->ranges.range[r];
        if (!is_trained(o, at->param)) continue;
        if (o->report) tn_report_range(o->report, o->tick, at->param, at->lo, at->hi);
        for (int layer = 0; layer <= o->nwrap; layer++) {
            const tn_optim_part *part = tn_optim_part_of(o, layer, at->param);
            part->def->update(part->hp, o->tick, tn_optim_at(o, layer, at->param), at->lo, at->hi);
            if (o->report && layer == 0) tn_report_updated(o->report, o->tick, at->param, at->lo, at->hi);
        }
    }
}

typedef struct {
    const tn_optim_part *part;
    const tn_tick *tick;
    const tn_opt_tensor *tensor;
} whole_job;

static void update_part(void *arg, size_t lo, size_t hi) {
    const whole_job *j = arg;
    j->part->def->update(j->part->hp, j->tick, j->tensor, lo, hi);
}

/* One parameter after the other, so that an update may call tn_parallel. */
static void update_whole(const tn_optim *o) {
    for (int i = 0; i < o->params->n; i++) {
        if (!o->whole[i] || !is_trained(o, i)) continue;
        if (o->report) tn_report_range(o->report, o->tick, i, 0, o->params->p[i]->len);
        for (int layer = 0; layer <= o->nwrap; layer++) {
            whole_job j = {tn_optim_part_of(o, layer, i), o->tick, tn_optim_at(o, layer, i)};
            if (j.part->def->scope == TN_TENSOR)
                update_part(&j, 0, j.tensor->n);
            else
                tn_parallel_range(j.tensor->n, TN_RANGE, update_part, &j);
            if (o->report && layer == 0) tn_report_updated(o->report, o->tick, i, 0, j.tensor->n);
        }
    }
}

static void decide_group(const tn_optim *o, int layer, int g) {
    const tn_optim_part *part = layer ? &o->wraps[layer - 1] : &o->groups[g];
    double acc[TN_MAX_SHARED] = {0};
    for (int i = 0; part->def->reduce && i < o->params->n; i++)
        if (o->group[i] == g && is_trained(o, i))
            part->def->reduce(part->hp, o->tick, tn_optim_at(o, layer, i), acc);
    if (part->def->decide) part->def->decide(part->hp, o->tick, acc, tn_optim_shared(o, layer, g));
}

void tn_optim_step(tn_optim *o, const tn_tick *tick) {
    long done = (long)o->scalar[0];
    TN_CHECK(NULL, tick->t == done + 1, "tn_optim_step: tick.t is %ld after %ld steps; it must be %ld",
             tick->t, done, done + 1);
    TN_CHECK(NULL, !o->evaluating,
             "tn_optim_step: the weights to evaluate with are in place; call tn_optim_eval 0");
    if (done == 0)
        tn_optim_start(o); /* from the weights that are there now: they may have been loaded since */
    for (int layer = 0; layer <= o->nwrap; layer++)
        for (int i = 0; i < o->params->n; i++) tn_optim_at(o, layer, i)->flags = o->params->p[i]->flags;
    o->tick = tick;
    if (o->report) tn_report_before(o->report, tick);
    for (int layer = 0; layer <= o->nwrap; layer++)
        for (int g = 0; g < o->ngroup; g++) decide_group(o, layer, g);
    tn_parallel(o->ranges.nchunk, update_chunk, o);
    if (o->nwhole) update_whole(o);
    o->tick = NULL;
    o->scalar[0] = (double)tick->t;
    if (o->report) tn_report_after(o->report, tick);
    tn_params_touch(o->params);
}

/* ---- weights to evaluate with ---- */

int tn_optim_evaluates_elsewhere(const tn_optim *o) {
    return o->aside != NULL;
}

static void swap_weights(tn_optim *o, const tn_param *p) {
    tn_real *other = o->aside + p->offset;
    for (size_t j = 0; j < p->len; j++) {
        tn_real x = p->w[j];
        p->w[j] = other[j];
        other[j] = x;
    }
}

void tn_optim_eval(tn_optim *o, const tn_tick *tick, int on) {
    if (!o->aside || o->evaluating == !!on) return;
    if (on && o->scalar[0] == 0) tn_optim_start(o);
    for (int i = 0; i < o->params->n; i++) {
        const tn_param *p = o->params->p[i];
        const int layer = p->flags & TN_BUFFER ? -1 : tn_optim_eval_layer(o, i);
        if (layer < 0) continue;
        const tn_optim_part *part = tn_optim_part_of(o, layer, i);
        if (on) part->def->eval_weights(part->hp, tick, tn_optim_at(o, layer, i), o->aside + p->offset);
        swap_weights(o, p);
    }
    o->evaluating = !!on;
    tn_params_touch(o->params);
}

int tn_optim_evaluating(const tn_optim *o) {
    return o->evaluating;
}

/* ---- what it holds ---- */

long tn_optim_steps(const tn_optim *o) {
    return (long)o->scalar[0];
}

void tn_optim_set_steps(tn_optim *o, long steps) {
    o->scalar[0] = (double)steps;
}

const tn_optim_def *tn_optim_definition(const tn_optim *o) {
    return o->groups[0].def;
}

const tn_optim_def *tn_optim_definition_of(const tn_optim *o, const tn_param *p) {
    return o->groups[o->group[p->index]].def;
}

const void *tn_optim_options(const tn_optim *o, const tn_param *p) {
    return o->groups[p ? o->group[p->index] : 0].hp;
}

const tn_optim_def *tn_optim_wrapper(const tn_optim *o, int i, const void **hp) {
    if (i < 0 || i >= o->nwrap) return NULL;
    if (hp) *hp = o->wraps[i].hp;
    return o->wraps[i].def;
}

const char *tn_optim_file(const tn_optim *o, int i) {
    for (int g = 0; g < o->ngroup; g++)
        if (o->groups[g].file && i-- == 0) return o->groups[g].file;
    for (int w = 0; w < o->nwrap; w++)
        if (o->wraps[w].file && i-- == 0) return o->wraps[w].file;
    return NULL;
}

/* Appends to what stands at out; -1: no room. */
static int add_part(const tn_optim_part *part, const char *before, int at, char *out, size_t cap) {
    size_t room = cap - (size_t)at;
    int n =
        at < 0 ? -1 : snprintf(out + at, room, "%s%s:", before, part->file ? part->file : part->def->name);
    if (n < 0 || (size_t)n >= room) return -1;
    int more = tn_opts_text(part->def->hp, part->hp, 1, out + at + n, room - (size_t)n);
    return more < 0 ? -1 : at + n + more;
}

int tn_optim_text(const tn_optim *o, char *out, size_t cap) {
    int at = add_part(&o->groups[0], "", 0, out, cap);
    for (int w = 0; w < o->nwrap && at >= 0; w++) at = add_part(&o->wraps[w], "+", at, out, cap);
    return at;
}

void tn_optim_report(tn_optim *o, tn_decay_report *r) {
    o->report = r;
}

const tn_opt_tensor *tn_optim_tensor(const tn_optim *o, int i) {
    return i >= 0 && i < o->params->n ? tn_optim_at(o, 0, i) : NULL;
}

tn_real *tn_optim_slot(tn_optim *o, int param, int s, const char **name, size_t *len) {
    if (param < 0 || param >= o->params->n || s < 0) return NULL;
    for (int layer = 0; layer <= o->nwrap; layer++) {
        const tn_optim_layout *l = tn_optim_layout_of(o, layer, param);
        if (s >= l->nslot) {
            s -= l->nslot;
            continue;
        }
        if (name) *name = l->name[s];
        if (len) *len = l->len[s];
        return tn_optim_at(o, layer, param)->slot[s];
    }
    return NULL;
}

double *tn_optim_scalars(tn_optim *o, int *n) {
    *n = o->nscalar;
    return o->scalar;
}

void tn_optim_reset(tn_optim *o) {
    tn_optim_eval(o, NULL, 0);
    tn_optim_start(o);
}

/* With out NULL only counts. Definitions decide, not options: other options keep other slots, which are named. */
static size_t write_chain(const tn_optim *o, char *out, size_t cap) {
    size_t at = 0;
#define ADD(...) at += (size_t)snprintf(out ? out + at : NULL, out ? cap - at : 0, __VA_ARGS__)
    ADD("%s", o->groups[0].def->name);
    for (int r = 0; r < o->nrule; r++) {
        const tn_optim_rule *rule = &o->rules[r];
        if (rule->named && r)
            ADD(" %s=%s", rule->pattern, o->groups[rule->main >= 0 ? rule->main : rule->rest].def->name);
        if (rule->rest >= 0) ADD(" rest=%s", o->groups[rule->rest].def->name);
    }
    for (int w = 0; w < o->nwrap; w++) ADD("%s+%s", w ? "" : " ", o->wraps[w].def->name);
#undef ADD
    return at;
}

char *tn_optim_chain(const tn_optim *o) {
    size_t cap = write_chain(o, NULL, 0) + 1;
    char *text = tn_mem_new(cap);
    if (text) write_chain(o, text, cap);
    return text;
}

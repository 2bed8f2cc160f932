/* SPDX-License-Identifier: MIT */
/*
 * Where an optimizer's state lies. All slots lie in one aligned buffer, one kind after the other, and all saved scalars
 * in one array, whose first is the number of steps done; what a step walks over is cut here once (ranges.h), so that a
 * step allocates nothing.
 */
#include "optim_private.h"
#include <string.h>

/* Slots begin at a multiple of this many reals, a cache line in either build. */
enum { ALIGN = 16 };

int tn_optim_matches(const char *pattern, const char *name) {
    const char *star = NULL, *resume = NULL;
    while (*name) {
        if (*pattern == '*') {
            star = ++pattern;
            resume = name;
        } else if (*pattern == '?' || *pattern == *name) {
            pattern++, name++;
        } else if (star) {
            pattern = star;
            name = ++resume;
        } else {
            return 0;
        }
    }
    while (*pattern == '*') pattern++;
    return *pattern == 0;
}

int tn_optim_group_of(const tn_optim *o, const tn_param *p) {
    int r = o->nrule - 1;
    while (r > 0 && !tn_optim_matches(o->rules[r].pattern, p->name)) r--;
    const tn_optim_rule *rule = &o->rules[r];
    if (p->flags & TN_BUFFER) return rule->main >= 0 ? rule->main : rule->rest;
    return rule->main >= 0 && tn_optim_takes(&o->groups[rule->main], p) ? rule->main : rule->rest;
}

static size_t rounded(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

void tn_optim_free_built(tn_optim *o) {
    tn_free(o->group);
    tn_free(o->layouts);
    tn_free(o->tensor);
    tn_free(o->whole);
    tn_mem_aligned_free(o->state);
    tn_mem_aligned_free(o->aside);
    tn_mem_aligned_free(o->scratch);
    tn_free(o->scalar);
    tn_ranges_free(&o->ranges);
    o->group = NULL, o->layouts = NULL, o->tensor = NULL, o->whole = NULL, o->state = o->aside = NULL;
    o->scratch = NULL, o->scalar = NULL;
}

static int is_buffer(const tn_optim *o, int i) {
    return (o->params->p[i]->flags & TN_BUFFER) != 0;
}

/* Asks a definition what a parameter needs in its layer; *scratch grows by the bytes. */
static int ask(tn_optim *o, int layer, int i, size_t *scratch, tn_err *e) {
    const tn_optim_part *part = tn_optim_part_of(o, layer, i);
    const tn_param *p = o->params->p[i];
    tn_optim_layout *s = &o->layouts[layer * o->params->n + i];
    tn_slot slot[TN_MAX_SLOT] = {{0}};
    if ((s->nslot = tn_optim_slots(part, p, slot, e)) < 0) return -1;
    for (int k = 0; k < s->nslot; k++) {
        s->name[k] = slot[k].name, s->len[k] = slot[k].len, s->init[k] = slot[k].init;
        for (int below = 0; below < layer; below++) {
            const tn_optim_layout *other = tn_optim_layout_of(o, below, i);
            for (int j = 0; j < other->nslot; j++)
                if (!strcmp(other->name[j], slot[k].name))
                    return tn_fail(e, "%s around %s: both keep a state named %.60s", part->def->name,
                                   tn_optim_part_of(o, below, i)->def->name, slot[k].name);
        }
    }
    s->scratch_at = *scratch;
    if (part->def->scratch) *scratch += rounded(part->def->scratch(part->hp, p->nd, p->dim), 64);
    return 0;
}

/* *reals of all slots and *scratch bytes. */
static int plan(tn_optim *o, size_t *reals, size_t *scratch, tn_err *e) {
    *reals = *scratch = 0;
    for (int layer = 0; layer <= o->nwrap; layer++) {
        for (int i = 0; i < o->params->n; i++) {
            if (is_buffer(o, i)) continue;
            if (tn_optim_part_of(o, layer, i)->def->scope == TN_TENSOR) o->whole[i] = 1;
            if (ask(o, layer, i, scratch, e)) return -1;
        }
        for (int k = 0; k < TN_MAX_SLOT; k++)
            for (int i = 0; i < o->params->n; i++) {
                tn_optim_layout *s = &o->layouts[layer * o->params->n + i];
                if (k >= s->nslot) continue;
                s->at[k] = *reals;
                *reals += rounded(s->len[k], ALIGN);
            }
    }
    return 0;
}

static void fill_tensor(tn_optim *o, int layer, int i) {
    const tn_param *p = o->params->p[i];
    const tn_optim_layout *s = tn_optim_layout_of(o, layer, i);
    tn_opt_tensor *t = tn_optim_at(o, layer, i);
    *t = (tn_opt_tensor){
        .name = p->name, .index = i, .nd = p->nd, .n = p->len, .flags = p->flags, .w = p->w, .g = p->g};
    memcpy(t->dim, p->dim, sizeof t->dim);
    for (int k = 0; k < s->nslot; k++) t->slot[k] = o->state + s->at[k];
    t->own = tn_optim_own(o, layer, i);
    t->shared = tn_optim_shared(o, layer, o->group[i]);
    t->scratch = o->scratch ? o->scratch + s->scratch_at : NULL;
}

void tn_optim_start(tn_optim *o) {
    memset(o->scalar, 0, (size_t)o->nscalar * sizeof *o->scalar);
    for (int layer = 0; layer <= o->nwrap; layer++)
        for (int i = 0; i < o->params->n; i++) {
            const tn_optim_layout *s = tn_optim_layout_of(o, layer, i);
            const tn_optim_part *part = tn_optim_part_of(o, layer, i);
            tn_opt_tensor *t = tn_optim_at(o, layer, i);
            if (is_buffer(o, i)) continue;
            for (int k = 0; k < s->nslot; k++)
                for (size_t j = 0; j < s->len[k]; j++) t->slot[k][j] = (tn_real)s->init[k];
            if (part->def->begin) part->def->begin(part->hp, t);
        }
}

static int evaluates_elsewhere(const tn_optim *o) {
    for (int i = 0; i < o->params->n; i++)
        if (tn_optim_eval_layer(o, i) >= 0) return 1;
    return 0;
}

int tn_optim_build(tn_optim *o, tn_err *e) {
    size_t n = (size_t)o->params->n, all = n * (size_t)(o->nwrap + 1), reals, scratch;
    o->nscalar = 1 + (o->nwrap + 1) * (o->ngroup * TN_MAX_SHARED + (int)n * TN_MAX_OWN);
    o->group = tn_mem_new(n * sizeof *o->group);
    o->layouts = tn_mem_new(all * sizeof *o->layouts);
    o->tensor = tn_mem_new(all * sizeof *o->tensor);
    o->whole = tn_mem_new(n * sizeof *o->whole);
    o->scalar = tn_mem_new((size_t)o->nscalar * sizeof *o->scalar);
    if (!o->group || !o->layouts || !o->tensor || !o->whole || !o->scalar) goto short_of_memory;
    for (int i = 0; i < o->params->n; i++) o->group[i] = tn_optim_group_of(o, o->params->p[i]);
    if (plan(o, &reals, &scratch, e)) {
        tn_optim_free_built(o);
        return -1;
    }
    if (reals && !(o->state = tn_mem_aligned(reals * sizeof *o->state))) goto short_of_memory;
    if (scratch && !(o->scratch = tn_mem_aligned(scratch))) goto short_of_memory;
    if (evaluates_elsewhere(o) && !(o->aside = tn_mem_aligned(o->params->len * sizeof *o->aside)))
        goto short_of_memory;
    if (tn_ranges_new(o->params, o->whole, &o->ranges)) goto short_of_memory;
    o->nwhole = 0;
    for (size_t i = 0; i < n; i++) o->nwhole += o->whole[i];
    for (int layer = 0; layer <= o->nwrap; layer++)
        for (int i = 0; i < o->params->n; i++) fill_tensor(o, layer, i);
    tn_optim_start(o);
    return 0;
short_of_memory:
    tn_optim_free_built(o);
    return tn_fail(e, "optimizer %s: out of memory", o->groups[0].def->name);
}

/* SPDX-License-Identifier: MIT */
/*
 * The optimizer module: it owns what the pure definitions in optim/ work on. All slots lie in one aligned
 * buffer, one kind after the other, and all saved scalars in one array, whose first is the number of steps
 * done. A step allocates nothing.
 */
#include "internal.h"
#include "kernels/kernels.h"
#include "optim_report.h"
#include <ctype.h>
#include <string.h>

/*
 * A chunk has RANGE elements or, where that is more, a 64th of them all: a pass over memory is as fast in few pieces,
 * and many threads still find some. Up to ALONE in all a step is one chunk, as waking a thread costs more.
 */
enum { RANGE = 4096, CHUNKS = 64, ALONE = 16384 };
/* Slots begin at a multiple of this many reals, a cache line in either build. */
enum { ALIGN = 16 };

enum {
#define TN_OPTIM(name) COUNT_##name,
#include "optims.def"
#undef TN_OPTIM
    DEFS
};

typedef struct {
    char *pattern; /* NULL for the first group, which has all that no pattern matches */
    void *hp;
    uint64_t given;
} group;

typedef struct {
    int group, nslot;
    const char *name[TN_MAX_SLOT];
    size_t len[TN_MAX_SLOT], at[TN_MAX_SLOT]; /* at: offset into the state, in reals */
    double init[TN_MAX_SLOT];
    size_t scratch_at;
} tensor_state;

typedef struct {
    int tensor;
    size_t lo, hi;
} range;

struct tn_optim {
    const tn_optim_def *def;
    tn_optim_def older; /* a copy of a definition with a shorter struct, NULL beyond it */
    tn_params *params;
    int ngroup;
    group *groups;
    /* What follows is made by build() out of the groups. */
    tensor_state *states;  /* one a parameter */
    tn_opt_tensor *tensor; /* the same, as the definition sees it */
    tn_real *state, *aside;
    char *scratch;
    double *scalar;
    int nscalar, nchunk;
    range *ranges;
    int *chunk; /* nchunk + 1 indices into ranges */
    int evaluating;
    tn_decay_report *report;
    const tn_tick *tick; /* of the step that runs */
};

/* ---- finding definitions ---- */

/* Those of the vector level in use; where TERN_SIMD names none, of the plain one, which every machine runs. */
const tn_optim_def *const *tn_optims(int *n) {
    const tn_kernels_t *k = tn_kernels_get(NULL);
    if (!k) k = tn_kernels_level("plain");
    *n = DEFS;
    return k->optims;
}

const tn_optim_def *tn_optim_find(const char *name) {
    int n;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (int i = 0; i < n; i++)
        if (!strcmp(defs[i]->name, name)) return defs[i];
    return NULL;
}

static int unknown_name(const char *name, tn_err *e) {
    const char *names[DEFS];
    char list[256] = "", hint[128] = "";
    int n;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (int i = 0; i < n; i++) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", names[i] = defs[i]->name);
    }
    const char *near = tn_nearest(name, n, names);
    if (near) snprintf(hint, sizeof hint, " (did you mean \"%s\"?)", near);
    return tn_fail(e, "unknown optimizer \"%.60s\"%s; there are %s", name, hint, list);
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

/* ---- building ---- */

static int matches(const char *pattern, const char *name) {
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

static int group_of(const tn_optim *o, const char *name) {
    int g = o->ngroup - 1;
    while (g > 0 && !matches(o->groups[g].pattern, name)) g--;
    return g;
}

static size_t rounded(size_t n, size_t to) {
    return (n + to - 1) / to * to;
}

static void free_built(tn_optim *o) {
    tn_free(o->states);
    tn_free(o->tensor);
    tn_mem_aligned_free(o->state);
    tn_mem_aligned_free(o->aside);
    tn_mem_aligned_free(o->scratch);
    tn_free(o->scalar);
    tn_free(o->ranges);
    tn_free(o->chunk);
    o->states = NULL, o->tensor = NULL, o->state = o->aside = NULL, o->scratch = NULL, o->scalar = NULL;
    o->ranges = NULL, o->chunk = NULL;
}

static double *shared_of(const tn_optim *o, int g) {
    return o->scalar + 1 + g * TN_MAX_SHARED;
}

static double *own_of(const tn_optim *o, int i) {
    return o->scalar + 1 + o->ngroup * TN_MAX_SHARED + i * TN_MAX_OWN;
}

/* Asks the definition what each parameter needs. Returns the reals of all slots; *scratch the bytes. */
static size_t plan(tn_optim *o, size_t *scratch) {
    const tn_optim_def *d = o->def;
    size_t reals = 0;
    *scratch = 0;
    for (int i = 0; i < o->params->n; i++) {
        const tn_param *p = o->params->p[i];
        tensor_state *s = &o->states[i];
        tn_slot slot[TN_MAX_SLOT] = {{0}};
        s->group = group_of(o, p->name);
        const void *hp = o->groups[s->group].hp;
        if (p->flags & TN_BUFFER) continue;
        s->nslot = d->slots ? d->slots(hp, p->nd, p->dim, slot) : 0;
        TN_CHECK(NULL, s->nslot >= 0 && s->nslot <= TN_MAX_SLOT,
                 "optimizer %s asks for %d slots; the most is %d", d->name, s->nslot, TN_MAX_SLOT);
        for (int k = 0; k < s->nslot; k++)
            s->name[k] = slot[k].name, s->len[k] = slot[k].len, s->init[k] = slot[k].init;
        s->scratch_at = *scratch;
        if (d->scratch) *scratch += rounded(d->scratch(hp, p->nd, p->dim), 64);
    }
    for (int k = 0; k < TN_MAX_SLOT; k++)
        for (int i = 0; i < o->params->n; i++) {
            tensor_state *s = &o->states[i];
            if (k >= s->nslot) continue;
            s->at[k] = reals;
            reals += rounded(s->len[k], ALIGN);
        }
    return reals;
}

/* Cuts all trained tensors into ranges and gathers ranges into chunks, by shape alone. */
static void cut(tn_optim *o) {
    size_t total = tn_params_total(o->params), filled = 0, piece = rounded(total / CHUNKS, ALIGN);
    int nrange = 0;
    if (piece < RANGE) piece = RANGE;
    o->nchunk = 0;
    o->chunk[0] = 0;
    for (int i = 0; i < o->params->n; i++) {
        size_t len = o->params->p[i]->len;
        if (o->params->p[i]->flags & TN_BUFFER) continue;
        for (size_t lo = 0; lo < len; lo += piece) {
            size_t hi = len - lo < piece ? len : lo + piece;
            o->ranges[nrange++] = (range){i, lo, hi};
            filled += hi - lo;
            if (filled >= piece && total > ALONE) {
                o->chunk[++o->nchunk] = nrange;
                filled = 0;
            }
        }
    }
    if (o->chunk[o->nchunk] < nrange) o->chunk[++o->nchunk] = nrange;
}

static void fill_tensor(tn_optim *o, int i) {
    const tn_param *p = o->params->p[i];
    const tensor_state *s = &o->states[i];
    tn_opt_tensor *t = &o->tensor[i];
    *t = (tn_opt_tensor){
        .name = p->name, .index = i, .nd = p->nd, .n = p->len, .flags = p->flags, .w = p->w, .g = p->g};
    memcpy(t->dim, p->dim, sizeof t->dim);
    for (int k = 0; k < s->nslot; k++) t->slot[k] = o->state + s->at[k];
    t->own = own_of(o, i);
    t->shared = shared_of(o, s->group);
    t->scratch = o->scratch ? o->scratch + s->scratch_at : NULL;
}

/* State of step 0. */
static void start_state(tn_optim *o) {
    memset(o->scalar, 0, (size_t)o->nscalar * sizeof *o->scalar);
    for (int i = 0; i < o->params->n; i++) {
        const tensor_state *s = &o->states[i];
        for (int k = 0; k < s->nslot; k++)
            for (size_t j = 0; j < s->len[k]; j++) o->tensor[i].slot[k][j] = (tn_real)s->init[k];
        if (o->def->begin && !(o->params->p[i]->flags & TN_BUFFER))
            o->def->begin(o->groups[s->group].hp, &o->tensor[i]);
    }
}

/* Everything that follows from parameters and groups. -1: out of memory, and nothing is held. */
static int build(tn_optim *o, tn_err *e) {
    size_t n = (size_t)o->params->n, nrange = 1, scratch;
    for (size_t i = 0; i < n; i++) nrange += o->params->p[i]->len / RANGE + 1;
    o->nscalar = 1 + o->ngroup * TN_MAX_SHARED + (int)n * TN_MAX_OWN;
    o->states = tn_mem_new(n * sizeof *o->states);
    o->tensor = tn_mem_new(n * sizeof *o->tensor);
    o->scalar = tn_mem_new((size_t)o->nscalar * sizeof *o->scalar);
    o->ranges = tn_mem_new(nrange * sizeof *o->ranges);
    o->chunk = tn_mem_new((nrange + 1) * sizeof *o->chunk);
    if (!o->states || !o->tensor || !o->scalar || !o->ranges || !o->chunk) goto short_of_memory;
    size_t reals = plan(o, &scratch);
    if (reals && !(o->state = tn_mem_aligned(reals * sizeof *o->state))) goto short_of_memory;
    if (scratch && !(o->scratch = tn_mem_aligned(scratch))) goto short_of_memory;
    if (o->def->eval_weights && !(o->aside = tn_mem_aligned(o->params->len * sizeof *o->aside)))
        goto short_of_memory;
    cut(o);
    for (int i = 0; i < o->params->n; i++) fill_tensor(o, i);
    start_state(o);
    return 0;
short_of_memory:
    free_built(o);
    return tn_fail(e, "optimizer %s: out of memory", o->def->name);
}

/* ---- options ---- */

/* A copy of base (NULL: the defaults) with options on top, checked; -1 and nothing held on an error. */
static int make_group(const tn_optim_def *d, const group *base, const char *pattern, const char *options,
                      group *out, tn_err *e) {
    char what[2 * TN_MAX_NAME + 64];
    uint64_t given = 0;
    snprintf(what, sizeof what, "optimizer %s%s%s", d->name, pattern ? ", group " : "",
             pattern ? pattern : "");
    if (only_relatives_have(d, options, e)) return -1;
    *out = (group){.hp = tn_mem_new(d->hp_size)};
    size_t len = pattern ? strlen(pattern) + 1 : 0;
    if (!out->hp || (pattern && !(out->pattern = tn_mem_new(len)))) {
        tn_fail(e, "%s: out of memory", what);
        goto failed;
    }
    if (pattern) memcpy(out->pattern, pattern, len);
    if (base)
        memcpy(out->hp, base->hp, d->hp_size);
    else
        tn_opts_default(d->hp, out->hp);
    if (tn_opts_parse(d->hp, out->hp, options, what, &given, e)) goto failed;
    out->given = given | (base ? base->given : 0);
    if (d->check && d->check(out->hp, out->given, e)) goto failed;
    return 0;
failed:
    tn_free(out->hp);
    tn_free(out->pattern);
    return -1;
}

static int usable(const tn_optim_def *d, tn_err *e) {
    if (d->abi != TN_ABI || d->size < offsetof(tn_optim_def, eval_weights) || d->size > sizeof *d)
        return tn_fail(
            e, "this optimizer was compiled for another version of tern; compile it with the header of %s",
            TN_VERSION);
    if (!tn_kernels_get(e)) return -1;
    if (!d->update || !d->hp || !has_option(d, "lr", 2))
        return tn_fail(e, "optimizer %s: its definition needs update, and an option table with a row lr",
                       d->name);
    return 0;
}

tn_optim *tn_optim_new_def(tn_params *params, const tn_optim_def *d, const char *options, tn_err *e) {
    TN_CHECK(NULL, params->sealed, "tn_optim_new: the parameters are not sealed; call tn_params_seal first");
    if (usable(d, e)) return NULL;
    tn_optim *o = tn_mem_new(sizeof *o);
    group *first = tn_mem_new(sizeof *first);
    if (!o || !first) {
        tn_fail(e, "optimizer %s: out of memory", d->name);
        tn_free(first);
        tn_free(o);
        return NULL;
    }
    if (d->size < sizeof *d) d = memcpy(&o->older, d, d->size);
    if (make_group(d, NULL, NULL, options, first, e)) {
        tn_free(first);
        tn_free(o);
        return NULL;
    }
    o->def = d, o->params = params, o->ngroup = 1, o->groups = first;
    if (build(o, e)) {
        tn_optim_free(o);
        return NULL;
    }
    return o;
}

/* "+name" begins a wrapper; the plus of a number like 1e+3 stands before a digit. */
static const char *find_wrapper(const char *spec) {
    for (const char *p = strchr(spec, '+'); p; p = strchr(p + 1, '+'))
        if (!isdigit((unsigned char)p[1])) return p + 1;
    return NULL;
}

tn_optim *tn_optim_new(tn_params *params, const char *spec, tn_err *e) {
    char name[TN_MAX_NAME];
    const char *wrapper = find_wrapper(spec);
    if (wrapper) {
        tn_spec_split(wrapper, name, sizeof name);
        tn_fail(e, "optimizer \"%.100s\": there is no wrapper \"%.60s\"; leave out what follows the '+'",
                spec, name);
        return NULL;
    }
    const char *options = tn_spec_split(spec, name, sizeof name);
    const tn_optim_def *d = tn_optim_find(name);
    if (!d) {
        unknown_name(name, e);
        return NULL;
    }
    return tn_optim_new_def(params, d, options, e);
}

void tn_optim_free(tn_optim *o) {
    if (!o) return;
    free_built(o);
    for (int g = 0; g < o->ngroup; g++) {
        tn_free(o->groups[g].pattern);
        tn_free(o->groups[g].hp);
    }
    tn_free(o->groups);
    tn_free(o);
}

static int pattern_fits(const tn_optim *o, const char *pattern, tn_err *e) {
    char hint[TN_MAX_NAME + 32] = "";
    const char *near = NULL;
    for (int i = 0; i < o->params->n; i++) {
        const char *name = o->params->p[i]->name;
        if (matches(pattern, name)) return 0;
        if (!near) near = tn_nearest(pattern, 1, &name);
    }
    if (near) snprintf(hint, sizeof hint, " (did you mean \"%s\"?)", near);
    return tn_fail(
        e,
        "optimizer %s: no parameter's name matches the pattern \"%.60s\"%s; '*' and '?' stand for any "
        "characters, as in \"*.bias\"",
        o->def->name, pattern, hint);
}

int tn_optim_group(tn_optim *o, const char *pattern, const char *options, tn_err *e) {
    if (o->scalar[0] > 0)
        return tn_fail(e, "optimizer %s: groups have to be made before the first step", o->def->name);
    if (pattern_fits(o, pattern, e)) return -1;
    tn_optim next = *o;
    next.states = NULL, next.tensor = NULL, next.state = next.aside = NULL, next.scratch = NULL,
    next.scalar = NULL;
    next.ranges = NULL, next.chunk = NULL;
    next.groups = tn_mem_new((size_t)(o->ngroup + 1) * sizeof *next.groups);
    if (!next.groups) return tn_fail(e, "optimizer %s: out of memory", o->def->name);
    memcpy(next.groups, o->groups, (size_t)o->ngroup * sizeof *next.groups);
    group *added = &next.groups[next.ngroup++];
    if (make_group(o->def, &o->groups[0], pattern, options, added, e)) {
        tn_free(next.groups);
        return -1;
    }
    if (build(&next, e)) {
        tn_free(added->pattern);
        tn_free(added->hp);
        tn_free(next.groups);
        return -1;
    }
    free_built(o);
    tn_free(o->groups);
    *o = next;
    return 0;
}

/* ---- the step ---- */

static int is_trained(const tn_optim *o, int i) {
    return !(o->tensor[i].flags & (TN_FROZEN | TN_BUFFER));
}

static const void *hp_of(const tn_optim *o, int i) {
    return o->groups[o->states[i].group].hp;
}

static void update_chunk(void *arg, int c) {
    const tn_optim *o = arg;
    for (int r = o->chunk[c]; r < o->chunk[c + 1]; r++) {
        const range *at = &o->ranges[r];
        if (is_trained(o, at->tensor))
            o->def->update(hp_of(o, at->tensor), o->tick, &o->tensor[at->tensor], at->lo, at->hi);
    }
}

static void decide_group(const tn_optim *o, int g, const tn_tick *tick) {
    double acc[TN_MAX_SHARED] = {0};
    for (int i = 0; o->def->reduce && i < o->params->n; i++)
        if (o->states[i].group == g && is_trained(o, i))
            o->def->reduce(hp_of(o, i), tick, &o->tensor[i], acc);
    if (o->def->decide) o->def->decide(o->groups[g].hp, tick, acc, shared_of(o, g));
}

void tn_optim_step(tn_optim *o, const tn_tick *tick) {
    long done = (long)o->scalar[0];
    TN_CHECK(NULL, tick->t == done + 1, "tn_optim_step: tick.t is %ld after %ld steps; it must be %ld",
             tick->t, done, done + 1);
    TN_CHECK(NULL, !o->evaluating,
             "tn_optim_step: the weights to evaluate with are in place; call tn_optim_eval 0");
    if (done == 0) start_state(o); /* from the weights that are there now: they may have been loaded since */
    for (int i = 0; i < o->params->n; i++) o->tensor[i].flags = o->params->p[i]->flags;
    if (o->report) tn_report_before(o->report, tick);
    for (int g = 0; g < o->ngroup; g++) decide_group(o, g, tick);
    if (o->def->scope == TN_ELEMENT) {
        o->tick = tick;
        tn_parallel(o->nchunk, update_chunk, o);
        o->tick = NULL;
    } else { /* one after the other, so that an update may call tn_parallel */
        for (int i = 0; i < o->params->n; i++)
            if (is_trained(o, i)) o->def->update(hp_of(o, i), tick, &o->tensor[i], 0, o->tensor[i].n);
    }
    o->scalar[0] = (double)tick->t;
    if (o->report) tn_report_after(o->report, tick);
    tn_params_touch(o->params);
}

/* ---- weights to evaluate with ---- */

int tn_optim_evaluates_elsewhere(const tn_optim *o) {
    return o->def->eval_weights != NULL;
}

static void swap_weights(tn_optim *o, int i) {
    const tn_param *p = o->params->p[i];
    tn_real *other = o->aside + p->offset;
    for (size_t j = 0; j < p->len; j++) {
        tn_real x = p->w[j];
        p->w[j] = other[j];
        other[j] = x;
    }
}

void tn_optim_eval(tn_optim *o, const tn_tick *tick, int on) {
    if (!o->def->eval_weights || o->evaluating == !!on) return;
    if (on && o->scalar[0] == 0) start_state(o);
    for (int i = 0; i < o->params->n; i++) {
        if (o->params->p[i]->flags & TN_BUFFER) continue;
        if (on) o->def->eval_weights(hp_of(o, i), tick, &o->tensor[i], o->aside + o->params->p[i]->offset);
        swap_weights(o, i);
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
    return o->def;
}

const void *tn_optim_options(const tn_optim *o, const tn_param *p) {
    return p ? hp_of(o, p->index) : o->groups[0].hp;
}

int tn_optim_text(const tn_optim *o, char *out, size_t cap) {
    int n = snprintf(out, cap, "%s:", o->def->name);
    if (n < 0 || (size_t)n >= cap) return -1;
    int more = tn_opts_text(o->def->hp, o->groups[0].hp, 1, out + n, cap - (size_t)n);
    return more < 0 ? -1 : n + more;
}

void tn_optim_report(tn_optim *o, tn_decay_report *r) {
    o->report = r;
}

const tn_opt_tensor *tn_optim_tensor(const tn_optim *o, int i) {
    return i >= 0 && i < o->params->n ? &o->tensor[i] : NULL;
}

tn_real *tn_optim_slot(tn_optim *o, int param, int s, const char **name, size_t *len) {
    if (param < 0 || param >= o->params->n || s < 0 || s >= o->states[param].nslot) return NULL;
    if (name) *name = o->states[param].name[s];
    if (len) *len = o->states[param].len[s];
    return o->tensor[param].slot[s];
}

double *tn_optim_scalars(tn_optim *o, int *n) {
    *n = o->nscalar;
    return o->scalar;
}

void tn_optim_reset(tn_optim *o) {
    tn_optim_eval(o, NULL, 0);
    start_state(o);
}

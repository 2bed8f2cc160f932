/* SPDX-License-Identifier: MIT */
/*
 * What the files of the optimizer module share: optim_spec.c reads names and specs, optim_make.c makes groups and chains of
 * wrappers, optim_build.c lays the state out, optim_plugin.c loads definitions, optim.c steps.
 *
 * A parameter is worked on by layers: layer 0 is the optimizer of its group, layer l the wrapper l - 1, the same for all.
 */
#ifndef TN_OPTIM_PRIVATE_H
#define TN_OPTIM_PRIVATE_H
#include "internal.h"
#include "ranges.h"
#include <string.h>

/* A definition with its options. */
typedef struct {
    const tn_optim_def *def;
    tn_optim_def *copy; /* of a definition with a shorter struct, NULL beyond it; or NULL */
    char *file;         /* the plug-in that it came from, or NULL */
    void *hp;
    uint64_t given;
} tn_optim_part;

/* What tn_optim_group was told; the first rule is the spec of the optimizer itself. */
typedef struct {
    char *pattern;  /* NULL: the first rule, which holds where no other does */
    int named;      /* 1: it names a definition of its own */
    int main, rest; /* groups, of what the definition takes and of what it does not; -1: not needed */
} tn_optim_rule;

/* Where a parameter's state of one layer lies. */
typedef struct {
    int nslot;
    const char *name[TN_MAX_SLOT];
    size_t len[TN_MAX_SLOT], at[TN_MAX_SLOT]; /* at: offset into the state, in reals */
    double init[TN_MAX_SLOT];
    size_t scratch_at;
} tn_optim_layout;

struct tn_optim {
    tn_params *params;
    int nrule, ngroup, nwrap;
    tn_optim_rule *rules;
    tn_optim_part *groups, *wraps;
    /* What follows is made by tn_optim_build out of the above. */
    int *group;               /* one a parameter */
    tn_optim_layout *layouts; /* of layer l and parameter i at l params->n + i */
    tn_opt_tensor *tensor;    /* likewise, as the definition sees it */
    unsigned char *whole;     /* 1: a layer of this parameter takes it whole */
    tn_real *state, *aside;   /* aside: weights to evaluate with, or NULL */
    char *scratch;
    double *scalar;
    int nscalar, nwhole;
    tn_ranges ranges; /* of what may be cut */
    int evaluating;
    tn_decay_report *report;
    const tn_tick *tick; /* of the step that runs */
};

static inline const tn_optim_part *tn_optim_part_of(const tn_optim *o, int layer, int param) {
    return layer ? &o->wraps[layer - 1] : &o->groups[o->group[param]];
}
static inline tn_opt_tensor *tn_optim_at(const tn_optim *o, int layer, int param) {
    return &o->tensor[layer * o->params->n + param];
}
static inline const tn_optim_layout *tn_optim_layout_of(const tn_optim *o, int layer, int param) {
    return &o->layouts[layer * o->params->n + param];
}
/* Scalars of a group and of a parameter, after the number of steps. */
static inline double *tn_optim_shared(const tn_optim *o, int layer, int g) {
    return o->scalar + 1 + layer * (o->ngroup * TN_MAX_SHARED + o->params->n * TN_MAX_OWN)
           + g * TN_MAX_SHARED;
}
static inline double *tn_optim_own(const tn_optim *o, int layer, int param) {
    return tn_optim_shared(o, layer, o->ngroup) + param * TN_MAX_OWN;
}
/* The one layer of a parameter that has weights to evaluate with, or -1. */
static inline int tn_optim_eval_layer(const tn_optim *o, int param) {
    int layer = o->nwrap;
    while (layer >= 0 && !tn_optim_part_of(o, layer, param)->def->eval_weights) layer--;
    return layer;
}
static inline int tn_optim_takes(const tn_optim_part *part, const tn_param *p) {
    return !part->def->takes || part->def->takes(part->hp, p->nd, p->dim, p->flags);
}

/* optim_spec.c. name:options+wrapper:options..., cut in place; next: what follows the '+', or NULL. */
typedef struct {
    char *name, *options, *next;
} tn_optim_spec;
tn_optim_spec tn_optim_cut(char *text);
char *tn_optim_plus(char *text); /* the '+' of the first wrapper, or NULL; that of 1e+3 is none */
char *tn_optim_copy(const char *text, tn_err *);
int tn_optim_is_file(const char *name, size_t len); /* a plug-in's path */
static inline const char *tn_optim_file_of(const char *name) {
    return tn_optim_is_file(name, strlen(name)) ? name : NULL;
}
/* A built-in definition, or one that is loaded now. NULL: unknown, or refused. */
const tn_optim_def *tn_optim_named(int wraps, const char *name, tn_err *);
/* optim_check.c. 0: complete, and of this version. file: the plug-in's, or NULL. */
int tn_optim_usable(const tn_optim_def *, int wraps, const char *file, tn_err *);
/* What a parameter needs: how many slots, or -1. */
int tn_optim_slots(const tn_optim_part *, const tn_param *, tn_slot slot[TN_MAX_SLOT], tn_err *);
int tn_optim_has(const tn_optim_def *, const char *option, size_t len);
/* With the default options, or a copy of base; out holds nothing on an error. */
int tn_optim_part_new(const tn_optim_def *, const char *file, const tn_optim_part *base, tn_optim_part *out,
                      tn_err *);
/* Options over what the part has, checked; the part holds nothing after an error. */
int tn_optim_part_set(tn_optim_part *, const char *pattern, const char *options, tn_err *);
void tn_optim_part_free(tn_optim_part *);

/* The group of a parameter by the last rule that its name matches. */
int tn_optim_group_of(const tn_optim *, const tn_param *);
int tn_optim_matches(const char *pattern, const char *name); /* '*' and '?' */

/* Everything that follows from parameters, groups and wrappers. -1: with a message, and nothing is held. */
int tn_optim_build(tn_optim *, tn_err *);
void tn_optim_free_built(tn_optim *);
void tn_optim_start(tn_optim *); /* state of step 0 */

/* "adamw *.bias=sgd rest=adam +ema": what a saved state belongs to. NULL: out of memory; release with tn_free. */
char *tn_optim_chain(const tn_optim *);
#endif

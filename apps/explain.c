/* SPDX-License-Identifier: MIT */
/* Runs a real optimizer on one weight, and has its definition name what happened. */
#include "explain.h"
#include "rundir.h"
#include <ctype.h>
#include <float.h>
#include <math.h>
#include <string.h>

enum { SLOT_REALS = 4 }; /* a definition's columns look at the first of a slot; a few more do no harm */

/* The tensor as it was: the parts of it that a step changes, copied. */
typedef struct {
    tn_opt_tensor t;
    tn_real w, g, slot[TN_MAX_SLOT][SLOT_REALS];
    double own[TN_MAX_OWN], shared[TN_MAX_SHARED];
} snapshot;

static void take(snapshot *s, tn_optim *o) {
    const tn_opt_tensor *t = tn_optim_tensor(o, 0);
    s->t = *t;
    s->w = t->w[0], s->g = t->g[0];
    s->t.w = &s->w, s->t.g = &s->g;
    for (int k = 0; k < TN_MAX_SLOT; k++) {
        size_t len;
        const tn_real *from = tn_optim_slot(o, 0, k, NULL, &len);
        s->t.slot[k] = from ? s->slot[k] : NULL;
        for (size_t i = 0; from && i < len && i < SLOT_REALS; i++) s->slot[k][i] = from[i];
    }
    memcpy(s->own, t->own, sizeof s->own);
    memcpy(s->shared, t->shared, sizeof s->shared);
    s->t.own = s->own, s->t.shared = s->shared;
}

static const tn_real *slot_named(tn_optim *o, const char *name) {
    const char *at;
    size_t len;
    const tn_real *x;
    for (int k = 0; (x = tn_optim_slot(o, 0, k, &at, &len)); k++)
        if (strcmp(at, name) == 0 && len > 0) return x;
    return NULL;
}

static explain_column *column(explained *x, const char *name, const char *formula, int part) {
    TN_CHECK(NULL, x->n < EXPLAIN_COLUMNS, "explain: %s has more than %d columns", x->spec, EXPLAIN_COLUMNS);
    explain_column *c = &x->column[x->n++];
    *c = (explain_column){.part = part};
    snprintf(c->name, sizeof c->name, "%s", name);
    snprintf(c->formula, sizeof c->formula, "%s", formula);
    return c;
}

static int has_column(const explained *x, const char *name) {
    for (int i = 0; i < x->n; i++)
        if (strcmp(x->column[i].name, name) == 0) return 1;
    return 0;
}

/* "+name" behind a spec; the plus of a number like 1e+3 stands before a digit. */
static int has_wrapper(const char *spec) {
    for (const char *p = strchr(spec, '+'); p; p = strchr(p + 1, '+'))
        if (!isdigit((unsigned char)p[1])) return 1;
    return 0;
}

/* The columns of one step; the first step makes them. */
static void record(explained *x, tn_optim *o, const tn_param *p, const explain_input *in, const tn_tick *k,
                   const snapshot *old) {
    const tn_optim_def *def = tn_optim_definition_of(o, p);
    const void *hp = tn_optim_options(o, p);
    const tn_opt_tensor *now = tn_optim_tensor(o, 0);
    const int first = k->t == 1, row = (int)k->t - 1;
    double parts = 0;
    int at = 0;
#define PUT(NAME, FORMULA, PART, VALUE) \
    ((first ? column(x, NAME, FORMULA, PART) : &x->column[at])->v[row] = (VALUE) + 0.0, at++) /* -0: 0 */
    PUT("g", "the gradient", 0, (double)now->g[0]);
    if (in->schedule) PUT("s_t", "multiplier of the schedule", 0, k->lr_mul);
    if (in->wd_schedule) PUT("wd_t", "multiplier of lambda", 0, k->wd_mul);
    for (const tn_explain *e = def->explain; e && e->name; e++) {
        const tn_real *slot = e->value ? NULL : slot_named(o, e->name);
        if ((e->shown && !e->shown(hp)) || (!e->value && !slot)) continue;
        const double v = slot ? (double)slot[0] : e->value(hp, k, &old->t, now);
        PUT(e->name, e->formula, e->part, v);
        if (e->part) parts += v;
    }
    const tn_real *slot;
    const char *name;
    size_t len;
    for (int i = 0; (slot = tn_optim_slot(o, 0, i, &name, &len)); i++)
        if (len > 0 && (first ? !has_column(x, name) : at < x->n && strcmp(x->column[at].name, name) == 0))
            PUT(name, "the optimizer's state after the step", 0, (double)slot[0]);
    const double moved = (double)now->w[0] - (double)old->w;
    if (def->explain && has_wrapper(x->spec)) {
        /* the parts are in double: what is left without a wrapper is the rounding of w */
        const double by = moved - parts,
                     rounding = (sizeof(tn_real) == sizeof(float) ? FLT_EPSILON : DBL_EPSILON)
                                * (fabs((double)old->w) + fabs(parts));
        PUT("wrapper part", "what the wrappers moved it by", 1, fabs(by) <= rounding ? 0 : by);
    }
    if (!def->explain) PUT("step", "w after minus w before", 1, moved);
    if (tn_optim_evaluates_elsewhere(o)) {
        tn_optim_eval(o, k, 1);
        PUT("w to evaluate", "what validation and test use", 0, (double)tn_optim_tensor(o, 0)->w[0]);
        tn_optim_eval(o, k, 0);
    }
    PUT("new w",
        def->explain ? "w plus the parts, as the optimizer computed it" : "as the optimizer computed it", 0,
        (double)now->w[0]);
#undef PUT
}

/* Formulas say g' also where nothing is added to g. */
static void name_gradient(explained *x) {
    int used = 0;
    for (int i = 1; i < x->n; i++) used |= strstr(x->column[i].formula, "g'") != NULL;
    if (used && !has_column(x, "g'"))
        snprintf(x->column[0].formula, sizeof x->column[0].formula, "the gradient; g' is the same here");
}

int explain_run(const char *spec, const explain_input *in, explained *x, tn_err *e) {
    memset(x, 0, sizeof *x);
    tn_params *params = tn_params_new();
    tn_param *p = params ? tn_param_add(params, "", "w", 0, tn_init_const(0), 2, (int[]){1, 1}) : NULL;
    int bad = !p || tn_params_seal(params, 1, e);
    tn_optim *o = bad ? NULL : tn_optim_new(params, spec, e);
    if (o && !(bad = tn_optim_text(o, x->spec, sizeof x->spec) < 0)) {
        tn_spec_split(x->spec, x->label, sizeof x->label);
        p->w[0] = (tn_real)in->w;
        tn_params_touch(params);
        tn_optim_reset(o); /* state that begins with the weights, as it is before step 1 */
        for (int t = 1; t <= in->n; t++) {
            snapshot old;
            tn_tick k = tn_tick_at(t, in->n, in->schedule, in->wd_schedule);
            k.steps_per_epoch = k.images = in->n, k.batch = 1, k.seed = 1;
            p->g[0] = (tn_real)in->g[t - 1];
            take(&old, o);
            tn_optim_step(o, &k);
            record(x, o, p, in, &k, &old);
        }
    }
    bad |= !o;
    if (!bad) {
        const tn_optim_def *def = tn_optim_definition_of(o, p);
        x->whole = def->scope == TN_TENSOR;
    }
    if (!bad) name_gradient(x);
    tn_optim_free(o);
    tn_params_free(params);
    return bad ? -1 : 0;
}

static int key_given(const char *options, const char *key) {
    const size_t n = strlen(key);
    for (const char *p = options; *p; p += strcspn(p, ","), p += *p == ',')
        if (strncmp(p, key, n) == 0 && p[n] == '=') return 1;
    return 0;
}

static const tn_opt *row_of(const tn_optim_def *d, const char *key, size_t n) {
    for (const tn_opt *o = d ? d->hp : NULL; o && o->name; o++)
        if (strlen(o->name) == n && strncmp(o->name, key, n) == 0) return o;
    return NULL;
}

void explain_inherit(const char *spec, const char *from, char out[CONFIG_SPEC]) {
    char name[TN_MAX_NAME], other[TN_MAX_NAME];
    const char *own = tn_spec_split(spec, name, sizeof name);
    const char *options = tn_spec_split(from, other, sizeof other);
    const tn_optim_def *d = tn_optim_find(name), *base = tn_optim_find(other);
    int n = snprintf(out, CONFIG_SPEC, "%s", spec);
    int sep = *own ? ',' : ':';
    for (const char *p = options; *p; p += strcspn(p, ","), p += *p == ',') {
        const size_t len = strcspn(p, ",+"), key = strcspn(p, "=,+");
        const tn_opt *a = row_of(d, p, key), *b = row_of(base, p, key);
        if (a && b && a->type == b->type && (a->type != TN_WORD_OPT || strcmp(a->text, b->text) == 0)
            && !key_given(own, a->name) && n + (int)len + 1 < CONFIG_SPEC) {
            n += snprintf(out + n, CONFIG_SPEC - (size_t)n, "%c%.*s", sep, (int)len, p);
            sep = ',';
        }
        if (p[strcspn(p, ",+")] == '+') break; /* a wrapper's options are its own */
    }
}

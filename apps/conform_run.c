/* SPDX-License-Identifier: MIT */
/* Runs one case: twice, the second time after a reset, and compares what comes out with what must. */
#include "conform.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

static tn_optim *builtin(const void *who, tn_params *ps, const char *spec, tn_err *e) {
    (void)who;
    return tn_optim_new(ps, spec, e);
}
const conform_maker conform_builtin = {builtin, NULL, 1};

typedef struct {
    const conform_file *f;
    const conform_case *c;
    const conform_maker *m;
    conform_result *r;
    tn_params *params;
    tn_param *p[CONFORM_TENSORS];
    tn_optim *o;
    int pass, step; /* step from 1 */
} runner;

static double distance(const tn_real *got, const json_t *want, size_t n) {
    double top = 0, worst = 0;
    if (json_array_size(want) != n) return INFINITY;
    for (size_t i = 0; i < n; i++) {
        double w = json_number_value(json_array_get(want, i)), d = fabs((double)got[i] - w);
        top = fmax(top, fabs(w));
        worst = d >= 0 ? fmax(worst, d) : INFINITY;
    }
    return worst == 0 ? 0 : worst / top;
}

static void note(runner *x, const char *tensor, const char *what, double d) {
    if (!(d > x->r->deviation)) return;
    x->r->deviation = d;
    snprintf(x->r->where, sizeof x->r->where, "%sstep %d, %s%s%s", x->pass ? "after a reset, " : "", x->step,
             tensor, what ? ", " : "", what ? what : "");
}

/* -1: other slots than those expected, where that counts. */
static int compare_state(runner *x, int i, const json_t *want, tn_err *e) {
    const char *slot;
    size_t len, named = 0;
    tn_real *s;
    for (int k = 0; (s = tn_optim_slot(x->o, i, k, &slot, &len)); k++) {
        const json_t *w = json_object_get(want, slot);
        if (!w && x->m->strict) return tn_fail(e, "its slot %s is not among those expected", slot);
        if (!w) continue;
        named++;
        note(x, x->f->tensor[i].name, slot, distance(s, w, len));
    }
    if (x->m->strict && named != json_object_size(want))
        return tn_fail(e, "%s has %zu of the %zu slots expected", x->f->tensor[i].name, named,
                       json_object_size(want));
    return 0;
}

static int compare(runner *x, const json_t *expect, const tn_tick *k, tn_err *e) {
    const json_t *state = json_object_get(expect, "state"), *eval = json_object_get(expect, "eval_weights");
    for (int i = 0; i < x->f->tensors; i++) {
        const char *name = x->f->tensor[i].name;
        note(x, name, NULL,
             distance(x->p[i]->w, json_object_get(json_object_get(expect, "weights"), name), x->p[i]->len));
        if (state && compare_state(x, i, json_object_get(state, name), e)) return -1;
    }
    if (!eval) return 0;
    tn_optim_eval(x->o, k, 1);
    for (int i = 0; i < x->f->tensors; i++)
        note(x, x->f->tensor[i].name, "weights to evaluate with",
             distance(x->p[i]->w, json_object_get(eval, x->f->tensor[i].name), x->p[i]->len));
    tn_optim_eval(x->o, NULL, 0);
    return 0;
}

static int run_pass(runner *x, tn_err *e) {
    const conform_file *f = x->f;
    for (int i = 0; i < f->tensors; i++)
        for (size_t j = 0; j < f->tensor[i].n; j++) x->p[i]->w[j] = (tn_real)f->init[f->tensor[i].at + j];
    tn_params_touch(x->params);
    for (x->step = 1; x->step <= f->steps; x->step++) {
        const int s = x->step - 1;
        tn_tick k = {.t = x->step,
                     .total = f->steps,
                     .steps_per_epoch = f->steps,
                     .batch = 1,
                     .lr_mul = x->c->lr_mul[s],
                     .wd_mul = x->c->wd_mul[s]};
        for (int i = 0; i < f->tensors; i++)
            for (size_t j = 0; j < f->tensor[i].n; j++)
                x->p[i]->g[j] = (tn_real)x->c->g[(size_t)s * f->len + f->tensor[i].at + j];
        tn_optim_step(x->o, &k);
        double *w = x->r->w + (size_t)(x->pass * f->steps + s) * f->len;
        for (int i = 0; i < f->tensors; i++)
            for (size_t j = 0; j < f->tensor[i].n; j++) w[f->tensor[i].at + j] = (double)x->p[i]->w[j];
        size_t n;
        json_t *expect;
        json_array_foreach(x->c->expect, n,
                           expect) if (json_integer_value(json_object_get(expect, "step")) == x->step
                                       && compare(x, expect, &k, e)) return -1;
    }
    return 0;
}

static int open_runner(runner *x, tn_err *e) {
    if (!(x->params = tn_params_new())) return tn_fail(e, "not enough memory");
    for (int i = 0; i < x->f->tensors; i++) {
        const conform_tensor *t = &x->f->tensor[i];
        x->p[i] = tn_param_add(x->params, "vectors", t->name, t->decays ? 0 : TN_NO_DECAY, tn_init_const(0),
                               t->nd, t->dim);
    }
    if (tn_params_seal(x->params, 1, e)) return -1;
    return (x->o = x->m->make(x->m->who, x->params, x->c->spec, e)) ? 0 : -1;
}

int conform_run(const conform_file *f, const conform_case *c, const conform_maker *m, conform_result *r,
                tn_err *e) {
    runner x = {.f = f, .c = c, .m = m, .r = r};
    int bad;
    *r = (conform_result){.w = calloc(CONFORM_PASSES * (size_t)f->steps * f->len, sizeof *r->w)};
    bad = r->w ? open_runner(&x, e) : tn_fail(e, "not enough memory");
    for (; !bad && x.pass < CONFORM_PASSES; x.pass++) {
        if (x.pass) tn_optim_reset(x.o);
        bad = run_pass(&x, e);
    }
    tn_optim_free(x.o);
    tn_params_free(x.params);
    if (bad) free(r->w), r->w = NULL;
    return bad;
}

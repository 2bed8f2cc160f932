/* SPDX-License-Identifier: MIT */
/*
 * What tern explain shows: for every optimizer that names its parts they add up to the step, whatever the options; each
 * formula's value against a hand-written step in double for the Adam family.
 */
#include "support.h"
#include <math.h>
#include <stdio.h>

enum { STEPS = 60 };

typedef struct {
    tn_params *params;
    tn_param *p;
    tn_optim *o;
    tn_real w, g, slot[TN_MAX_SLOT]; /* before the step */
    tn_opt_tensor before;
} rig;

static void rig_new(rig *r, const char *spec, unsigned flags) {
    tn_err e;
    *r = (rig){.params = tn_params_new()};
    r->p = tn_param_add(r->params, NULL, "w", flags, tn_init_const(0), 2, (int[]){1, 1});
    assert_int_equal(tn_params_seal(r->params, 1, NULL), 0);
    if (!(r->o = tn_optim_new(r->params, spec, &e))) fail_msg("%s: %s", spec, e.msg);
    r->p->w[0] = (tn_real)0.8;
    tn_optim_reset(r->o); /* state that begins with the weight */
}

static void rig_free(rig *r) {
    tn_optim_free(r->o), tn_params_free(r->params);
}

static void step(rig *r, const tn_tick *k, double g) {
    const tn_opt_tensor *t = tn_optim_tensor(r->o, 0);
    r->p->g[0] = (tn_real)g;
    r->before = *t;
    r->w = t->w[0], r->g = t->g[0];
    r->before.w = &r->w, r->before.g = &r->g;
    for (int s = 0; s < TN_MAX_SLOT; s++) {
        size_t len;
        const tn_real *x = tn_optim_slot(r->o, 0, s, NULL, &len);
        if (x) r->slot[s] = x[0];
        r->before.slot[s] = x ? &r->slot[s] : NULL;
    }
    tn_optim_step(r->o, k);
}

/* The value of a column after a step; NAN: it is not shown. */
static double value(const rig *r, const tn_tick *k, const char *name) {
    const void *hp = tn_optim_options(r->o, NULL);
    for (const tn_explain *e = tn_optim_definition(r->o)->explain; e->name; e++)
        if (strcmp(e->name, name) == 0 && e->value && (!e->shown || e->shown(hp)))
            return e->value(hp, k, &r->before, tn_optim_tensor(r->o, 0));
    return NAN;
}

static double gradient(int t) {
    return sin(1.7 * t) * (t % 7 == 0 ? 20 : 1) + 0.1;
}

static void parts_add_up(const char *spec, unsigned flags) {
    rig r;
    tn_schedule *s = tn_schedule_new("cosine:warmup=5,end=0.2", NULL),
                *wd = tn_schedule_new("linear:end=0.5", NULL);
    rig_new(&r, spec, flags);
    const tn_optim_def *def = tn_optim_definition(r.o);
    const void *hp = tn_optim_options(r.o, NULL);
    for (int t = 1; t <= STEPS; t++) {
        tn_tick k = tn_tick_at(t, STEPS, s, wd);
        double sum = 0, size = 0;
        int parts = 0;
        k.batch = 1, k.steps_per_epoch = k.images = STEPS;
        step(&r, &k, gradient(t));
        for (const tn_explain *e = def->explain; e->name; e++) {
            if (!e->part || (e->shown && !e->shown(hp))) continue;
            const double part = e->value(hp, &k, &r.before, tn_optim_tensor(r.o, 0));
            sum += part, size += fabs(part), parts++;
        }
        const double got = (double)r.p->w[0] - (double)r.w;
        const double eps = sizeof(tn_real) == 8 ? 1e-14 : 1e-6;
        assert_true(parts > 0);
        if (!(fabs(got - sum) <= eps * (fabs((double)r.w) + 4 * size)))
            fail_msg("%s, step %d: w moved by %.9g, the parts are %.9g", spec, t, got, sum);
    }
    tn_schedule_free(s), tn_schedule_free(wd);
    rig_free(&r);
}

static void all_parts(void **state) {
    (void)state;
    int n, told = 0;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (int i = 0; i < n; i++) {
        if (!defs[i]->explain) continue;
        parts_add_up(defs[i]->name, 0);
        told++;
    }
    assert_true(told >= 20);
    static const char *const specs[] = {
        "adam:lr=0.1,amsgrad=on",
        "adaml2:lr=0.1,weight_decay=0.5",
        "adaml2:lr=0.1,weight_decay=0.5,amsgrad=on",
        "adamw:lr=0.1,weight_decay=0.5",
        "adamw:lr=0.1,weight_decay=0.05,decay=independent,amsgrad=on",
        "adamw:lr=0.1,weight_decay=0.5,decay=normalized",
        "sgd:lr=0.1,weight_decay=0.5",
        "sgd:lr=0.1,weight_decay=0.5,decay=decoupled",
        "sgd:lr=0.01,momentum=0.9,dampening=0.3,weight_decay=0.5",
        "sgd:lr=0.01,momentum=0.9,nesterov=on,weight_decay=0.5",
        "sgd:lr=0.01,momentum=0.9,nesterov=on,weight_decay=0.5,decay=decoupled",
        "adagrad:lr=0.1,lr_decay=0.1,weight_decay=0.5,initial_accumulator_value=1",
        "rmsprop:weight_decay=0.5",
        "rmsprop:weight_decay=0.5,momentum=0.9",
        "rmsprop:weight_decay=0.5,momentum=0.9,centered=on",
        "rmsprop:centered=on",
        "adamax:lr=0.1,weight_decay=0.5",
        "nadam:lr=0.1,weight_decay=0.5",
        "nadam:lr=0.1,weight_decay=0.5,decoupled_weight_decay=on",
        "radam:lr=0.1,weight_decay=0.5,beta2=0.9",
        "radam:lr=0.1,weight_decay=0.5,decoupled_weight_decay=on",
        "adadelta:weight_decay=0.5",
        "asgd:lr=0.1,weight_decay=0.5",
        "lion:lr=0.1,weight_decay=0.5",
        "sgdw:weight_decay=0.05",
        "lamb:lr=0.1,weight_decay=0.5",
        "adan:lr=0.1,weight_decay=0.5",
        "adan:lr=0.1,weight_decay=0.5,no_prox=on",
        "schedulefree_adamw:lr=0.1,weight_decay=0.5,warmup_steps=9",
        "schedulefree_sgd:lr=0.1,weight_decay=0.5,r=1",
        "adamw:lr=0.1,weight_decay=0.5,cautious=on",
        "adamw:lr=0.1,weight_decay=0.5,decay=corrected",
        "switch:at=20,lr=0.1,sgd_lr=0.01,weight_decay=0.5"};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++)
        parts_add_up(specs[i], 0), parts_add_up(specs[i], TN_NO_DECAY);
}

static void adam_by_hand(void **state) {
    (void)state;
    static const char *const specs[] = {"adaml2:lr=0.1,weight_decay=0.3", "adamw:lr=0.1,weight_decay=0.3"};
    const double close = sizeof(tn_real) == 8 ? 1e-12 : 1e-5;
    for (int kind = 0; kind < 2; kind++) {
        rig r;
        double m = 0, v = 0, w = (double)(tn_real)0.8;
        rig_new(&r, specs[kind], 0);
        for (int t = 1; t <= 20; t++) {
            const tn_tick k = tn_tick_at(t, 20, NULL, NULL);
            const double g = (double)(tn_real)gradient(t) + (kind ? 0 : 0.3 * w);
            step(&r, &k, gradient(t));
            m = 0.9 * m + 0.1 * g, v = 0.999 * v + 0.001 * g * g;
            const double mh = m / (1 - pow(0.9, t)), vh = v / (1 - pow(0.999, t));
            assert_true(fabs(value(&r, &k, "m^") - mh) < close * 10);
            assert_near(value(&r, &k, "v^"), vh, close * 10);
            assert_true(fabs(value(&r, &k, "adaptive part") - -0.1 * mh / (sqrt(vh) + 1e-8)) < close * 10);
            if (kind)
                assert_near(value(&r, &k, "decay part"), -0.1 * 0.3 * w, close * 10);
            else
                assert_near(value(&r, &k, "g'"), g, close * 10);
            w += -0.1 * mh / (sqrt(vh) + 1e-8) - (kind ? 0.1 * 0.3 * w : 0);
        }
        assert_true(isnan(value(&r, &(tn_tick){.t = 20}, kind ? "g'" : "decay part")));
        rig_free(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_parts), cmocka_unit_test(adam_by_hand)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Groups with an optimizer of their own, what a definition does not take, definitions of both scopes in one optimizer, and
 * that neither wrappers nor groups let the bits depend on threads or on the vector level.
 */
#include "kernels.h"
#include "optim_rig.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WEIGHT = 15, BIAS = 7 };

/* A definition for matrices: whole tensors, steps of one norm; the rest goes to adam. */
typedef struct {
    double lr;
    int row; /* takes rows only */
} matrix_hp;
static const tn_opt matrix_opts[] = {TN_OPT_REAL(matrix_hp, lr, 0.5, 0, 10, 0, "rate"),
                                     TN_OPT_BOOL(matrix_hp, row, 0, "takes one row alone"), TN_OPT_END};
static int matrix_takes(const void *hp, int nd, const int *dim, unsigned flags) {
    (void)flags;
    return nd == 2 && (dim[0] == 1 || !((const matrix_hp *)hp)->row);
}
static void matrix_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    double square = 0;
    assert_true(lo == 0 && hi == p->n && p->nd == 2);
    for (size_t i = 0; i < hi; i++) square += (double)p->g[i] * (double)p->g[i];
    for (size_t i = 0; i < hi; i++)
        p->w[i] -= (tn_real)(((const matrix_hp *)hp)->lr * k->lr_mul * (double)p->g[i] / sqrt(square));
}
static const tn_optim_def matrix_def = {.abi = TN_ABI,
                                        .size = sizeof(tn_optim_def),
                                        .name = "matrix",
                                        .summary = "unit steps",
                                        .source = "this test",
                                        .hp_size = sizeof(matrix_hp),
                                        .hp = matrix_opts,
                                        .scope = TN_TENSOR,
                                        .update = matrix_update,
                                        .takes = matrix_takes,
                                        .rest = "adam:lr=0.25,beta1=0.5"};

static double option(const rig *r, int i, const char *name) {
    const tn_optim_def *d = tn_optim_definition_of(r->o, r->p[i]);
    for (const tn_opt *o = d->hp; o->name; o++)
        if (!strcmp(o->name, name))
            return *(const double *)((const char *)tn_optim_options(r->o, r->p[i]) + o->offset);
    fail_msg("%s has no %s", d->name, name);
    return 0;
}
static const char *name_of(const rig *r, int i) {
    return tn_optim_definition_of(r->o, r->p[i])->name;
}

static rig matrix_rig(const char *options) {
    tn_err e = {""};
    rig r = rig_new("sgd");
    tn_optim_free(r.o);
    if (!(r.o = tn_optim_new_def(r.params, &matrix_def, options, &e))) fail_msg("%s", e.msg);
    return r;
}

static void group(rig *r, const char *pattern, const char *spec) {
    tn_err e = {""};
    if (tn_optim_group(r->o, pattern, spec, &e)) fail_msg("%s", e.msg);
}
static void refuse(rig *r, const char *pattern, const char *spec, const char *message) {
    tn_err e = {""};
    if (!tn_optim_group(r->o, pattern, spec, &e)) fail_msg("%s=%s was taken", pattern, spec);
    assert_contains(e.msg, message);
}

/* Each parameter steps as it does alone with its optimizer. */
static void test_own_optimizer(void **state) {
    (void)state;
    rig both = rig_new("adamw:lr=0.01,weight_decay=0.5"), adamw = rig_new("adamw:lr=0.01,weight_decay=0.5"),
        sgd = rig_new("sgd:lr=0.125,momentum=0.5");
    group(&both, "*.bias", "sgd:lr=0.125,momentum=0.5");
    assert_string_equal(name_of(&both, 0), "adamw");
    assert_string_equal(name_of(&both, 1), "sgd");
    assert_string_equal(tn_optim_definition(both.o)->name, "adamw");
    const char *slot;
    tn_optim_slot(both.o, 1, 0, &slot, NULL);
    assert_string_equal(slot, "momentum_buffer");
    assert_null(tn_optim_slot(both.o, 1, 1, NULL, NULL));
    rig_run(&both, 10), rig_run(&adamw, 10), rig_run(&sgd, 10);
    assert_true(same_bits(both.p[0]->w, adamw.p[0]->w, WEIGHT));
    assert_true(same_bits(both.p[1]->w, sgd.p[1]->w, BIAS));
    assert_false(same_bits(both.p[1]->w, adamw.p[1]->w, BIAS));
    refuse(&both, "*", "lr=1", "before the first step");
    rig_free(&both), rig_free(&adamw), rig_free(&sgd);
}

static void test_forms(void **state) {
    (void)state;
    rig r = rig_new("adam:lr=0.5");
    group(&r, "*", "lr=0.25"); /* options alone stay with the optimizer */
    assert_string_equal(name_of(&r, 1), "adam");
    assert_true(option(&r, 1, "lr") == 0.25);
    group(&r, "*.bias", "sgd"); /* defaults, not the first group's */
    assert_string_equal(name_of(&r, 1), "sgd");
    assert_true(option(&r, 1, "lr") == 1e-3);
    group(&r, "p.*", "adam"); /* the last match holds, for the same optimizer with defaults, too */
    assert_string_equal(name_of(&r, 1), "adam");
    assert_true(option(&r, 0, "lr") == 1e-3 && option(&r, 1, "lr") == 1e-3);
    group(&r, "*.weight", "");
    assert_true(option(&r, 0, "lr") == 0.5);
    refuse(&r, "*.bias", "sgdd:lr=1", "unknown optimizer \"sgdd\" (did you mean \"sgd\"?)");
    refuse(&r, "*.bias", "sgd:lr=-1",
           "optimizer sgd, group *.bias: lr=-1 is out of range; it must be 0 <= lr");
    refuse(&r, "*.bias", "sgd:beta1=0.9", "optimizer sgd, group *.bias: unknown option \"beta1\"");
    refuse(&r, "*.bias", "adam:weight_decay=1", "the same optimizer with it: adaml2, adamw");
    refuse(&r, "*.bias", "sgd:lr=1+ema", "wrappers hold for all parameters");
    refuse(&r, "*.bias", "ema:decay=0.9", "is a wrapper");
    refuse(&r, "*.bias", "lr", "option lr needs a value");
    refuse(&r, "*.bais", "sgd", "did you mean");
    assert_true(option(&r, 0, "lr") == 0.5 && option(&r, 1, "lr") == 1e-3); /* as before the refusals */
    rig_free(&r);
}

/* What is not taken goes to rest, whose options a group can set; and steps as it does alone. */
static void test_rest(void **state) {
    (void)state;
    rig r = matrix_rig("lr=2"), adam = rig_new("adam:lr=0.25,beta1=0.5"), alone = matrix_rig("lr=2");
    assert_string_equal(name_of(&r, 0), "matrix");
    assert_string_equal(name_of(&r, 1), "adam");
    assert_true(option(&r, 0, "lr") == 2 && option(&r, 1, "lr") == 0.25 && option(&r, 1, "beta1") == 0.5);
    rig_run(&r, 10), rig_run(&adam, 10);
    assert_true(same_bits(r.p[1]->w, adam.p[1]->w, BIAS));
    rig_free(&adam);

    /* By hand: the matrix moves by lr along g / |g|. */
    double want[WEIGHT];
    for (int i = 0; i < WEIGHT; i++) want[i] = (double)alone.p[0]->w[i];
    for (int t = 0; t < 10; t++) {
        double square = 0;
        rig_random_grad(&alone, (uint64_t)t);
        for (int i = 0; i < WEIGHT; i++) square += (double)alone.p[0]->g[i] * (double)alone.p[0]->g[i];
        for (int i = 0; i < WEIGHT; i++) want[i] -= 2 * (double)alone.p[0]->g[i] / sqrt(square);
    }
    for (int i = 0; i < WEIGHT; i++) assert_true(fabs((double)r.p[0]->w[i] - want[i]) < 1e-4);
    rig_free(&r);

    /* Options alone: those of whom they are for. */
    group(&alone, "*.bias", "lr=0.75,eps=1e-3");
    assert_string_equal(name_of(&alone, 1), "adam");
    assert_true(option(&alone, 1, "lr") == 0.75 && option(&alone, 1, "beta1") == 0.5
                && option(&alone, 0, "lr") == 2);
    group(&alone, "*", "lr=1");
    assert_true(option(&alone, 0, "lr") == 1 && option(&alone, 1, "lr") == 1
                && option(&alone, 1, "beta1") == 0.5);
    refuse(&alone, "*.bias", "row=on", "optimizer adam, group *.bias: unknown option \"row\"");
    refuse(&alone, "*.weight", "eps=1", "optimizer matrix, group *.weight: unknown option \"eps\"");
    group(&alone, "*.bias", "sgd:lr=0.5"); /* an optimizer of its own in the place of rest */
    assert_string_equal(name_of(&alone, 1), "sgd");
    group(&alone, "*.weight", "row=on"); /* (3, 5) is now not taken any more */
    assert_string_equal(name_of(&alone, 0), "adam");
    assert_true(option(&alone, 0, "lr") == 0.25);
    rig_free(&alone);
}

/* An optimizer that takes some, in a group; rest is the first group's where that is the same. */
static void test_rest_in_group(void **state) {
    (void)state;
    static tn_optim_def to_sgd, nowhere, back;
    tn_err e = {""};
    to_sgd = nowhere = back = matrix_def;
    to_sgd.rest = "sgd", nowhere.rest = NULL, back.rest = "matrx";
    rig r = rig_new("sgd:lr=0.625,momentum=0.5");
    tn_optim_free(r.o);
    assert_null(r.o = tn_optim_new_def(r.params, &nowhere, "", &e));
    assert_contains(e.msg, "optimizer matrix does not take p.bias (7,): give it a group");
    assert_null(r.o = tn_optim_new_def(r.params, &back, "", &e));
    assert_contains(e.msg, "unknown optimizer \"matrx\"");
    r.o = tn_optim_new_def(r.params, &to_sgd, "", &e);
    assert_non_null(r.o);
    assert_string_equal(name_of(&r, 1), "sgd");
    assert_true(option(&r, 1, "lr") == 1e-3);
    rig_free(&r);
}

/* Wrappers around both scopes: the average of a whole tensor is that of its elements. */
static void test_scopes(void **state) {
    (void)state;
    rig r = matrix_rig("lr=0.5+ema:decay=0.5+lookahead:k=2");
    double w[WEIGHT], slow[WEIGHT], average[WEIGHT];
    const char *name;
    for (int i = 0; i < WEIGHT; i++) w[i] = slow[i] = (double)r.p[0]->w[i];
    for (int t = 1; t <= 5; t++) {
        double square = 0;
        rig_random_grad(&r, (uint64_t)t - 1);
        for (int i = 0; i < WEIGHT; i++) square += (double)r.p[0]->g[i] * (double)r.p[0]->g[i];
        for (int i = 0; i < WEIGHT; i++) {
            w[i] -= 0.5 * (double)r.p[0]->g[i] / sqrt(square);
            average[i] = t == 1 ? w[i] : (average[i] + w[i]) / 2;
            if (t % 2 == 0) w[i] = slow[i] = (slow[i] + w[i]) / 2;
        }
    }
    rig_run(&r, 5);
    const tn_real *got = tn_optim_slot(r.o, 0, 0, &name, NULL);
    assert_string_equal(name, "ema_weights");
    for (int i = 0; i < WEIGHT; i++) {
        assert_true(fabs((double)r.p[0]->w[i] - w[i]) < 1e-5);
        assert_true(fabs((double)got[i] - average[i]) < 1e-5);
    }
    rig_free(&r);
}

/* Saved states belong to their groups' optimizers. */
static void test_files(void **state) {
    (void)state;
    char path[] = "/tmp/tern-groups-XXXXXX";
    close(mkstemp(path));
    tn_err e = {""};
    rig a = matrix_rig(""), b = matrix_rig("");
    group(&a, "*.bias", "adaml2"), group(&b, "*.bias", "adamw");
    rig_run(&a, 3);
    if (tn_save_state(path, a.params, a.o, NULL, &e)) fail_msg("%s", e.msg);
    assert_int_equal(tn_load_state(path, b.params, b.o, NULL, &e), -1);
    assert_contains(e.msg,
                    "is a state of the optimizer matrix rest=adam *.bias=adaml2, not of matrix rest=adam "
                    "*.bias=adamw");
    rig_free(&b);
    b = matrix_rig("");
    group(&b, "*.bias", "adaml2");
    if (tn_load_state(path, b.params, b.o, NULL, &e)) fail_msg("%s", e.msg);
    b.tick.t = 3;
    rig_run(&a, 3), rig_run(&b, 3);
    assert_true(same_bits(a.p[0]->w, b.p[0]->w, WEIGHT) && same_bits(a.p[1]->w, b.p[1]->w, BIAS));
    unlink(path);
    rig_free(&a), rig_free(&b);
}

/* ---- threads and levels ---- */

enum { LENGTH = 40007, SMALL = 1003, STEPS = 8 };
static tn_real outcome[2][LENGTH + SMALL];

static const tn_optim_def *at_level(const tn_optim_def *const *defs, const char *name) {
    while (strcmp((*defs)->name, name) != 0) defs++;
    return *defs;
}

/* Weights and what they are evaluated with, after some steps. */
static void chain(const tn_kernels_t *level, const char *first, const char *second, const char *options) {
    tn_err e = {""};
    double *u = malloc((LENGTH + SMALL) * sizeof *u);
    tn_params *params = tn_params_new();
    tn_param *p[] = {tn_param_add(params, "p", "weight", 0, tn_init_const(0), 1, (int[]){LENGTH}),
                     tn_param_add(params, "p", "bias", TN_NO_DECAY, tn_init_const(0), 1, (int[]){SMALL})};
    tn_params_seal(params, 1, &e);
    golden_uniform(3, 1, LENGTH + SMALL, u);
    for (int i = 0; i < LENGTH + SMALL; i++) p[i >= LENGTH]->w[i % LENGTH] = (tn_real)u[i];
    tn_optim *o = tn_optim_new_def(params, at_level(level->optims, "adamw"), "lr=0.01", &e);
    if (!o || tn_optim_wrap(o, at_level(level->wrappers, first), options, &e)
        || tn_optim_wrap(o, at_level(level->wrappers, second), "", &e))
        fail_msg("%s", e.msg);
    for (int t = 1; t <= STEPS; t++) {
        tn_tick k = tn_tick_at(t, STEPS, NULL, NULL);
        k.steps_per_epoch = 2;
        golden_uniform(10 + (uint64_t)t, 1, LENGTH + SMALL, u);
        for (int i = 0; i < LENGTH + SMALL; i++) p[i >= LENGTH]->g[i % LENGTH] = (tn_real)u[i];
        if (t == 3) p[0]->g[5] = (tn_real)NAN; /* passes through */
        tn_optim_step(o, &k);
        for (int on = 0; on < 2; on++) {
            tn_optim_eval(o, &k, on);
            for (int i = 0; i < LENGTH + SMALL; i++) outcome[on][i] = p[i >= LENGTH]->w[i % LENGTH];
        }
        tn_optim_eval(o, &k, 0);
    }
    assert_true(isnan(outcome[0][5]) && isnan(outcome[1][5]) && !isnan(outcome[0][4]));
    outcome[0][5] = outcome[1][5] = 0; /* which NaN is not specified */
    tn_optim_free(o);
    tn_params_free(params);
    free(u);
}

static void test_levels_and_threads(void **state) {
    (void)state;
    static tn_real want[2][LENGTH + SMALL];
    static const char *const chains[][3] = {{"ema", "lookahead", "decay=0.7"},
                                            {"ema", "lookahead", "decay=0.7,debias=on"},
                                            {"lookahead", "swa", "k=2,alpha=0.3"}};
    static const char *const levels[] = {"plain", "avx2", "avx512", "neon"};
    const int threads = tn_threads();
    for (int c = 0; c < 3; c++) {
        for (int l = 0; l < 4; l++) {
            const tn_kernels_t *level = tn_kernels_level(levels[l]);
            for (int n = 1; level && n <= 4; n++) {
                tn_set_threads(n);
                chain(level, chains[c][0], chains[c][1], chains[c][2]);
                if (l == 0 && n == 1) memcpy(want, outcome, sizeof want);
                for (int on = 0; on < 2; on++)
                    if (!same_bits(outcome[on], want[on], LENGTH + SMALL))
                        fail_msg("+%s+%s: other bits at %s, %d threads", chains[c][0], chains[c][1],
                                 levels[l], n);
            }
        }
        assert_false(same_bits(want[0], want[1], LENGTH));
    }
    tn_set_threads(threads);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_own_optimizer),
        cmocka_unit_test(test_forms),
        cmocka_unit_test(test_rest),
        cmocka_unit_test(test_rest_in_group),
        cmocka_unit_test(test_scopes),
        cmocka_unit_test(test_files),
        cmocka_unit_test(test_levels_and_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * All built-in optimizers: each has recorded vectors, goes on from a saved state with the same bits, and lets NaN through.
 * Then what is special about single ones: matrices at every level, identities that hold bit for bit, closed forms.
 */
#include "kernels.h"
#include "optim_rig.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef TN_DOUBLE
static const double CLOSE = 1e-12;
#else
static const double CLOSE = 2e-6;
#endif
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- all of them ---- */

static void test_vectors_exist(void **state) {
    (void)state;
    int n;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (int d = 0; d < n; d++) {
        char path[1024];
        if (!strcmp(defs[d]->name, "amsgrad")) continue; /* adam with amsgrad=on, which test_optim.c pins */
        snprintf(path, sizeof path, "%s/optim/%s.json", TN_GOLDEN_DIR, defs[d]->name);
        if (access(path, R_OK)) fail_msg("no vectors for %s", defs[d]->name);
    }
}

static int same_state(rig *a, rig *b) {
    for (int i = 0; i < 2; i++) {
        tn_real *x;
        size_t len;
        if (!same_bits(a->p[i]->w, b->p[i]->w, a->p[i]->len)) return 0;
        for (int k = 0; (x = tn_optim_slot(a->o, i, k, NULL, &len)); k++)
            if (!same_bits(x, tn_optim_slot(b->o, i, k, NULL, NULL), len)) return 0;
    }
    return 1;
}

/* Options under which something changes between the steps before and after: a switch, a warm-up, an average. */
static const char *const RESUMED[] = {"switch:at=5",     "switch:at=6",
                                      "asgd:t0=3",       "schedulefree_sgd:warmup_steps=9,r=1",
                                      "radam:beta2=0.9", "adamw:amsgrad=on,cautious=on"};

static void resumes(const char *spec) {
    char path[] = "/tmp/optim_stateXXXXXX";
    tn_err e = {""};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    close(fd);
    rig whole = rig_new(spec), first = rig_new(spec), second = rig_new(spec);
    rig_run(&whole, 12);
    rig_run(&first, 6);
    if (tn_save_state(path, first.params, first.o, "{}", &e)) fail_msg("%s: %s", spec, e.msg);
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; j < second.p[i]->len; j++) second.p[i]->w[j] = 7;
    if (tn_load_state(path, second.params, second.o, NULL, &e)) fail_msg("%s: %s", spec, e.msg);
    remove(path);
    second.tick = first.tick;
    if (!same_state(&first, &second)) fail_msg("%s: the state that was read is another", spec);
    rig_run(&second, 6);
    if (!same_state(&whole, &second)) fail_msg("%s goes on otherwise after a pause", spec);
    if (same_state(&whole, &first)) fail_msg("%s does not move", spec);
    tn_optim_eval(whole.o, &whole.tick, 1), tn_optim_eval(second.o, &second.tick, 1);
    for (int i = 0; i < 2; i++) assert_true(same_bits(whole.p[i]->w, second.p[i]->w, whole.p[i]->len));
    rig_free(&whole), rig_free(&first), rig_free(&second);
}

static void test_resume(void **state) {
    (void)state;
    int n;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (int d = 0; d < n; d++) resumes(defs[d]->name);
    for (int c = 0; c < COUNT(RESUMED); c++) resumes(RESUMED[c]);
}

/* NaN in one gradient is NaN in that weight, for good; elsewhere it is in the tensors' others at most. */
static void test_nan(void **state) {
    (void)state;
    int n;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (int d = 0; d < n; d++) {
        rig r = rig_new(defs[d]->name);
        rig_run(&r, 2);
        rig_random_grad(&r, 3);
        r.p[0]->g[4] = NAN;
        rig_step(&r);
        if (!isnan(r.p[0]->w[4])) fail_msg("%s swallows NaN", defs[d]->name);
        rig_run(&r, 3);
        if (!isnan(r.p[0]->w[4])) fail_msg("%s forgets NaN", defs[d]->name);
        for (int i = 0; i < 7; i++) assert_true(isfinite(r.p[1]->w[i]));
        const int norms =
            strcmp(defs[d]->name, "lamb") == 0 || defs[d]->scope == TN_TENSOR; /* of the whole tensor */
        if (!norms && !isfinite(r.p[0]->w[5])) fail_msg("%s spreads NaN", defs[d]->name);
        rig_free(&r);
    }
}

/* A gradient of zeros from the start, without decay: nothing moves and nothing is NaN. */
static void test_rest(void **state) {
    (void)state;
    int n;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (int d = 0; d < n; d++) {
        char spec[128];
        int decays = 0;
        for (const tn_opt *o = defs[d]->hp; o->name; o++) decays |= !strcmp(o->name, "weight_decay");
        snprintf(spec, sizeof spec, "%s%s%s", defs[d]->name, decays ? ":weight_decay=0" : "",
                 strcmp(defs[d]->name, "asgd") ? "" : ",lambd=0");
        rig r = rig_new(spec), still = rig_new("sgd");
        for (int s = 0; s < 5; s++) rig_zero_grad(&r), rig_step(&r);
        for (int i = 0; i < 2; i++)
            if (!same_bits(r.p[i]->w, still.p[i]->w, r.p[i]->len)) fail_msg("%s moves", spec);
        rig_free(&r), rig_free(&still);
    }
}

/* ---- tensors of two and more dimensions, at every level and number of threads ---- */

static uint64_t seed;
static double uniform(void) {
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(seed >> 11) / 4503599627370496.0 - 1;
}

static tn_params *trained(const tn_optim_def *d, const char *options, int nd, const int *dim, int steps) {
    tn_err e = {""};
    tn_params *params = tn_params_new();
    tn_param *p = tn_param_add(params, "p", "weight", 0, tn_init_const(0), nd, dim);
    if (tn_params_seal(params, 1, &e)) fail_msg("%s", e.msg);
    tn_optim *o = tn_optim_new_def(params, d, options, &e);
    if (!o) fail_msg("%s", e.msg);
    seed = 5;
    for (size_t j = 0; j < p->len; j++) p->w[j] = (tn_real)uniform();
    for (int s = 1; s <= steps; s++) {
        tn_tick k = tn_tick_at(s, steps, NULL, NULL);
        for (size_t j = 0; j < p->len; j++) p->g[j] = (tn_real)uniform();
        tn_optim_step(o, &k);
    }
    tn_optim_free(o);
    return params;
}

static const tn_optim_def *of_level(const tn_kernels_t *level, const char *name) {
    for (int i = 0; level->optims[i]; i++)
        if (!strcmp(level->optims[i]->name, name)) return level->optims[i];
    fail_msg("no %s", name);
    return NULL;
}

static const struct {
    int nd, dim[4];
} SHAPES[] = {{2, {1, 1}},        {2, {3, 5}},    {2, {5, 3}},     {2, {17, 33}},
              {2, {40, 7}},       {2, {70, 131}}, {3, {2, 5, 19}}, {4, {3, 2, 5, 5}},
              {4, {4, 3, 1, 18}}, {2, {1, 50}},   {2, {300, 260}}, {4, {16, 1, 5, 5}}};

static void test_matrices(void **state) {
    (void)state;
    const char *const names[] = {"adafactor", "muon", "lamb"};
    const char *const levels[] = {"avx2", "avx512", "neon"};
    for (int c = 0; c < COUNT(names); c++)
        for (int s = 0; s < COUNT(SHAPES); s++) {
            if (!strcmp(names[c], "muon") && SHAPES[s].nd != 2) continue;
            tn_set_threads(1);
            tn_params *want = trained(of_level(tn_kernels_level("plain"), names[c]), "weight_decay=0.1",
                                      SHAPES[s].nd, SHAPES[s].dim, 3);
            assert_null(tn_nonfinite_weight(want));
            for (int l = 0; l < COUNT(levels); l++) {
                const tn_kernels_t *level = tn_kernels_level(levels[l]);
                if (!level) continue;
                tn_set_threads(l + 1);
                tn_params *got =
                    trained(of_level(level, names[c]), "weight_decay=0.1", SHAPES[s].nd, SHAPES[s].dim, 3);
                tn_param *a = tn_params_at(want, 0), *b = tn_params_at(got, 0);
                if (!same_bits(a->w, b->w, a->len)) fail_msg("%s, shape %d, %s", names[c], s, levels[l]);
                tn_params_free(got);
            }
            tn_params_free(want);
        }
    tn_set_threads(0);
}

/* With the classical coefficients the iteration converges: X X^T = I, so a step from 0 is lr times orthogonal rows. */
static void test_muon_is_orthogonal(void **state) {
    (void)state;
    const int shapes[][2] = {{4, 9}, {9, 4}, {6, 6}};
    for (int s = 0; s < COUNT(shapes); s++) {
        const int rows = shapes[s][0], cols = shapes[s][1], small = rows < cols ? rows : cols;
        tn_err e = {""};
        tn_params *params = tn_params_new();
        tn_param *p = tn_param_add(params, "p", "weight", 0, tn_init_const(0), 2, shapes[s]);
        assert_int_equal(tn_params_seal(params, 1, &e), 0);
        tn_optim *o = tn_optim_new(params, "muon:lr=1,ns_a=1.875,ns_b=-1.25,ns_c=0.375,ns_steps=40", &e);
        assert_non_null(o);
        seed = 9;
        for (size_t j = 0; j < p->len; j++) p->g[j] = (tn_real)uniform();
        tn_tick k = tn_tick_at(1, 1, NULL, NULL);
        tn_optim_step(o, &k);
        const double f = rows > cols ? (double)rows / cols : 1;
        for (int i = 0; i < small; i++)
            for (int j = 0; j < small; j++) {
                double dot = 0;
                for (int c = 0; c < (rows < cols ? cols : rows); c++)
                    dot += rows <= cols ? (double)p->w[i * cols + c] * (double)p->w[j * cols + c]
                                        : (double)p->w[c * cols + i] * (double)p->w[c * cols + j];
                assert_true(fabs(dot - (i == j ? f : 0)) <= 10 * CLOSE * f);
            }
        tn_optim_free(o);
        tn_params_free(params);
    }
}

/* ---- identities ---- */

static int same_runs(const char *one, const char *two, int tensor, int steps) {
    rig a = rig_new(one), b = rig_new(two);
    rig_run(&a, steps), rig_run(&b, steps);
    const int same = same_bits(a.p[tensor]->w, b.p[tensor]->w, a.p[tensor]->len);
    rig_free(&a), rig_free(&b);
    return same;
}

static void test_identities(void **state) {
    (void)state;
    assert_true(same_runs("switch:at=20,weight_decay=0.1", "adamw:weight_decay=0.1", 0, 20));
    assert_false(same_runs("switch:at=19,weight_decay=0.1", "adamw:weight_decay=0.1", 0, 20));
    assert_true(same_runs("muon", "adamw", 1, 10)); /* the bias */
    assert_false(same_runs("muon", "adamw", 0, 10));
    assert_true(same_runs("adamw:weight_decay=0.1,decay=corrected", "adamw:weight_decay=0.1", 0, 20));
    assert_true(same_runs("adamw:weight_decay=0,cautious=on", "adam", 0, 20));
    assert_true(same_runs("sgdw:lr=0.125,momentum=0,weight_decay=0", "sgd:lr=0.125", 0, 1));
    assert_true(same_runs("adan:weight_decay=0", "adan:weight_decay=0,no_prox=on", 0, 20));
    assert_true(same_runs("nadam:weight_decay=0", "nadam:weight_decay=0,decoupled_weight_decay=on", 0, 20));
    assert_true(same_runs("radam:weight_decay=0", "radam:weight_decay=0,decoupled_weight_decay=on", 0, 20));
}

/* decay=corrected goes with the square of the schedule; cautious leaves weights alone that the step takes away from 0. */
static void test_decays(void **state) {
    (void)state;
    rig r = rig_new("adamw:lr=0.5,weight_decay=0.25,decay=corrected");
    r.tick.lr_mul = 0.5;
    const double w = (double)r.p[0]->w[0];
    rig_zero_grad(&r);
    rig_step(&r);
    assert_near((double)r.p[0]->w[0], w * (1 - 0.5 * 0.25 * 0.25), CLOSE);
    rig_free(&r);
    rig a = rig_new("adamw:lr=0.125,weight_decay=0.5,cautious=on"),
        b = rig_new("adamw:lr=0.125,weight_decay=0.5"), c = rig_new("adam:lr=0.125");
    rig *const all[] = {&a, &b, &c};
    for (int i = 0; i < 3; i++) {
        rig_zero_grad(all[i]);
        for (int j = 0; j < 3; j++) all[i]->p[0]->w[j] = 1, all[i]->p[0]->g[j] = (tn_real)(1 - j);
        rig_step(all[i]);
    }
    assert_true(a.p[0]->w[0] == b.p[0]->w[0] && a.p[0]->w[0] != c.p[0]->w[0]); /* towards 0: decays */
    assert_true(a.p[0]->w[1] == b.p[0]->w[1] && a.p[0]->w[1] != c.p[0]->w[1]); /* no step: decays */
    assert_true(a.p[0]->w[2] == c.p[0]->w[2] && a.p[0]->w[2] != b.p[0]->w[2]); /* away: does not */
    rig_free(&a), rig_free(&b), rig_free(&c);
}

/* ---- weights to evaluate with ---- */

/* schedulefree_sgd at a constant rate: x is the mean of z_1 ... z_t, z those of plain SGD for the same gradients. */
static void test_schedulefree_average(void **state) {
    (void)state;
    rig r = rig_new("schedulefree_sgd:lr=0.125"), sgd = rig_new("sgd:lr=0.125");
    double mean[15] = {0};
    enum { T = 30 };
    for (int t = 0; t < T; t++) {
        rig_run(&r, 1), rig_run(&sgd, 1);
        for (int i = 0; i < 15; i++) mean[i] += (double)sgd.p[0]->w[i] / T;
    }
    tn_real kept[15];
    memcpy(kept, r.p[0]->w, sizeof kept);
    tn_optim_eval(r.o, &r.tick, 1);
    for (int i = 0; i < 15; i++) assert_near((double)r.p[0]->w[i], mean[i], 20 * CLOSE);
    tn_optim_eval(r.o, NULL, 0);
    assert_true(same_bits(r.p[0]->w, kept, 15));
    rig_free(&r), rig_free(&sgd);
}

/* asgd averages w_(t0 + 2) and what follows; before that the average is the last weight, and before step 1 the first. */
static void test_asgd_average(void **state) {
    (void)state;
    rig r = rig_new("asgd:lr=0.125,lambd=0,t0=3"), sgd = rig_new("sgd:lr=0.125");
    double mean[15] = {0};
    tn_optim_eval(r.o, &r.tick, 1);
    assert_true(same_bits(r.p[0]->w, sgd.p[0]->w, 15));
    tn_optim_eval(r.o, NULL, 0);
    for (int t = 1; t <= 20; t++) {
        rig_run(&r, 1), rig_run(&sgd, 1);
        assert_true(same_bits(r.p[0]->w, sgd.p[0]->w, 15));
        if (t >= 5)
            for (int i = 0; i < 15; i++) mean[i] += ((double)sgd.p[0]->w[i] - mean[i]) / (t - 4);
        tn_optim_eval(r.o, &r.tick, 1);
        for (int i = 0; i < 15; i++)
            assert_near((double)r.p[0]->w[i], t >= 5 ? mean[i] : (double)sgd.p[0]->w[i], 5 * CLOSE);
        tn_optim_eval(r.o, NULL, 0);
    }
    rig_free(&r), rig_free(&sgd);
}

/* An average of its own and a wrapper with one: refused with a reason. */
static void test_two_averages(void **state) {
    (void)state;
    rig r = rig_new("sgd");
    const char *const specs[] = {"asgd+ema", "schedulefree_adamw+ema", "schedulefree_sgd+swa"};
    for (int c = 0; c < COUNT(specs); c++) {
        tn_err e = {""};
        assert_null(tn_optim_new(r.params, specs[c], &e));
        assert_contains(e.msg, "evaluat");
    }
    rig_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_vectors_exist),
        cmocka_unit_test(test_resume),
        cmocka_unit_test(test_nan),
        cmocka_unit_test(test_rest),
        cmocka_unit_test(test_matrices),
        cmocka_unit_test(test_muon_is_orthogonal),
        cmocka_unit_test(test_identities),
        cmocka_unit_test(test_decays),
        cmocka_unit_test(test_schedulefree_average),
        cmocka_unit_test(test_asgd_average),
        cmocka_unit_test(test_two_averages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

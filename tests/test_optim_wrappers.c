/* SPDX-License-Identifier: MIT */
/* Wrappers of optimizers: recorded averages, closed forms, order, state, evaluation, and what does not go together. */
#include "optim_rig.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { WEIGHT = 15, BIAS = 7, BOTH = 22 };

static double tolerance(void) {
    return sizeof(tn_real) == 8 ? 1e-12 : 1e-5;
}

static void weights(const rig *r, tn_real w[BOTH]) {
    for (int i = 0; i < BOTH; i++) w[i] = r->p[i >= WEIGHT]->w[i % WEIGHT];
}

static void evaluated(rig *r, tn_real w[BOTH]) {
    tn_optim_eval(r->o, &r->tick, 1);
    weights(r, w);
    tn_optim_eval(r->o, &r->tick, 0);
}

static tn_real *slot_named(rig *r, int param, const char *want) {
    const char *name;
    tn_real *x;
    for (int s = 0; (x = tn_optim_slot(r->o, param, s, &name, NULL)); s++)
        if (!strcmp(name, want)) return x;
    fail_msg("no state named %s", want);
    return NULL;
}

/* ---- against recorded values ---- */

static void one_case(const json_t *file, const json_t *c, double tol) {
    const char *spec = json_string_value(json_object_get(c, "spec"));
    const int n = (int)json_integer_value(json_object_get(file, "n"));
    const int steps = (int)json_integer_value(json_object_get(file, "steps"));
    tn_params *params = tn_params_new();
    tn_param *p = tn_param_add(params, "", "w", 0, tn_init_const(0), 1, &n);
    double u[16];
    tn_err e = {""};
    tn_params_seal(params, 1, &e);
    golden_uniform(7, 1, (size_t)n, u);
    for (int i = 0; i < n; i++) p->w[i] = (tn_real)u[i];
    tn_optim *o = tn_optim_new(params, spec, &e);
    if (!o) fail_msg("%s: %s", spec, e.msg);
    for (int t = 1; t <= steps; t++) {
        tn_tick k = tn_tick_at(t, steps, NULL, NULL);
        k.steps_per_epoch = json_integer_value(json_object_get(file, "steps_per_epoch"));
        golden_uniform(100 + (uint64_t)t, 1, (size_t)n, u);
        for (int i = 0; i < n; i++) p->g[i] = (tn_real)u[i];
        tn_optim_step(o, &k);
        double d = golden_distance(p->w, json_array_get(json_object_get(c, "w"), (size_t)t - 1));
        if (!(d <= tol)) fail_msg("%s, step %d: the weights are off by %g", spec, t, d);
        tn_optim_eval(o, &k, 1);
        d = golden_distance(p->w, json_array_get(json_object_get(c, "evaluated"), (size_t)t - 1));
        if (!(d <= tol)) fail_msg("%s, step %d: the average is off by %g", spec, t, d);
        tn_optim_eval(o, &k, 0);
    }
    tn_optim_free(o);
    tn_params_free(params);
}

static void test_recorded(void **state) {
    (void)state;
    json_t *file = golden_load("wrappers/wrappers.json");
    const json_t *cases = json_object_get(file, "cases");
    const char *key = sizeof(tn_real) == 8 ? "tol" : "tol_float";
    assert_int_equal(json_array_size(cases), 7);
    for (size_t i = 0; i < 7; i++)
        one_case(file, json_array_get(cases, i), json_real_value(json_object_get(file, key)));
    json_decref(file);
}

/* ---- closed forms ---- */

/* Unit gradients and SGD: w_t = w_0 - lr t, of which every average is known. */
static double run_on_a_line(const char *spec, int steps, double *w0) {
    rig r = rig_new(spec);
    tn_real w[BOTH];
    *w0 = (double)r.p[0]->w[4];
    r.tick.total = 40, r.tick.steps_per_epoch = 8;
    for (int t = 0; t < steps; t++) {
        for (int i = 0; i < BOTH; i++) r.p[i >= WEIGHT]->g[i % WEIGHT] = 1;
        rig_step(&r);
    }
    evaluated(&r, w);
    rig_free(&r);
    return (double)w[4];
}

static void test_closed_forms(void **state) {
    (void)state;
    const double lr = 0.125, d = 0.75;
    double w0, want;
    for (int t = 1; t <= 40; t += 3) {
        double got = run_on_a_line("sgd:lr=0.125+ema:decay=0.75", t, &w0);
        /* sum of (1 - d) d^(t-k) (w0 - lr k) from k = 2, and d^(t-1) of w_1 */
        want = pow(d, t - 1) * (w0 - lr);
        for (int k = 2; k <= t; k++) want += (1 - d) * pow(d, t - k) * (w0 - lr * k);
        assert_near(got, want, tolerance());
        got = run_on_a_line("sgd:lr=0.125+ema:decay=0.75,debias=on", t, &w0);
        want = 0;
        for (int k = 1; k <= t; k++) want += (1 - d) * pow(d, t - k) * (w0 - lr * k) / (1 - pow(d, t));
        assert_near(got, want, tolerance());
        got = run_on_a_line("sgd:lr=0.125+ema:decay=0.75,warmup=on", t, &w0);
        want = w0 - lr;
        for (int k = 2; k <= t; k++) {
            double dk = fmin(d, (1 + k) / (10. + k));
            want = dk * want + (1 - dk) * (w0 - lr * k);
        }
        assert_near(got, want, tolerance());
        got = run_on_a_line("sgd:lr=0.125+swa:start_step=1,every=1", t, &w0);
        assert_near(got, w0 - lr * (t + 1) / 2., tolerance());
        got = run_on_a_line("sgd:lr=0.125+swa:start=0,every=1", t, &w0);
        assert_near(got, w0 - lr * (t + 1) / 2., tolerance());
        /* epochs of 8 steps from step 0.3 * 40 = 12 on: 16, 24, 32, 40 */
        got = run_on_a_line("sgd:lr=0.125+swa:start=0.3", t, &w0);
        const int n = t / 8 - 1;
        assert_near(got, n < 1 ? w0 - lr * t : w0 - lr * 8 * (2 + (n - 1) / 2.), tolerance());
        /* k steps forward, half of them back */
        got = run_on_a_line("sgd:lr=0.125+lookahead:k=4,alpha=0.5", t, &w0);
        assert_near(got, w0 - lr * (t / 4 * 2 + t % 4), tolerance());
    }
}

/* ---- what changes nothing ---- */

static void test_neutral(void **state) {
    (void)state;
    static const char *const specs[] = {"adamw:lr=0.01,weight_decay=0.1+ema:decay=0.9",
                                        "adamw:lr=0.01,weight_decay=0.1+swa:start=0.1",
                                        "adamw:lr=0.01,weight_decay=0.1+lookahead:k=3,alpha=1",
                                        "adamw:lr=0.01,weight_decay=0.1+lookahead:k=1000",
                                        "adamw:lr=0.01,weight_decay=0.1+lookahead:k=3,alpha=1+ema:decay=0"};
    rig plain = rig_new("adamw:lr=0.01,weight_decay=0.1");
    tn_real want[BOTH], got[BOTH];
    rig_run(&plain, 30);
    weights(&plain, want);
    for (int i = 0; i < 5; i++) {
        rig r = rig_new(specs[i]);
        rig_run(&r, 30);
        weights(&r, got);
        /* lookahead with alpha 1 takes slow + (w - slow), which rounds */
        for (int j = 0; j < BOTH; j++) {
            if (i < 2 || i == 3)
                assert_true(got[j] == want[j]);
            else
                assert_near((double)got[j], (double)want[j], 20 * tolerance());
        }
        assert_int_equal(tn_optim_evaluates_elsewhere(r.o), i < 2 || i == 4);
        for (int s = 0; s < 2; s++) /* the optimizer's own state comes first */
            if (i < 2)
                assert_true(same_bits(tn_optim_slot(r.o, 0, s, NULL, NULL),
                                      tn_optim_slot(plain.o, 0, s, NULL, NULL), WEIGHT));
        rig_free(&r);
    }
    rig_free(&plain);
}

/* The wrapper that is written first runs first: an average before lookahead's jump, or after it. */
static void test_order(void **state) {
    (void)state;
    rig before = rig_new("sgd:lr=0.1+ema:decay=0+lookahead:k=2"),
        after = rig_new("sgd:lr=0.1+lookahead:k=2+ema:decay=0");
    tn_real a[BOTH], b[BOTH], fast[BOTH], start[BOTH];
    weights(&before, start);
    rig_run(&before, 1), rig_run(&after, 1);
    weights(&before, fast);
    rig_random_grad(&before, 1);
    for (int i = 0; i < BOTH; i++) fast[i] -= (tn_real)0.1 * before.p[i >= WEIGHT]->g[i % WEIGHT];
    rig_run(&before, 1), rig_run(&after, 1);
    evaluated(&before, a), evaluated(&after, b);
    for (int i = 0; i < BOTH; i++) {
        assert_near((double)a[i], (double)fast[i], 20 * tolerance());
        assert_near((double)b[i], (double)(start[i] + fast[i]) / 2, 20 * tolerance());
        assert_true(b[i] == after.p[i >= WEIGHT]->w[i % WEIGHT]);
    }
    rig_free(&before);
    rig_free(&after);
}

/* ---- evaluation, frozen parameters, reset ---- */

static void test_evaluation(void **state) {
    (void)state;
    rig r = rig_new("adam:lr=0.1+ema:decay=0.5");
    tn_real w[BOTH], other[BOTH], again[BOTH];
    uint64_t version = tn_params_version(r.params);
    r.p[1]->flags |= TN_FROZEN;
    rig_run(&r, 5);
    weights(&r, w);
    evaluated(&r, other);
    weights(&r, again);
    assert_true(same_bits(w, again, BOTH) && tn_params_version(r.params) > version);
    assert_false(same_bits(w, other, WEIGHT));
    assert_true(same_bits(w + WEIGHT, other + WEIGHT, BIAS)); /* frozen: itself */
    tn_optim_eval(r.o, &r.tick, 1);
    tn_optim_reset(r.o); /* with the weights that train in place */
    weights(&r, again);
    assert_true(same_bits(w, again, BOTH) && !tn_optim_evaluating(r.o));
    assert_true(same_bits(slot_named(&r, 0, "ema_weights"), w, WEIGHT));
    rig_free(&r);
}

/* ---- a wrapper of the caller's own: every hook ---- */

typedef struct {
    double rate;
} hp_t;
static const tn_opt own_opts[] = {TN_OPT_REAL(hp_t, rate, 0.5, 0, 1, 0, "share"), TN_OPT_END};
static int own_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp, (void)nd;
    out[0] = (tn_slot){"rows", (size_t)dim[0], 3};
    return 1;
}
static size_t own_scratch(const void *hp, int nd, const int *dim) {
    (void)hp, (void)nd, (void)dim;
    return 1;
}
static void own_reduce(const void *hp, const tn_tick *k, const tn_opt_tensor *t, double acc[]) {
    (void)hp, (void)k;
    acc[0] += (double)t->n;
}
static void own_decide(const void *hp, const tn_tick *k, const double acc[], double shared[]) {
    (void)hp, (void)k;
    shared[0] += acc[0];
}
static void own_update(const void *hp, const tn_tick *k, const tn_opt_tensor *t, size_t lo, size_t hi) {
    (void)k;
    assert_true(lo == 0 && hi == t->n && t->scratch);
    t->own[0] += 1;
    t->slot[0][0] += 1;
    for (size_t i = 0; i < hi; i++) t->w[i] *= (tn_real)((const hp_t *)hp)->rate;
}
static const tn_optim_def own_def = {.abi = TN_ABI,
                                     .size = sizeof(tn_optim_def),
                                     .name = "own",
                                     .summary = "shrinks",
                                     .source = "this test",
                                     .hp_size = sizeof(hp_t),
                                     .hp = own_opts,
                                     .scope = TN_TENSOR,
                                     .slots = own_slots,
                                     .scratch = own_scratch,
                                     .reduce = own_reduce,
                                     .decide = own_decide,
                                     .update = own_update,
                                     .wraps = 1};

static void test_own_wrapper(void **state) {
    (void)state;
    tn_err e = {""};
    int n;
    rig r = rig_new("sgd:lr=0"), plain = rig_new("sgd:lr=0");
    if (tn_optim_group(r.o, "*.bias", "adam:lr=0", &e)) fail_msg("%s", e.msg);
    if (tn_optim_wrap(r.o, &own_def, "rate=0.25", &e)) fail_msg("%s", e.msg);
    assert_int_equal(tn_optim_wrap(r.o, &own_def, "rate=2", &e), -1);
    assert_contains(e.msg, "wrapper own: rate=2 is out of range; it must be 0 <= rate <= 1");
    assert_int_equal(tn_optim_wrap(r.o, &own_def, "", &e), -1);
    assert_contains(e.msg, "+own is given twice");
    assert_int_equal(tn_optim_wrap(r.o, tn_optim_find("sgd"), "", &e), -1);
    assert_contains(e.msg, "no wrapper");
    rig_run(&r, 3);
    for (int i = 0; i < BOTH; i++)
        assert_true(r.p[i >= WEIGHT]->w[i % WEIGHT]
                    == plain.p[i >= WEIGHT]->w[i % WEIGHT] * (tn_real)0.015625);
    /* two groups and two parameters in each layer: [t | shared 2x, own 2x | shared 2x, own 2x] */
    const int shared = TN_MAX_SHARED, own = TN_MAX_OWN, layer = 2 * shared + 2 * own;
    double *x = tn_optim_scalars(r.o, &n);
    assert_int_equal(n, 1 + 2 * layer);
    for (int i = 1; i <= layer; i++) assert_true(x[i] == 0);
    assert_true(x[1 + layer] == 3 * WEIGHT && x[1 + layer + shared] == 3 * BIAS);
    assert_true(x[1 + layer + 2 * shared] == 3 && x[1 + layer + 2 * shared + own] == 3);
    assert_true(slot_named(&r, 0, "rows")[0] == 6 && slot_named(&r, 0, "rows")[1] == 3);
    const void *hp;
    assert_ptr_equal(tn_optim_wrapper(r.o, 0, &hp), &own_def);
    assert_true(((const hp_t *)hp)->rate == 0.25);
    assert_null(tn_optim_wrapper(r.o, 1, NULL));
    assert_int_equal(tn_optim_wrap(r.o, tn_optim_find_wrapper("ema"), "", &e), -1);
    assert_contains(e.msg, "before the first step");
    tn_optim_free(r.o);
    assert_null(r.o = tn_optim_new_def(r.params, &own_def, "", &e));
    assert_contains(e.msg, "own is a wrapper");
    rig_free(&r);
    rig_free(&plain);
}

/* ---- state in files ---- */

static void test_files(void **state) {
    (void)state;
    char path[] = "/tmp/tern-wrappers-XXXXXX", *meta = NULL;
    close(mkstemp(path));
    tn_err e = {""};
    const char *spec = "adamw:lr=0.1+lookahead:k=3+ema:decay=0.9";
    rig whole = rig_new(spec), a = rig_new(spec), b = rig_new(spec);
    tn_real x[BOTH], y[BOTH];
    rig_run(&whole, 20);
    rig_run(&a, 10);
    if (tn_save_state(path, a.params, a.o, "{}", &e)) fail_msg("%s", e.msg);
    if (tn_load_state(path, b.params, b.o, &meta, &e)) fail_msg("%s", e.msg);
    tn_free(meta);
    b.tick.t = tn_optim_steps(b.o);
    rig_run(&b, 10);
    weights(&whole, x), weights(&b, y);
    assert_true(same_bits(x, y, BOTH));
    evaluated(&whole, x), evaluated(&b, y);
    assert_true(same_bits(x, y, BOTH));
    assert_true(same_bits(slot_named(&whole, 1, "slow_weights"), slot_named(&b, 1, "slow_weights"), BIAS));
    static const char *const others[] = {"adamw", "adamw+lookahead", "adamw+ema+lookahead",
                                         "adaml2+lookahead+ema"};
    for (int i = 0; i < 4; i++) {
        rig r = rig_new(others[i]);
        weights(&r, x);
        assert_int_equal(tn_load_state(path, r.params, r.o, NULL, &e), -1);
        assert_contains(e.msg, "is a state of the optimizer adamw +lookahead+ema, not of ad");
        weights(&r, y);
        assert_true(same_bits(x, y, BOTH) && tn_optim_steps(r.o) == 0);
        rig_free(&r);
    }
    unlink(path);
    rig_free(&whole), rig_free(&a), rig_free(&b);
}

/* ---- texts and refusals ---- */

static void test_texts(void **state) {
    (void)state;
    static const char *const specs[] = {"sgd:lr=1e+3+ema:decay=0.25,warmup=on",
                                        "adamw:lr=1e-3+ema:decay=0.999+lookahead",
                                        "adam+lookahead:alpha=0.25,k=7+swa:start_step=12", "rmsprop+swa"};
    for (int i = 0; i < 4; i++) {
        char text[1024], again[1024];
        rig r = rig_new(specs[i]);
        int n = tn_optim_text(r.o, text, sizeof text);
        assert_int_equal(n, strlen(text));
        rig s = rig_new(text);
        tn_optim_text(s.o, again, sizeof again);
        assert_string_equal(text, again);
        for (size_t cap = 0; cap <= (size_t)n; cap += 7) assert_int_equal(tn_optim_text(r.o, again, cap), -1);
        rig_free(&r), rig_free(&s);
    }
    char text[1024];
    rig r = rig_new(specs[0]);
    tn_optim_text(r.o, text, sizeof text);
    assert_contains(text, "sgd:lr=1000,");
    assert_contains(text, "decay=l2+ema:decay=0.25,warmup=on,debias=off");
    rig_free(&r);
}

static void two_eval(const void *hp, const tn_tick *k, const tn_opt_tensor *p, tn_real *out) {
    (void)hp, (void)k;
    memcpy(out, p->w, p->n * sizeof *out);
}

static void test_refused(void **state) {
    (void)state;
    static const struct {
        const char *spec, *message;
    } bad[] = {
        {"adam+ema:decay=1", "wrapper ema: decay=1 is out of range; it must be 0 <= decay < 1"},
        {"adam+ema:decay=-0.1", "0 <= decay < 1"},
        {"adam+ema:decay=0.9/0.8", "\"0.9/0.8\" is not a number"},
        {"adam+ema:dcay=0.9", "wrapper ema: unknown option \"dcay\""},
        {"adam+ema:warmup=on,debias=on", "choose one"},
        {"adam+swa:start=1", "0 <= start < 1"},
        {"adam+swa:start_step=-1", "0 <= start_step"},
        {"adam+swa:every=1.5", "not a whole number"},
        {"adam+swa:start=0.5,start_step=7", "give one of them"},
        {"adam+lookahead:k=0", "1 <= k"},
        {"adam+lookahead:alpha=0", "0 < alpha <= 1"},
        {"adam+lookahead:alpha=1.5", "0 < alpha <= 1"},
        {"adam+ema+swa", "+swa around ema: ema already keeps a second set of weights"},
        {"adam+lookahead+lookahead", "+lookahead is given twice"},
        {"adam+lokahead", "unknown wrapper \"lokahead\" (did you mean \"lookahead\"?)"},
        {"adam+sgd", "this is an optimizer, no wrapper"},
        {"adam+", "unknown wrapper \"\""},
        {"ema", "\"ema\" is a wrapper; it stands behind an optimizer"},
    };
    rig r = rig_new("sgd");
    tn_err e;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        e = (tn_err){""};
        if (tn_optim_new(r.params, bad[i].spec, &e)) fail_msg("%s was taken", bad[i].spec);
        assert_contains(e.msg, bad[i].message);
    }
    /* an optimizer that is evaluated elsewhere takes no wrapper at all, in a group neither */
    tn_optim_def two = *tn_optim_find("sgd");
    two.name = "two", two.eval_weights = two_eval;
    assert_null(tn_optim_new_def(r.params, &two, "lr=1+ema", &e));
    assert_contains(e.msg,
                    "+ema around two: two already keeps a second set of weights and is evaluated on it");
    assert_null(tn_optim_new_def(r.params, &two, "lr=1+lookahead", &e));
    tn_optim *o = tn_optim_new_def(r.params, &two, "lr=1", &e);
    assert_non_null(o);
    assert_int_equal(tn_optim_wrap(o, tn_optim_find_wrapper("swa"), "", &e), -1);
    assert_contains(e.msg, "around two");
    tn_optim_free(o);
    rig_free(&r);
}

/* ---- no memory is asked for in a step, and short memory is told ---- */

static long asked, allowed = -1;
static void *counting_alloc(size_t n) {
    asked++;
    return allowed >= 0 && asked > allowed ? NULL : malloc(n);
}
static void *counting_resize(void *p, size_t n) {
    asked++;
    return allowed >= 0 && asked > allowed ? NULL : realloc(p, n);
}

static void test_memory(void **state) {
    (void)state;
    tn_err e = {""};
    rig r = rig_new("adamw+ema+lookahead:k=2");
    if (tn_optim_group(r.o, "*.bias", "sgd:lr=0.1", &e)) fail_msg("%s", e.msg);
    rig_run(&r, 3);
    long before = asked;
    rig_run(&r, 20);
    tn_real w[BOTH];
    evaluated(&r, w);
    assert_true(asked == before);
    int done = 0;
    for (long n = 0; !done; n++) {
        assert_true(n < 100);
        asked = 0, allowed = n;
        tn_optim *o = tn_optim_new(r.params, "adam+ema+lookahead", &e);
        done = o && !tn_optim_group(o, "*.bias", "sgd:lr=0.1", &e)
               && !tn_optim_wrap(o, &own_def, "rate=0.25", &e);
        allowed = -1;
        if (!done) assert_contains(e.msg, "out of memory");
        tn_optim_free(o);
    }
    rig_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_recorded),   cmocka_unit_test(test_closed_forms),
        cmocka_unit_test(test_neutral),    cmocka_unit_test(test_order),
        cmocka_unit_test(test_evaluation), cmocka_unit_test(test_own_wrapper),
        cmocka_unit_test(test_files),      cmocka_unit_test(test_texts),
        cmocka_unit_test(test_refused),    cmocka_unit_test(test_memory),
    };
    const tn_allocator counting = {counting_alloc, counting_resize, free};
    tn_set_allocator(&counting); /* before the library's first use */
    return cmocka_run_group_tests(tests, NULL, NULL);
}

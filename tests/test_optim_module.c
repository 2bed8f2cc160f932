/* SPDX-License-Identifier: MIT */
/*
 * The module around the optimizers: groups, frozen parameters, state, threads, memory, and definitions of a
 * caller's own.
 */
#include "optim_rig.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static int same_weights(const rig *a, const rig *b) {
    return same_bits(a->p[0]->w, b->p[0]->w, 15) && same_bits(a->p[1]->w, b->p[1]->w, 7);
}

/* ---- groups, frozen parameters, buffers ---- */

static double option_lr(const rig *r, int i) {
    const tn_optim_def *d = tn_optim_definition(r->o);
    return *(const double *)((const char *)tn_optim_options(r->o, r->p[i]) + d->hp[0].offset);
}

static void test_groups(void **state) {
    (void)state;
    tn_err e;
    rig r = rig_new("adamw:lr=0.5"), plain = rig_new("adamw:lr=0.5"),
        other = rig_new("adamw:lr=0.25,amsgrad=on");
    assert_int_equal(tn_optim_group(r.o, "*.bias", "lr=0.125", &e), 0);
    assert_int_equal(tn_optim_group(r.o, "p.b?as", "lr=0.25,amsgrad=on", &e), 0); /* the last match holds */
    assert_true(option_lr(&r, 0) == 0.5 && option_lr(&r, 1) == 0.25);
    assert_non_null(tn_optim_slot(r.o, 1, 2, NULL, NULL)); /* vmax, of the bias alone */
    assert_null(tn_optim_slot(r.o, 0, 2, NULL, NULL));
    rig_run(&r, 10), rig_run(&plain, 10), rig_run(&other, 10);
    assert_true(same_bits(r.p[0]->w, plain.p[0]->w, 15));
    assert_true(same_bits(r.p[1]->w, other.p[1]->w, 7));
    assert_false(same_bits(r.p[1]->w, plain.p[1]->w, 7));
    assert_int_equal(tn_optim_group(r.o, "*", "lr=1", &e), -1);
    assert_contains(e.msg, "before the first step");
    rig_free(&r), rig_free(&other);

    /* Later groups start from the first options, and "*" takes all. */
    r = rig_new("sgd:lr=0.5");
    assert_int_equal(tn_optim_group(r.o, "*.weight", "momentum=0.9", &e), 0);
    assert_int_equal(tn_optim_group(r.o, "p.*", "lr=0.25", &e), 0);
    assert_true(option_lr(&r, 0) == 0.25);
    assert_null(tn_optim_slot(r.o, 0, 0, NULL, NULL));

    /* Errors change nothing. */
    assert_int_equal(tn_optim_group(r.o, "q.*", "lr=1", &e), -1);
    assert_contains(e.msg, "no parameter's name matches the pattern \"q.*\"");
    assert_int_equal(tn_optim_group(r.o, "p.wieght", "lr=1", &e), -1);
    assert_contains(e.msg, "did you mean \"p.weight\"");
    assert_int_equal(tn_optim_group(r.o, "p.bias", "rl=1", &e), -1);
    assert_contains(e.msg, "group p.bias");
    assert_int_equal(tn_optim_group(r.o, "p.bias", "nesterov=on", &e), -1);
    assert_int_equal(tn_optim_group(r.o, "?", "lr=1", &e), -1);
    assert_int_equal(tn_optim_group(r.o, "p.bia", "lr=1", &e), -1);
    assert_true(option_lr(&r, 0) == 0.25 && option_lr(&r, 1) == 0.25);
    rig_run(&r, 1);
    rig_free(&r), rig_free(&plain);
}

static void test_frozen(void **state) {
    (void)state;
    rig r = rig_new("adamw:lr=0.1"), free_run = rig_new("adamw:lr=0.1");
    tn_real start[15], m[15];
    memcpy(start, r.p[0]->w, sizeof start);
    r.p[0]->flags |= TN_FROZEN;
    rig_run(&r, 5), rig_run(&free_run, 5);
    assert_true(same_bits(r.p[0]->w, start, 15));
    memset(m, 0, sizeof m);
    assert_true(same_bits(tn_optim_slot(r.o, 0, 0, NULL, NULL), m, 15));
    assert_true(same_bits(r.p[1]->w, free_run.p[1]->w, 7)); /* the others do not notice */
    r.p[0]->flags &= ~(unsigned)TN_FROZEN;
    rig_run(&r, 1);
    assert_false(same_bits(r.p[0]->w, start, 15));
    rig_free(&r), rig_free(&free_run);
}

static void test_buffer(void **state) {
    (void)state;
    tn_params *params = tn_params_new();
    tn_param *buffer = tn_param_add(params, "bn", "mean", TN_BUFFER, tn_init_const(3), 1, (int[]){20});
    tn_param *w = tn_param_add(params, "bn", "weight", 0, tn_init_const(1), 1, (int[]){5});
    tn_err e;
    assert_int_equal(tn_params_seal(params, 1, &e), 0);
    tn_optim *o = tn_optim_new(params, "adam:lr=0.5", &e);
    for (int i = 0; i < 5; i++) w->g[i] = 1;
    tn_optim_step(o, &(tn_tick){.t = 1, .total = 1, .lr_mul = 1, .wd_mul = 1});
    for (int i = 0; i < 20; i++) assert_true(buffer->w[i] == 3);
    for (int i = 0; i < 5; i++) assert_near((double)w->w[i], 0.5, 1e-6);
    assert_null(tn_optim_slot(o, buffer->index, 0, NULL, NULL));
    tn_optim_free(o);
    tn_params_free(params);
}

/* ---- state ---- */

static void test_reset(void **state) {
    (void)state;
    const char *specs[] = {"sgd:momentum=0.9", "adagrad:initial_accumulator_value=0.5", "rmsprop:centered=on",
                           "amsgrad"};
    for (int c = 0; c < COUNT(specs); c++) {
        rig a = rig_new(specs[c]), b = rig_new(specs[c]);
        rig_run(&a, 7);
        tn_optim_reset(a.o);
        for (int i = 0; i < 2; i++) memcpy(a.p[i]->w, b.p[i]->w, b.p[i]->len * sizeof(tn_real));
        a.tick.t = 0;
        rig_run(&a, 7), rig_run(&b, 7);
        assert_true(same_weights(&a, &b));
        rig_free(&a), rig_free(&b);
    }
}

/* Slots and scalars are all that a run goes on from. */
static void test_state_is_whole(void **state) {
    (void)state;
    const char *specs[] = {"sgd:momentum=0.9", "adagrad", "rmsprop:centered=on,momentum=0.9", "adam",
                           "amsgrad"};
    for (int c = 0; c < COUNT(specs); c++) {
        rig a = rig_new(specs[c]), b = rig_new(specs[c]);
        tn_real *from, *to;
        const char *name;
        size_t len;
        int n, m;
        rig_run(&a, 6);
        for (int i = 0; i < 2; i++) {
            memcpy(b.p[i]->w, a.p[i]->w, a.p[i]->len * sizeof(tn_real));
            for (int s = 0; (from = tn_optim_slot(a.o, i, s, &name, &len)); s++) {
                to = tn_optim_slot(b.o, i, s, NULL, NULL);
                assert_true(name[0] && len == a.p[i]->len && (uintptr_t)to % 64 == 0);
                memcpy(to, from, len * sizeof *to);
            }
        }
        double *scalars = tn_optim_scalars(a.o, &n), *into = tn_optim_scalars(b.o, &m);
        assert_true(n == m && scalars[0] == 6);
        memcpy(into, scalars, (size_t)n * sizeof *into);
        b.tick.t = 6;
        rig_run(&a, 6), rig_run(&b, 6);
        assert_true(same_weights(&a, &b));
        assert_null(tn_optim_slot(a.o, 2, 0, NULL, NULL));
        assert_null(tn_optim_slot(a.o, -1, 0, NULL, NULL));
        assert_null(tn_optim_slot(a.o, 0, -1, NULL, NULL));
        rig_free(&a), rig_free(&b);
    }
}

static void wrong_tick(void *arg) {
    rig *r = arg;
    r->tick.t++;
    rig_step(r);
}
static void not_sealed(void *arg) {
    (void)arg;
    tn_params *params = tn_params_new();
    tn_param_add(params, "p", "weight", 0, tn_init_const(0), 1, (int[]){3});
    tn_optim_new(params, "sgd", NULL);
}

static void test_misuse(void **state) {
    (void)state;
    rig r = rig_new("sgd");
    rig_run(&r, 2);
    assert_true(panics(wrong_tick, &r, "tick.t is 4 after 2 steps; it must be 3"));
    assert_true(panics(not_sealed, NULL, "tn_params_seal"));
    rig_free(&r);
    tn_optim_free(NULL);
}

static void test_version(void **state) {
    (void)state;
    rig r = rig_new("sgd");
    uint64_t before = tn_params_version(r.params);
    rig_run(&r, 1);
    assert_true(tn_params_version(r.params) > before);
    rig_free(&r);
}

/* ---- order, threads, memory ---- */

enum { SIZES = 7 };

/* Seven tensors of all sizes in the given order, ten steps; the weights of tensor i go to out[i]. */
static void run_in_order(const char *spec, const int order[SIZES], tn_real *out[SIZES]) {
    const int size[SIZES] = {1, 15, 16, 50021, 4096, 8193, 300};
    tn_params *params = tn_params_new();
    tn_param *p[SIZES];
    tn_err e = {""};
    for (int k = 0; k < SIZES; k++) {
        char name[8];
        int i = order[k];
        snprintf(name, sizeof name, "t%d", i);
        p[i] = tn_param_add(params, name, "weight", i % 3 == 1 ? TN_NO_DECAY : 0, tn_init_uniform(-1, 1), 1,
                            &size[i]);
    }
    if (tn_params_seal(params, 5, &e)) fail_msg("%s", e.msg);
    tn_optim *o = tn_optim_new(params, spec, &e);
    if (!o) fail_msg("%s", e.msg);
    double *u = malloc(sizeof *u * 50021);
    for (long t = 1; t <= 10; t++) {
        for (int i = 0; i < SIZES; i++) {
            golden_uniform((uint64_t)(100 * i + t), 1, p[i]->len, u);
            for (size_t j = 0; j < p[i]->len; j++) p[i]->g[j] = (tn_real)u[j];
        }
        tn_optim_step(o, &(tn_tick){.t = t, .total = 10, .lr_mul = 1, .wd_mul = 1});
    }
    free(u);
    for (int i = 0; i < SIZES; i++) {
        if (!out[i]) out[i] = malloc(p[i]->len * sizeof(tn_real));
        memcpy(out[i], p[i]->w, p[i]->len * sizeof(tn_real));
    }
    tn_optim_free(o);
    tn_params_free(params);
}

static void test_order_and_threads(void **state) {
    (void)state;
    const char *specs[] = {"sgd:momentum=0.9,weight_decay=0.1", "adagrad", "rmsprop:centered=on", "adamw",
                           "amsgrad"};
    const int forward[SIZES] = {0, 1, 2, 3, 4, 5, 6}, mixed[SIZES] = {6, 3, 0, 5, 2, 4, 1};
    const int size[SIZES] = {1, 15, 16, 50021, 4096, 8193, 300};
    for (int c = 0; c < COUNT(specs); c++) {
        tn_real *want[SIZES] = {NULL}, *got[SIZES] = {NULL};
        tn_set_threads(1);
        run_in_order(specs[c], forward, want);
        for (int threads = 1; threads <= 4; threads *= 2) {
            tn_set_threads(threads);
            run_in_order(specs[c], threads == 1 ? mixed : forward, got);
            for (int i = 0; i < SIZES; i++) assert_true(same_bits(want[i], got[i], (size_t)size[i]));
        }
        for (int i = 0; i < SIZES; i++) free(want[i]), free(got[i]);
    }
}

static long allocations;
static void *counting_alloc(size_t n) {
    allocations++;
    return malloc(n);
}
static void *counting_resize(void *p, size_t n) {
    allocations++;
    return realloc(p, n);
}

static void test_no_allocation(void **state) {
    (void)state;
    const char *specs[] = {"sgd:momentum=0.9", "adagrad", "rmsprop:centered=on", "adamw", "amsgrad"};
    for (int c = 0; c < COUNT(specs); c++) {
        rig r = rig_new(specs[c]);
        assert_true(allocations > 0);
        long before = allocations;
        rig_run(&r, 3);
        assert_int_equal(allocations, before);
        rig_free(&r);
    }
}

/* Memory that runs out anywhere while an optimizer or a group is made is an error, and nothing breaks. */
static long fail_at;
static void *failing_alloc(size_t n) {
    return fail_at-- == 0 ? NULL : malloc(n);
}

static void test_out_of_memory(void **state) {
    (void)state;
    const tn_allocator failing = {failing_alloc, counting_resize, free},
                       counting = {counting_alloc, counting_resize, free};
    rig r = rig_new("adam:lr=0.5");
    for (int group = 0; group < 2; group++) {
        int done = 0;
        for (int k = 0; k < 50 && !done; k++) {
            tn_err e = {""};
            tn_optim *o = NULL;
            fail_at = k;
            tn_set_allocator(&failing);
            done = group ? !tn_optim_group(r.o, "*", "amsgrad=on", &e)
                         : (o = tn_optim_new(r.params, "amsgrad", &e)) != NULL;
            tn_set_allocator(&counting);
            if (!done) assert_contains(e.msg, "out of memory");
            tn_optim_free(o);
            if (done) assert_true(k > 3);
        }
        assert_true(done);
    }
    rig_run(&r, 1);
    rig_free(&r);
}

/* ---- definitions of one's own ---- */

typedef struct {
    double lr;
} own_hp;
static const tn_opt own_opts[] = {TN_OPT_REAL(own_hp, lr, 0.5, 0, 1, 0, "rate"), TN_OPT_END};

static int own_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp, (void)nd;
    out[0] = (tn_slot){"rows", (size_t)dim[0], 2}; /* not of the tensor's length */
    out[1] = (tn_slot){"start", (size_t)dim[0] * (size_t)(nd > 1 ? dim[1] : 1), 0};
    return 2;
}
static size_t own_scratch(const void *hp, int nd, const int *dim) {
    (void)hp, (void)nd;
    return (size_t)dim[0];
}
static void own_begin(const void *hp, tn_opt_tensor *t) {
    (void)hp;
    memcpy(t->slot[1], t->w, t->n * sizeof(tn_real));
    t->own[0] = (double)t->index + 10;
}
static void own_reduce(const void *hp, const tn_tick *k, const tn_opt_tensor *t, double acc[]) {
    (void)hp, (void)k;
    acc[1] = 10 * acc[1] + t->index + 1;
    for (size_t i = 0; i < t->n; i++) acc[0] += (double)t->g[i] * (double)t->g[i];
}
static void own_decide(const void *hp, const tn_tick *k, const double acc[], double shared[]) {
    (void)hp, (void)k;
    shared[0] = sqrt(acc[0]);
    shared[1] = acc[1];
    shared[2] += 1;
}
static void own_update(const void *hp, const tn_tick *k, const tn_opt_tensor *t, size_t lo, size_t hi) {
    const own_hp *h = hp;
    assert_true(lo == 0 && hi == t->n);
    assert_true((uintptr_t)t->scratch % 64 == 0);
    memset(t->scratch, 0xff, (size_t)t->dim[0]);
    for (size_t i = lo; i < hi; i++) t->w[i] -= (tn_real)(h->lr * k->lr_mul * (double)t->g[i] / t->shared[0]);
    t->own[1] += 1;
}
/* The mean of start and now. */
static void own_eval(const void *hp, const tn_tick *k, const tn_opt_tensor *t, tn_real *out) {
    (void)hp, (void)k;
    for (size_t i = 0; i < t->n; i++) out[i] = (t->w[i] + t->slot[1][i]) / 2;
}
static const tn_optim_def own_def = {.abi = TN_ABI,
                                     .size = sizeof(tn_optim_def),
                                     .name = "own",
                                     .summary = "unit steps",
                                     .source = "this test",
                                     .hp_size = sizeof(own_hp),
                                     .hp = own_opts,
                                     .scope = TN_TENSOR,
                                     .slots = own_slots,
                                     .scratch = own_scratch,
                                     .begin = own_begin,
                                     .reduce = own_reduce,
                                     .decide = own_decide,
                                     .update = own_update,
                                     .eval_weights = own_eval};

static void step_while_evaluating(void *arg) {
    rig *r = arg;
    tn_optim_eval(r->o, &r->tick, 1);
    rig_step(r);
}

static void test_own_definition(void **state) {
    (void)state;
    rig r = rig_new("sgd");
    tn_err e = {""};
    int n;
    size_t len;
    tn_real start[15], now[15];
    memcpy(start, r.p[0]->w, sizeof start);
    tn_optim_free(r.o);
    assert_null(r.o = tn_optim_new_def(r.params, &own_def, "lr=2", &e));
    assert_contains(e.msg, "optimizer own: lr=2 is out of range");
    r.o = tn_optim_new_def(r.params, &own_def, "lr=0.25", &e);
    assert_non_null(r.o);
    tn_real *rows = tn_optim_slot(r.o, 0, 0, NULL, &len);
    assert_true(len == 3 && rows[0] == 2 && rows[2] == 2);

    rig_run(&r, 1);
    double norm = 0, moved = 0;
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; j < r.p[i]->len; j++) norm += (double)r.p[i]->g[j] * (double)r.p[i]->g[j];
    for (int i = 0; i < 15; i++) {
        double want = (double)start[i] - 0.25 * (double)r.p[0]->g[i] / sqrt(norm);
        assert_true(fabs((double)r.p[0]->w[i] - want) < 1e-6);
        moved += fabs((double)r.p[0]->w[i] - (double)start[i]);
    }
    assert_true(moved > 0.1);
    double *scalar = tn_optim_scalars(r.o, &n);
    assert_true(scalar[2] == 12); /* both tensors, in their order, in one group */
    assert_true(scalar[1 + TN_MAX_SHARED] == 10 && scalar[1 + TN_MAX_SHARED + TN_MAX_OWN] == 11);
    rig_run(&r, 1);
    assert_true(scalar[3] == 2 && scalar[2 + TN_MAX_SHARED] == 2);

    /* Weights to evaluate with, and back. */
    memcpy(now, r.p[0]->w, sizeof now);
    assert_true(tn_optim_evaluates_elsewhere(r.o));
    uint64_t version = tn_params_version(r.params);
    tn_optim_eval(r.o, &r.tick, 1);
    assert_true(tn_params_version(r.params) > version);
    for (int i = 0; i < 15; i++) assert_true(r.p[0]->w[i] == (now[i] + start[i]) / 2);
    tn_optim_eval(r.o, &r.tick, 1); /* twice is once */
    tn_optim_eval(r.o, &r.tick, 0);
    assert_true(same_bits(r.p[0]->w, now, 15));
    tn_optim_eval(r.o, &r.tick, 0);
    assert_true(same_bits(r.p[0]->w, now, 15));
    assert_true(panics(step_while_evaluating, &r, "tn_optim_eval"));

    /* A group has its own norm. */
    tn_optim_reset(r.o);
    r.tick.t = 0;
    assert_int_equal(tn_optim_group(r.o, "*.bias", "lr=1", &e), 0);
    rig_run(&r, 1);
    scalar = tn_optim_scalars(r.o, &n);
    assert_true(scalar[2] == 1 && scalar[2 + TN_MAX_SHARED] == 2);
    rig_free(&r);

    r = rig_new("sgd");
    assert_false(tn_optim_evaluates_elsewhere(r.o));
    tn_optim_free(r.o);
    tn_optim_def old = own_def;
    old.abi = TN_ABI + 1;
    assert_null(tn_optim_new_def(r.params, &old, NULL, &e));
    assert_contains(e.msg, "another version");
    old = own_def;
    old.hp = own_opts + 1; /* no lr */
    assert_null(r.o = tn_optim_new_def(r.params, &old, NULL, &e));
    assert_contains(e.msg, "row lr");
    rig_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_groups),         cmocka_unit_test(test_frozen),
        cmocka_unit_test(test_buffer),         cmocka_unit_test(test_reset),
        cmocka_unit_test(test_state_is_whole), cmocka_unit_test(test_misuse),
        cmocka_unit_test(test_version),        cmocka_unit_test(test_order_and_threads),
        cmocka_unit_test(test_no_allocation),  cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_own_definition),
    };
    const tn_allocator counting = {counting_alloc, counting_resize, free};
    tn_set_allocator(&counting); /* before the library's first use */
    return cmocka_run_group_tests(tests, NULL, NULL);
}

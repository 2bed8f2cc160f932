/* SPDX-License-Identifier: MIT */
/* The training step: micro-batches against one batch, the order of their sum, clipping, and steps that are refused. */
#include "support.h"
#include <math.h>
#include <stdio.h>

enum { ROWS = 24, IN = 5, OUT = 3, MAX_MICRO = 8 };
typedef struct {
    tn_tape *tape;
    tn_params *params;
    tn_optim *optim;
    tn_linear fc1, fc2;
    tn_real x[ROWS * IN];
    int label[ROWS];
    int first[MAX_MICRO + 1];      /* micro-batch i: rows first[i] ... first[i + 1] - 1 */
    int bad_loss, seen_row, calls; /* bad_loss: 1 + the micro-batch whose loss is NaN */
    tn_mode mode;
    tn_real *constant; /* micro-batch i has this gradient in every weight, for the order of sums */
} problem;

static void problem_new(problem *p, const char *optim) {
    tn_err e;
    double u[ROWS * IN];
    *p = (problem){.tape = tn_tape_new(NULL), .params = tn_params_new()};
    p->fc1 = tn_linear_new(p->params, "fc1", IN, 6, 1);
    p->fc2 = tn_linear_new(p->params, "fc2", 6, OUT, 1);
    assert_int_equal(tn_params_seal(p->params, 2, NULL), 0);
    if (optim && !(p->optim = tn_optim_new(p->params, optim, &e))) fail_msg("%s", e.msg);
    golden_uniform(3, 1, ROWS * IN, u);
    for (int i = 0; i < ROWS * IN; i++) p->x[i] = (tn_real)u[i];
    for (int i = 0; i < ROWS; i++) p->label[i] = i * 5 % 7 % OUT;
}

static void problem_free(problem *p) {
    tn_optim_free(p->optim);
    tn_params_free(p->params);
    tn_tape_free(p->tape);
}

static tn_t *loss(void *arg, tn_tape *t, int micro, double *weight) {
    problem *p = arg;
    int lo = p->first[micro], n = p->first[micro + 1] - lo;
    p->mode = tn_tape_mode(t);
    assert_int_equal(p->mode.train, 1);
    assert_int_equal(p->mode.first_row, lo);
    p->calls++;
    if (n == 0) return NULL;
    *weight = n;
    if (p->constant) {
        tn_t *sum = tn_sum(tn_use(t, p->fc1.bias));
        return tn_scale(sum, (double)p->constant[micro]);
    }
    tn_t *x = tn_input(t, p->x + (size_t)lo * IN, 2, (int[]){n, IN});
    tn_t *h = tn_linear_fwd(&p->fc1, x, TN_ACT_TANH);
    tn_t *y = tn_cross_entropy(tn_linear_fwd(&p->fc2, h, TN_ACT_NONE), p->label + lo, NULL);
    return p->bad_loss == micro + 1 ? tn_mul(y, tn_log(tn_const(t, -1))) : y;
}

static int step(problem *p, const tn_step_options *o, const int *ends, long t, tn_step_result *r) {
    tn_err e;
    tn_tick tick = tn_tick_at(t, 100, NULL, NULL);
    tick.seed = 77;
    for (int i = 0; i < (o ? o->accumulate : 1); i++) p->first[i + 1] = ends[i];
    tn_stepper *s = tn_stepper_new(p->params, p->optim, o, &e);
    if (!s) fail_msg("%s", e.msg);
    p->calls = 0;
    int got = tn_stepper_run(s, p->tape, loss, p, &tick, r);
    assert_int_equal(tn_tape_mode(p->tape).train, 0);
    assert_true(p->mode.seed == 77 && p->mode.step == t - 1);
    tn_stepper_free(s);
    return got;
}

static const double close = sizeof(tn_real) == 8 ? 1e-13 : 2e-6;

/* Micro-batches of any sizes, empty ones included, give the step of the whole batch. */
static void parts_equal_the_whole(void **state) {
    (void)state;
    static const int ends[][MAX_MICRO] = {
        {24},         {12, 24}, {10, 17, 24}, {6, 12, 18, 24},     {7, 14, 21, 24},
        {12, 12, 24}, {0, 24},  {24, 24},     {5, 10, 15, 20, 24}, {3, 3, 3, 9, 12, 20, 20, 24}};
    static const int parts[] = {1, 2, 3, 4, 4, 3, 2, 2, 5, 8};
    problem whole;
    tn_step_result w, r;
    size_t len;
    for (int k = 0; k < 10; k++) {
        problem p;
        problem_new(&whole, "sgd:lr=0.5,momentum=0.9");
        problem_new(&p, "sgd:lr=0.5,momentum=0.9");
        for (int t = 1; t <= 4; t++) {
            assert_int_equal(step(&whole, NULL, (int[]){24}, t, &w), 0);
            assert_int_equal(step(&p, &(tn_step_options){.accumulate = parts[k]}, ends[k], t, &r), 0);
            assert_int_equal(p.calls, parts[k]);
            assert_near(r.loss, w.loss, close);
            assert_near(r.grad_norm, w.grad_norm, close * 10);
            assert_true(r.weight == 24 && w.weight == 24 && r.nonfinite[0] == 0);
        }
        const tn_real *a = tn_params_flat(whole.params, &len), *b = tn_params_flat(p.params, NULL);
        for (size_t i = 0; i < len; i++) assert_true(fabs((double)(a[i] - b[i])) < close * 10);
        problem_free(&whole), problem_free(&p);
    }
}

/* The sum is a binary tree: (0 + 1) + (2 + 3), then the rest by size. Magnitudes make each order give other bits. */
static void order_of_the_sum(void **state) {
    (void)state;
    tn_real g[] = {1,
                   (tn_real)1e-7,
                   (tn_real)(sizeof(tn_real) == 8 ? 3e-16 : 1e-7),
                   (tn_real)-0.7,
                   (tn_real)0.3,
                   (tn_real)1e-8,
                   2};
    static const int ends[] = {1, 2, 3, 4, 5, 6, 7};
    for (int n = 2; n <= 7; n++) {
        problem p;
        tn_step_result r;
        problem_new(&p, NULL);
        p.constant = g;
        assert_int_equal(step(&p, &(tn_step_options){.accumulate = n}, ends, 1, &r), 0);
        tn_real a = g[0] + g[1], b = n > 3 ? g[2] + g[3] : 0, c = n > 5 ? g[4] + g[5] : 0, want = a;
        if (n == 3) want = g[2] + a;
        if (n >= 4) want = a + b;
        if (n == 5) want = g[4] + want;
        if (n == 6) want = c + want;
        if (n == 7) want = (g[6] + c) + want;
        want *= (tn_real)(1.0 / n);
        for (size_t i = 0; i < p.fc1.bias->len; i++) assert_true(p.fc1.bias->g[i] == want);
        for (size_t i = 0; i < p.fc2.weight->len; i++) assert_true(p.fc2.weight->g[i] == 0);
        problem_free(&p);
    }
}

static void clips(void **state) {
    (void)state;
    for (int parts = 1; parts <= 3; parts += 2) {
        problem p, q;
        tn_step_result r;
        const int ends[] = {parts == 1 ? 24 : 8, 16, 24};
        size_t len;
        problem_new(&p, NULL), problem_new(&q, NULL);
        assert_int_equal(step(&p, &(tn_step_options){.accumulate = parts}, ends, 1, &r), 0);
        double norm = r.grad_norm, top = 0, sum = 0;
        assert_near(tn_grad_norm(p.params), norm, 1e-15);
        assert_int_equal(step(&q, &(tn_step_options){parts, norm / 2, 0}, ends, 1, &r), 0);
        assert_near(r.grad_norm, norm, 1e-15); /* that before clipping */
        assert_near(tn_grad_norm(q.params), norm / 2, 1e-4);
        const tn_real *a = tn_params_flat_grad(p.params, &len), *b = tn_params_flat_grad(q.params, NULL);
        for (size_t i = 0; i < len; i++)
            assert_near((double)b[i], (double)a[i] * (norm / 2 / (norm + 1e-6)), 1e-6);
        assert_int_equal(step(&q, &(tn_step_options){parts, 0, 0.01}, ends, 1, &r), 0);
        for (size_t i = 0; i < len; i++) {
            double want = fmax(-(double)(tn_real)0.01, fmin((double)(tn_real)0.01, (double)a[i]));
            assert_true((double)b[i] == want);
            top = fmax(top, fabs(want)), sum += want * want;
        }
        assert_true(top == (double)(tn_real)0.01);
        /* both: by value first */
        assert_int_equal(step(&q, &(tn_step_options){parts, sqrt(sum) / 3, 0.01}, ends, 1, &r), 0);
        assert_near(tn_grad_norm(q.params), sqrt(sum) / 3, 1e-3);
        problem_free(&p), problem_free(&q);
    }
}

/* All slots, one after the other. */
static size_t optim_state(tn_optim *o, tn_real *out, size_t cap) {
    size_t n = 0, len;
    const char *name;
    for (int i = 0, s = 0; i < 4; i++, s = 0)
        for (const tn_real *v; (v = tn_optim_slot(o, i, s, &name, &len)); s++, n += len) {
            assert_true(n + len <= cap);
            memcpy(out + n, v, len * sizeof *v);
        }
    return n;
}

static void refused(problem *p, int accumulate, const int *ends, const char *part, tn_step_result *r) {
    size_t len;
    tn_real *w = tn_params_flat(p->params, &len), before[256], state[512];
    assert_true(len <= 256);
    memcpy(before, w, len * sizeof *w);
    const long steps = tn_optim_steps(p->optim);
    const size_t held = optim_state(p->optim, state, 512);
    uint64_t version = tn_params_version(p->params);
    assert_int_equal(step(p, &(tn_step_options){.accumulate = accumulate}, ends, steps + 1, r), 1);
    assert_contains(r->nonfinite, part);
    assert_true(same_bits(w, before, len));
    assert_int_equal(tn_optim_steps(p->optim), steps);
    tn_real now[512];
    assert_true(held > 0 && optim_state(p->optim, now, 512) == held && same_bits(now, state, held));
    assert_true(tn_params_version(p->params) == version);
}

static void refuses_what_is_not_finite(void **state) {
    (void)state;
    problem p;
    tn_step_result r;
    for (int micro = 1; micro <= 3; micro++) {
        problem_new(&p, "adamw:lr=0.1");
        p.bad_loss = micro;
        refused(&p, 3, (int[]){8, 16, 24}, "op log", &r);
        assert_true(isnan(r.loss));
        p.bad_loss = 0; /* and it goes on */
        assert_int_equal(step(&p, &(tn_step_options){.accumulate = 3}, (int[]){8, 16, 24}, 1, &r), 0);
        assert_int_equal(tn_optim_steps(p.optim), 1);
        p.bad_loss = micro; /* with moments to lose */
        refused(&p, 3, (int[]){8, 16, 24}, "op log", &r);
        problem_free(&p);
    }
    problem_new(&p, "adamw:lr=0.1");
    p.fc2.bias->w[1] = INFINITY;
    tn_params_touch(p.params);
    refused(&p, 1, (int[]){24}, "weight fc2.bias", &r);
    problem_free(&p);
    /* a finite loss whose gradient is not: the optimizer's turn does not come */
    problem_new(&p, "adamw:lr=0.1");
    p.constant = (tn_real[]){INFINITY};
    for (size_t i = 0; i < p.fc1.bias->len; i++) p.fc1.bias->w[i] = 0;
    tn_params_touch(p.params);
    refused(&p, 1, (int[]){24}, "", &r); /* 0 inf: this loss is NaN already */
    problem_free(&p);
}

static tn_t *root_of_zero(void *arg, tn_tape *t, int micro, double *weight) {
    problem *p = arg;
    (void)micro;
    *weight = 1; /* at b = 0: log(1 + b / 1e-30 ... ) is finite, its slope in float is not */
    tn_t *b = tn_sub(tn_use(t, p->fc2.bias), tn_stop(tn_use(t, p->fc2.bias)));
    return tn_sum(
        tn_scale(tn_scale(b, sizeof(tn_real) == 8 ? 1e200 : 1e30), sizeof(tn_real) == 8 ? 1e200 : 1e30));
}

static void refuses_gradients(void **state) {
    (void)state;
    problem p;
    tn_step_result r;
    tn_tick tick = tn_tick_at(1, 10, NULL, NULL);
    problem_new(&p, "adamw:lr=0.1");
    tn_stepper *s = tn_stepper_new(p.params, p.optim, NULL, NULL);
    tn_real before = p.fc2.bias->w[0];
    assert_int_equal(tn_stepper_run(s, p.tape, root_of_zero, &p, &tick, &r), 1);
    assert_contains(r.nonfinite, "gradient of fc2.bias");
    assert_true(r.loss == 0 && p.fc2.bias->w[0] == before && tn_optim_steps(p.optim) == 0);
    tn_stepper_free(s);
    problem_free(&p);
    /* Left out between two good steps, it leaves no trace: not in weights, moments or the count. */
    problem q;
    tn_real a[512], b[512];
    size_t len;
    problem_new(&p, "adamw:lr=0.1"), problem_new(&q, "adamw:lr=0.1");
    s = tn_stepper_new(p.params, p.optim, NULL, NULL);
    for (long t = 1; t <= 3; t++) {
        tick = tn_tick_at(t, 10, NULL, NULL);
        if (t > 1) assert_int_equal(tn_stepper_run(s, p.tape, root_of_zero, &p, &tick, &r), 1);
        assert_int_equal(step(&p, NULL, (int[]){24}, t, &r), 0);
        assert_int_equal(step(&q, NULL, (int[]){24}, t, &r), 0);
        size_t n = optim_state(p.optim, a, 512);
        assert_true(n == optim_state(q.optim, b, 512) && same_bits(a, b, n));
        const tn_real *w = tn_params_flat(p.params, &len);
        assert_true(same_bits(w, tn_params_flat(q.params, NULL), len));
    }
    tn_stepper_free(s);
    problem_free(&p), problem_free(&q);
}

static void empty_steps_and_options(void **state) {
    (void)state;
    problem p;
    tn_step_result r;
    tn_err e;
    problem_new(&p, "adamw:lr=0.1");
    refused(&p, 1, (int[]){0}, "empty", &r);
    refused(&p, 3, (int[]){0, 0, 0}, "empty", &r);
    assert_null(tn_stepper_new(p.params, p.optim, &(tn_step_options){-1, 0, 0}, &e));
    assert_contains(e.msg, "accumulate");
    assert_null(tn_stepper_new(p.params, p.optim, &(tn_step_options){1, -1, 0}, &e));
    assert_contains(e.msg, "clip");
    assert_null(tn_stepper_new(p.params, p.optim, &(tn_step_options){1, 0, NAN}, &e));
    assert_contains(e.msg, "clip");
    tn_stepper_free(NULL);
    problem_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parts_equal_the_whole),
        cmocka_unit_test(order_of_the_sum),
        cmocka_unit_test(clips),
        cmocka_unit_test(refuses_what_is_not_finite),
        cmocka_unit_test(refuses_gradients),
        cmocka_unit_test(empty_steps_and_options),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

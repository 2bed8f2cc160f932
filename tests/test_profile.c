/* SPDX-License-Identifier: MIT */
/*
 * Profiles: that every moment goes to a line, that calls, operations and bytes are exact, and that a tape without one
 * gives the same. The clock is one that moves by 1 at each reading, so that the lines count readings.
 */
#include "support.h"
#include "tape.h"
#include <stdio.h>
#include <stdlib.h>

enum { ROWS = 4, IN = 6, HIDDEN = 5, OUT = 3 };
static const int label[ROWS] = {0, 2, 1, 1};

static double ticks;
static double tick_clock(void) {
    return ticks += 1;
}

typedef struct {
    tn_tape *tape;
    tn_params *params;
    tn_linear fc1, fc2;
    tn_optim *optim;
    tn_stepper *stepper;
    tn_profile *profile;
} net;

static tn_t *net_loss(void *arg, tn_tape *t, int micro, double *weight) {
    const net *m = arg;
    tn_real x[ROWS * IN];
    for (int i = 0; i < ROWS * IN; i++) x[i] = (tn_real)((i * 7 + micro) % 11) / 11;
    *weight = ROWS;
    tn_t *h = tn_linear_fwd(&m->fc1, tn_input(t, x, 2, (int[]){ROWS, IN}), TN_ACT_RELU);
    tn_t *y = tn_reshape(tn_linear_fwd(&m->fc2, h, TN_ACT_NONE), 2, (int[]){ROWS, OUT});
    return tn_add(tn_cross_entropy(y, label, NULL), tn_mul(tn_const(t, 0.5), tn_mean(tn_square(h))));
}

static net net_new(int accumulate) {
    net m = {.tape = tn_tape_new(NULL), .params = tn_params_new(), .profile = tn_profile_new(NULL)};
    assert_true(m.tape && m.params && m.profile);
    m.fc1 = tn_linear_new(m.params, "fc1", IN, HIDDEN, 1);
    m.fc2 = tn_linear_new(m.params, "fc2", HIDDEN, OUT, 1);
    assert_int_equal(tn_params_seal(m.params, 7, NULL), 0);
    assert_non_null(m.optim = tn_optim_new(m.params, "adamw", NULL));
    assert_non_null(m.stepper =
                        tn_stepper_new(m.params, m.optim, &(tn_step_options){accumulate, 0, 0}, NULL));
    ticks = 0;
    tn_profile_clock(m.profile, tick_clock);
    return m;
}

static void net_free(net *m) {
    tn_stepper_free(m->stepper);
    tn_optim_free(m->optim);
    tn_params_free(m->params);
    tn_tape_free(m->tape);
    tn_profile_free(m->profile);
}

static void run(net *m, int steps) {
    tn_step_result r;
    for (int i = 0; i < steps; i++) {
        tn_tick k = {
            .t = tn_optim_steps(m->optim) + 1, .total = 100, .batch = ROWS, .lr_mul = 1, .wd_mul = 1};
        assert_int_equal(tn_stepper_run(m->stepper, m->tape, net_loss, m, &k, &r), 0);
    }
}

static const tn_profile_line *line(const tn_profile *p, tn_profile_kind kind, const char *name,
                                   const char *of) {
    const tn_profile_line *l;
    for (int i = 0; (l = tn_profile_at(p, i)); i++)
        if (l->kind == kind && !strcmp(l->name, name) && !strcmp(l->of, of)) return l;
    return NULL;
}

static void expect(const net *m, tn_profile_kind kind, const char *name, const char *of, long calls,
                   double operations, double reals) {
    const tn_profile_line *l = line(m->profile, kind, name, of);
    if (!l) fail_msg("no line %s %s", name, of);
    if (l->calls != calls || l->operations != operations || l->bytes != reals * sizeof(tn_real))
        fail_msg("%s %s: %ld calls, %g operations, %g reals", name, of, l->calls, l->operations,
                 l->bytes / sizeof(tn_real));
    assert_true(l->seconds == (double)calls); /* one tick a reading */
}

static void calls_operations_and_bytes_are_exact(void **state) {
    (void)state;
    enum { STEPS = 3, N = 2 * STEPS }; /* of two micro-batches each */
    net m = net_new(2);
    assert_null(tn_tape_profile(m.tape, m.profile));
    double start = ticks;
    run(&m, STEPS);
    double fc1 = 2.0 * ROWS * IN * HIDDEN, fc2 = 2.0 * ROWS * HIDDEN * OUT;
    double fc1_reals = ROWS * IN + HIDDEN * IN + HIDDEN, fc2_reals = ROWS * HIDDEN + OUT * HIDDEN + OUT;
    expect(&m, TN_FORWARD, "linear", "fc1", N, N * fc1, N * (fc1_reals + ROWS * HIDDEN));
    expect(&m, TN_FORWARD, "linear", "fc2", N, N * fc2, N * (fc2_reals + ROWS * OUT));
    /* the first layer's input needs no gradient: one product, and its gradient is not written */
    expect(&m, TN_BACKWARD, "linear", "fc1", N, N * fc1, N * (2 * fc1_reals - ROWS * IN + 2 * ROWS * HIDDEN));
    expect(&m, TN_BACKWARD, "linear", "fc2", N, N * 2 * fc2, N * (2 * fc2_reals + 2 * ROWS * OUT));
    expect(&m, TN_FORWARD, "reshape", "", N, 0, 0); /* a view */
    expect(&m, TN_BACKWARD, "reshape", "", N, 0, N * 4 * ROWS * OUT);
    /* what a primitive's rule is made of counts to it: no lines of their own for backward's products */
    expect(&m, TN_BACKWARD, "mul", "", 2 * N, 0, N * (2 + 3 + 4.0 * ROWS * HIDDEN + 2.0 * ROWS * HIDDEN));
    expect(&m, TN_LAP, "data", "", N, 0, 0);
    expect(&m, TN_LAP, "gradient norm", "", STEPS, 0, 0);
    expect(&m, TN_LAP, "optimizer", "", STEPS, 0, 0);
    expect(&m, TN_LAP, "between steps", "", STEPS, 0, 0);
    assert_null(line(m.profile, TN_FORWARD, "linear", ""));
    assert_true(tn_profile_seconds(m.profile) == ticks - start); /* every moment has a line */
    double operations = 0;
    const tn_profile_line *l;
    for (int i = 0; (l = tn_profile_at(m.profile, i)); i++) operations += l->operations;
    assert_true(operations == N * tn_tape_flops(m.tape, 1));
    assert_null(tn_profile_at(m.profile, -1));
    net_free(&m);
}

/* The bits of a step, and the memory of a warm one, are what they are without. */
static void a_profile_changes_nothing(void **state) {
    (void)state;
    net plain = net_new(1), with = net_new(1);
    tn_tape_profile(with.tape, with.profile);
    run(&plain, 3), run(&with, 3);
    long before = tn_tape_allocations(with.tape);
    run(&plain, 5), run(&with, 5);
    assert_true(tn_tape_allocations(with.tape) == before);
    size_t n;
    const tn_real *a = tn_params_flat(plain.params, &n), *b = tn_params_flat(with.params, &n);
    assert_true(same_bits(a, b, n));
    assert_ptr_equal(tn_tape_profile(with.tape, NULL), with.profile);
    double at = ticks;
    run(&with, 1);
    tn_profile_lap(NULL, "nothing");
    assert_true(ticks == at); /* off: the clock is not read */
    net_free(&plain), net_free(&with);
}

static void laps_by_name(void **state) {
    (void)state;
    net m = net_new(1);
    char name[] = "mine";
    tn_tape_profile(m.tape, m.profile);
    tn_profile_lap(m.profile, name);
    ticks += 10;
    tn_profile_lap(m.profile, NULL); /* nobody's */
    name[0] = 'M';
    tn_profile_lap(m.profile, "mine");
    tn_profile_lap(m.profile, name);
    assert_true(line(m.profile, TN_LAP, "mine", "")->seconds == 2);
    assert_true(line(m.profile, TN_LAP, "Mine", "")->calls == 1);
    assert_true(tn_profile_seconds(m.profile) == 3);
    for (int i = 0; i < 2000; i++) { /* more than it has lines for */
        snprintf(name, sizeof name, "%d", i);
        tn_profile_lap(m.profile, name);
    }
    assert_true(line(m.profile, TN_LAP, "other", "")->calls > 1000);
    assert_true(tn_profile_seconds(m.profile) == 2003);
    net_free(&m);
}

/* A name that is too long for its column, large numbers, no time at all: 80 columns, the longest first, and a sum. */
static void the_table(void **state) {
    (void)state;
    net m = net_new(1);
    FILE *f = tmpfile();
    char text[100], share[8] = "";
    int rows = 0;
    assert_non_null(f);
    tn_profile_print(m.profile, f);
    tn_tape_profile(m.tape, m.profile);
    run(&m, 2);
    ticks += 12345;
    tn_profile_lap(m.profile, "a lap whose name is longer than its column");
    tn_profile_print(m.profile, f);
    rewind(f);
    double last = 1e9, total = 0;
    while (fgets(text, sizeof text, f)) {
        size_t n = strlen(text);
        assert_true(n > 1 && n <= 81 && text[n - 1] == '\n' && text[n - 2] != ' ');
        double seconds;
        if (!strncmp(text, "in all", 6) && rows > 2) break;
        if (++rows < 4 || !strncmp(text, "a lap", 5)) continue;
        if (sscanf(text + 36, "%*d %lf %7s", &seconds, share) == 2) {
            assert_true(seconds <= last);
            last = seconds, total += seconds;
        }
    }
    assert_string_equal(share, "0.0%");
    assert_true(total == tn_profile_seconds(m.profile));
    assert_true(rows > 10);
    fclose(f);
    net_free(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(calls_operations_and_bytes_are_exact),
        cmocka_unit_test(a_profile_changes_nothing),
        cmocka_unit_test(laps_by_name),
        cmocka_unit_test(the_table),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

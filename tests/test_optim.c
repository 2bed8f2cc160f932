/* SPDX-License-Identifier: MIT */
/*
 * Optimizers: single steps by hand, what pins epsilon, decay and the step counter, values that are not finite.
 * Recorded values are in test_optim_golden.c, identities in test_optim_identities.c, closed forms in
 * test_optim_forms.c, the module around the optimizers in
 * test_optim_module.c.
 */
#include "optim_rig.h"
#include <math.h>
#include <stdio.h>

#ifdef TN_DOUBLE
static const double CLOSE = 1e-13;
#else
static const double CLOSE = 3e-7;
#endif

static const char *const DECAYING[] = {
    "sgd:weight_decay=0.1",
    "sgd:weight_decay=0.1,decay=decoupled",
    "adagrad:weight_decay=0.1",
    "rmsprop:weight_decay=0.1",
    "adaml2:weight_decay=0.1",
    "adaml2:weight_decay=0.1,amsgrad=on",
    "adamw:weight_decay=0.1",
    "adamw:weight_decay=0.1,decay=independent",
    "adamw:weight_decay=0.1,decay=normalized",
    "adamw:weight_decay=0.1,amsgrad=on",
    "adamw:weight_decay=0.1,cautious=on",
    "adamw:weight_decay=0.1,decay=corrected",
    "lion:weight_decay=0.1",
    "adamax:weight_decay=0.1",
    "nadam:weight_decay=0.1",
    "nadam:weight_decay=0.1,decoupled_weight_decay=on",
    "radam:weight_decay=0.1",
    "radam:weight_decay=0.1,decoupled_weight_decay=on",
    "adadelta:weight_decay=0.1",
    "asgd:weight_decay=0.1",
    "sgdw:weight_decay=0.1",
    "switch:weight_decay=0.1,at=10",
    "lamb:weight_decay=0.1",
    "adan:weight_decay=0.1",
    "adan:weight_decay=0.1,no_prox=on",
    "schedulefree_adamw:weight_decay=0.1",
    "schedulefree_sgd:weight_decay=0.1",
    "adafactor:weight_decay=0.1",
    "muon:weight_decay=0.1",
};
static const char *const ALL[] = {
    "sgd",
    "sgd:momentum=0.9",
    "sgd:momentum=0.9,dampening=0.5",
    "sgd:momentum=0.9,nesterov=on",
    "adagrad",
    "rmsprop",
    "rmsprop:momentum=0.9",
    "rmsprop:centered=on,momentum=0.9",
    "adam",
    "amsgrad",
    "adaml2",
    "adamw",
};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- by hand: one weight 2, gradient 0.5, then 0.25 ---- */

static void by_hand(const char *spec, double first, double second) {
    rig r = rig_new(spec);
    const double want[] = {first, second}, g[] = {0.5, 0.25};
    r.p[0]->w[0] = 2;
    for (int s = 0; s < 2; s++) {
        rig_zero_grad(&r);
        r.p[0]->g[0] = (tn_real)g[s];
        rig_step(&r);
        if (!(fabs((double)r.p[0]->w[0] - want[s]) <= CLOSE * fabs(want[s])))
            fail_msg("%s, step %d: %.17g, by hand %.17g", spec, s + 1, (double)r.p[0]->w[0], want[s]);
    }
    rig_free(&r);
}

static void test_by_hand(void **state) {
    (void)state;
    by_hand("sgd:lr=0.1", 2 - 0.05, 1.95 - 0.025);
    by_hand("sgd:lr=0.1,weight_decay=0.5", 2 - 0.1 * 1.5, 1.85 - 0.1 * (0.25 + 0.925));
    by_hand("sgd:lr=0.1,weight_decay=0.5,decay=decoupled", 2 * 0.95 - 0.05, 1.85 * 0.95 - 0.025);
    by_hand("sgd:lr=0.1,momentum=0.5", 2 - 0.05, 1.95 - 0.1 * 0.5);
    by_hand("sgd:lr=0.1,momentum=0.5,dampening=0.2", 2 - 0.05, 1.95 - 0.1 * (0.25 + 0.8 * 0.25));
    by_hand("sgd:lr=0.1,momentum=0.5,nesterov=on", 2 - 0.1 * 0.75, 1.925 - 0.1 * (0.25 + 0.5 * 0.5));
    by_hand("adagrad:lr=0.1,eps=0", 1.9, 1.9 - 0.1 * 0.25 / sqrt(0.3125));
    by_hand("adagrad:lr=0.1,lr_decay=1,initial_accumulator_value=0.75,eps=0", 2 - 0.1 * 0.5 / 1,
            1.95 - 0.05 * 0.25 / sqrt(1.0625));
    by_hand("rmsprop:lr=0.1,alpha=0.75,eps=0", 2 - 0.1 * 0.5 / 0.25,
            1.8 - 0.1 * 0.25 / sqrt(0.75 * 0.0625 + 0.015625));
    const double v2 = 0.75 * 0.0625 + 0.25 * 0.0625, m2 = 0.75 * 0.125 + 0.25 * 0.25;
    by_hand("rmsprop:lr=0.1,alpha=0.75,centered=on,eps=0", 2 - 0.1 * 0.5 / sqrt(0.0625 - 0.015625),
            2 - 0.1 * 0.5 / sqrt(0.0625 - 0.015625) - 0.1 * 0.25 / sqrt(v2 - m2 * m2));
    by_hand("rmsprop:lr=0.1,alpha=0.75,momentum=0.5,eps=0", 1.8, 1.8 - 0.1 * (1 + 0.25 / sqrt(v2)));
    /* m = 0.05, v = 0.00025 after one step; 0.07 and 0.00031225 after two. */
    const double u2 = (0.07 / 0.19) / (sqrt(0.00031225 / 0.001999) + 1e-8);
    const double u1 = 1 / (1 + 2e-8);
    by_hand("adam:lr=0.1", 2 - 0.1 * u1, 2 - 0.1 * u1 - 0.1 * u2);
    by_hand("adamw:lr=0.1,weight_decay=0.5", 1.9 - 0.1 * u1, (1.9 - 0.1 * u1) * 0.95 - 0.1 * u2);
    by_hand("adamw:lr=0.1,weight_decay=0.5,decay=independent", 1 - 0.1 * u1, (1 - 0.1 * u1) * 0.5 - 0.1 * u2);
    by_hand("adaml2:lr=0.1,weight_decay=0.25,beta1=0,beta2=0,eps=0", 2 - 0.1, 1.9 - 0.1);
    by_hand("amsgrad:lr=0.1,beta1=0,beta2=0,eps=0", 2 - 0.1, 1.9 - 0.1 * 0.5);
}

/* A gradient of the size of eps: the first step says where eps stands. */
static void first_step(const char *spec, double g, double want) {
    rig r = rig_new(spec);
    rig_zero_grad(&r);
    for (int i = 0; i < 2; i++) r.p[i]->w[0] = 0, r.p[i]->g[0] = (tn_real)g;
    rig_step(&r);
    assert_near((double)r.p[0]->w[0], want, 10 * CLOSE);
    assert_near((double)r.p[1]->w[0], want, 10 * CLOSE);
    rig_free(&r);
}

static void test_epsilon(void **state) {
    (void)state;
    first_step("adam:lr=1", 1e-8, -0.5);
    first_step("adaml2:lr=1", 1e-8, -0.5);
    first_step("adamw:lr=1", 1e-8, -0.5);
    first_step("amsgrad:lr=1", 1e-8, -0.5);
    first_step("adam:lr=1,eps=3e-8", 1e-8, -0.25);
    first_step("adagrad:lr=1,eps=1e-8", 1e-8, -0.5);
    first_step("rmsprop:lr=1", 1e-8, -1 / 1.1);
}

/* A gradient of zero: what moves is decay. */
static void test_zero_gradient(void **state) {
    (void)state;
    const double lr = 0.125, lambda = 0.25;
    const struct {
        const char *spec;
        double factor;
    } cases[] = {
        {"adam:lr=0.125", 1},
        {"amsgrad:lr=0.125", 1},
        {"rmsprop:lr=0.125", 1},
        {"adagrad:lr=0.125", 1},
        {"sgd:lr=0.125", 1},
        {"sgd:lr=0.125,weight_decay=0.25", 1 - lr * lambda},
        {"sgd:lr=0.125,weight_decay=0.25,decay=decoupled", 1 - lr * lambda},
        {"adamw:lr=0.125,weight_decay=0.25", 1 - lr * lambda},
        {"adamw:lr=0.125,weight_decay=0.25,amsgrad=on", 1 - lr * lambda},
        {"adamw:lr=0.125,weight_decay=0.25,decay=independent", 1 - lambda},
        {"adamw:lr=0.125,weight_decay=0.25,decay=normalized", 1 - lambda / 8}, /* 64 steps planned */
    };
    for (int c = 0; c < COUNT(cases); c++) {
        rig r = rig_new(cases[c].spec);
        r.tick.total = 64;
        const tn_optim_def *d = tn_optim_definition(r.o);
        for (int s = 0; s < 5; s++) {
            tn_real before[15];
            memcpy(before, r.p[0]->w, sizeof before);
            rig_zero_grad(&r);
            rig_step(&r);
            for (int i = 0; i < 15; i++) { /* the factors are exact: one rounding in all */
                double want = (double)before[i] * cases[c].factor;
                if (r.p[0]->w[i] != (tn_real)want)
                    fail_msg("%s: %.9g, not %.9g", cases[c].spec, (double)r.p[0]->w[i], want);
            }
        }
        if (d->shrink && !strstr(cases[c].spec, "sgd"))
            assert_true(1 - d->shrink(tn_optim_options(r.o, r.p[0]), &r.tick) == cases[c].factor);
        rig_free(&r);
    }
    /* In adaml2 the penalty is all of the gradient: a step of lr towards zero, whatever lambda is. */
    for (int c = 0; c < 2; c++) {
        rig r = rig_new(c ? "adaml2:lr=0.125,weight_decay=0.01" : "adaml2:lr=0.125,weight_decay=10");
        r.p[0]->w[3] = 1;
        rig_zero_grad(&r);
        rig_step(&r);
        assert_near((double)r.p[0]->w[3], 0.875, 2e-6);
        rig_free(&r);
    }
}

static void test_normalized(void **state) {
    (void)state;
    const struct {
        int batch;
        long images, epochs, steps_per_epoch;
    } runs[] = {{128, 55000, 10, 430}, {32, 1000, 40, 32}, {100, 0, 3, 20}, {1, 7, 1, 7}};
    for (int c = 0; c < COUNT(runs); c++)
        for (int ams = 0; ams < 2; ams++) {
            rig r = rig_new(ams ? "adamw:weight_decay=0.5,decay=normalized,amsgrad=on"
                                : "adamw:weight_decay=0.5,decay=normalized");
            long images = runs[c].images ? runs[c].images : runs[c].batch * runs[c].steps_per_epoch;
            r.tick.batch = runs[c].batch;
            r.tick.images = runs[c].images;
            r.tick.steps_per_epoch = runs[c].steps_per_epoch;
            r.tick.total = runs[c].epochs * runs[c].steps_per_epoch;
            r.tick.lr_mul = 0.75;
            double lambda = 0.5 * sqrt((double)runs[c].batch / ((double)images * (double)runs[c].epochs));
            double w = (double)r.p[0]->w[0];
            rig_zero_grad(&r);
            rig_step(&r);
            assert_near((double)r.p[0]->w[0], w * (1 - 0.75 * lambda), CLOSE);
            rig_free(&r);
        }
}

static void step_without_total(void *arg) {
    rig *r = arg;
    r->tick.total = 0;
    rig_step(r);
}

static void test_normalized_needs_total(void **state) {
    (void)state;
    rig r = rig_new("adamw:decay=normalized");
    assert_true(panics(step_without_total, &r, "planned number of steps"));
    rig_free(&r);
}

/* Both schedules reach the decay: the rate's multiplier in each form, and the decay's own. */
static void test_multipliers(void **state) {
    (void)state;
    const char *specs[] = {"sgd:lr=0.5,weight_decay=0.25,decay=decoupled", "adamw:lr=0.5,weight_decay=0.25",
                           "adamw:lr=0.5,weight_decay=0.25,decay=independent"};
    const double base[] = {0.125, 0.125, 0.25};
    for (int c = 0; c < 3; c++) {
        rig r = rig_new(specs[c]);
        r.tick.lr_mul = 0.5, r.tick.wd_mul = 0.25;
        double w = (double)r.p[0]->w[0];
        rig_zero_grad(&r);
        rig_step(&r);
        assert_near((double)r.p[0]->w[0], w * (1 - base[c] / 8), CLOSE);
        rig_free(&r);
    }
}

/* The decay's schedule scales lambda of a penalty as well: half of 0.5 is 0.25. */
static void test_penalty_multiplier(void **state) {
    (void)state;
    const char *names[] = {"sgd", "adagrad", "rmsprop", "adaml2", "adaml2:amsgrad=on"};
    for (int c = 0; c < COUNT(names); c++) {
        char one[64], two[64];
        snprintf(one, sizeof one, "%s%cweight_decay=0.5", names[c], strchr(names[c], ':') ? ',' : ':');
        snprintf(two, sizeof two, "%s%cweight_decay=0.25", names[c], strchr(names[c], ':') ? ',' : ':');
        rig a = rig_new(one), b = rig_new(two);
        a.tick.wd_mul = 0.5;
        rig_run(&a, 5), rig_run(&b, 5);
        assert_true(same_bits(a.p[0]->w, b.p[0]->w, 15));
        b.tick.wd_mul = 2;
        rig_run(&a, 5), rig_run(&b, 5);
        assert_false(same_bits(a.p[0]->w, b.p[0]->w, 15));
        rig_free(&a), rig_free(&b);
    }
}

static void test_no_decay_flag(void **state) {
    (void)state;
    for (int c = 0; c < COUNT(DECAYING); c++) {
        char without[128];
        snprintf(without, sizeof without, "%s", DECAYING[c]);
        *strstr(without, "0.1") = '0', memcpy(strstr(without, "0.1"), "0.0", 3);
        rig a = rig_new(DECAYING[c]), b = rig_new(without);
        for (int s = 0; s < 20; s++) {
            rig_random_grad(&a, (uint64_t)s), rig_random_grad(&b, (uint64_t)s);
            rig_step(&a), rig_step(&b);
        }
        assert_false(same_bits(a.p[0]->w, b.p[0]->w, 15)); /* the weight decays, the bias does not */
        assert_true(same_bits(a.p[1]->w, b.p[1]->w, 7));
        rig_free(&a), rig_free(&b);
    }
}

/* Equal weights with equal gradients in tensors of different size move alike: the step counts once a step. */
static void test_step_counter(void **state) {
    (void)state;
    for (int c = 0; c < COUNT(ALL); c++) {
        rig r = rig_new(ALL[c]);
        r.p[1]->flags = 0;
        for (int i = 0; i < 2; i++) r.p[i]->w[2] = 1;
        for (int s = 0; s < 20; s++) {
            rig_random_grad(&r, (uint64_t)s);
            r.p[1]->g[2] = r.p[0]->g[2];
            rig_step(&r);
            assert_true(r.p[0]->w[2] == r.p[1]->w[2]);
        }
        rig_free(&r);
    }
}

/* NaN and infinity in a gradient show in the weight at once. */
static void test_nonfinite(void **state) {
    (void)state;
    for (int c = 0; c < COUNT(ALL); c++)
        for (int inf = 0; inf < 2; inf++) {
            rig r = rig_new(ALL[c]);
            rig_random_grad(&r, 1);
            rig_step(&r);
            r.p[0]->g[4] = inf ? INFINITY : NAN;
            tn_real other = r.p[0]->w[5];
            rig_step(&r);
            if (isfinite(r.p[0]->w[4])) fail_msg("%s swallows a gradient that is not finite", ALL[c]);
            assert_true(isfinite(r.p[0]->w[5]) && r.p[0]->w[5] != other);
            tn_real *x;
            for (int k = 0; (x = tn_optim_slot(r.o, 0, k, NULL, NULL)); k++)
                assert_true(!isfinite(x[4]) && isfinite(x[5]));
            rig_free(&r);
        }
}

/* After a dead unit's last gradient no state becomes subnormal. */
static void test_subnormal(void **state) {
    (void)state;
    for (int c = 0; c < COUNT(ALL); c++) {
        rig r = rig_new(ALL[c]);
        for (int s = 0; s < 12000; s++) {
            rig_zero_grad(&r);
            if (s == 0)
                for (int i = 0; i < 15; i++) r.p[0]->g[i] = (tn_real)ldexp(1, -4 * i);
            rig_step(&r);
            if (s % 50) continue;
            tn_real *x;
            for (int k = 0; (x = tn_optim_slot(r.o, 0, k, NULL, NULL)); k++)
                for (int i = 0; i < 15; i++)
                    if (x[i] != 0 && !isnormal(x[i]))
                        fail_msg("%s: slot %d is %g after %d steps", ALL[c], k, (double)x[i], s);
        }
        rig_free(&r);
    }
}

/* Rounding may make the centered variance negative; that is not NaN here. */
static void test_centered_variance(void **state) {
    (void)state;
    rig r = rig_new("rmsprop:centered=on,alpha=0");
    for (int s = 0; s < 50; s++) {
        for (int i = 0; i < 15; i++) r.p[0]->g[i] = (tn_real)(0.1 + 0.01 * i);
        rig_step(&r);
    }
    assert_null(tn_nonfinite_weight(r.params));
    rig_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_hand),
        cmocka_unit_test(test_epsilon),
        cmocka_unit_test(test_zero_gradient),
        cmocka_unit_test(test_normalized),
        cmocka_unit_test(test_normalized_needs_total),
        cmocka_unit_test(test_multipliers),
        cmocka_unit_test(test_penalty_multiplier),
        cmocka_unit_test(test_no_decay_flag),
        cmocka_unit_test(test_step_counter),
        cmocka_unit_test(test_nonfinite),
        cmocka_unit_test(test_subnormal),
        cmocka_unit_test(test_centered_variance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

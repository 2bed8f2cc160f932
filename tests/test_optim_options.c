/* SPDX-License-Identifier: MIT */
/* Options of every built-in optimizer: each is checked, each acts, and what is shown can be read back. */
#include "optim_rig.h"
#include <stdio.h>

#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

static const char *refused(const char *spec) {
    static tn_err e;
    rig r = rig_new("sgd");
    e.msg[0] = 0;
    if (tn_optim_new(r.params, spec, &e)) fail_msg("%s was taken", spec);
    rig_free(&r);
    return e.msg;
}

/* Each option of each optimizer: a value that has to change a run from `base`. */
static const struct {
    const char *optimizer, *base, *change;
} CHANGES[] = {
    {"sgd", "", "lr=0.2"},
    {"sgd", "", "momentum=0.5"},
    {"sgd", "momentum=0.5", "dampening=0.25"},
    {"sgd", "momentum=0.5", "nesterov=on"},
    {"sgd", "", "weight_decay=0.1"},
    {"sgd", "momentum=0.5,weight_decay=0.1", "decay=decoupled"},
    {"adagrad", "", "lr=0.2"},
    {"adagrad", "", "lr_decay=0.5"},
    {"adagrad", "", "weight_decay=0.1"},
    {"adagrad", "", "initial_accumulator_value=0.5"},
    {"adagrad", "", "eps=0.1"},
    {"rmsprop", "", "lr=0.2"},
    {"rmsprop", "", "alpha=0.5"},
    {"rmsprop", "", "eps=0.1"},
    {"rmsprop", "", "weight_decay=0.1"},
    {"rmsprop", "", "momentum=0.5"},
    {"rmsprop", "", "centered=on"},
    {"adam", "", "lr=0.2"},
    {"adam", "", "beta1=0.5"},
    {"adam", "", "beta2=0.5"},
    {"adam", "", "eps=0.1"},
    {"adam", "beta2=0.5", "amsgrad=on"},
    {"amsgrad", "", "lr=0.2"},
    {"amsgrad", "", "beta1=0.5"},
    {"amsgrad", "", "beta2=0.5"},
    {"amsgrad", "", "eps=0.1"},
    {"amsgrad", NULL, "amsgrad=off"}, /* refused */
    {"adaml2", "", "lr=0.2"},
    {"adaml2", "", "beta1=0.5"},
    {"adaml2", "", "beta2=0.5"},
    {"adaml2", "", "eps=0.1"},
    {"adaml2", "beta2=0.5", "amsgrad=on"},
    {"adaml2", "", "weight_decay=0.1"},
    {"adamw", "", "lr=0.2"},
    {"adamw", "", "beta1=0.5"},
    {"adamw", "", "beta2=0.5"},
    {"adamw", "", "eps=0.1"},
    {"adamw", "beta2=0.5", "amsgrad=on"},
    {"adamw", "", "weight_decay=0.1"},
    {"adamw", "", "decay=independent"},
    {"adamw", "", "decay=normalized"},
    {"adamw", "weight_decay=0.5", "decay=corrected"},
    {"adamw", "weight_decay=0.5", "cautious=on"},
    {"lion", "", "lr=0.2"},
    {"lion", "beta2=0.5", "beta1=0.5"},
    {"lion", "", "beta2=0.5"},
    {"lion", "", "weight_decay=0.1"},
    {"adamax", "", "lr=0.2"},
    {"adamax", "", "beta1=0.5"},
    {"adamax", "", "beta2=0.5"},
    {"adamax", "", "eps=0.1"},
    {"adamax", "", "weight_decay=0.1"},
    {"nadam", "", "lr=0.2"},
    {"nadam", "", "beta1=0.5"},
    {"nadam", "", "beta2=0.5"},
    {"nadam", "", "eps=0.1"},
    {"nadam", "", "weight_decay=0.1"},
    {"nadam", "", "momentum_decay=0.1"},
    {"nadam", "weight_decay=0.1", "decoupled_weight_decay=on"},
    {"radam", "", "lr=0.2"},
    {"radam", "", "beta1=0.5"},
    {"radam", "", "beta2=0.5"},
    {"radam", "", "eps=0.1"},
    {"radam", "", "weight_decay=0.1"},
    {"radam", "weight_decay=0.1", "decoupled_weight_decay=on"},
    {"adadelta", "", "lr=0.2"},
    {"adadelta", "", "rho=0.5"},
    {"adadelta", "", "eps=0.1"},
    {"adadelta", "", "weight_decay=0.1"},
    {"rprop", "", "lr=0.2"},
    {"rprop", "", "etaminus=0.25"},
    {"rprop", "", "etaplus=2"},
    {"rprop", "", "step_size_min=0.009"},
    {"rprop", "", "step_size_max=0.011"},
    {"asgd", "", "lr=0.2"},
    {"asgd", "", "lambd=0.1"},
    {"asgd", "lambd=0.1", "alpha=0.5"},
    {"asgd", "", "t0=2"},
    {"asgd", "", "weight_decay=0.1"},
    {"sgdw", "", "lr=0.2"},
    {"sgdw", "", "momentum=0.5"},
    {"sgdw", "", "weight_decay=0.1"},
    {"switch", "", "lr=0.2"},
    {"switch", "", "beta1=0.5"},
    {"switch", "", "beta2=0.5"},
    {"switch", "", "eps=0.1"},
    {"switch", "", "at=4"},
    {"switch", "at=4", "sgd_lr=0.2"},
    {"switch", "at=4", "momentum=0.5"},
    {"switch", "", "weight_decay=0.1"},
    {"lamb", "", "lr=0.2"},
    {"lamb", "", "beta1=0.5"},
    {"lamb", "", "beta2=0.5"},
    {"lamb", "", "eps=0.1"},
    {"lamb", "", "weight_decay=0.1"},
    {"adan", "", "lr=0.2"},
    {"adan", "", "beta1=0.5"},
    {"adan", "", "beta2=0.5"},
    {"adan", "", "beta3=0.5"},
    {"adan", "", "eps=0.1"},
    {"adan", "", "weight_decay=0.1"},
    {"adan", "weight_decay=10", "no_prox=on"},
    {"schedulefree_adamw", "", "lr=0.2"},
    {"schedulefree_adamw", "", "beta1=0.5"},
    {"schedulefree_adamw", "", "beta2=0.5"},
    {"schedulefree_adamw", "", "eps=0.1"},
    {"schedulefree_adamw", "", "weight_decay=0.1"},
    {"schedulefree_adamw", "", "warmup_steps=5"},
    {"schedulefree_adamw", "", "r=1"},
    {"schedulefree_adamw", "warmup_steps=5", "weight_lr_power=1"},
    {"schedulefree_sgd", "", "lr=0.2"},
    {"schedulefree_sgd", "", "momentum=0.5"},
    {"schedulefree_sgd", "", "weight_decay=0.1"},
    {"schedulefree_sgd", "", "warmup_steps=5"},
    {"schedulefree_sgd", "", "r=1"},
    {"schedulefree_sgd", "warmup_steps=5", "weight_lr_power=1"},
    {"adafactor", "", "lr=0.2"},
    {"adafactor", "", "beta2_decay=-0.5"},
    {"adafactor", "", "eps1=0.5"},
    {"adafactor", "", "eps2=10"},
    {"adafactor", "", "d=2"},
    {"adafactor", "", "weight_decay=0.1"},
    {"muon", "", "lr=0.2"},
    {"muon", "", "weight_decay=0.5"},
    {"muon", "", "momentum=0.5"},
    {"muon", "", "nesterov=off"},
    {"muon", "", "ns_steps=3"},
    {"muon", "", "ns_a=3"},
    {"muon", "", "ns_b=-4"},
    {"muon", "", "ns_c=2"},
    {"muon", "", "eps=0.9"},
    {"muon", "", "adjust_lr_fn=match_rms_adamw"},
};

static const char *spec_of(char out[256], const char *name, const char *a, const char *b) {
    snprintf(out, 256, "%s:%s%s%s", name, a, *a && *b ? "," : "", b);
    return out;
}

static void test_every_option_acts(void **state) {
    (void)state;
    for (int c = 0; c < COUNT(CHANGES); c++) {
        char one[256], two[256];
        if (!CHANGES[c].base) continue;
        rig a = rig_new(spec_of(one, CHANGES[c].optimizer, CHANGES[c].base, ""));
        rig b = rig_new(spec_of(two, CHANGES[c].optimizer, CHANGES[c].base, CHANGES[c].change));
        a.tick.lr_mul = b.tick.lr_mul = 0.75; /* a schedule, without which some options agree */
        rig_run(&a, 10), rig_run(&b, 10);
        tn_optim_eval(a.o, &a.tick, 1),
            tn_optim_eval(b.o, &b.tick, 1); /* for averages that only evaluation sees */
        if (same_bits(a.p[0]->w, b.p[0]->w, 15)) fail_msg("%s changes nothing against %s", two, one);
        rig_free(&a), rig_free(&b);
    }
}

static int is_tried(const char *optimizer, const char *option) {
    for (int c = 0; c < COUNT(CHANGES); c++) {
        size_t len = strlen(option);
        if (!strcmp(CHANGES[c].optimizer, optimizer) && !strncmp(CHANGES[c].change, option, len)
            && CHANGES[c].change[len] == '=')
            return 1;
    }
    return 0;
}

/* One bad value of each option of each optimizer, and the message it has to give. */
static void refuse(const char *name, const char *option, const char *value, const char *message) {
    char text[512], what[128];
    snprintf(text, sizeof text, "%.60s:%.60s=%.300s", name, option, value);
    snprintf(what, sizeof what, "optimizer %s: %s", name, option);
    assert_contains(refused(text), what);
    assert_contains(refused(text), message);
}

/* With the range: a number on each side of the name, or one. */
static void refuse_number(const char *name, const char *option, double value) {
    char text[64];
    snprintf(text, sizeof text, "%.17g", value);
    refuse(name, option, text, "out of range; it must be ");
}

/* No decay where there is none: each definition without the option weight_decay. */
static void test_no_decay_option(void **state) {
    (void)state;
    int n, without = 0;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (int d = 0; d < n; d++) {
        char text[128];
        int has = 0;
        for (const tn_opt *o = defs[d]->hp; o->name; o++) has |= !strcmp(o->name, "weight_decay");
        snprintf(text, sizeof text, "%s:weight_decay=0.1", defs[d]->name);
        if (!has) assert_contains(refused(text), "weight_decay");
        without += !has;
    }
    assert_int_equal(without, 3); /* adam, amsgrad, rprop */
}

static void test_every_option_is_checked(void **state) {
    (void)state;
    int n;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (int d = 0; d < n; d++) {
        char text[256];
        assert_ptr_equal(tn_optim_find(defs[d]->name), defs[d]);
        assert_true(defs[d]->summary[0] && defs[d]->source[0]);
        snprintf(text, sizeof text, "%s:zebra=1", defs[d]->name);
        assert_contains(refused(text), "unknown option \"zebra\"");
        for (const tn_opt *o = defs[d]->hp; o->name; o++) {
            if (!is_tried(defs[d]->name, o->name))
                fail_msg("%s: no test for the option %s", defs[d]->name, o->name);
            assert_true(strlen(o->help) > 5);
            if (o->type == TN_INT_OPT) {
                refuse(defs[d]->name, o->name, "1.5", "is not a whole number");
            } else if (o->type != TN_REAL_OPT) {
                refuse(defs[d]->name, o->name, "zebra", "is not possible");
                continue;
            }
            if (o->type == TN_REAL_OPT) {
                refuse(defs[d]->name, o->name, "1x", "is not a number");
                refuse(defs[d]->name, o->name, "nan", "is not a number");
                refuse(defs[d]->name, o->name, "1x2x3", "is not a number"); /* a list */
                if (o->flags & TN_OPEN_MIN) refuse_number(defs[d]->name, o->name, o->min);
                if (o->flags & TN_OPEN_MAX) refuse_number(defs[d]->name, o->name, o->max);
            }
            refuse_number(defs[d]->name, o->name, o->min - 1);
            refuse_number(defs[d]->name, o->name, o->max > 0 ? o->max * 2 : o->max + 1);
            if (!strncmp(o->name, "beta", 4) && strcmp(o->name, "beta2_decay") != 0)
                refuse_number(defs[d]->name, o->name, 1);
        }
    }
    assert_int_equal(n, 22);
    assert_null(tn_optim_find("zebra"));
}

static void test_contradictions(void **state) {
    (void)state;
    assert_contains(refused("adma"), "unknown optimizer \"adma\" (did you mean \"adam\"?)");
    assert_contains(refused("zebra"), "sgd, adagrad, rmsprop, adam, amsgrad, adaml2, adamw");
    const char *msg = refused("adam:lr=1,weight_decay=0.1");
    assert_contains(msg, "adam has no option weight_decay");
    assert_contains(msg, "adaml2, adamw");
    assert_contains(refused("amsgrad:weight_decay=0.1"), "adaml2, adamw");
    assert_contains(refused("adaml2:decay=coupled"), "adamw");
    assert_contains(refused("amsgrad:amsgrad=off"), "use the optimizer adam");
    assert_contains(refused("sgd:dampening=0.5"), "dampening=0.5 means nothing without momentum");
    assert_contains(refused("sgd:nesterov=on"), "needs momentum");
    assert_contains(refused("sgd:nesterov=on,momentum=0.9,dampening=0.1"), "dampening=0");
    assert_contains(refused("adamw:decay=independent,weight_decay=1.5"), "0 <= weight_decay <= 1");
    assert_contains(refused("adamw:decay=independant"), "did you mean \"independent\"");
    assert_contains(refused("adam:btea1=0.5"), "did you mean \"beta1\"");
    assert_contains(refused("adamw:lr=1e-3+emaa:decay=0.999"), "unknown wrapper \"emaa\"");
    assert_contains(refused("adamw+lokahead"), "did you mean \"lookahead\"");
    assert_contains(refused("adamw+"), "unknown wrapper \"\"");
    assert_contains(refused("adamw:decay=corected"), "did you mean \"corrected\"");
    assert_contains(refused("rprop:lr=100"), "step_size_min=1e-06 <= lr <= step_size_max=50");
    assert_contains(refused("rprop:step_size_min=2,step_size_max=1"),
                    "step_size_min=2 <= lr <= step_size_max=1");
    assert_contains(refused("sgdw:weight_decay=1.5"), "it must be 0 <= weight_decay <= 1");
    assert_contains(refused("muon:ns_steps=100"), "1 <= ns_steps <= 99");
    assert_contains(refused("schedulefree_adamw:beta1=0"), "0 < beta1 < 1");
    assert_contains(refused("adam:lr=0.1,lr=0.2"), "lr is given twice");
    rig r = rig_new("adam:lr=1e+0,eps=1e-8"); /* a plus inside a number */
    rig_free(&r);
    r = rig_new("adamw:decay=independent"); /* a decay rule with the default lambda */
    rig_free(&r);
}

/* What the header of a log shows is a spec that gives the same optimizer. */
static void test_text(void **state) {
    (void)state;
    const char *specs[] = {"sgd:momentum=0.9,nesterov=on",
                           "sgd",
                           "adagrad:eps=1e-5",
                           "rmsprop:centered=on",
                           "adam",
                           "amsgrad",
                           "adaml2:lr=0.0123",
                           "lion:beta1=0.5",
                           "switch:at=3",
                           "adafactor:d=2",
                           "muon:ns_steps=3,adjust_lr_fn=match_rms_adamw",
                           "schedulefree_sgd:warmup_steps=3",
                           "adamw:decay=normalized,lr=3e-3"};
    char text[512], again[512];
    for (int c = 0; c < COUNT(specs); c++) {
        rig a = rig_new(specs[c]);
        int length = tn_optim_text(a.o, text, sizeof text);
        assert_int_equal(length, strlen(text));
        rig b = rig_new(text);
        tn_optim_text(b.o, again, sizeof again);
        assert_string_equal(text, again);
        rig_run(&a, 5), rig_run(&b, 5);
        for (int i = 0; i < 2; i++) assert_true(same_bits(a.p[i]->w, b.p[i]->w, a.p[i]->len));
        rig_free(&a), rig_free(&b);
    }
    rig r = rig_new("adamw:lr=0.25");
    tn_optim_text(r.o, text, sizeof text);
    assert_string_equal(
        text, "adamw:lr=0.25,beta1=0.9,beta2=0.999,eps=1e-8,amsgrad=off,weight_decay=0.01,decay=coupled,"
              "cautious=off");
    assert_int_equal(tn_optim_text(r.o, text, 20), -1);
    rig_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_option_acts),
        cmocka_unit_test(test_every_option_is_checked),
        cmocka_unit_test(test_no_decay_option),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

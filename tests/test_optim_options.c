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
        rig_run(&a, 10), rig_run(&b, 10);
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
            if (o->type != TN_REAL_OPT) {
                refuse(defs[d]->name, o->name, "zebra", "is not possible");
                continue;
            }
            refuse(defs[d]->name, o->name, "1x", "is not a number");
            refuse(defs[d]->name, o->name, "nan", "is not a number");
            snprintf(text, sizeof text, "%g", o->min - 1);
            refuse(defs[d]->name, o->name, text, "out of range; it must be ");
            snprintf(text, sizeof text, "%g", o->max * 2);
            refuse(defs[d]->name, o->name, text, "out of range; it must be ");
        }
    }
    assert_int_equal(n, 7);
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
        text, "adamw:lr=0.25,beta1=0.9,beta2=0.999,eps=1e-8,amsgrad=off,weight_decay=0.01,decay=coupled");
    assert_int_equal(tn_optim_text(r.o, text, 20), -1);
    rig_free(&r);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_option_acts),
        cmocka_unit_test(test_every_option_is_checked),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Signum, three times: as a built-in one that was added by one file and one line (added/signum.c, tests/CMakeLists.txt), as
 * a plug-in (apps/examples/plugin/signum.c), and in double here.
 */
#include "optim_rig.h"
#include <math.h>
#include <string.h>

enum { STEPS = 12 };

/* In double, from the same gradients. */
static void reference(rig *r, double lr, double beta, double lambda, double w[22]) {
    double m[22] = {0};
    for (int i = 0; i < 22; i++) w[i] = (double)r->p[i >= 15]->w[i % 15];
    for (int s = 0; s < STEPS; s++) {
        rig_random_grad(r, (uint64_t)s);
        for (int i = 0; i < 22; i++) {
            m[i] = beta * m[i] + (1 - beta) * (double)r->p[i >= 15]->g[i % 15];
            w[i] -= lr * (i < 15 ? lambda : 0) * w[i];
            w[i] -= m[i] > 0 ? lr : m[i] < 0 ? -lr : 0;
        }
    }
}

static void test_three_times(void **state) {
    (void)state;
    double want[22];
    rig added = rig_new("signum:lr=0.01,beta=0.8,weight_decay=0.5"),
        loaded = rig_new(PLUGIN ":lr=0.01,beta=0.8,weight_decay=0.5");
    assert_string_equal(tn_optim_definition(loaded.o)->name, "signum");
    reference(&added, 0.01, 0.8, 0.5, want);
    rig_run(&added, STEPS);
    rig_run(&loaded, STEPS);
    for (int i = 0; i < 2; i++) {
        assert_true(same_bits(added.p[i]->w, loaded.p[i]->w, added.p[i]->len));
        assert_true(same_bits(tn_optim_slot(added.o, i, 0, NULL, NULL),
                              tn_optim_slot(loaded.o, i, 0, NULL, NULL), added.p[i]->len));
    }
    for (int i = 0; i < 22; i++) assert_true(fabs((double)added.p[i >= 15]->w[i % 15] - want[i]) < 1e-6);
    rig_free(&added);
    rig_free(&loaded);
}

/* It is in the list with the others, and so are their relatives in messages. */
static void test_listed(void **state) {
    (void)state;
    int n, found = 0, wrappers;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (int i = 0; i < n; i++) found += !strcmp(defs[i]->name, "signum");
    assert_true(found == 1 && n > 7);
    assert_non_null(tn_optim_find("signum"));
    assert_non_null(tn_optim_find("adamw"));
    tn_optim_wrappers(&wrappers);
    assert_true(wrappers >= 3);
    rig r = rig_new("signum:lr=0.1+ema:decay=0.5+lookahead:k=2");
    rig_run(&r, STEPS);
    rig_free(&r);
}

/* What a specification of a plug-in says is taken back; a wrapper goes behind it, and it stands in a group. */
static void test_text(void **state) {
    (void)state;
    char text[4096], again[4096];
    tn_err e = {""};
    rig r = rig_new(PLUGIN "+lookahead:k=3"), s = rig_new("sgd");
    assert_true(tn_optim_text(r.o, text, sizeof text) > 0);
    assert_string_equal(text, PLUGIN ":lr=0.001,beta=0.9,weight_decay=0+lookahead:k=3,alpha=0.5");
    assert_string_equal(tn_optim_file(r.o, 0), PLUGIN);
    assert_null(tn_optim_file(r.o, 1));
    tn_optim_free(s.o);
    assert_non_null(s.o = tn_optim_new(s.params, text, &e));
    tn_optim_text(s.o, again, sizeof again);
    assert_string_equal(text, again);
    tn_optim_free(s.o);
    assert_non_null(s.o = tn_optim_new(s.params, "adam", &e));
    assert_null(tn_optim_file(s.o, 0));
    if (tn_optim_group(s.o, "*.bias", PLUGIN ":lr=0.5", &e)) fail_msg("%s", e.msg);
    assert_string_equal(tn_optim_file(s.o, 0), PLUGIN);
    assert_string_equal(tn_optim_definition_of(s.o, s.p[1])->name, "signum");
    assert_string_equal(tn_optim_definition_of(s.o, s.p[0])->name, "adam");
    assert_null(tn_optim_new(s.params, PLUGIN ":lr=-1", &e));
    assert_contains(e.msg, "optimizer signum: lr=-1 is out of range; it must be 0 <= lr");
    assert_null(tn_optim_new(s.params, "adam+" PLUGIN, &e));
    assert_contains(e.msg, "signum is an optimizer, no wrapper");
    rig_free(&r);
    rig_free(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_three_times), cmocka_unit_test(test_listed),
                                       cmocka_unit_test(test_text)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

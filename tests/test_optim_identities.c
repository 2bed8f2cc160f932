/* SPDX-License-Identifier: MIT */
/* Oddness, permutation, independence of tensors, reset and checkpoint of every built-in optimizer: bit for bit. */
#include "identity_rig.h"

/* ---- oddness, permutation, two tensors, reset: of every built-in optimizer, with its defaults and others ---- */

static const char *const MORE[] = {
    "sgd:momentum=0.9,nesterov=on,weight_decay=0.1",
    "sgd:momentum=0.9,dampening=0.5",
    "sgd:weight_decay=0.1,decay=decoupled",
    "adagrad:weight_decay=0.1,lr_decay=0.1",
    "rmsprop:centered=on,momentum=0.9,weight_decay=0.1",
    "adaml2:weight_decay=0.1,amsgrad=on",
    "adamw:weight_decay=0.1,decay=independent,amsgrad=on",
};

static void of_each(const setting *s, void (*check)(const setting *, const char *, const tn_optim_def *)) {
    int n = 0;
    for (; s->level->optims[n]; n++)
        if (!s->level->optims[n]->eval_weights) check(s, s->level->optims[n]->name, s->level->optims[n]);
    assert_true(n >= 7);
    for (int i = 0; i < COUNT(MORE); i++) check(s, MORE[i], definition(s, MORE[i], strcspn(MORE[i], ":")));
}

static void negate(rig *r) {
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; j < r->p[i]->len; j++) r->p[i]->w[j] = -r->p[i]->w[j];
}
static void odd_once(const setting *s, const char *spec, const tn_optim_def *d) {
    (void)d;
    rig a = rig_at(s, spec), b = rig_at(s, spec);
    negate(&b);
    for (int t = 0; t < 12; t++) fill(&a, 1), fill(&b, -1), step(&a), step(&b);
    negate(&b);
    same(s, "oddness", spec, &a, &b);
    drop(&a), drop(&b);
}
static void odd(const setting *s) {
    of_each(s, odd_once);
}
static void test_odd(void **state) {
    (void)state;
    everywhere(odd, 1);
}

static int elementwise(const tn_optim_def *d) {
    return d->scope == TN_ELEMENT && !d->reduce;
}

static void turn(tn_real *x, size_t n) {
    for (size_t i = 0; i < n / 2; i++) {
        tn_real y = x[i];
        x[i] = x[n - 1 - i], x[n - 1 - i] = y;
    }
}
/* Weights and gradients from the last to the first, and the tensors in the other order. */
static void permuted_once(const setting *s, const char *spec, const tn_optim_def *d) {
    if (!elementwise(d)) return;
    rig a = rig_at(s, spec), b = rig_of(s, spec, 3, 1);
    for (int i = 0; i < 2; i++) turn(b.p[i]->w, b.p[i]->len);
    for (int t = 0; t < 12; t++) {
        fill(&a, 1), fill(&b, 1);
        for (int i = 0; i < 2; i++) turn(b.p[i]->g, b.p[i]->len);
        step(&a), step(&b);
    }
    for (int i = 0; i < 2; i++) turn(b.p[i]->w, b.p[i]->len);
    same(s, "permutation", spec, &a, &b);
    drop(&a), drop(&b);
}
static void permuted(const setting *s) {
    of_each(s, permuted_once);
}
static void test_permutation(void **state) {
    (void)state;
    everywhere(permuted, 1);
}

/* Two tensors of different size, together and each alone. */
static void alone_once(const setting *s, const char *spec, const tn_optim_def *d) {
    if (!elementwise(d)) return;
    rig both = rig_at(s, spec);
    walk(&both, 12);
    for (int i = 0; i < 2; i++) {
        rig one = rig_of(s, spec, 1 << i, 0);
        walk(&one, 12);
        same(s, "two tensors", spec, &both, &one);
        drop(&one);
    }
    drop(&both);
}
static void alone(const setting *s) {
    of_each(s, alone_once);
}
static void test_two_tensors(void **state) {
    (void)state;
    everywhere(alone, 1);
}

static void reset_once(const setting *s, const char *spec, const tn_optim_def *d) {
    (void)d;
    rig a = rig_at(s, spec), b = rig_at(s, spec);
    walk(&b, 9);
    for (int i = 0; i < 2; i++) memcpy(b.p[i]->w, a.p[i]->w, a.p[i]->len * sizeof(tn_real));
    tn_params_touch(b.params);
    tn_optim_reset(b.o), b.tick.t = 0;
    walk(&a, 12), walk(&b, 12);
    same(s, "reset", spec, &a, &b);
    drop(&a), drop(&b);
}
static void reset(const setting *s) {
    of_each(s, reset_once);
}
static void test_reset(void **state) {
    (void)state;
    everywhere(reset, 1);
}

/* Half of the way, a file, the rest: the bits of the whole way. */
static void restored_once(const setting *s, const char *spec, const tn_optim_def *d) {
    char path[64];
    tn_err e = {""};
    (void)d;
    snprintf(path, sizeof path, "/tmp/tern_identity_%ld.safetensors", (long)getpid());
    rig a = rig_at(s, spec), b = rig_at(s, spec);
    walk(&a, 9);
    if (tn_save_state(path, a.params, a.o, "{}", &e)) fail_msg("%s: %s", spec, e.msg);
    char *meta = NULL;
    if (tn_load_state(path, b.params, b.o, &meta, &e)) fail_msg("%s: %s", spec, e.msg);
    free(meta), remove(path);
    assert_int_equal(tn_optim_steps(b.o), 9);
    b.tick.t = 9;
    walk(&a, 12), walk(&b, 12);
    same(s, "checkpoint", spec, &a, &b);
    drop(&a), drop(&b);
}
static void restored(const setting *s) {
    of_each(s, restored_once);
}
static void test_checkpoint(void **state) {
    (void)state;
    everywhere(restored, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_odd),   cmocka_unit_test(test_permutation), cmocka_unit_test(test_two_tensors),
        cmocka_unit_test(test_reset), cmocka_unit_test(test_checkpoint),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/*
 * Each built-in optimizer that works element by element, at each vector level: the bits of the plain level, for
 * lengths with every remainder, ordinary and extreme values; the same bits for any number of threads; and no state that
 * stays subnormal.
 */
#include "kernels.h"
#include "support.h"
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

static const char *const OPTIONS[] = {
    "sgd:",
    "sgd:weight_decay=0.1",
    "sgd:weight_decay=0.1,decay=decoupled",
    "sgd:momentum=0.9,dampening=0.5,weight_decay=0.1",
    "sgd:momentum=0.9,nesterov=on,weight_decay=0.1,decay=decoupled",
    "adagrad:weight_decay=0.1,lr_decay=0.1",
    "adagrad:eps=0",
    "rmsprop:weight_decay=0.1",
    "rmsprop:momentum=0.9",
    "rmsprop:centered=on,eps=1e-40",
    "rmsprop:centered=on,momentum=0.9",
    "adam:",
    "adam:eps=0",
    "amsgrad:",
    "adaml2:weight_decay=0.1,amsgrad=on",
    "adaml2:weight_decay=0.1",
    "adamw:weight_decay=0.1",
    "adamw:weight_decay=0.1,decay=independent,amsgrad=on",
    "adamw:weight_decay=0.1,cautious=on",
    "adamw:weight_decay=0.1,decay=corrected,cautious=on,amsgrad=on",
    "lion:weight_decay=0.1",
    "adamax:weight_decay=0.1,eps=0",
    "nadam:weight_decay=0.1",
    "nadam:weight_decay=0.1,decoupled_weight_decay=on",
    "radam:weight_decay=0.1,beta2=0.9",
    "radam:weight_decay=0.1,decoupled_weight_decay=on",
    "adadelta:weight_decay=0.1",
    "rprop:",
    "asgd:weight_decay=0.1,lambd=0.1",
    "asgd:t0=1",
    "sgdw:weight_decay=0.1",
    "switch:at=2,weight_decay=0.1",
    "switch:at=9",
    "lamb:weight_decay=0.1",
    "adan:weight_decay=0.1",
    "adan:weight_decay=0.1,no_prox=on",
    "schedulefree_adamw:weight_decay=0.1,warmup_steps=2",
    "schedulefree_sgd:weight_decay=0.1",
    "adafactor:weight_decay=0.1",
};
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))
enum { STEPS = 4 };

static uint64_t state;
static double uniform(void) { /* -1 ... 1 */
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int64_t)(state >> 11) / 4503599627370496.0 - 1;
}

/* Of ordinary size, or with extremes of all kinds between. */
static tn_real value(int extreme) {
    static const double odd[] = {0, -0.0, 1e-44, -1e-40, 1e-30, 1e30, -3e38, 1e-19, INFINITY, NAN};
    double u = uniform();
    if (extreme && uniform() < 0) return (tn_real)odd[(size_t)((uniform() + 1) * 5) % 10];
    return (tn_real)(u * exp2(extreme ? 40 * uniform() : uniform()));
}

typedef struct {
    tn_params *params;
    tn_param *p[2];
    tn_optim *o;
} rig;

/* len weights that decay, 5 that do not. */
static rig rig_at(const tn_kernels_t *level, const char *spec, int len) {
    tn_err e = {.msg = ""};
    rig r = {.params = tn_params_new()};
    const char *options = strchr(spec, ':') + 1;
    r.p[0] = tn_param_add(r.params, "p", "weight", 0, tn_init_const(0), 1, &len);
    r.p[1] = tn_param_add(r.params, "p", "bias", TN_NO_DECAY, tn_init_const(0), 1, (int[]){5});
    if (tn_params_seal(r.params, 1, &e)) fail_msg("%s", e.msg);
    for (int i = 0; level->optims[i]; i++) {
        const tn_optim_def *d = level->optims[i];
        if (strlen(d->name) == (size_t)(options - 1 - spec) && !strncmp(d->name, spec, strlen(d->name)))
            r.o = tn_optim_new_def(r.params, d, options, &e);
    }
    if (!r.o) fail_msg("%s: %s", spec, e.msg);
    return r;
}

static void rig_free(rig *r) {
    tn_optim_free(r->o);
    tn_params_free(r->params);
}

static void run(rig *r, int extreme) {
    state = 11;
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; j < r->p[i]->len; j++) r->p[i]->w[j] = value(extreme);
    for (int s = 1; s <= STEPS; s++) {
        tn_tick k = tn_tick_at(s, STEPS, NULL, NULL);
        for (int i = 0; i < 2; i++)
            for (size_t j = 0; j < r->p[i]->len; j++) r->p[i]->g[j] = value(extreme);
        tn_optim_step(r->o, &k);
    }
}

static void same(const char *what, const char *level, const tn_real *got, const tn_real *want, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (memcmp(&got[i], &want[i], sizeof *got) != 0 && !(isnan(got[i]) && isnan(want[i])))
            fail_msg("%s, %s: %zu of %zu is %.9g, not %.9g", what, level, i, n, (double)got[i],
                     (double)want[i]);
}

static void same_rigs(const char *what, const char *level, rig *got, rig *want) {
    for (int i = 0; i < 2; i++) {
        const char *name;
        size_t len;
        tn_real *x;
        same(what, level, got->p[i]->w, want->p[i]->w, got->p[i]->len);
        for (int k = 0; (x = tn_optim_slot(got->o, i, k, &name, &len)); k++)
            same(what, name, x, tn_optim_slot(want->o, i, k, NULL, NULL), len);
    }
}

static void test_levels(void **unused) {
    (void)unused;
    const char *names[] = {"avx2", "avx512", "neon"};
    const tn_kernels_t *plain = tn_kernels_level("plain");
    for (int c = 0; c < COUNT(OPTIONS); c++)
        for (int len = 1; len <= 80; len += len < 40 ? 1 : 40)
            for (int extreme = 0; extreme < 2; extreme++) {
                rig want = rig_at(plain, OPTIONS[c], len);
                run(&want, extreme);
                for (int l = 0; l < COUNT(names); l++) {
                    const tn_kernels_t *level = tn_kernels_level(names[l]);
                    if (!level) continue;
                    rig got = rig_at(level, OPTIONS[c], len);
                    run(&got, extreme);
                    same_rigs(OPTIONS[c], names[l], &got, &want);
                    rig_free(&got);
                }
                rig_free(&want);
            }
}

static void test_threads(void **unused) {
    (void)unused;
    const tn_kernels_t *level = tn_kernels_get(NULL);
    for (int c = 0; c < COUNT(OPTIONS); c++) {
        enum { LEN = 70001 }; /* many chunks */
        rig one = rig_at(level, OPTIONS[c], LEN), three = rig_at(level, OPTIONS[c], LEN);
        tn_set_threads(1);
        run(&one, 0);
        tn_set_threads(3);
        run(&three, 0);
        tn_set_threads(0);
        same_rigs(OPTIONS[c], "3 threads", &three, &one);
        rig_free(&one), rig_free(&three);
    }
}

/* The next one towards 0 of a state that decays away is 0, and stays it: one step with subnormal numbers at most. */
static void test_subnormal_state(void **unused) {
    (void)unused;
    const tn_real normal = sizeof(tn_real) == 4 ? (tn_real)0x1p-126 : (tn_real)0x1p-1022;
    const tn_kernels_t *level = tn_kernels_get(NULL);
    for (int c = 0; c < COUNT(OPTIONS); c++) {
        enum { LEN = 37 };
        if (strstr(OPTIONS[c], "switch:at=2")) continue; /* what Adam left is not read after it */
        rig r = rig_at(level, OPTIONS[c], LEN);
        run(&r, 0);
        tn_real *x;
        const char *slot;
        for (int k = 0; (x = tn_optim_slot(r.o, 0, k, NULL, NULL)); k++)
            for (int i = 0; i < LEN; i++) x[i] = normal / (tn_real)(2 << i % 8);
        for (int i = 0; i < LEN; i++) r.p[0]->g[i] = 0, r.p[0]->w[i] = 0;
        tn_tick t = tn_tick_at(STEPS + 1, STEPS + 1, NULL, NULL);
        tn_optim_step(r.o, &t);
        for (int k = 0; (x = tn_optim_slot(r.o, 0, k, &slot, NULL)); k++)
            for (int i = 0; i < LEN; i++)
                if (x[i] != 0 && strcmp(slot, "step_size") != 0) /* that has a least value */
                    fail_msg("%s: slot %d holds %g", OPTIONS[c], k, (double)x[i]);
        rig_free(&r);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_levels),
        cmocka_unit_test(test_threads),
        cmocka_unit_test(test_subnormal_state),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

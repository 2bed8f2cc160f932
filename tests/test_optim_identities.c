/* SPDX-License-Identifier: MIT */
/*
 * What an optimizer's steps must satisfy whatever the numbers are; bit for bit unless a tolerance is given. Each at
 * every vector level and with 1 to 4 threads, on tensors that are one chunk, and on some that are many.
 */
#include "kernels.h"
#include "support.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef TN_DOUBLE
static const double EPS = 2.3e-16;
#else
static const double EPS = 1.2e-7;
#endif
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- at which level, with how many threads, how many weights ---- */

typedef struct {
    const tn_kernels_t *level;
    const char *name;
    int threads, n[2]; /* elements of the weight and of the bias */
} setting;

/* Two of the rigs that an identity compares differ in their options, in what they are fed, or in their tensors. */
typedef struct {
    tn_params *params;
    tn_param *p[2];
    tn_optim *o;
    tn_tick tick; /* t: steps done */
} rig;

static const tn_optim_def *definition(const setting *s, const char *name, size_t len) {
    for (int i = 0; s->level->optims[i]; i++)
        if (strlen(s->level->optims[i]->name) == len && strncmp(s->level->optims[i]->name, name, len) == 0)
            return s->level->optims[i];
    return NULL;
}

/* which: bit i for tensor i; swapped: the bias first. */
static rig rig_of(const setting *s, const char *spec, int which, int swapped) {
    static const char *const names[] = {"weight", "bias"};
    const char *colon = strchr(spec, ':');
    const tn_optim_def *d = definition(s, spec, colon ? (size_t)(colon - spec) : strlen(spec));
    rig r = {
        .params = tn_params_new(),
        .tick = {.total = 1000, .steps_per_epoch = 10, .batch = 32, .lr_mul = 1, .wd_mul = 1, .seed = 1}};
    tn_err e = {""};
    if (!d) fail_msg("%s is not built in", spec);
    for (int k = 0; k < 2; k++) {
        const int i = swapped ? 1 - k : k;
        if (which >> i & 1)
            r.p[i] = tn_param_add(r.params, "p", names[i], i ? TN_NO_DECAY : 0, tn_init_const(0), 2,
                                  (int[]){i ? 1 : s->n[i] / 10, i ? s->n[i] : 10});
    }
    if (tn_params_seal(r.params, 1, &e) || !(r.o = tn_optim_new_def(r.params, d, colon ? colon + 1 : "", &e)))
        fail_msg("%s: %s", spec, e.msg);
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; r.p[i] && j < r.p[i]->len; j++)
            r.p[i]->w[j] = (tn_real)(((double)((j * 7919 + (size_t)i * 13) % 1021) - 510.5) / 512);
    return r;
}
static rig rig_at(const setting *s, const char *spec) {
    return rig_of(s, spec, 3, 0);
}
static void drop(rig *r) {
    tn_optim_free(r->o);
    tn_params_free(r->params);
}
static void step(rig *r) {
    r->tick.t++;
    tn_optim_step(r->o, &r->tick);
}

/* Element j of tensor i at step t: in (-1, 1), never 0, exact in float, the same for whoever asks. */
static double gradient(long t, int i, size_t j) {
    uint64_t z = (uint64_t)t * 1000003u + (uint64_t)i * 500009u + j + 1;
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (2 * (double)((z ^ z >> 31) >> 50) - 16383) / 16384;
}
static void fill(rig *r, double scale) {
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; r->p[i] && j < r->p[i]->len; j++)
            r->p[i]->g[j] = (tn_real)(scale * gradient(r->tick.t, i, j));
}
static void walk(rig *r, int steps) {
    for (int s = 0; s < steps; s++) fill(r, 1), step(r);
}
static void constant(rig *r, double g) {
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; j < r->p[i]->len; j++) r->p[i]->g[j] = (tn_real)g;
}

static void same(const setting *s, const char *what, const char *spec, const rig *a, const rig *b) {
    for (int i = 0; i < 2; i++) {
        if (!a->p[i] || !b->p[i]) continue;
        if (!same_bits(a->p[i]->w, b->p[i]->w, a->p[i]->len))
            fail_msg("%s, %s, level %s, %d threads, step %ld: %s differs", what, spec, s->name, s->threads,
                     a->tick.t, a->p[i]->name);
    }
}

static void near_to(const setting *s, const char *what, double got, double want, double allowed) {
    if (!(fabs(got - want) <= allowed))
        fail_msg("%s, level %s, %d threads: %.9g, not %.9g", what, s->name, s->threads, got, want);
}

/* Runs the check in every setting; with few: on the small tensors, and on the large ones with 4 threads alone. */
static void everywhere(void (*check)(const setting *), int few) {
    static const char *const names[] = {"plain", "avx2", "avx512", "neon"};
    int levels = 0;
    for (int l = 0; l < COUNT(names); l++) {
        setting s = {.level = tn_kernels_level(names[l]), .name = names[l]};
        if (!s.level) continue;
        levels++;
        for (s.threads = 1; s.threads <= 4; s.threads++)
            for (int large = 0; large < 2; large++) {
                if (large && few && s.threads < 4) continue;
                s.n[0] = large ? 18000 : 40, s.n[1] = large ? 4103 : 7;
                tn_set_threads(s.threads);
                check(&s);
            }
    }
    tn_set_threads(0);
    assert_true(levels >= 1);
}

/* ---- F1: a factor on the loss, c = 8 ---- */

static void scale_once(const setting *s, const char *one, const char *eight) {
    rig a = rig_at(s, one), b = rig_at(s, eight);
    for (int t = 0; t < 30; t++) {
        fill(&a, 1), fill(&b, 8);
        step(&a), step(&b);
        same(s, "gradient scale", one, &a, &b);
    }
    drop(&a), drop(&b);
}

static void scale(const setting *s) { /* eps and lambda are powers of two: 8 times them is exact */
#define E1 "eps=7.450580596923828125e-09"
#define E8 "eps=5.9604644775390625e-08"
    scale_once(s, "adam:" E1, "adam:" E8);
    scale_once(s, "amsgrad:" E1, "amsgrad:" E8);
    scale_once(s, "adaml2:weight_decay=0.125," E1, "adaml2:weight_decay=1," E8);
    scale_once(s, "adaml2:amsgrad=on,weight_decay=0.125," E1, "adaml2:amsgrad=on,weight_decay=1," E8);
    scale_once(s, "adamw:weight_decay=0.125," E1, "adamw:weight_decay=0.125," E8);
    scale_once(s, "adamw:decay=independent,weight_decay=0.125," E1,
               "adamw:decay=independent,weight_decay=0.125," E8);
    scale_once(s, "rmsprop:weight_decay=0.125," E1, "rmsprop:weight_decay=1," E8);
    scale_once(s, "adagrad:weight_decay=0.125," E1, "adagrad:weight_decay=1," E8);
}
static void test_gradient_scale(void **state) {
    (void)state;
    everywhere(scale, 0);
}

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

/* ---- lambda = 0 over 1,000 steps ---- */

static void no_decay(const setting *s) {
    const char *plain[] = {"adaml2:weight_decay=0", "adamw:weight_decay=0",
                           "adamw:weight_decay=0,decay=independent", "adamw:weight_decay=0,decay=normalized"};
    const char *ams[] = {"adam:amsgrad=on", "adaml2:weight_decay=0,amsgrad=on",
                         "adamw:weight_decay=0,amsgrad=on"};
    for (int which = 0; which < 2; which++) {
        rig a = rig_at(s, which ? "amsgrad" : "adam");
        walk(&a, 1000);
        for (int i = 0; i < (which ? COUNT(ams) : COUNT(plain)); i++) {
            const char *spec = which ? ams[i] : plain[i];
            rig b = rig_at(s, spec);
            walk(&b, 1000);
            same(s, "lambda = 0", spec, &a, &b);
            drop(&b);
        }
        drop(&a);
    }
    rig a = rig_at(s, "adam"), b = rig_at(s, "adamw:weight_decay=1e-2"), c = rig_at(s, "amsgrad");
    walk(&a, 100), walk(&b, 100), walk(&c, 100); /* the comparison can fail */
    assert_false(same_bits(a.p[0]->w, b.p[0]->w, a.p[0]->len));
    assert_true(same_bits(a.p[1]->w, b.p[1]->w, a.p[1]->len)); /* the bias does not decay */
    assert_false(same_bits(a.p[0]->w, c.p[0]->w, a.p[0]->len));
    drop(&a), drop(&b), drop(&c);
}
static void test_no_decay(void **state) {
    (void)state;
    everywhere(no_decay, 1);
}

/* ---- SGD: L2 is decay, without momentum ---- */

static void sgd_l2(const setting *s) {
    for (int momentum = 0; momentum < 2; momentum++) {
        rig a =
            rig_at(s, momentum ? "sgd:lr=0.1,weight_decay=0.3,momentum=0.9" : "sgd:lr=0.1,weight_decay=0.3");
        rig b = rig_at(s, momentum ? "sgd:lr=0.1,weight_decay=0.3,momentum=0.9,decay=decoupled"
                                   : "sgd:lr=0.1,weight_decay=0.3,decay=decoupled");
        double worst = 0;
        for (int t = 0; t < 30; t++) {
            a.tick.lr_mul = b.tick.lr_mul = 1.0 / (1 + t % 3);
            walk(&a, 1), walk(&b, 1);
            for (size_t j = 0; j < a.p[0]->len; j++)
                worst = fmax(worst, fabs((double)a.p[0]->w[j] - (double)b.p[0]->w[j]));
            same(s, "sgd's L2 on the bias", "sgd", &(rig){.p = {NULL, a.p[1]}, .tick = a.tick}, &b);
        }
        if (momentum ? !(worst > 0.01) : !(worst < 40 * EPS))
            fail_msg("sgd, momentum %d, level %s: L2 and decay differ by %g", momentum, s->name, worst);
        drop(&a), drop(&b);
    }
}
static void test_sgd_l2(void **state) {
    (void)state;
    everywhere(sgd_l2, 0);
}

/* ---- closed forms ---- */

/* A coordinate without gradient, among others with one. */
static void null_coordinate(const setting *s) {
    const char *specs[] = {"adam:lr=0.01",
                           "amsgrad:lr=0.01",
                           "adamw:lr=0.01,weight_decay=0.1",
                           "adaml2:lr=0.01,weight_decay=0.1",
                           "rmsprop:lr=0.01",
                           "sgd:lr=0.01,momentum=0.9"};
    enum { STEPS = 40, AT = 13 };
    for (int c = 0; c < COUNT(specs); c++) {
        rig r = rig_at(s, specs[c]);
        r.p[0]->w[AT] = 1;
        for (int t = 0; t < STEPS; t++) {
            fill(&r, 1);
            r.p[0]->g[AT] = 0;
            step(&r);
        }
        const double w = (double)r.p[0]->w[AT];
        if (c == 2)
            near_to(s, specs[c], w, pow(1 - 0.01 * 0.1, STEPS), STEPS * EPS);
        else if (c
                 == 3) /* eta a step whatever lambda is, while the moments lag behind the shrinking weight */
            near_to(s, specs[c], 1 - w, 0.01 * STEPS, 0.1 * 0.01 * STEPS);
        else if (w < 1 || w > 1)
            fail_msg("%s, level %s: moved to %.9g without a gradient", specs[c], s->name, w);
        assert_true(r.p[0]->w[AT + 1] != (tn_real)(((double)((AT + 1) * 7919 % 1021) - 510.5) / 512));
        drop(&r);
    }
}
static void test_null_coordinate(void **state) {
    (void)state;
    everywhere(null_coordinate, 0);
}

/* A constant gradient, of any size: each step is eta. */
static void constant_gradient(const setting *s) {
    const double sizes[] = {1e-6, 0.3, -1000};
    const char *specs[] = {"adam:lr=0.015625,eps=0", "adamw:lr=0.015625,eps=0,weight_decay=0",
                           "amsgrad:lr=0.015625,eps=0"};
    for (int c = 0; c < COUNT(specs); c++)
        for (int k = 0; k < COUNT(sizes); k++) {
            rig r = rig_at(s, specs[c]);
            for (int t = 1; t <= 64; t++) {
                const double before = (double)r.p[0]->w[5], other = (double)r.p[1]->w[3];
                constant(&r, sizes[k]);
                step(&r);
                const double eta = sizes[k] > 0 ? 0.015625 : -0.015625;
                near_to(s, specs[c], before - (double)r.p[0]->w[5], eta,
                        60 * EPS * 0.015625 + 2 * EPS * fabs(before));
                near_to(s, specs[c], other - (double)r.p[1]->w[3], eta,
                        60 * EPS * 0.015625 + 2 * EPS * fabs(other));
            }
            drop(&r);
        }
}
static void test_constant_gradient(void **state) {
    (void)state;
    everywhere(constant_gradient, 0);
}

/* -eta g / (|g| + eps) - eta lambda w. */
static void first(const setting *s) {
    const struct {
        const char *spec;
        double lambda;
    } cases[] = {{"adam:lr=0.25,eps=1e-3", 0},
                 {"amsgrad:lr=0.25,eps=1e-3", 0},
                 {"adamw:lr=0.25,eps=1e-3,weight_decay=0.5", 0.5}};
    for (int c = 0; c < COUNT(cases); c++) {
        rig r = rig_at(s, cases[c].spec), old = rig_at(s, cases[c].spec);
        fill(&r, 1);
        step(&r);
        for (int i = 0; i < 2; i++)
            for (size_t j = 0; j < r.p[i]->len; j++) {
                const double w = (double)old.p[i]->w[j], g = gradient(0, i, j);
                near_to(s, cases[c].spec, (double)r.p[i]->w[j],
                        w - 0.25 * g / (fabs(g) + 1e-3) - 0.25 * (i ? 0 : cases[c].lambda) * w, 6 * EPS);
            }
        drop(&r), drop(&old);
    }
}
static void test_first_step(void **state) {
    (void)state;
    everywhere(first, 0);
}

/* F7: one gradient after a silence moves by eta (1 - b1) / sqrt(1 - b2), of whatever size it is; no step is longer. */
static void silence(const setting *s) {
    const struct {
        const char *spec;
        double b1, b2;
        int silent;
    } cases[] = {{"adam:lr=0.5,eps=0", 0.9, 0.999, 60},
                 {"adamw:lr=0.5,eps=0,weight_decay=0,beta1=0.5,beta2=0.9", 0.5, 0.9, 400}};
    for (int c = 0; c < COUNT(cases); c++)
        for (int large = 0; large < 2; large++) {
            rig r = rig_at(s, cases[c].spec);
            for (int i = 0; i < 2; i++) r.p[i]->w[2] = 0;
            for (int t = 0; t < cases[c].silent;
                 t++) { /* a gradient of 0 over a root of 0 is not asked for */
                constant(&r, 1);
                for (int i = 0; i < 2; i++) r.p[i]->g[2] = 0;
                tn_real w[2] = {r.p[0]->w[2], r.p[1]->w[2]};
                step(&r);
                for (int i = 0; i < 2; i++) r.p[i]->w[2] = w[i];
            }
            constant(&r, 1);
            for (int i = 0; i < 2; i++) r.p[i]->g[2] = (tn_real)(large ? 4096 : 0.001);
            step(&r);
            const double t = cases[c].silent + 1, b1 = cases[c].b1, b2 = cases[c].b2;
            const double want = -0.5 * (1 - b1) / (1 - pow(b1, t)) * sqrt((1 - pow(b2, t)) / (1 - b2));
            for (int i = 0; i < 2; i++)
                near_to(s, cases[c].spec, (double)r.p[i]->w[2], want, 100 * EPS * fabs(want));
            if (c == 1) near_to(s, "the bound", want, -0.5 * 0.5 / sqrt(0.1), 1e-12);
            drop(&r);
        }
}
static void test_silence(void **state) {
    (void)state;
    everywhere(silence, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gradient_scale),  cmocka_unit_test(test_odd),
        cmocka_unit_test(test_permutation),     cmocka_unit_test(test_two_tensors),
        cmocka_unit_test(test_reset),           cmocka_unit_test(test_checkpoint),
        cmocka_unit_test(test_no_decay),        cmocka_unit_test(test_sgd_l2),
        cmocka_unit_test(test_null_coordinate), cmocka_unit_test(test_constant_gradient),
        cmocka_unit_test(test_first_step),      cmocka_unit_test(test_silence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

/* SPDX-License-Identifier: MIT */
/* Factors on the loss, lambda = 0, L2 and decay, and steps with a closed form; bit for bit unless a tolerance is given. */
#include "identity_rig.h"

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
        cmocka_unit_test(test_gradient_scale),
        cmocka_unit_test(test_no_decay),
        cmocka_unit_test(test_sgd_l2),
        cmocka_unit_test(test_null_coordinate),
        cmocka_unit_test(test_constant_gradient),
        cmocka_unit_test(test_first_step),
        cmocka_unit_test(test_silence),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

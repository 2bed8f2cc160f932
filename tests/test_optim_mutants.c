/* SPDX-License-Identifier: MIT */
/*
 * The suite against optimizers that are wrong: each known mistake fails vectors and is named; the same step without
 * one passes all.
 */
#include "mutants.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>

static const char *const BASES[] = {"sgd",   "sgdw",   "adagrad",  "rmsprop", "adam", "adaml2",
                                    "adamw", "adamax", "adadelta", "radam",   "lion", "lamb"};
enum { BASE_COUNT = sizeof BASES / sizeof *BASES };

typedef struct {
    conform_file *f;
    conform_result *r;
    conform_verdict *v;
    int failed;
} trial;

static conform_file *open_family(const char *family) {
    char path[1024];
    tn_err e = {""};
    snprintf(path, sizeof path, "%s/optim/%s.json", TN_GOLDEN_DIR, family);
    conform_file *f = conform_open(path, &e);
    if (!f) fail_msg("%s", e.msg);
    return f;
}

static trial run(const char *base, int mistake) {
    tn_err e = {""};
    trial t = {.f = open_family(base)};
    t.r = calloc((size_t)t.f->cases, sizeof *t.r);
    t.v = calloc((size_t)t.f->cases, sizeof *t.v);
    const conform_maker m = {mutant_make, mutant(base, mistake), mistake == MISTAKE_NONE};
    double *w = malloc(CONFORM_PASSES * (size_t)t.f->steps * t.f->len * sizeof *w);
    for (int c = 0; c < t.f->cases; c++) {
        if (!conform_plain(t.f, &t.f->c[c], MISTAKE_NONE, w)) continue; /* a rule that mutants do not have */
        if (conform_run(t.f, &t.f->c[c], &m, &t.r[c], &e)) fail_msg("%s: %s", t.f->c[c].name, e.msg);
        t.failed += !(t.r[c].deviation <= t.f->c[c].tol);
    }
    free(w);
    return t;
}

static void done(trial *t) {
    for (int c = 0; c < t->f->cases; c++) free(t->r[c].w);
    free(t->r), free(t->v);
    conform_close(t->f);
}

static void test_without_mistake(void **state) {
    (void)state;
    for (int b = 0; b < BASE_COUNT; b++) {
        trial t = run(BASES[b], MISTAKE_NONE);
        for (int c = 0; c < t.f->cases; c++)
            if (!(t.r[c].deviation <= t.f->c[c].tol))
                fail_msg("%s/%s: the step without a mistake is off by %.3g, %s", BASES[b], t.f->c[c].name,
                         t.r[c].deviation, t.r[c].where);
        done(&t);
    }
}

/* The reference makes the same numbers with either: sgd needs its counter for nothing but the first dampening, say. */
static int twins(const conform_file *f, int a, int b) {
    const size_t n = CONFORM_PASSES * (size_t)f->steps * f->len;
    double *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
    int same = 1;
    for (int c = 0; c < f->cases && same; c++) {
        if (!conform_plain(f, &f->c[c], a, x) || !conform_plain(f, &f->c[c], b, y)) continue;
        same = memcmp(x, y, n * sizeof *x) == 0;
    }
    free(x), free(y);
    return same;
}

/* Largest distance of the reference's weights from those recorded, over their size. */
static double off(const conform_file *f, const conform_case *c, const double *w) {
    double worst = 0;
    size_t k;
    json_t *x;
    json_array_foreach(c->expect, k, x) for (int i = 0; i < f->tensors; i++) {
        const json_int_t step = json_integer_value(json_object_get(x, "step"));
        const double *got = w + (size_t)(step - 1) * f->len + f->tensor[i].at;
        const json_t *want = json_object_get(json_object_get(x, "weights"), f->tensor[i].name);
        double top = 0, d = 0;
        for (size_t j = 0; j < f->tensor[i].n; j++) {
            const double y = json_number_value(json_array_get(want, j));
            top = fmax(top, fabs(y)), d = fmax(d, fabs(got[j] - y));
        }
        worst = fmax(worst, d == 0 ? 0 : d / top);
    }
    return worst;
}

/* The reference without a mistake makes the recorded numbers of every family, of nearly every case. */
static void test_reference(void **state) {
    (void)state;
    char **names = NULL;
    tn_err e = {""};
    const int families = conform_families(TN_GOLDEN_DIR "/optim", &names, &e);
    assert_true(families >= 20);
    for (int i = 0; i < families; i++) {
        conform_file *f = open_family(names[i]);
        int known = 0;
        double *w = malloc(CONFORM_PASSES * (size_t)f->steps * f->len * sizeof *w);
        for (int c = 0; c < f->cases; c++) {
            if (!conform_plain(f, &f->c[c], MISTAKE_NONE, w)) continue;
            const double d = off(f, &f->c[c], w);
            const double tol = json_number_value(json_object_get(
                json_object_get(json_array_get(json_object_get(f->root, "cases"), (size_t)c), "tol"),
                "double"));
            if (!(d <= tol)) fail_msg("%s/%s: off by %.3g", names[i], f->c[c].name, d);
            known++;
        }
        if (known * 5 < f->cases * 4)
            fail_msg("%s: the reference knows %d of %d cases", names[i], known, f->cases);
        free(w), free(names[i]);
        conform_close(f);
    }
    free(names);
}

/* Of every family: numbers made with a mistake are put down to that mistake, and not to another. */
static void told_apart(const conform_file *f, int mistake) {
    conform_result *r = calloc((size_t)f->cases, sizeof *r);
    conform_verdict *v = calloc((size_t)f->cases, sizeof *v);
    const size_t n = CONFORM_PASSES * (size_t)f->steps * f->len;
    int tells = 0;
    for (int c = 0; c < f->cases; c++) {
        r[c].w = malloc(n * sizeof *r[c].w);
        if (!conform_plain(f, &f->c[c], mistake, r[c].w)) free(r[c].w), r[c].w = NULL;
        r[c].deviation = conform_tells(f, &f->c[c], mistake) ? INFINITY : 0;
        tells += r[c].deviation > 0;
    }
    if (tells) conform_diagnose(f, r, v);
    for (int c = 0; c < f->cases; c++) {
        const int said = v[c].mistake;
        if (r[c].deviation > 0 && said != mistake && !twins(f, said, mistake))
            fail_msg("%s/%s: %s is taken for: %s", f->family, f->c[c].name, conform_mistake_text[mistake],
                     conform_mistake_text[said]);
        free(r[c].w);
    }
    free(r), free(v);
}

static void test_told_apart(void **state) {
    (void)state;
    char **names = NULL;
    tn_err e = {""};
    const int families = conform_families(TN_GOLDEN_DIR "/optim", &names, &e);
    for (int i = 0; i < families; i++) {
        conform_file *f = open_family(names[i]);
        for (int m = 1; m < MISTAKES; m++) told_apart(f, m);
        free(names[i]);
        conform_close(f);
    }
    free(names);
}

/* Caught wherever it makes a difference; named in every failed case but the few whose path is chaotic. */
static int caught(const char *base, int mistake) {
    trial t = run(base, mistake);
    int tells = 0, unnamed = 0;
    for (int c = 0; c < t.f->cases; c++) {
        if (!conform_tells(t.f, &t.f->c[c], mistake)) continue;
        tells++;
        if (t.r[c].deviation <= t.f->c[c].tol)
            fail_msg("%s/%s does not see: %s", base, t.f->c[c].name, conform_mistake_text[mistake]);
    }
    conform_diagnose(t.f, t.r, t.v);
    for (int c = 0; c < t.f->cases; c++) {
        const int said = t.v[c].mistake;
        if (t.r[c].deviation <= t.f->c[c].tol) continue;
        unnamed += !said && conform_tells(t.f, &t.f->c[c], mistake);
        if (said && said != mistake && !twins(t.f, said, mistake))
            fail_msg("%s/%s: %s is taken for: %s", base, t.f->c[c].name, conform_mistake_text[mistake],
                     conform_mistake_text[said]);
    }
    if (unnamed > (t.failed > 20 ? t.failed / 10 : t.failed > 3))
        fail_msg("%s: %s is not named in %d cases", base, conform_mistake_text[mistake], unnamed);
    const int failed = t.failed;
    done(&t);
    return failed;
}

static void test_mutants(void **state) {
    (void)state;
    for (int m = 1; m < MISTAKES; m++) {
        int failed = 0;
        for (int b = 0; b < BASE_COUNT; b++) failed += caught(BASES[b], m) > 0;
        if (!failed) fail_msg("no vector sees: %s", conform_mistake_text[m]);
    }
}

/* Where a mistake is possible it must be seen, whatever the reference says about the vectors. */
static void test_where(void **state) {
    (void)state;
    static const struct {
        const char *base;
        int mistake;
    } must[] = {{"sgd", MISTAKE_DECAY_SIGN},        {"sgd", MISTAKE_DECAY_BIASES},
                {"sgd", MISTAKE_MOMENTS_SHARED},    {"sgd", MISTAKE_NESTEROV_IGNORED},
                {"sgd", MISTAKE_DAMPENING_FIRST},   {"sgd", MISTAKE_LR_IN_BUFFER},
                {"sgd", MISTAKE_DECAY_DEFAULT},     {"adagrad", MISTAKE_EPS_INSIDE},
                {"rmsprop", MISTAKE_EPS_INSIDE},    {"adam", MISTAKE_EPS_INSIDE},
                {"adam", MISTAKE_EPS_HAT},          {"adam", MISTAKE_NO_CORRECTION},
                {"adam", MISTAKE_T_PER_TENSOR},     {"adam", MISTAKE_T_AHEAD},
                {"adam", MISTAKE_BETA_SWAP},        {"adam", MISTAKE_MOMENTS_SHARED},
                {"adam", MISTAKE_STALE_MOMENTS},    {"adam", MISTAKE_STALE_COUNTER},
                {"adam", MISTAKE_DECAY_DEFAULT},    {"adaml2", MISTAKE_DECAY_BESIDE},
                {"adaml2", MISTAKE_DECAY_SIGN},     {"adaml2", MISTAKE_DECAY_BIASES},
                {"adamw", MISTAKE_DECAY_MOMENTS},   {"adamw", MISTAKE_DECAY_SIGN},
                {"adamw", MISTAKE_DECAY_TWICE},     {"adamw", MISTAKE_DECAY_BOTH},
                {"adamw", MISTAKE_DECAY_AFTER},     {"adamw", MISTAKE_DECAY_BIASES},
                {"adamw", MISTAKE_DECAY_NO_LR},     {"adamw", MISTAKE_DECAY_WITH_LR},
                {"adamw", MISTAKE_DECAY_DEFAULT},   {"adamw", MISTAKE_SCHEDULE_IGNORED},
                {"adamw", MISTAKE_SGD_INSTEAD},     {"adamw", MISTAKE_LAMBDA_DEFAULT},
                {"adamw", MISTAKE_LAMBDA_DEFAULT4}, {"adamw", MISTAKE_LAMBDA_DEFAULT0},
                {"adamw", MISTAKE_GRADIENT_SUMMED}, {"adam", MISTAKE_MOMENTUM_LATE},
                {"sgdw", MISTAKE_LR_OUT_OF_BUFFER}, {"adadelta", MISTAKE_EPS_OUTSIDE},
                {"adamax", MISTAKE_EPS_OUTSIDE},    {"radam", MISTAKE_EPS_CORRECTED},
                {"radam", MISTAKE_NO_CORRECTION},   {"adamax", MISTAKE_T_PER_TENSOR},
                {"lamb", MISTAKE_RATIO_IGNORED},    {"lamb", MISTAKE_DECAY_BESIDE},
                {"lion", MISTAKE_DECAY_AFTER},      {"lion", MISTAKE_BETA_SWAP},
                {"lion", MISTAKE_DECAY_BIASES},     {"sgdw", MISTAKE_DECAY_WITH_LR}};
    for (size_t i = 0; i < sizeof must / sizeof *must; i++)
        if (!caught(must[i].base, must[i].mistake))
            fail_msg("%s: not seen: %s", must[i].base, conform_mistake_text[must[i].mistake]);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference),       cmocka_unit_test(test_told_apart),
        cmocka_unit_test(test_without_mistake), cmocka_unit_test(test_mutants),
        cmocka_unit_test(test_where),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

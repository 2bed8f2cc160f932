/* SPDX-License-Identifier: MIT */
/*
 * Every file of vectors (tests/golden/optim) against the built-in optimizers: weights and state, fresh and after a
 * reset. And the plain reference that names mistakes agrees with the vectors where it makes none.
 */
#include "../apps/conform.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>

#define DIR TN_GOLDEN_DIR "/optim"

static conform_file *open_family(const char *family) {
    char path[1024];
    tn_err e = {""};
    snprintf(path, sizeof path, "%s/%s.json", DIR, family);
    conform_file *f = conform_open(path, &e);
    if (!f) fail_msg("%s", e.msg);
    return f;
}

static void each_family(void (*check)(const conform_file *)) {
    tn_err e = {""};
    char **names;
    int n = conform_families(DIR, &names, &e);
    if (n < 6) fail_msg("%d families: %s", n, e.msg);
    for (int i = 0; i < n; i++) {
        conform_file *f = open_family(names[i]);
        assert_string_equal(f->family, names[i]);
        check(f);
        conform_close(f);
        free(names[i]);
    }
    free(names);
}

static void against_builtin(const conform_file *f) {
    assert_true(f->cases >= 3);
    assert_true(f->tensors >= 2);
    for (int i = 0; i < f->cases; i++) {
        conform_result r;
        tn_err e = {""};
        if (conform_run(f, &f->c[i], &conform_builtin, &r, &e))
            fail_msg("%s/%s: %s", f->family, f->c[i].name, e.msg);
        assert_true(f->c[i].tol < 0.01);
        if (!(r.deviation <= f->c[i].tol))
            fail_msg("%s/%s (%s), %s: off by %.3g from %s, allowed %.3g", f->family, f->c[i].name,
                     f->c[i].spec, r.where, r.deviation, f->c[i].source, f->c[i].tol);
        free(r.w);
    }
}

static void test_builtin(void **state) {
    (void)state;
    each_family(against_builtin);
}

/* One case of a file shows every step. */
static void every_step(const conform_file *f) {
    for (int i = 0; i < f->cases; i++)
        if ((int)json_array_size(f->c[i].expect) == f->steps) return;
    fail_msg("%s: no case shows every step", f->family);
}

static void test_every_step(void **state) {
    (void)state;
    each_family(every_step);
}

static double off(const conform_file *f, const json_t *expect, const double *w) {
    double worst = 0;
    size_t k;
    json_t *x;
    json_array_foreach(expect, k, x) {
        size_t s = (size_t)json_integer_value(json_object_get(x, "step")) - 1;
        for (int i = 0; i < f->tensors; i++) {
            const json_t *want = json_object_get(json_object_get(x, "weights"), f->tensor[i].name);
            double top = 0, d = 0;
            for (size_t j = 0; j < f->tensor[i].n; j++) {
                double y = json_number_value(json_array_get(want, j));
                top = fmax(top, fabs(y)), d = fmax(d, fabs(w[s * f->len + f->tensor[i].at + j] - y));
            }
            worst = fmax(worst, d > 0 ? d / top : 0);
        }
    }
    return worst;
}

static int plain_cases;
static void against_plain(const conform_file *f) {
    double *w = malloc(CONFORM_PASSES * (size_t)f->steps * f->len * sizeof *w);
    for (int i = 0; i < f->cases; i++) {
        if (!conform_plain(f, &f->c[i], 0, w)) continue;
        const double d = off(f, f->c[i].expect, w);
        if (!(d <= 1e-9)) fail_msg("%s/%s: the plain reference is off by %.3g", f->family, f->c[i].name, d);
        plain_cases++;
    }
    free(w);
}

static void test_plain(void **state) {
    (void)state;
    each_family(against_plain);
    assert_true(plain_cases >= 130);
}

/* A file that is not of the format is refused with a reason. */
static void refused(const char *text, const char *why) {
    char path[] = "/tmp/vectorsXXXXXX";
    tn_err e = {""};
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    FILE *out = fdopen(fd, "w");
    fputs(text, out);
    fclose(out);
    conform_file *f = conform_open(path, &e);
    remove(path);
    assert_null(f);
    assert_contains(e.msg, why);
}

static void test_refused(void **state) {
    (void)state;
#define HEAD   "{\"format\": \"tern-optim-vectors-1\", \"family\": \"sgd\", \"steps\": 1, "
#define TENSOR "\"tensors\": [{\"name\": \"a\", \"shape\": [2], \"decay\": true, \"init\": [1, 2]}], "
#define CASE                                                                                   \
    "\"cases\": [{\"name\": \"one\", \"spec\": \"sgd\", \"source\": \"me\", \"options\": {}, " \
    "\"gradients\": \"g\", "
    refused("[1, 2", ":1: ");
    refused("{}", "format");
    refused(HEAD "\"cases\": []}", "lacks");
    refused(HEAD "\"cases\": [{}]}", "tensors");
    refused(HEAD "\"tensors\": [{\"name\": \"a\", \"shape\": [2], \"init\": [1]}], \"cases\": [{}]}",
            "2 numbers");
    refused(HEAD "\"tensors\": [{\"name\": \"a\", \"shape\": [-2], \"init\": [1]}], \"cases\": [{}]}",
            "bad shape");
    refused(HEAD TENSOR "\"cases\": [{}]}", "lacks one of");
    refused(HEAD TENSOR CASE "\"tol\": {\"double\": 1, \"float\": 1}, \"expect\": [{}]}]}", "lack step 1");
    refused(HEAD TENSOR "\"gradients\": {\"g\": {\"a\": [[1, 2]]}}, " CASE
                        "\"tol\": {\"double\": 1, \"float\": 1}, \"expect\": [{\"step\": 2}]}]}",
            "no step");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_builtin),
        cmocka_unit_test(test_every_step),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

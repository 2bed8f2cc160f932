/* SPDX-License-Identifier: MIT */
/*
 * Weights and training state in files: what is written, what is read back, and everything that must be
 * refused.
 */
#include "support.h"
#include <fcntl.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

static char folder[] = "/tmp/tern-checkpoint-XXXXXX";
static char path[64], other[64];

static int set_up(void **state) {
    (void)state;
    if (!mkdtemp(folder)) return -1;
    snprintf(path, sizeof path, "%s/a.safetensors", folder);
    snprintf(other, sizeof other, "%s/b.safetensors", folder);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    unlink(path);
    unlink(other);
    return rmdir(folder); /* also: nothing else may be left */
}

/* fc.weight (3, 2), fc.bias (3), norm.weight (2) */
static tn_params *make(uint64_t seed) {
    tn_params *p = tn_params_new();
    tn_param_add(p, "fc", "weight", 0, tn_init_normal(0, 1), 2, (int[]){3, 2});
    tn_param_add(p, "fc", "bias", TN_NO_DECAY, tn_init_normal(0, 1), 1, (int[]){3});
    tn_param_add(p, "norm", "weight", TN_NO_DECAY, tn_init_normal(1, 1), 1, (int[]){2});
    assert_int_equal(tn_params_seal(p, seed, NULL), 0);
    return p;
}

static int same_weights(tn_params *a, tn_params *b) {
    size_t n, m;
    tn_real *x = tn_params_flat(a, &n), *y = tn_params_flat(b, &m);
    return n == m && same_bits(x, y, n);
}

static unsigned char *read_file(const char *name, size_t *n) {
    FILE *f = fopen(name, "rb");
    assert_non_null(f);
    unsigned char *p = malloc(1 << 16);
    *n = fread(p, 1, 1 << 16, f);
    fclose(f);
    return p;
}

static void write_file(const char *name, const void *p, size_t n) {
    FILE *f = fopen(name, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    fclose(f);
}

/* A file with this header and so many zero bytes of data. */
static void write_header(const char *header, size_t data) {
    unsigned char all[4096] = {0};
    size_t n = strlen(header);
    assert_true(8 + n + data <= sizeof all);
    for (int i = 0; i < 8; i++) all[i] = (unsigned char)((uint64_t)n >> 8 * i);
    memcpy(all + 8, header, n);
    write_file(path, all, 8 + n + data);
}

/* ---- Weights ------------------------------------------------------------------------------------------- */

static void test_weights_come_back(void **state) {
    (void)state;
    tn_params *a = make(1), *b = make(2);
    char note[256] = "x";
    uint64_t version = tn_params_version(b);
    assert_false(same_weights(a, b));
    assert_int_equal(tn_save_weights(path, a, "key\0value\0k2\0v2\0", NULL), 0);
    assert_int_equal(tn_load_weights(path, b, note, sizeof note, NULL), 0);
    assert_true(same_weights(a, b));
    assert_true(tn_params_version(b) > version); /* packed copies are stale now */
    assert_string_equal(note, "");
    tn_params_free(a);
    tn_params_free(b);
}

/*
 * The bytes, against the format's description: order by name, no holes, header a multiple of 8, PyTorch's
 * shapes.
 */
static void test_layout(void **state) {
    (void)state;
    tn_params *a = make(1);
    size_t n;
    assert_int_equal(tn_save_weights(path, a, NULL, NULL), 0);
    unsigned char *p = read_file(path, &n);
    static const char header[] =
        "{\"__metadata__\":{\"format\":\"pt\"},\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":"
        "[0,12]},"
        "\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[12,36]},"
        "\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[36,44]}}";
    size_t size = (strlen(header) + 7) / 8 * 8;
    assert_int_equal(p[0] | p[1] << 8, size);
    assert_memory_equal(p + 8, header, strlen(header));
    for (size_t i = strlen(header); i < size; i++) assert_int_equal(p[8 + i], ' ');
    assert_int_equal(n, 8 + size + 44);
    assert_memory_equal(p + 8 + size, tn_params_find(a, "fc.bias")->w, 12);
    assert_memory_equal(p + 8 + size + 12, tn_params_find(a, "fc.weight")->w, 24);
    free(p);
    tn_params_free(a);
}

/* 1, -2, 0.5, 2^-24 in half, the largest half; and the same idea in bfloat16 and double. */
static void test_other_types_are_converted(void **state) {
    (void)state;
    static const struct {
        const char *type;
        size_t bytes;
        unsigned char data[5 * 8];
        double want[5];
    } cases[] = {{"F16",
                  2,
                  {0x00, 0x3c, 0x00, 0xc0, 0x00, 0x38, 0x01, 0x00, 0xff, 0x7b},
                  {1, -2, 0.5, 0x1p-24, 65504}},
                 {"BF16",
                  2,
                  {0x80, 0x3f, 0x00, 0xc0, 0x00, 0x3f, 0x80, 0x00, 0x7f, 0x7f},
                  {1, -2, 0.5, 0x1p-126, 0x1.fep127}},
                 {"F64",
                  8,
                  {0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0, 0, 0, 0, 0, 0, 0, 0xe0, 0x3f},
                  {1, -2, 0.5, 0, 0}}};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        char header[200], note[256], all[512] = {0};
        size_t b = cases[c].bytes;
        int n = snprintf(header, sizeof header,
                         "{\"l.w\":{\"dtype\":\"%s\",\"shape\":[5],\"data_offsets\":[0,%zu]}}", cases[c].type,
                         5 * b);
        all[0] = (char)n;
        memcpy(all + 8, header, (size_t)n);
        memcpy(all + 8 + n, cases[c].data, 5 * b);
        write_file(path, all, 8 + (size_t)n + 5 * b);
        tn_params *p = tn_params_new();
        tn_param *w = tn_param_add(p, "l", "w", 0, tn_init_const(7), 1, (int[]){5});
        tn_err e = {""};
        assert_int_equal(tn_params_seal(p, 1, NULL), 0);
        assert_int_equal(tn_load_weights(path, p, note, sizeof note, &e), 0);
        for (int i = 0; i < 5; i++) assert_true((double)w->w[i] == cases[c].want[i]);
        assert_contains(note, cases[c].type);
        tn_params_free(p);
    }
}

/* ---- What must be refused ------------------------------------------------------------------------------ */

static void refused(const char *word) {
    tn_params *p = make(3), *before = make(3);
    tn_err e = {""};
    assert_int_equal(tn_load_weights(path, p, NULL, 0, &e), -1);
    assert_contains(e.msg, path);
    assert_contains(e.msg, word);
    assert_true(same_weights(p, before)); /* nothing is half loaded */
    tn_params_free(p);
    tn_params_free(before);
}

#define BIAS   "\"fc.bias\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}"
#define WEIGHT "\"fc.weight\":{\"dtype\":\"F32\",\"shape\":[3,2],\"data_offsets\":[12,36]}"
#define NORM   "\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[36,44]}"

static void test_bad_files_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *header;
        size_t data;
        const char *word;
    } cases[] = {
        {"{" BIAS "," WEIGHT "}", 36, "missing norm.weight"},
        {"{" BIAS "," WEIGHT "," NORM ",\"more\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[44,44]}}",
         44, "more"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[36,44]}}",
         44, "norm.weight has shape (1, 2); this model needs (2,)"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"I32\",\"shape\":[2],\"data_offsets\":[36,44]}}",
         44, "I32"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[36,44]}}",
         44, "F31"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[36,40]}}",
         44, "8 bytes"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[40,48]}}",
         48, "hole"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[32,40]}}",
         40, "overlaps"},
        {"{" BIAS "," WEIGHT "," NORM "}", 43, "cut off"},
        {"{" BIAS "," WEIGHT "," NORM "}", 48, "belong to no tensor"},
        {"{" BIAS "," WEIGHT "," NORM "," NORM "}", 44, "duplicate"},
        {"{" BIAS "," WEIGHT "," NORM ",\"__metadata__\":{\"a\":1}}", 44, "not a string"},
        {"{" BIAS "," WEIGHT "," NORM ",\"__metadata__\":[]}", 44, "__metadata__"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[36,44]}}",
         44, "whole numbers"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[36,44]}}",
         44, "whole"},
        {"{" BIAS "," WEIGHT
         ",\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296,4294967296],"
         "\"data_offsets\":[36,44]}}",
         44, "overflow"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,2],"
         "\"data_offsets\":[36,44]}}",
         44, "dimensions"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[44,36]}}",
         44, "data_offsets"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":{\"dtype\":\"F32\",\"shape\":[2]}}", 44, "norm.weight"},
        {"{" BIAS "," WEIGHT ",\"norm.weight\":7}", 44, "norm.weight"},
        {"[1]", 0, "not JSON"},
        {"{" BIAS, 12, "bad header"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        write_header(cases[i].header, cases[i].data);
        refused(cases[i].word);
    }
    write_file(path, "", 0);
    refused("0 bytes");
    write_file(path, "\xff\xff\xff\xff\xff\xff\xff\x7f{}", 10);
    refused("header of");
    unlink(path);
    refused("cannot open");
    assert_int_equal(mkdir(path, 0700), 0);
    refused("directory");
    rmdir(path);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not hang */
    refused("regular");
}

static void test_values_that_are_not_finite_are_refused(void **state) {
    (void)state;
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        tn_params *a = make(1);
        size_t n;
        unlink(path);
        assert_int_equal(tn_save_weights(path, a, NULL, NULL), 0);
        unsigned char *p = read_file(path, &n);
        memcpy(p + n - 20, &bad[i], 4); /* in fc.weight */
        write_file(path, p, n);
        refused("fc.weight");
        /* and they are not written in the first place */
        tn_params_find(a, "norm.weight")->w[1] = bad[i];
        tn_err e = {""};
        assert_int_equal(tn_save_weights(path, a, NULL, &e), -1);
        assert_contains(e.msg, "norm.weight");
        free(p);
        tn_params_free(a);
    }
}

/* Random damage: whatever is accepted must be complete and finite; under a sanitizer this looks for worse. */
static void test_mutations(void **state) {
    (void)state;
    tn_params *a = make(1), *b = make(2);
    size_t n;
    int refused_count = 0;
    unlink(path);
    assert_int_equal(tn_save_weights(path, a, "key\0value\0", NULL), 0);
    unsigned char *good = read_file(path, &n), *bad = malloc(n + 16);
    tn_rng r = tn_rng_make(1, "mutations", "", 0, 0);
    for (int i = 0; i < 3000; i++) {
        size_t len = n;
        memcpy(bad, good, n);
        for (int k = tn_below(&r, 4); k >= 0; k--) {
            size_t at = (size_t)tn_below(&r, tn_below(&r, 2) ? (int)n : 300);
            static const char likely[] = "{}[]\",:0123456789-eE\\\0 ";
            bad[at] = tn_below(&r, 2) ? (unsigned char)likely[tn_below(&r, (int)sizeof likely)]
                                      : (unsigned char)tn_below(&r, 256);
        }
        if (tn_below(&r, 8) == 0) len = (size_t)tn_below(&r, (int)n);
        write_file(path, bad, len);
        tn_err e = {""};
        if (tn_load_weights(path, b, NULL, 0, &e)) {
            refused_count++;
            assert_contains(e.msg, path);
        } else {
            assert_int_equal(len, n);
            assert_null(tn_nonfinite_weight(b));
        }
    }
    assert_true(refused_count > 1000);
    free(good);
    free(bad);
    tn_params_free(a);
    tn_params_free(b);
}

/* ---- State --------------------------------------------------------------------------------------------- */

static void steps(tn_params *p, tn_optim *o, int from, int to) {
    for (int t = from; t <= to; t++) {
        size_t n;
        tn_real *g = tn_params_flat_grad(p, &n);
        for (size_t i = 0; i < n; i++) g[i] = (tn_real)sin((double)i + t);
        tn_tick k = {.t = t, .total = 20, .steps_per_epoch = 10, .batch = 1, .lr_mul = 1, .wd_mul = 1};
        tn_optim_step(o, &k);
    }
}

/* For every optimizer: 5 steps, saved, loaded into a fresh one, 5 more, equal 10 without a stop. */
static void test_state_is_exact(void **state) {
    (void)state;
    int count;
    const tn_optim_def *const *defs = tn_optims(&count);
    for (int i = 0; i < count; i++) {
        tn_params *a = make(1), *b = make(2), *whole = make(1);
        tn_err e = {""};
        tn_optim *oa = tn_optim_new(a, defs[i]->name, &e), *ob = tn_optim_new(b, defs[i]->name, &e);
        tn_optim *ow = tn_optim_new(whole, defs[i]->name, &e);
        char *meta = NULL;
        steps(whole, ow, 1, 10);
        steps(a, oa, 1, 5);
        assert_int_equal(tn_save_state(path, a, oa, "{\"step\": 5}", &e), 0);
        assert_int_equal(tn_load_state(path, b, ob, &meta, &e), 0);
        assert_string_equal(meta, "{\"step\": 5}");
        steps(b, ob, 6, 10);
        assert_true(same_weights(b, whole));
        /* equal states give equal files */
        size_t n, m;
        assert_int_equal(tn_save_state(path, b, ob, NULL, &e), 0);
        assert_int_equal(tn_save_state(other, whole, ow, NULL, &e), 0);
        unsigned char *x = read_file(path, &n), *y = read_file(other, &m);
        assert_int_equal(n, m);
        assert_memory_equal(x, y, n);
        free(x);
        free(y);
        tn_free(meta);
        tn_optim_free(oa);
        tn_optim_free(ob);
        tn_optim_free(ow);
        tn_params_free(a);
        tn_params_free(b);
        tn_params_free(whole);
    }
}

static void test_state_of_another_optimizer(void **state) {
    (void)state;
    tn_params *a = make(1), *b = make(1);
    tn_err e = {""};
    tn_optim *adam = tn_optim_new(a, "adam", &e), *sgd = tn_optim_new(b, "sgd:momentum=0.9", &e);
    assert_int_equal(tn_save_state(path, a, adam, "{}", &e), 0);
    assert_int_equal(tn_load_state(path, b, sgd, NULL, &e), -1);
    assert_contains(e.msg, "adam");
    assert_int_equal(tn_load_weights(path, b, NULL, 0, &e), -1);
    assert_contains(e.msg, "training state");
    assert_int_equal(tn_save_weights(path, a, NULL, &e), 0);
    assert_int_equal(tn_load_state(path, a, adam, NULL, &e), -1);
    assert_contains(e.msg, "no training state");
    tn_optim_free(adam);
    tn_optim_free(sgd);
    tn_params_free(a);
    tn_params_free(b);
}

/* ---- Writing ------------------------------------------------------------------------------------------- */

/*
 * A write beyond the limit fails half-way: the old file stays, no temporary one is left (tear_down's rmdir).
 */
static void test_failed_write_keeps_the_old_file(void **state) {
    (void)state;
    tn_params *a = make(1), *b = make(2), *c = make(3);
    struct rlimit old, small;
    tn_err e = {""};
    unlink(path);
    assert_int_equal(tn_save_weights(path, a, NULL, &e), 0);
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    small = old;
    small.rlim_cur = 100;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    int code = tn_save_weights(path, b, NULL, &e);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(code, -1);
    assert_contains(e.msg, path);
    assert_contains(e.msg, "unchanged");
    assert_int_equal(tn_load_weights(path, c, NULL, 0, &e), 0);
    assert_true(same_weights(a, c));
    assert_int_equal(tn_save_weights("/nowhere/a.safetensors", a, NULL, &e), -1);
    assert_contains(e.msg, "/nowhere/a.safetensors");
    if (access("/dev/full", W_OK) == 0) {
        assert_int_equal(tn_save_weights("/dev/full", a, NULL, &e), -1);
        assert_contains(e.msg, "/dev/full");
    }
    tn_params_free(a);
    tn_params_free(b);
    tn_params_free(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_weights_come_back),
        cmocka_unit_test(test_layout),
        cmocka_unit_test(test_other_types_are_converted),
        cmocka_unit_test(test_bad_files_are_refused),
        cmocka_unit_test(test_values_that_are_not_finite_are_refused),
        cmocka_unit_test(test_mutations),
        cmocka_unit_test(test_state_is_exact),
        cmocka_unit_test(test_state_of_another_optimizer),
        cmocka_unit_test(test_failed_write_keeps_the_old_file),
    };
    return cmocka_run_group_tests_name("checkpoint", tests, set_up, tear_down);
}

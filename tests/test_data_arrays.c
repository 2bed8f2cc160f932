/* SPDX-License-Identifier: MIT */
/* Data sets made of a caller's own arrays: floats, targets; what shows them. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data_rig.h"

static tn_err err;
static const tn_opt no_options[] = {TN_OPT_END};

/* ---- arrays of the caller's own, floats, targets ---- */

static void own_arrays(void **state) {
    static const float x[12] = {0, 1, 2, 3, 4, 5, -6, 7, 8, 9, 10, 11};
    static const float y[6] = {0.5f, 1, 2, 3, 4, 5};
    static const int label[3] = {0, 2, 1};
    tn_tape *tape = tn_tape_new(&err);
    tn_data d, other;
    (void)state;
    assert_non_null(tape);
    assert_int_equal(tn_data_from_arrays(&d, 3, 2, (int[]){2, 2}, TN_F32, x, NULL, 0, y, 2, &err), 0);
    tn_t *in = tn_batch_input(tape, &d, 2, (int[]){2, 0}, 0);
    assert_int_equal(in->nd, 3);
    assert_int_equal(in->dim[0], 2);
    assert_true(in->x[0] == 8 && in->x[3] == 11 && in->x[4] == 0);
    tn_t *out = tn_batch_targets(tape, &d, 2, NULL, 1);
    assert_int_equal(out->nd, 2);
    assert_true(out->x[0] == 2 && out->x[3] == 5 && !out->needs);
    assert_int_equal(tn_data_from_arrays(&other, 3, 2, (int[]){2, 2}, TN_F32, x, label, 3, NULL, 0, &err), 0);
    assert_string_not_equal(d.hash, other.hash);
    int got[2];
    tn_batch_labels(&other, 2, NULL, 1, got);
    assert_int_equal(got[0], 2);
    assert_int_equal(got[1], 1);
    tn_data_free(&d);
    tn_data_free(&d);
    assert_int_equal(tn_data_from_arrays(&d, 3, 1, (int[]){4}, TN_F32, x, label, 2, NULL, 0, &err), -1);
    assert_non_null(strstr(err.msg, "label 2 of sample 1"));
    assert_int_equal(tn_data_from_arrays(&d, 3, 1, (int[]){4}, TN_F32, x, label, 3, y, 2, &err), -1);
    assert_int_equal(tn_data_from_arrays(&d, 3, 1, (int[]){4}, TN_F32, x, NULL, 0, NULL, 0, &err), -1);
    assert_int_equal(tn_data_from_arrays(&d, 0, 1, (int[]){4}, TN_F32, x, label, 3, NULL, 0, &err), -1);
    assert_int_equal(tn_data_from_arrays(&d, 3, 4, (int[]){1, 1, 1, 4}, TN_F32, x, label, 3, NULL, 0, &err),
                     -1);
    assert_int_equal(tn_data_from_arrays(&d, 3, 2, (int[]){1 << 30, 16}, TN_U8, x, label, 3, NULL, 0, &err),
                     -1);
    assert_int_equal(tn_data_from_arrays(&d, 3, 1, (int[]){0}, TN_U8, x, label, 3, NULL, 0, &err), -1);
    tn_tape_free(tape);
}

static int broken;
static int regression_open(const char *dir, const void *cfg, tn_dataset *out, tn_err *e) {
    (void)dir, (void)cfg;
    if (tn_data_alloc(&out->train, 100, 1, (int[]){3}, TN_F32, 0, 2, e)
        || tn_data_alloc(&out->test, 10, 1, (int[]){broken == 2 ? 4 : 3}, TN_F32, 0, 2, e))
        return -1;
    for (int i = 0; i < 300 && broken != 3; i++) ((float *)out->train.x)[i] = (float)(i % 7) * 10;
    for (int i = 0; i < 200; i++) ((float *)out->train.target)[i] = (float)i;
    if (broken != 1) memset(out->data_hash, 'b', 64);
    return 0;
}

static void regression(void **state) {
    tn_dataset_def def = {.abi = TN_ABI,
                          .size = sizeof def,
                          .name = "lines",
                          .cfg_size = 1,
                          .cfg = no_options,
                          .open = regression_open};
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    double sum = 0, sq = 0;
    (void)state;
    o.val_size = 30, o.train_size = 50, o.normalize = 1;
    assert_int_equal(tn_dataset_open_def(&def, NULL, NULL, &o, &d, &err), 0);
    assert_int_equal(d.train.n, 50);
    assert_int_equal(d.val.n, 30);
    for (int i = 0; i < 50; i++) assert_true(d.train.target[2 * i + 1] == (float)(2 * d.train.origin[i] + 1));
    tn_tape *tape = tn_tape_new(&err);
    tn_t *x = tn_batch_input(tape, &d.train, 50, NULL, 0);
    for (int i = 0; i < 150; i++) sum += x->x[i], sq += x->x[i] * x->x[i];
    assert_true(fabs(sum / 150) < 1e-5 && fabs(sq / 150 - 1) < 1e-5);
    tn_tape_free(tape);
    tn_dataset_free(&d);
    o.label_noise = 0.1;
    assert_int_equal(tn_dataset_open_def(&def, NULL, NULL, &o, &d, &err), -1);
    assert_non_null(strstr(err.msg, "--label-noise"));
    o.label_noise = 0;
    for (broken = 1; broken <= 3; broken++) { /* no hash; shapes differ; nothing to normalize by */
        assert_int_equal(tn_dataset_open_def(&def, NULL, NULL, &o, &d, &err), -1);
        assert_null(d.train.own);
    }
    assert_non_null(strstr(err.msg, "--normalize meanstd"));
    def.abi++;
    assert_int_equal(tn_dataset_open_def(&def, NULL, NULL, &o, &d, &err), -1);
}

/* ---- looking ---- */

static void never_lit(void **state) {
    static const unsigned char x[8] = {0, 0, 7, 0, 1, 0, 0, 0};
    static const float f[8] = {0, -0.0f, 7, 0, -1, 0, 0, 1e-30f};
    static const int label[2] = {0, 1};
    unsigned char dark[4];
    tn_data d;
    (void)state;
    assert_int_equal(tn_data_from_arrays(&d, 2, 1, (int[]){4}, TN_U8, x, label, 2, NULL, 0, &err), 0);
    assert_int_equal(tn_never_lit(&d, dark), 2);
    assert_memory_equal(dark, ((unsigned char[]){0, 1, 0, 1}), 4);
    assert_int_equal(tn_data_from_arrays(&d, 2, 1, (int[]){4}, TN_F32, f, label, 2, NULL, 0, &err), 0);
    assert_int_equal(tn_never_lit(&d, dark), 1);
    assert_memory_equal(dark, ((unsigned char[]){0, 1, 0, 0}), 4);
}

static void picture(void **state) {
    static const unsigned char x[12] = {255, 0, 255, 0, 0, 0, 255, 255, 0, 128, 0, 255}; /* 3 x 4 */
    static const int label[1];
    char out[200];
    tn_data d;
    (void)state;
    assert_int_equal(tn_data_from_arrays(&d, 1, 2, (int[]){3, 4}, TN_U8, x, label, 2, NULL, 0, &err), 0);
    const char *want = "\xe2\x96\x80 \xe2\x96\x88\xe2\x96\x84\n \xe2\x96\x80 \xe2\x96\x80\n";
    assert_int_equal(tn_data_picture(&d, 0, 80, 1, out, sizeof out), (int)strlen(want));
    assert_string_equal(out, want);
    assert_int_equal(tn_data_picture(&d, 0, 80, 0, out, sizeof out), 10);
    assert_string_equal(out, "+ @+\n : +\n");
    assert_int_equal(tn_data_picture(&d, 0, 2, 0, out, sizeof out), 3); /* boxes of 2 x 2 */
    assert_int_equal(tn_data_picture(&d, 0, 80, 0, out, 11), 10);
    assert_int_equal(tn_data_picture(&d, 0, 80, 0, out, 10), -1);
    assert_int_equal(tn_data_picture(&d, 1, 80, 0, out, sizeof out), -1);
    assert_int_equal(tn_data_from_arrays(&d, 1, 1, (int[]){12}, TN_U8, x, label, 2, NULL, 0, &err), 0);
    assert_int_equal(tn_data_picture(&d, 0, 80, 0, out, sizeof out), -1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(own_arrays),
        cmocka_unit_test(regression),
        cmocka_unit_test(never_lit),
        cmocka_unit_test(picture),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

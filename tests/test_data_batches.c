/* SPDX-License-Identifier: MIT */
/* The order of an epoch, and batches of it on the tape. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data_rig.h"

static tn_err err;

static void order(void **state) {
    enum { N = 1000 };
    int a[N], b[N], hit[N] = {0};
    (void)state;
    tn_epoch_order(1, 0, N, 1, a);
    for (int i = 0; i < N; i++) hit[a[i]]++;
    for (int i = 0; i < N; i++) assert_int_equal(hit[i], 1);
    tn_epoch_order(1, 0, N, 1, b);
    assert_memory_equal(a, b, sizeof a);
    tn_epoch_order(1, 1, N, 1, b);
    assert_memory_not_equal(a, b, sizeof a);
    tn_epoch_order(2, 0, N, 1, b);
    assert_memory_not_equal(a, b, sizeof a);
    tn_epoch_order(2, 0, N, 0, b);
    for (int i = 0; i < N; i++) assert_int_equal(b[i], i);
    assert_int_equal(tn_steps_per_epoch(1000, 128, 0), 8);
    assert_int_equal(tn_steps_per_epoch(1000, 128, 1), 7);
    assert_int_equal(tn_steps_per_epoch(1024, 128, 0), 8);
    assert_int_equal(tn_steps_per_epoch(1024, 128, 1), 8);
    assert_int_equal(tn_steps_per_epoch(5, 128, 1), 0);
}

static void check_batch(const tn_data *d, tn_tape *tape, int n, const int *idx, int first) {
    int label[200];
    tn_tape_reset(tape);
    tn_t *x = tn_batch_input(tape, d, n, idx, first);
    tn_batch_labels(d, n, idx, first, label);
    assert_int_equal(x->nd, 4);
    assert_int_equal(x->dim[0], n);
    assert_int_equal(x->dim[2], d->dim[1]);
    assert_false(x->needs);
    for (int i = 0; i < n; i++) {
        int at = idx ? idx[i] : first + i;
        assert_int_equal(label[i], d->label[at]);
        for (size_t j = 0; j < d->len; j++) {
            float want = fmaf(pixels_of(d, at)[j], (float)d->scale, (float)d->shift);
            if (x->x[(size_t)i * d->len + j] != want) fail_msg("sample %d, pixel %d differs", at, (int)j);
        }
    }
}

static void batches(void **state) {
    tn_data_options o = tn_data_options_default();
    tn_tape *tape = tn_tape_new(&err);
    tn_dataset d;
    int order[550];
    (void)state;
    for (o.normalize = 0; o.normalize < 2; o.normalize++) {
        open_set("synthetic:n=600,test=50,height=13,width=37", &o, &d);
        assert_int_equal(d.train.n, 550);
        tn_epoch_order(9, 0, 550, 1, order);
        check_batch(&d.train, tape, 128, order + 128, 0); /* several chunks */
        check_batch(&d.train, tape, 38, order + 512, 0);  /* the last of the epoch */
        check_batch(&d.train, tape, 128, NULL, 422);
        check_batch(&d.train, tape, 1, order + 3, 0);
        check_batch(&d.val, tape, 50, NULL, 0);
        check_batch(&d.test, tape, 3, (int[]){49, 0, 49}, 0);
        tn_t *x = tn_batch_input(tape, &d.train, 550, NULL, 0);
        double sum = 0, sq = 0, lo = 9, hi = -9;
        for (size_t i = 0; i < x->len; i++) {
            double v = x->x[i];
            sum += v, sq += v * v, lo = fmin(lo, v), hi = fmax(hi, v);
        }
        sum /= (double)x->len, sq /= (double)x->len;
        if (o.normalize)
            assert_true(fabs(sum) < 1e-5 && fabs(sq - 1) < 1e-5);
        else
            assert_true(lo == 0 && hi == 1); /* 255 becomes 1 exactly */
        tn_dataset_free(&d);
    }
    tn_tape_free(tape);
}

static jmp_buf escape;
static char panic_text[256];
static void on_panic(void *arg, const char *msg) {
    (void)arg;
    snprintf(panic_text, sizeof panic_text, "%s", msg);
    longjmp(escape, 1);
}

static void panics(const tn_data *d, int n, const int *idx, int first, int targets) {
    tn_tape *tape = tn_tape_new(&err);
    tn_on_panic(tape, on_panic, NULL);
    strcpy(panic_text, "");
    if (setjmp(escape) == 0) {
        if (targets)
            tn_batch_targets(tape, d, n, idx, first);
        else
            tn_batch_input(tape, d, n, idx, first);
        fail_msg("no panic for %d samples from %d", n, first);
    }
    assert_non_null(strstr(panic_text, targets ? "tn_batch_targets" : "tn_batch_input"));
    tn_tape_free(tape);
}

static void batch_bugs(void **state) {
    static const unsigned char x[6];
    static const int label[3];
    tn_data d;
    (void)state;
    assert_int_equal(tn_data_from_arrays(&d, 3, 1, (int[]){2}, TN_U8, x, label, 2, NULL, 0, &err), 0);
    panics(&d, 0, NULL, 0, 0);
    panics(&d, 4, NULL, 0, 0);
    panics(&d, 2, NULL, 2, 0);
    panics(&d, 1, NULL, -1, 0);
    panics(&d, 2, (int[]){0, 3}, 0, 0);
    panics(&d, 1, (int[]){-1}, 0, 0);
    panics(&d, 1, NULL, 0, 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(order),
        cmocka_unit_test(batches),
        cmocka_unit_test(batch_bugs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

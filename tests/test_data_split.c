/* SPDX-License-Identifier: MIT */
/* Parts of a training set: validation, stratified subset, labels changed on purpose. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "data_rig.h"

static tn_err err;

static void same_part(const tn_data *a, const tn_data *b) {
    assert_int_equal(a->n, b->n);
    assert_true(a->scale == b->scale && a->shift == b->shift);
    assert_string_equal(a->hash, b->hash);
    if (!a->n) return;
    assert_memory_equal(a->x, b->x, (size_t)a->n * a->len * (a->xtype == TN_U8 ? 1 : sizeof(float)));
    assert_memory_equal(a->origin, b->origin, (size_t)a->n * sizeof(int));
    if (a->label) assert_memory_equal(a->label, b->label, (size_t)a->n * sizeof(int));
    if (a->target) assert_memory_equal(a->target, b->target, (size_t)(a->n * a->targets) * sizeof(float));
}

/* Of a whole set the same is derived as opening gives. */
static void derived(void **state) {
    static const char *const where[] = {MNIST, "synthetic:n=700"};
    tn_data_options all = tn_data_options_default();
    (void)state;
    all.val_size = 0;
    for (int w = 0; w < 2; w++) {
        tn_dataset whole, a, b;
        open_set(where[w], &all, &whole);
        for (int i = 0; i < 5; i++) {
            tn_data_options o = tn_data_options_default();
            o.val_size = i == 4 ? 0 : i ? 50 : TN_VAL_AUTO;
            o.train_size = i > 1 ? 300 : 0;
            o.label_noise = i > 2 ? 0.2 : 0;
            o.normalize = i > 2;
            o.seed = (uint64_t)i;
            open_set(where[w], &o, &a);
            assert_int_equal(tn_dataset_derive(&whole, &o, &b, &err), 0);
            same_part(&a.train, &b.train);
            same_part(&a.val, &b.val);
            same_part(&a.test, &b.test);
            assert_string_equal(a.split_hash, b.split_hash);
            assert_string_equal(a.data_hash, b.data_hash);
            assert_string_equal(a.name, b.name);
            assert_string_equal(a.note, b.note);
            tn_dataset_free(&a);
            if (b.val.n) assert_int_equal(tn_dataset_derive(&b, &o, &a, &err), -1); /* not whole any more */
            o.train_size = 1 << 30;
            assert_int_equal(tn_dataset_derive(&whole, &o, &a, &err), -1);
            assert_null(a.train.own);
            tn_dataset_free(&b);
        }
        tn_dataset_free(&whole);
    }
}

static void subset(void **state) {
    tn_data_options o = tn_data_options_default();
    tn_dataset all, a, b;
    int n[256];
    (void)state;
    o.val_size = 101;
    open_set(SMALL, &o, &all);
    o.train_size = 402, o.seed = 5;
    open_set(SMALL, &o, &a);
    assert_int_equal(a.train.n, 402);
    count_labels(&a.train, n);
    for (int c = 0; c < 4; c++) assert_in_range(n[c], 100, 101);
    for (int i = 0; i < a.train.n; i++) { /* the pictures and labels of their positions, in file order */
        int at = a.train.origin[i];
        assert_int_equal(a.train.label[i], at % 4);
        assert_true(i == 0 || a.train.origin[i - 1] < at);
        for (int j = 0; j < a.val.n; j++) assert_true(a.val.origin[j] != at);
    }
    for (int i = 0, j = 0; i < a.train.n; i++, j++) {
        while (all.train.origin[j] != a.train.origin[i]) j++;
        assert_memory_equal(pixels_of(&a.train, i), pixels_of(&all.train, j), a.train.len);
    }
    open_set(SMALL, &o, &b);
    assert_string_equal(a.train.hash, b.train.hash);
    tn_dataset_free(&b);
    o.label_noise = 0.3; /* noise leaves the subset alone */
    open_set(SMALL, &o, &b);
    assert_memory_equal(a.train.origin, b.train.origin, 402 * sizeof(int));
    assert_memory_equal(a.train.x, b.train.x, 402 * a.train.len);
    assert_string_not_equal(a.train.hash, b.train.hash);
    tn_dataset_free(&b);
    o.label_noise = 0, o.seed = 6;
    open_set(SMALL, &o, &b);
    assert_memory_not_equal(a.train.origin, b.train.origin, 402 * sizeof(int));
    tn_dataset_free(&b);
    o.train_size = 1099; /* all that is left */
    open_set(SMALL, &o, &b);
    assert_int_equal(b.train.n, 1099);
    tn_dataset_free(&b);
    tn_dataset_free(&a);
    tn_dataset_free(&all);
}

static void noise(void **state) {
    static const double share[] = {0.0004, 0.0005, 0.1, 0.5, 0.9995};
    static const int want[] = {0, 1, 100, 500, 1000}; /* round(share * 1000) */
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    int earlier[1000];
    (void)state;
    o.val_size = 200, o.seed = 3;
    for (int i = 0; i < 1000; i++) earlier[i] = -1;
    for (int k = 0; k < 5; k++) {
        int changed = 0, to[4][4] = {{0}};
        o.label_noise = share[k];
        open_set(SMALL, &o, &d);
        assert_int_equal(d.train.n, 1000);
        for (int i = 0; i < 1000; i++) {
            int clean = d.train.origin[i] % 4, y = d.train.label[i];
            changed += y != clean;
            to[clean][y]++;
            assert_in_range(y, 0, 3);
            if (earlier[i] >= 0) assert_int_equal(y, earlier[i]); /* more noise keeps what less has done */
            if (y != clean) earlier[i] = y;
        }
        assert_int_equal(changed, want[k]);
        for (int c = 0; c < 4 && k == 4; c++)
            for (int y = 0; y < 4; y++)
                if (y != c) assert_in_range(to[c][y], 55, 115); /* 83 expected, deviation about 7.5 */
        for (int i = 0; i < d.val.n; i++) assert_int_equal(d.val.label[i], d.val.origin[i] % 4);
        for (int i = 0; i < d.test.n; i++) assert_int_equal(d.test.label[i], i % 4);
        tn_dataset_free(&d);
    }
}

/* Quotas add up and are within one of the exact share, also when classes are of very different size. */
static int uneven_open(const char *dir, const void *cfg, tn_dataset *out, tn_err *e);
static const tn_opt no_options[] = {TN_OPT_END};
static const tn_dataset_def uneven = {.abi = TN_ABI,
                                      .size = sizeof uneven,
                                      .name = "uneven",
                                      .cfg_size = 1,
                                      .cfg = no_options,
                                      .open = uneven_open};
static const int uneven_count[5] = {1, 7, 50, 190, 752};

static int uneven_open(const char *dir, const void *cfg, tn_dataset *out, tn_err *e) {
    (void)dir, (void)cfg;
    if (tn_data_alloc(&out->train, 1000, 1, (int[]){2}, TN_U8, 5, 0, e)
        || tn_data_alloc(&out->test, 3, 1, (int[]){2}, TN_U8, 5, 0, e))
        return -1;
    for (int c = 0, i = 0; c < 5; c++)
        for (int k = 0; k < uneven_count[c]; k++) ((int *)out->train.label)[i++] = c;
    memset(out->data_hash, 'a', 64);
    return 0;
}

static void stratified(void **state) {
    (void)state;
    for (int val = 1; val < 1000; val += 83) {
        tn_data_options o = tn_data_options_default();
        tn_dataset d;
        int n[256];
        o.val_size = val;
        assert_int_equal(tn_dataset_open_def(&uneven, NULL, NULL, &o, &d, &err), 0);
        assert_int_equal(d.val.n, val);
        assert_int_equal(d.train.n, 1000 - val);
        count_labels(&d.val, n);
        for (int c = 0; c < 5; c++) assert_true(fabs(n[c] - val * uneven_count[c] / 1000.) < 1);
        tn_dataset_free(&d);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(derived),
        cmocka_unit_test(subset),
        cmocka_unit_test(noise),
        cmocka_unit_test(stratified),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

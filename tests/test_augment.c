/* SPDX-License-Identifier: MIT */
/* Augmentation: the same bits whatever the batch and the threads, and what each option does to a picture. */
#include <math.h>
#include <stdlib.h>

#include "support.h"
#include "tern_data.h"

static tn_err err;

static void noise_set(tn_data *d, unsigned char *x, int *label, int n, int c, int h, int w) {
    for (int i = 0; i < n * c * h * w; i++) x[i] = (unsigned char)(i * 7919 % 251);
    for (int i = 0; i < n; i++) label[i] = i % 2;
    assert_int_equal(tn_data_from_arrays(d, n, 3, (int[]){c, h, w}, TN_U8, x, label, 2, NULL, 0, &err), 0);
}

static void bits(void **state) {
    enum { N = 40, LEN = 3 * 15 * 11 };
    static unsigned char x[N * LEN];
    static tn_real first[N * LEN], one[LEN];
    int label[N], idx[N];
    tn_data d;
    tn_augment a;
    (void)state;
    noise_set(&d, x, label, N, 3, 15, 11);
    tn_tape *t = tn_tape_new(&err);
    assert_int_equal(tn_augment_parse("shift=2,rotate=20,scale=0.1,elastic=1.5,smooth=4,flip=on", &a, &err),
                     0);
    memcpy(first, tn_batch_input_augmented(t, &d, &a, 5, 3, N, NULL, 0)->x, sizeof first);
    int threads = tn_threads();
    for (int k = 1; k <= 4; k++) {
        tn_set_threads(k);
        tn_tape_reset(t);
        assert_true(same_bits(tn_batch_input_augmented(t, &d, &a, 5, 3, N, NULL, 0)->x, first, N * LEN));
    }
    tn_set_threads(threads);
    for (int i = 0; i < N; i++) idx[i] = N - 1 - i; /* a sample's change does not depend on its batch */
    tn_t *y = tn_batch_input_augmented(t, &d, &a, 5, 3, N, idx, 0);
    for (int i = 0; i < N; i++) assert_true(same_bits(y->x + i * LEN, first + (N - 1 - i) * LEN, LEN));
    y = tn_batch_input_augmented(t, &d, &a, 5, 3, 1, NULL, 17);
    memcpy(one, y->x, sizeof one);
    assert_true(same_bits(one, first + 17 * LEN, LEN));
    /* but on the epoch, on the seed, and on the sample */
    assert_false(same_bits(tn_batch_input_augmented(t, &d, &a, 5, 4, 1, NULL, 17)->x, one, LEN));
    assert_false(same_bits(tn_batch_input_augmented(t, &d, &a, 6, 3, 1, NULL, 17)->x, one, LEN));
    /* nothing asked for: the plain batch; and no allocation once warm */
    assert_int_equal(tn_augment_parse("", &a, &err), 0);
    assert_false(tn_augment_any(&a));
    tn_t *plain = tn_batch_input(t, &d, N, idx, 0);
    assert_true(same_bits(tn_batch_input_augmented(t, &d, &a, 5, 3, N, idx, 0)->x, plain->x, plain->len));
    tn_augment_parse("elastic=1,rotate=5", &a, &err);
    long warm = 0;
    for (int k = 0; k < 5; k++) {
        tn_tape_reset(t);
        tn_batch_input_augmented(t, &d, &a, 5, k, N, NULL, 0);
        if (k == 1) warm = tn_tape_allocations(t);
    }
    assert_int_equal(tn_tape_allocations(t), warm);
    tn_tape_free(t);
}

static void meaning(void **state) {
    enum { N = 400, S = 21 };
    static unsigned char x[N * S * S];
    static int label[N];
    tn_data d;
    tn_augment a;
    (void)state;
    noise_set(&d, x, label, N, 1, S, S);
    tn_tape *t = tn_tape_new(&err);
    const tn_real unit = (tn_real)(1.0 / 255);
    /* shift: whole pixels, all of them as often, both ways, nothing else */
    int seen[5][5] = {{0}};
    tn_augment_parse("shift=2", &a, &err);
    tn_t *y = tn_batch_input_augmented(t, &d, &a, 1, 0, N, NULL, 0);
    for (int i = 0; i < N; i++)
        for (int dy = -2; dy <= 2; dy++)
            for (int dx = -2; dx <= 2; dx++) {
                int same = 1;
                for (int r = 2; r < S - 2 && same; r++)
                    for (int c = 2; c < S - 2 && same; c++)
                        same = fabs((double)(y->x[(i * S + r) * S + c]
                                             - unit * x[(i * S + r - dy) * S + c - dx]))
                               < 1e-6;
                seen[dy + 2][dx + 2] += same;
            }
    int sum = 0;
    for (int k = 0; k < 25; k++) {
        assert_true(seen[k / 5][k % 5] >= 4
                    && seen[k / 5][k % 5] <= 32); /* 16 expected, standard deviation 4 */
        sum += seen[k / 5][k % 5];
    }
    assert_int_equal(sum, N);
    /* flip: half of them mirrored, exactly */
    int flipped = 0;
    tn_augment_parse("flip=on", &a, &err);
    y = tn_batch_input_augmented(t, &d, &a, 1, 0, N, NULL, 0);
    for (int i = 0; i < N; i++) {
        int mirror = 1, plain = 1;
        for (int p = 0; p < S * S; p++) {
            double v = (double)y->x[i * S * S + p];
            plain &= fabs(v - (double)(unit * x[i * S * S + p])) < 1e-6;
            mirror &= fabs(v - (double)(unit * x[i * S * S + p / S * S + S - 1 - p % S])) < 1e-6;
        }
        assert_int_equal(plain + mirror, 1);
        flipped += mirror;
    }
    assert_true(flipped > 150 && flipped < 250);
    /*
     * A slope's value tells where it was read: v = 4 column + 4 row. Displacements: standard deviation as
     * asked for.
     */
    for (int i = 0; i < N; i++)
        for (int p = 0; p < S * S; p++) x[i * S * S + p] = (unsigned char)(4 * (p % S) + 4 * (p / S));
    tn_augment_parse("elastic=1.2,smooth=5", &a, &err);
    y = tn_batch_input_augmented(t, &d, &a, 3, 0, N, NULL, 0);
    double squares = 0, n = 0;
    for (int i = 0; i < N; i++)
        for (int r = 7; r < S - 7; r++)
            for (int c = 7; c < S - 7; c++, n++) {
                double moved =
                    (double)y->x[(i * S + r) * S + c] * 255 / 4 - r - c; /* of two directions together */
                squares += moved * moved / 2;
            }
    check_near_at(sqrt(squares / n), 1.2, 0.05, __FILE__, __LINE__);
    /* rotation about the middle by at most so much; a quarter turn is exact */
    tn_augment_parse("rotate=10", &a, &err);
    y = tn_batch_input_augmented(t, &d, &a, 3, 0, N, NULL, 0);
    double most = 0;
    for (int i = 0; i < N; i++) {
        check_near_at((double)y->x[(i * S + 10) * S + 10], 80 / 255.0, 1e-5, __FILE__, __LINE__);
        /* six to the right: 6 (cos - sin) = 6 sqrt(2) cos(angle + 45 degrees) from the middle's value */
        double up = (double)y->x[(i * S + 10) * S + 16] * 255 / 4 - 20;
        double angle = acos(up / (6 * sqrt(2))) * 180 / acos(-1) - 45;
        most = fabs(angle) > most ? fabs(angle) : most;
    }
    assert_true(most > 9.5 && most < 10.01);
    tn_tape_free(t);
}

static void options(void **state) {
    tn_augment a;
    char text[128];
    unsigned char x[4] = {0};
    int label[2] = {0, 1};
    tn_data d;
    (void)state;
    assert_int_equal(tn_augment_parse("rotte=3", &a, &err), -1);
    assert_contains(err.msg, "did you mean \"rotate\"");
    assert_int_equal(tn_augment_parse("rotate=400", &a, &err), -1);
    assert_int_equal(tn_augment_parse("smooth=4", &a, &err), -1);
    assert_contains(err.msg, "elastic");
    assert_int_equal(tn_augment_parse("shift=1,elastic=0.5,smooth=8", &a, &err), 0);
    assert_true(tn_opts_text(tn_augment_options(), &a, 0, text, sizeof text) > 0);
    assert_string_equal(text, "shift=1,elastic=0.5,smooth=8");
    assert_int_equal(tn_data_from_arrays(&d, 2, 1, (int[]){2}, TN_U8, x, label, 2, NULL, 0, &err), 0);
    assert_int_equal(tn_augment_check(&a, &d, &err), -1);
    assert_contains(err.msg, "no pictures");
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(bits), cmocka_unit_test(meaning),
                                       cmocka_unit_test(options)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

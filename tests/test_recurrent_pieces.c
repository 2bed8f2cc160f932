/* SPDX-License-Identifier: MIT */
/*
 * A recurrent layer goes backward chunk by chunk of its rows, and in a chunk piece by piece of its steps: the gradients by
 * all ways to them, the primitives' among them, where a piece or a chunk is the last, the only one, or of one step or
 * one row, and where the input of a chunk is mostly zeros or is not. Forward alone.
 */
#include "opcheck.h"
#include "recurrent_back.h"

enum { REVERSE = 1, LENGTHS = 2, LAST_ONLY = 4, ROWS_FIRST = 8, WAYS = 16 };

/* Two in three elements of the input are 0, but in some rows. */
static int kept(const op_case *c, int way, size_t i) {
    size_t in = (size_t)c->in[0].dim[2], inner = (size_t)c->in[0].dim[1];
    size_t row = way & ROWS_FIRST ? i / in / inner : i / in % inner;
    return i * 7 % 3 == 0 || (row >= 16 && row < 32);
}

static tn_t *apply(tn_t *const x[], const op_case *c) {
    int way = c->i[1];
    tn_t *mask = tn_new(x[0]->tape, 3, c->in[0].dim);
    for (size_t i = 0; i < mask->len; i++) mask->x[i] = kept(c, way, i);
    tn_t *in = tn_mul(x[0], tn_result(NULL, mask, 0, NULL, NULL, 0));
    int flags = (way & LAST_ONLY ? TN_LAST_ONLY : 0) | (way & ROWS_FIRST ? TN_ROWS_FIRST : 0);
    return tn_recurrent_run((tn_cell)c->i[0], in, NULL, NULL, x[1], x[2], x[3], x[4], c->idx, way & REVERSE,
                            flags);
}

static void check_size(int steps, int rows, int hidden, int way) {
    enum { IN = 9 };
    static int length[256];
    for (int i = 0; i < rows; i++) length[i] = 1 + i * 7 % steps;
    for (int cell = TN_RNN_TANH; cell <= TN_LSTM; cell++) {
        if (cell == TN_RNN_RELU) continue; /* some units would lie at the kink */
        int gates = cell == TN_LSTM  ? 4
                    : cell == TN_GRU ? 3
                                     : 1,
            states = (way & LAST_ONLY ? 0 : steps) + 1 + (cell == TN_LSTM);
        op_case c = {.name = "pieces",
                     .n = 5,
                     .lo = -0.3,
                     .hi = 0.3,
                     .out = SHAPE(states * rows * hidden),
                     .f = apply};
        c.in[0] = way & ROWS_FIRST ? (test_shape)SHAPE(rows, steps, IN) : (test_shape)SHAPE(steps, rows, IN);
        c.in[1] = (test_shape)SHAPE(gates * hidden, IN), c.in[2] = (test_shape)SHAPE(gates * hidden, hidden);
        c.in[3] = c.in[4] = (test_shape)SHAPE(gates * hidden);
        c.idx = way & LENGTHS ? length : NULL, c.i[0] = cell, c.i[1] = way;
        check_paths(&c);
    }
}

/* Of a chunk of 16 rows a piece is 7 steps, of one of 9 rows 12. */
static void pieces(void **unused) {
    (void)unused;
    static const int sizes[][3] = {
        {1, 3, 5},   /* one step */
        {3, 2, 5},   /* fewer rows than a piece */
        {7, 16, 17}, /* a piece */
        {8, 16, 5},  /* the last piece is one step, which begins with a state of zeros */
        {15, 17, 5}, /* two chunks, of 9 and 8 rows */
        {22, 1, 19}, /* one row */
        {16, 32, 3}, /* the input of the second chunk is not mostly zeros */
    };
    tn_recurrent sixteen = {.steps = 28, .each = 16};
    assert_int_equal(tn_recurrent_piece_steps(&sixteen), 7);
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int way = 0; way < WAYS; way++) check_size(sizes[s][0], sizes[s][1], sizes[s][2], way);
}

/* A leaf of values between -1 and 1. */
static tn_t *leaf(tn_tape *t, int nd, const int *dim, uint64_t seed) {
    tn_t *x = tn_new(t, nd, dim);
    double *u = malloc(x->len * sizeof *u);
    assert_non_null(u);
    golden_uniform(seed, 1, x->len, u);
    for (size_t i = 0; i < x->len; i++) x->x[i] = (tn_real)u[i];
    free(u);
    return tn_leaf(t, x->x, nd, dim);
}

/* Where no gradient can be asked for nothing is kept, and no bit of the result changes. */
static void forward_of(int rows, int ways) {
    enum { STEPS = 6, MOST = 300, IN = 9, HIDDEN = 37 };
    int length[MOST];
    for (int i = 0; i < rows; i++) length[i] = 1 + i * 7 % STEPS;
    for (int cell = TN_RNN_TANH; cell <= TN_LSTM; cell++)
        for (int way = 0; way < ways; way++) {
            tn_tape *t = tn_tape_new(NULL);
            int all = HIDDEN * (cell == TN_LSTM ? 4 : cell == TN_GRU ? 3 : 1), first = way & ROWS_FIRST;
            int x_dim[3] = {first ? rows : STEPS, first ? STEPS : rows, IN}, h_dim[2] = {rows, HIDDEN};
            tn_t *src[TN_RECURRENT_SRC] = {leaf(t, 3, x_dim, 1)};
            if (way & WAYS) { /* from a state */
                src[TN_SRC_H0] = leaf(t, 2, h_dim, 2);
                if (cell == TN_LSTM) src[TN_SRC_C0] = leaf(t, 2, h_dim, 3);
            }
            src[TN_SRC_WIH] = leaf(t, 2, (int[]){all, IN}, 4);
            src[TN_SRC_WHH] = leaf(t, 2, (int[]){all, HIDDEN}, 5);
            src[TN_SRC_BIH] = leaf(t, 1, &all, 6), src[TN_SRC_BHH] = leaf(t, 1, &all, 7);
            for (int i = 0; i < STEPS * 20 * IN; i++) /* of some chunks x is mostly 0 */
                if (i % 5) src[TN_SRC_X]->x[i] = 0;
            tn_t *y[2];
            for (int alone = 0; alone < 2; alone++) {
                tn_record(t, !alone);
                y[alone] = tn_recurrent_run(
                    (tn_cell)cell, src[TN_SRC_X], src[TN_SRC_H0], src[TN_SRC_C0], src[TN_SRC_WIH],
                    src[TN_SRC_WHH], src[TN_SRC_BIH], src[TN_SRC_BHH], way & LENGTHS ? length : NULL,
                    way & REVERSE, (way & LAST_ONLY ? TN_LAST_ONLY : 0) | (first ? TN_ROWS_FIRST : 0));
                const tn_recurrent *r = y[alone]->aux;
                assert_true(r->forward_only == alone && !alone == (y[alone]->needs != 0));
                if (alone) assert_null(r->kept);
            }
            assert_true(same_bits(y[0]->x, y[1]->x, y[0]->len));
            tn_tape_free(t);
        }
}

static void forward_alone(void **unused) {
    (void)unused;
    forward_of(35, 2 * WAYS);
    forward_of(259, 4); /* in taller chunks */
}

/* Sixteen chunks, two a group, the last of one row. */
static void last_row(void **unused) {
    (void)unused;
    enum { ROWS = 241 };
    tn_recurrent r = {.rows = ROWS, .each = 16};
    assert_int_equal(ROWS - tn_recurrent_row(&r, tn_recurrent_chunks(&r) - 1), 1);
    check_size(8, ROWS, 3, LENGTHS), check_size(8, ROWS, 3, LAST_ONLY | ROWS_FIRST);
}

/* More steps, rows and units than the other cases, in which all register tiles of the products are met. */
static void wide(void **unused) {
    (void)unused;
    check_size(9, 40, 131, LAST_ONLY), check_size(9, 18, 100, REVERSE | ROWS_FIRST);
}

int main(void) {
    const struct CMUnitTest all[] = {cmocka_unit_test(pieces), cmocka_unit_test(last_row),
                                     cmocka_unit_test(wide), cmocka_unit_test(forward_alone)};
    return cmocka_run_group_tests(all, NULL, NULL);
}

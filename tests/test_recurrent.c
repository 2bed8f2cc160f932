/* SPDX-License-Identifier: MIT */
/*
 * Recurrent layers: dropout between them, padding that must not be seen, the steps of a sequence one by one, panics.
 * Values and gradients: test_ops.c, test_golden_layers.c.
 */
#include "catch.h"
#include <math.h>
#include <stdlib.h>

typedef struct {
    tn_params *ps;
    tn_rnn l;
    tn_tape *t;
} rig;

static void rig_new(rig *r, tn_cell cell, int in, int hidden, int layers, int both, double dropout) {
    *r = (rig){.ps = tn_params_new(), .t = tn_tape_new(NULL)};
    r->l = tn_rnn_new(r->ps, "r", cell, in, hidden, layers, both, dropout);
    assert_int_equal(tn_params_seal(r->ps, 1, NULL), 0);
}

static void rig_free(rig *r) {
    tn_tape_free(r->t);
    tn_params_free(r->ps);
}

static tn_t *sequence(tn_tape *t, int steps, int rows, int in) {
    tn_t *x = tn_new(t, 3, (int[]){steps, rows, in});
    double *u = malloc(x->len * sizeof *u);
    golden_uniform(5, 1, x->len, u);
    for (size_t i = 0; i < x->len; i++) x->x[i] = (tn_real)u[i];
    free(u);
    return tn_result(NULL, x, 0, NULL, NULL, 0);
}

static void start(void **state) {
    (void)state;
    rig r;
    rig_new(&r, TN_GRU, 7, 5, 2, 1, 0);
    static const char *const names[] = {
        "r.weight_ih_l0",       "r.weight_hh_l0",         "r.bias_ih_l0",
        "r.bias_hh_l0",         "r.weight_ih_l0_reverse", "r.weight_hh_l0_reverse",
        "r.bias_ih_l0_reverse", "r.bias_hh_l0_reverse",   "r.weight_ih_l1"};
    double bound = 1 / sqrt(5), top = 0;
    for (int i = 0; i < 9; i++) assert_string_equal(tn_params_at(r.ps, i)->name, names[i]);
    assert_true(tn_params_at(r.ps, 0)->dim[0] == 15 && tn_params_at(r.ps, 0)->dim[1] == 7);
    assert_true(tn_params_at(r.ps, 8)->dim[1] == 10);
    for (int i = 0; i < tn_params_count(r.ps); i++) {
        const tn_param *p = tn_params_at(r.ps, i);
        assert_int_equal((p->flags & TN_NO_DECAY) != 0, p->nd == 1);
        for (size_t k = 0; k < p->len; k++) top = fmax(top, fabs((double)p->w[k]));
    }
    assert_true(top <= bound && top > 0.95 * bound);
    rig_free(&r);
}

/* Step by step with the state handed on: the same bits as the whole sequence. */
static void step_by_step(void **state) {
    (void)state;
    for (int cell = TN_RNN_TANH; cell <= TN_LSTM; cell++) {
        rig r;
        rig_new(&r, (tn_cell)cell, 3, 9, 2, 0, 0);
        tn_t *x = sequence(r.t, 4, 17, 3), *h = NULL, *c = NULL;
        tn_rnn_out all = tn_rnn_fwd(&r.l, x, NULL, NULL, NULL);
        for (int s = 0; s < 4; s++) {
            tn_rnn_out one = tn_rnn_fwd(&r.l, tn_slice(x, 0, s, s + 1), h, c, NULL);
            assert_true(same_bits(one.y->x, all.y->x + (size_t)s * one.y->len, one.y->len));
            h = one.h_n, c = one.c_n;
        }
        assert_true(same_bits(h->x, all.h_n->x, h->len));
        if (c) assert_true(same_bits(c->x, all.c_n->x, c->len));
        rig_free(&r);
    }
}

/*
 * Rows for more chunks than groups, the last chunk smaller than the others: the gradients are the sum of those of a few
 * rows at a time, each of which is one chunk.
 */
static void many_rows(void **state) {
    (void)state;
    enum { STEPS = 5, ROWS = 99, FEW = 9 };
    int length[ROWS];
    for (int i = 0; i < ROWS; i++) length[i] = 1 + i * 7 % STEPS;
    for (int cell = TN_RNN_TANH; cell <= TN_LSTM; cell++)
        for (int with = 0; with < 2; with++) {
            rig r;
            rig_new(&r, (tn_cell)cell, 3, 37, 1, 1, 0);
            size_t flat;
            tn_real *g = tn_params_flat_grad(r.ps, &flat), *kept = malloc(flat * sizeof *kept);
            tn_t *x = sequence(r.t, STEPS, ROWS, 3);
            for (int a = 0; a <= ROWS; a += a < ROWS ? FEW : 1) { /* a few rows, and at last all */
                tn_t *part = a < ROWS ? tn_slice(x, 1, a, a + FEW) : x;
                tn_rnn_out o = tn_rnn_fwd(&r.l, part, NULL, NULL, with ? length + a % ROWS : NULL);
                tn_backward(tn_add(tn_sum(tn_square(o.y)), tn_sum(tn_square(o.h_n))), r.ps,
                            a && a < ROWS ? TN_ACCUMULATE : 0);
                if (a + FEW == ROWS) memcpy(kept, g, flat * sizeof *kept);
            }
            double most = 0;
            for (size_t i = 0; i < flat; i++) most = fmax(most, fabs((double)kept[i]));
            assert_true(most > 1);
            for (size_t i = 0; i < flat; i++)
                assert_true(fabs((double)(g[i] - kept[i])) <= (sizeof *g == 8 ? 1e-13 : 2e-6) * most);
            free(kept);
            rig_free(&r);
        }
}

/* What stands beyond a row's length changes no bit of its results or of a gradient; outputs there are 0. */
static void padding_is_not_seen(void **state) {
    (void)state;
    static const int length[] = {3, 1, 5, 2};
    for (int cell = TN_RNN_TANH; cell <= TN_LSTM; cell++) {
        rig r;
        rig_new(&r, (tn_cell)cell, 3, 4, 2, 1, 0);
        size_t flat;
        tn_real *g = tn_params_flat_grad(r.ps, &flat), *kept = malloc(flat * sizeof *kept), *y[2];
        for (int pass = 0; pass < 2; pass++) {
            tn_t *x = sequence(r.t, 5, 4, 3);
            for (int s = 0; s < 5; s++)
                for (int i = 0; i < 4; i++)
                    for (int k = 0; pass && s >= length[i] && k < 3; k++)
                        x->x[(s * 4 + i) * 3 + k] = (tn_real)NAN;
            tn_rnn_out o = tn_rnn_fwd(&r.l, x, NULL, NULL, length);
            tn_backward(tn_add(tn_sum(tn_square(o.y)), tn_sum(tn_square(o.h_n))), r.ps, 0);
            y[pass] = o.y->x;
            for (int s = 0; s < 5; s++)
                for (int i = 0; i < 4; i++)
                    for (int k = 0; k < 8; k++)
                        if (s >= length[i])
                            assert_true(o.y->x[(s * 4 + i) * 8 + k] == 0);
                        else if (cell != TN_RNN_RELU)
                            assert_true(o.y->x[(s * 4 + i) * 8 + k] != 0);
            if (!pass)
                memcpy(kept, g, flat * sizeof *kept);
            else
                assert_true(same_bits(y[0], y[1], o.y->len) && same_bits(kept, g, flat));
        }
        free(kept);
        rig_free(&r);
    }
}

/* What classifiers take is the last layer's h_n, from a batch as it lies in memory; its gradients are the same. */
static void last_state(void **state) {
    (void)state;
    for (int cell = TN_RNN_TANH; cell <= TN_LSTM; cell++)
        for (int way = 0; way < 4; way++) {
            rig r;
            int both = way & 1, layers = way < 2 ? 1 : 2, n = 21, h = 35, steps = 4;
            rig_new(&r, (tn_cell)cell, 3, h, layers, both, 0);
            size_t flat;
            tn_real *g = tn_params_flat_grad(r.ps, &flat), *kept = malloc(flat * sizeof *kept);
            tn_t *x = sequence(r.t, n, steps, 3);
            tn_t *last = tn_rnn_last(&r.l, x);
            assert_true(last->nd == 2 && last->dim[0] == n && last->dim[1] == h * (1 + both));
            tn_backward(tn_sum(tn_square(last)), r.ps, 0);
            memcpy(kept, g, flat * sizeof *kept);
            tn_t *hn = tn_rnn_fwd(&r.l, tn_transpose(x, 0, 1), NULL, NULL, NULL).h_n;
            hn = tn_slice(hn, 0, (layers - 1) * (1 + both), layers * (1 + both));
            for (int d = 0; d <= both; d++)
                for (int i = 0; i < n; i++)
                    assert_true(
                        same_bits(last->x + (i * (1 + both) + d) * h, hn->x + (d * n + i) * h, (size_t)h));
            tn_backward(tn_sum(tn_square(hn)), r.ps, 0);
            assert_true(same_bits(kept, g, flat));
            free(kept);
            rig_free(&r);
        }
}

/* Parameter i of a layer of `in` inputs: the first `few` of its columns, side by side, or all of them. */
static size_t columns_of(const tn_param *p, const tn_real *from, int in, int few, tn_real *to) {
    if (p->nd == 1 || p->dim[1] != in) few = in = 1;
    for (size_t i = 0; i < p->len; i++)
        if ((int)(i % (size_t)in) < few) *to++ = from[i];
    return p->len / (size_t)in * (size_t)few;
}

/*
 * An input that is mostly 0, whose zeros are skipped, and the same with further inputs that are not, but whose weights are:
 * the same bits.
 */
static void zeros_of_the_input(void **state) {
    (void)state;
    enum { STEPS = 7, ROWS = 37, IN = 70, MORE = 3 * IN };
    int length[ROWS];
    for (int i = 0; i < ROWS; i++) length[i] = 1 + i * 5 % STEPS;
    for (int cell = TN_RNN_TANH; cell <= TN_LSTM; cell++)
        for (int with = 0; with < 2; with++) {
            rig r, s;
            rig_new(&r, (tn_cell)cell, IN, 43, 1, 1, 0), rig_new(&s, (tn_cell)cell, MORE, 43, 1, 1, 0);
            tn_t *x = sequence(r.t, STEPS, ROWS, IN), *more = sequence(s.t, STEPS, ROWS, MORE);
            for (size_t i = 0; i < x->len; i++) {
                if (i * 7 % 31 > 6 || i % IN == 2) x->x[i] = i % 2 ? 0 : (tn_real)-0.0;
                more->x[i / IN * MORE + i % IN] = x->x[i];
            }
            for (int i = 0; i < tn_params_count(r.ps); i++) {
                const tn_param *p = tn_params_at(r.ps, i), *q = tn_params_at(s.ps, i);
                for (size_t k = 0; k < q->len; k++)
                    if (q->nd == 1 || q->dim[1] != MORE)
                        q->w[k] = p->w[k];
                    else
                        q->w[k] = k % MORE < IN ? p->w[k / MORE * IN + k % MORE] : 0;
            }
            tn_rnn_out o = tn_rnn_fwd(&r.l, x, NULL, NULL, with ? length : NULL),
                       e = tn_rnn_fwd(&s.l, more, NULL, NULL, with ? length : NULL);
            tn_backward(tn_add(tn_sum(tn_square(o.y)), tn_sum(tn_square(o.h_n))), r.ps, 0);
            tn_backward(tn_add(tn_sum(tn_square(e.y)), tn_sum(tn_square(e.h_n))), s.ps, 0);
            int own = sizeof(tn_real) == 4 && tn_simd(NULL); /* OpenBLAS has no such order */
            if (own) assert_true(same_bits(o.y->x, e.y->x, o.y->len));
            for (int i = 0; i < tn_params_count(r.ps); i++) {
                const tn_param *p = tn_params_at(r.ps, i), *q = tn_params_at(s.ps, i);
                tn_real *got = malloc(p->len * sizeof *got), *want = malloc(p->len * sizeof *want);
                double most = 0;
                assert_int_equal(columns_of(p, p->g, IN, IN, got), p->len);
                assert_int_equal(columns_of(q, q->g, MORE, IN, want), p->len);
                for (size_t k = 0; k < p->len; k++) most = fmax(most, fabs((double)want[k]));
                assert_true(most > 0.01);
                if (own) assert_true(same_bits(got, want, p->len));
                for (size_t k = 0; k < p->len; k++)
                    assert_true(fabs((double)(got[k] - want[k])) <= (sizeof *got == 8 ? 1e-13 : 2e-6) * most);
                free(got), free(want);
            }
            rig_free(&r), rig_free(&s);
        }
}

/* 0 times an infinite weight, or times a gradient that is NaN, is NaN, though the zeros of an input are skipped. */
static void zeros_by_infinity(void **state) {
    (void)state;
    enum { STEPS = 3, ROWS = 20, IN = 28, H = 19 };
    for (int cell = TN_RNN_TANH; cell <= TN_LSTM; cell++) {
        rig r;
        rig_new(&r, (tn_cell)cell, IN, H, 1, 0, 0);
        tn_t *x = sequence(r.t, STEPS, ROWS, IN);
        for (size_t i = 0; i < x->len; i++)
            if (i % IN > 3) x->x[i] = 0;
        tn_rnn_out o = tn_rnn_fwd(&r.l, x, NULL, NULL, NULL);
        for (size_t i = 0; i < o.y->len; i++) assert_true(isfinite(o.y->x[i]));
        const tn_param *w = tn_params_at(r.ps, 0);
        tn_t *not_a_number = tn_full(r.t, (tn_real)NAN, 3, (int[]){STEPS, ROWS, H});
        tn_backward(tn_sum(tn_mul(o.y, not_a_number)), r.ps, 0);
        for (int i = 0; i < H; i++) assert_true(isnan(w->g[i * IN]) && isnan(w->g[i * IN + 20]));
        w->w[5 * IN + 20] = (tn_real)INFINITY;
        o = tn_rnn_fwd(&r.l, x, NULL, NULL, NULL);
        for (int i = 0; i < ROWS; i++) assert_true(isnan(o.y->x[i * H + 5]) && isfinite(o.y->x[i * H + 6]));
        rig_free(&r);
    }
}

/* Between the layers alone, by sequence: cut batches give the same masks. */
static void dropout_between(void **state) {
    (void)state;
    rig r, s;
    rig_new(&r, TN_LSTM, 3, 4, 2, 0, 0.5), rig_new(&s, TN_LSTM, 3, 4, 1, 0, 0.5);
    tn_t *x = sequence(r.t, 3, 6, 3);
    tn_rnn_out quiet = tn_rnn_fwd(&r.l, x, NULL, NULL, NULL);
    tn_train_mode(r.t, 9, 2, 0);
    tn_rnn_out all = tn_rnn_fwd(&r.l, x, NULL, NULL, NULL);
    assert_false(same_bits(all.y->x, quiet.y->x, all.y->len));
    assert_true(same_bits(all.h_n->x, quiet.h_n->x, 24)); /* the first layer has none */
    tn_train_mode(r.t, 9, 2, 4);
    tn_rnn_out end = tn_rnn_fwd(&r.l, tn_slice(x, 1, 4, 6), NULL, NULL, NULL);
    for (int t = 0; t < 3; t++) assert_true(same_bits(end.y->x + t * 8, all.y->x + t * 24 + 16, 8));
    tn_train_mode(s.t, 9, 2, 0);
    x = sequence(s.t, 3, 6, 3);
    all = tn_rnn_fwd(&s.l, x, NULL, NULL, NULL);
    tn_eval_mode(s.t);
    quiet = tn_rnn_fwd(&s.l, x, NULL, NULL, NULL);
    assert_true(same_bits(all.y->x, quiet.y->x, all.y->len)); /* one layer: nothing between */
    rig_free(&r), rig_free(&s);
}

/* 2 T N G H (I + H) forward; backward the same for the weights, the state, and the input if it needs one. */
static void operations(void **state) {
    (void)state;
    rig r;
    rig_new(&r, TN_LSTM, 3, 5, 1, 0, 0);
    double unit = 2.0 * 4 * 6 * 20;
    tn_rnn_fwd(&r.l, sequence(r.t, 4, 6, 3), NULL, NULL, NULL);
    assert_near(tn_tape_flops(r.t, 0), unit * 8, 0);
    assert_near(tn_tape_flops(r.t, 1), unit * (8 + 3 + 10), 0);
    tn_tape_reset(r.t);
    tn_real x[72] = {0};
    tn_rnn_fwd(&r.l, tn_leaf(r.t, x, 3, (int[]){4, 6, 3}), NULL, NULL, NULL);
    assert_near(tn_tape_flops(r.t, 1), unit * (8 + 6 + 10), 0);
    rig_free(&r);
}

static void nine_layers(void *unused) {
    (void)unused;
    tn_rnn_new(tn_params_new(), "r", TN_GRU, 2, 2, 9, 0, 0);
}

static void wrong_shapes(void **state) {
    (void)state;
    rig r;
    rig_new(&r, TN_GRU, 3, 4, 2, 0, 0);
    tn_tape *t = r.t;
    assert_panics(t, tn_rnn_fwd(&r.l, tn_full(t, 1, 2, (int[]){2, 3}), NULL, NULL, NULL), "tn_rnn_fwd",
                  "(steps, rows, in)", "2");
    assert_panics(t, tn_rnn_last(&r.l, tn_full(t, 1, 2, (int[]){2, 3})), "tn_rnn_last", "(rows, steps, in)",
                  "2");
    assert_panics(t, tn_rnn_fwd(&r.l, sequence(t, 2, 2, 5), NULL, NULL, NULL), "recurrent", "(12, 3)",
                  "input of 5");
    assert_panics(t, tn_rnn_fwd(&r.l, sequence(t, 2, 2, 3), tn_full(t, 0, 3, (int[]){1, 2, 4}), NULL, NULL),
                  "state", "(2, 2, 4)", "");
    assert_panics(t, tn_rnn_fwd(&r.l, sequence(t, 2, 2, 3), NULL, tn_full(t, 0, 3, (int[]){2, 2, 4}), NULL),
                  "LSTM", "cell", "");
    assert_panics(t, tn_rnn_fwd(&r.l, sequence(t, 2, 2, 3), NULL, NULL, (int[]){2, 3}), "length 3", "row 1",
                  "1 ... 2");
    assert_panics(t, tn_rnn_fwd(&r.l, sequence(t, 2, 2, 3), NULL, NULL, (int[]){0, 2}), "length 0", "row 0",
                  "1 ... 2");
    rig_free(&r);
    assert_true(panics(nine_layers, NULL, "9 layers"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(start),
        cmocka_unit_test(step_by_step),
        cmocka_unit_test(many_rows),
        cmocka_unit_test(padding_is_not_seen),
        cmocka_unit_test(last_state),
        cmocka_unit_test(dropout_between),
        cmocka_unit_test(operations),
        cmocka_unit_test(wrong_shapes),
        cmocka_unit_test(zeros_of_the_input),
        cmocka_unit_test(zeros_by_infinity),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

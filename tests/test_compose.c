/* SPDX-License-Identifier: MIT */
/* What is composed of primitives: values against loops in double, gradients of order 1 and 2, dropout's masks. */
#include "catch.h"
#include "opcheck.h"
#include <math.h>
#include <stdlib.h>

/* i[0]: what to apply, i[1]: axis or reduction; a: eps or delta */
enum {
    SUM,
    MEAN,
    SUM_AXIS,
    MEAN_AXIS,
    MAX_AXIS,
    SQUARE,
    NEG,
    GELU,
    GELU_TANH,
    SOFTMAX,
    LOG_SOFTMAX,
    LAYER_NORM,
    MSE,
    BCE,
    HUBER
};

static tn_t *apply(tn_t *const x[], const op_case *c) {
    tn_reduction r = (tn_reduction)c->i[1];
    switch (c->i[0]) {
    case SUM:
        return tn_sum(x[0]);
    case MEAN:
        return tn_mean(x[0]);
    case SUM_AXIS:
        return tn_sum_axis(x[0], c->i[1]);
    case MEAN_AXIS:
        return tn_mean_axis(x[0], c->i[1]);
    case MAX_AXIS:
        return tn_max_axis(x[0], c->i[1]);
    case SQUARE:
        return tn_square(x[0]);
    case NEG:
        return tn_neg(x[0]);
    case GELU:
        return tn_gelu(x[0]);
    case GELU_TANH:
        return tn_gelu_tanh(x[0]);
    case SOFTMAX:
        return tn_softmax(x[0]);
    case LOG_SOFTMAX:
        return tn_log_softmax(x[0]);
    case LAYER_NORM:
        return tn_layer_norm(x[0], c->n > 1 ? x[1] : NULL, c->n > 2 ? x[2] : NULL, c->a);
    case MSE:
        return tn_mse(x[0], x[1], r);
    case BCE:
        return tn_bce_with_logits(x[0], x[1], r);
    default:
        return tn_huber(x[0], x[1], c->a, r);
    }
}

/* x as (outer, n, inner) around an axis. */
static void axis_ref(const op_case *c, const double *const x[], double *y) {
    int nd = c->in[0].nd, axis = c->i[1] < 0 ? c->i[1] + nd : c->i[1], inner = 1, n = c->in[0].dim[axis];
    for (int d = axis + 1; d < nd; d++) inner *= c->in[0].dim[d];
    for (int i = 0; i < (int)shape_len(&c->out); i++) {
        double sum = 0, max = -INFINITY;
        for (int k = 0; k < n; k++) {
            double v = x[0][i / inner * n * inner + k * inner + i % inner];
            sum += v, max = fmax(max, v);
        }
        y[i] = c->i[0] == MAX_AXIS ? max : c->i[0] == SUM_AXIS ? sum : sum / n;
    }
}

static void element_ref(const op_case *c, const double *const x[], double *y) {
    for (size_t i = 0; i < shape_len(&c->in[0]); i++) {
        double v = x[0][i], t = tanh(sqrt(2 / 3.14159265358979323846) * (v + 0.044715 * v * v * v));
        y[i] = c->i[0] == SQUARE ? v * v
               : c->i[0] == NEG  ? -v
               : c->i[0] == GELU ? v / 2 * erfc(-v / sqrt(2))
                                 : v / 2 * (1 + t);
    }
}

static void total_ref(const op_case *c, const double *const x[], double *y) {
    size_t n = shape_len(&c->in[0]);
    y[0] = 0;
    for (size_t i = 0; i < n; i++) {
        double p = x[0][i], t = c->n > 1 ? x[1][i] : 0, d = fabs(p - t);
        switch (c->i[0]) {
        case MSE:
            y[0] += d * d;
            break;
        case BCE:
            y[0] -= t * log(1 / (1 + exp(-p))) + (1 - t) * log(1 / (1 + exp(p)));
            break;
        case HUBER:
            y[0] += d <= c->a ? d * d / 2 : c->a * (d - c->a / 2);
            break;
        default:
            y[0] += p;
        }
    }
    if (c->i[0] == MEAN || (c->n > 1 && c->i[1] == TN_MEAN)) y[0] /= (double)n;
}

static void row_ref(const op_case *c, const double *const x[], double *y) {
    int n = c->in[0].dim[c->in[0].nd - 1];
    for (size_t r = 0; r < shape_len(&c->in[0]) / (size_t)n; r++) {
        const double *row = x[0] + r * (size_t)n;
        double *out = y + r * (size_t)n, sum = 0, mean = 0, var = 0;
        for (int k = 0; k < n; k++) sum += exp(row[k]), mean += row[k] / n;
        for (int k = 0; k < n; k++) var += (row[k] - mean) * (row[k] - mean) / n;
        for (int k = 0; k < n; k++) {
            double z = (row[k] - mean) / sqrt(var + c->a);
            if (c->n > 1) z *= x[1][k];
            if (c->n > 2) z += x[2][k];
            out[k] = c->i[0] == SOFTMAX ? exp(row[k]) / sum : c->i[0] == LOG_SOFTMAX ? row[k] - log(sum) : z;
        }
    }
}

static const test_shape shapes[] = {SHAPE(1),    SHAPE(5),       SHAPE(3, 4),
                                    SHAPE(4, 1), SHAPE(2, 3, 4), SHAPE(2, 1, 3, 5)};

static void reductions(void **state) {
    (void)state;
    for (int s = 0; s < 6; s++) {
        for (int what = SUM; what <= MEAN; what++)
            check_op(&(op_case){.name = what == SUM ? "sum" : "mean",
                                .n = 1,
                                .in = {shapes[s]},
                                .out = SCALAR,
                                .f = apply,
                                .ref = total_ref,
                                .i = {what}});
        for (int axis = -shapes[s].nd; axis < shapes[s].nd; axis++)
            for (int what = SUM_AXIS; what <= MAX_AXIS; what++) {
                op_case c = {.name = what == SUM_AXIS    ? "sum_axis"
                                     : what == MEAN_AXIS ? "mean_axis"
                                                         : "max_axis",
                             .n = 1,
                             .in = {shapes[s]},
                             .out = shapes[s],
                             .f = apply,
                             .ref = axis_ref,
                             .i = {what, axis}};
                c.out.dim[axis < 0 ? axis + c.out.nd : axis] = 1;
                check_op(&c);
            }
    }
    for (int what = SUM; what <= MEAN; what++)
        check_op(&(op_case){.name = "scalar",
                            .n = 1,
                            .in = {SCALAR},
                            .out = SCALAR,
                            .f = apply,
                            .ref = total_ref,
                            .i = {what}});
}

static void elements_and_rows(void **state) {
    (void)state;
    static const char *const name[] = {
        [SQUARE] = "square",       [NEG] = "neg",         [GELU] = "gelu",
        [GELU_TANH] = "gelu_tanh", [SOFTMAX] = "softmax", [LOG_SOFTMAX] = "log_softmax"};
    for (int s = 0; s < 6; s++)
        for (int what = SQUARE; what <= LOG_SOFTMAX; what++)
            check_op(&(op_case){.name = name[what],
                                .n = 1,
                                .in = {shapes[s]},
                                .out = shapes[s],
                                .lo = -3,
                                .hi = 3,
                                .f = apply,
                                .ref = what < SOFTMAX ? element_ref : row_ref,
                                .i = {what}});
    for (int s = 1; s < 6; s++)
        for (int n = 1; n <= 3; n++) {
            int features = shapes[s].dim[shapes[s].nd - 1];
            check_op(&(op_case){.name = "layer_norm",
                                .n = n,
                                .in = {shapes[s], SHAPE(features), SHAPE(features)},
                                .out = shapes[s],
                                .a = 0.1,
                                .f = apply,
                                .ref = row_ref,
                                .i = {LAYER_NORM}});
        }
}

static void losses(void **state) {
    (void)state;
    static const char *const name[] = {[MSE] = "mse", [BCE] = "bce_with_logits", [HUBER] = "huber"};
    for (int s = 0; s < 6; s++)
        for (int what = MSE; what <= HUBER; what++)
            for (int r = TN_MEAN; r <= TN_SUM; r++)
                check_op(&(op_case){.name = name[what],
                                    .n = 2,
                                    .in = {shapes[s], shapes[s]},
                                    .out = SCALAR,
                                    .lo = -2,
                                    .hi = 2,
                                    .f = apply,
                                    .ref = total_ref,
                                    .i = {what, r},
                                    .a = 0.75});
    tn_tape *t = tn_tape_new(NULL);
#define COLUMN tn_full(t, 1, 2, (int[]){6, 1})
#define LINE   tn_full(t, 1, 1, (int[]){6})
    assert_panics(t, tn_mse(COLUMN, LINE, TN_MEAN), "mse", "(6, 1)", "(6,)");
    assert_panics(t, tn_bce_with_logits(COLUMN, LINE, TN_SUM), "bce_with_logits", "(6, 1)", "(6,)");
    assert_panics(t, tn_huber(COLUMN, LINE, 1, TN_MEAN), "huber", "(6, 1)", "(6,)");
    assert_panics(t, tn_huber(LINE, LINE, 0, TN_MEAN), "huber", "delta", "0");
    assert_panics(t, tn_layer_norm(COLUMN, LINE, NULL, 1e-5), "layer_norm", "(1,)", "");
    assert_panics(t, tn_sum_axis(LINE, 1), "sum_axis", "axis 1", "");
    assert_panics(t, tn_dropout(LINE, 1, "d"), "dropout", "1", "");
    tn_tape_free(t);
}

static void max_takes_the_first(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    tn_t *x = tn_leaf(t, (tn_real[]){1, 3, 3, 2, NAN, 5, NAN, 1, -INFINITY, -INFINITY, -INFINITY, -INFINITY},
                      2, (int[]){3, 4});
    tn_t *y = tn_max_axis(x, 1), *g;
    assert_true(y->x[0] == 3 && isnan(y->x[1]) && y->x[2] == -INFINITY);
    tn_grad(y, NULL, 1, &x, &g, 0);
    static const tn_real want[] = {0, 1, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0};
    assert_true(same_bits(g->x, want, 12));
    tn_t *far = tn_input(t, (tn_real[]){1000, 999, -1000, -1000}, 2, (int[]){2, 2}), *p = tn_softmax(far);
    assert_near((double)p->x[0], 1 / (1 + exp(-1)), 1e-6);
    assert_true(p->x[2] == 0.5 && p->x[3] == 0.5);
    tn_tape_free(t);
}

/* The mask of a row is a function of (seed, name, step, place of the row): not of how the batch is cut. */
static void dropout_masks(void **state) {
    (void)state;
    enum { ROWS = 40, COLS = 250, N = ROWS * COLS };
    tn_tape *t = tn_tape_new(NULL);
    tn_real *first = malloc(N * sizeof *first);
    tn_t *ones = tn_full(t, 1, 2, (int[]){ROWS, COLS});
    assert_ptr_equal(tn_dropout(ones, 0.3, "fc1"), ones); /* evaluation mode is the start */
    tn_train_mode(t, 5, 7, 0);
    assert_ptr_equal(tn_dropout(ones, 0, "fc1"), ones);
    memcpy(first, tn_dropout(ones, 0.3, "fc1")->x, N * sizeof *first);
    int kept = 0;
    for (int i = 0; i < N; i++) {
        assert_true(first[i] == 0 || first[i] == (tn_real)(1 / 0.7));
        kept += first[i] != 0;
    }
    assert_true(fabs(kept - 0.7 * N) < 4 * sqrt(N * 0.21));
    assert_true(same_bits(tn_dropout(ones, 0.3, "fc1")->x, first, N));
    static const struct {
        uint64_t seed;
        long step;
        int row;
        const char *name;
    } other[] = {{6, 7, 0, "fc1"}, {5, 8, 0, "fc1"}, {5, 7, 1, "fc1"}, {5, 7, 0, "fc2"}};
    for (int i = 0; i < 4; i++) {
        int agree = 0;
        tn_train_mode(t, other[i].seed, other[i].step, other[i].row);
        const tn_real *x = tn_dropout(ones, 0.3, other[i].name)->x;
        for (int k = 0; k < N; k++) agree += x[k] == first[k];
        assert_true(fabs(agree - 0.58 * N) < 4 * sqrt(N * 0.58 * 0.42)); /* independent: .49 + .09 */
    }
    tn_train_mode(t, 5, 7, 13); /* a micro-batch that begins at row 13 */
    tn_t *part = tn_dropout(tn_full(t, 1, 3, (int[]){ROWS - 13, 25, 10}), 0.3, "fc1");
    assert_true(same_bits(part->x, first + 13 * COLS, (ROWS - 13) * COLS));
    tn_t *x = tn_leaf(t, ones->x, 2, (int[]){ROWS, COLS}), *g;
    tn_train_mode(t, 5, 7, 0);
    tn_grad(tn_dropout(x, 0.3, "fc1"), NULL, 1, &x, &g, 0);
    assert_true(same_bits(g->x, first, N));
    free(first);
    tn_tape_free(t);
}

static void l2_penalty(void **state) {
    (void)state;
    tn_tape *t = tn_tape_new(NULL);
    tn_params *s = tn_params_new();
    tn_param_add(s, NULL, "w", 0, tn_init_const(3), 1, (int[]){2});
    tn_param_add(s, NULL, "v", 0, tn_init_const(-1), 0, NULL);
    tn_param_add(s, NULL, "bias", TN_NO_DECAY, tn_init_const(9), 0, NULL);
    tn_param_add(s, NULL, "mean", TN_BUFFER, tn_init_const(9), 0, NULL);
    assert_int_equal(tn_params_seal(s, 1, NULL), 0);
    assert_near(tn_value(tn_l2_penalty(t, s, 0.5)), 0.25 * 19, 1e-7);
    tn_params_free(s);
    s = tn_params_new();
    assert_int_equal(tn_params_seal(s, 1, NULL), 0);
    assert_true(tn_value(tn_l2_penalty(t, s, 0.5)) == 0);
    tn_params_free(s);
    tn_tape_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reductions),    cmocka_unit_test(elements_and_rows),
        cmocka_unit_test(losses),        cmocka_unit_test(max_takes_the_first),
        cmocka_unit_test(dropout_masks), cmocka_unit_test(l2_penalty),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

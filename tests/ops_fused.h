/* SPDX-License-Identifier: MIT */
/* Cases of test_ops.c: fused operations. */
#include "opcheck.h"
#include <math.h>

/* ---- linear_act: i[0] is the activation; the bias is the third input, if there is one ---- */

static tn_t *apply_linear_act(tn_t *const x[], const op_case *c) {
    return tn_linear_act(x[0], x[1], c->n > 2 ? x[2] : NULL, (tn_act)c->i[0]);
}

static double activated(int act, double z) {
    switch (act) {
    case TN_ACT_RELU:
        return z > 0 ? z : 0;
    case TN_ACT_TANH:
        return tanh(z);
    case TN_ACT_SIGMOID:
        return 1 / (1 + exp(-z));
    case TN_ACT_GELU:
        return z * 0.5 * (1 + erf(z * sqrt(0.5)));
    default:
        return z;
    }
}

static void linear_act_ref(const op_case *c, const double *const x[], double *y) {
    int n = c->in[0].dim[0], in = c->in[0].dim[1], out = c->in[1].dim[0];
    for (int r = 0; r < n; r++)
        for (int o = 0; o < out; o++) {
            double z = c->n > 2 ? x[2][o] : 0;
            for (int k = 0; k < in; k++) z += x[0][r * in + k] * x[1][o * in + k];
            y[r * out + o] = activated(c->i[0], z);
        }
}

static void case_linear_act(void **state) {
    (void)state;
    static const int sizes[][3] = {{1, 1, 1}, {3, 5, 4}, {4, 4, 4},  {1, 7, 10},
                                   {6, 1, 3}, {5, 3, 1}, {9, 17, 33}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int act = TN_ACT_NONE; act <= TN_ACT_GELU; act++)
            for (int bias = 0; bias < 2; bias++) {
                int n = sizes[s][0], in = sizes[s][1], out = sizes[s][2];
                op_case c = {.name = "linear_act",
                             .n = 2 + bias,
                             .in = {SHAPE(n, in), SHAPE(out, in), SHAPE(out)},
                             .out = SHAPE(n, out),
                             .f = apply_linear_act,
                             .ref = linear_act_ref,
                             .i = {act}};
                if (act != TN_ACT_RELU || n * out < 100)
                    check_op(&c);
                else
                    check_forward(&c); /* among so many some lie at the kink */
            }
}

/* ---- cross_entropy: a smoothing, i: ignored label or -1, weighted, reduction ---- */

static const tn_real weights_of_classes[] = {0.5f, 1.25f, 0.75f, 2, 0.25f, 1, 1.5f, 0.5f, 3, 0.125f};

static tn_t *apply_cross_entropy(tn_t *const x[], const op_case *c) {
    tn_ce_options o = {c->a, c->i[0] >= 0, c->i[0], c->i[1] ? weights_of_classes : NULL,
                       (tn_reduction)c->i[2]};
    return tn_cross_entropy(x[0], c->idx, &o);
}

/* PyTorch's definition, term by term. */
static void cross_entropy_ref(const op_case *c, const double *const x[], double *y) {
    int n = c->in[0].dim[0], k = c->in[0].dim[1];
    double sum = 0, count = 0;
    for (int r = 0; r < n; r++) {
        const double *row = x[0] + r * k;
        double total = 0, smooth = 0, w = c->i[1] ? (double)weights_of_classes[c->idx[r]] : 1;
        if (c->idx[r] == c->i[0]) continue;
        for (int j = 0; j < k; j++) total += exp(row[j]);
        for (int j = 0; j < k; j++)
            smooth += (c->i[1] ? (double)weights_of_classes[j] : 1) * (log(total) - row[j]);
        sum += (1 - c->a) * w * (log(total) - row[c->idx[r]]) + c->a / k * smooth;
        count += w;
    }
    y[0] = c->i[2] == TN_SUM ? sum : sum / count;
}

static void case_cross_entropy(void **state) {
    (void)state;
    static const int label[] = {2, 0, 1, 2, 1, 0, 2, 2, 1}, sizes[][2] = {{1, 3}, {4, 3}, {9, 10}, {2, 5}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int bits = 0; bits < 24; bits++) {
            op_case c = {.name = "cross_entropy",
                         .n = 1,
                         .in = {SHAPE(sizes[s][0], sizes[s][1])},
                         .out = SCALAR,
                         .lo = -3,
                         .hi = 3,
                         .f = apply_cross_entropy,
                         .ref = cross_entropy_ref,
                         .idx = label,
                         .a = (double[]){0, 0.25, 1}[bits / 8],
                         .i = {bits & 1 ? 0 : -1, bits >> 1 & 1, bits & 4 ? TN_SUM : TN_MEAN}};
            check_op(&c);
        }
    check_op(&(op_case){.name = "cross_entropy",
                        .n = 1,
                        .in = {SHAPE(3, 1)},
                        .out = SCALAR,
                        .i = {-1},
                        .f = apply_cross_entropy,
                        .ref = NULL,
                        .idx = (int[]){0, 0, 0}});
}

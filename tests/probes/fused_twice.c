/* SPDX-License-Identifier: MIT */
/*
 * A fused op differentiated twice: tn_linear_act has a numeric backward for training and, with
 * create_graph, goes through its primitive form; value, gradient and gradient of the gradient must equal
 * those of the primitives.
 */
#define TN_DOUBLE 1
#include "probe.h"
#include "tern.h"

enum { ROWS = 3, IN = 4, OUT = 2, BIG = ROWS * IN };

static tn_t *primitive(tn_t *x, tn_t *w, tn_t *b, tn_act act) {
    tn_t *y = tn_add(tn_matmul(x, w, 0, 1), b);
    switch (act) {
    case TN_ACT_RELU:
        return tn_relu(y);
    case TN_ACT_TANH:
        return tn_tanh(y);
    case TN_ACT_SIGMOID:
        return tn_sigmoid(y);
    case TN_ACT_GELU:
        return tn_gelu(y);
    default:
        return y;
    }
}

/* Value, three first and three second gradients into out, one after the other; returns how many numbers. */
static int derivatives(tn_tape *tape, int fused, int graph, tn_act act, double *out) {
    double v[BIG];
    for (int i = 0; i < BIG; i++) v[i] = sin(1.7 * i + 0.3);
    tn_tape_reset(tape);
    tn_t *s[] = {tn_leaf(tape, v, 2, (int[]){ROWS, IN}), tn_leaf(tape, v + 3, 2, (int[]){OUT, IN}),
                 tn_leaf(tape, v + 1, 1, (int[]){OUT})};
    tn_t *y = fused ? tn_linear_act(s[0], s[1], s[2], act) : primitive(s[0], s[1], s[2], act);
    tn_t *loss = tn_sum(tn_mul(tn_square(y), tn_exp(y))), *g[3], *gg[3];
    int n = 0;
    out[n++] = tn_value(loss);
    tn_grad(loss, NULL, 3, s, g, graph);
    for (int i = 0; i < 3; i++)
        for (size_t k = 0; k < g[i]->len; k++) out[n++] = g[i]->x[k];
    if (!graph) return n;
    tn_t *norm = tn_add(tn_sum(tn_square(g[0])), tn_add(tn_sum(tn_square(g[1])), tn_sum(tn_square(g[2]))));
    tn_grad(norm, NULL, 3, s, gg, 0);
    for (int i = 0; i < 3; i++)
        for (size_t k = 0; k < gg[i]->len; k++) out[n++] = gg[i]->x[k];
    return n;
}

int main(void) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    for (int act = TN_ACT_NONE; act <= TN_ACT_GELU; act++) {
        double want[64], fused[64], numeric[64];
        int n = derivatives(tape, 0, 1, (tn_act)act, want);
        EXPECT(derivatives(tape, 1, 1, (tn_act)act, fused) == n, "not the same shapes");
        int first = derivatives(tape, 1, 0, (tn_act)act, numeric);
        for (int i = 0; i < n; i++)
            EXPECT(probe_close(fused[i], want[i], 1e-12), "activation %d, number %d: %.15g, primitives %.15g",
                   act, i, fused[i], want[i]);
        for (int i = 0; i < first; i++)
            EXPECT(probe_close(numeric[i], want[i], 1e-12),
                   "activation %d, backward %d: %.15g, primitives %.15g", act, i, numeric[i], want[i]);
        EXPECT(want[n - 1] != 0, "second gradient is zero");
    }
    tn_tape_free(tape);
    return 0;
}

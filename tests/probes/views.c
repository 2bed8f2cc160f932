/* SPDX-License-Identifier: MIT */
/*
 * An op with several outputs and an optional source, defined outside the tree: one buffer holds sin x and
 * cos x (times an optional gain), slices of it are the outputs; a fused op has expand and a numeric bwd, and
 * both give the same gradients, also when only one output is used or the tape records nothing.
 */
#define TN_DOUBLE 1
#include "probe.h"
#include "tern.h"

enum { N = 4 };
typedef struct {
    tn_t *sine, *cosine;
} pair;

/* The primitive that the fused form expands to: cos by its Taylor series, sin likewise, from powers of x. */
static tn_t *series(tn_t *x, int first) {
    tn_t *term = first ? x : tn_full(x->tape, 1, x->nd, x->dim), *sum = term;
    for (int k = first + 1; k < 30; k += 2)
        sum = tn_add(sum, term = tn_scale(tn_mul(term, tn_square(x)), -1. / (k * (k + 1))));
    return sum;
}
static tn_t *both_expand(tn_t *y) {
    tn_t *out = tn_concat(2, (tn_t *[]){series(y->src[0], 1), series(y->src[0], 0)}, 0);
    return y->src[1] ? tn_mul(out, y->src[1]) : out;
}
static void both_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const int *n = y->aux;
    const tn_real *x = y->src[0]->x, gain = y->src[1] ? y->src[1]->x[0] : 1;
    for (int i = 0; need & 1 && i < *n; i++)
        gx[0][i] = (add & 1 ? gx[0][i] : 0) + gain * (gy[i] * cos(x[i]) - gy[*n + i] * sin(x[i]));
    if (!(need & 2)) return;
    tn_real sum = add & 2 ? gx[1][0] : 0;
    for (int i = 0; i < 2 * *n; i++) sum += gy[i] * y->x[i] / gain;
    gx[1][0] = sum;
}
static const tn_op both_op = {.name = "sincos", .expand = both_expand, .bwd = both_bwd};
static pair sincos_of(tn_t *x, tn_t *gain) {
    int n = (int)x->len, twice = 2 * n;
    tn_t *y = tn_new(x->tape, 1, &twice), *src[] = {x, gain};
    for (int i = 0; i < n; i++) {
        y->x[i] = sin(x->x[i]) * (gain ? gain->x[0] : 1);
        y->x[n + i] = cos(x->x[i]) * (gain ? gain->x[0] : 1);
    }
    y = tn_result(&both_op, y, 2, src, &n, sizeof n);
    return (pair){tn_slice(y, 0, 0, n), tn_slice(y, 0, n, twice)};
}

int main(void) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    static const double v[N] = {-1.2, 0.1, 0.8, 2.3};
    tn_t *x = tn_leaf(tape, v, 1, (int[]){N}), *gain = tn_leaf(tape, (double[]){1.5}, 1, (int[]){1});
    tn_t *wrt[] = {x, gain}, *g[2], *gg[2];
    pair p = sincos_of(x, gain);
    EXPECT(p.cosine->x == p.sine->x + N, "outputs are not views of one buffer");
    tn_t *loss = tn_sum(tn_mul(p.sine, tn_square(p.cosine))); /* gain^3 sin cos^2 */
    for (int graph = 0; graph < 2; graph++) {
        tn_grad(loss, NULL, 2, wrt, g, graph);
        double dgain = 0;
        for (int i = 0; i < N; i++) {
            double s = sin(v[i]), c = cos(v[i]), c3 = 1.5 * 1.5 * 1.5;
            dgain += 3 * 1.5 * 1.5 * s * c * c;
            EXPECT(fabs(g[0]->x[i] - c3 * (c * c * c - 2 * s * s * c)) < 1e-12, "gradient %d, graph %d", i,
                   graph);
        }
        EXPECT(fabs(g[1]->x[0] - dgain) < 1e-12, "gradient of the gain: %.15g, want %.15g", g[1]->x[0],
               dgain);
    }
    tn_grad(tn_sum(g[0]), NULL, 2, wrt, gg, 0); /* second order, through expand */
    for (int i = 0; i < N; i++) {
        double s = sin(v[i]), c = cos(v[i]), want = 3.375 * (2 * s * s * s - 7 * s * c * c);
        EXPECT(fabs(gg[0]->x[i] - want) < 1e-11, "second derivative %d: %.15g, want %.15g", i, gg[0]->x[i],
               want);
    }
    p = sincos_of(x, NULL); /* the optional source is absent, one output is not used */
    for (int graph = 0; graph < 2; graph++) {
        tn_grad(tn_sum(p.cosine), NULL, 1, &x, g, graph);
        for (int i = 0; i < N; i++)
            EXPECT(fabs(g[0]->x[i] + sin(v[i])) < 1e-13, "one output alone, %d, graph %d", i, graph);
    }
    tn_tape_free(tape);
    return 0;
}

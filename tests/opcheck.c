/* SPDX-License-Identifier: MIT */
/* Checks of one operation; see opcheck.h. */
#include "opcheck.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    EVERY = 48,
    DIRECTIONS = 10
}; /* up to EVERY elements are moved one by one, more along random directions */

size_t shape_len(const test_shape *s) {
    size_t n = 1;
    for (int i = 0; i < s->nd; i++) n *= (size_t)s->dim[i];
    return n;
}

/* Block i < n: input i; block n: v, the weights of the projection. The last input block is that of u, at order 2. */
typedef struct {
    const op_case *c;
    tn_tape *tape;
    size_t len[MAX_INPUTS + 1];
    tn_real *x[MAX_INPUTS + 1], *u[MAX_INPUTS];
} bench;

static uint64_t seed_of(const char *name, int block) {
    uint64_t h = 1469598103934665603u;
    for (; *name; name++) h = (h ^ (unsigned char)*name) * 1099511628211u;
    return h + (uint64_t)block * 1000003u;
}

static tn_real *draw(const char *name, int block, size_t n, double lo, double hi, double gap) {
    double *u = malloc(n * sizeof *u);
    tn_real *x = malloc(n * sizeof *x);
    assert_true(u && x);
    golden_uniform(seed_of(name, block), 1, n, u);
    for (size_t i = 0; i < n; i++) {
        double v = (lo + hi) / 2 + (hi - lo) / 2 * u[i];
        x[i] = (tn_real)(fabs(v) >= gap ? v : v < 0 ? v - gap : v + gap);
    }
    free(u);
    return x;
}

static bench bench_new(const op_case *c) {
    bench b = {.c = c, .tape = tn_tape_new(NULL)};
    double lo = c->lo, hi = c->hi;
    assert_non_null(b.tape);
    if (lo == 0 && hi == 0) lo = -1, hi = 1;
    for (int i = 0; i <= c->n; i++) {
        b.len[i] = shape_len(i < c->n ? &c->in[i] : &c->out);
        b.x[i] =
            i < c->n ? draw(c->name, i, b.len[i], lo, hi, c->gap) : draw(c->name, i, b.len[i], -1, 1, 0.1);
        if (i < c->n) b.u[i] = draw(c->name, 10 + i, b.len[i], -1, 1, 0.1);
    }
    return b;
}

static void bench_free(bench *b) {
    tn_tape_free(b->tape);
    for (int i = 0; i <= b->c->n; i++) free(b->x[i]);
    for (int i = 0; i < b->c->n; i++) free(b->u[i]);
}

/* Leaves of all blocks, or an input where the bit of the block is not set. */
static void put_inputs(bench *b, tn_t *x[], unsigned leaves) {
    tn_tape_reset(b->tape);
    for (int i = 0; i <= b->c->n; i++) {
        const test_shape *s = i < b->c->n ? &b->c->in[i] : &b->c->out;
        x[i] = (leaves >> i & 1 ? tn_leaf : tn_input)(b->tape, b->x[i], s->nd, s->dim);
    }
}

static tn_t *projected(bench *b, tn_t *x[]) {
    return tn_sum(tn_mul(x[b->c->n], b->c->f(x, b->c)));
}

static tn_t *function(bench *b, tn_t *x[], int order) {
    tn_t *s = projected(b, x), *g[MAX_INPUTS], *q = NULL;
    if (order == 1) return s;
    tn_grad(s, NULL, b->c->n, x, g, 1);
    for (int i = 0; i < b->c->n; i++) {
        tn_t *part = tn_sum(tn_mul(g[i], tn_input(b->tape, b->u[i], b->c->in[i].nd, b->c->in[i].dim)));
        q = q ? tn_add(q, part) : part;
    }
    return q;
}

static double value_along(bench *b, int block, const double *direction, double step, int order) {
    tn_t *x[MAX_INPUTS + 1];
    put_inputs(b, x, ~0u);
    for (size_t j = 0; j < b->len[block]; j++) x[block]->x[j] += (tn_real)(step * direction[j]);
    return tn_value(function(b, x, order));
}

static double difference(bench *b, int block, const double *d, int order) {
    const double h = 1e-3;
    double near = value_along(b, block, d, h, order) - value_along(b, block, d, -h, order);
    double far = value_along(b, block, d, 2 * h, order) - value_along(b, block, d, -2 * h, order);
    return (8 * near - far) / (12 * h);
}

double gradient_error(const op_case *c, int order) {
    bench b = bench_new(c);
    tn_t *x[MAX_INPUTS + 1], *g[MAX_INPUTS + 1];
    double worst = 0, *grad[MAX_INPUTS + 1];
    put_inputs(&b, x, ~0u);
    tn_grad(function(&b, x, order), NULL, c->n + 1, x, g, 0);
    for (int i = 0; i <= c->n; i++) {
        grad[i] = malloc(b.len[i] * sizeof(double));
        for (size_t j = 0; j < b.len[i]; j++) grad[i][j] = (double)g[i]->x[j];
    }
    for (int i = 0; i <= c->n; i++) {
        size_t n = b.len[i], tries = n <= EVERY ? n : DIRECTIONS;
        double top = 0.1, *d = malloc(n * sizeof *d);
        for (size_t j = 0; j < n; j++) top = fmax(top, fabs(grad[i][j]));
        for (size_t k = 0; k < tries; k++) {
            double along = 0, norm = 0;
            if (n > EVERY)
                golden_uniform(seed_of(c->name, 100 + i) + k * 7919, 1, n, d);
            else
                for (size_t j = 0; j < n; j++) d[j] = j == k;
            for (size_t j = 0; j < n; j++) along += d[j] * grad[i][j], norm += d[j] * d[j];
            double e = fabs(along - difference(&b, i, d, order)) / (top * sqrt(norm));
            worst = e >= 0 ? fmax(worst, e) : INFINITY;
        }
        free(d);
    }
    for (int i = 0; i <= c->n; i++) free(grad[i]);
    bench_free(&b);
    return worst;
}

double forward_error(const op_case *c) {
    bench b = bench_new(c);
    tn_t *x[MAX_INPUTS + 1];
    double *in[MAX_INPUTS], *want = malloc(b.len[c->n] * sizeof *want), top = 0.01, worst = 0;
    put_inputs(&b, x, ~0u);
    for (int i = 0; i < c->n; i++) {
        in[i] = malloc(b.len[i] * sizeof(double));
        for (size_t j = 0; j < b.len[i]; j++) in[i][j] = (double)b.x[i][j];
    }
    c->ref(c, (const double *const *)in, want);
    const tn_t *y = c->f(x, c);
    if (!tn_same_shape(y, x[c->n])) worst = INFINITY;
    for (size_t j = 0; worst < INFINITY && j < b.len[c->n]; j++) {
        double e = fabs((double)y->x[j] - want[j]);
        top = fmax(top, fabs(want[j]));
        worst = e >= 0 ? fmax(worst, e) : INFINITY;
    }
    for (int i = 0; i < c->n; i++) {
        for (size_t j = 0; j < b.len[i]; j++)
            if ((double)b.x[i][j] != (double)x[i]->x[j])
                worst = INFINITY; /* an op must not write to its sources */
        free(in[i]);
    }
    free(want);
    bench_free(&b);
    return worst / top;
}

static double apart(const tn_real *a, const tn_real *b, size_t n) {
    double top = 0.1, worst = 0;
    for (size_t j = 0; j < n; j++) {
        double e = fabs((double)a[j] - (double)b[j]);
        top = fmax(top, fabs((double)b[j]));
        worst = e >= 0 ? fmax(worst, e) : INFINITY;
    }
    return worst / top;
}

/* The same tensor as every input: its gradient is the sum of the gradients for inputs with equal values. */
static double repeated_error(bench *b, unsigned all) {
    const op_case *c = b->c;
    tn_t *x[MAX_INPUTS + 1], *g[MAX_INPUTS + 1], *same[MAX_INPUTS + 1];
    for (int i = 1; i < c->n; i++)
        if (c->in[i].nd != c->in[0].nd || memcmp(c->in[i].dim, c->in[0].dim, sizeof c->in[0].dim)) return 0;
    if (c->n < 2) return 0;
    double worst = 0;
    for (int graph = 0; graph < 2; graph++) {
        put_inputs(b, x, all);
        for (int i = 0; i < c->n; i++) {
            memcpy(x[i]->x, b->x[0], b->len[0] * sizeof(tn_real));
            same[i] = x[0];
        }
        same[c->n] = x[c->n];
        tn_t *y = projected(b, x), *z = projected(b, same), *one;
        tn_grad(y, NULL, c->n, x, g, 0);
        tn_grad(z, NULL, 1, x, &one, graph);
        for (int i = 1; i < c->n; i++)
            for (size_t j = 0; j < b->len[0]; j++) g[0]->x[j] += g[i]->x[j];
        worst = fmax(worst, apart(one->x, g[0]->x, b->len[0]));
    }
    return worst;
}

double path_error(const op_case *c) {
    bench b = bench_new(c);
    tn_t *x[MAX_INPUTS + 1], *g[MAX_INPUTS + 1], *r[MAX_INPUTS + 1];
    unsigned all = (1u << (c->n + 1)) - 1;
    double worst = repeated_error(&b, all);
    put_inputs(&b, x, all);
    tn_t *s = projected(&b, x);
    tn_grad(s, NULL, c->n + 1, x, g, 0);
    tn_grad(s, NULL, c->n + 1, x, r, 1);
    for (int i = 0; i <= c->n; i++) worst = fmax(worst, apart(r[i]->x, g[i]->x, b.len[i]));
    tn_t *more = s; /* what comes later on the tape puts its gradient there first */
    for (int i = 0; i < c->n; i++)
        more = tn_add(more, tn_sum(tn_mul(x[i], tn_input(b.tape, b.u[i], c->in[i].nd, c->in[i].dim))));
    tn_grad(more, NULL, c->n + 1, x, r, 0);
    for (int i = 0; i < c->n; i++) {
        tn_real *want = tn_scratch(b.tape, b.len[i] * sizeof *want);
        for (size_t j = 0; j < b.len[i]; j++) want[j] = g[i]->x[j] + b.u[i][j];
        worst = fmax(worst, apart(r[i]->x, want, b.len[i]));
    }
    for (int i = 0; i < c->n; i++) { /* alone among constants, and alone among leaves */
        tn_real *want = malloc(b.len[i] * sizeof *want);
        for (int constants = 0; constants < 2; constants++) {
            put_inputs(&b, x, all);
            tn_grad(projected(&b, x), NULL, c->n + 1, x, g, 0);
            memcpy(want, g[i]->x, b.len[i] * sizeof *want);
            put_inputs(&b, x, constants ? 1u << i : all);
            tn_grad(projected(&b, x), NULL, 1, &x[i], r, 0);
            worst = fmax(worst, apart(r[0]->x, want, b.len[i]));
        }
        free(want);
    }
    bench_free(&b);
    return worst;
}

static void below(const op_case *c, const char *what, double e, double limit) {
    if (e <= limit) return;
    fail_msg("%s: %s off by %.3g, more than %.3g", c->name, what, e, limit);
}

void check_forward(const op_case *c) {
    below(c, "value", forward_error(c), sizeof(tn_real) == 8 ? 1e-12 : 1e-5);
}

void check_paths(const op_case *c) {
    if (c->ref) check_forward(c);
    below(c, "one of the ways to the gradient", path_error(c), sizeof(tn_real) == 8 ? 1e-12 : 1e-5);
}

void check_op(const op_case *c) {
    check_paths(c);
    if (sizeof(tn_real) < 8) return;
    below(c, "gradient", gradient_error(c, 1), 1e-7);
    below(c, "gradient of the gradient", gradient_error(c, 2), 1e-7);
}

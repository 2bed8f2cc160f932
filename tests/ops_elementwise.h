/* SPDX-License-Identifier: MIT */
/* Cases of test_ops.c: elementwise operations of one and of two tensors. */
#include "opcheck.h"
#include <math.h>

/* ---- two tensors ---- */

static tn_t *apply_binary(tn_t *const x[], const op_case *c) {
    return c->binary(x[0], x[1]);
}

/* The element of x that broadcasting puts at this place of a result of shape out. */
static double stretched(const double *x, const test_shape *s, const test_shape *out, size_t at) {
    size_t index = 0, step = 1;
    for (int k = 0; k < out->nd; k++) {
        int o = out->nd - 1 - k, i = s->nd - 1 - k;
        size_t place = at % (size_t)out->dim[o];
        at /= (size_t)out->dim[o];
        if (i < 0) continue;
        if (s->dim[i] > 1) index += place * step;
        step *= (size_t)s->dim[i];
    }
    return x[index];
}

static void binary_ref(const op_case *c, const double *const x[], double *y) {
    for (size_t i = 0; i < shape_len(&c->out); i++)
        y[i] = c->scalar(c, stretched(x[0], &c->in[0], &c->out, i), stretched(x[1], &c->in[1], &c->out, i));
}

static void binary_cases(const char *name, tn_t *(*f)(tn_t *, tn_t *),
                         double (*scalar)(const op_case *, double, double), double lo, double hi,
                         double gap) {
    static const test_shape shapes[][3] = {
        {SHAPE(2, 3), SHAPE(2, 3), SHAPE(2, 3)},
        {SCALAR, SCALAR, SCALAR},
        {SCALAR, SHAPE(3), SHAPE(3)},
        {SHAPE(1), SHAPE(5), SHAPE(5)},
        {SHAPE(4, 1, 3), SHAPE(2, 1), SHAPE(4, 2, 3)},
        {SHAPE(2, 3, 2, 5), SHAPE(2, 5), SHAPE(2, 3, 2, 5)},
        {SHAPE(3, 1), SHAPE(1, 4), SHAPE(3, 4)},
        {SHAPE(2, 1, 2, 1), SHAPE(1, 3, 1, 2), SHAPE(2, 3, 2, 2)},
        {SHAPE(7, 13), SHAPE(13), SHAPE(7, 13)},
        {SHAPE(7, 13), SHAPE(7, 1), SHAPE(7, 13)},
        {SHAPE(1, 1, 1, 1), SHAPE(2), SHAPE(1, 1, 1, 2)},
        {SHAPE(37), SHAPE(37), SHAPE(37)},
        {SHAPE(2, 3, 4), SHAPE(2, 1, 4), SHAPE(2, 3, 4)},
        {SHAPE(3, 2, 2), SHAPE(3, 1, 1), SHAPE(3, 2, 2)},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int swap = 0; swap < 2; swap++) {
            op_case c = {.name = name,
                         .n = 2,
                         .in = {shapes[i][swap], shapes[i][!swap]},
                         .out = shapes[i][2],
                         .lo = lo,
                         .hi = hi,
                         .gap = gap,
                         .f = apply_binary,
                         .ref = binary_ref,
                         .binary = f,
                         .scalar = scalar};
            check_op(&c);
        }
}

#define BINARY(op, lo, hi, gap, expression)                           \
    static double scalar_##op(const op_case *c, double a, double b) { \
        (void)c;                                                      \
        return expression;                                            \
    }                                                                 \
    static void case_##op(void **state) {                             \
        (void)state;                                                  \
        binary_cases(#op, tn_##op, scalar_##op, lo, hi, gap);         \
    }
BINARY(add, -2, 2, 0, a + b)
BINARY(sub, -2, 2, 0, a - b)
BINARY(mul, -2, 2, 0, a *b)
BINARY(div, -2, 2, 0.5, a / b)
BINARY(maximum, -2, 2, 0, a > b ? a : b)
BINARY(minimum, -2, 2, 0, a < b ? a : b)

/* ---- one tensor ---- */

static tn_t *apply_unary(tn_t *const x[], const op_case *c) {
    return c->unary(x[0]);
}

static void unary_ref(const op_case *c, const double *const x[], double *y) {
    for (size_t i = 0; i < shape_len(&c->out); i++) y[i] = c->scalar(c, x[0][i], 0);
}

static void unary_cases(const op_case *like) {
    static const test_shape shapes[] = {SCALAR,      SHAPE(1),          SHAPE(7),
                                        SHAPE(3, 5), SHAPE(2, 3, 1, 4), SHAPE(33)};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        op_case c = *like;
        c.n = 1, c.in[0] = c.out = shapes[i], c.ref = unary_ref;
        check_op(&c);
    }
    op_case large = *like; /* several chunks of work, and a rest */
    large.n = 1, large.in[0] = large.out = (test_shape)SHAPE(3, 12345), large.ref = unary_ref;
    check_forward(&large);
}

#define UNARY(op, low, high, distance, expression)                         \
    static double scalar_##op(const op_case *c, double x, double unused) { \
        (void)c, (void)unused;                                             \
        return expression;                                                 \
    }                                                                      \
    static void case_##op(void **state) {                                  \
        (void)state;                                                       \
        unary_cases(&(op_case){.name = #op,                                \
                               .lo = low,                                  \
                               .hi = high,                                 \
                               .gap = distance,                            \
                               .f = apply_unary,                           \
                               .unary = tn_##op,                           \
                               .scalar = scalar_##op});                    \
    }
UNARY(exp, -3, 3, 0, exp(x))
UNARY(log, 0.4, 4, 0, log(x))
UNARY(sqrt, 0.4, 4, 0, sqrt(x))
UNARY(tanh, -3, 3, 0, tanh(x))
UNARY(sigmoid, -4, 4, 0, 1 / (1 + exp(-x)))
UNARY(erf, -4, 4, 0, erf(x))
UNARY(softplus, -4, 4, 0, log1p(exp(x)))
UNARY(relu, -2, 2, 0.05, x > 0 ? x : 0)
UNARY(step, -2, 2, 0.05, x > 0)
UNARY(sign, -2, 2, 0.05, (x > 0) - (x < 0))
UNARY(abs, -2, 2, 0.05, fabs(x))

/* With arguments a and b. */
#define UNARY_ARGS(op, call, expression)                                         \
    static tn_t *apply_##op(tn_t *const x[], const op_case *c) {                 \
        return call;                                                             \
    }                                                                            \
    static double scalar_##op(const op_case *c, double x, double unused) {       \
        (void)unused;                                                            \
        return expression;                                                       \
    }                                                                            \
    static void try_##op(double lo, double hi, double gap, double a, double b) { \
        unary_cases(&(op_case){.name = #op,                                      \
                               .lo = lo,                                         \
                               .hi = hi,                                         \
                               .gap = gap,                                       \
                               .f = apply_##op,                                  \
                               .a = a,                                           \
                               .b = b,                                           \
                               .scalar = scalar_##op});                          \
    }
UNARY_ARGS(scale, tn_scale(x[0], c->a), x *(tn_real)c->a)
UNARY_ARGS(shift, tn_shift(x[0], c->a), x + (tn_real)c->a)
UNARY_ARGS(pow, tn_pow(x[0], c->a), pow(x, c->a))
UNARY_ARGS(clamp, tn_clamp(x[0], c->a, c->b), x<c->a ? c->a : x> c->b ? c->b : x)

static void case_scale(void **state) {
    (void)state;
    try_scale(-2, 2, 0, 0.37, 0), try_scale(-2, 2, 0, -1, 0), try_scale(-2, 2, 0, 0, 0);
}

static void case_shift(void **state) {
    (void)state;
    try_shift(-2, 2, 0, 0.37, 0), try_shift(-2, 2, 0, -5, 0);
}

static void case_pow(void **state) {
    (void)state;
    static const double whole[] = {0, 1, 2, 3, 4, -1, -2, 7}, real[] = {0.5, -0.5, 1.5, 2.5, 0.3, -1.7, 3.25};
    for (int i = 0; i < 8; i++) try_pow(-1.5, 1.5, 0.5, whole[i], 0);
    for (int i = 0; i < 7; i++) try_pow(0.5, 2, 0, real[i], 0);
}

static void case_clamp(void **state) {
    (void)state;
    try_clamp(-2, 2, 0, -0.5, 0.75), try_clamp(-2, 2, 0, -INFINITY, 0.25), try_clamp(-2, 2, 0, 1, INFINITY);
}

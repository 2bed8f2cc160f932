/* SPDX-License-Identifier: MIT */
/* Elementwise operations of one tensor; each with its rule beside it. */
#include "ops.h"
#include "kernels/kernels.h"
#include <math.h>

typedef void unary_kernel(size_t, const tn_real *, tn_real *);
typedef struct {
    unary_kernel *f;
    const tn_real *x;
    tn_real *y;
} unary_job;

static void unary_range(void *p, size_t lo, size_t hi) {
    const unary_job *j = p;
    j->f(hi - lo, j->x + lo, j->y + lo);
}

enum { GRAIN = 1 << 14 }; /* elements a chunk */

static tn_t *unary(const tn_op *op, tn_t *x, enum tn_unary f) {
    tn_t *y = tn_new(x->tape, x->nd, x->dim);
    unary_job j = {tn_kernels_get(NULL)->unary[f], x->x, y->x};
    tn_parallel_range(y->len, GRAIN, unary_range, &j);
    return tn_result(op, y, 1, &x, NULL, 0);
}

/* With up to two numbers beside x. */
typedef struct {
    double c, d;
} args;
static tn_t *with_args(const tn_op *op, tn_t *x, tn_real (*f)(tn_real, const args *), double c, double d) {
    args a = {c, d};
    tn_t *y = tn_new(x->tape, x->nd, x->dim);
    for (size_t i = 0; i < y->len; i++) y->x[i] = f(x->x[i], &a);
    return tn_result(op, y, 1, &x, &a, sizeof a);
}

static void exp_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(gy, y);
}
static const tn_op op_exp = {.name = "exp", .vjp = exp_vjp};
tn_t *tn_exp(tn_t *x) {
    return unary(&op_exp, x, TN_EXP);
}

static void log_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_div(gy, y->src[0]);
}
static const tn_op op_log = {.name = "log", .vjp = log_vjp};
tn_t *tn_log(tn_t *x) {
    return unary(&op_log, x, TN_LOG);
}

static void tanh_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(gy, tn_shift(tn_neg(tn_square(y)), 1));
}
static const tn_op op_tanh = {.name = "tanh", .vjp = tanh_vjp};
tn_t *tn_tanh(tn_t *x) {
    return unary(&op_tanh, x, TN_TANH);
}

static void sigmoid_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(gy, tn_mul(y, tn_shift(tn_neg(y), 1)));
}
static const tn_op op_sigmoid = {.name = "sigmoid", .vjp = sigmoid_vjp};
tn_t *tn_sigmoid(tn_t *x) {
    return unary(&op_sigmoid, x, TN_SIGMOID);
}

static void softplus_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(gy, tn_sigmoid(y->src[0]));
}
static const tn_op op_softplus = {.name = "softplus", .vjp = softplus_vjp};
tn_t *tn_softplus(tn_t *x) {
    return unary(&op_softplus, x, TN_SOFTPLUS);
}

static void relu_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(gy, tn_step(y->src[0]));
}
static void relu_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const tn_kernels_t *k = tn_kernels_get(NULL);
    if (!(need & 1)) return;
    tn_real *g = add & 1 ? tn_scratch(y->tape, y->len * sizeof *g) : gx[0];
    k->relu_mask(y->len, gy, y->x, g);
    if (add & 1) k->accumulate(y->len, g, gx[0]);
}
static const tn_op op_relu = {.name = "relu", .vjp = relu_vjp, .bwd = relu_bwd};
tn_t *tn_relu(tn_t *x) {
    return unary(&op_relu, x, TN_RELU);
}

static tn_real f_sqrt(tn_real x, const args *a) {
    (void)a;
    return (tn_real)sqrt((double)x); /* of a float in double and rounded once more: the same bits as sqrtf */
}
/* gy / (2 y) where y > 0. At 0 the slope is defined as 0; there y + 1 stands in for y so that nothing divides by 0. */
static void sqrt_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    tn_t *mask = tn_step(y);
    gx[0] = tn_mul(gy, tn_div(tn_scale(mask, 0.5), tn_add(y, tn_shift(tn_neg(mask), 1))));
}
static const tn_op op_sqrt = {.name = "sqrt", .vjp = sqrt_vjp};
tn_t *tn_sqrt(tn_t *x) {
    return with_args(&op_sqrt, x, f_sqrt, 0, 0);
}

static tn_real f_pow(tn_real x, const args *a) {
    return (tn_real)tn_exact_pow((double)x, a->c);
}
static void pow_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    double p = ((const args *)y->aux)->c;
    tn_t *x = y->src[0];
    if (p >= 1 || p == 0) {
        gx[0] = p == 0 ? tn_scale(gy, 0) : tn_mul(gy, tn_scale(tn_pow(x, p - 1), p));
        return;
    }
    tn_t *mask = tn_step(tn_abs(x)), *safe = tn_add(x, tn_shift(tn_neg(mask), 1));
    gx[0] = tn_mul(gy, tn_mul(mask, tn_scale(tn_pow(safe, p - 1), p)));
}
static const tn_op op_pow = {.name = "pow", .vjp = pow_vjp};
tn_t *tn_pow(tn_t *x, double p) {
    return with_args(&op_pow, x, f_pow, p, 0);
}

static tn_real f_erf(tn_real x, const args *a) {
    (void)a;
    return (tn_real)tn_exact_erf((double)x);
}
static void erf_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(
        gy, tn_scale(tn_exp(tn_neg(tn_square(y->src[0]))), 1.1283791670955126)); /* 2 / sqrt(pi) e^{-x^2} */
}
static const tn_op op_erf = {.name = "erf", .vjp = erf_vjp};
tn_t *tn_erf(tn_t *x) {
    return with_args(&op_erf, x, f_erf, 0, 0);
}

static tn_real f_scale(tn_real x, const args *a) {
    return x * (tn_real)a->c;
}
static void scale_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_scale(gy, ((const args *)y->aux)->c);
}
static const tn_op op_scale = {.name = "scale", .vjp = scale_vjp};
tn_t *tn_scale(tn_t *x, double c) {
    return with_args(&op_scale, x, f_scale, c, 0);
}

tn_t *tn_neg(tn_t *x) {
    return tn_scale(x, -1);
}

static tn_real f_shift(tn_real x, const args *a) {
    return x + (tn_real)a->c;
}
static void shift_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    (void)y;
    gx[0] = gy;
}
static const tn_op op_shift = {.name = "shift", .vjp = shift_vjp};
tn_t *tn_shift(tn_t *x, double c) {
    return with_args(&op_shift, x, f_shift, c, 0);
}

static tn_real f_step(tn_real x, const args *a) {
    (void)a;
    return x > 0 ? 1 : x <= 0 ? 0 : x;
}
static const tn_op op_step = {.name = "step"};
tn_t *tn_step(tn_t *x) {
    return with_args(&op_step, x, f_step, 0, 0);
}

static tn_real f_sign(tn_real x, const args *a) {
    (void)a;
    return x > 0 ? 1 : x < 0 ? -1 : x; /* 0 and NaN stay */
}
static const tn_op op_sign = {.name = "sign"};
tn_t *tn_sign(tn_t *x) {
    return with_args(&op_sign, x, f_sign, 0, 0);
}

static tn_real f_abs(tn_real x, const args *a) {
    (void)a;
    return (tn_real)fabs((double)x);
}
static void abs_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_mul(gy, tn_sign(y->src[0]));
}
static const tn_op op_abs = {.name = "abs", .vjp = abs_vjp};
tn_t *tn_abs(tn_t *x) {
    return with_args(&op_abs, x, f_abs, 0, 0);
}

static tn_real f_clamp(tn_real x, const args *a) {
    tn_real lo = (tn_real)a->c, hi = (tn_real)a->d;
    return x < lo ? lo : x > hi ? hi : x;
}
static tn_real f_within(tn_real x, const args *a) {
    return x != x ? x : x >= (tn_real)a->c && x <= (tn_real)a->d;
}
static const tn_op op_within = {.name = "within"};
static void clamp_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    const args *a = y->aux;
    gx[0] = tn_mul(gy, with_args(&op_within, y->src[0], f_within, a->c, a->d));
}
static const tn_op op_clamp = {.name = "clamp", .vjp = clamp_vjp};
tn_t *tn_clamp(tn_t *x, double lo, double hi) {
    TN_CHECK(x->tape, lo <= hi, "clamp: the lower bound %g is above the upper bound %g", lo, hi);
    return with_args(&op_clamp, x, f_clamp, lo, hi);
}

tn_t *tn_square(tn_t *x) {
    return tn_mul(x, x);
}

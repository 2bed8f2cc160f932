/* SPDX-License-Identifier: MIT */
/* Elementwise operations of two tensors, with broadcasting; each with its rule beside it. */
#include "ops.h"
#include "kernels/kernels.h"
#include <string.h>

int tn_broadcast_shape(const char *op, const tn_t *a, const tn_t *b, int dim[TN_MAX_DIM]) {
    int nd = a->nd > b->nd ? a->nd : b->nd, ok = 1;
    for (int i = 1; i <= nd; i++) {
        int da = i <= a->nd ? a->dim[a->nd - i] : 1, db = i <= b->nd ? b->dim[b->nd - i] : 1;
        ok &= da == db || da == 1 || db == 1;
        dim[nd - i] = da > db ? da : db;
    }
    if (!ok) {
        char sa[64], sb[64];
        tn_shape_text(a, sa), tn_shape_text(b, sb);
        tn_panic(a->tape, "%s: shapes %s and %s do not broadcast", op, sa, sb);
    }
    return nd;
}

typedef tn_real binary_fn(tn_real, tn_real);

/* Four nested loops over the padded shape; the fast paths in front of it cover what training does. */
static void binary_walk(const tn_walk *w, const tn_real *a, const tn_real *b, tn_real *y, binary_fn *f) {
    for (int i = 0; i < w->dim[0]; i++)
        for (int j = 0; j < w->dim[1]; j++)
            for (int k = 0; k < w->dim[2]; k++) {
                const tn_real *pa = a + i * w->a[0] + j * w->a[1] + k * w->a[2];
                const tn_real *pb = b + i * w->b[0] + j * w->b[1] + k * w->b[2];
                for (int l = 0; l < w->dim[3]; l++) *y++ = f(pa[l * w->a[3]], pb[l * w->b[3]]);
            }
}

static tn_t *binary(const tn_op *op, tn_t *a, tn_t *b, binary_fn *f,
                    void (*fast)(size_t, const tn_real *, const tn_real *, tn_real *)) {
    TN_CHECK(a->tape, a->tape == b->tape, "%s: the operands are on different tapes", op->name);
    int dim[TN_MAX_DIM], nd = tn_broadcast_shape(op->name, a, b, dim);
    tn_t *y = tn_new(a->tape, nd, dim);
    if (tn_same_shape(a, b)) {
        if (fast)
            fast(y->len, a->x, b->x, y->x);
        else
            for (size_t i = 0; i < y->len; i++) y->x[i] = f(a->x[i], b->x[i]);
    } else {
        tn_walk w;
        tn_pad4(nd, dim, w.dim);
        tn_strides(a, nd, dim, w.a), tn_strides(b, nd, dim, w.b);
        binary_walk(&w, a->x, b->x, y->x, f);
    }
    return tn_result(op, y, 2, (tn_t *[]){a, b}, NULL, 0);
}

/* The gradient for a source that may have been stretched. */
static tn_t *back_to(tn_t *g, const tn_t *src) {
    return tn_sum_to(g, src->nd, src->dim);
}

static tn_real f_add(tn_real a, tn_real b) {
    return a + b;
}
static void add_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    for (int i = 0; i < 2; i++)
        if (y->src[i]->needs) gx[i] = back_to(gy, y->src[i]);
}
static const tn_op add = {.name = "add", .vjp = add_vjp};
tn_t *tn_add(tn_t *a, tn_t *b) {
    return binary(&add, a, b, f_add, tn_kernels_get(NULL)->add);
}

static tn_real f_sub(tn_real a, tn_real b) {
    return a - b;
}
static void sub_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    if (y->src[0]->needs) gx[0] = back_to(gy, y->src[0]);
    if (y->src[1]->needs) gx[1] = back_to(tn_neg(gy), y->src[1]);
}
static const tn_op sub = {.name = "sub", .vjp = sub_vjp};
tn_t *tn_sub(tn_t *a, tn_t *b) {
    return binary(&sub, a, b, f_sub, NULL);
}

static tn_real f_mul(tn_real a, tn_real b) {
    return a * b;
}
static void mul_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    if (y->src[0]->needs) gx[0] = back_to(tn_mul(gy, y->src[1]), y->src[0]);
    if (y->src[1]->needs) gx[1] = back_to(tn_mul(gy, y->src[0]), y->src[1]);
}
static const tn_op mul = {.name = "mul", .vjp = mul_vjp};
tn_t *tn_mul(tn_t *a, tn_t *b) {
    return binary(&mul, a, b, f_mul, tn_kernels_get(NULL)->mul);
}

static tn_real f_div(tn_real a, tn_real b) {
    return a / b;
}
static void div_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    tn_t *b = y->src[1];
    if (y->src[0]->needs) gx[0] = back_to(tn_div(gy, b), y->src[0]);
    if (b->needs) gx[1] = back_to(tn_neg(tn_div(tn_mul(gy, y), b)), b); /* d(a/b)/db = -(a/b)/b */
}
static const tn_op division = {.name = "div", .vjp = div_vjp};
tn_t *tn_div(tn_t *a, tn_t *b) {
    return binary(&division, a, b, f_div, NULL);
}

/* 1 where a > b, 1/2 where equal, 0 where a < b; NaN where they do not compare. No gradient. */
static tn_real f_prefer(tn_real a, tn_real b) {
    return a > b ? 1 : a < b ? 0 : a == b ? (tn_real)0.5 : a + b;
}
static const tn_op prefer = {.name = "prefer"};

static void pick_vjp(tn_t *y, tn_t *gy, tn_t *gx[], tn_t *first) {
    if (y->src[0]->needs) gx[0] = back_to(tn_mul(gy, first), y->src[0]);
    if (y->src[1]->needs) gx[1] = back_to(tn_mul(gy, tn_shift(tn_neg(first), 1)), y->src[1]);
}

static tn_real f_max(tn_real a, tn_real b) {
    return a != a ? a : b != b ? b : a > b ? a : b;
}
static void maximum_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    pick_vjp(y, gy, gx, binary(&prefer, y->src[0], y->src[1], f_prefer, NULL));
}
static const tn_op maximum = {.name = "maximum", .vjp = maximum_vjp};
tn_t *tn_maximum(tn_t *a, tn_t *b) {
    return binary(&maximum, a, b, f_max, NULL);
}

static tn_real f_min(tn_real a, tn_real b) {
    return a != a ? a : b != b ? b : a < b ? a : b;
}
static void minimum_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    pick_vjp(y, gy, gx, binary(&prefer, y->src[1], y->src[0], f_prefer, NULL));
}
static const tn_op minimum = {.name = "minimum", .vjp = minimum_vjp};
tn_t *tn_minimum(tn_t *a, tn_t *b) {
    return binary(&minimum, a, b, f_min, NULL);
}

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
typedef void fast_fn(size_t, const tn_real *, const tn_real *, tn_real *);
enum { GRAIN = 1 << 14, REPEATED = 256 };

typedef struct {
    tn_walk w;
    const tn_real *a, *b;
    tn_real *y;
    binary_fn *f;
    fast_fn *fast; /* or NULL */
} job;

/* Operands of one shape. */
static void same_shape(void *arg, size_t lo, size_t hi) {
    const job *j = arg;
    if (j->fast)
        j->fast(hi - lo, j->a + lo, j->b + lo, j->y + lo);
    else
        for (size_t i = lo; i < hi; i++) j->y[i] = j->f(j->a[i], j->b[i]);
}

/* One number against a row: as a vector of it. */
static void one_by_row(fast_fn *fast, size_t n, const tn_real *row, tn_real one, int first, tn_real *y) {
    tn_real same[REPEATED];
    const size_t most = n < REPEATED ? n : REPEATED;
    for (size_t i = 0; i < most; i++) same[i] = one;
    for (size_t at = 0; at < n; at += most) {
        const size_t len = n - at < most ? n - at : most;
        fast(len, first ? same : row + at, first ? row + at : same, y + at);
    }
}

/* Broadcasting: the rows lo ... hi - 1 of the padded shape's last dimension, which may be its last two. */
static void rows(void *arg, size_t lo, size_t hi) {
    const job *j = arg;
    const tn_walk *w = &j->w;
    const size_t n = (size_t)w->dim[3];
    for (size_t r = lo; r < hi; r++) {
        const ptrdiff_t k = (ptrdiff_t)(r % (size_t)w->dim[2]), of = (ptrdiff_t)(r / (size_t)w->dim[2]);
        const ptrdiff_t i = of / w->dim[1], l = of % w->dim[1];
        const tn_real *a = j->a + i * w->a[0] + l * w->a[1] + k * w->a[2];
        const tn_real *b = j->b + i * w->b[0] + l * w->b[1] + k * w->b[2];
        tn_real *y = j->y + r * n;
        if (j->fast && w->a[3] == 1 && w->b[3] == 1)
            j->fast(n, a, b, y);
        else if (j->fast && w->a[3] == 1)
            one_by_row(j->fast, n, a, *b, 0, y);
        else if (j->fast && w->b[3] == 1)
            one_by_row(j->fast, n, b, *a, 1, y);
        else
            for (size_t c = 0; c < n; c++) y[c] = j->f(a[(ptrdiff_t)c * w->a[3]], b[(ptrdiff_t)c * w->b[3]]);
    }
}

/* The last two dimensions are one where both operands go through them at one pace. */
static void join_rows(tn_walk *w) {
    const int d = w->dim[3];
    if (w->a[2] != d * w->a[3] || w->b[2] != d * w->b[3]) return;
    w->dim[3] *= w->dim[2], w->dim[2] = 1;
}

static tn_t *binary(const tn_op *op, tn_t *a, tn_t *b, binary_fn *f, fast_fn *fast) {
    TN_CHECK(a->tape, a->tape == b->tape, "%s: the operands are on different tapes", op->name);
    int dim[TN_MAX_DIM], nd = tn_broadcast_shape(op->name, a, b, dim);
    tn_t *y = tn_new(a->tape, nd, dim);
    job j = {.a = a->x, .b = b->x, .y = y->x, .f = f, .fast = fast};
    if (tn_same_shape(a, b)) {
        tn_parallel_range(y->len, GRAIN, same_shape, &j);
    } else {
        tn_pad4(nd, dim, j.w.dim);
        tn_strides(a, nd, dim, j.w.a), tn_strides(b, nd, dim, j.w.b);
        join_rows(&j.w);
        const size_t row = (size_t)j.w.dim[3];
        tn_parallel_range(y->len / row, (GRAIN + row - 1) / row, rows, &j);
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

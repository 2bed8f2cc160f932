/* SPDX-License-Identifier: MIT */
/* Operations that move or add up elements: adjoint pairs, so that each one's rule is its partner. */
#include "ops.h"
#include "tape.h"
#include "kernels/kernels.h"
#include <string.h>

void tn_pad4(int nd, const int *dim, int out[TN_MAX_DIM]) {
    for (int i = 0; i < TN_MAX_DIM; i++) out[i] = i < TN_MAX_DIM - nd ? 1 : dim[i - (TN_MAX_DIM - nd)];
}

void tn_strides(const tn_t *x, int nd, const int *dim, ptrdiff_t out[TN_MAX_DIM]) {
    ptrdiff_t step = 1;
    memset(out, 0, TN_MAX_DIM * sizeof *out);
    for (int i = 1; i <= x->nd && i <= nd; i++) {
        out[TN_MAX_DIM - i] = x->dim[x->nd - i] == dim[nd - i] ? step : 0;
        step *= x->dim[x->nd - i];
    }
}

int tn_axis(const char *op, const tn_t *x, int axis) {
    TN_CHECK(x->tape, axis >= -x->nd && axis < x->nd, "%s: axis %d of a tensor with %d dimensions", op, axis,
             x->nd);
    return axis < 0 ? axis + x->nd : axis;
}

/* ---- reshape ---- */

static void reshape_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_reshape(gy, y->src[0]->nd, y->src[0]->dim);
}
static void reshape_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    if (!(need & 1)) return;
    if (add & 1)
        tn_kernels_get(NULL)->accumulate(y->len, gy, gx[0]);
    else
        memcpy(gx[0], gy, y->len * sizeof *gy);
}
static const tn_op op_reshape = {.name = "reshape", .vjp = reshape_vjp, .bwd = reshape_bwd};
int tn_is_reshape(const tn_t *y) {
    return y->op == &op_reshape;
}
tn_t *tn_reshape(tn_t *x, int nd, const int *dim) {
    int d[TN_MAX_DIM], open = -1;
    size_t len = 1;
    TN_CHECK(x->tape, nd >= 0 && nd <= TN_MAX_DIM, "reshape: %d dimensions; a tensor has at most %d", nd,
             TN_MAX_DIM);
    for (int i = 0; i < nd; i++) {
        TN_CHECK(x->tape, dim[i] > 0 || (dim[i] == -1 && open < 0), "reshape: dimension %d is %d", i, dim[i]);
        d[i] = dim[i];
        if (dim[i] == -1)
            open = i;
        else
            len *= (size_t)dim[i];
    }
    if (open >= 0) d[open] = len ? (int)(x->len / len) : 0, len *= (size_t)d[open];
    if (len != x->len) {
        char s[64], to[64];
        tn_shape_text(x, s), tn_dims_text(nd, dim, to);
        tn_panic(x->tape, "reshape: %s has %zu elements and does not fit %s", s, x->len, to);
    }
    return tn_result(&op_reshape, tn_view(x->tape, x->x, nd, d), 1, &x, NULL, 0);
}

/* ---- transpose ---- */

typedef struct {
    int a, b;
} axes;
static void transpose_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    const axes *t = y->aux;
    gx[0] = tn_transpose(gy, t->a, t->b);
}
static const tn_op op_transpose = {.name = "transpose", .vjp = transpose_vjp};
tn_t *tn_transpose(tn_t *x, int a, int b) {
    axes t = {tn_axis("transpose", x, a), tn_axis("transpose", x, b)};
    int dim[TN_MAX_DIM], pad[TN_MAX_DIM], shift = TN_MAX_DIM - x->nd;
    memcpy(dim, x->dim, sizeof dim);
    dim[t.a] = x->dim[t.b], dim[t.b] = x->dim[t.a];
    tn_t *y = tn_new(x->tape, x->nd, dim);
    ptrdiff_t s[TN_MAX_DIM], sa;
    tn_strides(x, x->nd, x->dim, s);
    sa = s[shift + t.a], s[shift + t.a] = s[shift + t.b], s[shift + t.b] = sa;
    tn_pad4(x->nd, dim, pad);
    tn_real *out = y->x;
    for (int i = 0; i < pad[0]; i++)
        for (int j = 0; j < pad[1]; j++)
            for (int k = 0; k < pad[2]; k++)
                for (int l = 0; l < pad[3]; l++) *out++ = x->x[i * s[0] + j * s[1] + k * s[2] + l * s[3]];
    return tn_result(&op_transpose, y, 1, &x, &t, sizeof t);
}

/* ---- sum_to and broadcast_to ---- */

/* Panics unless the smaller of x's shape and the given one stretches to the other; 1 if they are the same. */
static int check_stretch(const char *op, const tn_t *x, int nd, const int *dim, int grows) {
    TN_CHECK(x->tape, nd >= 0 && nd <= TN_MAX_DIM, "%s: %d dimensions; a tensor has at most %d", op, nd,
             TN_MAX_DIM);
    int small = grows ? x->nd : nd, large = grows ? nd : x->nd, ok = small <= large, same = nd == x->nd;
    const int *s = grows ? x->dim : dim, *l = grows ? dim : x->dim;
    for (int i = 1; ok && i <= small; i++) {
        ok = s[small - i] == l[large - i] || s[small - i] == 1;
        same &= s[small - i] == l[large - i];
    }
    if (!ok) {
        char from[64], to[64];
        tn_shape_text(x, from), tn_dims_text(nd, dim, to);
        tn_panic(x->tape, "%s: %s does not %s to %s", op, from, grows ? "stretch" : "add up", to);
    }
    return same;
}

static void sum_to_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_broadcast_to(gy, y->src[0]->nd, y->src[0]->dim);
}
static const tn_op op_sum_to = {.name = "sum_to", .vjp = sum_to_vjp};

/* The three reductions that training makes have their own loops; any other adds in double, in the order of x. */
static void sum_into(const tn_t *x, tn_t *y) {
    const tn_kernels_t *k = tn_kernels_get(NULL);
    size_t tail = 1;
    int i = x->nd, j = y->nd;
    while (i > 0 && j > 0 && x->dim[i - 1] == y->dim[j - 1]) tail *= (size_t)x->dim[i - 1], i--, j--;
    if (y->len == 1) {
        y->x[0] = (tn_real)k->sum(x->len, x->x);
    } else if (tail == y->len && tail <= 1 << 30) {
        k->col_sum((int)(x->len / tail), (int)tail, x->x, (ptrdiff_t)tail, 0, y->x);
    } else if (y->nd == x->nd && y->dim[x->nd - 1] == 1 && y->len * (size_t)x->dim[x->nd - 1] == x->len) {
        size_t row = (size_t)x->dim[x->nd - 1];
        for (size_t r = 0; r < y->len; r++) y->x[r] = (tn_real)k->sum(row, x->x + r * row);
    } else {
        tn_place place = tn_mark(x->tape);
        double *acc = tn_scratch(x->tape, y->len * sizeof *acc);
        memset(acc, 0, y->len * sizeof *acc);
        ptrdiff_t s[TN_MAX_DIM];
        int d[TN_MAX_DIM];
        tn_strides(y, x->nd, x->dim, s), tn_pad4(x->nd, x->dim, d);
        const tn_real *in = x->x;
        for (int a = 0; a < d[0]; a++)
            for (int b = 0; b < d[1]; b++)
                for (int c = 0; c < d[2]; c++)
                    for (int e = 0; e < d[3]; e++)
                        acc[a * s[0] + b * s[1] + c * s[2] + e * s[3]] += (double)*in++;
        for (size_t r = 0; r < y->len; r++) y->x[r] = (tn_real)acc[r];
        tn_rewind(x->tape, place);
    }
}

tn_t *tn_sum_to(tn_t *x, int nd, const int *dim) {
    if (check_stretch("sum_to", x, nd, dim, 0)) return x;
    tn_t *y = tn_new(x->tape, nd, dim);
    sum_into(x, y);
    return tn_result(&op_sum_to, y, 1, &x, NULL, 0);
}

static void broadcast_to_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_sum_to(gy, y->src[0]->nd, y->src[0]->dim);
}
static const tn_op op_broadcast_to = {.name = "broadcast_to", .vjp = broadcast_to_vjp};
tn_t *tn_broadcast_to(tn_t *x, int nd, const int *dim) {
    if (check_stretch("broadcast_to", x, nd, dim, 1)) return x;
    tn_t *y = tn_new(x->tape, nd, dim);
    ptrdiff_t s[TN_MAX_DIM];
    int d[TN_MAX_DIM];
    tn_strides(x, nd, dim, s), tn_pad4(nd, dim, d);
    tn_real *out = y->x;
    for (int a = 0; a < d[0]; a++)
        for (int b = 0; b < d[1]; b++)
            for (int c = 0; c < d[2]; c++)
                for (int e = 0; e < d[3]; e++) *out++ = x->x[a * s[0] + b * s[1] + c * s[2] + e * s[3]];
    return tn_result(&op_broadcast_to, y, 1, &x, NULL, 0);
}

/* ---- slice, embed_in, concat ---- */

/* x seen as (outer, dim[axis], inner). */
typedef struct {
    int axis, lo, hi;
} range;
static void blocks(const tn_t *x, int axis, size_t *outer, size_t *inner) {
    *outer = *inner = 1;
    for (int i = 0; i < axis; i++) *outer *= (size_t)x->dim[i];
    for (int i = axis + 1; i < x->nd; i++) *inner *= (size_t)x->dim[i];
}

static void slice_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    const range *r = y->aux;
    gx[0] = tn_embed_in(gy, r->axis, r->lo, y->src[0]->dim[r->axis]);
}
/* Touches only its own range when it adds, so that n slices of one buffer cost one pass over it. */
static void slice_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const range *r = y->aux;
    const tn_t *x = y->src[0];
    size_t outer, inner, whole, part, at;
    if (!(need & 1)) return;
    blocks(x, r->axis, &outer, &inner);
    whole = (size_t)x->dim[r->axis] * inner, part = (size_t)(r->hi - r->lo) * inner,
    at = (size_t)r->lo * inner;
    if (!(add & 1)) memset(gx[0], 0, x->len * sizeof(tn_real));
    for (size_t o = 0; o < outer; o++)
        tn_kernels_get(NULL)->accumulate(part, gy + o * part, gx[0] + o * whole + at);
}
static const tn_op op_slice = {.name = "slice", .vjp = slice_vjp, .bwd = slice_bwd};
tn_t *tn_slice(tn_t *x, int axis, int lo, int hi) {
    axis = tn_axis("slice", x, axis);
    TN_CHECK(x->tape, 0 <= lo && lo < hi && hi <= x->dim[axis], "slice: [%d, %d) of an axis of %d", lo, hi,
             x->dim[axis]);
    range r = {axis, lo, hi};
    size_t outer, inner;
    int dim[TN_MAX_DIM];
    memcpy(dim, x->dim, sizeof dim);
    dim[axis] = hi - lo;
    blocks(x, axis, &outer, &inner);
    if (outer == 1)
        return tn_result(&op_slice, tn_view(x->tape, x->x + (size_t)lo * inner, x->nd, dim), 1, &x, &r,
                         sizeof r);
    tn_t *y = tn_new(x->tape, x->nd, dim);
    size_t part = (size_t)(hi - lo) * inner, whole = (size_t)x->dim[axis] * inner;
    for (size_t o = 0; o < outer; o++)
        memcpy(y->x + o * part, x->x + o * whole + (size_t)lo * inner, part * sizeof(tn_real));
    return tn_result(&op_slice, y, 1, &x, &r, sizeof r);
}

static void embed_in_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    const range *r = y->aux;
    gx[0] = tn_slice(gy, r->axis, r->lo, r->hi);
}
static const tn_op op_embed_in = {.name = "embed_in", .vjp = embed_in_vjp};
tn_t *tn_embed_in(tn_t *x, int axis, int lo, int size) {
    axis = tn_axis("embed_in", x, axis);
    TN_CHECK(x->tape, lo >= 0 && x->dim[axis] <= size && lo <= size - x->dim[axis],
             "embed_in: %d elements at %d of an axis of %d", x->dim[axis], lo, size);
    range r = {axis, lo, lo + x->dim[axis]};
    size_t outer, inner;
    int dim[TN_MAX_DIM];
    memcpy(dim, x->dim, sizeof dim);
    dim[axis] = size;
    tn_t *y = tn_new(x->tape, x->nd, dim);
    blocks(x, axis, &outer, &inner);
    size_t part = (size_t)x->dim[axis] * inner, whole = (size_t)size * inner;
    memset(y->x, 0, y->len * sizeof(tn_real));
    for (size_t o = 0; o < outer; o++)
        memcpy(y->x + o * whole + (size_t)lo * inner, x->x + o * part, part * sizeof(tn_real));
    return tn_result(&op_embed_in, y, 1, &x, &r, sizeof r);
}

static void concat_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    int axis = *(const int *)y->aux;
    for (int i = 0, at = 0; i < y->nsrc; at += y->src[i]->dim[axis], i++)
        if (y->src[i]->needs) gx[i] = tn_slice(gy, axis, at, at + y->src[i]->dim[axis]);
}
static const tn_op op_concat = {.name = "concat", .vjp = concat_vjp};
tn_t *tn_concat(int n, tn_t *const x[], int axis) {
    TN_CHECK(NULL, n > 0, "concat: %d tensors", n);
    axis = tn_axis("concat", x[0], axis);
    int dim[TN_MAX_DIM];
    memcpy(dim, x[0]->dim, sizeof dim);
    for (int i = 1; i < n; i++) {
        int same = x[i]->nd == x[0]->nd;
        for (int d = 0; same && d < x[0]->nd; d++) same = d == axis || x[i]->dim[d] == dim[d];
        if (!same) {
            char a[64], b[64];
            tn_shape_text(x[0], a), tn_shape_text(x[i], b);
            tn_panic(x[0]->tape, "concat: %s and %s differ beside axis %d", a, b, axis);
        }
        dim[axis] += x[i]->dim[axis];
    }
    tn_t *y = tn_new(x[0]->tape, x[0]->nd, dim);
    size_t outer, inner, at = 0;
    blocks(y, axis, &outer, &inner);
    size_t whole = (size_t)dim[axis] * inner;
    for (int i = 0; i < n; i++) {
        size_t part = (size_t)x[i]->dim[axis] * inner;
        for (size_t o = 0; o < outer; o++)
            memcpy(y->x + o * whole + at, x[i]->x + o * part, part * sizeof(tn_real));
        at += part;
    }
    return tn_result(&op_concat, y, n, x, &axis, sizeof axis);
}

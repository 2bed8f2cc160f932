/* SPDX-License-Identifier: MIT */
/* take and put_add: gather and scatter by flat indices, each the other's rule. */
#include "internal.h"
#include <string.h>

typedef struct {
    const int *idx;
} indices;

static const int *copy_indices(const char *op, tn_tape *t, const int *idx, size_t n, size_t limit) {
    int *copy = tn_scratch(t, n * sizeof *copy);
    for (size_t i = 0; i < n; i++) {
        TN_CHECK(t, idx[i] >= 0 && (size_t)idx[i] < limit, "%s: index %d at %zu is outside 0 ... %zu", op,
                 idx[i], i, limit - 1);
        copy[i] = idx[i];
    }
    return copy;
}

static void take_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_put_add(gy, ((const indices *)y->aux)->idx, y->src[0]->nd, y->src[0]->dim);
}
static const tn_op op_take = {.name = "take", .vjp = take_vjp};
tn_t *tn_take(tn_t *x, const int *idx, int nd, const int *dim) {
    tn_t *y = tn_new(x->tape, nd, dim);
    indices a = {copy_indices("take", x->tape, idx, y->len, x->len)};
    for (size_t i = 0; i < y->len; i++) y->x[i] = x->x[a.idx[i]];
    return tn_result(&op_take, y, 1, &x, &a, sizeof a);
}

static void put_add_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    gx[0] = tn_take(gy, ((const indices *)y->aux)->idx, y->src[0]->nd, y->src[0]->dim);
}
static const tn_op op_put_add = {.name = "put_add", .vjp = put_add_vjp};
tn_t *tn_put_add(tn_t *x, const int *idx, int nd, const int *dim) {
    tn_t *y = tn_new(x->tape, nd, dim);
    indices a = {copy_indices("put_add", x->tape, idx, x->len, y->len)};
    memset(y->x, 0, y->len * sizeof *y->x);
    for (size_t i = 0; i < x->len; i++) y->x[a.idx[i]] += x->x[i];
    return tn_result(&op_put_add, y, 1, &x, &a, sizeof a);
}

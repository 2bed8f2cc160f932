/* SPDX-License-Identifier: MIT */
/* Dropout: x mask / (1 - p) in one pass. The mask is a function of the mode and the layer's name, so backward makes it again. */
#include "dropout.h"
#include "kernels/kernels.h"
#include <string.h>

typedef struct {
    const tn_dropout_plan *a;
    size_t len; /* of a row */
    const tn_real *x;
    tn_real *y;
} job;

enum { PIECE = 1 << 14 }; /* elements of a chunk, about */

static uint32_t limit_of(double p) {
    return (uint32_t)(p * 0x1p32);
}

/* Each row has a generator of its own, so that a mask does not depend on how the batch is cut. */
static uint64_t state_of(const tn_dropout_plan *a, size_t row) {
    return tn_rng_make(a->seed, "dropout", a->name, a->step, a->first_row + row).s;
}

tn_real tn_dropout_scale(const tn_dropout_plan *a) {
    return (tn_real)(1 / (1 - a->p));
}

void tn_dropout_row(const tn_dropout_plan *a, size_t row, size_t len, const tn_real *x, tn_real *y) {
    tn_kernels_get(NULL)->dropout(len, state_of(a, row), limit_of(a->p), tn_dropout_scale(a), x, y);
}

static void rows(void *arg, size_t lo, size_t hi) {
    const job *j = arg;
    for (size_t r = lo; r < hi; r++) tn_dropout_row(j->a, r, j->len, j->x + r * j->len, j->y + r * j->len);
}

static void apply(const tn_t *x, const tn_dropout_plan *a, const tn_real *from, tn_real *to) {
    size_t n = x->nd ? (size_t)x->dim[0] : 1;
    job j = {a, x->len / n, from, to};
    tn_parallel_range(n, j.len < PIECE ? PIECE / j.len : 1, rows, &j);
}

static void dropout_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    if (!(need & 1)) return;
    tn_real *to = add & 1 ? tn_scratch(y->tape, y->len * sizeof *to) : gx[0];
    apply(y, y->aux, gy, to);
    if (add & 1) tn_kernels_get(NULL)->accumulate(y->len, to, gx[0]);
}

static tn_t *dropout_expand(tn_t *y) {
    tn_t *one = tn_full(y->tape, 1, y->nd, y->dim), *mask = tn_new(y->tape, y->nd, y->dim);
    apply(y, y->aux, one->x, mask->x);
    return tn_mul(y->src[0], tn_result(NULL, mask, 0, NULL, NULL, 0));
}

static const tn_op op_dropout = {.name = "dropout", .expand = dropout_expand, .bwd = dropout_bwd};

int tn_dropout_plan_make(tn_tape *t, double p, const char *name, tn_dropout_plan *out) {
    tn_mode mode = tn_tape_mode(t);
    TN_CHECK(t, p >= 0 && p < 1, "dropout: p is %g; it must be in [0, 1)", p);
    *out = (tn_dropout_plan){0};
    if (!mode.train || p == 0) return 0;
    char *copy = tn_scratch(t, strlen(name) + 1);
    strcpy(copy, name);
    *out = (tn_dropout_plan){p, mode.seed, (uint64_t)mode.step, (uint64_t)mode.first_row, copy};
    return 1;
}

tn_t *tn_dropout_planned(tn_t *x, const tn_dropout_plan *a) {
    tn_t *y = tn_new(x->tape, x->nd, x->dim);
    apply(y, a, x->x, y->x);
    return tn_result(&op_dropout, y, 1, &x, a, sizeof *a);
}

tn_t *tn_dropout(tn_t *x, double p, const char *name) {
    tn_dropout_plan a;
    return tn_dropout_plan_make(x->tape, p, name, &a) ? tn_dropout_planned(x, &a) : x;
}

/* SPDX-License-Identifier: MIT */
/* The matrix product: bilinear, so its two rules are matrix products. */
#include "internal.h"

typedef struct {
    int ta, tb;
} flags;

static void matmul_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    const flags *f = y->aux;
    tn_t *a = y->src[0], *b = y->src[1];
    if (a->needs) gx[0] = f->ta ? tn_matmul(b, gy, f->tb, 1) : tn_matmul(gy, b, 0, !f->tb);
    if (b->needs) gx[1] = f->tb ? tn_matmul(gy, a, 1, f->ta) : tn_matmul(a, gy, !f->ta, 0);
}

static double matmul_flops(const tn_t *y) {
    const flags *f = y->aux;
    return 2.0 * (double)y->len * y->src[0]->dim[f->ta ? 0 : 1];
}

static const tn_op op_matmul = {.name = "matmul", .vjp = matmul_vjp, .flops = matmul_flops};

tn_t *tn_matmul(tn_t *a, tn_t *b, int ta, int tb) {
    ta = ta != 0, tb = tb != 0;
    int ok = a->nd == 2 && b->nd == 2 && a->dim[!ta] == b->dim[tb];
    if (!ok) {
        char sa[64], sb[64];
        tn_shape_text(a, sa), tn_shape_text(b, sb);
        tn_panic(a->tape, "matmul: %s%s and %s%s do not fit", sa, ta ? "'" : "", sb, tb ? "'" : "");
    }
    flags f = {ta, tb};
    tn_t *y = tn_new(a->tape, 2, (int[]){a->dim[ta], b->dim[!tb]});
    tn_product(y->dim[0], y->dim[1], a->dim[!ta], a->x, ta, b->x, tb, y->x, 0);
    return tn_result(&op_matmul, y, 2, (tn_t *[]){a, b}, &f, sizeof f);
}

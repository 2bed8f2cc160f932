/* SPDX-License-Identifier: MIT */
/*
 * act(x w' + b) in one op. Forward and input gradient run on packed forms of the weights that are made once a step;
 * the weight gradient packs the input panel by panel as it goes. Bias and ReLU ride on the product's last pass.
 */
#include "internal.h"
#include "kernels/kernels.h"

typedef struct {
    tn_act act;
} linear_aux;

static void linear_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const linear_aux *a = y->aux;
    tn_t *x = y->src[0], *w = y->src[1];
    int n = y->dim[0], out = w->dim[0], in = w->dim[1];
    const tn_real *dz = tn_act_back(y, a->act, gy);
    if (need & 1) /* dx = dz w */
        tn_gemm(&(tn_gemm_args){.m = n,
                                .n = in,
                                .k = out,
                                .a = dz,
                                .ars = out,
                                .acs = 1,
                                .b = w->x,
                                .brs = in,
                                .bcs = 1,
                                .packed_b = tn_packed(w, 0),
                                .c = gx[0],
                                .ldc = in,
                                .add = add & 1});
    if (need & 2) /* dw = dz' x */
        tn_gemm(&(tn_gemm_args){.m = out,
                                .n = in,
                                .k = n,
                                .a = dz,
                                .ars = 1,
                                .acs = out,
                                .b = x->x,
                                .brs = in,
                                .bcs = 1,
                                .c = gx[1],
                                .ldc = in,
                                .add = (add >> 1) & 1});
    if (need & 4) tn_kernels_get(NULL)->col_sum(n, out, dz, out, (add >> 2) & 1, gx[2]);
}

static tn_t *linear_expand(tn_t *y) {
    const linear_aux *a = y->aux;
    tn_t *z = tn_matmul(y->src[0], y->src[1], 0, 1);
    if (y->src[2]) z = tn_add(z, y->src[2]);
    return tn_activate(z, a->act);
}

static double linear_flops(const tn_t *y) {
    return 2.0 * (double)y->len * y->src[1]->dim[1];
}

static const tn_op op_linear = {
    .name = "linear", .expand = linear_expand, .bwd = linear_bwd, .flops = linear_flops};

tn_t *tn_linear_act(tn_t *x, tn_t *w, tn_t *b, tn_act act) {
    if (x->nd != 2 || w->nd != 2 || x->dim[1] != w->dim[1] || (b && (b->nd != 1 || b->dim[0] != w->dim[0]))) {
        char sx[64], sw[64], sb[64] = "none";
        tn_shape_text(x, sx), tn_shape_text(w, sw);
        if (b) tn_shape_text(b, sb);
        tn_panic(x->tape, "linear: input %s, weight %s and bias %s do not fit: (n, in), (out, in), (out,)",
                 sx, sw, sb);
    }
    /* GELU is not a function of its own output: the product is one op, the activation a composite on top. */
    if (act == TN_ACT_GELU) return tn_gelu(tn_linear_act(x, w, b, TN_ACT_NONE));
    int n = x->dim[0], out = w->dim[0], in = w->dim[1];
    tn_t *y = tn_new(x->tape, 2, (int[]){n, out});
    linear_aux a = {act};
    tn_place place = tn_mark(x->tape);
    tn_gemm(&(tn_gemm_args){.m = n,
                            .n = out,
                            .k = in,
                            .a = x->x,
                            .ars = in,
                            .acs = 1,
                            .b = w->x,
                            .brs = 1,
                            .bcs = in,
                            .packed_b = tn_packed(w, 1),
                            .c = y->x,
                            .ldc = out,
                            .bias = b ? b->x : NULL,
                            .relu = act == TN_ACT_RELU});
    tn_rewind(x->tape, place);
    if (act == TN_ACT_TANH || act == TN_ACT_SIGMOID) tn_act_all(act, y->len, y->x);
    return tn_result(&op_linear, y, 3, (tn_t *[]){x, w, b}, &a, sizeof a);
}

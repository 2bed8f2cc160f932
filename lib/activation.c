/* SPDX-License-Identifier: MIT */
/* Activations that ride on fused layers: as primitives for the expansion, as numbers for the fused passes. */
#include "internal.h"
#include "kernels/kernels.h"

tn_t *tn_activate(tn_t *x, tn_act act) {
    switch (act) {
    case TN_ACT_RELU:
        return tn_relu(x);
    case TN_ACT_TANH:
        return tn_tanh(x);
    case TN_ACT_SIGMOID:
        return tn_sigmoid(x);
    case TN_ACT_GELU:
        return tn_gelu(x);
    default:
        return x;
    }
}

void tn_act_range(tn_act act, size_t n, const tn_real *x, tn_real *y) {
    static const enum tn_unary of[] = {
        [TN_ACT_RELU] = TN_RELU, [TN_ACT_TANH] = TN_TANH, [TN_ACT_SIGMOID] = TN_SIGMOID};
    tn_kernels_get(NULL)->unary[of[act]](n, x, y);
}

void tn_act_slope(tn_act act, size_t n, const tn_real *gy, const tn_real *y, tn_real *out) {
    if (act == TN_ACT_RELU) {
        tn_kernels_get(NULL)->relu_mask(n, gy, y, out);
        return;
    }
    for (size_t i = 0; i < n; i++)
        out[i] = gy[i] * (act == TN_ACT_TANH ? 1 - y[i] * y[i] : y[i] * (1 - y[i]));
}

/* ---- whole tensors ---- */

enum { GRAIN = 1 << 14 };

typedef struct {
    tn_act act;
    const tn_real *gy, *y;
    tn_real *out;
} act_job;

static void value_piece(void *arg, size_t lo, size_t hi) {
    const act_job *j = arg;
    tn_act_range(j->act, hi - lo, j->y + lo, j->out + lo);
}

static void slope_piece(void *arg, size_t lo, size_t hi) {
    const act_job *j = arg;
    tn_act_slope(j->act, hi - lo, j->gy + lo, j->y + lo, j->out + lo);
}

void tn_act_all(tn_act act, size_t n, tn_real *x) {
    tn_parallel_range(n, GRAIN, value_piece, &(act_job){act, NULL, x, x});
}

const tn_real *tn_act_back(const tn_t *y, tn_act act, const tn_real *gy) {
    if (act == TN_ACT_NONE) return gy;
    act_job j = {act, gy, y->x, tn_scratch(y->tape, y->len * sizeof *gy)};
    tn_parallel_range(y->len, GRAIN, slope_piece, &j);
    return j.out;
}

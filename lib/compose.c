/* SPDX-License-Identifier: MIT */
/* What is written with primitives and therefore needs no rule of its own: reductions, softmax, layer norm. */
#include "ops.h"
#include <math.h>

tn_t *tn_sum(tn_t *x) {
    return tn_sum_to(x, 0, NULL);
}

tn_t *tn_mean(tn_t *x) {
    return tn_scale(tn_sum(x), 1.0 / (double)x->len);
}

tn_t *tn_sum_axis(tn_t *x, int axis) {
    int dim[TN_MAX_DIM];
    axis = tn_axis("sum_axis", x, axis);
    for (int i = 0; i < x->nd; i++) dim[i] = i == axis ? 1 : x->dim[i];
    return tn_sum_to(x, x->nd, dim);
}

tn_t *tn_mean_axis(tn_t *x, int axis) {
    axis = tn_axis("mean_axis", x, axis);
    return tn_scale(tn_sum_axis(x, axis), 1.0 / x->dim[axis]);
}

tn_t *tn_max_axis(tn_t *x, int axis) {
    int dim[TN_MAX_DIM], inner = 1, n, k = 0;
    axis = tn_axis("max_axis", x, axis);
    TN_CHECK(x->tape, x->len <= INT32_MAX, "max_axis: the tensor has more than 2^31 elements");
    for (int i = 0; i < x->nd; i++) dim[i] = i == axis ? 1 : x->dim[i];
    for (int i = axis + 1; i < x->nd; i++) inner *= x->dim[i];
    n = x->dim[axis];
    int rows = (int)(x->len / (size_t)n), *idx = tn_scratch(x->tape, (size_t)rows * sizeof *idx);
    for (int o = 0; o < rows / inner; o++)
        for (int i = 0; i < inner; i++) {
            int at = o * n * inner + i, best = at;
            for (int j = 1; j < n; j++) {
                tn_real v = x->x[at + j * inner], b = x->x[best];
                if (b == b && !(v <= b)) best = at + j * inner; /* larger, or the first NaN */
            }
            idx[k++] = best;
        }
    return tn_take(x, idx, x->nd, dim);
}

tn_t *tn_gelu(tn_t *x) {
    return tn_mul(x, tn_scale(tn_shift(tn_erf(tn_scale(x, 0.70710678118654752)), 1), 0.5));
}

tn_t *tn_gelu_tanh(tn_t *x) {
    tn_t *cube = tn_mul(tn_square(x), x);
    tn_t *inner = tn_scale(tn_add(x, tn_scale(cube, 0.044715)), 0.79788456080286536); /* sqrt(2 / pi) */
    return tn_mul(x, tn_scale(tn_shift(tn_tanh(inner), 1), 0.5));
}

/* The row maximum is a constant: it cancels, which leaves the gradient exact. */
static tn_t *shifted(tn_t *x) {
    return tn_sub(x, tn_stop(tn_max_axis(x, -1)));
}

tn_t *tn_softmax(tn_t *x) {
    tn_t *e = tn_exp(shifted(x));
    return tn_div(e, tn_sum_axis(e, -1));
}

tn_t *tn_log_softmax(tn_t *x) {
    tn_t *s = shifted(x);
    return tn_sub(s, tn_log(tn_sum_axis(tn_exp(s), -1)));
}

tn_t *tn_layer_norm(tn_t *x, tn_t *gain, tn_t *bias, double eps) {
    TN_CHECK(x->tape, x->nd > 0, "layer_norm: a scalar has no axis to normalise over");
    int n = x->dim[x->nd - 1];
    TN_CHECK(x->tape,
             (!gain || (gain->nd == 1 && gain->dim[0] == n))
                 && (!bias || (bias->nd == 1 && bias->dim[0] == n)),
             "layer_norm: gain and bias must have shape (%d,)", n);
    tn_t *d = tn_sub(x, tn_mean_axis(x, -1));
    tn_t *y = tn_div(d, tn_sqrt(tn_shift(tn_mean_axis(tn_square(d), -1), eps)));
    if (gain) y = tn_mul(y, gain);
    return bias ? tn_add(y, bias) : y;
}

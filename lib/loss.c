/* SPDX-License-Identifier: MIT */
/*
 * Losses. Cross entropy is fused: with T_ic the weight of class c in row i's target, R_i = sum_c T_ic and
 * W = sum_i weight[label_i] (mean) or 1 (sum), loss = sum_i (R_i lse_i - sum_c T_ic x_ic) / W and
 * d loss / d x_ic = (R_i softmax_ic - T_ic) / W. PyTorch's definition of label smoothing with class weights:
 * T_ic = (1 - s) weight[label_i] [c = label_i] + s / C weight[c].
 */
#include "internal.h"
#include "kernels/kernels.h"
#include <string.h>

typedef struct {
    int rows, classes;
    const int *label;            /* -1: the row counts for nothing */
    const tn_real *class_weight; /* or NULL */
    tn_real *lse;
    double smoothing, denominator;
} ce;

static double class_weight(const ce *c, int k) {
    return c->class_weight ? (double)c->class_weight[k] : 1;
}

/* sum over classes of their weights: C when there are none */
static double weight_total(const ce *c) {
    double sum = 0;
    for (int k = 0; k < c->classes; k++) sum += class_weight(c, k);
    return sum;
}

/* Weight on the label itself, and R_i. */
static void row_weights(const ce *c, int i, double total, double *on_label, double *sum) {
    *on_label = (1 - c->smoothing) * class_weight(c, c->label[i]);
    *sum = *on_label + c->smoothing / c->classes * total;
}

static double ce_value(const ce *c, const tn_real *x) {
    double loss = 0, total = weight_total(c), s = c->smoothing / c->classes;
    for (int i = 0; i < c->rows; i++) {
        if (c->label[i] < 0) continue;
        const tn_real *row = x + (size_t)i * (size_t)c->classes;
        double on_label, r, dot;
        row_weights(c, i, total, &on_label, &r);
        dot = on_label * (double)row[c->label[i]];
        for (int k = 0; s != 0 && k < c->classes; k++) dot += s * class_weight(c, k) * (double)row[k];
        loss += r * (double)c->lse[i] - dot;
    }
    return loss / c->denominator;
}

static void ce_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const ce *c = y->aux;
    if (!(need & 1)) return;
    const tn_kernels_t *kern = tn_kernels_get(NULL);
    size_t rows = (size_t)c->rows, n = (size_t)c->classes;
    tn_real *p = add & 1 ? tn_scratch(y->tape, rows * n * sizeof *p) : gx[0];
    tn_real *row_scale = tn_scratch(y->tape, rows * sizeof *row_scale);
    double scale = (double)gy[0] / c->denominator, total = weight_total(c), s = c->smoothing / c->classes;
    for (int i = 0; i < c->rows; i++) {
        double on_label, r = 0;
        if (c->label[i] >= 0) row_weights(c, i, total, &on_label, &r);
        row_scale[i] = (tn_real)(r * scale);
    }
    kern->softmax_rows(c->rows, c->classes, y->src[0]->x, c->lse, row_scale, p);
    for (int i = 0; i < c->rows; i++) {
        tn_real *g = p + (size_t)i * n;
        if (c->label[i] < 0) {
            memset(g, 0, n * sizeof *g);
            continue;
        }
        double on_label, r;
        row_weights(c, i, total, &on_label, &r);
        if (s != 0)
            for (int k = 0; k < c->classes; k++) g[k] -= (tn_real)(scale * s * class_weight(c, k));
        g[c->label[i]] -= (tn_real)(scale * on_label);
    }
    if (add & 1) kern->accumulate(rows * n, p, gx[0]);
}

static tn_t *ce_expand(tn_t *y) {
    const ce *c = y->aux;
    tn_t *x = y->src[0], *t = tn_new(y->tape, 2, x->dim);
    double total = weight_total(c), s = c->smoothing / c->classes;
    for (int i = 0; i < c->rows; i++)
        for (int k = 0; k < c->classes; k++) {
            double on_label = 0, r;
            if (c->label[i] >= 0) row_weights(c, i, total, &on_label, &r);
            double w = c->label[i] < 0 ? 0 : s * class_weight(c, k) + (k == c->label[i] ? on_label : 0);
            t->x[(size_t)i * (size_t)c->classes + (size_t)k] = (tn_real)w;
        }
    tn_result(NULL, t, 0, NULL, NULL, 0);
    return tn_scale(tn_sum(tn_mul(t, tn_log_softmax(x))), -1 / c->denominator);
}

static const tn_op op_cross_entropy = {.name = "cross_entropy", .expand = ce_expand, .bwd = ce_bwd};

tn_t *tn_cross_entropy(tn_t *x, const int *label, const tn_ce_options *given) {
    static const tn_ce_options none = {0};
    const tn_ce_options *o = given ? given : &none;
    tn_tape *t = x->tape;
    char shape[64];
    tn_shape_text(x, shape);
    TN_CHECK(t, x->nd == 2, "cross_entropy: logits of shape %s; it takes (rows, classes)", shape);
    TN_CHECK(t, o->label_smoothing >= 0 && o->label_smoothing <= 1,
             "cross_entropy: label_smoothing is %g; it must be in [0, 1]", o->label_smoothing);
    int rows = x->dim[0], classes = x->dim[1], *copy = tn_scratch(t, (size_t)rows * sizeof *copy);
    ce c = {rows, classes, copy, NULL, tn_scratch(t, (size_t)rows * sizeof(tn_real)), o->label_smoothing, 0};
    if (o->class_weight)
        c.class_weight = memcpy(tn_scratch(t, (size_t)classes * sizeof(tn_real)), o->class_weight,
                                (size_t)classes * sizeof(tn_real));
    for (int i = 0; i < rows; i++) {
        int ignored = o->use_ignore && label[i] == o->ignore_index;
        TN_CHECK(t, ignored || (label[i] >= 0 && label[i] < classes),
                 "cross_entropy: label %d of row %d is outside 0 ... %d", label[i], i, classes - 1);
        copy[i] = ignored ? -1 : label[i];
        c.denominator += ignored ? 0 : class_weight(&c, label[i]);
    }
    if (o->reduction == TN_SUM) c.denominator = 1;
    tn_kernels_get(NULL)->row_lse(rows, classes, x->x, c.lse);
    tn_t *y = tn_new(t, 0, NULL);
    y->x[0] = (tn_real)ce_value(&c, x->x);
    return tn_result(&op_cross_entropy, y, 1, &x, &c, sizeof c);
}

/* ---- losses against a target of the same shape: composites ---- */

static void same_shape_or_panic(const char *name, const tn_t *y, const tn_t *target) {
    if (tn_same_shape(y, target)) return;
    char a[64], b[64];
    tn_shape_text(y, a), tn_shape_text(target, b);
    tn_panic(y->tape, "%s: prediction %s and target %s differ in shape; nothing is broadcast in a loss", name,
             a, b);
}

static tn_t *reduce(tn_t *x, tn_reduction r) {
    return r == TN_SUM ? tn_sum(x) : tn_mean(x);
}

tn_t *tn_mse(tn_t *y, tn_t *target, tn_reduction r) {
    same_shape_or_panic("mse", y, target);
    return reduce(tn_square(tn_sub(y, target)), r);
}

/* softplus(x) - x t, which is -t log s(x) - (1 - t) log(1 - s(x)) without overflow */
tn_t *tn_bce_with_logits(tn_t *x, tn_t *target, tn_reduction r) {
    same_shape_or_panic("bce_with_logits", x, target);
    return reduce(tn_sub(tn_softplus(x), tn_mul(x, target)), r);
}

/* With d = y - t clamped to [-delta, delta] = e: e (d - e / 2), quadratic inside and linear outside. */
tn_t *tn_huber(tn_t *y, tn_t *target, double delta, tn_reduction r) {
    same_shape_or_panic("huber", y, target);
    TN_CHECK(y->tape, delta > 0, "huber: delta is %g; it must be positive", delta);
    tn_t *d = tn_sub(y, target), *e = tn_clamp(d, -delta, delta);
    return reduce(tn_mul(e, tn_sub(d, tn_scale(e, 0.5))), r);
}

tn_t *tn_l2_penalty(tn_tape *t, tn_params *s, double lambda) {
    tn_t *sum = NULL;
    for (int i = 0; i < tn_params_count(s); i++) {
        tn_param *p = tn_params_at(s, i);
        if (p->flags & (TN_NO_DECAY | TN_BUFFER)) continue;
        tn_t *q = tn_sum(tn_square(tn_use(t, p)));
        sum = sum ? tn_add(sum, q) : q;
    }
    return sum ? tn_scale(sum, lambda / 2) : tn_const(t, 0);
}

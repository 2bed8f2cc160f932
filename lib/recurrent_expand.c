/* SPDX-License-Identifier: MIT */
/* The recurrent layer from primitives, step by step: what its second derivatives go through. */
#include "recurrent.h"

/* The k-th of the gates' columns (N, H) of a product (N, gates H). */
static tn_t *gate(tn_t *z, int k, int hidden) {
    return tn_slice(z, 1, k * hidden, (k + 1) * hidden);
}

static tn_t *one_minus(tn_t *x) {
    return tn_shift(tn_neg(x), 1);
}

static tn_t *product(tn_t *x, tn_t *w, tn_t *b) {
    tn_t *z = tn_matmul(x, w, 0, 1);
    return b ? tn_add(z, b) : z;
}

/* One step from (h, c), in place. */
static void step(const tn_recurrent *r, tn_t *gx, tn_t *gh, tn_t **h, tn_t **c) {
    int n = r->hidden;
    if (r->cell == TN_GRU) {
        tn_t *reset = tn_sigmoid(tn_add(gate(gx, 0, n), gate(gh, 0, n)));
        tn_t *z = tn_sigmoid(tn_add(gate(gx, 1, n), gate(gh, 1, n)));
        tn_t *new = tn_tanh(tn_add(gate(gx, 2, n), tn_mul(reset, gate(gh, 2, n))));
        *h = tn_add(tn_mul(one_minus(z), new), tn_mul(z, *h));
        return;
    }
    tn_t *z = tn_add(gx, gh);
    if (r->cell == TN_LSTM) {
        *c = tn_add(tn_mul(tn_sigmoid(gate(z, 1, n)), *c),
                    tn_mul(tn_sigmoid(gate(z, 0, n)), tn_tanh(gate(z, 2, n))));
        *h = tn_mul(tn_sigmoid(gate(z, 3, n)), tn_tanh(*c));
        return;
    }
    *h = r->cell == TN_RNN_RELU ? tn_relu(z) : tn_tanh(z);
}

/* (N, 1): 1 for the rows whose sequence has a step t. */
static tn_t *mask_of(tn_tape *t, const tn_recurrent *r, int step) {
    tn_t *m = tn_new(t, 2, (int[]){r->rows, 1});
    for (int i = 0; i < r->rows; i++) m->x[i] = step < r->length[i];
    return tn_result(NULL, m, 0, NULL, NULL, 0);
}

static tn_t *choose(tn_t *mask, tn_t *yes, tn_t *no) {
    return tn_add(tn_mul(mask, yes), tn_mul(one_minus(mask), no));
}

tn_t *tn_recurrent_expand(tn_t *y) {
    const tn_recurrent *r = y->aux;
    tn_tape *t = y->tape;
    tn_t *const *s = y->src;
    int shape[2] = {r->rows, r->hidden}, flat = r->rows * r->hidden, lstm = r->cell == TN_LSTM;
    tn_t *h = s[TN_SRC_H0] ? s[TN_SRC_H0] : tn_full(t, 0, 2, shape);
    tn_t *c = !lstm ? NULL : s[TN_SRC_C0] ? s[TN_SRC_C0] : tn_full(t, 0, 2, shape);
    tn_t **part = tn_scratch(t, (size_t)(r->steps + 2) * sizeof *part);
    for (int k = 0; k < r->steps; k++) {
        int at = r->reverse ? r->steps - 1 - k : k;
        tn_t *x = tn_slice(s[TN_SRC_X], r->rows_first, at, at + 1), *h1 = h, *c1 = c, *out;
        x = tn_reshape(x, 2, (int[]){r->rows, r->in});
        step(r, product(x, s[TN_SRC_WIH], s[TN_SRC_BIH]), product(h, s[TN_SRC_WHH], s[TN_SRC_BHH]), &h1, &c1);
        out = h1;
        if (r->length) {
            tn_t *m = mask_of(t, r, at);
            out = tn_mul(m, h1), h1 = choose(m, h1, h), c1 = c ? choose(m, c1, c) : NULL;
        }
        h = h1, c = c1;
        if (!r->last_only) part[at] = tn_reshape(out, 1, &flat);
    }
    int n = r->last_only ? 0 : r->steps;
    part[n++] = tn_reshape(h, 1, &flat);
    if (lstm) part[n++] = tn_reshape(c, 1, &flat);
    return tn_concat(n, part, 0);
}

/* SPDX-License-Identifier: MIT */
/* Embedding: row i of a table for each index i, as one gather, so that its gradient is a scatter. */
#include "internal.h"
#include <string.h>

static void fill_padded(const tn_init *k, tn_real *w, const tn_param *p, tn_rng *r) {
    int dim = p->dim[1], padding = (int)k->a;
    for (size_t i = 0; i < p->len; i++) w[i] = (tn_real)tn_normal(r);
    if (padding >= 0) memset(w + (size_t)padding * (size_t)dim, 0, (size_t)dim * sizeof *w);
}

tn_embedding tn_embedding_new(tn_params *p, const char *name, int n, int dim, int padding) {
    TN_CHECK(NULL, padding < n, "tn_embedding_new: %s has %d rows; row %d is none of them", name, n, padding);
    tn_init init = {fill_padded, padding, 0};
    return (tn_embedding){tn_param_add(p, name, "weight", TN_NO_DECAY, init, 2, (int[]){n, dim}), padding};
}

tn_t *tn_embedding_fwd(const tn_embedding *l, tn_tape *t, const int *idx, int nd, const int *dim) {
    tn_t *w = tn_use(t, l->weight);
    int shape[TN_MAX_DIM], n = w->dim[0], width = w->dim[1], count = 1;
    TN_CHECK(t, nd >= 0 && nd < TN_MAX_DIM, "embedding: indices of %d dimensions; at most %d", nd,
             TN_MAX_DIM - 1);
    for (int i = 0; i < nd; i++) shape[i] = dim[i], count *= dim[i];
    shape[nd] = width;
    int *flat = tn_scratch(t, (size_t)count * (size_t)width * sizeof *flat);
    int padded = 0;
    for (int i = 0; i < count; i++) {
        TN_CHECK(t, idx[i] >= 0 && idx[i] < n, "embedding: index %d at %d is outside 0 ... %d", idx[i], i,
                 n - 1);
        padded |= idx[i] == l->padding;
        for (int d = 0; d < width; d++) flat[i * width + d] = idx[i] * width + d;
    }
    tn_t *y = tn_take(w, flat, nd + 1, shape);
    if (!padded) return y;
    /* the padding row gives its values and takes no gradient */
    tn_t *mask = tn_new(t, nd + 1, shape);
    for (int i = 0; i < count * width; i++) mask->x[i] = idx[i / width] != l->padding;
    tn_result(NULL, mask, 0, NULL, NULL, 0);
    return tn_add(tn_mul(y, mask), tn_mul(tn_stop(y), tn_shift(tn_neg(mask), 1)));
}

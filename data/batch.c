/* SPDX-License-Identifier: MIT */
/* From arrays to batches: the order of an epoch, and samples as tensors. */
#include "data_internal.h"
#include "internal.h"
#include "kernels/kernels.h"
#include <string.h>

void tn_epoch_order(uint64_t seed, long epoch, int n, int shuffle, int *order) {
    tn_rng r = tn_rng_make(seed, "shuffle", "", (uint64_t)epoch, 0);
    if (shuffle)
        tn_permutation(&r, n, order);
    else
        for (int i = 0; i < n; i++) order[i] = i;
}

long tn_steps_per_epoch(int n, int batch, int drop_last) {
    TN_CHECK(NULL, n >= 0 && batch >= 1, "tn_steps_per_epoch: %d samples in batches of %d", n, batch);
    return n / batch + (!drop_last && n % batch != 0);
}

/* All checks happen before the work is shared out: a chunk must not panic. */
void tn_batch_check(tn_tape *t, const char *what, const tn_data *d, int n, const int *idx, int first) {
    TN_CHECK(t, n >= 1, "%s: %d samples", what, n);
    if (!idx)
        TN_CHECK(t, first >= 0 && first <= d->n - n, "%s: samples %d ... %ld of %d", what, first,
                 (long)first + n - 1, d->n);
    else
        for (int i = 0; i < n; i++)
            TN_CHECK(t, idx[i] >= 0 && idx[i] < d->n, "%s: sample %d of %d", what, idx[i], d->n);
}

typedef struct {
    const tn_data *d;
    const int *idx;
    int n, first, rows; /* rows a chunk */
    tn_real scale, shift, *out;
    const tn_kernels_t *k;
} job;

static void gather_f32(const job *j, int lo, int hi) {
    size_t len = j->d->len;
    int as_is = j->scale == 1 && j->shift == 0;
    for (int i = lo; i < hi; i++) {
        const float *x = (const float *)j->d->x + (size_t)(j->idx ? j->idx[i] : j->first + i) * len;
        tn_real *y = j->out + (size_t)i * len;
        for (size_t c = 0; c < len; c++) y[c] = as_is ? (tn_real)x[c] : (tn_real)x[c] * j->scale + j->shift;
    }
}

static void gather(void *arg, int chunk) {
    const job *j = arg;
    int lo = chunk * j->rows, hi = lo + j->rows < j->n ? lo + j->rows : j->n;
    if (j->d->xtype != TN_U8) {
        gather_f32(j, lo, hi);
        return;
    }
    const unsigned char *x = j->d->x;
    if (!j->idx) x += (size_t)(j->first + lo) * j->d->len;
    j->k->gather_u8(hi - lo, j->d->len, x, j->idx ? j->idx + lo : NULL, j->scale, j->shift,
                    j->out + (size_t)lo * j->d->len);
}

tn_t *tn_batch_input(tn_tape *t, const tn_data *d, int n, const int *idx, int first) {
    enum { LEAST = 8192 }; /* elements that are worth a thread's while: some microseconds */
    int dim[TN_MAX_DIM] = {n};
    tn_batch_check(t, "tn_batch_input", d, n, idx, first);
    memcpy(dim + 1, d->dim, sizeof d->dim);
    tn_t *y = tn_new(t, d->nd + 1, dim);
    job j = {.d = d, .idx = idx, .n = n, .first = first, .rows = 1, .out = y->x, .k = tn_kernels_get(NULL)};
    TN_CHECK(t, j.k, "tn_batch_input: no kernels; see tn_simd");
    j.scale = (tn_real)d->scale;
    j.shift = (tn_real)d->shift;
    while ((size_t)j.rows * d->len < LEAST) j.rows *= 2;
    tn_parallel((n - 1) / j.rows + 1, gather, &j);
    return tn_result(NULL, y, 0, NULL, NULL, 0);
}

void tn_batch_labels(const tn_data *d, int n, const int *idx, int first, int *out) {
    tn_batch_check(NULL, "tn_batch_labels", d, n, idx, first);
    TN_CHECK(NULL, d->label, "tn_batch_labels: the data have no labels");
    for (int i = 0; i < n; i++) out[i] = d->label[idx ? idx[i] : first + i];
}

tn_t *tn_batch_targets(tn_tape *t, const tn_data *d, int n, const int *idx, int first) {
    tn_batch_check(t, "tn_batch_targets", d, n, idx, first);
    TN_CHECK(t, d->target, "tn_batch_targets: the data have no targets");
    tn_t *y = tn_new(t, 2, (int[]){n, d->targets});
    tn_real *to = y->x;
    for (int i = 0; i < n; i++) {
        const float *row = d->target + (size_t)(idx ? idx[i] : first + i) * (size_t)d->targets;
        for (int c = 0; c < d->targets; c++) *to++ = row[c];
    }
    return tn_result(NULL, y, 0, NULL, NULL, 0);
}

/* SPDX-License-Identifier: MIT */
/* Loss and accuracy of a model on one part of a data set. */
#include "evaluate.h"
#include <math.h>
#include <string.h>

enum { EVAL_BATCH = 256 };

static int argmax(const tn_real *y, int n) {
    int best = 0;
    for (int j = 0; j < n; j++) {
        if (isnan(y[j])) return -1;
        if (y[j] > y[best]) best = j;
    }
    return best;
}

/* Sum of the losses of n samples from first on; counts the right ones. */
static double eval_batch(const tn_model *m, tn_tape *t, const tn_data *d, int first, int n, tn_real *outputs,
                         int *predicted, int *right) {
    int label[EVAL_BATCH], width = m->shape.outputs;
    tn_t *y = tn_forward(m, tn_batch_input(t, d, n, NULL, first));
    if (outputs) memcpy(outputs + (size_t)first * (size_t)width, y->x, y->len * sizeof *y->x);
    if (!d->classes) return n * tn_value(tn_mse(y, tn_batch_targets(t, d, n, NULL, first), TN_MEAN));
    tn_batch_labels(d, n, NULL, first, label);
    for (int i = 0; i < n; i++) {
        int c = argmax(y->x + (size_t)i * (size_t)width, width);
        *right += c == label[i];
        if (predicted) predicted[first + i] = c;
    }
    return n * tn_value(tn_cross_entropy(y, label, NULL));
}

score evaluate(const tn_model *m, tn_tape *t, const tn_data *d, tn_real *outputs, int *predicted) {
    double loss = 0;
    int right = 0;
    if (!d->n) return (score){NAN, NAN, 0};
    tn_eval_mode(t);
    int recorded = tn_record(t, 0);
    for (int first = 0; first < d->n; first += EVAL_BATCH) {
        int n = d->n - first < EVAL_BATCH ? d->n - first : EVAL_BATCH;
        tn_tape_reset(t);
        loss += eval_batch(m, t, d, first, n, outputs, predicted, &right);
    }
    tn_tape_reset(t);
    tn_record(t, recorded);
    return (score){loss / d->n, d->classes ? (double)right / d->n : NAN, d->n};
}

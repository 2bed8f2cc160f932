/* SPDX-License-Identifier: MIT */
/* Loss and accuracy of a model on one part of a data set, and its raw outputs. */
#ifndef TERN_APP_EVALUATE_H
#define TERN_APP_EVALUATE_H
#include "tern_data.h"
#include "tern_models.h"

typedef struct {
    double loss;     /* mean cross entropy, or mean squared error for regression; NAN when n is 0 */
    double accuracy; /* share of right classes; NAN for regression */
    int n;           /* samples */
} score;

/*
 * In file order, in batches of a fixed size on a tape that does not record, so no bit depends on threads; no
 * allocation once the tape is warm. outputs (n * outputs reals) and predicted (n classes) may be NULL. A row
 * of outputs with NaN predicts -1 and counts as wrong.
 */
score evaluate(const tn_model *, tn_tape *, const tn_data *, tn_real *outputs, int *predicted);
#endif

/* SPDX-License-Identifier: MIT */
/* Dropout's mask, for the op and for ops that drop what they have just made. */
#ifndef TN_DROPOUT_H
#define TN_DROPOUT_H
#include "internal.h"

typedef struct {
    double p; /* 0: nothing is dropped */
    uint64_t seed, step, first_row;
    const char *name;
} tn_dropout_plan;

/* The mask of the tape's mode for this layer; 0 and p = 0: none, in evaluation or with p = 0. Panics on p outside [0, 1). */
int tn_dropout_plan_make(tn_tape *, double p, const char *name, tn_dropout_plan *);
tn_t *tn_dropout_planned(tn_t *x, const tn_dropout_plan *);
/* Row `row` of a batch, of len elements; y may be x. */
void tn_dropout_row(const tn_dropout_plan *, size_t row, size_t len, const tn_real *x, tn_real *y);
tn_real tn_dropout_scale(const tn_dropout_plan *); /* what is kept is multiplied by it */
#endif

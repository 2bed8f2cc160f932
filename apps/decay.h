/* SPDX-License-Identifier: MIT */
/* What a weight decay means in numbers, for the head of a run. */
#ifndef TERN_APP_DECAY_H
#define TERN_APP_DECAY_H
#include "run_state.h"

typedef struct {
    double lambda; /* weight_decay of the parameter's group; 0: none, or it does not decay */
    int no_factor; /* 1: neither a penalty nor one factor for all weights */
    int penalty;   /* 1: lambda / 2 |w|^2 through the gradient; 0: by shrinking the weights */
    double
        shrink; /* w *= 1 - shrink in a step at the full learning rate; 0: by no one factor, or the rate is 0 */
    double
        timescale; /* epochs until 1/e of a weight without gradient is left: 1 / (shrink x steps an epoch) */
    double total;  /* what is left of it at the end of the run, with the schedule */
    double lambda_norm; /* shrink / sqrt(b / (B T)): comparable between batch sizes and lengths of runs */
} decay_facts;
/*
 * weight_decay of the parameter's group, 0 if it does not decay. *penalty: the kind, as above. It is the
 * optimizer's, the same at any learning rate, 0 included.
 */
double decay_lambda(const run *, const tn_param *, int *penalty);
decay_facts decay_of(const run *, const tn_param *);
/* decay_facts.total with three digits of what is gone, where hardly anything is: 1 - 7.2e-05. */
void decay_total_text(double total, char out[32]);
/* The i-th thing to warn about, from 0; returns 0 when there is none left. */
int decay_warning(const run *, int i, char *out, size_t cap);
#endif

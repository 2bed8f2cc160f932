/* SPDX-License-Identifier: MIT */
/* For optimizer tests: two tensors, "p.weight" (3, 5) and "p.bias" (7, no decay), optimizer, clock. */
#ifndef TEST_OPTIM_RIG_H
#define TEST_OPTIM_RIG_H
#include "support.h"

typedef struct {
    tn_params *params;
    tn_param *p[2]; /* weight, bias */
    tn_optim *o;
    tn_tick tick; /* t: steps done */
} rig;

/* Seeded weights in (-1, 1), away from 0; fails the test when the spec is refused. */
rig rig_new(const char *spec);
void rig_free(rig *);
void rig_step(rig *); /* from the gradients as they stand */
void rig_zero_grad(rig *);
void rig_random_grad(rig *, uint64_t seed); /* the same for the same seed */
void rig_run(rig *, int steps);             /* from random gradients, the same for the same step number */
#endif

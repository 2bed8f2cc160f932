/* SPDX-License-Identifier: MIT */
/* The two halves of a training step, for loops that take more than one gradient a step. */
#ifndef TN_STEPPER_H
#define TN_STEPPER_H
#include "tape.h"

/*
 * Loss and gradient of all micro-batches, into the parameters' g: not clipped, out->grad_norm its norm. 1: refused, with
 * out->nonfinite. Plans for buffers are made but neither committed nor discarded.
 */
int tn_step_gradient(tn_stepper *, tn_tape *, tn_loss_fn *, void *arg, const tn_tick *, tn_step_result *out);
/* Clips g and gives it to the optimizer. */
void tn_step_update(tn_stepper *, tn_tape *, const tn_tick *);
#endif

/* SPDX-License-Identifier: MIT */
/* Optimizers that make one known mistake each: definitions as a plug-in would have them, with a plain step. */
#ifndef TEST_MUTANTS_H
#define TEST_MUTANTS_H
#include "../apps/conform.h"

/*
 * A definition with the name, options and slots of a built-in one (sgd, adagrad, rmsprop, adam, adaml2, adamw) and a step
 * that makes the mistake (MISTAKE_NONE: none). One at a time: the next call changes the one returned before.
 */
const tn_optim_def *mutant(const char *base, int mistake);
/* The maker of conform_run for it. */
tn_optim *mutant_make(const void *def, tn_params *, const char *spec, tn_err *);
#endif

/* SPDX-License-Identifier: MIT */
/* One case of golden/ops/FILE.json: its inputs on a tape, the outputs and gradients to compare with. */
#ifndef TEST_GOLDEN_CASE_H
#define TEST_GOLDEN_CASE_H
#include "support.h"

enum { GOLDEN_IN = 24, GOLDEN_OUT = 3 };
typedef struct {
    json_t *args;
    const char *op, *name;
    tn_tape *tape;
    int n; /* inputs of reals */
    tn_t *x[GOLDEN_IN];
    const char *x_name[GOLDEN_IN];
    int *ints, ints_nd, ints_dim[TN_MAX_DIM]; /* class numbers or indices */
    const tn_real *class_weight;
} golden_case;

double golden_number(const golden_case *, const char *key, double if_null);
int golden_word_is(const golden_case *, const char *key, const char *word);
void golden_pair(const golden_case *, const char *key, int out[2]); /* [h, w] */
tn_t *golden_input(const golden_case *, const char *name);          /* NULL: not there */

/* Runs the case and puts its outputs into y. Returns parameters to be freed after the comparison, or NULL. */
typedef tn_params *golden_run(const golden_case *, tn_t *y[GOLDEN_OUT]);
/*
 * All cases of a file but those of the op `later` (NULL: none is left out), which a test of its own has; expected: how
 * many must have been compared. Gradients by numbers and by create_graph.
 */
void golden_check(const char *file, golden_run *, const char *later, int expected);
#endif

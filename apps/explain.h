/* SPDX-License-Identifier: MIT */
/* One weight through some steps of an optimizer, with every quantity in between. */
#ifndef TERN_APP_EXPLAIN_H
#define TERN_APP_EXPLAIN_H
#include "config.h"

enum { EXPLAIN_STEPS = 1000, EXPLAIN_COLUMNS = 24, EXPLAIN_MOST = 8 };

typedef struct {
    char name[TN_MAX_NAME], formula[160];
    int part;                /* 1: one of those that add up to the step */
    double v[EXPLAIN_STEPS]; /* of step t at t - 1 */
} explain_column;

typedef struct {
    char spec[CONFIG_SPEC]; /* with every option */
    char label[TN_MAX_NAME];
    int whole; /* it works on whole tensors */
    int n;
    explain_column column[EXPLAIN_COLUMNS]; /* the first is g, the last is w */
} explained;

typedef struct {
    double w, g[EXPLAIN_STEPS];
    int n;                                     /* steps */
    const tn_schedule *schedule, *wd_schedule; /* NULL: constant */
} explain_input;

/* -1: the specification is wrong. */
int explain_run(const char *spec, const explain_input *, explained *, tn_err *);
/* spec with those options of `from` that its optimizer has, too, and spec does not name. */
void explain_inherit(const char *spec, const char *from, char out[CONFIG_SPEC]);
/* One optimizer: all columns, then their formulas. Several: quantity by quantity side by side. */
void explain_print(FILE *, int n, const explained *, const explain_input *);
json_t *explain_json(int n, const explained *, const explain_input *);
#endif

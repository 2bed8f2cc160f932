/* SPDX-License-Identifier: MIT */
/* What the optimizer's step calls when a decay report is on it. */
#ifndef TN_OPTIM_REPORT_H
#define TN_OPTIM_REPORT_H
#include "internal.h"

void tn_report_before(tn_decay_report *, const tn_tick *);
/*
 * Before elements [lo, hi) of parameter i are updated: the penalty's moment moves on, while the update's own pass has the weights
 * in the cache. From any thread; parts of a parameter in any order, each once a step.
 */
void tn_report_track(const tn_decay_report *, const tn_tick *, int i, size_t lo, size_t hi);
void tn_report_after(tn_decay_report *, const tn_tick *);
/* In optim.c: the report that steps call, NULL: none. */
void tn_optim_report(tn_optim *, tn_decay_report *);
#endif

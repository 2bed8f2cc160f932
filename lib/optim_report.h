/* SPDX-License-Identifier: MIT */
/* What the optimizer's step calls when a decay report is on it. */
#ifndef TN_OPTIM_REPORT_H
#define TN_OPTIM_REPORT_H
#include "internal.h"

/*
 * Before a step; then, from any thread, for every range of a trained tensor just before its update, and right after it,
 * before a wrapper's, which is no part of the report; after the step.
 */
void tn_report_before(tn_decay_report *, const tn_tick *);
void tn_report_range(const tn_decay_report *, const tn_tick *, int tensor, size_t lo, size_t hi);
void tn_report_updated(const tn_decay_report *, const tn_tick *, int tensor, size_t lo, size_t hi);
void tn_report_after(tn_decay_report *, const tn_tick *);
/* In optim.c: the report that steps call, NULL: none. */
void tn_optim_report(tn_optim *, tn_decay_report *);
#endif

/* SPDX-License-Identifier: MIT */
/* What the optimizer's step calls when a decay report is on it. */
#ifndef TN_OPTIM_REPORT_H
#define TN_OPTIM_REPORT_H
#include "internal.h"

void tn_report_before(tn_decay_report *, const tn_tick *);
void tn_report_after(tn_decay_report *, const tn_tick *);
/* In optim.c: the report that steps call, NULL: none. */
void tn_optim_report(tn_optim *, tn_decay_report *);
#endif

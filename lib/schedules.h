/* SPDX-License-Identifier: MIT */
/* Rows that the schedules' option tables share. */
#ifndef TN_SCHEDULES_H
#define TN_SCHEDULES_H
#include "internal.h"

/* Every table has it: schedule.c finds the row by its name and puts the ramp in front. */
#define TN_OPT_WARMUP(S) \
    TN_OPT_INT(S, warmup, 0, 0, 1e9, "steps over which the rate first rises from 0, by (k + 1) / warmup")
#define TN_OPT_END_FACTOR(S) \
    TN_OPT_REAL(S, end, 0, 0, 1, 0, "what the rate is multiplied with after the last step")
#endif

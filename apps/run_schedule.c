/* SPDX-License-Identifier: MIT */
/* Schedules that follow the validation loss: they hear it, and the log tells when a rate fell. */
#include "run_state.h"
#include "rundir.h"

static int observe_one(run *r, tn_schedule *s, const char *what, tn_err *e) {
    int n;
    if (!s || !tn_schedule_observes(s)) return 0;
    const double before = *tn_schedule_state(s, &n);
    tn_schedule_observe(s, r->val.loss);
    const double now = *tn_schedule_state(s, &n);
    if (!r->files || now == before) return 0;
    return rundir_event(r->files, "plateau",
                        json_pack("{s:I, s:s, s:o, s:o, s:o}", "step", (json_int_t)r->step, "of", what,
                                  "val_loss", json_number(r->val.loss), "before", json_number(before), "now",
                                  json_number(now)),
                        e);
}

int run_observe(run *r, tn_err *e) {
    return observe_one(r, r->schedule, "lr", e) || observe_one(r, r->wd_schedule, "weight_decay", e) ? -1 : 0;
}

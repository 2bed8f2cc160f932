/* SPDX-License-Identifier: MIT */
/*
 * torch.optim.lr_scheduler.ReduceLROnPlateau with mode=min and eps=0: the rate falls by a factor when the validation loss
 * has not improved for a while. It is not a function of the step: what it heard lies in its state.
 *
 *   better: a < best (1 - threshold)   threshold_mode=rel
 *           a < best - threshold       threshold_mode=abs
 *   a loss that is not better (NaN never is) is bad; in a cooldown none counts as bad
 *   bad > patience: factor_now = max(factor_now factor, min), a new cooldown begins, none was bad
 */
#include "schedules.h"
#include <math.h>

enum { NOW, BEST, BAD, COOLDOWN, STATE };
enum { THRESHOLD_REL, THRESHOLD_ABS };
typedef struct {
    long warmup, patience, cooldown;
    double factor, threshold, min;
    int threshold_mode;
} plateau_hp;

static double plateau_mul(const void *hp, long k, long n) {
    (void)hp, (void)k, (void)n;
    return 1;
}

static void plateau_begin(const void *hp, double state[]) {
    (void)hp;
    state[NOW] = 1, state[BEST] = INFINITY, state[BAD] = 0, state[COOLDOWN] = 0;
}

static int is_better(const plateau_hp *h, double a, double best) {
    return a < (h->threshold_mode == THRESHOLD_REL ? best * (1 - h->threshold) : best - h->threshold);
}

static void plateau_observe(const void *hp, double value, double state[]) {
    const plateau_hp *h = hp;
    if (is_better(h, value, state[BEST]))
        state[BEST] = value, state[BAD] = 0;
    else
        state[BAD]++;
    if (state[COOLDOWN] > 0) state[COOLDOWN]--, state[BAD] = 0;
    if (state[BAD] > (double)h->patience) {
        double next = state[NOW] * h->factor;
        state[NOW] = next > h->min ? next : h->min;
        state[COOLDOWN] = (double)h->cooldown, state[BAD] = 0;
    }
}

static const tn_opt plateau_opts[] = {
    TN_OPT_REAL(plateau_hp, factor, 0.1, 0, 1, TN_OPEN_MIN | TN_OPEN_MAX, "of each fall"),
    TN_OPT_INT(plateau_hp, patience, 10, 0, 1e9,
               "validations in a row without improvement that are let pass"),
    TN_OPT_REAL(plateau_hp, threshold, 1e-4, 0, 1e30, 0, "a smaller improvement is none"),
    TN_OPT_WORD(plateau_hp, threshold_mode, "rel|abs", THRESHOLD_REL,
                "rel: threshold is a share of the best loss"),
    TN_OPT_INT(plateau_hp, cooldown, 0, 0, 1e9, "validations after a fall that do not count"),
    TN_OPT_REAL(plateau_hp, min, 0, 0, 1, 0, "the multiplier falls no lower"),
    TN_OPT_WARMUP(plateau_hp),
    TN_OPT_END};
const tn_schedule_def tn_schedule_def_plateau = {TN_ABI,
                                                 sizeof(tn_schedule_def),
                                                 "plateau",
                                                 "falls by factor when the validation loss stops improving",
                                                 sizeof(plateau_hp),
                                                 plateau_opts,
                                                 plateau_mul,
                                                 0,
                                                 .source = "torch ReduceLROnPlateau, mode=min, eps=0",
                                                 .nstate = STATE,
                                                 .begin = plateau_begin,
                                                 .observe = plateau_observe};

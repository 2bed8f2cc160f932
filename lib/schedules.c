/* SPDX-License-Identifier: MIT */
/*
 * The built-in schedules, as PyTorch's lr_scheduler defines them: the multiplier at step k of n, both counted
 * after the warm-up. Beyond the last planned step a schedule keeps its final value.
 */
#include "schedules.h"

#define GAMMA(S, def, help) TN_OPT_REAL(S, gamma, def, 0, 1, TN_OPEN_MIN, help)

typedef struct {
    long warmup, size;
    double gamma, end;
} schedule_hp;

static double constant_mul(const void *hp, long k, long n) {
    (void)hp, (void)k, (void)n;
    return 1;
}
static const tn_opt constant_opts[] = {TN_OPT_WARMUP(schedule_hp), TN_OPT_END};
const tn_schedule_def tn_schedule_def_constant = {TN_ABI,
                                                  sizeof(tn_schedule_def),
                                                  "constant",
                                                  "the rate stays as it is",
                                                  sizeof(schedule_hp),
                                                  constant_opts,
                                                  constant_mul,
                                                  0,
                                                  .source = "torch ConstantLR with factor=1"};

/* torch.optim.lr_scheduler.LinearLR from 1 to end */
static double linear_mul(const void *hp, long k, long n) {
    const schedule_hp *h = hp;
    return k < n ? 1 + (h->end - 1) * (double)k / (double)n : h->end;
}
static const tn_opt linear_opts[] = {TN_OPT_END_FACTOR(schedule_hp), TN_OPT_WARMUP(schedule_hp), TN_OPT_END};
const tn_schedule_def tn_schedule_def_linear = {TN_ABI,
                                                sizeof(tn_schedule_def),
                                                "linear",
                                                "falls in a straight line from 1 to end",
                                                sizeof(schedule_hp),
                                                linear_opts,
                                                linear_mul,
                                                1,
                                                .source =
                                                    "torch LinearLR with start_factor=1, end_factor=end"};

/* torch.optim.lr_scheduler.StepLR, in optimizer steps */
static double step_mul(const void *hp, long k, long n) {
    const schedule_hp *h = hp;
    (void)n;
    return tn_exact_powi(h->gamma, k / h->size);
}
static const tn_opt step_opts[] = {
    TN_OPT_INT(schedule_hp, size, 1000, 1, 1e9, "optimizer steps between two drops of the rate"),
    GAMMA(schedule_hp, 0.1, "factor of each drop"), TN_OPT_WARMUP(schedule_hp), TN_OPT_END};
const tn_schedule_def tn_schedule_def_step = {TN_ABI,
                                              sizeof(tn_schedule_def),
                                              "step",
                                              "multiplies the rate by gamma every size steps",
                                              sizeof(schedule_hp),
                                              step_opts,
                                              step_mul,
                                              0,
                                              .source = "torch StepLR, in optimizer steps"};

/* torch.optim.lr_scheduler.ExponentialLR, in optimizer steps */
static double exponential_mul(const void *hp, long k, long n) {
    (void)n;
    return tn_exact_powi(((const schedule_hp *)hp)->gamma, k);
}
static const tn_opt exponential_opts[] = {GAMMA(schedule_hp, 0.999, "factor of each optimizer step"),
                                          TN_OPT_WARMUP(schedule_hp), TN_OPT_END};
const tn_schedule_def tn_schedule_def_exponential = {TN_ABI,
                                                     sizeof(tn_schedule_def),
                                                     "exponential",
                                                     "multiplies the rate by gamma every step",
                                                     sizeof(schedule_hp),
                                                     exponential_opts,
                                                     exponential_mul,
                                                     0,
                                                     .source = "torch ExponentialLR, in optimizer steps"};

/* torch.optim.lr_scheduler.CosineAnnealingLR with T_max n; Loshchilov and Hutter, arXiv:1608.03983 */
static double cosine_mul(const void *hp, long k, long n) {
    const schedule_hp *h = hp;
    if (k >= n) return h->end;
    return h->end + (1 - h->end) * ((1 + tn_exact_cos2pi((double)k / (2.0 * (double)n))) / 2);
}
static const tn_opt cosine_opts[] = {TN_OPT_END_FACTOR(schedule_hp), TN_OPT_WARMUP(schedule_hp), TN_OPT_END};
const tn_schedule_def tn_schedule_def_cosine = {
    TN_ABI,
    sizeof(tn_schedule_def),
    "cosine",
    "falls along half a cosine from 1 to end",
    sizeof(schedule_hp),
    cosine_opts,
    cosine_mul,
    1,
    .source = "Loshchilov and Hutter, arXiv:1608.03983; torch CosineAnnealingLR"};

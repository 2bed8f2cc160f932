/* SPDX-License-Identifier: MIT */
/* Schedules that rise again: cosine with warm restarts, one-cycle. */
#include "schedules.h"

/* ---- cosine_restarts ---- */

/*
 * torch.optim.lr_scheduler.CosineAnnealingWarmRestarts, in optimizer steps; Loshchilov and Hutter, arXiv:1608.03983.
 * Cycle i has T_i = T_0 T_mult^i steps; at its step j
 *
 *   end + (1 - end) (1 + cos(pi j / T_i)) / 2
 */
typedef struct {
    long warmup, T_0, T_mult;
    double end;
} restarts_hp;

static double restarts_mul(const void *hp, long k, long n) {
    const restarts_hp *h = hp;
    long length = h->T_0;
    (void)n;
    if (h->T_mult == 1) k %= length;
    while (k >= length)
        k -= length, length *= h->T_mult; /* length <= k before: no overflow below 2^53 steps */
    return h->end + (1 - h->end) * ((1 + tn_exact_cos2pi((double)k / (2.0 * (double)length))) / 2);
}
static const tn_opt restarts_opts[] = {
    TN_OPT_INT(restarts_hp, T_0, 1000, 1, 1e9, "optimizer steps of the first cycle"),
    TN_OPT_INT(restarts_hp, T_mult, 1, 1, 1000, "each cycle is so many times as long as the one before"),
    TN_OPT_REAL(restarts_hp, end, 0, 0, 1, 0, "what each cycle falls towards, as a multiplier of the rate"),
    TN_OPT_WARMUP(restarts_hp), TN_OPT_END};
const tn_schedule_def tn_schedule_def_cosine_restarts = {
    TN_ABI,
    sizeof(tn_schedule_def),
    "cosine_restarts",
    "half a cosine from 1 to end, again and again",
    sizeof(restarts_hp),
    restarts_opts,
    restarts_mul,
    .source = "Loshchilov and Hutter, arXiv:1608.03983; torch CosineAnnealingWarmRestarts"};

/* ---- one_cycle ---- */

/*
 * torch.optim.lr_scheduler.OneCycleLR with two phases; Smith and Topin, arXiv:1708.07120. The optimizer's rate is max_lr.
 * Step k of n, with a = pct_start n - 1 the last step of the rise:
 *
 *   k <= a: from 1 / div_factor to 1 at k / a
 *   else:   from 1 to 1 / (div_factor final_div_factor) at (k - a) / (n - 1 - a)
 *
 * each along half a cosine or a straight line. PyTorch's cycle of the momentum, or of beta1, is not done: an optimizer
 * here has one momentum for the whole run (PyTorch: cycle_momentum=False).
 */
enum { ANNEAL_COS, ANNEAL_LINEAR };
typedef struct {
    long warmup;
    double pct_start, div_factor, final_div_factor;
    int anneal;
} one_cycle_hp;

static double between(int anneal, double from, double to, double x) {
    if (anneal == ANNEAL_LINEAR) return from + (to - from) * x;
    return to + (from - to) / 2 * (1 + tn_exact_cos2pi(x / 2));
}

static double one_cycle_mul(const void *hp, long k, long n) {
    const one_cycle_hp *h = hp;
    const double first = 1 / h->div_factor, last = first / h->final_div_factor;
    const double top = h->pct_start * (double)n - 1, end = (double)n - 1, at = (double)k;
    if (k >= n) return last;
    if (at <= top) return top > 0 ? between(h->anneal, first, 1, at / top) : 1;
    return between(h->anneal, 1, last, (at - top) / (end - top));
}
static const tn_opt one_cycle_opts[] = {
    TN_OPT_REAL(one_cycle_hp, pct_start, 0.3, 0, 1, 0, "share of the steps in which the rate rises"),
    TN_OPT_REAL(one_cycle_hp, div_factor, 25, 1, 1e9, 0, "the rate begins at lr / div_factor; its top is lr"),
    TN_OPT_REAL(one_cycle_hp, final_div_factor, 1e4, 1, 1e9, 0,
                "it ends at lr / (div_factor final_div_factor)"),
    TN_OPT_WORD(one_cycle_hp, anneal, "cos|linear", ANNEAL_COS, "shape of both ways; momentum is not cycled"),
    TN_OPT_WARMUP(one_cycle_hp),
    TN_OPT_END};
const tn_schedule_def tn_schedule_def_one_cycle = {
    TN_ABI,
    sizeof(tn_schedule_def),
    "one_cycle",
    "rises to 1, then falls far below its start; momentum is not cycled",
    sizeof(one_cycle_hp),
    one_cycle_opts,
    one_cycle_mul,
    1,
    .source = "Smith and Topin, arXiv:1708.07120; torch OneCycleLR with cycle_momentum=False"};

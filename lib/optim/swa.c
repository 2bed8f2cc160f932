/* SPDX-License-Identifier: MIT */
/*
 * Stochastic weight averaging (Izmailov et al., UAI 2018, arXiv:1803.05407), as torch.optim.swa_utils.AveragedModel: from
 * step S on, every so many steps, the n-th time
 *
 *   average = w                            n = 1
 *   average = average + (w - average) / n  n > 1
 *
 * S is start_step, or the share `start` of the planned steps. every=0 takes the weights at the end of each epoch.
 * Evaluation is on the average, before its first time on the weights.
 */
#include "optim.h"

typedef struct {
    double start;
    long start_step, every;
} swa_hp;

static const tn_opt swa_opts[] = {
    TN_OPT_REAL(
        swa_hp, start, 0.75, 0, 1, TN_OPEN_MAX | TN_PLANNED,
        "share of the planned steps after which averaging begins; evaluation is on the average, while "
        "running statistics of batch norm stay those of the training weights"),
    TN_OPT_INT(swa_hp, start_step, 0, 0, 1e9,
               "first step that is averaged, in the place of start; 0: by start"),
    TN_OPT_INT(swa_hp, every, 0, 0, 1e9, "averages every so many steps; 0: at the end of each epoch"),
    TN_OPT_END};

static int swa_check(void *hp, uint64_t given, tn_err *e) {
    swa_hp *h = hp;
    const int start_given = (int)(given & 1);
    if (h->start_step > 0 && start_given && h->start > 0)
        return tn_fail(e, "wrapper swa: start=%g and start_step=%ld both say when; give one of them",
                       h->start, h->start_step);
    if (h->start_step > 0) h->start = 0;
    return 0;
}

static int swa_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp;
    out[0] = (tn_slot){"swa_weights", tn_elements(nd, dim), 0};
    return 1;
}

static void swa_begin(const void *hp, tn_opt_tensor *p) {
    (void)hp;
    memcpy(p->slot[0], p->w, p->n * sizeof *p->w);
}

static long first_step(const swa_hp *h, const tn_tick *k) {
    const long first = h->start_step > 0 ? h->start_step : (long)ceil(h->start * (double)k->total);
    return first > 0 ? first : 1;
}

/* How often the weights have been taken by step k->t, this one included; *now: at this one. */
static long times(const swa_hp *h, const tn_tick *k, int *now) {
    const long first = first_step(h, k), every = h->every > 0 ? h->every : k->steps_per_epoch;
    *now = 0;
    if (k->t < first || every < 1) return 0;
    const long offset = h->every > 0 ? first : 0;
    *now = (k->t - offset) % every == 0;
    return h->every > 0 ? (k->t - first) / every + 1 : k->t / every - (first - 1) / every;
}

static void swa_decide(const void *hp, const tn_tick *k, const double acc[], double shared[]) {
    const swa_hp *h = hp;
    (void)acc, (void)shared;
    TN_CHECK(NULL, h->start == 0 || k->total > 0,
             "swa: start=%g needs the planned number of steps in tn_tick.total; or give start_step",
             h->start);
    TN_CHECK(NULL, h->every > 0 || k->steps_per_epoch > 0,
             "swa: every=0 needs the steps of an epoch in tn_tick.steps_per_epoch; or give every");
}

TN_STEP swa_step(const tn_real take, const tn_opt_tensor p, size_t i, size_t n) {
    V w = vget(p.w + i, n), average = vget(p.slot[0] + i, n);
    vput(p.slot[0] + i, n, vfma(vset1(take), w - average, average));
}

TN_STEP copy_step(const tn_opt_tensor p, size_t i, size_t n) {
    vput(p.slot[0] + i, n, vget(p.w + i, n));
}

static void swa_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    int now;
    const long n = times(hp, k, &now);
    if (!now) return;
    if (n == 1)
        TN_EACH_VECTOR(lo, hi, copy_step, *p);
    else
        TN_EACH_VECTOR(lo, hi, swa_step, (tn_real)(1 / (double)n), *p);
}

static void swa_eval(const void *hp, const tn_tick *k, const tn_opt_tensor *p, tn_real *out) {
    int now;
    memcpy(out, times(hp, k, &now) > 0 ? p->slot[0] : p->w, p->n * sizeof *out);
}

const tn_optim_def TN_OPTIM_DEF(swa) = {.abi = TN_ABI,
                                        .size = sizeof(tn_optim_def),
                                        .name = "swa",
                                        .summary = "evaluates on the mean of the weights late in the run",
                                        .source = "Izmailov et al., UAI 2018, arXiv:1803.05407; "
                                                  "torch.optim.swa_utils.AveragedModel",
                                        .hp_size = sizeof(swa_hp),
                                        .hp = swa_opts,
                                        .scope = TN_ELEMENT,
                                        .check = swa_check,
                                        .slots = swa_slots,
                                        .begin = swa_begin,
                                        .decide = swa_decide,
                                        .update = swa_update,
                                        .eval_weights = swa_eval,
                                        .wraps = 1};

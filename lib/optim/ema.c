/* SPDX-License-Identifier: MIT */
/*
 * Exponential average of the weights (Polyak and Juditsky, SIAM J. Control Optim. 30, 1992, with a geometric weight), as
 * torch.optim.swa_utils.get_ema_multi_avg_fn: after each step
 *
 *   average = w                                        after step 1
 *   average = average + (1 - decay_t) (w - average)    after the others; decay_t = decay
 *   decay_t = min(decay, (1 + t) / (10 + t))           warmup=on: num_updates of TensorFlow's ExponentialMovingAverage
 *
 * debias=on: the average starts at 0 and is evaluated as average / (1 - decay^t), as Adam's first moment: optax.ema.
 * Evaluation is on the average. A tensor that is frozen stays as it is in both.
 */
#include "optim.h"

typedef struct {
    double decay;
    int warmup, debias;
} ema_hp;

static const tn_opt ema_opts[] = {
    TN_OPT_REAL(ema_hp, decay, 0.999, 0, 1, TN_OPEN_MAX,
                "share of the average that stays in a step; evaluation is on the average, while running "
                "statistics of batch norm stay those of the training weights"),
    TN_OPT_BOOL(ema_hp, warmup, 0, "decay of step t is at most (1 + t) / (10 + t)"),
    TN_OPT_BOOL(ema_hp, debias, 0, "starts at 0 instead of the weights and divides by 1 - decay^t"),
    TN_OPT_END};

static int ema_check(void *hp, uint64_t given, tn_err *e) {
    const ema_hp *h = hp;
    (void)given;
    if (h->warmup && h->debias)
        return tn_fail(e, "wrapper ema: warmup=on and debias=on both mend the start; choose one of them");
    return 0;
}

static int ema_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp;
    out[0] = (tn_slot){"ema_weights", tn_elements(nd, dim), 0};
    return 1;
}

static void ema_begin(const void *hp, tn_opt_tensor *p) {
    if (!((const ema_hp *)hp)->debias) memcpy(p->slot[0], p->w, p->n * sizeof *p->w);
}

TN_STEP ema_step(const tn_real take, const tn_opt_tensor p, size_t i, size_t n) {
    V w = vget(p.w + i, n), average = vget(p.slot[0] + i, n);
    vput(p.slot[0] + i, n, vfma(vset1(take), w - average, average));
}

TN_STEP copy_step(const tn_opt_tensor p, size_t i, size_t n) {
    vput(p.slot[0] + i, n, vget(p.w + i, n));
}

static void ema_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const ema_hp *h = hp;
    const double most = (1 + (double)k->t) / (10 + (double)k->t);
    const tn_real take = (tn_real)(1 - (h->warmup && most < h->decay ? most : h->decay));
    if (k->t == 1 && !h->debias)
        TN_EACH_VECTOR(lo, hi, copy_step, *p);
    else
        TN_EACH_VECTOR(lo, hi, ema_step, take, *p);
}

static void ema_eval(const void *hp, const tn_tick *k, const tn_opt_tensor *p, tn_real *out) {
    const ema_hp *h = hp;
    const tn_real scale = h->debias ? (tn_real)(1 / (1 - tn_exact_powi(h->decay, k->t))) : 1;
    if (h->debias && (k->t < 1 || p->flags & TN_FROZEN)) /* nothing has been gathered */
        memcpy(out, p->w, p->n * sizeof *out);
    else
        for (size_t i = 0; i < p->n; i++) out[i] = scale * p->slot[0][i];
}

const tn_optim_def TN_OPTIM_DEF(ema) = {.abi = TN_ABI,
                                        .size = sizeof(tn_optim_def),
                                        .name = "ema",
                                        .summary = "evaluates on an exponential average of the weights",
                                        .source = "torch.optim.swa_utils.get_ema_multi_avg_fn; optax.ema",
                                        .hp_size = sizeof(ema_hp),
                                        .hp = ema_opts,
                                        .scope = TN_ELEMENT,
                                        .check = ema_check,
                                        .slots = ema_slots,
                                        .begin = ema_begin,
                                        .update = ema_update,
                                        .eval_weights = ema_eval,
                                        .wraps = 1};

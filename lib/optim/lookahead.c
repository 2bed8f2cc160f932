/* SPDX-License-Identifier: MIT */
/*
 * Lookahead (Zhang et al., NeurIPS 2019, arXiv:1907.08610, Algorithm 1): slow weights start as the weights; after every k
 * steps of the optimizer inside, whose state goes on as it is,
 *
 *   slow = slow + alpha (w - slow),   w = slow
 *
 * Evaluation is on w, which is the slow weights after every k-th step.
 */
#include "optim.h"

typedef struct {
    long k;
    double alpha;
} lookahead_hp;

static const tn_opt lookahead_opts[] = {
    TN_OPT_INT(lookahead_hp, k, 5, 1, 1e9, "steps between two of the slow weights"),
    TN_OPT_REAL(lookahead_hp, alpha, 0.5, 0, 1, TN_OPEN_MIN, "how far the slow weights follow"), TN_OPT_END};

static int lookahead_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp;
    out[0] = (tn_slot){"slow_weights", tn_elements(nd, dim), 0};
    return 1;
}

static void lookahead_begin(const void *hp, tn_opt_tensor *p) {
    (void)hp;
    memcpy(p->slot[0], p->w, p->n * sizeof *p->w);
}

TN_STEP lookahead_step(const tn_real alpha, const tn_opt_tensor p, size_t i, size_t n) {
    V slow = vget(p.slot[0] + i, n);
    slow = vfma(vset1(alpha), vget(p.w + i, n) - slow, slow);
    vput(p.slot[0] + i, n, slow), vput(p.w + i, n, slow);
}

static void lookahead_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const lookahead_hp *h = hp;
    if (k->t % h->k == 0) TN_EACH_VECTOR(lo, hi, lookahead_step, (tn_real)h->alpha, *p);
}

const tn_optim_def TN_OPTIM_DEF(lookahead) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "lookahead",
    .summary = "every k steps goes back part of the way to slow weights",
    .source = "Zhang et al., NeurIPS 2019, arXiv:1907.08610, Algorithm 1",
    .hp_size = sizeof(lookahead_hp),
    .hp = lookahead_opts,
    .scope = TN_ELEMENT,
    .slots = lookahead_slots,
    .begin = lookahead_begin,
    .update = lookahead_update,
    .wraps = 1};

/* SPDX-License-Identifier: MIT */
/*
 * What one adds to lib/optim/ for a built-in optimizer, beside the line TN_OPTIM(signum) in optims.def: Signum (Bernstein et
 * al., ICML 2018), as in apps/examples/plugin/signum.c.
 *
 *   m = beta m + (1 - beta) g
 *   w = (w - lr_t lambda w) - lr_t sign(m)
 */
#include "optim/optim.h"

typedef struct {
    double lr, beta, weight_decay;
} signum_hp;

static const tn_opt signum_opts[] = {
    TN_OPT_LR(signum_hp, 1e-3),
    TN_OPT_REAL(signum_hp, beta, 0.9, 0, 1, TN_OPEN_MAX, "decay of the average of gradients"),
    TN_OPT_REAL(signum_hp, weight_decay, 0, 0, 1e6, 0, "lambda of the decay beside the step"), TN_OPT_END};

static int signum_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp;
    out[0] = (tn_slot){"m", tn_elements(nd, dim), 0};
    return 1;
}

static double signum_shrink(const void *hp, const tn_tick *k) {
    const signum_hp *h = hp;
    return h->lr * k->lr_mul * h->weight_decay * k->wd_mul;
}

typedef struct {
    tn_real lr, beta, take, shrink;
} signum_coef;

TN_STEP signum_step(const signum_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    V w = vget(p.w + i, n), m = vfma(vset1(c.beta), vget(p.slot[0] + i, n), vset1(c.take) * vget(p.g + i, n));
    V sign = vsel(vlt(vset1(0), m), vset1(1), vsel(vlt(m, vset1(0)), vset1(-1), m));
    vput(p.slot[0] + i, n, m), vput(p.w + i, n, vfma(vset1(-c.lr), sign, vshrunk(w, c.shrink)));
}

static void signum_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const signum_hp *h = hp;
    const signum_coef c = {.lr = (tn_real)(h->lr * k->lr_mul),
                           .beta = (tn_real)h->beta,
                           .take = (tn_real)(1 - h->beta),
                           .shrink = p->flags & TN_NO_DECAY ? 0 : (tn_real)signum_shrink(hp, k)};
    TN_EACH_VECTOR(lo, hi, signum_step, c, *p);
}

const tn_optim_def TN_OPTIM_DEF(signum) = {.abi = TN_ABI,
                                           .size = sizeof(tn_optim_def),
                                           .name = "signum",
                                           .summary = "steps along the sign of momentum",
                                           .source = "Bernstein et al., ICML 2018, arXiv:1802.04434",
                                           .hp_size = sizeof(signum_hp),
                                           .hp = signum_opts,
                                           .scope = TN_ELEMENT,
                                           .slots = signum_slots,
                                           .update = signum_update,
                                           .shrink = signum_shrink};

/* SPDX-License-Identifier: MIT */
/* Adagrad as torch.optim.Adagrad: Duchi et al., JMLR 12 (2011), diagonal form; eps outside the root. */
#include "optim.h"

typedef struct {
    double lr, lr_decay, weight_decay, initial_accumulator_value, eps;
} adagrad_hp;

static const tn_opt adagrad_opts[] = {
    TN_OPT_LR(adagrad_hp, 1e-2),
    TN_OPT_REAL(adagrad_hp, lr_decay, 0, 0, 1e6, 0, "the rate of step t is lr / (1 + (t - 1) lr_decay)"),
    TN_OPT_L2(adagrad_hp, 0),
    TN_OPT_REAL(adagrad_hp, initial_accumulator_value, 0, 0, 1e6, 0, "start of the sum of squared gradients"),
    TN_OPT_REAL(adagrad_hp, eps, 1e-10, 0, 1, 0, "added to the root of the sum"),
    TN_OPT_END};

static int adagrad_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    out[0] = (tn_slot){"sum", len, ((const adagrad_hp *)hp)->initial_accumulator_value};
    return 1;
}

static void adagrad_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const adagrad_hp *h = hp;
    const tn_real lr = (tn_real)(h->lr * k->lr_mul / (1 + (double)(k->t - 1) * h->lr_decay));
    const tn_real l2 = tn_l2_of(h->weight_decay, k, p), eps = (tn_real)h->eps;
    tn_real *restrict w = p->w, *restrict sum = p->slot[0];
    const tn_real *restrict g = p->g;
    for (size_t i = lo; i < hi; i++) {
        tn_real gi = g[i] + l2 * w[i];
        sum[i] = tn_flush(sum[i] + gi * gi);
        w[i] -= lr * (gi / (tn_real_sqrt(sum[i]) + eps));
    }
}

const tn_optim_def tn_optim_def_adagrad = {.abi = TN_ABI,
                                           .size = sizeof(tn_optim_def),
                                           .name = "adagrad",
                                           .summary =
                                               "each weight's rate falls with its sum of squared gradients",
                                           .source = "torch.optim.Adagrad; Duchi et al., JMLR 12 (2011)",
                                           .hp_size = sizeof(adagrad_hp),
                                           .hp = adagrad_opts,
                                           .scope = TN_ELEMENT,
                                           .slots = adagrad_slots,
                                           .update = adagrad_update};

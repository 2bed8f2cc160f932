/* SPDX-License-Identifier: MIT */
/*
 * Adam for the first steps, SGD with momentum from then on (Keskar and Socher, arXiv:1712.07628, with the step of the switch
 * chosen, not estimated). The decay stands beside both as torch.optim.AdamW's.
 *
 *   t <= at   adam with lr, beta1, beta2, eps
 *   t >  at   buf = momentum buf + g (g at t = at + 1),  w = (w - r_t lambda w) - r_t buf,  r_t = sgd_lr times the schedule
 *
 * The buffer takes the place of Adam's m, which ends at the switch.
 */
#include "optim.h"

typedef struct {
    double lr, beta1, beta2, eps, sgd_lr, momentum, weight_decay;
    long at;
} switch_hp;

static const tn_opt switch_opts[] = {
    TN_OPT_REAL(switch_hp, lr, 1e-3, 0, 1e6, 0, "learning rate of Adam"),
    TN_OPT_BETA(switch_hp, beta1, 0.9, "Adam: decay of the average of gradients"),
    TN_OPT_BETA(switch_hp, beta2, 0.999, "Adam: decay of the average of squared gradients"),
    TN_OPT_REAL(switch_hp, eps, 1e-8, 0, 1, 0,
                "Adam: added to the root of that average, after bias correction"),
    TN_OPT_INT(switch_hp, at, 1000, 1, 1e9, "steps of Adam, before SGD begins"),
    TN_OPT_REAL(switch_hp, sgd_lr, 0.1, 0, 1e6, 0, "learning rate of SGD"),
    TN_OPT_BETA(switch_hp, momentum, 0.9, "SGD: factor of the buffer that gradients are gathered in"),
    TN_OPT_REAL(switch_hp, weight_decay, 0, 0, 1e6, 0, "lambda of the decay beside the step, times the rate"),
    TN_OPT_END};

enum { FIRST, SECOND };

static int switch_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    (void)hp;
    out[FIRST] = (tn_slot){"m", len, 0};
    out[SECOND] = (tn_slot){"v", len, 0};
    return 2;
}

static double rate_at(const switch_hp *h, const tn_tick *k) {
    return (k->t <= h->at ? h->lr : h->sgd_lr) * k->lr_mul;
}

static double switch_shrink(const void *hp, const tn_tick *k) {
    return rate_at(hp, k) * ((const switch_hp *)hp)->weight_decay * k->wd_mul;
}

typedef struct {
    tn_real shrink, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, rate, root_corr, momentum;
} switch_coef;

TN_STEP adam_step(const switch_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    const V w = vget(p.w + i, n), g = vget(p.g + i, n);
    const V m = vsettled(vfma(vset1(c.beta1), vget(p.slot[FIRST] + i, n), vset1(c.one_minus_beta1) * g));
    const V v = vflush(vfma(vset1(c.beta2), vget(p.slot[SECOND] + i, n), vsquared(c.one_minus_beta2, g)));
    vput(p.slot[FIRST] + i, n, m), vput(p.slot[SECOND] + i, n, v);
    const V root = vfma(vsqrt(v), vset1(c.root_corr), vset1(c.eps));
    vput(p.w + i, n, vfma(vset1(-c.rate), vover_root(m, root), vshrunk(w, c.shrink)));
}

TN_STEP sgd_step(const switch_coef c, const tn_opt_tensor p, int first, size_t i, size_t n) {
    const V w = vget(p.w + i, n), g = vget(p.g + i, n);
    const V buf = vflush(first ? g : vfma(vset1(c.momentum), vget(p.slot[FIRST] + i, n), g));
    vput(p.slot[FIRST] + i, n, buf);
    vput(p.w + i, n, vfma(vset1(-c.rate), buf, vshrunk(w, c.shrink)));
}

static void switch_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const switch_hp *h = hp;
    const int adam = k->t <= h->at;
    const double corr1 = adam ? 1 - tn_exact_powi(h->beta1, k->t) : 1;
    const double corr2 = adam ? 1 - tn_exact_powi(h->beta2, k->t) : 1;
    const switch_coef c = {.shrink = p->flags & TN_NO_DECAY ? 0 : (tn_real)switch_shrink(hp, k),
                           .beta1 = (tn_real)h->beta1,
                           .one_minus_beta1 = (tn_real)(1 - h->beta1),
                           .beta2 = (tn_real)h->beta2,
                           .one_minus_beta2 = (tn_real)(1 - h->beta2),
                           .eps = (tn_real)h->eps,
                           .rate = (tn_real)(rate_at(h, k) / corr1),
                           .root_corr = (tn_real)(1 / sqrt(corr2)),
                           .momentum = (tn_real)h->momentum};
    if (adam)
        TN_EACH_VECTOR(lo, hi, adam_step, c, *p);
    else if (k->t == h->at + 1)
        TN_EACH_VECTOR(lo, hi, sgd_step, c, *p, 1);
    else
        TN_EACH_VECTOR(lo, hi, sgd_step, c, *p, 0);
}

/* ---- tern explain ---- */

static int has_decay(const void *hp) {
    return ((const switch_hp *)hp)->weight_decay != 0;
}
static int is_adam(const void *hp, const tn_tick *k) {
    return k->t <= ((const switch_hp *)hp)->at;
}
TN_VALUE(rate) {
    return rate_at(hp, k);
}
TN_VALUE(first_corrected) {
    const double corr = is_adam(hp, k) ? 1 - tn_exact_powi(((const switch_hp *)hp)->beta1, k->t) : 1;
    return (double)p->slot[FIRST][0] / corr;
}
TN_VALUE(root) {
    const switch_hp *h = hp;
    if (!is_adam(hp, k)) return 1;
    return sqrt((double)p->slot[SECOND][0] / (1 - tn_exact_powi(h->beta2, k->t))) + h->eps;
}
TN_VALUE(gradient_part) {
    return -rate_at(hp, k) * first_corrected(hp, k, old, p) / root(hp, k, old, p);
}
TN_VALUE(decay_value) {
    return tn_shrunk_by(switch_shrink(hp, k), old);
}
static const tn_explain switch_explain[] = {
    {"rate", "lr_t of Adam up to step at, then sgd_lr times s_t", rate, 0, NULL},
    {"m", "Adam: beta1 m + (1 - beta1) g; SGD: momentum m + g, which begins anew", NULL, 0, NULL},
    {"v", "Adam: beta2 v + (1 - beta2) g g", NULL, 0, NULL},
    {"m^", "Adam: m / (1 - beta1^t); SGD: m", first_corrected, 0, NULL},
    {"root", "Adam: sqrt(v / (1 - beta2^t)) + eps; SGD: 1", root, 0, NULL},
    {"gradient part", "-rate m^ / root", gradient_part, 1, NULL},
    {"decay part", "-rate lambda w", decay_value, 1, has_decay},
    TN_EXPLAIN_END};

const tn_optim_def TN_OPTIM_DEF(switch) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "switch",
    .summary = "Adam until a chosen step, then SGD with momentum",
    .source = "Keskar and Socher, arXiv:1712.07628, with a chosen step; torch.optim.AdamW and SGD",
    .hp_size = sizeof(switch_hp),
    .hp = switch_opts,
    .scope = TN_ELEMENT,
    .slots = switch_slots,
    .update = switch_update,
    .shrink = switch_shrink,
    .explain = switch_explain};

/* SPDX-License-Identifier: MIT */
/*
 * Averaged SGD (Polyak and Juditsky, SIAM J. Control Optim. 1992), as torch.optim.ASGD: a decaying rate, and an average of
 * the weights from step t0 on, which is what to evaluate with.
 *
 *   eta = lr_t / (1 + lambd lr_t (t - 1))^alpha
 *   g'  = g + lambda w
 *   w   = (w - lambd eta w) - eta g'
 *   ax  = ax + (w - ax) / max(1, t - 1 - t0)
 *
 * Under a schedule lr_t is this step's rate (PyTorch's eta is made at the step before). lambd is part of the method and
 * applies to all weights; weight_decay does not where TN_NO_DECAY says so.
 */
#include "optim.h"

typedef struct {
    double lr, lambd, alpha, t0, weight_decay;
} asgd_hp;

static const tn_opt asgd_opts[] = {
    TN_OPT_LR(asgd_hp, 1e-2),
    TN_OPT_REAL(asgd_hp, lambd, 1e-4, 0, 1e6, 0, "lambda of the method's own decay, of weights and rate"),
    TN_OPT_REAL(asgd_hp, alpha, 0.75, 0, 10, 0, "power by which the rate decays"),
    TN_OPT_REAL(asgd_hp, t0, 1e6, 0, 1e15, 0,
                "step from which on weights are averaged; before: the last ones"),
    TN_OPT_L2(asgd_hp, 0),
    TN_OPT_END};

enum { AVERAGE };

static int asgd_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp;
    out[AVERAGE] = (tn_slot){"ax", tn_elements(nd, dim), 0};
    return 1;
}

static void asgd_begin(const void *hp, tn_opt_tensor *p) {
    (void)hp;
    memcpy(p->slot[AVERAGE], p->w, p->n * sizeof *p->w);
}

typedef struct {
    tn_real eta, l2, shrink, mu;
} asgd_coef;

TN_STEP asgd_step(const asgd_coef c, const tn_opt_tensor p, int averages, size_t i, size_t n) {
    V w = vget(p.w + i, n), g = vpenalized(vget(p.g + i, n), c.l2, w);
    w = vfma(vset1(-c.eta), g, vshrunk(w, c.shrink));
    vput(p.w + i, n, w);
    const V ax =
        vget(p.slot[AVERAGE] + i, n); /* a line that is only written is fetched all the same, but late */
    if (averages) w = vfma(vset1(c.mu), w - ax, ax);
    vput(p.slot[AVERAGE] + i, n, vflush(w));
}

static double rate_of(const asgd_hp *h, const tn_tick *k) {
    const double lr = h->lr * k->lr_mul;
    return lr / tn_exact_pow(1 + h->lambd * lr * (double)(k->t - 1), h->alpha);
}

static void asgd_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const asgd_hp *h = hp;
    const double t = (double)(k->t - 1), eta = rate_of(h, k);
    const asgd_coef c = {.eta = (tn_real)eta,
                         .l2 = tn_l2_of(h->weight_decay, k, p),
                         .shrink = (tn_real)(h->lambd * eta),
                         .mu = (tn_real)(1 / fmax(1, t - h->t0))};
    if (t - h->t0 > 1)
        TN_EACH_VECTOR(lo, hi, asgd_step, c, *p, 1);
    else
        TN_EACH_VECTOR(lo, hi, asgd_step, c, *p, 0);
}

static void asgd_eval_weights(const void *hp, const tn_tick *k, const tn_opt_tensor *p, tn_real *out) {
    (void)hp, (void)k;
    memcpy(out, p->slot[AVERAGE], p->n * sizeof *out);
}

/* ---- tern explain, and the penalty's part of a step ---- */

static int has_l2(const void *hp) {
    return ((const asgd_hp *)hp)->weight_decay != 0;
}
TN_VALUE(eta) {
    return rate_of(hp, k);
}
TN_VALUE(penalized) {
    return tn_penalized(((const asgd_hp *)hp)->weight_decay, k, old);
}
TN_VALUE(gradient_part) {
    return -rate_of(hp, k) * penalized(hp, k, old, p);
}
TN_VALUE(own_decay) {
    return -((const asgd_hp *)hp)->lambd * rate_of(hp, k) * (double)old->w[0];
}
static const tn_explain asgd_explain[] = {
    {"g'", "g + lambda w", penalized, 0, has_l2},
    {"eta", "lr_t / (1 + lambd lr_t (t - 1))^alpha", eta, 0, NULL},
    {"gradient part", "-eta g'", gradient_part, 1, NULL},
    {"decay part", "-lambd eta w, the method's own", own_decay, 1, NULL},
    {"ax", "ax + (w - ax) / max(1, t - 1 - t0), of the new w", NULL, 0, NULL},
    TN_EXPLAIN_END};

/* Of weight_decay alone: lambd is part of the method. */
static void asgd_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                            const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const double c = -rate_of(hp, k) * ((const asgd_hp *)hp)->weight_decay * k->wd_mul;
    (void)p, (void)moment;
    for (size_t i = lo; i < hi; i++) part[i] = (tn_real)(c * (double)old[i]);
}

const tn_optim_def TN_OPTIM_DEF(asgd) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "asgd",
    .summary = "SGD with a decaying rate, evaluated with the average of its weights",
    .source = "Polyak and Juditsky, SIAM J. Control Optim. 30 (1992); torch.optim.ASGD",
    .hp_size = sizeof(asgd_hp),
    .hp = asgd_opts,
    .scope = TN_ELEMENT,
    .slots = asgd_slots,
    .begin = asgd_begin,
    .update = asgd_update,
    .eval_weights = asgd_eval_weights,
    .explain = asgd_explain,
    .decay_part = asgd_decay_part};

/* SPDX-License-Identifier: MIT */
/*
 * Rprop (Riedmiller and Braun, ICNN 1993), as torch.optim.Rprop: every weight has a step size of its own, which grows while
 * the sign of its gradient stays and shrinks when it turns; the step of a turn is left out. For gradients of the whole set.
 *
 *   f    = etaplus, etaminus or 1 where sign(g) sign(prev) is 1, -1 or 0
 *   step = min(max(step f, step_size_min), step_size_max), lr before the first
 *   g'   = 0 where f is etaminus, else g
 *   w    = w - s_t sign(g') step,  prev = g'
 *
 * s_t is the multiplier of the rate's schedule. The signs are multiplied, as g prev would underflow.
 */
#include "optim.h"

typedef struct {
    double lr, etaminus, etaplus, step_size_min, step_size_max;
} rprop_hp;

static const tn_opt rprop_opts[] = {
    TN_OPT_REAL(rprop_hp, lr, 1e-2, 0, 1e6, 0, "size of the first step"),
    TN_OPT_REAL(rprop_hp, etaminus, 0.5, 0, 1, TN_OPEN_MIN | TN_OPEN_MAX, "factor where the sign turns"),
    TN_OPT_REAL(rprop_hp, etaplus, 1.2, 1, 1e6, TN_OPEN_MIN, "factor where the sign stays"),
    TN_OPT_REAL(rprop_hp, step_size_min, 1e-6, 0, 1e6, 0, "smallest step"),
    TN_OPT_REAL(rprop_hp, step_size_max, 50, 0, 1e6, 0, "largest step"),
    TN_OPT_END};

static int rprop_check(void *hp, uint64_t given, tn_err *e) {
    const rprop_hp *h = hp;
    (void)given;
    if (h->step_size_min <= h->lr && h->lr <= h->step_size_max) return 0;
    return tn_fail(
        e,
        "optimizer rprop: lr=%g is out of range: the first step must be as large as any, step_size_min=%g <= "
        "lr <= step_size_max=%g",
        h->lr, h->step_size_min, h->step_size_max);
}

enum { PREVIOUS, STEP_SIZE };

static int rprop_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    out[PREVIOUS] = (tn_slot){"prev", len, 0};
    out[STEP_SIZE] = (tn_slot){"step_size", len, ((const rprop_hp *)hp)->lr};
    return 2;
}

typedef struct {
    tn_real mul, etaminus, etaplus, least, most;
} rprop_coef;

TN_STEP rprop_step(const rprop_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    const V zero = vset1(0), g = vget(p.g + i, n);
    const V turn = vsign(g) * vsign(vget(p.slot[PREVIOUS] + i, n));
    /* NaN comes through as turn * turn, and these two this way round */
    const V factor = vsel(vgt(turn, zero), vset1(c.etaplus),
                          vsel(vlt(turn, zero), vset1(c.etaminus), vfma(turn, turn, vset1(1))));
    const V size = vflush(vmin(vset1(c.most), vmax(vset1(c.least), vget(p.slot[STEP_SIZE] + i, n) * factor)));
    const V used = vsel(vlt(turn, zero), zero, vflush(g));
    vput(p.slot[PREVIOUS] + i, n, used), vput(p.slot[STEP_SIZE] + i, n, size);
    vput(p.w + i, n, vfma(vset1(-c.mul) * vsign(used), size, vget(p.w + i, n)));
}

static void rprop_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const rprop_hp *h = hp;
    const rprop_coef c = {.mul = (tn_real)k->lr_mul,
                          .etaminus = (tn_real)h->etaminus,
                          .etaplus = (tn_real)h->etaplus,
                          .least = (tn_real)h->step_size_min,
                          .most = (tn_real)h->step_size_max};
    TN_EACH_VECTOR(lo, hi, rprop_step, c, *p);
}

/* ---- tern explain ---- */

TN_VALUE(sign_part) {
    const double g = (double)p->slot[PREVIOUS][0];
    return -k->lr_mul * (g > 0 ? 1 : g < 0 ? -1 : 0) * (double)p->slot[STEP_SIZE][0];
}
static const tn_explain rprop_explain[] = {
    {"step_size", "times etaplus where g and prev have one sign, etaminus where they have two", NULL, 0,
     NULL},
    {"prev", "g, or 0 where the sign turned", NULL, 0, NULL},
    {"sign part", "-s_t sign(prev) step_size", sign_part, 1, NULL},
    TN_EXPLAIN_END};

const tn_optim_def TN_OPTIM_DEF(rprop) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "rprop",
    .summary = "a step size for each weight, from signs alone; for full batches",
    .source = "Riedmiller and Braun, ICNN 1993; torch.optim.Rprop",
    .hp_size = sizeof(rprop_hp),
    .hp = rprop_opts,
    .scope = TN_ELEMENT,
    .check = rprop_check,
    .slots = rprop_slots,
    .update = rprop_update,
    .explain = rprop_explain};

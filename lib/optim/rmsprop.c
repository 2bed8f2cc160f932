/* SPDX-License-Identifier: MIT */
/*
 * RMSprop as torch.optim.RMSprop: Tieleman and Hinton, lecture 6.5 (2012); the centered form is Graves,
 * arXiv:1308.0850, equation 40. eps stands outside the root. Where rounding makes the centered variance
 * negative it counts as 0 (PyTorch's gives NaN).
 *
 *   g'  = g + lambda w
 *   sq  = alpha sq + ((1 - alpha) g') g'
 *   avg = avg + (1 - alpha) (g' - avg), var = max(0, sq - avg avg)     centered; else var = sq
 *   u   = g' / (sqrt(var) + eps)
 *   buf = momentum buf + u, u = buf                                    with momentum
 *   w   = w - lr u
 */
#include "optim.h"
#include <math.h>

typedef struct {
    double lr, alpha, eps, weight_decay, momentum;
    int centered;
} rmsprop_hp;

static const tn_opt rmsprop_opts[] = {
    TN_OPT_LR(rmsprop_hp, 1e-2),
    TN_OPT_REAL(rmsprop_hp, alpha, 0.99, 0, 1, TN_OPEN_MAX, "decay of the average of squared gradients"),
    TN_OPT_REAL(rmsprop_hp, eps, 1e-8, 0, 1, 0, "added to the root of the average"),
    TN_OPT_L2(rmsprop_hp, 0),
    TN_OPT_REAL(rmsprop_hp, momentum, 0, 0, 1, 0,
                "factor of the buffer that scaled gradients are gathered in; 0: none"),
    TN_OPT_BOOL(rmsprop_hp, centered, 0,
                "divides by the root of the variance: the square of the mean is taken off"),
    TN_OPT_END};

enum { SQUARE_AVG };

static int rmsprop_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const rmsprop_hp *h = hp;
    const size_t len = tn_elements(nd, dim);
    int n = 0;
    out[n++] = (tn_slot){"square_avg", len, 0};
    if (h->momentum != 0) out[n++] = (tn_slot){"momentum_buffer", len, 0};
    if (h->centered) out[n++] = (tn_slot){"grad_avg", len, 0};
    return n;
}

typedef struct {
    tn_real lr, alpha, one_minus_alpha, eps, l2, momentum;
} rmsprop_coef;

typedef struct {
    V w, g, root;
} rmsprop_lanes;

/* buf and avg are NULL in the forms that have none; each call in update is compiled for its own form. */
TN_HALF(rmsprop_lanes)
rmsprop_head(const rmsprop_coef c, const tn_opt_tensor p, tn_real *buf, tn_real *avg, size_t i, size_t n) {
    (void)buf;
    V w = vget(p.w + i, n), g = vpenalized(vget(p.g + i, n), c.l2, w);
    V sq = vfma(vset1(c.alpha), vget(p.slot[SQUARE_AVG] + i, n), vsquared(c.one_minus_alpha, g));
    V var = sq = vflush(sq);
    vput(p.slot[SQUARE_AVG] + i, n, sq);
    if (avg) {
        V mean = vget(avg + i, n);
        mean = vflush(vfma(vset1(c.one_minus_alpha), g - mean, mean));
        vput(avg + i, n, mean);
        var = vmax(vset1(0), vfma(-mean, mean, var)); /* this way round NaN gets through */
    }
    return (rmsprop_lanes){w, g, vsqrt(var) + vset1(c.eps)};
}
TN_HALF(void)
rmsprop_tail(const rmsprop_lanes x, const rmsprop_coef c, const tn_opt_tensor p, tn_real *buf, tn_real *avg,
             size_t i, size_t n) {
    (void)avg;
    V step = vover_root(x.g, x.root);
    if (buf) {
        step = vflush(vfma(vset1(c.momentum), vget(buf + i, n), step));
        vput(buf + i, n, step);
    }
    vput(p.w + i, n, vfma(vset1(-c.lr), step, x.w));
}

static void rmsprop_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const rmsprop_hp *h = hp;
    const rmsprop_coef c = {.lr = (tn_real)(h->lr * k->lr_mul),
                            .alpha = (tn_real)h->alpha,
                            .one_minus_alpha = (tn_real)(1 - h->alpha),
                            .eps = (tn_real)h->eps,
                            .l2 = tn_l2_of(h->weight_decay, k, p),
                            .momentum = (tn_real)h->momentum};
    const int moving = h->momentum != 0;
    tn_real *buf = moving ? p->slot[1] : NULL, *avg = h->centered ? p->slot[1 + moving] : NULL;
    if (buf && avg)
        TN_EACH_VECTOR_AHEAD(lo, hi, rmsprop, c, *p, buf, avg);
    else if (buf)
        TN_EACH_VECTOR_AHEAD(lo, hi, rmsprop, c, *p, buf, NULL);
    else if (avg)
        TN_EACH_VECTOR_AHEAD(lo, hi, rmsprop, c, *p, NULL, avg);
    else
        TN_EACH_VECTOR_AHEAD(lo, hi, rmsprop, c, *p, NULL, NULL);
}

/* ---- tern explain ---- */

static int has_l2(const void *hp) {
    return ((const rmsprop_hp *)hp)->weight_decay != 0;
}
static int is_centered(const void *hp) {
    return ((const rmsprop_hp *)hp)->centered;
}
static int is_plain(const void *hp) {
    return ((const rmsprop_hp *)hp)->momentum == 0;
}
static int has_momentum(const void *hp) {
    return !is_plain(hp);
}

TN_VALUE(penalized) {
    return tn_penalized(((const rmsprop_hp *)hp)->weight_decay, k, old);
}
TN_VALUE(variance) {
    const double mean = is_centered(hp) ? (double)p->slot[1 + has_momentum(hp)][0] : 0;
    const double var = (double)p->slot[SQUARE_AVG][0] - mean * mean;
    return var < 0 ? 0 : var;
}
TN_VALUE(scaled) {
    return penalized(hp, k, old, p) / (sqrt(variance(hp, k, old, p)) + ((const rmsprop_hp *)hp)->eps);
}
TN_VALUE(adaptive_part) {
    const double u = is_plain(hp) ? scaled(hp, k, old, p) : (double)p->slot[1][0];
    return -((const rmsprop_hp *)hp)->lr * k->lr_mul * u;
}
static const tn_explain rmsprop_explain[] = {
    {"g'", "g + lambda w", penalized, 0, has_l2},
    {"square_avg", "alpha square_avg + (1 - alpha) g' g'", NULL, 0, NULL},
    {"grad_avg", "alpha grad_avg + (1 - alpha) g'", NULL, 0, NULL},
    {"var", "max(0, square_avg - grad_avg^2)", variance, 0, is_centered},
    {"u", "g' / (sqrt(square_avg) + eps); centered: sqrt(var)", scaled, 0, NULL},
    {"momentum_buffer", "momentum momentum_buffer + u", NULL, 0, NULL},
    {"adaptive part", "-lr_t u", adaptive_part, 1, is_plain},
    {"adaptive part", "-lr_t momentum_buffer", adaptive_part, 1, has_momentum},
    TN_EXPLAIN_END};

/* ---- the penalty's part of a step ---- */

/*
 * With momentum the buffer gathers g' / root, so the penalty's share of it is lambda w / root of each step. The root of
 * this step is not there yet before the update: it is made here as the update will make it.
 */
/* moment = momentum moment + powers lambda w / root, with the root that the update will have; c.momentum 0: it begins. */
TN_STEP rmsprop_track_step(const rmsprop_coef c, const tn_opt_tensor p, tn_real *moment, tn_real powers,
                           int centered, size_t i, size_t n) {
    const V penalty = vset1(c.l2) * vget(p.w + i, n), g = vget(p.g + i, n) + penalty;
    V var = vfma(vset1(c.alpha), vget(p.slot[SQUARE_AVG] + i, n), vset1(c.one_minus_alpha) * g * g);
    if (centered) {
        V mean = vget(p.slot[2] + i, n);
        mean = vfma(vset1(c.one_minus_alpha), g - mean, mean);
        var = vmax(vset1(0), vfma(-mean, mean, var));
    }
    const V more = vset1(powers) * (penalty / (vsqrt(var) + vset1(c.eps)));
    vput(moment + i, n, tn_is_on(c.momentum) ? vfma(vset1(c.momentum), vget(moment + i, n), more) : more);
}

static void rmsprop_decay_track(const void *hp, const tn_tick *k, const tn_opt_tensor *p, tn_real *moment,
                                long past, size_t lo, size_t hi) {
    const rmsprop_hp *h = hp;
    if (h->momentum == 0) return;
    const long steps = past < 0 ? -past : past + 1;
    const double b = h->momentum, kept = tn_exact_powi(b, steps);
    const tn_real powers = (tn_real)(b < 1 ? (1 - kept) / (1 - b) : (double)steps);
    const rmsprop_coef c = {.alpha = (tn_real)h->alpha,
                            .one_minus_alpha = (tn_real)(1 - h->alpha),
                            .eps = (tn_real)h->eps,
                            .l2 = tn_l2_of(h->weight_decay, k, p),
                            .momentum = past < 0 ? (tn_real)kept : 0};
    if (h->centered)
        TN_EACH_VECTOR(lo, hi, rmsprop_track_step, c, *p, moment, powers, 1);
    else
        TN_EACH_VECTOR(lo, hi, rmsprop_track_step, c, *p, moment, powers, 0);
}

static void rmsprop_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                               const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const rmsprop_hp *h = hp;
    const double rate = h->lr * k->lr_mul, l2 = h->weight_decay * k->wd_mul;
    for (size_t i = lo; i < hi; i++) {
        const double mean = h->centered ? (double)p->slot[1 + (h->momentum != 0)][i] : 0;
        const double var = (double)p->slot[SQUARE_AVG][i] - mean * mean;
        const double u =
            h->momentum != 0 ? (double)moment[i] : l2 * (double)old[i] / (sqrt(var > 0 ? var : 0) + h->eps);
        part[i] = (tn_real)(-rate * u);
    }
}

const tn_optim_def TN_OPTIM_DEF(rmsprop) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "rmsprop",
    .summary = "divides by the root of a running average of squared gradients",
    .source = "torch.optim.RMSprop; Tieleman and Hinton 2012; Graves 2013",
    .hp_size = sizeof(rmsprop_hp),
    .hp = rmsprop_opts,
    .scope = TN_ELEMENT,
    .slots = rmsprop_slots,
    .update = rmsprop_update,
    .explain = rmsprop_explain,
    .decay_track = rmsprop_decay_track,
    .decay_part = rmsprop_decay_part};

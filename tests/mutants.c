/* SPDX-License-Identifier: MIT */
/*
 * The step of each mutant, in tn_real and one weight at a time, with a switch at every place where a library is known to
 * have gone wrong. What such libraries keep in globals (a counter, moments) is here in globals, too.
 */
#include "mutants.h"
#include <math.h>
#include <string.h>

enum { KEPT = 64 };
static struct {
    tn_optim_def def;
    const tn_optim_def *base;
    int mistake, fresh; /* fresh: no step yet */
    long calls, before; /* updates of a tensor so far; steps before the last reset */
    tn_real kept[2][4][KEPT];
} me;

static const tn_opt *row(const char *name) {
    for (const tn_opt *o = me.base->hp; o->name; o++)
        if (strcmp(o->name, name) == 0) return o;
    return NULL;
}
static double real(const void *hp, const char *name) {
    const tn_opt *o = row(name);
    return o ? *(const double *)((const char *)hp + o->offset) : 0;
}
static int flag(const void *hp, const char *name) {
    const tn_opt *o = row(name);
    return o ? *(const int *)((const char *)hp + o->offset) : 0;
}
static int is(const char *base) {
    return strcmp(me.base->name, base) == 0;
}
static int left_out(const void *hp, const char *name) { /* of the options */
    const tn_opt *o = row(name);
    return !o || real(hp, name) == o->def;
}

typedef struct {
    const void *hp;
    long t;
    double lr, lambda, shrink;
    tn_real *slot[4];
} step;

static tn_real root(tn_real v, double eps) {
    return me.mistake == MISTAKE_EPS_INSIDE ? (tn_real)sqrt((double)v + eps)
                                            : (tn_real)(sqrt((double)v) + eps);
}

static double adam(const step *s, size_t i, tn_real g, double eps) {
    const int bad = me.mistake, swap = bad == MISTAKE_BETA_SWAP;
    const double b1 = real(s->hp, swap ? "beta2" : "beta1"), b2 = real(s->hp, swap ? "beta1" : "beta2");
    double c1 = 1, c2 = 1;
    for (long k = 0; k < s->t; k++) c1 *= b1, c2 *= b2;
    c1 = 1 - c1, c2 = 1 - c2;
    tn_real *m = &s->slot[0][i], *v = &s->slot[1][i];
    *m = (tn_real)(b1 * (double)*m) + (tn_real)(bad == MISTAKE_NO_DAMPING ? 1 : 1 - b1) * g;
    *v = (tn_real)(b2 * (double)*v) + (tn_real)(1 - b2) * g * g;
    if (bad == MISTAKE_NO_CORRECTION) c1 = c2 = 1;
    if (bad == MISTAKE_NO_CORRECTION_M) c1 = 1;
    if (bad == MISTAKE_NO_CORRECTION_V) c2 = 1;
    if (bad == MISTAKE_CORRECTION_TIMES) c1 = 1 / c1, c2 = 1 / c2;
    tn_real largest = *v;
    if (flag(s->hp, "amsgrad") && bad == MISTAKE_AMSGRAD_CORRECTED) {
        largest = s->slot[2][i] = (tn_real)fmax((double)s->slot[2][i], (double)*v / c2);
        c2 = 1;
    } else if (flag(s->hp, "amsgrad") && bad != MISTAKE_AMSGRAD_IGNORED)
        largest = s->slot[2][i] = (tn_real)fmax((double)s->slot[2][i], (double)*v);
    if (bad == MISTAKE_EPS_HAT) return (double)*m / c1 * sqrt(c2) / (sqrt((double)largest) + eps);
    return (double)*m / c1 / (double)root((tn_real)((double)largest / c2), eps);
}

static double rmsprop(const step *s, size_t i, tn_real g, double eps) {
    const double a = real(s->hp, "alpha"), mu = real(s->hp, "momentum");
    const int centered = flag(s->hp, "centered");
    tn_real *v = &s->slot[0][i], *buf = &s->slot[1][i];
    tn_real var = *v = (tn_real)(a * (double)*v + (1 - a) * (double)g * (double)g);
    if (centered && me.mistake != MISTAKE_CENTERED_IGNORED) {
        tn_real *mean = &s->slot[1 + (mu > 0)][i];
        *mean = (tn_real)(a * (double)*mean + (1 - a) * (double)g);
        var -= *mean * *mean;
        if (var < 0) var = 0;
    }
    const double u = (double)g / (double)root(var, eps);
    if (mu <= 0 || me.mistake == MISTAKE_MOMENTUM_IGNORED) return u;
    return (double)(*buf = (tn_real)(mu * (double)*buf + u));
}

/* times lr already. */
static double sgd(const step *s, size_t i, tn_real g) {
    const double mu = me.mistake == MISTAKE_MOMENTUM_IGNORED ? 0 : real(s->hp, "momentum");
    double damp = me.mistake == MISTAKE_DAMPENING_IGNORED ? 0 : real(s->hp, "dampening");
    if (s->t == 1 && me.mistake != MISTAKE_DAMPENING_FIRST) damp = 0;
    if (mu <= 0) return s->lr * (double)g;
    tn_real *buf = &s->slot[0][i];
    if (me.mistake == MISTAKE_LR_IN_BUFFER) { /* as Caffe */
        const double old = (double)*buf;
        *buf = (tn_real)(mu * old + s->lr * (1 - damp) * (double)g);
        return flag(s->hp, "nesterov") ? s->lr * (double)g + mu * (double)*buf : (double)*buf;
    }
    *buf = (tn_real)(mu * (double)*buf + (1 - damp) * (double)g);
    const int nesterov = flag(s->hp, "nesterov") && me.mistake != MISTAKE_NESTEROV_IGNORED;
    return s->lr * (nesterov ? (double)g + mu * (double)*buf : (double)*buf);
}

static double adagrad(const step *s, size_t i, tn_real g, double eps) {
    tn_real *sum = &s->slot[0][i];
    const double slower = me.mistake == MISTAKE_LR_DECAY_IGNORED ? 0 : real(s->hp, "lr_decay");
    if (me.mistake == MISTAKE_INITIAL_IGNORED && s->t == 1) *sum = 0;
    *sum += g * g;
    return (double)g / (double)root(*sum, eps) / (1 + (double)(s->t - 1) * slower);
}

/* adamw's decay: 0 coupled, 1 independent. sgd's: 0 L2, 1 decoupled. */
static int beside(const void *hp) {
    return is("adamw") || (is("sgd") && flag(hp, "decay"));
}

static double decay_factor(const void *hp) {
    const int bad = me.mistake;
    if (bad == MISTAKE_DECAY_DEFAULT && left_out(hp, "weight_decay")) return 5e-4;
    if (bad == MISTAKE_DECAY_IGNORED) return 0;
    const double times = bad == MISTAKE_DECAY_TWICE  ? 2
                         : bad == MISTAKE_DECAY_HALF ? 0.5
                         : bad == MISTAKE_DECAY_SIGN ? -1
                                                     : 1;
    return times * real(hp, "weight_decay");
}

static step prepare(const void *hp, const tn_tick *k, const tn_opt_tensor *p) {
    const int bad = me.mistake, decays = !(p->flags & TN_NO_DECAY) || bad == MISTAKE_DECAY_BIASES;
    const double mul = bad == MISTAKE_SCHEDULE_IGNORED ? 1 : k->lr_mul, lr = real(hp, "lr");
    step s = {.hp = hp, .t = k->t, .lr = lr * mul};
    if (bad == MISTAKE_T_PER_TENSOR) s.t = me.calls;
    if (bad == MISTAKE_T_AHEAD) s.t++;
    if (bad == MISTAKE_STALE_COUNTER) s.t += me.before;
    const int penalized = bad == MISTAKE_DECAY_DEFAULT && left_out(hp, "weight_decay");
    const double lambda = decays || penalized ? decay_factor(hp) * k->wd_mul : 0;
    const int independent =
        is("adamw") ? bad == MISTAKE_DECAY_NO_LR || (flag(hp, "decay") && bad != MISTAKE_DECAY_WITH_LR)
                    : bad == MISTAKE_DECAY_NO_LR;
    int next_to = (beside(hp) && bad != MISTAKE_DECAY_MOMENTS) || bad == MISTAKE_DECAY_BESIDE;
    if (penalized) next_to = 0;
    if (!next_to || bad == MISTAKE_DECAY_BOTH) s.lambda = lambda;
    if (next_to || bad == MISTAKE_DECAY_BOTH)
        s.shrink = lambda * (bad == MISTAKE_DECAY_NO_SCHEDULE ? 1 : mul) * (independent ? 1 : lr);
    const int own = bad == MISTAKE_MOMENTS_SHARED ? 0 : p->index;
    for (int j = 0; j < 4; j++)
        s.slot[j] =
            bad == MISTAKE_MOMENTS_SHARED || bad == MISTAKE_STALE_MOMENTS ? me.kept[own][j] : p->slot[j];
    return s;
}

static void begin_step(const void *hp, const tn_tick *k, const tn_opt_tensor *p) {
    if (p->index == 0 && k->t == 1) {
        if (me.fresh || me.mistake != MISTAKE_STALE_MOMENTS) {
            memset(me.kept, 0, sizeof me.kept);
            for (int i = 0; i < KEPT && is("adagrad"); i++)
                me.kept[0][0][i] = me.kept[1][0][i] = (tn_real)real(hp, "initial_accumulator_value");
        }
        me.before = me.fresh ? 0 : me.calls / 2;
        if (me.mistake != MISTAKE_STALE_COUNTER) me.calls = 0;
        me.fresh = 0;
    }
    me.calls++;
}

static void update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    static tn_real last[2][KEPT];
    begin_step(hp, k, p);
    const step s = prepare(hp, k, p);
    double eps = real(hp, "eps");
    if (me.mistake == MISTAKE_EPS_DEFAULT && left_out(hp, "eps")) eps = 1e-7;
    if (me.mistake == MISTAKE_EPS_DEFAULT5 && left_out(hp, "eps")) eps = 1e-5;
    for (size_t i = lo; i < hi; i++) {
        const tn_real w = p->w[i], given = p->g[i];
        const tn_real data = me.mistake == MISTAKE_GRADIENT_STALE && k->t > 1 ? last[p->index][i] : given;
        const tn_real g = data + (tn_real)s.lambda * w;
        last[p->index][i] = given;
        double u = is("sgd")       ? sgd(&s, i, g)
                   : is("adagrad") ? s.lr * adagrad(&s, i, g, eps)
                   : is("rmsprop") ? s.lr * rmsprop(&s, i, g, eps)
                                   : s.lr * adam(&s, i, g, eps);
        if (me.mistake == MISTAKE_STEP_SIGN) u = -u;
        if (me.mistake == MISTAKE_DECAY_AFTER)
            p->w[i] = (tn_real)(((double)w - u) * (1 - s.shrink));
        else
            p->w[i] = (tn_real)((double)w - s.shrink * (double)w - u);
    }
}

const tn_optim_def *mutant(const char *base, int mistake) {
    memset(&me, 0, sizeof me);
    if (!(me.base = tn_optim_find(base))) return NULL;
    me.def = *me.base;
    me.def.scope = TN_TENSOR;
    me.def.update = update;
    me.def.reduce = NULL, me.def.decide = NULL, me.def.shrink = NULL;
    me.mistake = mistake;
    return &me.def;
}

tn_optim *mutant_make(const void *def, tn_params *ps, const char *spec, tn_err *e) {
    const char *options = strchr(spec, ':');
    me.calls = me.before = 0, me.fresh = 1;
    return tn_optim_new_def(ps, def, options ? options + 1 : "", e);
}

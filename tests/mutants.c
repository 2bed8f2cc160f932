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
    tn_real kept[2][4][KEPT], sum[2][KEPT];
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
    double lr, lambda, inside, shrink; /* the decay: in the gradient, in the step, beside it */
    tn_real *slot[4], *kept;
} step;

static tn_real root(tn_real v, double eps) {
    return me.mistake == MISTAKE_EPS_INSIDE ? (tn_real)sqrt((double)v + eps)
                                            : (tn_real)(sqrt((double)v) + eps);
}

static double without_bias(const step *s, double beta) {
    double power = 1;
    for (long k = 0; k < s->t; k++) power *= beta;
    return 1 - power;
}

/* The first moment, after or, mistaken, before this gradient. */
static tn_real average(const step *s, size_t i, double beta, tn_real g) {
    tn_real *m = &s->slot[0][i], old = *m;
    *m = (tn_real)(beta * (double)old) + (tn_real)(me.mistake == MISTAKE_NO_DAMPING ? 1 : 1 - beta) * g;
    return me.mistake == MISTAKE_MOMENTUM_LATE ? old : *m;
}

static double adam(const step *s, size_t i, tn_real g, double eps) {
    const int bad = me.mistake, swap = bad == MISTAKE_BETA_SWAP;
    const double b1 = real(s->hp, swap ? "beta2" : "beta1"), b2 = real(s->hp, swap ? "beta1" : "beta2");
    double c1 = without_bias(s, b1), c2 = without_bias(s, b2);
    const tn_real m = average(s, i, b1, g);
    tn_real *v = &s->slot[1][i];
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
    if (bad == MISTAKE_EPS_HAT) return (double)m / c1 * sqrt(c2) / (sqrt((double)largest) + eps);
    return (double)m / c1 / (double)root((tn_real)((double)largest / c2), eps);
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
    const tn_real old = *buf;
    *buf = (tn_real)(mu * (double)old + u);
    return (double)(me.mistake == MISTAKE_MOMENTUM_LATE ? old : *buf);
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
    const tn_real old = *buf;
    *buf = (tn_real)(mu * (double)old + (1 - damp) * (double)g);
    const double b = (double)(me.mistake == MISTAKE_MOMENTUM_LATE ? old : *buf);
    const int nesterov = flag(s->hp, "nesterov") && me.mistake != MISTAKE_NESTEROV_IGNORED;
    return s->lr * (nesterov ? (double)g + mu * b : b);
}

static double adagrad(const step *s, size_t i, tn_real g, double eps) {
    tn_real *sum = &s->slot[0][i];
    const double slower = me.mistake == MISTAKE_LR_DECAY_IGNORED ? 0 : real(s->hp, "lr_decay");
    if (me.mistake == MISTAKE_INITIAL_IGNORED && s->t == 1) *sum = 0;
    *sum += g * g;
    return (double)g / (double)root(*sum, eps) / (1 + (double)(s->t - 1) * slower);
}

/* times lr already. */
static double sgdw(const step *s, size_t i, tn_real g) {
    const int outside = me.mistake == MISTAKE_LR_OUT_OF_BUFFER;
    const double mu = me.mistake == MISTAKE_MOMENTUM_IGNORED ? 0 : real(s->hp, "momentum");
    tn_real *buf = &s->slot[0][i], old = *buf;
    *buf = (tn_real)(mu * (double)old + (outside ? 1 : s->lr) * (double)g);
    return (double)(me.mistake == MISTAKE_MOMENTUM_LATE ? old : *buf) * (outside ? s->lr : 1);
}

/* darknet's adam=1 */
static double momentum_sgd(const step *s, size_t i, tn_real g) {
    return s->lr * (double)(s->kept[i] = (tn_real)(0.9 * (double)s->kept[i]) + g);
}

static double adadelta(const step *s, size_t i, tn_real g, double eps) {
    const double rho = real(s->hp, "rho");
    tn_real *v = &s->slot[0][i], *d = &s->slot[1][i];
    *v = (tn_real)(rho * (double)*v + (1 - rho) * (double)g * (double)g);
    const double u = me.mistake == MISTAKE_EPS_OUTSIDE
                         ? (sqrt((double)*d) + eps) / (sqrt((double)*v) + eps) * (double)g
                         : sqrt((double)*d + eps) / sqrt((double)*v + eps) * (double)g;
    *d = (tn_real)(rho * (double)*d + (1 - rho) * u * u);
    return u;
}

/* 1 - beta1^t, as the mistake has it. */
static double first_bias(const step *s) {
    const double c = without_bias(s, real(s->hp, me.mistake == MISTAKE_BETA_SWAP ? "beta2" : "beta1"));
    if (me.mistake == MISTAKE_NO_CORRECTION || me.mistake == MISTAKE_NO_CORRECTION_M) return 1;
    return me.mistake == MISTAKE_CORRECTION_TIMES ? 1 / c : c;
}

static double adamax(const step *s, size_t i, tn_real g, double eps) {
    const int swap = me.mistake == MISTAKE_BETA_SWAP, outside = me.mistake == MISTAKE_EPS_OUTSIDE;
    const double b1 = real(s->hp, swap ? "beta2" : "beta1"), b2 = real(s->hp, swap ? "beta1" : "beta2");
    const double m = (double)average(s, i, b1, g) / first_bias(s);
    tn_real *u = &s->slot[1][i];
    *u = (tn_real)fmax(b2 * (double)*u, fabs((double)g) + (outside ? 0 : eps));
    return m / ((double)*u + (outside ? eps : 0));
}

static double radam(const step *s, size_t i, tn_real g, double eps) {
    const int bad = me.mistake, swap = bad == MISTAKE_BETA_SWAP;
    const double b1 = real(s->hp, swap ? "beta2" : "beta1"), b2 = real(s->hp, swap ? "beta1" : "beta2");
    const double m = (double)average(s, i, b1, g) / first_bias(s);
    tn_real *v = &s->slot[1][i];
    *v = (tn_real)(b2 * (double)*v) + (tn_real)(1 - b2) * g * g;
    const double left = without_bias(s, b2), far = 2 / (1 - b2) - 1;
    const double rho = far - 2 * (double)s->t * (1 - left) / left;
    if (rho <= 5) return m;
    double c2 = left;
    if (bad == MISTAKE_NO_CORRECTION || bad == MISTAKE_NO_CORRECTION_V) c2 = 1;
    if (bad == MISTAKE_CORRECTION_TIMES) c2 = 1 / c2;
    const double r = sqrt((rho - 4) * (rho - 2) * far / ((far - 4) * (far - 2) * rho));
    if (bad == MISTAKE_EPS_CORRECTED) return r * m / (sqrt((double)*v / c2) + eps);
    return r * sqrt(c2) * m / (double)root(*v, eps);
}

static double lion(const step *s, size_t i, tn_real g) {
    const int swap = me.mistake == MISTAKE_BETA_SWAP;
    const double b1 = real(s->hp, swap ? "beta2" : "beta1"), b2 = real(s->hp, swap ? "beta1" : "beta2");
    tn_real *m = &s->slot[0][i];
    tn_real x = (tn_real)b1 * *m + (tn_real)(me.mistake == MISTAKE_NO_DAMPING ? 1 : 1 - b1) * g;
    if (me.mistake == MISTAKE_MOMENTUM_LATE) x = *m;
    *m = (tn_real)(b2 * (double)*m) + (tn_real)(1 - b2) * g;
    return (x > 0) - (x < 0);
}

/* adamw's decay: 0 coupled, 1 independent. sgd's: 0 L2, 1 decoupled. */
static int beside(const void *hp) {
    return is("adamw") || is("sgdw") || is("lion") || (is("sgd") && flag(hp, "decay"))
           || (is("radam") && flag(hp, "decoupled_weight_decay"));
}

static double decay_factor(const void *hp) {
    const int bad = me.mistake;
    if (bad == MISTAKE_DECAY_DEFAULT && left_out(hp, "weight_decay")) return 5e-4;
    if (bad == MISTAKE_DECAY_IGNORED) return 0;
    if (row("weight_decay") && left_out(hp, "weight_decay")) {
        if (bad == MISTAKE_LAMBDA_DEFAULT) return 4e-3;
        if (bad == MISTAKE_LAMBDA_DEFAULT4) return 1e-4;
        if (bad == MISTAKE_LAMBDA_DEFAULT2) return 1e-2;
        if (bad == MISTAKE_LAMBDA_DEFAULT0) return 0;
    }
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
        is("sgdw")    ? bad != MISTAKE_DECAY_WITH_LR
        : is("adamw") ? bad == MISTAKE_DECAY_NO_LR || (flag(hp, "decay") && bad != MISTAKE_DECAY_WITH_LR)
                      : bad == MISTAKE_DECAY_NO_LR;
    int next_to = (beside(hp) && bad != MISTAKE_DECAY_MOMENTS && bad != MISTAKE_SGD_INSTEAD)
                  || bad == MISTAKE_DECAY_BESIDE;
    if (penalized) next_to = 0;
    if (is("lamb") && !next_to && !penalized && bad != MISTAKE_DECAY_MOMENTS && bad != MISTAKE_SGD_INSTEAD) {
        s.inside = lambda;
        s.lambda = bad == MISTAKE_DECAY_BOTH ? lambda : 0;
    } else if (!next_to || bad == MISTAKE_DECAY_BOTH)
        s.lambda = lambda;
    if (next_to || (bad == MISTAKE_DECAY_BOTH && !is("lamb")))
        s.shrink = lambda * (bad == MISTAKE_DECAY_NO_SCHEDULE ? 1 : mul) * (independent ? 1 : lr);
    const int own = bad == MISTAKE_MOMENTS_SHARED ? 0 : p->index;
    s.kept = me.kept[p->index][0];
    for (int j = 0; j < 4; j++)
        s.slot[j] =
            bad == MISTAKE_MOMENTS_SHARED || bad == MISTAKE_STALE_MOMENTS ? me.kept[own][j] : p->slot[j];
    return s;
}

static void begin_step(const void *hp, const tn_tick *k, const tn_opt_tensor *p) {
    if (p->index == 0 && k->t == 1) {
        if (me.fresh || me.mistake != MISTAKE_STALE_MOMENTS) {
            memset(me.kept, 0, sizeof me.kept);
            for (int i = 0; i < KEPT && is("adagrad") && me.mistake != MISTAKE_SGD_INSTEAD; i++)
                me.kept[0][0][i] = me.kept[1][0][i] = (tn_real)real(hp, "initial_accumulator_value");
        }
        memset(me.sum, 0, sizeof me.sum);
        me.before = me.fresh ? 0 : me.calls / 2;
        if (me.mistake != MISTAKE_STALE_COUNTER) me.calls = 0;
        me.fresh = 0;
    }
    me.calls++;
}

/* The step, with the rate. */
static double moved(const step *s, size_t i, tn_real g, double eps) {
    if (is("sgd")) return sgd(s, i, g);
    if (me.mistake == MISTAKE_SGD_INSTEAD) return momentum_sgd(s, i, g);
    if (is("sgdw")) return sgdw(s, i, g);
    return s->lr
           * (is("adagrad")    ? adagrad(s, i, g, eps)
              : is("rmsprop")  ? rmsprop(s, i, g, eps)
              : is("adadelta") ? adadelta(s, i, g, eps)
              : is("adamax")   ? adamax(s, i, g, eps)
              : is("radam")    ? radam(s, i, g, eps)
              : is("lion")     ? lion(s, i, g)
                               : adam(s, i, g, eps));
}

/* lamb's: u with its decay, as large as the weights. */
static void scale(const step *s, const tn_opt_tensor *p, double *u) {
    double of_w = 0, of_u = 0;
    for (size_t i = 0; i < p->n; i++) {
        u[i] += s->lr * s->inside * (double)p->w[i];
        of_w += (double)p->w[i] * (double)p->w[i], of_u += u[i] / s->lr * (u[i] / s->lr);
    }
    if (of_w <= 0 || of_u <= 0 || me.mistake == MISTAKE_RATIO_IGNORED) return;
    for (size_t i = 0; i < p->n; i++) u[i] *= sqrt(of_w / of_u);
}

static void update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    static tn_real last[2][KEPT];
    begin_step(hp, k, p);
    const step s = prepare(hp, k, p);
    double eps = real(hp, "eps");
    if (me.mistake == MISTAKE_EPS_DEFAULT && left_out(hp, "eps")) eps = 1e-7;
    if (me.mistake == MISTAKE_EPS_DEFAULT5 && left_out(hp, "eps")) eps = 1e-5;
    double u[KEPT];
    for (size_t i = lo; i < hi; i++) {
        const tn_real given = p->g[i];
        tn_real data = me.mistake == MISTAKE_GRADIENT_STALE && k->t > 1 ? last[p->index][i] : given;
        me.sum[p->index][i] += given;
        if (me.mistake == MISTAKE_GRADIENT_SUMMED) data = me.sum[p->index][i];
        last[p->index][i] = given;
        u[i] = moved(&s, i, data + (tn_real)s.lambda * p->w[i], eps);
    }
    if (is("lamb") && me.mistake != MISTAKE_SGD_INSTEAD) scale(&s, p, u);
    for (size_t i = lo; i < hi; i++) {
        const double w = (double)p->w[i], by = me.mistake == MISTAKE_STEP_SIGN ? -u[i] : u[i];
        p->w[i] =
            (tn_real)(me.mistake == MISTAKE_DECAY_AFTER ? (w - by) * (1 - s.shrink) : w - s.shrink * w - by);
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

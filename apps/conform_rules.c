/* SPDX-License-Identifier: MIT */
/* The rules of the plain reference, one after the other, in double: what each optimizer's definition says. */
#include "conform_plain.h"
#include <math.h>
#include <string.h>

#define EACH(j, x) for (size_t j = 0; j < (x)->tensor->n; j++)

double plain_moment(plain_step *x, int slot, size_t j, double beta, double now) {
    const double old = x->slot[slot][j], take = x->p->mistake == MISTAKE_NO_DAMPING ? 1 : 1 - beta;
    x->slot[slot][j] = beta * old + take * now;
    return x->p->mistake == MISTAKE_MOMENTUM_LATE ? old : x->slot[slot][j];
}

static double squares(plain_step *x, int slot, size_t j, double beta, double now) {
    return x->slot[slot][j] = beta * x->slot[slot][j] + (1 - beta) * now * now;
}

double plain_corrected_by(const plain_step *x, double beta, int second) {
    const int m = x->p->mistake, c = MISTAKE_NO_CORRECTION;
    if (m == c || m == (second ? MISTAKE_NO_CORRECTION_V : MISTAKE_NO_CORRECTION_M)) return 1;
    const double by = 1 - pow(beta, (double)x->t);
    return m == MISTAKE_CORRECTION_TIMES ? 1 / by : by;
}

double plain_over_root(const plain_step *x, double y, double v) {
    const double eps = x->p->eps;
    return x->p->mistake == MISTAKE_EPS_INSIDE ? y / sqrt(v + eps) : y / (sqrt(v) + eps);
}

double plain_norm(const double *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    return sqrt(sum);
}

/* Where the mistake lets the rate be in the buffer, the direction has it already. */
static void sgd(plain_step *x) {
    const plain *p = x->p;
    const int inside = p->mistake == MISTAKE_LR_IN_BUFFER && p->momentum != 0;
    const double take = x->t == 1 && p->mistake != MISTAKE_DAMPENING_FIRST ? 1 : 1 - p->dampening;
    const double times = inside ? x->lr : 1;
    EACH(j, x) {
        const double g = x->g[j], old = x->slot[0][j];
        x->u[j] = g;
        if (p->momentum == 0) continue;
        double buf = x->slot[0][j] = p->momentum * old + take * g * times;
        if (p->mistake == MISTAKE_MOMENTUM_LATE) buf = old;
        x->u[j] = p->nesterov ? times * g + p->momentum * buf : buf;
    }
    if (inside) x->rate = 1;
}

static void sgdw(plain_step *x) {
    const plain *p = x->p;
    const int outside = p->mistake == MISTAKE_LR_OUT_OF_BUFFER;
    EACH(j, x) {
        const double old = x->slot[0][j];
        const double buf = x->slot[0][j] = p->momentum * old + (outside ? 1 : x->lr) * x->g[j];
        x->u[j] = p->mistake == MISTAKE_MOMENTUM_LATE ? old : buf;
    }
    if (!outside) x->rate = 1;
}

static void rmsprop(plain_step *x) {
    const plain *p = x->p;
    EACH(j, x) {
        const double g = x->g[j];
        double v = squares(x, 0, j, p->alpha, g);
        if (p->centered) {
            double a = x->slot[1][j] = p->alpha * x->slot[1][j] + (1 - p->alpha) * g;
            v = fmax(v - a * a, 0);
        }
        const double u = plain_over_root(x, g, v), old = x->slot[2][j];
        x->u[j] = u;
        if (p->momentum == 0) continue;
        x->u[j] = x->slot[2][j] = p->momentum * old + u;
        if (p->mistake == MISTAKE_MOMENTUM_LATE) x->u[j] = old;
    }
}

static void adagrad(plain_step *x) {
    EACH(j, x) {
        const double v = x->slot[0][j] += x->g[j] * x->g[j];
        x->u[j] = plain_over_root(x, x->g[j], v) / (1 + (double)(x->t - 1) * x->p->lr_decay);
    }
}

static void adagrad_begin(plain *p) {
    for (size_t i = 0; i < p->f->len; i++) p->slot[0][i] = p->initial;
}

static void adadelta(plain_step *x) {
    const double rho = plain_option(x->p->c, "rho"), eps = x->p->eps;
    const int outside = x->p->mistake == MISTAKE_EPS_OUTSIDE;
    EACH(j, x) {
        const double v = squares(x, 0, j, rho, x->g[j]), d = x->slot[1][j];
        x->u[j] = (outside ? (sqrt(d) + eps) / (sqrt(v) + eps) : sqrt(d + eps) / sqrt(v + eps)) * x->g[j];
        squares(x, 1, j, rho, x->u[j]);
    }
}

static void adam(plain_step *x) {
    const plain *p = x->p;
    const double c1 = plain_corrected_by(x, p->beta1, 0), by = plain_corrected_by(x, p->beta2, 1);
    EACH(j, x) {
        const double m = plain_moment(x, 0, j, p->beta1, x->g[j]);
        double v = squares(x, 1, j, p->beta2, x->g[j]), c2 = by;
        if (p->amsgrad) {
            const double of = p->mistake == MISTAKE_AMSGRAD_CORRECTED ? c2 : 1;
            v = x->slot[2][j] = fmax(x->slot[2][j], v / of);
            if (p->mistake == MISTAKE_AMSGRAD_CORRECTED) c2 = 1;
        }
        x->u[j] = p->mistake == MISTAKE_EPS_HAT ? m / c1 * sqrt(c2) / (sqrt(v) + p->eps)
                                                : plain_over_root(x, m / c1, v / c2);
    }
}

static void adamax(plain_step *x) {
    const plain *p = x->p;
    const double c1 = plain_corrected_by(x, p->beta1, 0);
    const int outside = p->mistake == MISTAKE_EPS_OUTSIDE;
    EACH(j, x) {
        const double m = plain_moment(x, 0, j, p->beta1, x->g[j]);
        const double u = x->slot[1][j] =
            fmax(p->beta2 * x->slot[1][j], fabs(x->g[j]) + (outside ? 0 : p->eps));
        x->u[j] = m / c1 / (outside ? u + p->eps : u);
    }
}

static void nadam(plain_step *x) {
    const plain *p = x->p;
    const double slower = plain_option(p->c, "momentum_decay"), c2 = plain_corrected_by(x, p->beta2, 1);
    double mu = 0, next = 0, product = 1;
    for (long s = 1; s <= x->t; s++) {
        mu = p->beta1 * (1 - pow(0.96, (double)s * slower) / 2);
        product *= mu;
    }
    next = p->beta1 * (1 - pow(0.96, (double)(x->t + 1) * slower) / 2);
    double c_now = 1 - product, c_next = 1 - product * next;
    if (p->mistake == MISTAKE_NO_CORRECTION || p->mistake == MISTAKE_NO_CORRECTION_M) c_now = c_next = 1;
    if (p->mistake == MISTAKE_CORRECTION_TIMES) c_now = 1 / c_now, c_next = 1 / c_next;
    EACH(j, x) {
        const double m = plain_moment(x, 0, j, p->beta1, x->g[j]);
        const double v = squares(x, 1, j, p->beta2, x->g[j]), ahead = next / c_next * m;
        const double y = (1 - mu) / c_now * x->g[j] + ahead;
        x->u[j] =
            p->mistake == MISTAKE_EPS_HAT ? y * sqrt(c2) / (sqrt(v) + p->eps) : plain_over_root(x, y, v / c2);
    }
}

static void radam(plain_step *x) {
    const plain *p = x->p;
    const double c1 = plain_corrected_by(x, p->beta1, 0), c2 = plain_corrected_by(x, p->beta2, 1);
    const double far = 2 / (1 - p->beta2) - 1, b2t = pow(p->beta2, (double)x->t);
    const double rho = far - 2 * (double)x->t * b2t / (1 - b2t);
    const double r = sqrt((rho - 4) * (rho - 2) * far / ((far - 4) * (far - 2) * rho));
    EACH(j, x) {
        const double m = plain_moment(x, 0, j, p->beta1, x->g[j]) / c1;
        const double v = squares(x, 1, j, p->beta2, x->g[j]);
        x->u[j] = !(rho > 5)                            ? m
                  : p->mistake == MISTAKE_EPS_CORRECTED ? r * plain_over_root(x, m, v / c2)
                                                        : r * sqrt(c2) * plain_over_root(x, m, v);
    }
}

static void adan(plain_step *x) {
    const plain *p = x->p;
    const double c1 = plain_corrected_by(x, p->beta1, 0), c2 = plain_corrected_by(x, p->beta2, 0);
    const double c3 = plain_corrected_by(x, p->beta3, 1);
    EACH(j, x) {
        const double g = x->g[j], d = x->first ? 0 : g - x->slot[3][j];
        const double m = plain_moment(x, 0, j, p->beta1, g), v = plain_moment(x, 1, j, p->beta2, d);
        const double n = squares(x, 2, j, p->beta3, g + p->beta2 * d), y = m / c1 + p->beta2 * (v / c2);
        x->slot[3][j] = g;
        x->u[j] =
            p->mistake == MISTAKE_EPS_HAT ? y * sqrt(c3) / (sqrt(n) + p->eps) : plain_over_root(x, y, n / c3);
    }
}

static double sign(double x) {
    return (x > 0) - (x < 0);
}

static void lion(plain_step *x) {
    const plain *p = x->p;
    EACH(j, x) {
        const double g = x->g[j], m = x->slot[0][j];
        const double take = p->mistake == MISTAKE_NO_DAMPING ? 1 : 1 - p->beta1;
        x->u[j] = sign(p->mistake == MISTAKE_MOMENTUM_LATE ? m : p->beta1 * m + take * g);
        x->slot[0][j] = p->beta2 * m + (1 - p->beta2) * g;
    }
}

static void lamb(plain_step *x) {
    adam(x);
    EACH(j, x) x->u[j] += x->lambda * x->w[j];
    const double w = plain_norm(x->w, x->tensor->n), u = plain_norm(x->u, x->tensor->n);
    if (w != 0 && u != 0 && x->p->mistake != MISTAKE_RATIO_IGNORED) x->rate *= w / u;
}

static void asgd(plain_step *x) {
    const double lambd = plain_option(x->p->c, "lambd");
    x->rate = x->lr / pow(1 + lambd * x->lr * (double)(x->t - 1), plain_option(x->p->c, "alpha"));
    EACH(j, x) x->u[j] = x->g[j] + lambd * x->w[j];
}

static void rprop(plain_step *x) {
    const conform_case *c = x->p->c;
    const double most = plain_option(c, "step_size_max"), least = plain_option(c, "step_size_min");
    EACH(j, x) {
        const double turn = sign(x->g[j]) * sign(x->slot[0][j]);
        double *size = &x->slot[1][j];
        *size *= turn > 0 ? plain_option(c, "etaplus") : turn < 0 ? plain_option(c, "etaminus") : 1;
        *size = fmin(fmax(*size, least), most);
        x->slot[0][j] = turn < 0 ? 0 : x->g[j];
        x->u[j] = sign(x->slot[0][j]) * *size;
    }
    x->rate = x->mul;
}

static void rprop_begin(plain *p) {
    for (size_t i = 0; i < p->f->len; i++) p->slot[1][i] = p->lr;
}

/* adam's step, then momentum from an empty buffer in the place of m. */
static void switching(plain_step *x) {
    const long at = (long)plain_option(x->p->c, "at");
    if (x->t <= at) {
        adam(x);
        return;
    }
    EACH(j, x) {
        double *buf = &x->slot[0][j];
        *buf = x->t == at + 1 ? x->g[j] : x->p->momentum * *buf + x->g[j];
        x->u[j] = *buf;
    }
    x->rate = x->lr / x->p->lr * plain_option(x->p->c, "sgd_lr");
}

/* The weights are y; z in slot 0. */
static void average(plain_step *x, double beta) {
    const conform_case *c = x->p->c;
    const double warm = fmax(1, plain_option(c, "warmup_steps")), t = (double)x->t;
    const double lr = x->lr * fmin(1, t / warm);
    double *largest = &x->p->largest[x->index], *total = &x->p->total[x->index];
    *largest = fmax(*largest, lr);
    const double q = pow(t, plain_option(c, "r")) * pow(*largest, plain_option(c, "weight_lr_power"));
    *total += q;
    const double share = q / *total;
    EACH(j, x) {
        const double u = x->u[j] + x->lambda * x->w[j];
        x->u[j] = lr * (1 - beta * (1 - share)) * u - share * (x->slot[0][j] - x->w[j]);
        x->slot[0][j] -= x->p->mistake == MISTAKE_STEP_SIGN ? -lr * u : lr * u;
    }
    x->rate = 1;
}

static void free_sgd(plain_step *x) {
    EACH(j, x) x->u[j] = x->g[j];
    average(x, x->p->momentum);
}

static void free_adamw(plain_step *x) {
    const double c2 = plain_corrected_by(x, x->p->beta2, 1);
    EACH(j, x) {
        const double v = squares(x, 1, j, x->p->beta2, x->g[j]);
        x->u[j] = x->p->mistake == MISTAKE_EPS_HAT ? x->g[j] * sqrt(c2) / (sqrt(v) + x->p->eps)
                                                   : plain_over_root(x, x->g[j], v / c2);
    }
    average(x, x->p->beta1);
}

static void free_begin(plain *p) {
    memcpy(p->slot[0], p->w, p->f->len * sizeof *p->w);
}

const plain_rule *plain_rule_of(const char *family) {
    static const plain_rule rules[] = {{"sgd", sgd, IN_GRADIENT, NULL},
                                       {"sgdw", sgdw, BESIDE, NULL},
                                       {"adagrad", adagrad, IN_GRADIENT, adagrad_begin},
                                       {"rmsprop", rmsprop, IN_GRADIENT, NULL},
                                       {"adadelta", adadelta, IN_GRADIENT, NULL},
                                       {"adam", adam, IN_GRADIENT, NULL},
                                       {"amsgrad", adam, IN_GRADIENT, NULL},
                                       {"adaml2", adam, IN_GRADIENT, NULL},
                                       {"adamw", adam, BESIDE, NULL},
                                       {"adamax", adamax, IN_GRADIENT, NULL},
                                       {"nadam", nadam, IN_GRADIENT, NULL},
                                       {"radam", radam, IN_GRADIENT, NULL},
                                       {"adan", adan, IMPLICIT, NULL},
                                       {"lion", lion, BESIDE, NULL},
                                       {"lamb", lamb, IN_STEP, NULL},
                                       {"asgd", asgd, IN_GRADIENT, NULL},
                                       {"rprop", rprop, IN_GRADIENT, rprop_begin},
                                       {"adafactor", plain_adafactor, BESIDE, NULL},
                                       {"muon", plain_muon, BESIDE, NULL},
                                       {"switch", switching, BESIDE, NULL},
                                       {"schedulefree_adamw", free_adamw, IN_STEP, free_begin},
                                       {"schedulefree_sgd", free_sgd, IN_STEP, free_begin}};
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (strcmp(rules[i].family, family) == 0) return &rules[i];
    return NULL;
}

/* SPDX-License-Identifier: MIT */
/*
 * A reference step in double, as plain as the formula, which makes one known mistake: it finds out which of them
 * reproduces the numbers of an optimizer that fails. It shares nothing with the optimizers themselves.
 */
#include "conform.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

const char *const conform_mistake_text[MISTAKES] = {
#define X(name, text) text,
    CONFORM_MISTAKES(X)
#undef X
};

enum { SGD, ADAGRAD, RMSPROP, ADAM }; /* adam: with adaml2, adamw, amsgrad */
enum { SLOTS = 4 };

typedef struct {
    const conform_file *f;
    const conform_case *c;
    int family, mistake, pass;
    double lr, beta1, beta2, eps, lambda, momentum, dampening, alpha, lr_decay, initial;
    int amsgrad, nesterov, centered, decoupled, independent;
    double *slot[SLOTS]; /* len each */
} plain;

static double number(const conform_case *c, const char *name) {
    return json_number_value(json_object_get(c->options, name));
}
static int on(const conform_case *c, const char *name) {
    return json_is_true(json_object_get(c->options, name));
}
static int is_word(const conform_case *c, const char *name, const char *word) {
    const char *s = json_string_value(json_object_get(c->options, name));
    return s && strcmp(s, word) == 0;
}

static int family_of(const conform_file *f) {
    static const struct {
        const char *name;
        int family;
    } known[] = {{"sgd", SGD},      {"adagrad", ADAGRAD}, {"rmsprop", RMSPROP}, {"adam", ADAM},
                 {"amsgrad", ADAM}, {"adaml2", ADAM},     {"adamw", ADAM}};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (strcmp(known[i].name, f->family) == 0) return known[i].family;
    return -1;
}

int conform_knows(const conform_file *f) {
    return family_of(f) >= 0;
}

/* Options beyond these are another rule, unless they are off. */
static int known_options(const conform_case *c) {
    static const char *const words[] = {"coupled", "independent", "l2", "decoupled"};
    static const char keys[] = " lr beta1 beta2 eps weight_decay momentum dampening alpha lr_decay "
                               "initial_accumulator_value amsgrad nesterov centered ";
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)c->options, key, v) {
        char padded[64];
        int known = 0;
        snprintf(padded, sizeof padded, " %s ", key);
        if (strstr(keys, padded) || json_is_false(v)) continue;
        for (size_t i = 0; i < sizeof words / sizeof *words && strcmp(key, "decay") == 0; i++)
            known |= is_word(c, key, words[i]);
        if (!known) return 0;
    }
    return strchr(c->spec, '+') == NULL; /* a wrapper */
}

static int open_plain(plain *p, const conform_file *f, const conform_case *c, int mistake) {
    *p = (plain){.f = f, .c = c, .family = family_of(f), .mistake = mistake};
    if (p->family < 0 || !known_options(c)) return 0;
    p->lr = number(c, "lr"), p->eps = number(c, "eps"), p->lambda = number(c, "weight_decay");
    p->beta1 = number(c, "beta1"), p->beta2 = number(c, "beta2"), p->alpha = number(c, "alpha");
    p->momentum = number(c, "momentum"), p->dampening = number(c, "dampening");
    p->lr_decay = number(c, "lr_decay"), p->initial = number(c, "initial_accumulator_value");
    p->amsgrad = on(c, "amsgrad"), p->nesterov = on(c, "nesterov"), p->centered = on(c, "centered");
    p->independent = is_word(c, "decay", "independent");
    p->decoupled = strcmp(f->family, "adamw") == 0 || is_word(c, "decay", "decoupled");

    const int named = strstr(c->spec, "eps=") != NULL;
    switch (mistake) {
    case MISTAKE_BETA_SWAP:
        p->beta1 = number(c, "beta2"), p->beta2 = number(c, "beta1");
        break;
    case MISTAKE_EPS_DEFAULT:
        p->eps = named ? p->eps : 1e-7;
        break;
    case MISTAKE_EPS_DEFAULT5:
        p->eps = named ? p->eps : 1e-5;
        break;
    case MISTAKE_DECAY_TWICE:
        p->lambda *= 2;
        break;
    case MISTAKE_DECAY_HALF:
        p->lambda /= 2;
        break;
    case MISTAKE_DECAY_SIGN:
        p->lambda = -p->lambda;
        break;
    case MISTAKE_DECAY_IGNORED:
        p->lambda = 0;
        break;
    case MISTAKE_DECAY_MOMENTS:
        p->decoupled = 0;
        break;
    case MISTAKE_DECAY_BESIDE:
        p->decoupled = 1;
        break;
    case MISTAKE_DECAY_NO_LR:
        p->independent = 1;
        break;
    case MISTAKE_DECAY_WITH_LR:
        p->independent = 0;
        break;
    case MISTAKE_AMSGRAD_IGNORED:
        p->amsgrad = 0;
        break;
    case MISTAKE_MOMENTUM_IGNORED:
        p->momentum = 0;
        break;
    case MISTAKE_NESTEROV_IGNORED:
        p->nesterov = 0;
        break;
    case MISTAKE_DAMPENING_IGNORED:
        p->dampening = 0;
        break;
    case MISTAKE_CENTERED_IGNORED:
        p->centered = 0;
        break;
    case MISTAKE_INITIAL_IGNORED:
        p->initial = 0;
        break;
    case MISTAKE_LR_DECAY_IGNORED:
        p->lr_decay = 0;
        break;
    case MISTAKE_DECAY_DEFAULT:
        if (!strstr(c->spec, "weight_decay=")) p->lambda = 5e-4, p->decoupled = 0;
        break;
    default:
        break;
    }
    return 1;
}

/* Where the mistake lets the rate be in the state, the direction has it already: *scaled. */
static double sgd(plain *p, size_t k, long t, double g, double lr, int *scaled) {
    if (p->momentum == 0) return g;
    const int inside = p->mistake == MISTAKE_LR_IN_BUFFER;
    const double take = t == 1 && p->mistake != MISTAKE_DAMPENING_FIRST ? 1 : 1 - p->dampening;
    double buf = p->slot[0][k] = p->momentum * p->slot[0][k] + take * g * (inside ? lr : 1);
    *scaled = inside;
    return p->nesterov ? (inside ? lr : 1) * g + p->momentum * buf : buf;
}

static double over_root(const plain *p, double g, double v) {
    return p->mistake == MISTAKE_EPS_INSIDE ? g / sqrt(v + p->eps) : g / (sqrt(v) + p->eps);
}

static double rmsprop(plain *p, size_t k, double g) {
    double v = p->slot[0][k] = p->alpha * p->slot[0][k] + (1 - p->alpha) * g * g;
    if (p->centered) {
        double a = p->slot[1][k] = p->alpha * p->slot[1][k] + (1 - p->alpha) * g;
        v = fmax(v - a * a, 0);
    }
    double u = over_root(p, g, v);
    return p->momentum == 0 ? u : (p->slot[2][k] = p->momentum * p->slot[2][k] + u);
}

static double adam(plain *p, size_t k, long t, double g) {
    double m = p->slot[0][k] =
        p->beta1 * p->slot[0][k] + (p->mistake == MISTAKE_NO_DAMPING ? 1 : 1 - p->beta1) * g;
    double v = p->slot[1][k] = p->beta2 * p->slot[1][k] + (1 - p->beta2) * g * g;
    double c1 = 1 - pow(p->beta1, (double)t), c2 = 1 - pow(p->beta2, (double)t);
    if (p->mistake == MISTAKE_NO_CORRECTION || p->mistake == MISTAKE_NO_CORRECTION_M) c1 = 1;
    if (p->mistake == MISTAKE_NO_CORRECTION || p->mistake == MISTAKE_NO_CORRECTION_V) c2 = 1;
    if (p->mistake == MISTAKE_CORRECTION_TIMES) c1 = 1 / c1, c2 = 1 / c2;
    if (p->amsgrad) {
        const double of = p->mistake == MISTAKE_AMSGRAD_CORRECTED ? c2 : 1;
        v = p->slot[2][k] = fmax(p->slot[2][k], v / of);
        if (p->mistake == MISTAKE_AMSGRAD_CORRECTED) c2 = 1;
    }
    if (p->mistake == MISTAKE_EPS_HAT) return m / c1 * sqrt(c2) / (sqrt(v) + p->eps);
    return over_root(p, m / c1, v / c2);
}

static double adagrad(plain *p, size_t k, long t, double g) {
    double v = p->slot[0][k] += g * g;
    return over_root(p, g, v) / (1 + (double)(t - 1) * p->lr_decay);
}

static void step_tensor(plain *p, long step, int i, double *w) {
    const conform_file *f = p->f;
    const conform_tensor *tensor = &f->tensor[i];
    const int m = p->mistake;
    const double mul = p->c->lr_mul[step - 1], lr = p->lr * (m == MISTAKE_SCHEDULE_IGNORED ? 1 : mul);
    const int decays = tensor->decays || m == MISTAKE_DECAY_BIASES;
    const int penalized = m == MISTAKE_DECAY_DEFAULT && !strstr(p->c->spec, "weight_decay=");
    const double lambda = decays || penalized ? p->lambda * p->c->wd_mul[step - 1] : 0;
    const double l2 = !p->decoupled || m == MISTAKE_DECAY_BOTH ? lambda : 0;
    const double scheduled = m == MISTAKE_SCHEDULE_IGNORED || m == MISTAKE_DECAY_NO_SCHEDULE ? 1 : mul;
    const int beside = p->decoupled || m == MISTAKE_DECAY_BOTH;
    const double shrink = beside ? lambda * scheduled * (p->independent ? 1 : p->lr) : 0;
    long t = step;
    if (m == MISTAKE_T_PER_TENSOR) t = (step - 1) * f->tensors + i + 1;
    if (m == MISTAKE_T_AHEAD) t = step + 1;
    if (m == MISTAKE_STALE_COUNTER) t += (long)p->pass * f->steps;
    const long from = m == MISTAKE_GRADIENT_STALE ? (step > 1 ? step - 2 : 0) : step - 1;
    for (size_t j = 0; j < tensor->n; j++) {
        const size_t e = tensor->at + j, k = m == MISTAKE_MOMENTS_SHARED ? j : e;
        const double g = p->c->g[(size_t)from * f->len + e] + l2 * w[e];
        int scaled = 0;
        double u = p->family == SGD       ? sgd(p, k, t, g, lr, &scaled)
                   : p->family == ADAGRAD ? adagrad(p, k, t, g)
                   : p->family == RMSPROP ? rmsprop(p, k, g)
                                          : adam(p, k, t, g);
        u *= scaled ? 1 : lr;
        if (m == MISTAKE_STEP_SIGN) u = -u;
        if (m == MISTAKE_DECAY_AFTER) {
            w[e] -= u;
            w[e] -= shrink * w[e];
        } else
            w[e] = w[e] - shrink * w[e] - u;
    }
}

int conform_plain(const conform_file *f, const conform_case *c, int mistake, double *out) {
    plain p;
    if (!open_plain(&p, f, c, mistake)) return 0;
    double *memory = calloc(SLOTS * f->len, sizeof *memory), *w = malloc(f->len * sizeof *w);
    if (!memory || !w) {
        free(memory), free(w);
        return 0;
    }
    for (int k = 0; k < SLOTS; k++) p.slot[k] = memory + (size_t)k * f->len;
    for (p.pass = 0; p.pass < CONFORM_PASSES; p.pass++) {
        if (p.pass == 0 || mistake != MISTAKE_STALE_MOMENTS)
            for (size_t i = 0; i < SLOTS * f->len; i++)
                memory[i] = p.family == ADAGRAD && i < f->len ? p.initial : 0;
        memcpy(w, f->init, f->len * sizeof *w);
        for (int s = 1; s <= f->steps; s++) {
            for (int i = 0; i < f->tensors; i++) step_tensor(&p, s, i, w);
            memcpy(out + (size_t)(p.pass * f->steps + s - 1) * f->len, w, f->len * sizeof *w);
        }
    }
    free(memory), free(w);
    return 1;
}

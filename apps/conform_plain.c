/* SPDX-License-Identifier: MIT */
/*
 * A reference step in double, as plain as the formula, which makes one known mistake: it finds out which of them
 * reproduces the numbers of an optimizer that fails. It shares nothing with the optimizers themselves.
 */
#include "conform_plain.h"
#include <stdlib.h>
#include <string.h>

const char *const conform_mistake_text[MISTAKES] = {
#define X(name, text) text,
    CONFORM_MISTAKES(X)
#undef X
};

double plain_option(const conform_case *c, const char *name) {
    return json_number_value(json_object_get(c->options, name));
}
int plain_on(const conform_case *c, const char *name) {
    return json_is_true(json_object_get(c->options, name));
}
int plain_word(const conform_case *c, const char *name, const char *word) {
    const char *s = json_string_value(json_object_get(c->options, name));
    return s && strcmp(s, word) == 0;
}

int conform_knows(const conform_file *f) {
    return plain_rule_of(f->family) != NULL;
}

/* The spec says it; else it is left to the default. */
static int named(const conform_case *c, const char *name) {
    const size_t n = strlen(name);
    for (const char *s = strstr(c->spec, name); s; s = strstr(s + 1, name))
        if (s > c->spec && strchr(":,", s[-1]) && s[n] == '=') return 1;
    return 0;
}

/* Options beyond these are another rule, unless they are off. */
static int known_options(const conform_case *c) {
    static const char *const words[] = {"coupled", "independent", "l2", "decoupled"};
    static const char keys[] =
        " lr beta1 beta2 beta3 eps weight_decay momentum dampening alpha lr_decay "
        "initial_accumulator_value amsgrad nesterov centered rho momentum_decay decoupled_weight_decay "
        "no_prox "
        "beta2_decay eps1 eps2 d lambd t0 etaminus etaplus step_size_min step_size_max at sgd_lr "
        "ns_steps ns_a ns_b ns_c adjust_lr_fn warmup_steps r weight_lr_power ";
    const char *key;
    json_t *v;
    json_object_foreach((json_t *)c->options, key, v) {
        char padded[64];
        int known = 0;
        snprintf(padded, sizeof padded, " %s ", key);
        if (strstr(keys, padded) || json_is_false(v)) continue;
        for (size_t i = 0; i < sizeof words / sizeof *words && strcmp(key, "decay") == 0; i++)
            known |= plain_word(c, key, words[i]);
        if (!known) return 0;
    }
    return strchr(c->spec, '+') == NULL; /* a wrapper */
}

static void read_options(plain *p, const conform_case *c) {
    const int beside = plain_word(c, "decay", "decoupled") || plain_on(c, "decoupled_weight_decay")
                       || plain_on(c, "no_prox");
    p->lr = plain_option(c, "lr"), p->eps = plain_option(c, "eps");
    p->beta1 = plain_option(c, "beta1"), p->beta2 = plain_option(c, "beta2");
    p->beta3 = plain_option(c, "beta3"), p->alpha = plain_option(c, "alpha");
    p->lambda = plain_option(c, "weight_decay"), p->lr_decay = plain_option(c, "lr_decay");
    p->momentum = plain_option(c, "momentum"), p->dampening = plain_option(c, "dampening");
    p->initial = plain_option(c, "initial_accumulator_value");
    p->amsgrad = plain_on(c, "amsgrad"), p->nesterov = plain_on(c, "nesterov");
    p->centered = plain_on(c, "centered");
    p->place = beside ? BESIDE : p->rule->place;
    p->independent = plain_word(c, "decay", "independent") || strcmp(p->rule->family, "sgdw") == 0;
}

static int open_plain(plain *p, const conform_file *f, const conform_case *c, int mistake) {
    *p = (plain){.f = f, .c = c, .rule = plain_rule_of(f->family), .mistake = mistake};
    if (!p->rule || !known_options(c)) return 0;
    read_options(p, c);
    const int decays = json_object_get(c->options, "weight_decay") != NULL;
    const int lambda_open = decays && !named(c, "weight_decay"), eps_open = p->eps != 0 && !named(c, "eps");
    switch (mistake) {
    case MISTAKE_BETA_SWAP:
        p->beta1 = plain_option(c, "beta2"), p->beta2 = plain_option(c, "beta1");
        break;
    case MISTAKE_EPS_DEFAULT:
        if (eps_open) p->eps = 1e-7;
        break;
    case MISTAKE_EPS_DEFAULT5:
        if (eps_open) p->eps = 1e-5;
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
        p->place = IN_GRADIENT;
        break;
    case MISTAKE_DECAY_BESIDE:
        p->place = BESIDE;
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
        if (!named(c, "weight_decay")) p->lambda = 5e-4, p->place = IN_GRADIENT;
        break;
    case MISTAKE_LAMBDA_DEFAULT:
        if (lambda_open) p->lambda = 4e-3;
        break;
    case MISTAKE_LAMBDA_DEFAULT4:
        if (lambda_open) p->lambda = 1e-4;
        break;
    case MISTAKE_LAMBDA_DEFAULT2:
        if (lambda_open) p->lambda = 1e-2;
        break;
    case MISTAKE_LAMBDA_DEFAULT0:
        if (lambda_open) p->lambda = 0;
        break;
    case MISTAKE_SGD_INSTEAD:
        p->place = IN_GRADIENT;
        break;
    default:
        break;
    }
    return 1;
}

/* As darknet's adam=1: buf = 0.9 buf + g. sgd itself is what it is. */
static void momentum_sgd(plain_step *x) {
    for (size_t j = 0; j < x->tensor->n; j++) x->u[j] = x->slot[0][j] = 0.9 * x->slot[0][j] + x->g[j];
}

/* The gradient of the step, with an L2 penalty of l2. */
static void gradient(const plain_step *x, long step, double l2, double *g) {
    const int m = x->p->mistake;
    const size_t len = x->p->f->len, at = x->tensor->at;
    const long from = m == MISTAKE_GRADIENT_STALE && step > 1 ? step - 2 : step - 1;
    for (size_t j = 0; j < x->tensor->n; j++) {
        const double given = x->p->c->g[(size_t)from * len + at + j];
        double *sum = &x->slot[PLAIN_SUMMED][j];
        if (m == MISTAKE_GRADIENT_SUMMED) *sum = step == 1 ? given : *sum + given;
        g[j] = (m == MISTAKE_GRADIENT_SUMMED ? *sum : given) + l2 * x->w[j];
    }
}

/* The step and the decay beside it, of s times the weights before it. */
static void move(const plain_step *x, double s) {
    const int m = x->p->mistake;
    for (size_t j = 0; j < x->tensor->n; j++) {
        const double u = m == MISTAKE_STEP_SIGN ? -x->rate * x->u[j] : x->rate * x->u[j];
        double *w = &x->w[j];
        if (m == MISTAKE_DECAY_AFTER)
            *w = (*w - u) * (1 - s);
        else if (x->p->place == IMPLICIT)
            *w = (*w - u) / (1 + s);
        else
            *w = *w - s * *w - u;
    }
}

static void step_tensor(plain *p, long step, int i, double *g) {
    const conform_file *f = p->f;
    const conform_tensor *tensor = &f->tensor[i];
    const int m = p->mistake, place = p->place;
    const double mul = m == MISTAKE_SCHEDULE_IGNORED ? 1 : p->c->lr_mul[step - 1];
    const int decays = tensor->decays || m == MISTAKE_DECAY_BIASES
                       || (m == MISTAKE_DECAY_DEFAULT && !named(p->c, "weight_decay"));
    const double lambda = decays ? p->lambda * p->c->wd_mul[step - 1] : 0;
    const int both = m == MISTAKE_DECAY_BOTH;
    plain_step x = {.p = p,
                    .tensor = tensor,
                    .index = i,
                    .first = step == 1,
                    .t = step,
                    .mul = mul,
                    .lr = p->lr * mul,
                    .rate = p->lr * mul,
                    .g = g,
                    .u = g + f->len,
                    .w = p->w + tensor->at,
                    .lambda = place == IN_STEP ? lambda : 0};
    if (m == MISTAKE_T_PER_TENSOR) x.t = (step - 1) * f->tensors + i + 1;
    if (m == MISTAKE_T_AHEAD) x.t = step + 1;
    if (m == MISTAKE_STALE_COUNTER) x.t += (long)p->pass * f->steps;
    for (int k = 0; k < PLAIN_SLOTS; k++)
        x.slot[k] = p->slot[k] + (m == MISTAKE_MOMENTS_SHARED && k != PLAIN_SUMMED ? 0 : tensor->at);
    gradient(&x, step, place == IN_GRADIENT || both ? lambda : 0, g);
    if (m == MISTAKE_SGD_INSTEAD && strcmp(f->family, "sgd") != 0)
        momentum_sgd(&x);
    else
        p->rule->step(&x);
    /* switch has another rate in its second part; the decay follows it. */
    const double base = strcmp(f->family, "switch") == 0 && x.lr != 0 ? x.rate / x.lr * p->lr : p->lr;
    const double scheduled = m == MISTAKE_DECAY_NO_SCHEDULE ? 1 : mul;
    const int beside = place == BESIDE || place == IMPLICIT || (both && place == IN_GRADIENT);
    move(&x, beside ? lambda * scheduled * (p->independent ? 1 : base) : 0);
}

int conform_plain(const conform_file *f, const conform_case *c, int mistake, double *out) {
    plain p;
    if (!open_plain(&p, f, c, mistake)) return 0;
    const size_t slots = PLAIN_SLOTS * f->len;
    double *memory = calloc(slots + 3 * f->len, sizeof *memory), *g = memory ? memory + slots : NULL;
    if (!memory) return 0;
    for (int k = 0; k < PLAIN_SLOTS; k++) p.slot[k] = memory + (size_t)k * f->len;
    p.w = g + 2 * f->len;
    for (p.pass = 0; p.pass < CONFORM_PASSES; p.pass++) {
        memcpy(p.w, f->init, f->len * sizeof *p.w);
        if (p.pass == 0 || mistake != MISTAKE_STALE_MOMENTS) {
            memset(memory, 0, slots * sizeof *memory);
            if (p.rule->begin && mistake != MISTAKE_SGD_INSTEAD) p.rule->begin(&p);
        }
        for (int i = 0; i < f->tensors; i++) p.total[i] = p.largest[i] = 0;
        for (int s = 1; s <= f->steps; s++) {
            for (int i = 0; i < f->tensors; i++) step_tensor(&p, s, i, g);
            memcpy(out + (size_t)(p.pass * f->steps + s - 1) * f->len, p.w, f->len * sizeof *p.w);
        }
    }
    free(memory);
    return 1;
}

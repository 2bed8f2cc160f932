/* SPDX-License-Identifier: MIT */
/*
 * Sharpness-aware minimisation, a training step with two gradients: Foret et al., arXiv:2010.01412; with adaptive=on ASAM,
 * Kwon et al., arXiv:2102.11600, with its elementwise T. Over all trained weights together, g1 the gradient at w:
 *
 *   e = rho g1 / (|g1| + 1e-12)                                             adaptive=off
 *   e = rho T^2 g1 / (|T g1| + 1e-12), T = diag(|w_i| + eta)                adaptive=on
 *   g = the gradient at w + e of the same micro-batches under the same dropout masks
 *
 * The optimizer gets g at w, which is put back from a copy, so to the bit. Running averages (batch norm) see the batch
 * once, at w.
 */
#include "kernels/kernels.h"
#include "stepper.h"
#include <math.h>
#include <string.h>

typedef struct {
    double rho, eta;
    int adaptive;
} sam_hp;

#define ETA 0.01
static const tn_opt sam_opts[] = {
    TN_OPT_REAL(sam_hp, rho, 0.05, 0, 1e6, TN_OPEN_MIN,
                "size of the step to where the second gradient is taken"),
    TN_OPT_BOOL(sam_hp, adaptive, 0, "ASAM: that step is measured in units of the weights' own size"),
    TN_OPT_REAL(sam_hp, eta, ETA, 0, 1, 0, "added to |w| with adaptive=on"), TN_OPT_END};

struct tn_sam {
    tn_params *params;
    tn_stepper *stepper;
    sam_hp hp;
    tn_real *saved;
};

const tn_opt *tn_sam_options(void) {
    return sam_opts;
}

tn_sam *tn_sam_new(tn_params *p, tn_optim *optim, const char *options, const tn_step_options *o, tn_err *e) {
    size_t len;
    tn_sam *s = tn_mem_new(sizeof *s);
    if (!s) {
        tn_fail(e, "sam: out of memory");
        return NULL;
    }
    s->params = p;
    tn_params_flat(p, &len);
    tn_opts_default(sam_opts, &s->hp);
    if (tn_opts_parse(sam_opts, &s->hp, options, "sam", NULL, e)) goto failed;
    if (!s->hp.adaptive && s->hp.eta != ETA) { /* a text with every option is taken back */
        tn_fail(e, "sam: eta=%g means nothing without adaptive=on", s->hp.eta);
        goto failed;
    }
    if (!(s->stepper = tn_stepper_new(p, optim, o, e))) goto failed;
    if (!(s->saved = tn_mem_aligned(len * sizeof *s->saved))) {
        tn_fail(e, "sam: out of memory for a copy of the weights");
        goto failed;
    }
    return s;
failed:
    tn_sam_free(s);
    return NULL;
}

void tn_sam_free(tn_sam *s) {
    if (!s) return;
    tn_stepper_free(s->stepper);
    tn_mem_aligned_free(s->saved);
    tn_free(s);
}

int tn_sam_text(const tn_sam *s, char *out, size_t cap) {
    return tn_opts_text(sam_opts, &s->hp, 1, out, cap);
}

/* ---- the perturbation ---- */

typedef struct {
    tn_real *w;
    const tn_real *g;
    tn_real *out, eta, scale;
} job;

static inline tn_real size_of(tn_real w, tn_real eta) {
    return (w < 0 ? -w : w) + eta;
}
static void scaled_range(void *arg, size_t lo, size_t hi) {
    const job *j = arg;
    for (size_t i = lo; i < hi; i++) j->out[i] = size_of(j->w[i], j->eta) * j->g[i];
}
static void move_range(void *arg, size_t lo, size_t hi) {
    const job *j = arg;
    for (size_t i = lo; i < hi; i++) j->w[i] += j->scale * j->g[i];
}
static void move_adaptive_range(void *arg, size_t lo, size_t hi) {
    const job *j = arg;
    for (size_t i = lo; i < hi; i++) {
        const tn_real t = size_of(j->w[i], j->eta);
        j->w[i] += j->scale * (t * (t * j->g[i]));
    }
}

enum { PIECE = 8192 };

static int is_trained(const tn_param *p) {
    return !(p->flags & (TN_BUFFER | TN_FROZEN));
}

/* |T g|; saved is free yet and takes the product. */
static double adaptive_norm(tn_sam *s) {
    double sum = 0;
    for (int i = 0; i < s->params->n; i++) {
        const tn_param *p = s->params->p[i];
        job j = {.w = p->w, .g = p->g, .out = s->saved + p->offset, .eta = (tn_real)s->hp.eta};
        if (!is_trained(p)) continue;
        tn_parallel_range(p->len, PIECE, scaled_range, &j);
        sum += tn_sum_squares(p->len, j.out);
    }
    return sqrt(sum);
}

/* The weights go to w + e, and a copy of them to saved. */
static void perturb(tn_sam *s, double grad_norm) {
    const double norm = s->hp.adaptive ? adaptive_norm(s) : grad_norm;
    memcpy(s->saved, s->params->w, s->params->len * sizeof *s->saved);
    for (int i = 0; i < s->params->n; i++) {
        const tn_param *p = s->params->p[i];
        job j = {
            .w = p->w, .g = p->g, .eta = (tn_real)s->hp.eta, .scale = (tn_real)(s->hp.rho / (norm + 1e-12))};
        if (is_trained(p))
            tn_parallel_range(p->len, PIECE, s->hp.adaptive ? move_adaptive_range : move_range, &j);
    }
    tn_params_touch(s->params);
}

static void put_back(tn_sam *s) {
    memcpy(s->params->w, s->saved, s->params->len * sizeof *s->saved);
    tn_params_touch(s->params);
}

static int second_gradient(tn_sam *s, tn_tape *t, tn_loss_fn *fn, void *arg, const tn_tick *k,
                           tn_step_result *out) {
    tn_step_result there;
    perturb(s, out->grad_norm);
    tn_profile_lap(t->profile, "perturbation");
    tn_params_hold_plans(s->params, 1);
    int refused = tn_step_gradient(s->stepper, t, fn, arg, k, &there);
    tn_params_hold_plans(s->params, 0);
    put_back(s);
    tn_profile_lap(t->profile, "perturbation");
    out->ascent_loss = there.loss, out->grad_norm = there.grad_norm;
    if (refused)
        snprintf(out->nonfinite, sizeof out->nonfinite, "at the perturbed weights %.*s",
                 (int)sizeof out->nonfinite - 26, there.nonfinite);
    return refused;
}

int tn_sam_run(tn_sam *s, tn_tape *t, tn_loss_fn *fn, void *arg, const tn_tick *k, tn_step_result *out) {
    tn_profile_lap(t->profile, "between steps");
    tn_params_discard(s->params);
    int refused = tn_step_gradient(s->stepper, t, fn, arg, k, out) || second_gradient(s, t, fn, arg, k, out);
    if (refused) {
        tn_params_discard(s->params);
    } else {
        tn_step_update(s->stepper, t, k);
        tn_params_commit(s->params);
    }
    tn_profile_lap(t->profile, "other");
    return refused;
}

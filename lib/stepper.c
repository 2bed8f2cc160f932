/* SPDX-License-Identifier: MIT */
/*
 * The training step. Micro-batches are summed like a binary counter: two sums of equal size meet as soon as there are
 * two, so the tree depends on their number alone, and ranks that hold subtrees can join them to the same bits.
 */
#include "stepper.h"
#include "kernels/kernels.h"
#include <math.h>
#include <string.h>

enum { MAX_LEVELS = 24 };
struct tn_stepper {
    tn_params *params;
    tn_optim *optim;
    tn_step_options o;
    int levels;
    tn_real *partial[MAX_LEVELS]; /* sum of 2^level micro-batches */
};

tn_stepper *tn_stepper_new(tn_params *p, tn_optim *optim, const tn_step_options *given, tn_err *e) {
    tn_step_options o = given ? *given : (tn_step_options){1, 0, 0};
    if (o.accumulate == 0) o.accumulate = 1;
    if (o.accumulate < 0 || o.accumulate > 1 << (MAX_LEVELS - 1)) {
        tn_fail(e, "accumulate: %d micro-batches a step; it must be 1 ... %d", o.accumulate,
                1 << (MAX_LEVELS - 1));
        return NULL;
    }
    if (!(o.clip_norm >= 0) || !(o.clip_value >= 0)) {
        tn_fail(e, "clip: %g; a bound for gradients is positive, or 0 for none",
                o.clip_norm >= 0 ? o.clip_value : o.clip_norm);
        return NULL;
    }
    tn_stepper *s = tn_mem_new(sizeof *s);
    size_t len;
    tn_params_flat(p, &len);
    if (s) s->params = p, s->optim = optim, s->o = o;
    while (s && o.accumulate > 1 && 1 << s->levels < 2 * o.accumulate) {
        if (!(s->partial[s->levels++] = tn_mem_aligned(len * sizeof(tn_real)))) tn_stepper_free(s), s = NULL;
    }
    if (!s) tn_fail(e, "out of memory: no room to accumulate %d micro-batches", o.accumulate);
    return s;
}

void tn_stepper_free(tn_stepper *s) {
    if (!s) return;
    for (int i = 0; i < s->levels; i++) tn_mem_aligned_free(s->partial[i]);
    tn_free(s);
}

static int not_finite(tn_step_result *out, const char *what, const char *where) {
    snprintf(out->nonfinite, sizeof out->nonfinite, "%s%s", what, where);
    return 1;
}

/* One micro-batch: its gradient into g, scaled by its weight when it is one of several. */
static int micro_step(tn_stepper *s, tn_tape *t, tn_loss_fn *fn, void *arg, const tn_tick *k, int i,
                      double *total, tn_step_result *out) {
    double weight = 1;
    tn_tape_reset(t);
    tn_train_mode(t, k->seed, k->t - 1, (int)out->weight);
    tn_t *loss = fn(arg, t, i, &weight);
    tn_eval_mode(t);
    if (!loss) { /* an empty micro-batch: zeros keep the tree's shape */
        memset(s->params->g, 0, s->params->len * sizeof(tn_real));
        return 0;
    }
    double value = tn_value(loss);
    if (!isfinite(value)) {
        char where[TN_MAX_NAME + 40];
        out->loss = value;
        if (!tn_tape_nonfinite(t, where, sizeof where)) snprintf(where, sizeof where, "the loss");
        return not_finite(out, "", where);
    }
    *total += value * weight, out->weight += weight;
    tn_backward(s->o.accumulate > 1 ? tn_scale(loss, weight) : loss, s->params, 0);
    return 0;
}

/* g joins the sums of its own size, as a carry runs through a binary counter. */
static void carry(tn_stepper *s, int i) {
    const tn_kernels_t *k = tn_kernels_get(NULL);
    int level = 0;
    for (; (i >> level) & 1; level++) k->accumulate(s->params->len, s->partial[level], s->params->g);
    memcpy(s->partial[level], s->params->g, s->params->len * sizeof(tn_real));
}

static void collect(tn_stepper *s, double weight) {
    const tn_kernels_t *k = tn_kernels_get(NULL);
    tn_real *g = s->params->g, c = (tn_real)(1 / weight);
    int first = 1;
    for (int level = 0; level < s->levels; level++) {
        if (!((s->o.accumulate >> level) & 1)) continue;
        if (first)
            memcpy(g, s->partial[level], s->params->len * sizeof *g);
        else
            k->accumulate(s->params->len, s->partial[level], g);
        first = 0;
    }
    for (size_t i = 0; i < s->params->len; i++) g[i] *= c;
}

int tn_step_gradient(tn_stepper *s, tn_tape *t, tn_loss_fn *fn, void *arg, const tn_tick *k,
                     tn_step_result *out) {
    double total = 0;
    int n = s->o.accumulate;
    *out = (tn_step_result){0};
    for (int i = 0; i < n; i++) {
        if (micro_step(s, t, fn, arg, k, i, &total, out)) return 1;
        if (n > 1) carry(s, i);
    }
    if (!(out->weight > 0)) return not_finite(out, "", "the loss: every micro-batch is empty");
    if (n > 1) collect(s, out->weight);
    out->loss = total / out->weight;
    tn_profile_lap(t->profile, "other");
    out->grad_norm = tn_grad_norm(s->params);
    tn_profile_lap(t->profile, "gradient norm");
    if (!isfinite(out->grad_norm)) {
        const char *name = tn_nonfinite_grad(s->params);
        return not_finite(out, "gradient of ", name ? name : "all weights together: its square overflows");
    }
    return 0;
}

void tn_step_update(tn_stepper *s, tn_tape *t, const tn_tick *k) {
    if (s->o.clip_value > 0) tn_clip_value(s->params, s->o.clip_value);
    if (s->o.clip_norm > 0) tn_clip_norm(s->params, s->o.clip_norm);
    if (s->optim) tn_optim_step(s->optim, k);
    tn_profile_lap(t->profile, "optimizer");
}

int tn_stepper_run(tn_stepper *s, tn_tape *t, tn_loss_fn *fn, void *arg, const tn_tick *k,
                   tn_step_result *out) {
    tn_profile_lap(t->profile, "between steps");
    tn_params_discard(s->params); /* what forward passes outside of a step may have planned */
    int refused = tn_step_gradient(s, t, fn, arg, k, out);
    if (refused) {
        tn_params_discard(s->params);
    } else {
        tn_step_update(s, t, k);
        tn_params_commit(s->params);
    }
    tn_profile_lap(t->profile, "other");
    return refused;
}

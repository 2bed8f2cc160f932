/* SPDX-License-Identifier: MIT */
/* What a weight decay means in numbers. */
#include "decay.h"
#include <math.h>
#include <string.h>

/* Product of 1 - shrink over all steps; long runs are sampled. */
static double total_shrink(const run *r, const tn_optim_def *def, const void *hp) {
    long stride = r->total / 100000 + 1;
    double log_sum = 0;
    for (long k = 0; k < r->total; k += stride) {
        tn_tick tick = run_tick(r, k);
        double s = def->shrink(hp, &tick);
        log_sum += s < 1 ? log1p(-s) : -INFINITY;
    }
    return exp(log_sum * (double)stride);
}

/* Asked with lr 1: at lr 0 nothing shrinks, whatever the kind. */
static int has_no_factor(const run *r, const tn_optim_def *def, const void *hp) {
    enum { BYTES = 1024 };
    _Alignas(max_align_t) char copy[BYTES];
    if (!def->shrink) return 1;
    TN_CHECK(NULL, def->hp_size <= BYTES, "%s: options of %zu bytes", def->name, def->hp_size);
    memcpy(copy, hp, def->hp_size);
    for (const tn_opt *o = def->hp; o->name; o++)
        if (strcmp(o->name, "lr") == 0) *(double *)(copy + o->offset) = 1;
    tn_tick tick = run_tick(r, 0);
    tick.lr_mul = tick.wd_mul = 1;
    return def->shrink(copy, &tick) == 0;
}

double decay_lambda(const run *r, const tn_param *p, int *penalty) {
    const tn_optim_def *def = tn_optim_definition_of(r->optim, p);
    const void *hp = tn_optim_options(r->optim, p);
    *penalty = 0;
    if (p->flags & (TN_NO_DECAY | TN_BUFFER | TN_FROZEN)) return 0;
    double lambda = option_real(def, hp, "weight_decay", 0);
    if (lambda != 0) *penalty = def->penalty ? def->penalty(hp) : has_no_factor(r, def, hp);
    return lambda;
}

decay_facts decay_of(const run *r, const tn_param *p) {
    const tn_optim_def *def = tn_optim_definition_of(r->optim, p);
    const void *hp = tn_optim_options(r->optim, p);
    decay_facts f = {.total = 1};
    f.lambda = decay_lambda(r, p, &f.penalty);
    if (f.lambda == 0 || f.penalty) return f;
    tn_tick tick = run_tick(r, 0);
    tick.lr_mul = 1;
    f.shrink = def->shrink ? def->shrink(hp, &tick) : 0;
    f.no_factor = has_no_factor(r, def, hp);
    if (f.no_factor) return f;
    f.timescale = 1 / (f.shrink * (double)r->per_epoch);
    f.total = total_shrink(r, def, hp);
    f.lambda_norm =
        f.shrink / sqrt((double)r->config.batch / ((double)r->set->train.n * (double)r->config.epochs));
    return f;
}

void decay_total_text(double total, char out[32]) {
    const double gone = 1 - total;
    if (gone > 0 && gone < 5e-3)
        snprintf(out, 32, "1 - %.3g", gone);
    else
        snprintf(out, 32, "%.3g", total);
}

int decay_warning(const run *r, int i, char *out, size_t cap) {
    double seen = 0; /* tensors with the same decay need no second warning */
    for (int p = 0, found = 0; p < tn_params_count(r->model->params); p++) {
        const tn_param *param = tn_params_at(r->model->params, p);
        decay_facts f = decay_of(r, param);
        const char *what = NULL;
        if (f.lambda == 0 || f.penalty || f.shrink == seen) continue;
        seen = f.shrink;
        if (f.shrink >= 1)
            what = "is so large that a step turns the weights' sign";
        else if (sizeof(tn_real) == 4 && f.shrink < 0x1p-24)
            what = "is so small that a step's shrink is lost to rounding";
        else if (f.total > 0.9)
            what = "can hardly be seen in so short a run";
        if (!what || found++ < i) continue;
        char left[32];
        decay_total_text(f.total, left);
        snprintf(out, cap, "%s: weight_decay=%g %s: %.3g of a weight a step, %s of it left at the end",
                 param->name, f.lambda, what, f.shrink, left);
        return 1;
    }
    return 0;
}

/* SPDX-License-Identifier: MIT */
/* What a weight decay means in numbers. */
#include "decay.h"
#include <math.h>

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

decay_facts decay_of(const run *r, const tn_param *p) {
    const tn_optim_def *def = tn_optim_definition(r->optim);
    const void *hp = tn_optim_options(r->optim, p);
    decay_facts f = {.total = 1};
    if (p->flags & (TN_NO_DECAY | TN_BUFFER | TN_FROZEN)) return f;
    f.lambda = option_real(def, hp, "weight_decay", 0);
    if (f.lambda == 0) return f;
    tn_tick tick = run_tick(r, 0);
    tick.lr_mul = 1;
    f.shrink = def->shrink ? def->shrink(hp, &tick) : 0;
    f.penalty = f.shrink == 0;
    if (f.penalty) return f;
    f.timescale = 1 / (f.shrink * (double)r->per_epoch);
    f.total = total_shrink(r, def, hp);
    f.lambda_norm =
        f.shrink / sqrt((double)r->config.batch / ((double)r->set->train.n * (double)r->config.epochs));
    return f;
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
        snprintf(out, cap, "%s: weight_decay=%g %s: %.3g of a weight a step, %.3g of it left at the end",
                 param->name, f.lambda, what, f.shrink, f.total);
        return 1;
    }
    return 0;
}

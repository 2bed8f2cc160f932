/* SPDX-License-Identifier: MIT */
/* Two tensors and an optimizer on them; see optim_rig.h. */
#include "optim_rig.h"

rig rig_new(const char *spec) {
    rig r = {.params = tn_params_new()};
    tn_err e = {""};
    double u[22];
    golden_uniform(42, 0.5, 22, u);
    r.p[0] = tn_param_add(r.params, "p", "weight", 0, tn_init_const(0), 2, (int[]){3, 5});
    r.p[1] = tn_param_add(r.params, "p", "bias", TN_NO_DECAY, tn_init_const(0), 1, (int[]){7});
    if (tn_params_seal(r.params, 1, &e)) fail_msg("%s", e.msg);
    for (int i = 0; i < 22; i++) r.p[i >= 15]->w[i % 15] = (tn_real)(u[i] + (u[i] < 0 ? -0.25 : 0.25));
    r.o = tn_optim_new(r.params, spec, &e);
    if (!r.o) fail_msg("%s: %s", spec, e.msg);
    r.tick =
        (tn_tick){.total = 1000, .steps_per_epoch = 10, .batch = 32, .lr_mul = 1, .wd_mul = 1, .seed = 1};
    return r;
}

void rig_free(rig *r) {
    tn_optim_free(r->o);
    tn_params_free(r->params);
}

void rig_step(rig *r) {
    r->tick.t++;
    tn_optim_step(r->o, &r->tick);
}

void rig_run(rig *r, int steps) {
    for (int s = 0; s < steps; s++) {
        rig_random_grad(r, (uint64_t)r->tick.t);
        rig_step(r);
    }
}

void rig_zero_grad(rig *r) {
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; j < r->p[i]->len; j++) r->p[i]->g[j] = 0;
}

void rig_random_grad(rig *r, uint64_t seed) {
    double u[22];
    golden_uniform(1000 + seed, 1, 22, u);
    for (int i = 0; i < 22; i++) r->p[i >= 15]->g[i % 15] = (tn_real)u[i];
}

/* SPDX-License-Identifier: MIT */
/* The head of a run: what is trained on what, each tensor and its decay, and what the decay comes to. */
#include "decay.h"
#include "header.h"
#include "host.h"
#include "terminal.h"
#include <string.h>

static void data_line(FILE *f, const tn_dataset *s) {
    char n[3][32], shape[64] = "";
    count_text(s->train.n, n[0]);
    count_text(s->val.n, n[1]);
    count_text(s->test.n, n[2]);
    for (int i = 0; i < s->train.nd; i++)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%d", i ? "x" : "", s->train.dim[i]);
    fprintf(f, "data       %s: %s for training, %s for validation, %s for the test; %s, ", s->name, n[0],
            n[1], n[2], shape);
    if (s->train.classes)
        fprintf(f, "%d classes\n", s->train.classes);
    else
        fprintf(f, "%d target%s\n", s->train.targets, s->train.targets == 1 ? "" : "s");
}

static void tensor_line(FILE *f, const run *r, const tn_param *p) {
    char shape[64] = "(";
    decay_facts d = decay_of(r, p);
    for (int i = 0; i < p->nd; i++)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%d", i ? ", " : "", p->dim[i]);
    strcat(shape, ")");
    fprintf(f, "           %-20s %-18s ", p->name, shape);
    if (p->flags & TN_FROZEN)
        fputs("frozen\n", f);
    else if (p->flags & TN_NO_DECAY)
        fputs("not decayed\n", f);
    else if (d.lambda == 0)
        fputs("no decay set\n", f);
    else if (d.penalty)
        fprintf(f, "penalty %g/2 |w|^2 through the gradient\n", d.lambda);
    else
        fprintf(f, "decayed: times 1 - %.4g a step\n", d.shrink);
}

/* Once for all tensors with the same decay. */
static void decay_lines(FILE *f, const run *r) {
    double seen = -1;
    for (int i = 0; i < tn_params_count(r->model->params); i++) {
        const tn_param *p = tn_params_at(r->model->params, i);
        decay_facts d = decay_of(r, p);
        if (d.lambda == 0 || d.penalty || d.shrink == seen) continue;
        seen = d.shrink;
        fprintf(f,
                "decay      of %s: to 1/e in %.3g epochs without gradient, to %.3g over the run; lambda_norm "
                "%.4g\n",
                p->name, d.timescale, d.total, d.lambda_norm);
    }
}

void header_print(FILE *f, const run *r) {
    char line[512], parameters[32], steps[32];
    const run_config *c = &r->config;
    host_line(line, sizeof line);
    count_text((double)r->sum.parameters, parameters);
    count_text((double)r->total, steps);
    fprintf(f, "%s, %d thread%s\n", line, tn_threads(), tn_threads() == 1 ? "" : "s");
    fprintf(f, "run        %s%s%s, seed %ld\n", r->sum.id, r->how.dir ? " in " : "",
            r->how.dir ? r->how.dir : "", c->seed);
    data_line(f, r->set);
    fprintf(f, "model      %s, %s parameters\n", c->model, parameters);
    for (int i = 0; i < tn_params_count(r->model->params); i++)
        tensor_line(f, r, tn_params_at(r->model->params, i));
    fprintf(f, "optimizer  %s\n", c->optimizer);
    for (int i = 0; i < CONFIG_GROUPS && c->group[i][0]; i++)
        fprintf(f, "           group %s\n", c->group[i]);
    decay_lines(f, r);
    fprintf(f, "schedule   %s; %ld epochs of %ld steps of %ld images, %s steps in all\n", c->schedule,
            c->epochs, r->per_epoch, c->batch, steps);
    if (c->augment[0]) fprintf(f, "augment    %s\n", c->augment);
    if (r->resumed)
        fprintf(f, "resumed    at step %ld: weights, optimizer state and place in the order restored\n",
                r->step);
}

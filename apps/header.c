/* SPDX-License-Identifier: MIT */
/* The head of a run: what is trained on what, each tensor and its decay, and what the decay comes to. */
#include "args.h"
#include "decay.h"
#include "header.h"
#include "host.h"
#include "terminal.h"
#include <stdarg.h>
#include <string.h>

enum { INDENT = 11, WIDTH = 80 };

static void entry(FILE *f, const char *name, const char *fmt, ...) TN_PRINTF(3, 4);

/* "name       text", wrapped. */
static void entry(FILE *f, const char *name, const char *fmt, ...) {
    char text[3 * CONFIG_SPEC];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    args_wrapped(f, text, fprintf(f, "%-*s", INDENT, name), INDENT);
}

static void data_line(FILE *f, const tn_dataset *s) {
    char n[3][32], shape[64] = "";
    count_text(s->train.n, n[0]);
    count_text(s->val.n, n[1]);
    count_text(s->test.n, n[2]);
    for (int i = 0; i < s->train.nd; i++)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%d", i ? "x" : "", s->train.dim[i]);
    int outputs = s->train.classes ? s->train.classes : s->train.targets;
    entry(f, "data", "%s: %s for training, %s for validation, %s for the test; %s, %d %s%s", s->name, n[0],
          n[1], n[2], shape, outputs, s->train.classes ? "classes" : "target",
          s->train.classes || outputs == 1 ? "" : "s");
}

static void shape_text(const tn_param *p, char out[64]) {
    strcpy(out, "(");
    for (int i = 0; i < p->nd; i++)
        snprintf(out + strlen(out), 64 - strlen(out), "%s%d", i ? ", " : "", p->dim[i]);
    snprintf(out + strlen(out), 64 - strlen(out), ")");
}

static void decay_text(const run *r, const tn_param *p, char out[80]) {
    decay_facts d = decay_of(r, p);
    if (p->flags & TN_FROZEN)
        snprintf(out, 80, "frozen");
    else if (p->flags & TN_NO_DECAY)
        snprintf(out, 80, "not decayed");
    else if (d.lambda == 0)
        snprintf(out, 80, "no decay set");
    else if (d.penalty)
        snprintf(out, 80, "penalty %g/2 |w|^2 through the gradient", d.lambda);
    else if (d.no_factor)
        snprintf(out, 80, "decayed by %g beside the gradient", d.lambda);
    else
        snprintf(out, 80, "decayed: times 1 - %.4g a step", d.shrink);
}

/* Do all tensors have the same optimizer? */
static int one_optimizer(const run *r) {
    for (int i = 0; i < tn_params_count(r->model->params); i++) {
        const tn_param *p = tn_params_at(r->model->params, i);
        if (!(p->flags & TN_BUFFER) && tn_optim_definition_of(r->optim, p) != tn_optim_definition(r->optim))
            return 0;
    }
    return 1;
}

/*
 * Name, shape, optimizer where there are several, and decay of each tensor in columns; a decay that finds no room goes
 * on the next line.
 */
static void tensor_lines(FILE *f, const run *r) {
    char shape[64], decay[80];
    int n = tn_params_count(r->model->params), name_width = 0, shape_width = 0, width = 0,
        one = one_optimizer(r);
    for (int i = 0; i < n; i++) {
        const tn_param *p = tn_params_at(r->model->params, i);
        shape_text(p, shape);
        if ((int)strlen(p->name) > name_width) name_width = (int)strlen(p->name);
        if ((int)strlen(shape) > shape_width) shape_width = (int)strlen(shape);
        int used = (int)strlen(tn_optim_definition_of(r->optim, p)->name);
        if (!one && used + 2 > width) width = used + 2;
    }
    for (int i = 0; i < n; i++) {
        const tn_param *p = tn_params_at(r->model->params, i);
        shape_text(p, shape);
        decay_text(r, p, decay);
        const char *optimizer = one || p->flags & TN_BUFFER ? "" : tn_optim_definition_of(r->optim, p)->name;
        int at = fprintf(f, "%*s%-*s  %-*s  %-*s", INDENT, "", name_width, p->name, shape_width, shape, width,
                         optimizer);
        if (at + (int)strlen(decay) > WIDTH) fprintf(f, "\n%*s", INDENT + 4, "");
        fprintf(f, "%s\n", decay);
    }
}

/* Options that the optimizer's line does not show: of groups, and of those that take what an optimizer does not. */
static void group_lines(FILE *f, const run *r) {
    const void *shown[CONFIG_GROUPS * 2 + 2];
    int n = 0;
    for (int i = 0; i < CONFIG_GROUPS && r->config.group[i][0]; i++)
        entry(f, "", "group %s", r->config.group[i]);
    for (int i = 0; i < tn_params_count(r->model->params); i++) {
        const tn_param *p = tn_params_at(r->model->params, i);
        const void *hp = tn_optim_options(r->optim, p);
        const tn_optim_def *def = tn_optim_definition_of(r->optim, p);
        char options[CONFIG_SPEC];
        int known =
            p->flags & TN_BUFFER || hp == tn_optim_options(r->optim, NULL) || n == CONFIG_GROUPS * 2 + 2;
        for (int k = 0; k < n && !known; k++) known = shown[k] == hp;
        if (known || tn_opts_text(def->hp, hp, 1, options, sizeof options) < 0) continue;
        shown[n++] = hp;
        entry(f, "", "of %s: %s:%s", p->name, def->name, options);
    }
}

/* Once for all tensors with the same decay. */
static void decay_lines(FILE *f, const run *r) {
    double seen = 0; /* a tensor that shrinks by 0 a step is said to do so above */
    for (int i = 0; i < tn_params_count(r->model->params); i++) {
        const tn_param *p = tn_params_at(r->model->params, i);
        decay_facts d = decay_of(r, p);
        if (d.lambda == 0 || d.penalty || d.shrink == seen) continue;
        seen = d.shrink;
        char left[32];
        decay_total_text(d.total, left);
        entry(f, "decay",
              "of %s: to 1/e in %.3g epochs without gradient, to %s over the run; lambda_norm %.4g", p->name,
              d.timescale, left, d.lambda_norm);
    }
}

void header_print(FILE *f, const run *r) {
    char host[512], line[600], parameters[32], steps[32];
    const run_config *c = &r->config;
    host_line(host, sizeof host);
    count_text((double)r->sum.parameters, parameters);
    count_text((double)r->total, steps);
    snprintf(line, sizeof line, "%s, %d thread%s", host, tn_threads(), tn_threads() == 1 ? "" : "s");
    args_wrapped(f, line, 0, 2);
    entry(f, "run", "%s%s%s, seed %ld", r->sum.id, r->how.dir ? " in " : "", r->how.dir ? r->how.dir : "",
          c->seed);
    data_line(f, r->set);
    entry(f, "model", "%s, %s parameters", c->model, parameters);
    tensor_lines(f, r);
    entry(f, "optimizer", "%s", c->optimizer);
    group_lines(f, r);
    decay_lines(f, r);
    if (r->sam) entry(f, "loop", "%s: two gradients a step", c->loop);
    entry(f, "schedule", "%s; %ld epochs of %ld steps of %ld images, %s steps in all", c->schedule, c->epochs,
          r->per_epoch, c->batch, steps);
    if (r->wd_schedule) entry(f, "", "weight_decay: %s", c->wd_schedule);
    if (c->augment[0]) entry(f, "augment", "%s", c->augment);
    if (r->resumed)
        entry(f, "resumed", "at step %ld: weights, optimizer state and place in the order restored", r->step);
}

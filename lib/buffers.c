/* SPDX-License-Identifier: MIT */
/*
 * Plans for buffers (running averages). k plans of one step fold into w = scale w + offset: each multiplies both by
 * 1 - momentum and adds momentum value to the offset, in double, in the order of the micro-batches.
 */
#include "internal.h"
#include <string.h>

typedef struct tn_plans {
    double *scale;  /* one a parameter; 1 with open 0: no plan */
    double *offset; /* laid out as the weights */
    int open;       /* some buffer has a plan */
    int held;       /* new plans are passed over */
} plans;

int tn_plans_new(tn_params *s) {
    int buffers = 0;
    for (int i = 0; i < s->n; i++) buffers |= s->p[i]->flags & TN_BUFFER;
    if (!buffers) return 0;
    plans *p = s->plans = tn_mem_new(sizeof *p);
    if (!p) return -1;
    p->scale = tn_mem_new((size_t)s->n * sizeof *p->scale),
    p->offset = tn_mem_new(s->len * sizeof *p->offset);
    if (!p->scale || !p->offset) return -1;
    for (int i = 0; i < s->n; i++) p->scale[i] = 1;
    return 0;
}

void tn_plans_free(tn_params *s) {
    if (!s->plans) return;
    tn_free(s->plans->scale), tn_free(s->plans->offset), tn_free(s->plans);
    s->plans = NULL;
}

void tn_plan_buffer(tn_param *b, const tn_t *value, double momentum) {
    TN_CHECK(value->tape, b->flags & TN_BUFFER, "tn_plan_buffer: %s is no buffer", b->name);
    TN_CHECK(value->tape, b->w, "tn_plan_buffer: %s is used before tn_params_seal", b->name);
    TN_CHECK(value->tape, value->nd == b->nd && !memcmp(value->dim, b->dim, sizeof(int) * (size_t)b->nd),
             "tn_plan_buffer: the value for %s has another shape", b->name);
    plans *p = b->set->plans;
    if (p->held) return;
    double *offset = p->offset + b->offset;
    for (size_t i = 0; i < b->len; i++)
        offset[i] = (1 - momentum) * offset[i] + momentum * (double)value->x[i];
    p->scale[b->index] *= 1 - momentum;
    p->open = 1;
}

void tn_params_hold_plans(tn_params *s, int on) {
    if (s->plans) s->plans->held = on;
}

void tn_params_discard(tn_params *s) {
    if (!s->plans || !s->plans->open) return;
    for (int i = 0; i < s->n; i++) s->plans->scale[i] = 1;
    memset(s->plans->offset, 0, s->len * sizeof *s->plans->offset);
    s->plans->open = 0;
}

void tn_params_commit(tn_params *s) {
    plans *p = s->plans;
    if (!p || !p->open) return;
    for (int i = 0; i < s->n; i++) {
        tn_param *b = s->p[i];
        const double *offset = p->offset + b->offset;
        if (!(b->flags & TN_BUFFER)) continue;
        for (size_t k = 0; k < b->len; k++) b->w[k] = (tn_real)(p->scale[i] * (double)b->w[k] + offset[k]);
    }
    tn_params_discard(s);
    tn_params_touch(s);
}

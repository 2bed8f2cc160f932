/* SPDX-License-Identifier: MIT */
/*
 * Which part of an update is the decay's. Where decay shrinks the weights it is -shrink w. Where it is a penalty inside the
 * gradient, the first moment is linear in the gradient, so the moment of the penalty's gradient alone runs beside it:
 * for adaml2 m_d = beta1 m_d + (1 - beta1) lambda w, which the step divides by the same root as m. It runs for the WINDOW
 * steps up to a record alone, and begins as if the steps before had seen the same weights; that error is beta1^WINDOW
 * (0.1% at 0.9) of what the weights changed by.
 *
 * Further back than a dozen steps, where beta1^12 is 28%, weights of one step stand for those beside it: three, then five
 * steps at once with the weights of the middle one. So 26 steps in 64 pay for the moment; see tests/test_optim_report.c
 * for what it costs in accuracy.
 *
 * The moment goes on range by range inside the optimizer's own pass, just before a range is updated: its weights are then
 * on their way to the cache anyway, so that a step pays for one more stream, the moment, and for no pass of its own.
 */
#include "optim_report.h"
#include <math.h>
#include <string.h>

enum {
    WINDOW = 64,
    SINGLE = 12,
    TRIPLE = 39,
    GRAIN = 16384
}; /* ages, a record's step being 0: from 12 threes, from 39 fives */

struct tn_decay_report {
    tn_optim *optim;
    tn_params *params;
    long every;
    long tracked, last; /* steps that the moments have seen, and the last one */
    tn_real *old, *moment, *part;
    tn_decay_row *row;
    int rows; /* of the last step */
    /* What tn_report_range does in this step: */
    int records;
    long past;              /* as decay_track has it */
    unsigned char *follows; /* a tensor's moment goes on */
};

static int is_trained(const tn_param *p) {
    return !(p->flags & (TN_BUFFER | TN_FROZEN));
}

static double weight_decay_of(const tn_optim_def *d, const void *hp) {
    for (const tn_opt *o = d->hp; o->name; o++)
        if (o->type == TN_REAL_OPT && strcmp(o->name, "weight_decay") == 0)
            return *(const double *)((const char *)hp + o->offset);
    return 0;
}

/* lambda of a parameter that decays, else 0. */
static double lambda_of(const tn_decay_report *r, const tn_param *p) {
    if (p->flags & TN_NO_DECAY || !is_trained(p)) return 0;
    return weight_decay_of(tn_optim_definition_of(r->optim, p), tn_optim_options(r->optim, p));
}

static int can_tell(const tn_decay_report *r, tn_err *e) {
    for (int i = 0; i < r->params->n; i++) {
        const tn_optim_def *d = tn_optim_definition_of(r->optim, r->params->p[i]);
        if (lambda_of(r, r->params->p[i]) != 0 && !d->shrink && !d->decay_part)
            return tn_fail(e,
                           "decay report: optimizer %s does not tell its decay from the rest of a step; set "
                           "weight_decay=0",
                           d->name);
    }
    return 0;
}

tn_decay_report *tn_decay_report_new(tn_params *params, tn_optim *o, long every, tn_err *e) {
    if (every < 1) {
        tn_fail(e, "decay report: every %ld steps; it must be 1 or more", every);
        return NULL;
    }
    tn_decay_report *r = tn_mem_new(sizeof *r);
    if (r) {
        r->optim = o, r->params = params, r->every = every;
        if (can_tell(r, e)) {
            tn_free(r);
            return NULL;
        }
        r->old = tn_mem_aligned(params->len * sizeof *r->old);
        r->moment = tn_mem_aligned(params->len * sizeof *r->moment);
        r->part = tn_mem_aligned(params->len * sizeof *r->part);
        r->row = tn_mem_new((size_t)params->n * sizeof *r->row);
        r->follows = tn_mem_new((size_t)params->n);
    }
    if (!r || !r->old || !r->moment || !r->part || !r->row || !r->follows) {
        tn_decay_report_free(r);
        tn_fail(e, "decay report: out of memory");
        return NULL;
    }
    memset(r->moment, 0, params->len * sizeof *r->moment);
    tn_optim_report(o, r);
    return r;
}

void tn_decay_report_free(tn_decay_report *r) {
    if (!r) return;
    tn_optim_report(r->optim, NULL);
    tn_mem_aligned_free(r->old);
    tn_mem_aligned_free(r->moment);
    tn_mem_aligned_free(r->part);
    tn_free(r->row);
    tn_free(r->follows);
    tn_free(r);
}

/* ---- a step ---- */

typedef struct {
    const tn_optim_def *def;
    const void *hp;
    const tn_tick *tick;
    const tn_opt_tensor *tensor;
    tn_real *old, *moment, *part;
    double shrink;
} job;

static job job_of(tn_decay_report *r, int i, const tn_tick *k) {
    const size_t at = r->params->p[i]->offset;
    return (job){.def = tn_optim_definition_of(r->optim, r->params->p[i]),
                 .hp = tn_optim_options(r->optim, r->params->p[i]),
                 .tick = k,
                 .tensor = tn_optim_tensor(r->optim, i),
                 .old = r->old + at,
                 .moment = r->moment + at,
                 .part = r->part + at};
}

/*
 * The steps that share one pass with the step of this age: how many, and where it stands among them, the first being 0.
 * Ages of a window of `all` steps; those that are left at its beginning share one as well.
 */
static int together(long age, long all, long *place) {
    const long wide = age < SINGLE   ? 1
                      : age < TRIPLE ? 3
                                     : 5,
               from = age < SINGLE   ? 0
                      : age < TRIPLE ? SINGLE
                                     : TRIPLE;
    const long last = from + (age - from) / wide * wide, end = last + wide < all ? last + wide : all;
    *place = end - 1 - age;
    return (int)(end - last);
}

void tn_report_before(tn_decay_report *r, const tn_tick *k) {
    const long left = (r->every - k->t % r->every) % r->every; /* steps until the next record */
    const int goes_on = r->tracked > 0 && r->last == k->t - 1;
    long place = 0;
    const int steps = together(left, r->every < WINDOW ? r->every : WINDOW, &place);
    const int passes = left < WINDOW && place == (steps - 1) / 2;
    r->rows = 0;
    r->records = left == 0;
    r->past = goes_on ? -steps : k->t - 1 + steps - 1 - place;
    for (int i = 0; i < r->params->n; i++)
        r->follows[i] = passes && tn_optim_definition_of(r->optim, r->params->p[i])->decay_track
                        && lambda_of(r, r->params->p[i]) != 0;
    if (goes_on && left < WINDOW)
        r->tracked++;
    else
        r->tracked = passes ? place + 1 : 0;
    r->last = k->t;
}

void tn_report_range(const tn_decay_report *r, const tn_tick *k, int i, size_t lo, size_t hi) {
    const tn_param *p = r->params->p[i];
    if (r->records) memcpy(r->old + p->offset + lo, p->w + lo, (hi - lo) * sizeof *r->old);
    if (r->follows[i])
        tn_optim_definition_of(r->optim, p)
            ->decay_track(tn_optim_options(r->optim, p), k, tn_optim_tensor(r->optim, i),
                          r->moment + p->offset, r->past, lo, hi);
}

static void part_range(void *arg, size_t lo, size_t hi) {
    const job *j = arg;
    if (!j->def->decay_part)
        for (size_t i = lo; i < hi; i++) j->part[i] = (tn_real)(-j->shrink * (double)j->old[i]);
    else
        j->def->decay_part(j->hp, j->tick, j->tensor, j->old, j->moment, j->part, lo, hi);
}

static double rms(double square, size_t n) {
    return sqrt(square / (double)n);
}

/*
 * The decay's part is computed, the gradient's is what is left of the update: so they add up to it. The weights before the
 * step make room for the update, and the decay's part for the gradient's.
 */
static void leave_update(void *arg, size_t lo, size_t hi) {
    const job *j = arg;
    for (size_t n = lo; n < hi; n++) j->old[n] = j->tensor->w[n] - j->old[n];
}
static void leave_gradient(void *arg, size_t lo, size_t hi) {
    const job *j = arg;
    for (size_t n = lo; n < hi; n++) j->part[n] = j->old[n] - j->part[n];
}

static tn_decay_row row_of(tn_decay_report *r, int i, const tn_tick *k) {
    const tn_param *p = r->params->p[i];
    const int decays = lambda_of(r, p) != 0;
    job j = job_of(r, i, k);
    double decay = 0;
    const double w = tn_sum_squares(p->len, j.old), g = tn_sum_squares(p->len, p->g);
    if (decays) {
        j.shrink = j.def->shrink ? j.def->shrink(j.hp, k) : 0;
        tn_parallel_range(p->len, GRAIN, part_range, &j);
        decay = tn_sum_squares(p->len, j.part);
    }
    tn_parallel_range(p->len, GRAIN, leave_update, &j);
    const double update = tn_sum_squares(p->len, j.old);
    double gradient = update;
    if (decays) {
        tn_parallel_range(p->len, GRAIN, leave_gradient, &j);
        gradient = tn_sum_squares(p->len, j.part);
    }
    return (tn_decay_row){.name = p->name,
                          .decay_rms = rms(decay, p->len),
                          .gradient_rms = rms(gradient, p->len),
                          .update_rms = rms(update, p->len),
                          .grad_rms = rms(g, p->len),
                          .weight_norm = sqrt(w),
                          .update_ratio = sqrt(update) / sqrt(w),
                          .tracked = decays && j.def->decay_track && j.shrink == 0 ? r->tracked : 0};
}

void tn_report_after(tn_decay_report *r, const tn_tick *k) {
    if (!r->records) return;
    for (int i = 0; i < r->params->n; i++)
        if (is_trained(r->params->p[i])) r->row[r->rows++] = row_of(r, i, k);
}

const tn_decay_row *tn_decay_report_rows(const tn_decay_report *r, int *n) {
    *n = r->rows;
    return r->row;
}

tn_real *tn_decay_report_moments(tn_decay_report *r, size_t *len) {
    *len = r->params->len;
    return r->moment;
}

long tn_decay_report_tracked(const tn_decay_report *r) {
    return r->last == tn_optim_steps(r->optim) ? r->tracked : 0;
}

void tn_decay_report_go_on(tn_decay_report *r, long tracked) {
    r->tracked = tracked;
    r->last = tn_optim_steps(r->optim);
}

/* SPDX-License-Identifier: MIT */
/*
 * Which part of an update is the decay's. Where decay shrinks the weights it is -shrink w. Where it is a penalty inside the
 * gradient, the first moment is linear in the gradient, so the moment of the penalty's gradient alone runs beside it:
 * for adaml2 m_d = beta1 m_d + (1 - beta1) lambda w, which the step divides by the same root as m. It runs for the WINDOW
 * steps up to a record alone, and begins as if the steps before had seen the same weights; that error is beta1^WINDOW
 * (0.1% at 0.9) of what the weights changed by.
 *
 * Further back than a dozen steps, where beta1^12 is 28%, weights of one step stand for those beside it: three, then five
 * steps at once with the weights and the multiplier of lambda of the middle one. So 26 steps in 64 pay for the moment. In
 * training it changes decay_rms by 0.1%, as WINDOW does; where a schedule of lambda jumps within such a group, by up to 3%
 * of the jump.
 *
 * The moment goes on range by range inside the optimizer's own pass, just before a range is updated: its weights are then
 * on their way to the cache anyway, so that a step pays for one more stream, the moment, and for no pass of its own.
 */
#include "optim_report.h"
#include "kernels/kernels.h"
#include "optim_private.h"
#include <math.h>
#include <string.h>

enum { WINDOW = 64, PIECE = TN_RANGE };
/* Ages, a record's step being 0: from 12 three steps share a pass, from 39 five. */
enum { SINGLE = 12, TRIPLE = 39 };

typedef struct {
    double decay, gradient, update, g, w; /* squares */
} sums;

struct tn_decay_report {
    tn_optim *optim;
    tn_params *params;
    long every;
    long tracked, last; /* steps that the moments have seen, and the last one */
    long first;         /* step that it was asked about; 0: none yet */
    tn_real *old, *moment, *part;
    tn_decay_row *row;
    int rows; /* of the last step */
    /* What tn_report_range does in this step: */
    int records;
    long past;              /* as decay_track has it */
    unsigned char *follows; /* a tensor's moment goes on */
    unsigned char *decays;
    size_t *piece; /* of each tensor the first of its sums, and how many there are in all */
    sums *sums;
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
        r->decays = tn_mem_new((size_t)params->n);
        r->piece = tn_mem_new(((size_t)params->n + 1) * sizeof *r->piece);
        for (int i = 0; r->piece && i < params->n; i++)
            r->piece[i + 1] = r->piece[i] + (params->p[i]->len + PIECE - 1) / PIECE;
        if (r->piece) r->sums = tn_mem_new(r->piece[params->n] * sizeof *r->sums);
    }
    if (!r || !r->old || !r->moment || !r->part || !r->row || !r->follows || !r->decays || !r->sums) {
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
    tn_free(r->decays);
    tn_free(r->piece);
    tn_free(r->sums);
    tn_free(r);
}

/* ---- a step ---- */

/*
 * How many steps share one pass with the step of this age, in a window of `all` ages, and how many of them come before it.
 * The window's first group takes what is left.
 */
static long together(long age, long all, long *place) {
    const long wide = age < SINGLE ? 1 : age < TRIPLE ? 3 : 5;
    const long from = age < SINGLE ? 0 : age < TRIPLE ? SINGLE : TRIPLE;
    const long last = from + (age - from) / wide * wide, end = last + wide < all ? last + wide : all;
    *place = end - 1 - age;
    return end - last;
}

void tn_report_before(tn_decay_report *r, const tn_tick *k) {
    const long left = (r->every - k->t % r->every) % r->every; /* steps until the next record */
    const int goes_on = r->tracked > 0 && r->last == k->t - 1;
    long place = 0;
    const long steps = together(left, r->every < WINDOW ? r->every : WINDOW, &place);
    const int passes = left < WINDOW && place == (steps - 1) / 2;
    if (!r->first) r->first = k->t;
    r->rows = 0;
    r->records = left == 0;
    r->past = goes_on ? -steps : k->t - 1 + steps - 1 - place;
    for (int i = 0; i < r->params->n; i++) {
        r->decays[i] = (passes || r->records) && lambda_of(r, r->params->p[i]) != 0;
        r->follows[i] =
            passes && r->decays[i] && tn_optim_definition_of(r->optim, r->params->p[i])->decay_track;
    }
    if (goes_on && left < WINDOW)
        r->tracked++;
    else
        r->tracked = !passes ? 0 : place < k->t - r->first ? place + 1 : k->t - r->first + 1;
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

/* ---- a record ---- */

/*
 * The decay's part is computed, the gradient's is what is left of the update: so they add up to it. The weights before the
 * step make room for the update, and the decay's part for the gradient's.
 */
static void add_piece(const tn_decay_report *r, const tn_tick *k, int i, size_t lo, size_t hi, sums *s) {
    const tn_param *p = r->params->p[i];
    const tn_optim_def *d = tn_optim_definition_of(r->optim, p);
    const void *hp = tn_optim_options(r->optim, p);
    const tn_kernels_t *kernels = tn_kernels_get(NULL);
    const size_t n = hi - lo;
    tn_real *const old = r->old + p->offset, *const part = r->part + p->offset;
    s->g += kernels->sum_sq(n, p->g + lo), s->w += kernels->sum_sq(n, old + lo);
    if (r->decays[i]) {
        if (d->decay_part) {
            d->decay_part(hp, k, tn_optim_tensor(r->optim, i), old, r->moment + p->offset, part, lo, hi);
        } else {
            const double shrink = d->shrink(hp, k);
            for (size_t j = lo; j < hi; j++) part[j] = (tn_real)(-shrink * (double)old[j]);
        }
        s->decay += kernels->sum_sq(n, part + lo);
    }
    for (size_t j = lo; j < hi; j++) old[j] = p->w[j] - old[j];
    const double update = kernels->sum_sq(n, old + lo);
    s->update += update;
    if (!r->decays[i]) {
        s->gradient += update;
        return;
    }
    for (size_t j = lo; j < hi; j++) part[j] = old[j] - part[j];
    s->gradient += kernels->sum_sq(n, part + lo);
}

/* Ranges begin PIECE elements from another or more, so that each has sums of its own; its pieces stay in cache. */
void tn_report_updated(const tn_decay_report *r, const tn_tick *k, int i, size_t lo, size_t hi) {
    if (!r->records) return;
    sums *s = &r->sums[r->piece[i] + lo / PIECE];
    *s = (sums){0};
    for (size_t at = lo; at < hi; at += PIECE) add_piece(r, k, i, at, hi - at < PIECE ? hi : at + PIECE, s);
}

static double rms(double square, size_t n) {
    return sqrt(square / (double)n);
}

static tn_decay_row row_of(const tn_decay_report *r, int i, const tn_tick *k) {
    const tn_param *p = r->params->p[i];
    const tn_optim_def *d = tn_optim_definition_of(r->optim, p);
    const int shrinks = d->shrink && d->shrink(tn_optim_options(r->optim, p), k) > 0;
    sums all = {0};
    for (const sums *s = &r->sums[r->piece[i]], *end = &r->sums[r->piece[i + 1]]; s < end; s++) {
        all.decay += s->decay, all.gradient += s->gradient, all.update += s->update;
        all.g += s->g, all.w += s->w;
    }
    return (tn_decay_row){.name = p->name,
                          .decay_rms = rms(all.decay, p->len),
                          .gradient_rms = rms(all.gradient, p->len),
                          .update_rms = rms(all.update, p->len),
                          .grad_rms = rms(all.g, p->len),
                          .weight_norm = sqrt(all.w),
                          .update_ratio = sqrt(all.update) / sqrt(all.w),
                          .tracked = r->decays[i] && d->decay_track && !shrinks ? r->tracked : 0};
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

/* SPDX-License-Identifier: MIT */
/* The training loop: steps, validation, checkpoints, signals, the end. */
#include "run.h"
#include "decay.h"
#include "host.h"
#include "run_state.h"
#include "rundir.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { RUN_SKIPS = 10 }; /* steps left out in a row that end the run: --help names it */

run_options run_options_default(void) {
    return (run_options){.test = 1, .test_file = 1, .max_steps = -1, .log_steps = 1};
}

double now_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

const char *run_warning(const run *r) {
    return r->warning;
}

static void tell(run *r, run_event event) {
    if (r->how.on) r->how.on(r->how.arg, r, event);
}

int run_warn(run *r, tn_err *e, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(r->warning, sizeof r->warning, fmt, ap);
    va_end(ap);
    tell(r, RUN_ON_WARNING);
    return r->files ? rundir_event(r->files, "warning", json_pack("{s:s}", "text", r->warning), e) : 0;
}

/* ---- What is measured on the weights ------------------------------------------------------------------- */

static double sum_of_squares(const tn_real *w, size_t n) {
    double s = 0;
    for (size_t i = 0; i < n; i++) s += (double)w[i] * (double)w[i];
    return s;
}

double option_real(const tn_optim_def *def, const void *hp, const char *name, double missing) {
    for (const tn_opt *o = def->hp; o->name; o++)
        if (strcmp(o->name, name) == 0 && o->type == TN_REAL_OPT)
            return *(const double *)((const char *)hp + o->offset);
    return missing;
}

double run_penalty(const run *r) {
    double penalty = 0;
    for (int i = 0; i < tn_params_count(r->model->params); i++) {
        const tn_param *p = tn_params_at(r->model->params, i);
        int l2;
        double lambda = decay_lambda(r, p, &l2);
        if (l2) penalty += lambda / 2 * sum_of_squares(p->w, p->len);
    }
    if (penalty > 0) penalty *= run_tick(r, r->step ? r->step - 1 : 0).wd_mul;
    return penalty;
}

static double weight_norm(const run *r) {
    double s = 0;
    for (int i = 0; i < tn_params_count(r->model->params); i++) {
        const tn_param *p = tn_params_at(r->model->params, i);
        if (!(p->flags & (TN_NO_DECAY | TN_BUFFER))) s += sum_of_squares(p->w, p->len);
    }
    return sqrt(s);
}

/*
 * Norm of the first matrix's columns that belong to inputs which are zero in every sample. NAN where the
 * model sees another number there: --normalize meanstd moves the zero, augmentation lights these pixels.
 */
static double never_lit_norm(const run *r) {
    const tn_param *p = tn_params_at(r->model->params, 0);
    size_t len = r->set->train.len;
    double s = 0;
    if (!r->sum.never_lit || r->set->train.shift != 0 || tn_augment_any(&r->augment)) return NAN;
    if (!p || p->nd != 2 || (size_t)p->dim[1] != len) return NAN;
    for (size_t i = 0; i < p->len; i++)
        if (r->never_lit[i % len]) s += (double)p->w[i] * (double)p->w[i];
    return sqrt(s);
}

/* ---- Steps --------------------------------------------------------------------------------------------- */

typedef struct {
    run *r;
    int first, n; /* of this step, in the epoch's order */
} batch;

static tn_t *batch_loss(void *arg, tn_tape *t, int micro, double *weight) {
    const batch *b = arg;
    run *r = b->r;
    const tn_data *d = &r->set->train;
    long parts = r->config.accumulate;
    int lo = (int)(b->n * micro / parts), hi = (int)(b->n * (micro + 1L) / parts);
    if (lo == hi) return NULL; /* a last batch with fewer images than parts */
    const int *idx = r->order + b->first + lo;
    *weight = hi - lo;
    tn_t *y = tn_forward(r->model, tn_batch_input_augmented(t, d, &r->augment, (uint64_t)r->config.seed,
                                                            r->step / r->per_epoch, hi - lo, idx, 0));
    if (!d->classes) return tn_mse(y, tn_batch_targets(t, d, hi - lo, idx, 0), TN_MEAN);
    const tn_ce_options o = {.label_smoothing = r->config.label_smoothing};
    tn_batch_labels(d, hi - lo, idx, 0, r->labels);
    return tn_cross_entropy(y, r->labels, &o);
}

/*
 * The run is over: what was not finite, where and when. The stepper names the op already when it was the
 * loss.
 */
static void diverge(run *r, const char *what) {
    char op[160] = "";
    int more = strncmp(what, "op ", 3) != 0 && tn_tape_nonfinite(r->tape, op, sizeof op);
    r->sum.status = RUN_DIVERGED;
    snprintf(r->sum.reason, sizeof r->sum.reason, "step %ld: %s is not finite%s%s", r->step + 1, what,
             more ? "; first on the tape: " : "", op);
}

/*
 * A step is left out: its images are used up and the run's step counts, so order and schedules go on; the optimizer never
 * heard of it, so its own count, which its bias corrections follow, stays behind. 1: that was one too many.
 */
static int skip(run *r, tn_err *e) {
    char text[sizeof r->warning];
    r->skipped++, r->skipped_in_row++;
    snprintf(text, sizeof text, "step %ld: %s is not finite; step left out, %ld so far", r->step + 1,
             r->last.nonfinite, r->skipped);
    if (r->files
        && rundir_event(r->files, "skip",
                        json_pack("{s:I, s:s, s:I, s:I}", "step", (json_int_t)r->step + 1, "nonfinite",
                                  r->last.nonfinite, "in_row", (json_int_t)r->skipped_in_row, "skipped",
                                  (json_int_t)r->skipped),
                        e))
        return -1;
    if (run_warn(r, e, "%s", text)) return -1;
    if (r->skipped_in_row < RUN_SKIPS) return 0;
    diverge(r, r->last.nonfinite);
    size_t n = strlen(r->sum.reason);
    snprintf(r->sum.reason + n, sizeof r->sum.reason - n, "; %d steps in a row", RUN_SKIPS);
    return 1;
}

/* 0: done, or left out; 1: diverged; -1: failed. */
static int one_step(run *r, tn_err *e) {
    int n = r->set->train.n, size = (int)r->config.batch;
    long epoch = r->step / r->per_epoch;
    batch b = {r, (int)(r->step % r->per_epoch) * size, size};
    if (b.n > n - b.first) b.n = n - b.first;
    if (r->order_epoch != epoch) {
        tn_epoch_order((uint64_t)r->config.seed, epoch, n, r->config.shuffle, r->order);
        r->order_epoch = epoch;
        tn_profile_lap(r->how.profile, "data");
    }
    if (b.first == 0) r->epoch_loss = r->epoch_images = 0;
    tn_tick tick = run_tick(r, r->step);
    r->lr_mul = tick.lr_mul, r->wd_mul = tick.wd_mul;
    if (r->sam ? tn_sam_run(r->sam, r->tape, batch_loss, &b, &tick, &r->last)
               : tn_stepper_run(r->stepper, r->tape, batch_loss, &b, &tick, &r->last)) {
        int code = 1;
        if (r->config.skip_nonfinite)
            code = skip(r, e);
        else
            diverge(r, r->last.nonfinite);
        if (!code) r->step++;
        return code;
    }
    r->skipped_in_row = 0;
    r->step++;
    r->epoch_loss += r->last.loss * b.n;
    r->epoch_images += b.n;
    return 0;
}

/* ---- Validation and checkpoints ------------------------------------------------------------------------ */

void run_eval_weights(run *r, int on) {
    tn_tick tick = run_tick(r, r->step ? r->step - 1 : 0);
    if (tick.t > 0 && r->step && tn_optim_evaluates_elsewhere(r->optim)) tn_optim_eval(r->optim, &tick, on);
}

static score score_part(run *r, const tn_data *d, tn_real *outputs, int *predicted) {
    run_eval_weights(r, 1);
    score s = evaluate(r->model, r->eval_tape, d, outputs, predicted);
    run_eval_weights(r, 0);
    return s;
}

static int log_eval(run *r, tn_err *e) {
    if (!r->files) return 0;
    json_t *j = json_pack("{s:I, s:I, s:o, s:o, s:o, s:o}", "step", (json_int_t)r->step, "epoch",
                          (json_int_t)((r->step + r->per_epoch - 1) / r->per_epoch), "train_loss",
                          json_number(r->epoch_images > 0 ? r->epoch_loss / r->epoch_images : NAN), "penalty",
                          json_number(run_penalty(r)), "val_loss", json_number(r->val.loss), "val_accuracy",
                          json_number(r->val.accuracy));
    return rundir_event(r->files, "eval", j, e) || rundir_metrics(r->files, r, e) ? -1 : 0;
}

/*
 * planned 0: where --max-steps stopped it. Its score is shown, but must not decide which weights were the
 * best: the run may go on later and end like one that was never stopped.
 */
static int validate(run *r, int planned, tn_err *e) {
    const int classes = r->set->train.classes;
    tn_profile *p =
        tn_tape_profile(r->tape, NULL); /* these ops are not those of the steps: one line for all */
    r->val = score_part(r, &r->set->val, NULL, NULL);
    tn_profile_lap(p, "evaluation");
    tn_tape_profile(r->tape, p);
    if (!planned) return 0;
    if (log_eval(r, e)) return -1;
    if (!r->val.n) return 0;
    double now = classes ? r->val.accuracy : r->val.loss, best = r->sum.best_val;
    if (!isnan(best) && !(classes ? now > best : now < best)) return 0;
    r->sum.best_val = now;
    r->sum.best_step = r->step;
    return run_save_best(r, e);
}

/*
 * NaN in the weights without one in the loss: an overflow in the last update. Nothing of it may reach a file.
 */
static int weights_overflowed(run *r) {
    const char *name = tn_nonfinite_weight(r->model->params);
    if (!name) return 0;
    r->sum.status = RUN_DIVERGED;
    snprintf(r->sum.reason, sizeof r->sum.reason, "step %ld: weights %s are not finite after the update",
             r->step, name);
    return 1;
}

static int checkpoint(run *r, tn_err *e) {
    if (r->saved_step == r->step) return 0;
    if (run_save(r, e)) return -1;
    tell(r, RUN_ON_CHECKPOINT);
    return 0;
}

static int observe_one(run *r, tn_schedule *s, const char *what, tn_err *e) {
    int n;
    if (!s || !tn_schedule_observes(s)) return 0;
    const double before = *tn_schedule_state(s, &n);
    tn_schedule_observe(s, r->val.loss);
    const double now = *tn_schedule_state(s, &n);
    if (!r->files || now == before) return 0;
    return rundir_event(r->files, "plateau",
                        json_pack("{s:I, s:s, s:o, s:o, s:o}", "step", (json_int_t)r->step, "of", what,
                                  "val_loss", json_number(r->val.loss), "before", json_number(before), "now",
                                  json_number(now)),
                        e);
}

/* Schedules that follow the validation loss hear it. */
static int observe(run *r, tn_err *e) {
    return observe_one(r, r->schedule, "lr", e) || observe_one(r, r->wd_schedule, "weight_decay", e) ? -1 : 0;
}

/* After a step: 0 go on, 1 stop, -1 failed. */
static int after_step(run *r, long limit, tn_err *e) {
    const run_config *c = &r->config;
    int epoch_ends = r->step % r->per_epoch == 0, last = r->step == limit;
    int due = c->eval_every ? r->step % c->eval_every == 0 : epoch_ends;
    int planned = due || r->step == r->total;
    int evaluates = planned || last;
    long every = r->how.checkpoint_every;
    int saves = last || (every ? r->step % every == 0 : epoch_ends);
    if (r->how.save && *r->how.save) *r->how.save = 0, saves = 1;
    if (r->how.stop && *r->how.stop) saves = 1;
    if (r->files && r->how.log_steps && !r->last.nonfinite[0] && rundir_step(r->files, r, e)) return -1;
    if (r->report && !r->last.nonfinite[0] && run_decay_log(r, e)) return -1;
    tn_profile_lap(r->how.profile, "log");
    if (last) tell(r, RUN_ON_LAST);
    if ((evaluates || saves) && weights_overflowed(r)) return 1;
    if (evaluates && validate(r, planned, e)) return -1;
    if (due && observe(r, e)) return -1;
    if (saves && checkpoint(r, e)) return -1;
    if (evaluates || saves)
        tn_profile_lap(r->how.profile, "checkpoint"); /* and the best weights, the metrics */
    tell(r, RUN_ON_STEP);
    if (epoch_ends || last)
        tell(r, RUN_ON_EPOCH);
    else if (evaluates)
        tell(r, RUN_ON_EVAL);
    return 0;
}

/* ---- Beginning and end --------------------------------------------------------------------------------- */

/* Are there running statistics, and weights to evaluate with that they do not belong to? */
static int averages_alone(const run *r) {
    for (int i = 0; i < tn_params_count(r->model->params); i++)
        if (tn_params_at(r->model->params, i)->flags & TN_BUFFER)
            return tn_optim_evaluates_elsewhere(r->optim);
    return 0;
}

static int begin(run *r, tn_err *e) {
    const char *dir = r->how.dir;
    if (isnan(r->sum.never_lit_start)) r->sum.never_lit_start = never_lit_norm(r);
    if (run_decay_open(r, e)) return -1;
    if (dir && r->how.resume && (run_restore(r, dir, e) || run_decay_restore(r, dir, e))) return -1;
    if (dir && !(r->files = rundir_open(dir, r->how.resume ? r->step : -1, r->how.force, e))) return -1;
    if (run_save_config(r, e)) return -1;
    if (r->files) {
        json_t *j =
            json_pack("{s:s, s:I, s:I, s:b, s:O}", "id", r->sum.id, "step", (json_int_t)r->step,
                      "planned_steps", (json_int_t)r->total, "resumed", r->resumed, "config", r->identity);
        json_object_set_new(j, "host", host_json());
        if (rundir_event(r->files, "run_start", j, e)) return -1;
    }
    tell(r, RUN_ON_START);
    if (r->note[0] && run_warn(r, e, "%s", r->note)) return -1;
    if (r->set->note[0] && run_warn(r, e, "%s: %s", r->set->name, r->set->note)) return -1;
    char text[256];
    for (int i = 0; decay_warning(r, i, text, sizeof text); i++)
        if (run_warn(r, e, "%s", text)) return -1;
    return averages_alone(r) ? run_warn(
               r, e,
               "running statistics of batch norm are those of the training weights, not of the average that "
               "is evaluated")
                             : 0;
}

static int finish_scores(run *r, tn_err *e) {
    const tn_dataset *set = r->set;
    if (r->sum.status != RUN_FINISHED && r->sum.status != RUN_STOPPED) return 0;
    r->sum.train = score_part(r, &set->train, NULL, NULL);
    r->sum.val = r->val;
    if (!r->how.test || !set->test.n) return 0;
    int keep = r->files && r->how.test_file, code = 0;
    size_t n = (size_t)set->test.n;
    int *predicted = keep ? malloc(n * sizeof *predicted) : NULL;
    tn_real *outputs =
        keep && !set->test.classes ? malloc(n * (size_t)set->test.targets * sizeof *outputs) : NULL;
    if (keep && (!predicted || (!set->test.classes && !outputs)))
        code = tn_fail(e, "not enough memory for the test set's predictions");
    else
        r->sum.test = score_part(r, &set->test, outputs, predicted);
    if (keep && !code) code = run_save_test(r, predicted, outputs, e);
    free(predicted);
    free(outputs);
    return code;
}

static int finish(run *r, tn_err *e) {
    run_summary *s = &r->sum;
    s->steps = r->step;
    s->skipped = r->skipped;
    if (finish_scores(r, e)) return -1;
    s->penalty = run_penalty(r);
    s->weight_norm = weight_norm(r);
    s->never_lit_norm = never_lit_norm(r);
    s->seconds = now_seconds() - r->started;
    s->step_seconds = r->step_seconds;
    s->images_per_second = r->step_seconds > 0 ? (double)r->done_images / r->step_seconds : 0;
    if (r->files) {
        json_t *j = run_summary_json(s);
        if (!j) return tn_fail(e, "not enough memory for the summary");
        json_object_set_new(j, "peak_kib", json_integer(host_peak_kib()));
        if (r->how.profile && rundir_event(r->files, "profile", run_profile_json(r->how.profile), e)) {
            json_decref(j);
            return -1;
        }
        if (rundir_event(r->files, "run_end", json_incref(j), e)
            || rundir_json(r->files, "summary.json", j, e))
            return -1;
    }
    tell(r, RUN_ON_END);
    return 0;
}

static int stopped(const run *r) {
    return r->how.stop && *r->how.stop;
}

static int loop(run *r, tn_err *e) {
    long limit = r->how.max_steps >= 0 && r->how.max_steps < r->total ? r->how.max_steps : r->total;
    int code = 0;
    if (limit < r->step) limit = r->step;
    if (r->step == limit && !stopped(r) && validate(r, 0, e)) return -1;
    tn_tape_profile(r->tape, r->how.profile);
    while (!code && r->sum.status != RUN_DIVERGED && r->step < limit && !stopped(r)) {
        double start = now_seconds();
        double before = r->epoch_images * (r->step % r->per_epoch != 0);
        if ((code = one_step(r, e))) break;
        r->step_seconds += now_seconds() - start;
        r->done_images += r->epoch_images - before;
        r->done_here++;
        code = after_step(r, limit, e);
    }
    tn_tape_profile(r->tape, NULL);
    if (code < 0) return -1;
    if (r->sum.status == RUN_DIVERGED) return 0;
    r->sum.status = r->step == r->total ? RUN_FINISHED : r->step == limit ? RUN_STOPPED : RUN_INTERRUPTED;
    return checkpoint(r, e);
}

/* What is resumed has its weights in its state; the file of --init need not be there any more. */
static int has_state(const run *r) {
    char path[CONFIG_PATH + 32];
    snprintf(path, sizeof path, "%s/resume.safetensors", r->how.dir ? r->how.dir : "");
    return r->how.dir && r->how.resume && access(path, F_OK) == 0;
}

int run_train(const run_config *c, const tn_dataset *set, const run_options *how, run_summary *out,
              tn_err *e) {
    run *r = calloc(1, sizeof *r);
    if (!r) return tn_fail(e, "not enough memory for a run");
    r->how = how ? *how : run_options_default();
    r->started = now_seconds();
    r->skip_init = has_state(r);
    int bad = run_open(r, c, set, e) || begin(r, e) || loop(r, e) || finish(r, e);
    if (bad) bad = r->usage ? -2 : -1;
    if (!bad && out) *out = r->sum;
    run_close(r);
    free(r);
    return bad;
}

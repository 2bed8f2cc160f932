/* SPDX-License-Identifier: MIT */
/*
 * The pilot: learning rate and lambda of each optimizer, by mean accuracy on the validation images (whose labels are
 * clean whatever --label-noise does to the training ones) at the last epoch, ties by validation loss. The test set is
 * never read.
 *
 * All three get the same number of settings. adaml2 and adamw: a grid lr x lambda with steps of a factor 2, lambda = 0
 * among them, which is adam and is run once for all. adam: that column, and as many more learning rates in between.
 * When a best setting lies on the edge of its grid, the grid grows there (and the other optimizer's by as much). A run
 * that diverged counts as accuracy 0, so a setting is never chosen for the seeds that happened to survive.
 */
#include "compare.h"
#include "host.h"
#include "run_state.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { ADAM, ADAML2, ADAMW, KINDS, AXIS = 14, TRIALS = 1024 };
static const char *const NAMES[KINDS] = {"adam", "adaml2", "adamw"};

typedef struct {
    int kind;
    double lr, wd;
    int done, diverged;
    double accuracy, sd, loss; /* means over seeds; sd of the accuracy */
} trial;

typedef struct {
    const plan *plan;
    const plan_model *model;
    const pilot_options *how;
    data_cache *data;
    int lrs, wds[KINDS]; /* values on the axes, ascending; the lambda axes do not hold the 0 */
    double lr[AXIS], wd[KINDS][AXIS];
    double lr_factor, wd_factor[KINDS];
    trial at[TRIALS];
    int trials, open_edge; /* 1: a best setting is still on an edge */
    double seconds;
} study;

/* Three digits, so that what is shown is what was run. */
static double rounded(double v) {
    char text[32];
    snprintf(text, sizeof text, "%.3g", v);
    return strtod(text, NULL);
}

static void add_trial(study *s, int kind, double lr, double wd) {
    for (int i = 0; i < s->trials; i++)
        if (s->at[i].kind == kind && s->at[i].lr == lr && s->at[i].wd == wd) return;
    if (s->trials < TRIALS) s->at[s->trials++] = (trial){.kind = kind, .lr = lr, .wd = wd};
}

static void add_grid(study *s) {
    for (int i = 0; i < s->lrs; i++) {
        add_trial(s, ADAM, s->lr[i], 0);
        for (int k = ADAML2; k <= ADAMW; k++)
            for (int j = 0; j < s->wds[k]; j++) add_trial(s, k, s->lr[i], s->wd[k][j]);
    }
}

/* As many settings for adam as the others have: learning rates between those of the grid, evenly on a log scale. */
static void add_fine(study *s) {
    int wanted = s->lrs * s->wds[ADAML2], gaps = s->lrs - 1, each = (wanted + gaps - 1) / gaps;
    for (int i = 0; i < gaps; i++)
        for (int j = 1; j <= each; j++)
            add_trial(s, ADAM, rounded(s->lr[i] * pow(s->lr[i + 1] / s->lr[i], (double)j / (each + 1))), 0);
}

static int settings_of(const study *s, int kind) {
    int n = kind == ADAM ? 0 : s->lrs;
    for (int i = 0; i < s->trials; i++) n += s->at[i].kind == kind;
    return n;
}

static void trial_spec(const trial *t, int kind, char *out, size_t cap) {
    if (kind == ADAM)
        snprintf(out, cap, "adam:lr=%g", t->lr);
    else
        snprintf(out, cap, "%s:lr=%g,weight_decay=%g", NAMES[kind], t->lr, t->wd);
}

/* ---- Running ---------------------------------------------------------------------------------------------------- */

static void measure(trial *t, const job *jobs, int n) {
    double sum = 0, sq = 0;
    for (int i = 0; i < n; i++) {
        int bad = jobs[i].sum.status == RUN_DIVERGED;
        sum += bad ? 0 : jobs[i].sum.val.accuracy;
        t->loss += bad ? INFINITY : jobs[i].sum.val.loss / n;
        t->diverged += bad;
    }
    t->accuracy = sum / n;
    for (int i = 0; i < n; i++) {
        double d = (jobs[i].sum.status == RUN_DIVERGED ? 0 : jobs[i].sum.val.accuracy) - t->accuracy;
        sq += d * d;
    }
    t->sd = n > 1 ? sqrt(sq / (n - 1)) : 0;
    t->done = 1;
}

/* By seed, so that one opened data set serves all settings; back to the order of the trials for measure. */
static int run_trials(study *s, tn_err *e) {
    int seeds = s->plan->seeds, waiting = 0, n = 0;
    for (int i = 0; i < s->trials; i++) waiting += !s->at[i].done;
    job *jobs = calloc((size_t)(waiting * seeds) + 1, sizeof *jobs);
    job *of_trial = calloc((size_t)seeds, sizeof *of_trial);
    if (!jobs || !of_trial) {
        free(jobs);
        free(of_trial);
        return tn_fail(e, "not enough memory for the pilot");
    }
    for (int k = 0; k < seeds; k++)
        for (int i = 0; i < s->trials; i++) {
            if (s->at[i].done) continue;
            job *j = &jobs[n++];
            *j = (job){.config = s->model->base, .cost = s->model->cost};
            j->config.seed = s->plan->first_seed + k;
            trial_spec(&s->at[i], s->at[i].kind, j->config.optimizer, sizeof j->config.optimizer);
            plan_optimizer_of(&j->config, j->config.optimizer);
            snprintf(j->label, sizeof j->label, "%s %.100s seed %ld", s->model->name, j->config.optimizer,
                     j->config.seed);
        }
    int code = pool_run(jobs, n, s->how->side_by_side, s->how->quiet, s->data, e);
    for (int i = 0, at = 0; i < s->trials && !code; i++) {
        if (s->at[i].done) continue;
        for (int k = 0; k < seeds; k++) of_trial[k] = jobs[k * waiting + at];
        measure(&s->at[i], of_trial, seeds);
        at++;
    }
    free(jobs);
    free(of_trial);
    return code;
}

/* ---- Choosing ------------------------------------------------------------------------------------------------------- */

static int index_of(const double *axis, int n, double v) {
    for (int i = 0; i < n; i++)
        if (axis[i] == v) return i;
    return -1;
}

/* adam on the grid's learning rates is the column lambda = 0 of the other two. */
static int belongs(const study *s, const trial *t, int kind) {
    return t->kind == kind || (t->kind == ADAM && index_of(s->lr, s->lrs, t->lr) >= 0);
}

static const trial *best_of(const study *s, int kind) {
    const trial *best = NULL;
    for (int i = 0; i < s->trials; i++) {
        const trial *t = &s->at[i];
        if (!t->done || !belongs(s, t, kind)) continue;
        if (!best || t->accuracy > best->accuracy || (t->accuracy == best->accuracy && t->loss < best->loss))
            best = t;
    }
    return best;
}

/* -1 below, 1 above: where an axis has to grow; 0: it need not. */
static int edge(const double *axis, int n, double v) {
    return v <= axis[0] ? -1 : v >= axis[n - 1] ? 1 : 0;
}

static int grow(double *axis, int *n, double factor, int side) {
    if (*n == AXIS) return 0;
    if (side > 0) {
        axis[*n] = rounded(axis[*n - 1] * factor);
    } else {
        memmove(axis + 1, axis, (size_t)*n * sizeof *axis);
        axis[0] = rounded(axis[1] / factor);
    }
    ++*n;
    return 1;
}

/* Grows what has to; 0: nothing has, or nothing can any more. */
static int grow_grid(study *s) {
    int below = 0, above = 0, side[KINDS] = {0}, grown = 0;
    for (int k = 0; k < KINDS; k++) {
        const trial *b = best_of(s, k);
        int at = edge(s->lr, s->lrs, b->lr);
        below |= at < 0;
        above |= at > 0;
        if (k != ADAM) side[k] = edge(s->wd[k], s->wds[k], b->wd);
    }
    s->open_edge = below || above || side[ADAML2] || side[ADAMW];
    if (below) grown |= grow(s->lr, &s->lrs, s->lr_factor, -1);
    if (above) grown |= grow(s->lr, &s->lrs, s->lr_factor, 1);
    for (int k = ADAML2; k <= ADAMW && (side[ADAML2] || side[ADAMW]); k++) {
        const trial *b = best_of(s, k);
        if (!side[k])
            side[k] = 2 * index_of(s->wd[k], s->wds[k], b->wd) >= s->wds[k] ? 1 : -1; /* the nearer side */
        grown |= grow(s->wd[k], &s->wds[k], s->wd_factor[k], side[k]);
    }
    return grown;
}

static int explore(study *s, tn_err *e) {
    for (;;) {
        add_grid(s);
        int code = run_trials(s, e);
        if (code) return code;
        if (grow_grid(s)) continue;
        add_fine(s);
        if ((code = run_trials(s, e)) || !grow_grid(s)) return code;
    }
}

/* ---- Showing ------------------------------------------------------------------------------------------------------------ */

static void write_row(const study *s, FILE *f, const trial *t, int kind) {
    fprintf(f, "%s\t%g\t%g\t%.6f\t%.6f\t%.6f\t%d\t%s\n", NAMES[kind], t->lr, t->wd, t->accuracy, t->sd,
            t->loss, t->diverged, best_of(s, kind) == t ? "best" : "");
}

static int by_setting(const void *a, const void *b) {
    const trial *x = a, *y = b;
    if (x->kind != y->kind) return x->kind - y->kind;
    if (x->lr != y->lr) return x->lr < y->lr ? -1 : 1;
    return x->wd < y->wd ? -1 : x->wd > y->wd;
}

static void write_table(study *s, FILE *f) {
    char training[CONFIG_SPEC], mode[64];
    training_text(&s->model->base, training, sizeof training);
    host_numeric_mode(mode, sizeof mode);
    qsort(s->at, (size_t)s->trials, sizeof *s->at, by_setting);
    fprintf(f, "# %s\n# %s %s\n", s->how->command, s->model->base.model, training);
    fprintf(f,
            "# seeds %ld to %ld; mean accuracy on the validation images (clean labels) at the last epoch, "
            "its standard\n",
            s->plan->first_seed, s->plan->first_seed + s->plan->seeds - 1);
    fprintf(f,
            "# deviation over the seeds, mean validation loss, diverged runs; the test set was not read\n");
    fprintf(f,
            "# settings tried: adam %d, adaml2 %d, adamw %d; weight_decay 0 of the last two is adam's run\n",
            settings_of(s, ADAM), settings_of(s, ADAML2), settings_of(s, ADAMW));
    fprintf(f, "# %s: %s; tern %s, %s; %.0f s, %d runs side by side\n", "best settings",
            s->open_edge ? "ONE IS ON THE EDGE of the grid" : "none is on the edge of the grid", tn_version(),
            mode, s->seconds, s->how->side_by_side);
    fprintf(f, "optimizer\tlr\tweight_decay\tval_accuracy\tsd\tval_loss\tdiverged\tchosen\n");
    for (int k = 0; k < KINDS; k++)
        for (int i = 0; i < s->trials; i++)
            if (belongs(s, &s->at[i], k)) write_row(s, f, &s->at[i], k);
}

static const trial *find_trial(const study *s, int kind, double lr, double wd) {
    for (int i = 0; i < s->trials; i++)
        if (s->at[i].kind == (wd == 0 ? ADAM : kind) && s->at[i].lr == lr && s->at[i].wd == wd)
            return &s->at[i];
    return NULL;
}

static void print_cell(const study *s, FILE *f, int kind, double lr, double wd) {
    const trial *t = find_trial(s, kind, lr, wd);
    if (t) fprintf(f, " %5.2f%c", 100 * t->accuracy, t == best_of(s, kind) ? '*' : t->diverged ? '!' : ' ');
}

static void print_grid(const study *s, FILE *f, int kind) {
    fprintf(
        f, "\n%s: validation accuracy in %%, lr down, lambda across (*: best, !: runs diverged)\n%9s      0 ",
        NAMES[kind], "");
    for (int j = 0; j < s->wds[kind]; j++) fprintf(f, " %6.3g", s->wd[kind][j]);
    for (int i = 0; i < s->lrs; i++) {
        fprintf(f, "\n%9.3g", s->lr[i]);
        print_cell(s, f, kind, s->lr[i], 0);
        for (int j = 0; j < s->wds[kind]; j++) print_cell(s, f, kind, s->lr[i], s->wd[kind][j]);
    }
    fputc('\n', f);
}

static void print_study(const study *s, FILE *f) {
    fprintf(f, "Pilot of %s: %d seeds from %ld, %.0f s\n", s->model->name, s->plan->seeds,
            s->plan->first_seed, s->seconds);
    print_grid(s, f, ADAML2);
    print_grid(s, f, ADAMW);
    fputc('\n', f);
    for (int k = 0; k < KINDS; k++) {
        const trial *b = best_of(s, k);
        char spec[128];
        trial_spec(b, k, spec, sizeof spec);
        fprintf(f, "best of %2d  %-40s %.2f%%\n", settings_of(s, k), spec, 100 * b->accuracy);
    }
    if (s->open_edge)
        fprintf(f, "A best setting lies on the edge of the largest grid: the choice is not final.\n");
}

static int save_table(study *s, tn_err *e) {
    char path[CONFIG_PATH + COMPARE_LABEL + 32], *data = NULL;
    size_t n = 0;
    snprintf(path, sizeof path, "%s/%s_pilot.tsv", s->how->out, s->model->name);
    FILE *f = open_memstream(&data, &n);
    if (f) write_table(s, f);
    int bad = !f || fclose(f) ? tn_fail(e, "%s: not enough memory", path) : tn_write_file(path, data, n, e);
    free(data);
    if (!bad) print_study(s, stdout);
    if (!bad) printf("table: %s\n", path);
    return bad;
}

static void set_axis(double *axis, int *n, double *factor, grid_axis from) {
    *n = from.count;
    *factor = from.factor;
    for (int i = 0; i < from.count; i++) axis[i] = rounded(from.first * pow(from.factor, i));
}

int pilot_run(const plan *p, const pilot_options *how, data_cache *data, tn_err *e) {
    for (int m = 0; m < p->models; m++) {
        const preset *from = p->model[m].p;
        study *s = calloc(1, sizeof *s);
        if (!s) return tn_fail(e, "not enough memory for the pilot");
        *s = (study){.plan = p, .model = &p->model[m], .how = how, .data = data};
        double started = now_seconds();
        set_axis(s->lr, &s->lrs, &s->lr_factor, from->lr);
        set_axis(s->wd[ADAML2], &s->wds[ADAML2], &s->wd_factor[ADAML2], from->l2);
        set_axis(s->wd[ADAMW], &s->wds[ADAMW], &s->wd_factor[ADAMW], from->w);
        int code = explore(s, e);
        s->seconds = now_seconds() - started;
        if (!code) code = save_table(s, e);
        free(s);
        if (code) return code;
    }
    return 0;
}

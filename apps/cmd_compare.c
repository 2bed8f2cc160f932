/* SPDX-License-Identifier: MIT */
/* tern compare: the main job. Options, and the order in which the parts in compare_*.c do their work. */
#include "commands.h"
#include "compare.h"
#include "host.h"
#include "run_state.h"
#include "signals.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { TRAIN_MOST = 24, LIST = 4096 };
typedef struct {
    char data[CONFIG_PATH], models[LIST], optimizers[LIST], out[CONFIG_PATH], from[CONFIG_PATH];
    char train[TRAIN_MOST][CONFIG_SPEC]; /* options of training, as text: "" leaves them to the preset */
    char group[CONFIG_GROUPS][CONFIG_SPEC];
    long seeds, seed, jobs;
    double margin, level;
    int json, quiet, force, pilot, dry_run;
} options;

/* Their values are checked by the table of tern train; their defaults are the preset's. */
#define TRAIN(i, name, value, help) ARG_TEXT(options, train[i], name, value, "", help)
static const arg rows[] = {
    ARG_TEXT(options, models, "models", "LIST", "",
             "names or specs, separated by commas; default: every preset"),
    ARG_TEXT(options, optimizers, "optimizers", "LIST", "adam,adaml2,adamw",
             "names or specs; a name takes the pilot's choice, a spec is taken as it stands"),
    ARG_INT(options, seeds, "seeds", 12, 1, COMPARE_SEEDS, "pairs: seeds that every optimizer runs with"),
    ARG_INT(options, seed, "seed", 1, 0, 1000000000, "the first of them; --pilot: 1001"),
    ARG_TEXT(options, out, "out", "DIR", "runs/compare",
             "the runs, results.json and results.csv; --pilot: its table"),
    ARG_TEXT(options, data, "data", "WHERE", "",
             "directory of a data set, or synthetic:key=value; default: MNIST"),
    ARG_INT(options, jobs, "jobs", 0, 0, 256, "runs side by side; 0: one a core"),
    ARG_REAL(options, margin, "margin", 0.5, 0, 100,
             "points within which two are equivalent; default: the preset's"),
    ARG_REAL(options, level, "level", 0.95, 0.5, 0.9999, "confidence of the intervals"),
    ARG_TEXT(options, from, "from", "FILE", "",
             "train nothing: JSON, or CSV with columns model, optimizer, seed, value"),
    ARG_FLAG(options, pilot, "pilot",
             "choose lr and lambda on validation, with equal budgets; 4 seeds by default"),
    ARG_FLAG(options, dry_run, "dry-run", "show what would be trained, and train nothing"),
    ARG_FLAG(options, json, "json", "results as JSON on stdout"),
    ARG_FLAG(options, quiet, "quiet", "no progress"),
    ARG_FLAG(options, force, "force", "overwrite runs of other settings in --out"),
    TRAIN(0, "epochs", "N", "passes over the training images"),
    TRAIN(1, "batch", "N", "images that one optimizer step sees"),
    TRAIN(2, "schedule", "SPEC", "learning-rate schedule"),
    TRAIN(3, "train-size", "N", "train on a stratified subset of this size; 0: all"),
    TRAIN(4, "label-noise", "X", "share of training labels replaced by another class"),
    TRAIN(5, "val-size", "N", "training images kept for validation"),
    TRAIN(6, "normalize", "none|meanstd", "pixels in [0, 1], or with mean 0 and variance 1"),
    TRAIN(7, "label-smoothing", "X", "share of the target spread over all classes"),
    TRAIN(8, "clip-norm", "X", "largest norm of the gradient; 0: no limit"),
    TRAIN(9, "clip-value", "X", "largest absolute value in the gradient; 0: no limit"),
    TRAIN(10, "accumulate", "N", "parts that a batch is cut into"),
    TRAIN(11, "shuffle", "off|on", "new order of the training images in each epoch"),
    TRAIN(12, "drop-last", "off|on", "leave out an epoch's last, smaller batch"),
    TRAIN(13, "gemm", "auto|own|openblas", "kernels that multiply matrices"),
    TRAIN(14, "wd-schedule", "SPEC", "schedule of weight_decay, beside the rate's"),
    TRAIN(16, "loop", "SPEC", "plain, or sam:rho=0.05,...: a second gradient where the loss rises"),
    TRAIN(15, "on-nonfinite", "stop|skip", "a step whose loss or gradient is not finite"),
    ARG_MANY(options, group, "group", "PATTERN=SPEC", CONFIG_GROUPS,
             "as of tern train, for every optimizer: '*.bias=lr=1e-4'"),
    ARG_END,
};

static const char detail[] =
    "Without options: every model of the preset table, trained with adam, adaml2 and\n"
    "adamw under 12 paired seeds. Runs go side by side, one thread each. What is\n"
    "finished in --out is not repeated, what was interrupted goes on.\n"
    "\n"
    "  tern compare --models mlp --seeds 20\n"
    "  tern compare --optimizers adam,adamw:lr=1e-3,weight_decay=1 --out runs/one\n"
    "  tern compare --from results.csv --margin 0.2\n"
    "  tern compare --pilot --models mlp --out runs/pilot\n";

/* ---- The plan --------------------------------------------------------------------------------------------------- */

static int apply_training(const options *o, run_config *c, tn_err *e) {
    for (const arg *r = rows; r->name; r++) {
        const char *value = (const char *)o + r->offset;
        if (r->offset < offsetof(options, train) || r->offset >= offsetof(options, train) + sizeof o->train)
            continue;
        if (*value && training_set(c, r->name, value, e)) return -1;
    }
    memcpy(c->group, o->group, sizeof c->group);
    return 0;
}

/* Epochs x images against the preset's: good enough to order runs and to guess the time left. */
static double cost_of(const plan_model *m, const run_config *usual) {
    double images = (double)(m->base.train_size ? m->base.train_size : 55000) * (double)m->base.epochs;
    double normal = (double)(usual->train_size ? usual->train_size : 55000) * (double)usual->epochs;
    return (m->p ? m->p->seconds : 1) * images / normal;
}

static int follows_validation(const char *schedule) {
    tn_schedule *s = tn_schedule_new(schedule, NULL);
    int yes = s && tn_schedule_observes(s);
    tn_schedule_free(s);
    return yes;
}

static int plan_one(plan_model *m, const options *o, const args_rest *rest, const command *cmd,
                    const char *spec, tn_err *e) {
    char name[CONFIG_SPEC];
    const char *opts = tn_spec_split(spec, name, sizeof name);
    m->p = preset_find(name);
    const preset *p = m->p ? m->p : &presets[0];
    m->base = run_config_default();
    preset_training(p, &m->base);
    run_config usual = m->base;
    if (apply_training(o, &m->base, e)) return -1;
    snprintf(m->base.data, sizeof m->base.data, "%s", o->data);
    snprintf(m->base.model, sizeof m->base.model, "%s", m->p && !*opts ? m->p->model : spec);
    if (!follows_validation(m->base.schedule) && !follows_validation(m->base.wd_schedule))
        m->base.eval_every = 1000000000; /* validation at the end only: nothing depends on it in between */
    m->margin = args_given(cmd, rest, "margin") ? o->margin / 100 : p->margin;
    m->cost = cost_of(m, &usual);
    return 0;
}

static void plan_optimizer(plan_model *m, int i, const char *spec) {
    const char *chosen = m->p ? preset_optimizer(m->p, spec) : NULL;
    m->tuned[i] = chosen != NULL;
    snprintf(m->optimizer[i], CONFIG_SPEC, "%s", chosen ? chosen : spec);
}

static void all_presets(char *out, size_t cap) {
    size_t n = 0;
    for (const preset *p = presets; p->name && n < cap; p++)
        n += (size_t)snprintf(out + n, cap - n, "%s%s", n ? "," : "", p->name);
}

static int make_plan(const command *cmd, options *o, const args_rest *rest, plan *p, tn_err *e) {
    char model[COMPARE_MOST][CONFIG_SPEC], optim[COMPARE_MOST][CONFIG_SPEC],
        label[COMPARE_MOST][COMPARE_LABEL];
    if (!args_given(cmd, rest, "models")) all_presets(o->models, sizeof o->models);
    if ((p->models = split_specs(o->models, "models", model, e)) < 0) return -1;
    if ((p->optimizers = split_specs(o->optimizers, "optimizers", optim, e)) < 0) return -1;
    if (p->optimizers < 2 && !o->pilot)
        return tn_fail(e, "--optimizers: two at least, or there is nothing to compare");
    p->seeds = (int)(o->pilot && !args_given(cmd, rest, "seeds") ? 4 : o->seeds);
    p->first_seed = o->pilot && !args_given(cmd, rest, "seed") ? 1001 : o->seed;
    label_specs(p->optimizers, optim, p->label);
    label_specs(p->models, model, label);
    for (int m = 0; m < p->models; m++) {
        if (plan_one(&p->model[m], o, rest, cmd, model[m], e)) return -1;
        snprintf(p->model[m].name, COMPARE_LABEL, "%.*s", COMPARE_LABEL - 1, label[m]);
        for (int i = 0; i < p->optimizers; i++) plan_optimizer(&p->model[m], i, optim[i]);
        if (o->pilot && !p->model[m].p)
            return tn_fail(e, "--pilot: there is no preset for '%.80s'", model[m]);
    }
    return 0;
}

/* Every spec is tried before the first run starts, so that a slip shows at once. -1: go on; else the exit code. */
static int check_plan(const command *cmd, const plan *p, data_cache *data) {
    char id[17];
    tn_err e;
    for (int m = 0; m < p->models; m++)
        for (int i = 0; i < p->optimizers; i++) {
            run_config c = p->model[m].base;
            c.seed = p->first_seed;
            plan_optimizer_of(&c, p->model[m].optimizer[i]);
            const tn_dataset *set = data_cache_get(data, &c, &e);
            if (!set) return app_data_failed(cmd, c.data, &e);
            int code = run_identify(&c, set, id, &e);
            if (code) return code == -2 ? args_usage_error(cmd, "%s", e.msg) : args_failed(cmd, &e);
            if (!set->test.classes || !set->test.n)
                return args_usage_error(cmd, "--data: %s has no %s, so no accuracy to compare", set->name,
                                        set->test.n ? "classes" : "test samples");
        }
    return -1;
}

/* ---- Results ------------------------------------------------------------------------------------------------------- */

static result result_of(const job *j, const char *model, const char *optimizer) {
    const run_summary *s = &j->sum;
    int bad = s->status == RUN_DIVERGED;
    result r = {.seed = s->seed,
                .value = bad ? j->guess : s->test.accuracy,
                .diverged = bad,
                .train = s->train.accuracy,
                .val = s->val.accuracy,
                .loss = s->test.loss,
                .weight_norm = s->weight_norm,
                .never_lit_norm = s->never_lit_norm,
                .never_lit_start = s->never_lit_start,
                .never_lit = s->never_lit,
                .seconds = s->seconds};
    snprintf(r.model, sizeof r.model, "%s", model);
    snprintf(r.optimizer, sizeof r.optimizer, "%s", optimizer);
    snprintf(r.spec, sizeof r.spec, "%s", s->optimizer);
    snprintf(r.numeric, sizeof r.numeric, "%s", s->numeric);
    snprintf(r.id, sizeof r.id, "%s", s->id);
    return r;
}

/* Where lr and lambda come from, in a sentence. */
static void describe_source(const plan *p, const plan_model *m, char *out, size_t cap) {
    char tuned[LIST] = "", other[LIST] = "", training[CONFIG_SPEC], usual_text[CONFIG_SPEC];
    run_config usual = run_config_default();
    for (int i = 0; i < p->optimizers; i++) {
        char *to = m->tuned[i] ? tuned : other;
        snprintf(to + strlen(to), LIST - strlen(to), "%s%s", *to ? ", " : "", p->label[i]);
    }
    size_t n = 0;
    out[0] = 0;
    if (m->p) {
        preset_training(m->p, &usual);
        training_text(&m->base, training, sizeof training);
        training_text(&usual, usual_text, sizeof usual_text);
    }
    int same = m->p && !m->base.data[0] && strcmp(m->base.model, m->p->model) == 0
               && strcmp(training, usual_text) == 0;
    if (tuned[0])
        n = (size_t)snprintf(out, cap,
                             "lr and lambda of %s: the best on validation, after about as many settings "
                             "for each, in the pilot \"tern compare --pilot --models %s%s\"; its table is "
                             "%s%s%s%s.",
                             tuned, m->p->name, m->p->pilot_seeds, m->p->pilot,
                             same ? "" : ", which ran with the preset's settings, not with these",
                             m->p->note ? "; " : "", m->p->note ? m->p->note : "");
    if (other[0] && n < cap)
        snprintf(out + n, cap - n, "%slr and lambda of %s: as given or by default, without a pilot.",
                 n ? " " : "", other);
}

static comparison *gather(const plan *p, const options *o, const job *jobs, int n, tn_err *e) {
    comparison *c = comparison_new(n);
    if (!c) {
        tn_fail(e, "not enough memory for the results");
        return NULL;
    }
    c->level = o->level;
    for (int m = 0; m < p->models; m++) {
        const plan_model *from = &p->model[m];
        compared_model *to = &c->model[comparison_model(c, from->name, e)];
        to->margin = from->margin;
        snprintf(to->spec, sizeof to->spec, "%s", from->base.model);
        training_text(&from->base, to->training, sizeof to->training);
        describe_source(p, from, to->source, sizeof to->source);
    }
    for (int i = 0; i < p->optimizers; i++) comparison_optimizer(c, p->label[i], e);
    for (int m = 0; m < p->models; m++)
        for (int i = 0; i < p->optimizers; i++)
            for (int k = 0; k < n; k++) {
                char end[2 * COMPARE_LABEL + 32];
                snprintf(end, sizeof end, "%s %s seed %ld", p->model[m].name, p->label[i],
                         jobs[k].config.seed);
                if (strcmp(end, jobs[k].label) == 0)
                    c->result[c->results++] = result_of(&jobs[k], p->model[m].name, p->label[i]);
            }
    return c;
}

/* ---- The ways to go ---------------------------------------------------------------------------------------------------- */

static int show(const command *cmd, const options *o, comparison *c) {
    tn_err e;
    if (!o->json) {
        comparison_print(c, stdout);
        return EXIT_OK;
    }
    json_t *j = comparison_json(c);
    int bad = !j || json_dumpf(j, stdout, JSON_INDENT(2)) || putchar('\n') == EOF;
    json_decref(j);
    if (!bad) return EXIT_OK;
    tn_fail(&e, "cannot write the results to stdout");
    return args_failed(cmd, &e);
}

static int from_file(const command *cmd, const options *o, const args_rest *rest) {
    tn_err e;
    comparison *c = comparison_read(o->from, args_given(cmd, rest, "margin") ? o->margin / 100 : -1, &e);
    if (c) c->level = o->level;
    int code = !c || comparison_compute(c, &e) ? args_failed(cmd, &e) : show(cmd, o, c);
    comparison_free(c);
    return code;
}

static void warn_few_seeds(const plan *p, const options *o) {
    int needed = tn_signflip_pairs_needed(o->level);
    if (p->seeds >= needed || o->quiet) return;
    fprintf(stderr,
            "With %d seeds p < %.2g is impossible (the smallest two-sided p is 2/2^%d = %.4g): at least %d "
            "are needed\n",
            p->seeds, 1 - o->level, p->seeds, 2 / pow(2, p->seeds), needed);
}

static void show_plan(const plan *p, const options *o) {
    double seconds = 0;
    for (int m = 0; m < p->models; m++) {
        char training[CONFIG_SPEC], source[CONFIG_SPEC];
        training_text(&p->model[m].base, training, sizeof training);
        char head[3 * CONFIG_SPEC];
        snprintf(head, sizeof head, "%s: %s %s", p->model[m].name, p->model[m].base.model, training);
        args_wrapped(stdout, head, 0, 2);
        for (int i = 0; i < p->optimizers; i++)
            args_wrapped(stdout, p->model[m].optimizer[i], printf("  %-12s ", p->label[i]), 15);
        describe_source(p, &p->model[m], source, sizeof source);
        print_wrapped(stdout, source, 2);
        seconds += p->model[m].cost * p->optimizers * p->seeds;
    }
    printf("seeds %ld to %ld, %d runs in all", p->first_seed, p->first_seed + p->seeds - 1,
           p->models * p->optimizers * p->seeds);
    if (!o->data[0]) printf(", about %.0f s of one core", seconds);
    printf("; to %s\n", o->out);
}

static int stopped(const options *o, const job *jobs, int n, int sig) {
    int done = 0;
    for (int i = 0; i < n; i++) done += jobs[i].state == JOB_DONE;
    fprintf(stderr,
            "tern compare: stopped with %d of %d runs finished; the same command goes on (--out %s)\n", done,
            n, o->out);
    return 128 + sig;
}

static void say_start(int n, int kept, int side_by_side, const char *out) {
    fprintf(stderr, "%d runs to train, %d finished earlier; %d side by side, in %s\n", n - kept, kept,
            side_by_side, out);
}

static int train_all(const command *cmd, const options *o, const plan *p, data_cache *data, job *jobs,
                     int n) {
    tn_err e;
    double started = now_seconds();
    if (plan_look(jobs, n, o->force, data, &e)) return args_failed(cmd, &e);
    int kept = 0, side_by_side = o->jobs ? (int)o->jobs : host_cores();
    for (int i = 0; i < n; i++) kept += jobs[i].kept;
    if (!o->quiet) say_start(n, kept, side_by_side, o->out);
    int code = signal_stop ? signal_stop : pool_run(jobs, n, side_by_side, o->quiet, data, &e);
    if (code > 0) return stopped(o, jobs, n, code);
    if (code < 0) return args_failed(cmd, &e);
    comparison *c = gather(p, o, jobs, n, &e);
    if (c) {
        const tn_dataset *set = data_cache_get(data, &jobs[0].config, &e);
        c->seconds = now_seconds() - started;
        c->trained = n - kept;
        c->kept = kept;
        c->side_by_side = side_by_side;
        if (set) {
            c->test_n = set->test.n;
            snprintf(c->data, sizeof c->data, "%s", set->name);
            snprintf(c->data_hash, sizeof c->data_hash, "%s", set->data_hash);
        }
    }
    int bad = !c || comparison_compute(c, &e) || comparison_save(c, o->out, &e);
    code = bad ? args_failed(cmd, &e) : show(cmd, o, c);
    comparison_free(c);
    return code;
}

static int compare(const command *cmd, const options *o, const plan *p, data_cache *data) {
    tn_err e;
    int n, wrong = check_plan(cmd, p, data);
    if (wrong >= 0) return wrong;
    int lock = plan_lock(o->out, &e);
    job *jobs = lock < 0 ? NULL : plan_jobs(p, o->out, &n, &e);
    int code = jobs ? train_all(cmd, o, p, data, jobs, n) : args_failed(cmd, &e);
    free(jobs);
    return code;
}

static int dry_run(const command *cmd, const options *o, const plan *p, data_cache *data) {
    int wrong = check_plan(cmd, p, data);
    if (wrong >= 0) return wrong;
    show_plan(p, o);
    return EXIT_OK;
}

static int pilot(const command *cmd, const options *o, const plan *p, data_cache *data, int argc,
                 char **argv) {
    char line[2 * CONFIG_SPEC];
    tn_err e;
    pilot_options how = {o->jobs ? (int)o->jobs : host_cores(), o->quiet, o->out, line};
    int wrong = check_plan(cmd, p, data);
    if (wrong >= 0) return wrong;
    if (plan_directory(o->out, &e)) return args_failed(cmd, &e);
    size_t n = (size_t)snprintf(line, sizeof line, "tern compare");
    for (int i = 0; i < argc && n < sizeof line; i++)
        n += (size_t)snprintf(line + n, sizeof line - n, " %s", argv[i]);
    int code = pilot_run(p, &how, data, &e);
    if (code > 0)
        fprintf(stderr, "tern compare: the pilot was stopped; it does not go on, but starts anew\n");
    return code > 0 ? 128 + code : code < 0 ? args_failed(cmd, &e) : EXIT_OK;
}

static int listed(const char *const *names, const char *name) {
    for (; *names; names++)
        if (strcmp(*names, name) == 0) return 1;
    return 0;
}

/* Options that a way to go does not use are refused, not ignored. -1: go on; else the exit code. */
static int check_options(const command *cmd, const options *o, const args_rest *rest) {
    static const char *const for_from[] = {"from", "margin", "level", "json", "quiet", NULL};
    static const char *const not_for_pilot[] = {"from", "optimizers", "margin",  "level",
                                                "json", "force",      "dry-run", NULL};
    static const char *const not_for_dry_run[] = {"from", "json", "force", NULL};
    for (const arg *r = rows; r->name; r++) {
        if (!args_given(cmd, rest, r->name)) continue;
        if (o->from[0] && !listed(for_from, r->name))
            return args_usage_error(cmd, "--%s: has no meaning with --from", r->name);
        if (o->pilot && listed(not_for_pilot, r->name))
            return args_usage_error(cmd, "--%s: has no meaning with --pilot", r->name);
        if (o->dry_run && listed(not_for_dry_run, r->name))
            return args_usage_error(cmd, "--%s: has no meaning with --dry-run", r->name);
    }
    return -1;
}

static int run_compare(const command *cmd, int argc, char **argv) {
    args_rest rest;
    tn_err e;
    options *o = malloc(sizeof *o);
    plan *p = calloc(1, sizeof *p);
    data_cache *data = data_cache_new();
    int code;
    if (!o || !p || !data) {
        tn_fail(&e, "not enough memory");
        code = args_failed(cmd, &e);
    } else if ((code = args_parse(cmd, o, argc, argv, &rest)) < 0
               && (code = check_options(cmd, o, &rest)) < 0) {
        app_threads(1);
        signals_catch();
        if (o->from[0])
            code = from_file(cmd, o, &rest);
        else if (make_plan(cmd, o, &rest, p, &e))
            code = args_usage_error(cmd, "%s", e.msg);
        else if (o->dry_run)
            code = dry_run(cmd, o, p, data);
        else if (o->pilot)
            code = pilot(cmd, o, p, data, argc, argv);
        else
            warn_few_seeds(p, o), code = compare(cmd, o, p, data);
    }
    data_cache_free(data);
    free(p);
    free(o);
    return code;
}

const command cmd_compare = {
    .name = "compare",
    .summary = "Trains models with several optimizers under paired seeds, and says what differs.",
    .usage = "[options]",
    .detail = detail,
    .args = rows,
    .run = run_compare};

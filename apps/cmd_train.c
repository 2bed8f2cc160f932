/* SPDX-License-Identifier: MIT */
/* tern train: one run, with its head, progress and result. */
#include "commands.h"
#include "header.h"
#include "host.h"
#include "rundir.h"
#include "signals.h"
#include "terminal.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

typedef struct {
    run_config config;
    char from[CONFIG_PATH], out[CONFIG_PATH], resume[CONFIG_PATH];
    long threads, max_steps, checkpoint_every, log_decay;
    int force, quiet, json, profile;
    tn_profile *times; /* NULL: --profile was not given */
} train_options;

static const arg rows[] = {
    CONFIG_ARGS(train_options, config),
    ARG_TEXT(train_options, from, "config", "FILE", "",
             "take the configuration of a config.json; other options change it"),
    ARG_TEXT(train_options, out, "out", "DIR", "",
             "run directory; default: runs/ID, ID being a hash of all that counts"),
    ARG_TEXT(train_options, resume, "resume", "DIR", "",
             "go on with the run in this directory, by its own configuration"),
    ARG_INT(train_options, threads, "threads", 0, 0, 64,
            "threads, 64 at most; 0: one a core. Never changes a bit"),
    ARG_INT(train_options, max_steps, "max-steps", -1, -1, LONG_MAX,
            "stop after N steps of the run; -1: no limit"),
    ARG_INT(train_options, checkpoint_every, "checkpoint-every", 0, 0, LONG_MAX,
            "write a checkpoint every N steps; 0: after each epoch"),
    ARG_INT(
        train_options, log_decay, "log-decay", 0, 0, LONG_MAX,
        "every N steps, how much of each tensor's update was decay and how much gradient, into decay.csv and "
        "the log; 0: never"),
    ARG_FLAG(train_options, force, "force", "overwrite a run that the directory holds"),
    ARG_FLAG(train_options, quiet, "quiet", "no head and no progress, only the result"),
    ARG_FLAG(train_options, json, "json", "the result as JSON"),
    ARG_FLAG(train_options, profile, "profile", "show the time of each op, forward and backward, at the end"),
    ARG_END};

/* ---- Progress ------------------------------------------------------------------------------------------ */

typedef struct {
    int quiet;
    double shown, first; /* when the live line was last written; when the first step was done */
    long first_step;
} display;

static void val_text(const run *r, char *out, size_t cap) {
    out[0] = 0;
    if (!r->val.n) return;
    if (r->set->train.classes)
        snprintf(out, cap, "  val loss %.4f  val %.2f%%", r->val.loss, 100 * r->val.accuracy);
    else
        snprintf(out, cap, "  val loss %.6g", r->val.loss);
}

static void live_step(display *d, const run *r) {
    double now = now_seconds();
    char val[64], eta[24], rate[32];
    if (d->first == 0) d->first = now, d->first_step = r->step;
    if (now - d->shown < 0.1 || !term_live()) return;
    d->shown = now;
    double per_step = r->step > d->first_step ? (now - d->first) / (double)(r->step - d->first_step) : 0;
    duration_text(per_step * (double)(r->total - r->step), eta);
    count_text(r->step_seconds > 0 ? r->done_images / r->step_seconds : 0, rate);
    val_text(r, val, sizeof val);
    term_line("epoch %ld/%ld  step %ld/%ld  loss %.4f%s  %s images/s  ETA %s",
              (r->step - 1) / r->per_epoch + 1, r->config.epochs, r->step, r->total, r->last.loss, val, rate,
              eta);
}

static void epoch_line(const run *r, int whole) {
    char val[64], rate[32], penalty[40] = "", time[24];
    double p = run_penalty(r);
    if (p > 0) snprintf(penalty, sizeof penalty, "  penalty %.4f", p);
    val_text(r, val, sizeof val);
    count_text(r->step_seconds > 0 ? r->done_images / r->step_seconds : 0, rate);
    duration_text(now_seconds() - r->started, time);
    term_clear();
    fprintf(stderr, "epoch %ld/%ld%s  step %ld  loss %.4f%s%s  %s images/s  %s\n",
            (r->step - 1) / r->per_epoch + 1, r->config.epochs, whole ? "" : " (part)", r->step,
            r->epoch_loss / r->epoch_images, penalty, val, rate, time);
}

static void on_event(void *arg, const run *r, run_event event) {
    display *d = arg;
    if (d->quiet) return;
    switch (event) {
    case RUN_ON_START:
        header_print(stderr, r);
        break;
    case RUN_ON_STEP:
        live_step(d, r);
        break;
    case RUN_ON_EPOCH:
        epoch_line(r, r->step % r->per_epoch == 0);
        break;
    case RUN_ON_EVAL:
        epoch_line(r, 0);
        break;
    case RUN_ON_CHECKPOINT:
    case RUN_ON_LAST:
        break;
    case RUN_ON_WARNING:
        term_clear();
        fprintf(stderr, "%swarning%s: %s\n", term_color() ? "\033[33m" : "", term_color() ? "\033[0m" : "",
                run_warning(r));
        break;
    case RUN_ON_END:
        term_clear();
        break;
    }
}

/* ---- Result -------------------------------------------------------------------------------------------- */

static void score_line(const char *name, const score *s) {
    char n[32];
    if (!s->n) return;
    count_text(s->n, n);
    printf("%-6s loss %.6g", name, s->loss);
    if (!isnan(s->accuracy)) printf("  accuracy %.2f%%", 100 * s->accuracy);
    printf("  (%s images)\n", n);
}

static void show_result(const run_summary *s, const char *dir) {
    char rate[32], time[24];
    count_text(s->images_per_second, rate);
    duration_text(s->seconds, time);
    printf("%s at step %ld of %ld%s%s\n", run_status_word(s->status), s->steps, s->total,
           s->reason[0] ? ": " : "", s->reason);
    if (s->skipped)
        printf("%ld step%s left out, as loss or gradient were not finite\n", s->skipped,
               s->skipped == 1 ? "" : "s");
    score_line("train", &s->train);
    score_line("val", &s->val);
    score_line("test", &s->test);
    printf("weight norm %.6g", s->weight_norm);
    if (s->penalty > 0) printf(", penalty %.6g", s->penalty);
    if (!isnan(s->never_lit_norm))
        printf(", on the %d inputs never lit %.6g (%.6g at the start)", s->never_lit, s->never_lit_norm,
               s->never_lit_start);
    printf("\ntime %s, %s images/s in training steps, peak memory %.1f MiB\n", time, rate,
           (double)host_peak_kib() / 1024);
    printf("run %s\n", dir);
}

static int report(const train_options *o, const run_summary *s, const char *dir) {
    if (o->json) {
        json_t *j = run_summary_json(s);
        json_object_set_new(j, "dir", json_string(dir));
        json_object_set_new(j, "peak_kib", json_integer(host_peak_kib()));
        if (o->times) json_object_set_new(j, "profile", run_profile_json(o->times));
        json_dumpf(j, stdout, JSON_INDENT(2));
        putchar('\n');
        json_decref(j);
    } else {
        show_result(s, dir);
        if (o->times && tn_profile_seconds(o->times) > 0) printf("\n"), tn_profile_print(o->times, stdout);
    }
    fflush(stdout); /* before what stderr gets; main looks whether it worked */
    if (s->status == RUN_DIVERGED) {
        fprintf(stderr, "tern train: stopped: %s; %s keeps the last good checkpoint\n", s->reason, dir);
        return EXIT_FAILED;
    }
    if (s->status != RUN_INTERRUPTED) return EXIT_OK;
    fprintf(stderr, "tern train: interrupted; go on with: tern train --resume %s\n", dir);
    return 128 + (int)signal_stop;
}

/* ---- The command --------------------------------------------------------------------------------------- */

/* What was given on the command line over what base says. */
static void overlay(train_options *o, const args_rest *rest, const run_config *base) {
    train_options given = *o;
    o->config = *base;
    for (int i = 0; rows[i].name; i++)
        if (rest->given >> i & 1)
            memcpy((char *)o + rows[i].offset, (char *)&given + rows[i].offset,
                   rows[i].size * (size_t)(rows[i].count ? rows[i].count : 1));
    if (strcmp(given.config.init, base->init) != 0 && o->config.init[0]
        && !strcmp(o->config.init, given.config.init))
        o->config.init_hash[0] = 0;
}

static int base_config(train_options *o, const args_rest *rest, tn_err *e) {
    run_config base;
    if (o->resume[0]) {
        if (run_dir_config(o->resume, &base, e)) return -1;
    } else {
        base = run_config_default();
        json_t *j = json_from_file(o->from, e);
        const json_t *inner = j ? json_object_get(j, "config") : NULL;
        int bad = !j || run_config_from_json(&base, inner ? inner : j, o->from, e);
        json_decref(j);
        if (bad) return -1;
        base.init_hash[0] = 0;
    }
    overlay(o, rest, &base);
    return 0;
}

/*
 * A relative path would be another one after a cd, also in "images:DIR" and "images:DIR,key=value". What is not there
 * stays: it may be the name of a data set.
 */
static void absolute(char path[CONFIG_PATH]) {
    char full[2 * CONFIG_PATH], cwd[CONFIG_PATH], dir[CONFIG_PATH];
    struct stat st;
    const char *at = path, *colon = strchr(path, ':');
    int there = stat(path, &st) == 0;
    if (!there && colon) {
        at = colon + 1;
        snprintf(dir, sizeof dir, "%s", at);
        there = *dir && stat(dir, &st) == 0;
        dir[strcspn(dir, ",")] = 0;
        there = there || (*dir && stat(dir, &st) == 0);
    }
    if (!there || *at == '/' || !getcwd(cwd, sizeof cwd)) return;
    int n = snprintf(full, sizeof full, "%.*s%s/%s", (int)(at - path), path, cwd, at);
    if (n < CONFIG_PATH) memcpy(path, full, (size_t)n + 1);
}

static int train(const command *cmd, train_options *o, const tn_dataset *set) {
    tn_err e = {""};
    display d = {.quiet = o->quiet};
    run_summary sum;
    char id[17], there[17], dir[CONFIG_PATH];
    int code = run_identify(&o->config, set, id, &e);
    if (code == -2) return args_usage_error(cmd, "%s", e.msg);
    if (code) return args_failed(cmd, &e);
    if (o->resume[0] || o->out[0])
        snprintf(dir, sizeof dir, "%s", o->resume[0] ? o->resume : o->out);
    else
        snprintf(dir, sizeof dir, "runs/%s", id);
    if (o->resume[0] && run_dir_look(dir, there) == RUN_DIR_FINISHED && strcmp(id, there) == 0) {
        if (run_summary_read(dir, &sum, &e)) return args_failed(cmd, &e);
        if (!o->quiet) fprintf(stderr, "%s: has finished already; its result:\n", dir);
        return report(o, &sum, dir);
    }
    run_options how = run_options_default();
    how.dir = dir;
    how.resume = o->resume[0] != 0;
    how.force = o->force;
    how.max_steps = o->max_steps;
    how.checkpoint_every = o->checkpoint_every;
    how.log_decay = o->log_decay;
    how.on = on_event;
    how.arg = &d;
    how.stop = &signal_stop;
    how.save = &signal_save;
    how.profile = o->times;
    code = run_train(&o->config, set, &how, &sum, &e);
    term_clear();
    if (code == -2) return args_usage_error(cmd, "%s", e.msg);
    return code ? args_failed(cmd, &e) : report(o, &sum, dir);
}

static int run_command(const command *cmd, int argc, char **argv) {
    static train_options o; /* some 30 KB */
    args_rest rest;
    tn_err e;
    tn_dataset set;
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code >= 0) return code;
    if (o.resume[0] && o.out[0])
        return args_usage_error(cmd, "--out: --resume writes into the run's own directory");
    if (o.resume[0] && o.from[0])
        return args_usage_error(cmd, "--config: --resume takes the run's own configuration");
    if (o.resume[0] && o.force)
        return args_usage_error(cmd, "--force: --resume goes on with a run, it does not overwrite it");
    signals_catch();
    app_threads(o.threads);
    if ((o.resume[0] || o.from[0]) && base_config(&o, &rest, &e)) return args_failed(cmd, &e);
    absolute(o.config.data);
    absolute(o.config.init);
    if (run_open_data(&o.config, &set, &e)) return app_data_failed(cmd, o.config.data, &e);
    if (o.profile && !(o.times = tn_profile_new(&e)))
        code = args_failed(cmd, &e);
    else
        code = train(cmd, &o, &set);
    tn_profile_free(o.times);
    tn_dataset_free(&set);
    return code;
}

const command cmd_train = {"train",
                           "Train a model into a run directory.",
                           "[options]",
                           "A spec is name:key=value,key=value; list elements are separated by '/'.\n\n"
                           "  tern train\n"
                           "  tern train --model mlp:hidden=512/256 --epochs 20 \\\n"
                           "             --optimizer adamw:lr=1e-3,weight_decay=0.1 \\\n"
                           "             --schedule cosine:warmup=100 --out runs/mine\n"
                           "  tern train --resume runs/mine\n\n"
                           "The directory gets config.json, log.jsonl, metrics.csv, summary.json, test.npz\n"
                           "and last, best and resume.safetensors (best: only with validation images).\n"
                           "decay.csv of --log-decay: root mean square of a tensor's decay part, gradient\n"
                           "part and whole update and of its gradient, norm of its weights, update to\n"
                           "weights. A penalty (adaml2) is followed through the moments for the 64 steps\n"
                           "before a record; tracked says how many it were.\n"
                           "Ctrl-C ends the step, writes a checkpoint and stops; --resume then ends with\n"
                           "the same bits as a run that was never stopped. SIGUSR1 writes a checkpoint and\n"
                           "goes on.\n",
                           rows,
                           0,
                           run_command};

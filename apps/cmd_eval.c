/* SPDX-License-Identifier: MIT */
/* tern eval: loss and accuracy of saved weights, and their logits. */
#include "commands.h"
#include "npz.h"
#include "rundir.h"
#include "signals.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { TRAIN, VAL, TEST, ALL };
typedef struct {
    char checkpoint[CONFIG_PATH], logits[CONFIG_PATH];
    run_config config; /* model and the options of the data */
    long threads;
    int split, json;
} eval_options;

static const arg rows[] = {
    ARG_TEXT(eval_options, checkpoint, "checkpoint", "RUN|FILE", "",
             "a run (its last.safetensors) or a safetensors file"),
    ARG_WORD(eval_options, split, "split", "train|val|test|all", ALL, "part of the data to evaluate on"),
    ARG_TEXT(eval_options, logits, "logits", "FILE.npy", "",
             "write the model's outputs, in file order (--split test if not given)"),
    ARG_TEXT(eval_options, config.data, "data", "WHERE", "", "data set; default: that of the run, or MNIST"),
    ARG_TEXT(eval_options, config.model, "model", "SPEC", "", "model of a file that tern did not write"),
    ARG_INT(eval_options, config.val_size, "val-size", 5000, 0, INT_MAX,
            "training images kept for validation (of the run)"),
    ARG_INT(eval_options, threads, "threads", 0, 0, 64, "threads, 64 at most; 0: one a core"),
    ARG_FLAG(eval_options, json, "json", "as JSON"),
    ARG_END};

/* The configuration of the run that a file lies in, or defaults. */
static int find_config(eval_options *o, const args_rest *rest, const command *cmd, tn_err *e) {
    char dir[CONFIG_PATH], path[CONFIG_PATH + 32];
    struct stat st;
    snprintf(dir, sizeof dir, "%s", o->checkpoint);
    if (stat(dir, &st)) return tn_fail(e, "%s: no such run or file", dir);
    if (!S_ISDIR(st.st_mode)) {
        char *slash = strrchr(dir, '/');
        if (slash)
            slash[slash == dir] = 0;
        else
            strcpy(dir, ".");
    }
    snprintf(path, sizeof path, "%s/config.json", dir);
    run_config c = run_config_default();
    if (access(path, F_OK) == 0 && run_dir_config(dir, &c, e)) return -1;
    if (args_given(cmd, rest, "data")) strcpy(c.data, o->config.data);
    if (args_given(cmd, rest, "val-size")) c.val_size = o->config.val_size;
    snprintf(c.model, sizeof c.model, "%s", o->config.model);
    o->config = c;
    return 0;
}

static int check_shape(const weights_head *h, const tn_dataset *set, tn_err *e) {
    const tn_data *d = &set->test;
    int outputs = d->classes ? d->classes : d->targets;
    int same = h->shape.nd == d->nd && h->shape.outputs == outputs;
    for (int i = 0; same && i < d->nd; i++) same = h->shape.dim[i] == d->dim[i];
    return same
               ? 0
               : tn_fail(
                   e,
                   "%s: its model does not fit the data set %s (other shape of samples or number of outputs)",
                   h->path, set->name);
}

/* The model of the file with its weights, for this data. */
static tn_model *load(const eval_options *o, weights_head *h, tn_dataset *set, tn_err *e) {
    const tn_data *d = &set->test;
    char note[512] = "";
    if (!h->model[0]) {
        if (!o->config.model[0]) {
            tn_fail(e, "%s: says nothing of its model; name it with --model", h->path);
            return NULL;
        }
        h->shape =
            (tn_model_shape){d->nd, {d->dim[0], d->dim[1], d->dim[2]}, d->classes ? d->classes : d->targets};
        h->scale = d->scale;
        h->shift = d->shift;
    }
    if (check_shape(h, set, e)) return NULL;
    tn_model *m = tn_model_new(o->config.model[0] ? o->config.model : h->model, &h->shape, 0, e);
    if (m && tn_load_weights(h->path, m->params, note, sizeof note, e)) {
        tn_model_free(m);
        return NULL;
    }
    if (m && note[0]) fprintf(stderr, "tern eval: %s\n", note);
    tn_data *parts[] = {&set->train, &set->val, &set->test};
    for (int i = 0; i < 3; i++) parts[i]->scale = h->scale, parts[i]->shift = h->shift;
    if (set->data_hash[0] ? h->data_hash[0] && strcmp(h->data_hash, set->data_hash) != 0
                          : strcmp(h->test_hash, set->test_hash) != 0)
        fprintf(stderr, "tern eval: %s was trained on other data than these\n", h->path);
    return m;
}

static int write_logits(const char *path, const tn_model *m, const tn_data *d, const tn_real *x, tn_err *e) {
    const npy_array a = {"logits", sizeof *x == 8 ? 'd' : 'f', 2, {d->n, m->shape.outputs}, x};
    return npy_write(path, &a, e);
}

static int eval_part(const eval_options *o, const tn_model *m, tn_tape *t, const tn_data *d, score *s,
                     tn_err *e) {
    size_t n = (size_t)d->n * (size_t)m->shape.outputs;
    tn_real *x = o->logits[0] ? malloc(n * sizeof *x + 1) : NULL;
    if (o->logits[0] && !x) return tn_fail(e, "%s: not enough memory for the outputs", o->logits);
    *s = evaluate(m, t, d, x, NULL);
    int code = x ? write_logits(o->logits, m, d, x, e) : 0;
    free(x);
    return code;
}

static void show(const eval_options *o, const weights_head *h, const score s[3]) {
    static const char *const names[] = {"train", "val", "test"};
    json_t *j = json_pack("{s:s, s:s}", "checkpoint", h->path, "model",
                          o->config.model[0] ? o->config.model : h->model);
    for (int i = 0; i < 3; i++) {
        if (o->split != ALL && o->split != i) continue;
        if (!s[i].n) continue;
        json_t *one = json_pack("{s:o, s:o, s:i}", "loss", json_number(s[i].loss), "accuracy",
                                json_number(s[i].accuracy), "n", s[i].n);
        if (o->split == i) json_object_update(j, one);
        json_object_set_new(j, names[i], one);
        if (!o->json) {
            printf("%-6s loss %.6g", names[i], s[i].loss);
            if (!isnan(s[i].accuracy)) printf("  accuracy %.2f%%", 100 * s[i].accuracy);
            printf("  n %d\n", s[i].n);
        }
    }
    if (o->json) json_dumpf(j, stdout, JSON_INDENT(2)), putchar('\n');
    json_decref(j);
}

static int eval_set(const command *cmd, eval_options *o, weights_head *h, tn_dataset *set) {
    tn_err e;
    score s[3] = {{NAN, NAN, 0}, {NAN, NAN, 0}, {NAN, NAN, 0}};
    const tn_data *parts[] = {&set->train, &set->val, &set->test};
    tn_model *m = load(o, h, set, &e);
    tn_tape *t = m ? tn_tape_new(&e) : NULL;
    int bad = !t;
    if (!bad && o->split != ALL && !parts[o->split]->n)
        bad = tn_fail(&e, "--split: this part of the data set has no samples");
    for (int i = 0; i < 3 && !bad; i++)
        if (o->split == ALL || o->split == i) bad = eval_part(o, m, t, parts[i], &s[i], &e);
    if (!bad) show(o, h, s);
    tn_tape_free(t);
    tn_model_free(m);
    return bad ? args_failed(cmd, &e) : EXIT_OK;
}

static int run_command(const command *cmd, int argc, char **argv) {
    static eval_options o;
    args_rest rest;
    tn_err e;
    weights_head h;
    tn_dataset set;
    int code = args_parse(cmd, &o, argc, argv, &rest);
    if (code >= 0) return code;
    if (rest.n && o.checkpoint[0]) return args_usage_error(cmd, "unexpected argument '%.60s'", rest.plain[0]);
    if (rest.n) snprintf(o.checkpoint, sizeof o.checkpoint, "%s", rest.plain[0]);
    if (!o.checkpoint[0]) return args_usage_error(cmd, "--checkpoint: name a run or a safetensors file");
    if (o.logits[0] && !args_given(cmd, &rest, "split")) o.split = TEST;
    if (o.logits[0] && o.split == ALL)
        return args_usage_error(cmd, "--logits: needs --split train, val or test");
    app_threads(o.threads);
    if (find_config(&o, &rest, cmd, &e) || app_weights_head(o.checkpoint, &h, &e))
        return args_failed(cmd, &e);
    /* The file knows how its input is scaled and which test part it belongs to: then that is all to be read. */
    int test_only = o.split == TEST && h.model[0] && h.test_hash[0];
    int failed = test_only ? run_open_test_data(&o.config, &set, &e) : run_open_data(&o.config, &set, &e);
    code = failed ? app_data_failed(cmd, o.config.data, &e) : eval_set(cmd, &o, &h, &set);
    tn_dataset_free(&set);
    app_weights_head_free(&h);
    return code;
}

const command cmd_eval = {"eval",
                          "Evaluate saved weights: loss and accuracy on each part of a data set.",
                          "--checkpoint RUN|FILE [options]",
                          "The data options of the run that the checkpoint lies in are taken as they are.\n",
                          rows,
                          1,
                          run_command};

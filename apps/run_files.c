/* SPDX-License-Identifier: MIT */
/*
 * What a run writes and reads: checkpoints with their metadata, its configuration, the test set's
 * predictions.
 */
#include "host.h"
#include "npz.h"
#include "run_state.h"
#include "rundir.h"
#include "safetensors.h"
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static json_t *hex_json(double v) {
    char text[64];
    snprintf(text, sizeof text, "%a", v);
    return json_string(text);
}

/* ---- Checkpoints --------------------------------------------------------------------------------------- */

static json_t *schedule_state(tn_schedule *s) {
    int n = 0;
    const double *state = s ? tn_schedule_state(s, &n) : NULL;
    json_t *list = json_array();
    for (int i = 0; i < n; i++) json_array_append_new(list, hex_json(state[i]));
    return list;
}

/* Nothing in here may differ between equal runs: no time, no path, no host. */
static char *state_meta(const run *r) {
    json_t *j =
        json_pack("{s:s, s:I, s:O, s:o, s:o, s:o, s:I, s:o}", "id", r->sum.id, "step", (json_int_t)r->step,
                  "config", r->identity, "epoch_loss", hex_json(r->epoch_loss), "epoch_images",
                  hex_json(r->epoch_images), "best_val", hex_json(r->sum.best_val), "best_step",
                  (json_int_t)r->sum.best_step, "never_lit_start", hex_json(r->sum.never_lit_start));
    if (j && r->skipped) {
        json_object_set_new(j, "skipped", json_integer(r->skipped));
        json_object_set_new(j, "skipped_in_row", json_integer(r->skipped_in_row));
    }
    if (j && tn_schedule_observes(r->schedule))
        json_object_set_new(j, "schedule_state", schedule_state(r->schedule));
    if (j && r->wd_schedule && tn_schedule_observes(r->wd_schedule))
        json_object_set_new(j, "wd_schedule_state", schedule_state(r->wd_schedule));
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    json_decref(j);
    return text;
}

typedef struct {
    char text[6 * CONFIG_SPEC + 80 * 1024]; /* room for the names of 1,000 classes */
    size_t n;
} pairs;

static void pair(pairs *p, const char *key, const char *fmt, ...) TN_PRINTF(3, 4);
static void pair(pairs *p, const char *key, const char *fmt, ...) {
    char value[CONFIG_SPEC];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(value, sizeof value, fmt, ap);
    va_end(ap);
    size_t a = strlen(key) + 1, b = strlen(value) + 1;
    if (p->n + a + b + 1 > sizeof p->text) return;
    memcpy(p->text + p->n, key, a);
    memcpy(p->text + p->n + a, value, b);
    p->text[p->n += a + b] = 0;
}

/* The names of the classes, for tern predict: tern.class.0 and so on. */
static void pair_classes(pairs *p, const tn_dataset *set) {
    for (int i = 0; set->class_name && i < set->train.classes; i++) {
        char key[32];
        snprintf(key, sizeof key, "tern.class.%d", i);
        pair(p, key, "%s", set->class_name[i]);
    }
}

/* What tern eval needs to rebuild the model and its input from this file alone. */
static int save_weights(run *r, const char *file, tn_err *e) {
    const tn_data *d = &r->set->train;
    pairs p = {.n = 0};
    char shape[64] = "";
    for (int i = 0; i < d->nd; i++)
        snprintf(shape + strlen(shape), sizeof shape - strlen(shape), "%s%d", i ? "x" : "", d->dim[i]);
    pair(&p, "tern.version", "%s", tn_version());
    pair(&p, "tern.model", "%s", r->config.model);
    pair(&p, "tern.input", "%s", shape);
    pair(&p, "tern.outputs", "%d", r->model->shape.outputs);
    pair(&p, "tern.scale", "%a", d->scale);
    pair(&p, "tern.shift", "%a", d->shift);
    pair(&p, "tern.data", "%s", r->set->name);
    pair(&p, "tern.data_hash", "%s", r->set->data_hash);
    if (r->set->test_hash[0]) pair(&p, "tern.test_hash", "%s", r->set->test_hash);
    pair(&p, "tern.run", "%s", r->sum.id);
    pair(&p, "tern.step", "%ld", r->step);
    pair_classes(&p, r->set);
    run_eval_weights(r, 1);
    int code = tn_save_weights(rundir_path(r->files, file), r->model->params, p.text, e);
    run_eval_weights(r, 0);
    return code;
}

int run_save(run *r, tn_err *e) {
    if (r->files) {
        if (save_weights(r, "last.safetensors", e) || run_decay_save(r, e)) return -1;
        char *meta = state_meta(r);
        if (!meta) return tn_fail(e, "not enough memory for a checkpoint");
        int bad =
            tn_save_state(rundir_path(r->files, "resume.safetensors"), r->model->params, r->optim, meta, e);
        free(meta);
        if (bad || rundir_event(r->files, "checkpoint", json_pack("{s:I}", "step", (json_int_t)r->step), e))
            return -1;
    }
    r->saved_step = r->step;
    return 0;
}

int run_save_best(run *r, tn_err *e) {
    return r->files ? save_weights(r, "best.safetensors", e) : 0;
}

json_t *run_read_meta(const char *path, tn_err *e) {
    st_file f;
    json_t *j = NULL;
    if (!tn_st_open(&f, path, e)) {
        json_error_t why;
        const char *text = f.meta ? json_string_value(json_object_get(f.meta, "tern.meta")) : NULL;
        if (!text)
            tn_fail(e, "%s: is not a state to resume from", path);
        else if (!(j = json_loads(text, JSON_REJECT_DUPLICATES, &why)))
            tn_fail(e, "%s: bad metadata: %s", path, why.text);
    }
    tn_st_close(&f);
    return j;
}

/* ---- Configuration ------------------------------------------------------------------------------------- */

int run_save_config(run *r, tn_err *e) {
    if (!r->files) return 0;
    json_t *j =
        json_pack("{s:s, s:o, s:o, s:o}", "id", r->sum.id, "config", run_config_json(&r->config, 1), "data",
                  json_pack("{s:s, s:s, s:s, s:s}", "name", r->set->name, "data_hash", r->set->data_hash,
                            "split_hash", r->set->split_hash, "train_hash", r->set->train.hash),
                  "host", host_json());
    return rundir_json(r->files, "config.json", j, e);
}

int run_dir_config(const char *dir, run_config *c, tn_err *e) {
    char path[CONFIG_PATH + 32];
    *c = run_config_default();
    snprintf(path, sizeof path, "%s/config.json", dir);
    int have = access(path, F_OK) == 0;
    json_t *j = have ? json_from_file(path, e) : NULL;
    int bad = have && (!j || run_config_from_json(c, json_object_get(j, "config"), path, e));
    json_decref(j);
    if (bad) return -1;
    snprintf(path, sizeof path, "%s/resume.safetensors", dir);
    if (access(path, F_OK))
        return have ? 0 : tn_fail(e, "%s: no run to go on with (no config.json in it)", dir);
    if (!(j = run_read_meta(path, e))) return -1;
    /* the state knows best, but not where data and plug-ins lie; and it knows more than a configuration has */
    static const char *const others[] = {"data_hash", "split_hash", "train_hash", "numeric_mode"};
    static const char *const placed[] = {"optimizer", "group"};
    json_t *config = json_deep_copy(json_object_get(j, "config"));
    for (int i = 0; i < 4 && config; i++) json_object_del(config, others[i]);
    if (have && json_object_get(config, "plugin_hash"))
        for (int i = 0; i < 2; i++) json_object_del(config, placed[i]);
    bad = run_config_from_json(c, config, path, e);
    json_decref(config);
    json_decref(j);
    return bad;
}

/* ---- The test set's predictions ------------------------------------------------------------------------ */

int run_save_test(run *r, const int *predicted, const tn_real *outputs, tn_err *e) {
    const tn_data *d = &r->set->test;
    const char *path = rundir_path(r->files, "test.npz");
    const char real = sizeof(tn_real) == 8 ? 'd' : 'f';
    if (!d->classes) {
        const npy_array a[] = {{"prediction", real, 2, {d->n, d->targets}, outputs},
                               {"target", 'f', 2, {d->n, d->targets}, d->target}};
        return npz_write(path, 2, a, e);
    }
    const npy_array a[] = {{"prediction", 'i', 1, {d->n, 0}, predicted},
                           {"label", 'i', 1, {d->n, 0}, d->label}};
    return npz_write(path, 2, a, e);
}

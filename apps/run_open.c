/* SPDX-License-Identifier: MIT */
/* Everything before the first step: specs become objects, the configuration its resolved form and its id. */
#include "decay.h"
#include "host.h"
#include "run_state.h"
#include "rundir.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

int hash_file(const char *path, char hex[65], tn_err *e) {
    unsigned char chunk[1 << 14];
    FILE *f = fopen(path, "rb");
    if (!f) return tn_fail(e, "%s: cannot open: %s", path, strerror(errno));
    tn_sha256 h;
    tn_sha256_begin(&h);
    for (size_t n; (n = fread(chunk, 1, sizeof chunk, f)) > 0;) tn_sha256_add(&h, chunk, n);
    int bad = ferror(f) ? tn_fail(e, "%s: cannot read: %s", path, strerror(errno)) : 0;
    fclose(f);
    tn_sha256_end(&h, hex);
    return bad;
}

tn_tick run_tick(const run *r, long step) {
    return (tn_tick){.t = step + 1 - r->skipped,
                     .total = r->total,
                     .steps_per_epoch = r->per_epoch,
                     .batch = (int)r->config.batch,
                     .images = r->set->train.n,
                     .lr_mul = tn_schedule_mul(r->schedule, step, r->total),
                     .wd_mul = r->wd_schedule ? tn_schedule_mul(r->wd_schedule, step, r->total) : 1,
                     .seed = (uint64_t)r->config.seed};
}

/* ---- Model, optimizer, schedule ------------------------------------------------------------------------ */

static int open_groups(run *r, tn_err *e) {
    for (int i = 0; i < CONFIG_GROUPS && r->config.group[i][0]; i++) {
        char pattern[CONFIG_SPEC], *g = r->config.group[i];
        size_t len = strcspn(g, "=:");
        if (!len || !g[len] || !g[len + 1])
            return tn_fail(
                e,
                "--group %.80s: must be PATTERN=option=value,... or PATTERN=NAME:option=value,..., "
                "such as '*.bias=lr=1e-4' or '*.bias=sgd:lr=0.1'",
                g);
        g[len] = '='; /* one form for the record */
        snprintf(pattern, sizeof pattern, "%.*s", (int)len, g);
        if (tn_optim_group(r->optim, pattern, g + len + 1, e)) return -1;
    }
    return 0;
}

static int decays_anything(const run *r) {
    int penalty, found = 0;
    for (int i = 0; i < tn_params_count(r->model->params); i++)
        found |= decay_lambda(r, tn_params_at(r->model->params, i), &penalty) != 0;
    return found;
}

/* A schedule that follows the validation loss has to hear some. */
static int check_observer(const run *r, const tn_schedule *s, const char *option, tn_err *e) {
    const run_config *c = &r->config;
    if (!s || !tn_schedule_observes(s)) return 0;
    if (!r->set->val.n)
        return tn_fail(e,
                       "--%s: it follows the validation loss, and there are no validation images: give "
                       "--val-size 1 or more",
                       option);
    if (c->eval_every >= r->total)
        return tn_fail(
            e, "--%s: it follows the validation loss, and --eval-every %ld comes to none in %ld steps",
            option, c->eval_every, r->total);
    return 0;
}

/* wd_schedule stays NULL where it changes nothing. */
static int open_schedules(run *r, tn_err *e) {
    run_config *c = &r->config;
    if (!(r->schedule = tn_schedule_new(c->schedule, e))) return -1;
    tn_schedule *wd = r->wd_schedule = tn_schedule_new(c->wd_schedule, e);
    if (!wd || check_observer(r, r->schedule, "schedule", e) || check_observer(r, wd, "wd-schedule", e))
        return -1;
    if (tn_schedule_text(r->schedule, c->schedule, sizeof c->schedule) < 0
        || tn_schedule_text(wd, c->wd_schedule, sizeof c->wd_schedule) < 0)
        return tn_fail(e, "a specification is longer than %d bytes", CONFIG_SPEC - 1);
    if (strcmp(c->wd_schedule, "constant:warmup=0") != 0) return 0;
    tn_schedule_free(wd);
    r->wd_schedule = NULL;
    return 0;
}

/* usage is 1 while what may go wrong is what the user wrote, not a file or the memory. */
static int open_parts(run *r, tn_err *e) {
    run_config *c = &r->config;
    const tn_data *d = &r->set->train;
    tn_model_shape shape = {d->nd, {d->dim[0], d->dim[1], d->dim[2]}, d->classes ? d->classes : d->targets};
    r->usage = 1;
    if (tn_augment_parse(c->augment, &r->augment, e) || tn_augment_check(&r->augment, d, e)) return -1;
    if (!(r->model = tn_model_new(c->model, &shape, (uint64_t)c->seed, e))) return -1;
    if (open_schedules(r, e)) return -1;
    r->usage = 0;
    if (c->init[0] && !r->skip_init && tn_load_weights(c->init, r->model->params, r->note, sizeof r->note, e))
        return -1;
    r->usage = 1;
    if (!(r->optim = tn_optim_new(r->model->params, c->optimizer, e)) || open_groups(r, e)) return -1;
    if (r->wd_schedule && !decays_anything(r))
        return tn_fail(e, "--wd-schedule %s: no tensor decays, as the optimizer is %s; give it weight_decay",
                       c->wd_schedule, c->optimizer);
    r->usage = 0;
    if (!(r->tape = tn_tape_new(e)) || !(r->eval_tape = tn_tape_new(e))) return -1;
    return 0;
}

static int resolve_texts(run *r, tn_err *e) {
    run_config *c = &r->config;
    if (tn_model_text(r->model, c->model, sizeof c->model) < 0
        || tn_optim_text(r->optim, c->optimizer, sizeof c->optimizer) < 0)
        return tn_fail(e, "a specification is longer than %d bytes", CONFIG_SPEC - 1);
    c->augment[0] = 0;
    if (tn_augment_any(&r->augment)
        && tn_opts_text(tn_augment_options(), &r->augment, 0, c->augment, sizeof c->augment) < 0)
        return tn_fail(e, "a specification is longer than %d bytes", CONFIG_SPEC - 1);
    snprintf(c->gemm, sizeof c->gemm, "%s", tn_gemm_backend_name());
    return run_plugins_resolve(r, e);
}

static int open_loop(run *r, tn_err *e) {
    const run_config *c = &r->config;
    tn_step_options o = {(int)c->accumulate, c->clip_norm, c->clip_value};
    char name[TN_MAX_NAME], text[CONFIG_SPEC - 8];
    const char *options = tn_spec_split(c->loop, name, sizeof name);
    if (strcmp(name, "plain") == 0 && !*options)
        return (r->stepper = tn_stepper_new(r->model->params, r->optim, &o, e)) ? 0 : -1;
    r->usage = 1;
    if (strcmp(name, "sam") != 0)
        return tn_fail(e, "--loop %.80s: must be plain or sam:rho=0.05,...", c->loop);
    if (!(r->sam = tn_sam_new(r->model->params, r->optim, options, &o, e))) return -1;
    r->usage = 0;
    if (tn_sam_text(r->sam, text, sizeof text) < 0)
        return tn_fail(e, "--loop: longer than %zu bytes", sizeof text);
    snprintf(r->config.loop, sizeof r->config.loop, "sam:%s", text);
    return 0;
}

static int plan_steps(run *r, tn_err *e) {
    const run_config *c = &r->config;
    int n = r->set->train.n;
    r->usage = 1;
    if (c->accumulate > c->batch)
        return tn_fail(e, "--accumulate %ld: a batch of %ld cannot be cut into so many parts", c->accumulate,
                       c->batch);
    if (c->label_smoothing > 0 && !r->set->train.classes)
        return tn_fail(e, "--label-smoothing: the data set is a regression; it has no classes");
    r->per_epoch = tn_steps_per_epoch(n, (int)c->batch, c->drop_last);
    if (r->per_epoch < 1)
        return tn_fail(
            e, "--drop-last on: no step is left, the batch of %ld is larger than the %d training images",
            c->batch, n);
    r->total = c->epochs * r->per_epoch;
    r->usage = 0;
    return 0;
}

/* ---- Identity ------------------------------------------------------------------------------------------ */

static int make_identity(run *r, tn_err *e) {
    char mode[64], hex[65];
    host_numeric_mode(mode, sizeof mode);
    run_config c = r->config;
    if (run_plugins_identity(r, &c, e)) return -1;
    json_t *j = r->identity = run_config_json(&c, 0);
    int bad = !j || json_object_set_new(j, "data_hash", json_string(r->set->data_hash))
              || json_object_set_new(j, "split_hash", json_string(r->set->split_hash))
              || json_object_set_new(j, "train_hash", json_string(r->set->train.hash))
              || json_object_set_new(j, "numeric_mode", json_string(mode));
    char *text = bad ? NULL : json_dumps(j, JSON_COMPACT | JSON_SORT_KEYS);
    if (!text) return tn_fail(e, "not enough memory, or a specification that is not UTF-8");
    tn_sha256 h;
    tn_sha256_begin(&h);
    tn_sha256_add(&h, text, strlen(text));
    tn_sha256_end(&h, hex);
    free(text);
    snprintf(r->sum.id, sizeof r->sum.id, "%.16s", hex);
    snprintf(r->sum.numeric, sizeof r->sum.numeric, "%s", mode);
    return 0;
}

static void describe(run *r) {
    run_summary *s = &r->sum;
    snprintf(s->model, sizeof s->model, "%s", r->config.model);
    snprintf(s->optimizer, sizeof s->optimizer, "%s", r->config.optimizer);
    snprintf(s->schedule, sizeof s->schedule, "%s", r->config.schedule);
    s->seed = r->config.seed;
    s->total = r->total;
    s->epochs = r->config.epochs;
    s->parameters = tn_params_total(r->model->params);
    s->best_val = s->never_lit_norm = s->never_lit_start = NAN;
    s->train = s->val = s->test = (score){NAN, NAN, 0};
}

static int open_buffers(run *r, tn_err *e) {
    const tn_data *d = &r->set->train;
    r->order = malloc((size_t)d->n * sizeof *r->order);
    r->labels = malloc((size_t)(d->n < r->config.batch ? d->n : r->config.batch) * sizeof *r->labels);
    r->never_lit = malloc(d->len);
    if (!r->order || !r->labels || !r->never_lit) return tn_fail(e, "not enough memory for a run");
    r->order_epoch = -1;
    r->saved_step = -1;
    r->sum.never_lit = tn_never_lit(d, r->never_lit);
    return 0;
}

int run_open(run *r, const run_config *c, const tn_dataset *set, tn_err *e) {
    r->config = *c;
    r->set = set;
    if (strcmp(c->gemm, "auto") != 0 && tn_gemm_backend(c->gemm, e)) return -1;
    if (c->init[0] && !c->init_hash[0] && hash_file(c->init, r->config.init_hash, e)) return -1;
    if (plan_steps(r, e) || open_parts(r, e) || resolve_texts(r, e) || open_loop(r, e)) return -1;
    describe(r);
    return make_identity(r, e) || open_buffers(r, e);
}

void run_close(run *r) {
    rundir_close(r->files);
    json_decref(r->identity);
    free(r->order);
    free(r->labels);
    free(r->never_lit);
    tn_stepper_free(r->stepper);
    tn_sam_free(r->sam);
    tn_tape_free(r->tape);
    tn_tape_free(r->eval_tape);
    tn_schedule_free(r->schedule);
    tn_schedule_free(r->wd_schedule);
    tn_decay_report_free(r->report);
    tn_optim_free(r->optim);
    tn_model_free(r->model);
}

int run_identify(const run_config *c, const tn_dataset *set, char id[17], tn_err *e) {
    run *r = calloc(1, sizeof *r);
    if (!r) return tn_fail(e, "not enough memory for a run");
    r->skip_init = 1;
    int bad = run_open(r, c, set, e) ? (r->usage ? -2 : -1) : 0;
    if (!bad && id) strcpy(id, r->sum.id);
    run_close(r);
    free(r);
    return bad;
}

/* ---- Going on ------------------------------------------------------------------------------------------ */

static int uses_total(const tn_schedule *s) {
    return s && tn_schedule_uses_total(s);
}

/* An option that is a share of the planned steps. */
static int planned_share(const tn_optim_def *def, const void *hp) {
    for (const tn_opt *o = def->hp; o->name; o++)
        if (o->type == TN_REAL_OPT && o->flags & TN_PLANNED
            && *(const double *)((const char *)hp + o->offset) != 0)
            return 1;
    return 0;
}

/* Does anything between here and the weights depend on the planned length? */
static int depends_on_total(const run *r) {
    const tn_optim_def *def;
    const void *hp;
    if (uses_total(r->schedule) || uses_total(r->wd_schedule)) return 1;
    for (int i = 0; i < tn_params_count(r->model->params); i++) {
        const tn_param *p = tn_params_at(r->model->params, i);
        def = tn_optim_definition_of(r->optim, p), hp = tn_optim_options(r->optim, p);
        tn_tick a = run_tick(r, 0), b = a;
        b.total = 4 * a.total;
        if (planned_share(def, hp) || (def->shrink && def->shrink(hp, &a) != def->shrink(hp, &b))) return 1;
    }
    for (int i = 0; (def = tn_optim_wrapper(r->optim, i, &hp)); i++)
        if (planned_share(def, hp)) return 1;
    return 0;
}

static void show_value(const json_t *j, char *out, size_t cap) {
    char *text = json_dumps(j, JSON_ENCODE_ANY | JSON_COMPACT);
    snprintf(out, cap, "%s", !text ? "nothing" : json_is_string(j) ? json_string_value(j) : text);
    free(text);
}

/* Every key of the run's own configuration against the one that goes on. */
static int check_identity(run *r, const json_t *old, const char *path, tn_err *e) {
    const char *key;
    json_t *now;
    json_object_foreach(r->identity, key, now) {
        const json_t *was = json_object_get(old, key);
        char name[64], before[200], after[200];
        if (was && json_equal((json_t *)was, now)) continue;
        show_value(was, before, sizeof before);
        show_value(now, after, sizeof after);
        snprintf(name, sizeof name, "%s", key);
        for (char *p = name; *p; p++)
            if (*p == '_') *p = '-';
        if (strcmp(key, "epochs") == 0 && !depends_on_total(r)) continue;
        if (strcmp(key, "on_nonfinite") == 0 && r->config.skip_nonfinite) continue; /* until now the same */
        r->usage = !strstr(key, "_hash") && strcmp(key, "numeric_mode") != 0;
        if (strcmp(key, "epochs") == 0)
            return tn_fail(
                e,
                "%s: --epochs %s was planned and %s asked for, but %s depends on the planned length: start a "
                "new run, or use --schedule constant from the start",
                path, before, after,
                uses_total(r->schedule)      ? "its schedule"
                : uses_total(r->wd_schedule) ? "its schedule of weight decay"
                                             : "its optimizer");
        if (strcmp(key, "plugin_hash") == 0)
            return tn_fail(
                e,
                "%s: its optimizer was loaded from a file that has changed since (%s): put the old "
                "one back, or start a new run",
                path, r->config.optimizer);
        if (strstr(key, "_hash"))
            return tn_fail(e, "%s: its run saw other data (%s differs): name the right ones with --data",
                           path, name);
        if (strcmp(key, "numeric_mode") == 0)
            return tn_fail(e, "%s: its run computed with %s, this one would with %s: bits would differ", path,
                           before, after);
        return tn_fail(e, "%s: its run has --%s %s; --%s %s contradicts it", path, name, before, name, after);
    }
    return 0;
}

static double hex_number(const json_t *j, const char *key) {
    const char *s = json_string_value(json_object_get(j, key));
    return s ? strtod(s, NULL) : NAN;
}

static int restore_schedule(tn_schedule *s, const json_t *list, const char *path, tn_err *e) {
    int n = 0;
    double *state = s ? tn_schedule_state(s, &n) : NULL;
    if ((int)json_array_size(list) != n) return tn_fail(e, "%s: holds no state of its schedule", path);
    for (int i = 0; i < n; i++) {
        const char *text = json_string_value(json_array_get(list, (size_t)i));
        state[i] = text ? strtod(text, NULL) : NAN;
    }
    return 0;
}

static int restore_meta(run *r, const json_t *j, const char *path, tn_err *e) {
    const json_t *step = json_object_get(j, "step"), *best = json_object_get(j, "best_step");
    if (!json_is_integer(step) || !json_is_integer(best) || json_integer_value(step) < 0)
        return tn_fail(e, "%s: holds no step to go on from", path);
    if (check_identity(r, json_object_get(j, "config"), path, e)) return -1;
    r->step = r->saved_step = (long)json_integer_value(step);
    if (r->step > r->total)
        return tn_fail(e, "%s: is at step %ld, beyond the %ld planned ones", path, r->step, r->total);
    r->skipped = (long)json_integer_value(json_object_get(j, "skipped"));
    r->skipped_in_row = (long)json_integer_value(json_object_get(j, "skipped_in_row"));
    if (r->skipped < 0 || r->skipped > r->step)
        return tn_fail(e, "%s: %ld steps left out of %ld", path, r->skipped, r->step);
    r->sum.best_step = (long)json_integer_value(best);
    r->sum.best_val = hex_number(j, "best_val");
    r->sum.never_lit_start = hex_number(j, "never_lit_start");
    r->epoch_loss = hex_number(j, "epoch_loss");
    r->epoch_images = hex_number(j, "epoch_images");
    if (restore_schedule(r->schedule, json_object_get(j, "schedule_state"), path, e)
        || restore_schedule(r->wd_schedule, json_object_get(j, "wd_schedule_state"), path, e))
        return -1;
    r->resumed = 1;
    return 0;
}

int run_restore(run *r, const char *dir, tn_err *e) {
    char path[CONFIG_PATH + 32];
    struct stat st;
    snprintf(path, sizeof path, "%s/resume.safetensors", dir);
    if (stat(path, &st) && errno == ENOENT)
        return 0; /* stopped before its first checkpoint: from the start */
    json_t *j = run_read_meta(path, e);
    int bad = !j || restore_meta(r, j, path, e) || tn_load_state(path, r->model->params, r->optim, NULL, e);
    json_decref(j);
    return bad ? -1 : 0;
}

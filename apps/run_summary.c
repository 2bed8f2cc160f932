/* SPDX-License-Identifier: MIT */
/* The summary of a run as JSON and back, and what a run directory holds. */
#include "run.h"
#include "rundir.h"
#include <math.h>
#include <string.h>
#include <unistd.h>

static json_t *score_json(const score *s) {
    if (!s->n) return json_null();
    return json_pack("{s:o, s:o, s:i}", "loss", json_number(s->loss), "accuracy", json_number(s->accuracy),
                     "n", s->n);
}

json_t *run_summary_json(const run_summary *s) {
    json_t *j = json_object();
    json_object_set_new(j, "id", json_string(s->id));
    json_object_set_new(j, "status", json_string(run_status_word(s->status)));
    if (s->reason[0]) json_object_set_new(j, "reason", json_string(s->reason));
    json_object_set_new(j, "model", json_string(s->model));
    json_object_set_new(j, "optimizer", json_string(s->optimizer));
    json_object_set_new(j, "schedule", json_string(s->schedule));
    json_object_set_new(j, "numeric_mode", json_string(s->numeric));
    json_object_set_new(j, "seed", json_integer(s->seed));
    json_object_set_new(j, "steps", json_integer(s->steps));
    json_object_set_new(j, "planned_steps", json_integer(s->total));
    if (s->skipped) json_object_set_new(j, "skipped_steps", json_integer(s->skipped));
    json_object_set_new(j, "epochs", json_integer(s->epochs));
    json_object_set_new(j, "parameters", json_integer((json_int_t)s->parameters));
    json_object_set_new(j, "train", score_json(&s->train));
    json_object_set_new(j, "val", score_json(&s->val));
    json_object_set_new(j, "test", score_json(&s->test));
    json_object_set_new(j, "test_accuracy", json_number(s->test.n ? s->test.accuracy : NAN));
    json_object_set_new(j, "best_val", json_number(s->best_val));
    json_object_set_new(j, "best_step", json_integer(s->best_step));
    json_object_set_new(j, "penalty", json_number(s->penalty));
    json_object_set_new(j, "weight_norm", json_number(s->weight_norm));
    json_object_set_new(j, "never_lit", json_integer(s->never_lit));
    json_object_set_new(j, "never_lit_norm", json_number(s->never_lit_norm));
    json_object_set_new(j, "never_lit_norm_start", json_number(s->never_lit_start));
    json_object_set_new(j, "seconds", json_number(s->seconds));
    json_object_set_new(j, "step_seconds", json_number(s->step_seconds));
    json_object_set_new(j, "images_per_second", json_number(s->images_per_second));
    return j;
}

static double real_of(const json_t *j, const char *key) {
    const json_t *v = json_object_get(j, key);
    return json_is_number(v) ? json_number_value(v) : NAN;
}

static long long_of(const json_t *j, const char *key) {
    return (long)json_integer_value(json_object_get(j, key));
}

static void text_of(const json_t *j, const char *key, char *out, size_t cap) {
    const char *s = json_string_value(json_object_get(j, key));
    snprintf(out, cap, "%s", s ? s : "");
}

static score score_of(const json_t *j, const char *key) {
    const json_t *s = json_object_get(j, key);
    return (score){real_of(s, "loss"), real_of(s, "accuracy"), (int)long_of(s, "n")};
}

const char *run_status_word(run_status s) {
    static const char *const words[] = {"finished", "stopped", "interrupted", "diverged"};
    return words[s];
}

static int summary_from(const json_t *j, run_summary *s) {
    char status[32];
    memset(s, 0, sizeof *s);
    text_of(j, "status", status, sizeof status);
    while (s->status <= RUN_DIVERGED && strcmp(run_status_word(s->status), status) != 0) {
        if (s->status == RUN_DIVERGED) return -1;
        s->status++;
    }
    text_of(j, "id", s->id, sizeof s->id);
    text_of(j, "reason", s->reason, sizeof s->reason);
    text_of(j, "model", s->model, sizeof s->model);
    text_of(j, "optimizer", s->optimizer, sizeof s->optimizer);
    text_of(j, "schedule", s->schedule, sizeof s->schedule);
    text_of(j, "numeric_mode", s->numeric, sizeof s->numeric);
    s->seed = long_of(j, "seed");
    s->steps = long_of(j, "steps");
    s->total = long_of(j, "planned_steps");
    s->skipped = long_of(j, "skipped_steps");
    s->epochs = long_of(j, "epochs");
    s->parameters = (size_t)long_of(j, "parameters");
    s->train = score_of(j, "train");
    s->val = score_of(j, "val");
    s->test = score_of(j, "test");
    s->best_val = real_of(j, "best_val");
    s->best_step = long_of(j, "best_step");
    s->penalty = real_of(j, "penalty");
    s->weight_norm = real_of(j, "weight_norm");
    s->never_lit = (int)long_of(j, "never_lit");
    s->never_lit_norm = real_of(j, "never_lit_norm");
    s->never_lit_start = real_of(j, "never_lit_norm_start");
    s->seconds = real_of(j, "seconds");
    s->step_seconds = real_of(j, "step_seconds");
    s->images_per_second = real_of(j, "images_per_second");
    return 0;
}

int run_summary_read(const char *dir, run_summary *s, tn_err *e) {
    char path[CONFIG_PATH + 32];
    snprintf(path, sizeof path, "%s/summary.json", dir);
    json_t *j = json_from_file(path, e);
    int bad = j ? summary_from(j, s) : -1;
    if (j && bad) tn_fail(e, "%s: is not a summary of a run", path);
    json_decref(j);
    return bad;
}

run_dir_state run_dir_look(const char *dir, char id[17]) {
    char path[CONFIG_PATH + 32];
    run_summary s;
    if (id) id[0] = 0;
    if (!run_summary_read(dir, &s, NULL) && (s.status == RUN_FINISHED || s.status == RUN_DIVERGED)) {
        if (id) snprintf(id, 17, "%.16s", s.id);
        return RUN_DIR_FINISHED;
    }
    snprintf(path, sizeof path, "%s/config.json", dir);
    json_t *j = json_from_file(path, NULL);
    if (j && id) text_of(j, "id", id, 17);
    json_decref(j);
    snprintf(path, sizeof path, "%s/resume.safetensors", dir);
    return j || access(path, F_OK) == 0 ? RUN_DIR_PARTIAL : RUN_DIR_EMPTY;
}

json_t *run_profile_json(const tn_profile *p) {
    static const char *const pass[] = {"", "forward", "backward"};
    json_t *lines = json_array();
    const tn_profile_line *l;
    for (int i = 0; (l = tn_profile_at(p, i)); i++)
        if (l->calls)
            json_array_append_new(lines,
                                  json_pack("{s:s, s:s, s:s, s:I, s:f, s:f, s:f}", "op", l->name, "of", l->of,
                                            "pass", pass[l->kind], "calls", (json_int_t)l->calls, "seconds",
                                            l->seconds, "operations", l->operations, "bytes", l->bytes));
    return json_pack("{s:f, s:o}", "seconds", tn_profile_seconds(p), "lines", lines);
}

/* SPDX-License-Identifier: MIT */
/* The configuration of a run: defaults, JSON, and where its data are. */
#include "config.h"
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const arg rows[] = {CONFIG_ARGS(
                               struct { run_config c; }, c),
                           ARG_END};

run_config run_config_default(void) {
    run_config c;
    memset(&c, 0, sizeof c);
    args_default(rows, &c);
    return c;
}

/* ---- JSON ---------------------------------------------------------------------------------------------- */

/* "val-size" on the command line is val_size in files. */
static void json_key(const arg *r, char *out, size_t cap) {
    snprintf(out, cap, "%s", r->name);
    for (char *p = out; *p; p++)
        if (*p == '-') *p = '_';
}

static json_t *row_json(const arg *r, const run_config *c) {
    const char *p = (const char *)c + r->offset;
    char text[CONFIG_PATH];
    switch (r->type) {
    case ARG_INT_T:
        return json_integer(*(const long *)p);
    case ARG_REAL_T:
        return json_real(*(const double *)p);
    case ARG_FLAG_T:
        return json_boolean(*(const int *)p);
    case ARG_MANY_T: {
        json_t *list = json_array();
        for (int i = 0; i < r->count && p[0]; i++, p += r->size) json_array_append_new(list, json_string(p));
        return list;
    }
    default:
        args_text(r, c, text, sizeof text);
        return json_string(text);
    }
}

static int is_path(const arg *r) {
    return strcmp(r->name, "data") == 0 || strcmp(r->name, "init") == 0;
}

json_t *run_config_json(const run_config *c, int with_paths) {
    json_t *all = json_object();
    char key[64];
    for (const arg *r = rows; r->name; r++) {
        if (is_path(r) && !with_paths) continue;
        json_key(r, key, sizeof key);
        json_t *v = row_json(r, c);
        /* a path need not be UTF-8; what cannot be written as JSON is left out and has to be given anew */
        if (v) json_object_set_new(all, key, v);
    }
    json_object_set_new(all, "init_hash", json_string(c->init_hash));
    if (c->plugin_hash[0]) json_object_set_new(all, "plugin_hash", json_string(c->plugin_hash));
    return all;
}

static int row_from_json(const arg *r, run_config *c, const json_t *v, const char *from, tn_err *e) {
    char text[64];
    tn_err why = {""};
    int bad = 1;
    memset((char *)c + r->offset, 0, r->size * (size_t)(r->count ? r->count : 1));
    if (r->type == ARG_MANY_T && json_is_array(v)) {
        bad = 0;
        for (size_t i = 0; i < json_array_size(v) && !bad; i++) {
            const char *s = json_string_value(json_array_get(v, i));
            bad = !s || args_set(r, c, s, &why);
        }
    } else if (json_is_string(v)) {
        bad = r->type == ARG_INT_T || r->type == ARG_REAL_T || args_set(r, c, json_string_value(v), &why);
    } else if (json_is_integer(v)) {
        snprintf(text, sizeof text, "%" JSON_INTEGER_FORMAT, json_integer_value(v));
        bad = (r->type != ARG_INT_T && r->type != ARG_REAL_T) || args_set(r, c, text, &why);
    } else if (json_is_real(v)) {
        snprintf(text, sizeof text, "%.17g", json_real_value(v));
        bad = r->type != ARG_REAL_T || args_set(r, c, text, &why);
    }
    if (!bad) return 0;
    return tn_fail(e, "%s: %s%s", from, why.msg[0] ? why.msg : "wrong type of value for ",
                   why.msg[0] ? "" : r->name);
}

int run_config_from_json(run_config *c, const json_t *j, const char *from, tn_err *e) {
    const char *key;
    json_t *v;
    if (!json_is_object(j)) return tn_fail(e, "%s: holds no configuration", from);
    json_object_foreach((json_t *)j, key, v) {
        const arg *row = NULL;
        char name[64];
        for (const arg *r = rows; r->name && !row; r++) {
            json_key(r, name, sizeof name);
            if (strcmp(name, key) == 0) row = r;
        }
        if (strcmp(key, "init_hash") == 0 && json_is_string(v))
            snprintf(c->init_hash, sizeof c->init_hash, "%s", json_string_value(v));
        else if (strcmp(key, "plugin_hash") == 0 && json_is_string(v))
            snprintf(c->plugin_hash, sizeof c->plugin_hash, "%s", json_string_value(v));
        else if (!row)
            return tn_fail(e, "%s: unknown key '%.60s' in its configuration", from, key);
        else if (row_from_json(row, c, v, from, e))
            return -1;
    }
    return 0;
}

/* ---- Data ---------------------------------------------------------------------------------------------- */

tn_data_options run_config_data(const run_config *c) {
    tn_data_options o = tn_data_options_default();
    o.val_size = (int)c->val_size;
    o.train_size = (int)c->train_size;
    o.label_noise = c->label_noise;
    o.normalize = c->normalize;
    o.seed = (uint64_t)c->seed;
    return o;
}

int run_config_same_data(const run_config *a, const run_config *b) {
    int drawn = a->train_size || a->label_noise > 0;
    return strcmp(a->data, b->data) == 0 && a->val_size == b->val_size && a->train_size == b->train_size
           && a->label_noise == b->label_noise && a->normalize == b->normalize
           && (!drawn || a->seed == b->seed);
}

#ifndef TERN_SOURCE_DATA
#define TERN_SOURCE_DATA "data"
#endif
#ifndef TERN_INSTALLED_DATA
#define TERN_INSTALLED_DATA "/usr/local/share/tern"
#endif

static int open_data(const run_config *c, int test_only, tn_dataset *set, tn_err *e) {
    tn_data_options o = run_config_data(c);
    o.test_only = test_only;
    if (c->data[0]) return tn_dataset_open(c->data, &o, set, e);
    const char *set_by_user = getenv("TERN_DATA");
    if (set_by_user && *set_by_user) return tn_dataset_open(set_by_user, &o, set, e);
    static const char *const places[] = {"data/mnist", TERN_SOURCE_DATA "/mnist",
                                         TERN_INSTALLED_DATA "/mnist"};
    for (int i = 0; i < 3; i++) {
        struct stat st;
        if (stat(places[i], &st) == 0 && S_ISDIR(st.st_mode)) return tn_dataset_open(places[i], &o, set, e);
    }
    return tn_fail(
        e,
        "no MNIST files in ./%s, %s or %s: name their directory with --data DIR or TERN_DATA, or use "
        "--data synthetic",
        places[0], places[1], places[2]);
}

int run_open_data(const run_config *c, tn_dataset *set, tn_err *e) {
    return open_data(c, 0, set, e);
}

int run_open_test_data(const run_config *c, tn_dataset *set, tn_err *e) {
    return open_data(c, 1, set, e);
}

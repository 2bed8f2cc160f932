/* SPDX-License-Identifier: MIT */
/* What several commands share. */
#include "commands.h"
#include "rundir.h"
#include "safetensors.h"
#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void app_threads(long n) {
    openblas_set_num_threads(1);
    if (n > 0) tn_set_threads((int)n);
}

int app_data_failed(const command *cmd, const char *where, const tn_err *e) {
    char name[64];
    tn_spec_split(where, name, sizeof name);
    struct stat st;
    int spec = where[0] && !strchr(name, '/') && stat(where, &st);
    /* a folder of pictures is named by a spec, too, but what is wrong in it is not the user's wording */
    int wording = strncmp(e->msg, "--", 2) == 0 || strstr(e->msg, "did you mean");
    if (spec && wording) return args_usage_error(cmd, "%s", e->msg);
    return args_failed(cmd, e);
}

/* ---- The head of a weights file ------------------------------------------------------------------------ */

static const char *meta_of(const st_file *f, const char *key) {
    const char *s = f->meta ? json_string_value(json_object_get(f->meta, key)) : NULL;
    return s ? s : "";
}

static int parse_shape(const char *text, tn_model_shape *s) {
    s->nd = 0;
    for (const char *p = text; *p; p++) {
        char *end;
        long v = strtol(p, &end, 10);
        if (end == p || v < 1 || v > 1 << 24 || s->nd == 3 || (*end && *end != 'x')) return -1;
        s->dim[s->nd++] = (int)v;
        if (!*end) return 0;
        p = end;
    }
    return -1;
}

/* tern.class.0 ... for every output, or none at all. */
static int read_classes(const st_file *f, weights_head *h, tn_err *e) {
    if (!*meta_of(f, "tern.class.0")) return 0;
    h->class_name = calloc((size_t)h->shape.outputs, sizeof *h->class_name);
    if (!h->class_name) return tn_fail(e, "%s: not enough memory for the names of its classes", h->path);
    for (int i = 0; i < h->shape.outputs; i++) {
        char key[32];
        snprintf(key, sizeof key, "tern.class.%d", i);
        const char *name = meta_of(f, key);
        if (!*name) return tn_fail(e, "%s: its metadata do not name class %d", h->path, i);
        snprintf(h->class_name[i], TN_MAX_NAME, "%s", name);
    }
    return 0;
}

void app_weights_head_free(weights_head *h) {
    free(h->class_name);
    h->class_name = NULL;
}

int app_weights_head(const char *where, weights_head *h, tn_err *e) {
    struct stat st;
    st_file f;
    memset(h, 0, sizeof *h);
    int dir = stat(where, &st) == 0 && S_ISDIR(st.st_mode);
    snprintf(h->path, sizeof h->path, "%.4000s%s", where, dir ? "/last.safetensors" : "");
    int bad = tn_st_open(&f, h->path, e);
    const char *outputs = bad ? "" : meta_of(&f, "tern.outputs");
    h->scale = 1;
    if (!bad && *meta_of(&f, "tern.meta"))
        bad = tn_fail(e, "%s: is a state to resume from; take last.safetensors or best.safetensors beside it",
                      h->path);
    if (!bad && *outputs) {
        snprintf(h->model, sizeof h->model, "%s", meta_of(&f, "tern.model"));
        snprintf(h->data_hash, sizeof h->data_hash, "%s", meta_of(&f, "tern.data_hash"));
        snprintf(h->test_hash, sizeof h->test_hash, "%s", meta_of(&f, "tern.test_hash"));
        h->scale = strtod(meta_of(&f, "tern.scale"), NULL);
        h->shift = strtod(meta_of(&f, "tern.shift"), NULL);
        h->shape.outputs = atoi(outputs);
        if (parse_shape(meta_of(&f, "tern.input"), &h->shape) || h->shape.outputs < 1)
            bad = tn_fail(e, "%s: its metadata do not describe a model's input and output", h->path);
        else
            bad = read_classes(&f, h, e);
    }
    tn_st_close(&f);
    if (bad) app_weights_head_free(h);
    return bad ? -1 : 0;
}

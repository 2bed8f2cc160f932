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
    const char *rest = tn_spec_split(where, name, sizeof name);
    struct stat st;
    int spec = where[0] && !strchr(name, '/') && stat(where, &st);
    if (spec && (*rest || strstr(e->msg, "did you mean"))) return args_usage_error(cmd, "%s", e->msg);
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
        h->scale = strtod(meta_of(&f, "tern.scale"), NULL);
        h->shift = strtod(meta_of(&f, "tern.shift"), NULL);
        h->shape.outputs = atoi(outputs);
        if (parse_shape(meta_of(&f, "tern.input"), &h->shape) || h->shape.outputs < 1)
            bad = tn_fail(e, "%s: its metadata do not describe a model's input and output", h->path);
    }
    tn_st_close(&f);
    return bad ? -1 : 0;
}

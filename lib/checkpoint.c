/* SPDX-License-Identifier: MIT */
/*
 * Weights and training state as safetensors. Weights stand under the parameters' own names; the state adds
 * each optimizer slot as optim.<slot>.<parameter> and, in the metadata, the optimizer's scalars as
 * hexadecimal floats. Nothing of a parameter or an optimizer is touched before a whole file has been read and
 * found right.
 */
#include "safetensors.h"
#include "optim_private.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- What a file should hold --------------------------------------------------------------------------- */

typedef struct {
    st_item *item;
    tn_real **to; /* where the numbers of item i belong */
    int n;
    int finite; /* items from this one on may be infinite: second moments overflow before weights do */
} wanted;

static void wanted_free(wanted *w) {
    tn_free(w->item);
    tn_free(w->to);
}

static void want(wanted *w, const char *prefix, const char *name, int nd, const int *dim, tn_real *x,
                 size_t n) {
    st_item *t = &w->item[w->n];
    w->to[w->n++] = x;
    snprintf(t->name, sizeof t->name, "%s%s", prefix, name);
    t->nd = nd;
    for (int d = 0; d < nd; d++) t->dim[d] = dim[d];
    t->x = x;
    t->n = n;
}

static void want_slots(wanted *w, const tn_param *p, tn_optim *o) {
    const char *name;
    size_t len;
    tn_real *x;
    for (int s = 0; (x = tn_optim_slot(o, p->index, s, &name, &len)); s++) {
        char prefix[TN_MAX_NAME];
        snprintf(prefix, sizeof prefix, "optim.%s.", name);
        if (len == p->len)
            want(w, prefix, p->name, p->nd, p->dim, x, len);
        else
            want(w, prefix, p->name, 1, (int[]){(int)len}, x, len);
    }
}

/* o NULL: weights alone. */
static int wanted_list(wanted *w, tn_params *ps, tn_optim *o, const char *path, tn_err *e) {
    int count = tn_params_count(ps);
    size_t most = (size_t)count;
    for (int i = 0; o && i < count; i++)
        for (int s = 0; tn_optim_slot(o, i, s, NULL, NULL); s++) most++;
    *w = (wanted){tn_mem_new(most * sizeof *w->item), tn_mem_new(most * sizeof *w->to), 0, 0};
    if (!w->item || !w->to) {
        wanted_free(w);
        return tn_fail(e, "%s: not enough memory", path);
    }
    for (int i = 0; i < count; i++) {
        tn_param *p = tn_params_at(ps, i);
        want(w, "", p->name, p->nd, p->dim, p->w, p->len);
    }
    w->finite = w->n;
    for (int i = 0; o && i < count; i++) want_slots(w, tn_params_at(ps, i), o);
    return 0;
}

/* ---- Comparing a file with it -------------------------------------------------------------------------- */

/* Appends ", text" to a list that is cut with "..." when it is full. */
static void list_add(char *list, size_t cap, const char *text) {
    size_t at = strlen(list);
    if (at + strlen(text) + 8 < cap)
        snprintf(list + at, cap - at, "%s%s", at ? ", " : "", text);
    else if (at + 6 < cap && strcmp(list + (at < 3 ? 0 : at - 3), "...") != 0)
        snprintf(list + at, cap - at, ", ...");
}

static void shape_text(int nd, const uint64_t *dim, char *out, size_t cap) {
    size_t at = (size_t)snprintf(out, cap, "(");
    for (int d = 0; d < nd && at < cap; d++)
        at += (size_t)snprintf(out + at, cap - at, "%s%llu", d ? ", " : "", (unsigned long long)dim[d]);
    if (at < cap) snprintf(out + at, cap - at, nd == 1 ? ",)" : ")");
}

static int same_shape(const st_tensor *t, const st_item *w) {
    int same = t->nd == w->nd;
    for (int d = 0; same && d < t->nd; d++) same = t->dim[d] == (uint64_t)w->dim[d];
    return same;
}

/*
 * PyTorch's batch norm counts its batches in an I64 scalar beside running_mean. It only matters for momentum=None, which
 * tern does not have: it is passed over here and left out when weights are written; PyTorch's own strict load fills a
 * missing one in.
 */
static int is_counter(const st_file *f, const st_tensor *t) {
    static const char word[] = "num_batches_tracked", mean[] = "running_mean";
    char beside[2 * TN_MAX_NAME];
    size_t n = strlen(t->name), prefix = n - (sizeof word - 1);
    if (n < sizeof word - 1 || strcmp(t->name + prefix, word) != 0 || strcmp(t->dtype, "I64") != 0
        || t->nd != 0)
        return 0;
    if (prefix + sizeof mean > sizeof beside) return 0;
    memcpy(beside, t->name, prefix), memcpy(beside + prefix, mean, sizeof mean);
    return tn_st_find(f, beside) != NULL;
}

static int check_names(const st_file *f, const wanted *w, tn_err *e) {
    char missing[160] = "", extra[160] = "";
    int found = 0;
    for (int i = 0; i < w->n; i++) {
        if (tn_st_find(f, w->item[i].name))
            found++;
        else
            list_add(missing, sizeof missing, w->item[i].name);
    }
    for (int i = 0; i < f->n && found < f->n; i++) {
        int known = is_counter(f, &f->t[i]);
        for (int j = 0; j < w->n && !known; j++) known = strcmp(f->t[i].name, w->item[j].name) == 0;
        if (!known) list_add(extra, sizeof extra, f->t[i].name);
    }
    if (!missing[0] && !extra[0]) return 0;
    int state = w->finite == w->n && strncmp(extra, "optim.", 6) == 0 && !missing[0];
    return tn_fail(e, "%s: does not fit%s%s%s%s%s%s", f->path, missing[0] ? ": missing " : "", missing,
                   missing[0] && extra[0] ? ";" : "",
                   extra[0] ? (missing[0] ? " not known " : ": not known ") : "", extra,
                   state ? " (this is a training state, not weights alone)" : "");
}

static int check_shapes(const st_file *f, const wanted *w, tn_err *e) {
    for (int i = 0; i < w->n; i++) {
        const st_item *item = &w->item[i];
        const st_tensor *t = tn_st_find(f, item->name);
        if (same_shape(t, item)) continue;
        uint64_t dim[TN_MAX_DIM];
        char here[96], there[96];
        for (int d = 0; d < item->nd; d++) dim[d] = (uint64_t)item->dim[d];
        shape_text(t->nd, t->dim, there, sizeof there);
        shape_text(item->nd, dim, here, sizeof here);
        return tn_fail(e, "%s: tensor %s has shape %s; this model needs %s", f->path, item->name, there,
                       here);
    }
    return 0;
}

static void note_conversions(const st_file *f, char *note, size_t cap) {
    const char *own = sizeof(tn_real) == 8 ? "F64" : "F32";
    if (!note || !cap) return;
    note[0] = 0;
    for (int i = 0; i < f->n; i++) {
        if (strcmp(f->t[i].dtype, own) == 0 || !tn_st_floats(&f->t[i])) continue;
        snprintf(note, cap, "%s: %s converted to %s (%s and perhaps others)", f->path, f->t[i].dtype, own,
                 f->t[i].name);
        return;
    }
}

/* Reads everything into one block first; *scratch holds the numbers in the order of w. */
static int read_all(const st_file *f, const wanted *w, tn_real **scratch, tn_err *e) {
    size_t total = 0;
    for (int i = 0; i < w->n; i++) total += w->item[i].n;
    tn_real *x = *scratch = tn_mem_new(total * sizeof *x);
    if (!x) return tn_fail(e, "%s: not enough memory to read it", f->path);
    for (int i = 0; i < w->n; x += w->item[i++].n)
        if (tn_st_read(f, tn_st_find(f, w->item[i].name), x, i < w->finite, e)) return -1;
    return 0;
}

static void copy_all(const wanted *w, const tn_real *x) {
    for (int i = 0; i < w->n; x += w->item[i++].n) memcpy(w->to[i], x, w->item[i].n * sizeof *x);
}

/* ---- Weights ------------------------------------------------------------------------------------------- */

static int save(const char *path, tn_params *ps, tn_optim *o, const json_t *meta, tn_err *e) {
    const char *bad = tn_nonfinite_weight(ps);
    wanted w;
    if (bad) return tn_fail(e, "%s: not written: %s has NaN or infinite weights", path, bad);
    if (wanted_list(&w, ps, o, path, e)) return -1;
    int code = tn_st_write(path, w.n, w.item, meta, e);
    wanted_free(&w);
    return code;
}

int tn_save_weights(const char *path, tn_params *ps, const char *meta, tn_err *e) {
    json_t *m = json_object();
    int bad = json_object_set_new(m, "format", json_string("pt")); /* what PyTorch's loaders look for */
    while (meta && *meta && !bad) {
        const char *value = meta + strlen(meta) + 1;
        bad = json_object_set_new(m, meta, json_string(value));
        meta = value + strlen(value) + 1;
    }
    int code =
        bad ? tn_fail(e, "%s: metadata is not UTF-8, or memory is short", path) : save(path, ps, NULL, m, e);
    json_decref(m);
    return code;
}

int tn_load_weights(const char *path, tn_params *ps, char *note, size_t cap, tn_err *e) {
    st_file f;
    wanted w = {0};
    tn_real *x = NULL;
    int bad = tn_st_open(&f, path, e) || wanted_list(&w, ps, NULL, path, e) || check_names(&f, &w, e)
              || check_shapes(&f, &w, e) || read_all(&f, &w, &x, e);
    if (!bad) {
        copy_all(&w, x);
        tn_params_touch(ps);
        note_conversions(&f, note, cap);
    }
    tn_free(x);
    wanted_free(&w);
    tn_st_close(&f);
    return bad ? -1 : 0;
}

/* ---- State --------------------------------------------------------------------------------------------- */

/* "0x1.8p+1 -0x0p+0 ..." */
static char *scalars_text(tn_optim *o) {
    int n;
    const double *v = tn_optim_scalars(o, &n);
    size_t cap = (size_t)n * 32 + 1, at = 0;
    char *text = tn_mem_new(cap);
    for (int i = 0; text && i < n; i++)
        at += (size_t)snprintf(text + at, cap - at, "%s%a", i ? " " : "", v[i]);
    return text;
}

static int parse_scalars(const char *path, const char *text, int n, double *out, tn_err *e) {
    int i = 0;
    for (char *end; text && *text && i < n; i++, text = end) {
        out[i] = strtod(text, &end);
        if (end == text || (*end && *end != ' ')) return tn_fail(e, "%s: bad optimizer scalars", path);
        while (*end == ' ') end++;
    }
    if (!text || i < n || *text)
        return tn_fail(e, "%s: the optimizer keeps %d scalars; the file has others", path, n);
    return 0;
}

int tn_save_state(const char *path, tn_params *ps, tn_optim *o, const char *meta_json, tn_err *e) {
    char *scalars = scalars_text(o);
    char *chain = tn_optim_chain(o);
    json_t *m = scalars && chain ? json_pack("{s:s, s:s, s:s}", "tern.optimizer", chain, "tern.scalars",
                                             scalars, "tern.meta", meta_json ? meta_json : "")
                                 : NULL;
    int code =
        m ? save(path, ps, o, m, e) : tn_fail(e, "%s: metadata is not UTF-8, or memory is short", path);
    json_decref(m);
    tn_free(scalars);
    tn_free(chain);
    return code;
}

static const char *meta_text(const st_file *f, const char *key) {
    return f->meta ? json_string_value(json_object_get(f->meta, key)) : NULL;
}

static int check_optimizer(const st_file *f, tn_optim *o, tn_err *e) {
    const char *there = meta_text(f, "tern.optimizer");
    if (!there || !meta_text(f, "tern.meta"))
        return tn_fail(e, "%s: is no training state (weights alone?)", f->path);
    char *here = tn_optim_chain(o);
    if (!here) return tn_fail(e, "%s: not enough memory", f->path);
    int other = strcmp(there, here) != 0;
    if (other) tn_fail(e, "%s: is a state of the optimizer %.120s, not of %.120s", f->path, there, here);
    tn_free(here);
    return other ? -1 : 0;
}

int tn_load_state(const char *path, tn_params *ps, tn_optim *o, char **meta_json, tn_err *e) {
    st_file f;
    wanted w = {0};
    tn_real *x = NULL;
    char *meta = NULL;
    int n;
    double *scalars = tn_optim_scalars(o, &n), *read = tn_mem_new((size_t)n * sizeof *read);
    int bad = tn_st_open(&f, path, e) || check_optimizer(&f, o, e) || wanted_list(&w, ps, o, path, e)
              || check_names(&f, &w, e) || check_shapes(&f, &w, e)
              || (!read ? tn_fail(e, "%s: not enough memory", path) : 0)
              || parse_scalars(path, meta_text(&f, "tern.scalars"), n, read, e) || read_all(&f, &w, &x, e);
    if (!bad && meta_json) {
        const char *text = meta_text(&f, "tern.meta");
        meta = tn_mem_new(strlen(text) + 1);
        bad = meta ? 0 : tn_fail(e, "%s: not enough memory", path);
        if (meta) *meta_json = strcpy(meta, text);
    }
    if (!bad) {
        copy_all(&w, x);
        if (n) memcpy(scalars, read, (size_t)n * sizeof *read);
        tn_params_touch(ps);
    }
    tn_free(read);
    tn_free(x);
    wanted_free(&w);
    tn_st_close(&f);
    return bad ? -1 : 0;
}

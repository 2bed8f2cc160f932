/* SPDX-License-Identifier: MIT */
/* Reads files of the format tern-optim-vectors-1. */
#include "conform.h"
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#ifndef TERN_SOURCE_VECTORS
#define TERN_SOURCE_VECTORS "tests/golden/optim"
#endif
#ifndef TERN_INSTALLED_VECTORS
#define TERN_INSTALLED_VECTORS "/usr/local/share/tern/optim"
#endif
#ifdef TN_DOUBLE
#define TOLERANCE "double"
#else
#define TOLERANCE "float"
#endif

static const char *text_of(const json_t *o, const char *key) {
    return json_string_value(json_object_get(o, key));
}

static int numbers(const json_t *a, size_t n, double *out) {
    if (json_array_size(a) != n) return -1;
    for (size_t i = 0; i < n; i++) {
        const json_t *v = json_array_get(a, i);
        if (!json_is_number(v)) return -1;
        out[i] = json_number_value(v);
    }
    return 0;
}

static int read_tensors(conform_file *f, tn_err *e) {
    const json_t *all = json_object_get(f->root, "tensors");
    f->tensors = (int)json_array_size(all);
    if (f->tensors < 1 || f->tensors > CONFORM_TENSORS)
        return tn_fail(e, "%s: \"tensors\" must name 1 to %d tensors", f->path, CONFORM_TENSORS);
    for (int i = 0; i < f->tensors; i++) {
        const json_t *j = json_array_get(all, (size_t)i), *shape = json_object_get(j, "shape");
        conform_tensor *t = &f->tensor[i];
        t->name = text_of(j, "name");
        t->decays = json_is_true(json_object_get(j, "decay"));
        t->nd = (int)json_array_size(shape);
        t->n = 1, t->at = f->len;
        if (!t->name || t->nd < 1 || t->nd > TN_MAX_DIM)
            return tn_fail(e, "%s: tensor %d has no name or no shape", f->path, i);
        for (int d = 0; d < t->nd; d++) {
            json_int_t dim = json_integer_value(json_array_get(shape, (size_t)d));
            if (dim < 1 || dim > 4096 || t->n > 65536)
                return tn_fail(e, "%s: tensor %s has a bad shape", f->path, t->name);
            t->dim[d] = (int)dim, t->n *= (size_t)dim;
        }
        f->len += t->n;
    }
    if (!(f->init = malloc(f->len * sizeof *f->init))) return tn_fail(e, "not enough memory");
    for (int i = 0; i < f->tensors; i++)
        if (numbers(json_object_get(json_array_get(all, (size_t)i), "init"), f->tensor[i].n,
                    f->init + f->tensor[i].at))
            return tn_fail(e, "%s: tensor %s: \"init\" must have %zu numbers", f->path, f->tensor[i].name,
                           f->tensor[i].n);
    return 0;
}

/* A schedule's multipliers, or ones. */
static int multipliers(const json_t *a, int steps, double *out) {
    if (a) return numbers(a, (size_t)steps, out);
    for (int s = 0; s < steps; s++) out[s] = 1;
    return 0;
}

static int read_case(conform_file *f, const json_t *j, conform_case *c, tn_err *e) {
    const char *sequence = text_of(j, "gradients");
    const json_t *g = sequence ? json_object_get(json_object_get(f->root, "gradients"), sequence) : NULL;
    *c = (conform_case){.name = text_of(j, "name"),
                        .spec = text_of(j, "spec"),
                        .source = text_of(j, "source"),
                        .options = json_object_get(j, "options"),
                        .expect = json_object_get(j, "expect"),
                        .tol = json_number_value(json_object_get(json_object_get(j, "tol"), TOLERANCE))};
    const char *name = c->name ? c->name : "?";
    if (!c->name || !c->spec || !c->source || !c->options || json_array_size(c->expect) == 0 || !(c->tol > 0))
        return tn_fail(e, "%s: case %s lacks one of name, spec, source, options, expect, tol", f->path, name);
    c->g = malloc(((size_t)f->steps * f->len + 2 * (size_t)f->steps) * sizeof *c->g);
    if (!c->g) return tn_fail(e, "not enough memory");
    c->lr_mul = c->g + (size_t)f->steps * f->len, c->wd_mul = c->lr_mul + f->steps;
    for (int i = 0; i < f->tensors; i++)
        for (int s = 0; s < f->steps; s++)
            if (numbers(json_array_get(json_object_get(g, f->tensor[i].name), (size_t)s), f->tensor[i].n,
                        c->g + (size_t)s * f->len + f->tensor[i].at))
                return tn_fail(e, "%s: case %s: the gradients \"%s\" of %s lack step %d", f->path, name,
                               sequence ? sequence : "", f->tensor[i].name, s + 1);
    if (multipliers(json_object_get(j, "lr_mul"), f->steps, c->lr_mul)
        || multipliers(json_object_get(j, "wd_mul"), f->steps, c->wd_mul))
        return tn_fail(e, "%s: case %s: lr_mul and wd_mul must have %d numbers", f->path, name, f->steps);
    size_t i;
    json_t *x;
    json_array_foreach(c->expect, i, x) {
        json_int_t step = json_integer_value(json_object_get(x, "step"));
        if (step < 1 || step > f->steps || !json_is_object(json_object_get(x, "weights")))
            return tn_fail(e, "%s: case %s: an element of \"expect\" has no step or no weights", f->path,
                           name);
    }
    return 0;
}

static int read_file(conform_file *f, tn_err *e) {
    const char *format = text_of(f->root, "format");
    const json_t *cases = json_object_get(f->root, "cases");
    if (!format || strcmp(format, "tern-optim-vectors-1"))
        return tn_fail(e, "%s: not a file of optimizer vectors: \"format\" must be \"tern-optim-vectors-1\"",
                       f->path);
    f->family = text_of(f->root, "family");
    f->steps = (int)json_integer_value(json_object_get(f->root, "steps"));
    if (!f->family || f->steps < 1 || f->steps > 10000 || json_array_size(cases) == 0)
        return tn_fail(e, "%s: lacks family, steps (1 to 10000) or cases", f->path);
    if (read_tensors(f, e)) return -1;
    if (!(f->c = calloc(json_array_size(cases), sizeof *f->c))) return tn_fail(e, "not enough memory");
    for (size_t i = 0; i < json_array_size(cases); i++) {
        f->cases++;
        if (read_case(f, json_array_get(cases, i), &f->c[i], e)) return -1;
    }
    return 0;
}

conform_file *conform_open(const char *path, tn_err *e) {
    json_error_t why;
    conform_file *f = calloc(1, sizeof *f);
    if (!f) return tn_fail(e, "not enough memory"), NULL;
    snprintf(f->path, sizeof f->path, "%s", path);
    f->root = json_load_file(path, JSON_REJECT_DUPLICATES, &why);
    if (!f->root)
        tn_fail(e, "%s:%d: %s", path, why.line, why.text);
    else if (read_file(f, e) == 0)
        return f;
    conform_close(f);
    return NULL;
}

void conform_close(conform_file *f) {
    if (!f) return;
    for (int i = 0; i < f->cases; i++) free(f->c[i].g);
    free(f->c);
    free(f->init);
    json_decref(f->root);
    free(f);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int conform_families(const char *dir, char ***names, tn_err *e) {
    DIR *d = opendir(dir);
    int n = 0;
    *names = NULL;
    if (!d) return tn_fail(e, "%s: no such folder of optimizer vectors", dir);
    for (struct dirent *x; (x = readdir(d));) {
        size_t len = strlen(x->d_name);
        if (len < 6 || strcmp(x->d_name + len - 5, ".json")) continue;
        char **more = realloc(*names, (size_t)(n + 1) * sizeof *more), *one = malloc(len);
        if (more) *names = more;
        if (!more || !one) {
            closedir(d), free(one);
            return tn_fail(e, "not enough memory");
        }
        snprintf(one, len, "%.*s", (int)(len - 5), x->d_name);
        (*names)[n++] = one;
    }
    closedir(d);
    if (n) qsort(*names, (size_t)n, sizeof **names, by_name);
    return n;
}

const char *conform_place(const char *given) {
    static const char *const places[] = {TERN_SOURCE_VECTORS, TERN_INSTALLED_VECTORS};
    struct stat s;
    if (given && *given) return given;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (stat(places[i], &s) == 0 && S_ISDIR(s.st_mode)) return places[i];
    return NULL;
}

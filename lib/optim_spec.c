/* SPDX-License-Identifier: MIT */
/* Finding optimizers by name, cutting specs, and definitions with their options. */
#include "optim_private.h"
#include "kernels/kernels.h"
#include <ctype.h>
#include <string.h>

/* ---- finding definitions ---- */

/* Those of the vector level in use; where TERN_SIMD names none, of the plain one, which every machine runs. */
static const tn_optim_def *const *listed(int wraps, int *n) {
    const tn_kernels_t *k = tn_kernels_get(NULL);
    if (!k) k = tn_kernels_level("plain");
    const tn_optim_def *const *defs = wraps ? k->wrappers : k->optims;
    for (*n = 0; defs[*n]; ++*n)
        ;
    return defs;
}

static const tn_optim_def *find(int wraps, const char *name) {
    int n;
    const tn_optim_def *const *defs = listed(wraps, &n);
    for (int i = 0; i < n; i++)
        if (!strcmp(defs[i]->name, name)) return defs[i];
    return NULL;
}

const tn_optim_def *const *tn_optims(int *n) {
    return listed(0, n);
}

const tn_optim_def *const *tn_optim_wrappers(int *n) {
    return listed(1, n);
}

const tn_optim_def *tn_optim_find(const char *name) {
    return find(0, name);
}

const tn_optim_def *tn_optim_find_wrapper(const char *name) {
    return find(1, name);
}

static int unknown_name(int wraps, const char *name, tn_err *e) {
    enum { MOST = 64 };
    const char *names[MOST];
    char list[512] = "", hint[128] = "";
    int n;
    const tn_optim_def *const *defs = listed(wraps, &n);
    if (n > MOST) n = MOST;
    for (int i = 0; i < n; i++) {
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", names[i] = defs[i]->name);
    }
    if (wraps && tn_optim_find(name))
        return tn_fail(e, "\"+%.60s\": this is an optimizer, no wrapper; wrappers are %s", name, list);
    if (!wraps && tn_optim_find_wrapper(name))
        return tn_fail(e, "\"%.60s\" is a wrapper; it stands behind an optimizer: adamw+%.60s", name, name);
    const char *near = tn_nearest(name, n, names);
    if (near) snprintf(hint, sizeof hint, " (did you mean \"%s\"?)", near);
    return tn_fail(e, "unknown %s \"%.60s\"%s; there are %s%s", wraps ? "wrapper" : "optimizer", name, hint,
                   list, wraps ? "" : ", and plug-ins: ./my_opt.so");
}

int tn_optim_has(const tn_optim_def *d, const char *key, size_t len) {
    for (const tn_opt *o = d->hp; o->name; o++)
        if (strlen(o->name) == len && !memcmp(o->name, key, len)) return 1;
    return 0;
}

/* An option that a definition lacks and its relatives (same slots) have: the message names those. */
static int only_relatives_have(const tn_optim_def *d, const char *options, tn_err *e) {
    int n;
    const tn_optim_def *const *defs = tn_optims(&n);
    for (const char *p = options; p && *p; p += strcspn(p, ","), p += *p == ',') {
        size_t len = strcspn(p, "=,");
        char list[256] = "";
        if (tn_optim_has(d, p, len)) continue;
        for (int i = 0; i < n; i++) {
            size_t at = strlen(list);
            if (defs[i]->slots == d->slots && d->slots && tn_optim_has(defs[i], p, len))
                snprintf(list + at, sizeof list - at, "%s%s", at ? ", " : "", defs[i]->name);
        }
        if (*list)
            return tn_fail(e, "optimizer %s has no option %.*s; the same optimizer with it: %s", d->name,
                           (int)len, p, list);
    }
    return 0;
}

/* ---- specs ---- */

/* "+name" begins a wrapper; the plus of a number like 1e+3 stands before a digit. */
char *tn_optim_plus(char *text) {
    for (char *p = strchr(text, '+'); p; p = strchr(p + 1, '+'))
        if (!isdigit((unsigned char)p[1])) return p;
    return NULL;
}

static int ends_in(const char *text, size_t len, const char *end) {
    size_t n = strlen(end);
    return len > n && !memcmp(text + len - n, end, n);
}

int tn_optim_is_file(const char *name, size_t len) {
    return memchr(name, '/', len) || ends_in(name, len, ".so") || ends_in(name, len, ".dylib");
}

/* A plug-in's path may hold a '+'; it goes on to its ".so" or ".dylib". */
tn_optim_spec tn_optim_cut(char *text) {
    tn_optim_spec s = {.name = text};
    char *colon = strchr(text, ':'), *plus = tn_optim_plus(text);
    while (plus && (!colon || plus < colon) && memchr(text, '/', (size_t)(plus - text))
           && !ends_in(text, (size_t)(plus - text), ".so") && !ends_in(text, (size_t)(plus - text), ".dylib"))
        plus = tn_optim_plus(plus + 1);
    if (colon && (!plus || colon < plus)) {
        *colon = 0;
        s.options = colon + 1;
    }
    if (plus) {
        *plus = 0;
        s.next = plus + 1;
    }
    if (!s.options) s.options = text + strlen(text);
    return s;
}

char *tn_optim_copy(const char *text, tn_err *e) {
    char *copy = tn_mem_new(strlen(text) + 1);
    if (!copy) {
        tn_fail(e, "optimizer: out of memory");
        return NULL;
    }
    return strcpy(copy, text);
}

/* A built-in one, or one that is loaded now. */
const tn_optim_def *tn_optim_named(int wraps, const char *name, tn_err *e) {
    if (tn_optim_is_file(name, strlen(name))) return tn_optim_load(name, e);
    const tn_optim_def *d = find(wraps, name);
    if (!d) unknown_name(wraps, name, e);
    return d;
}

/* ---- parts ---- */

void tn_optim_part_free(tn_optim_part *part) {
    tn_free(part->copy);
    tn_free(part->file);
    tn_free(part->hp);
    *part = (tn_optim_part){0};
}

/* The default options, or a copy of base; out holds nothing on an error. */
int tn_optim_part_new(const tn_optim_def *d, const char *file, const tn_optim_part *base, tn_optim_part *out,
                      tn_err *e) {
    *out = (tn_optim_part){.def = d, .hp = tn_mem_new(d->hp_size)};
    if (!out->hp || (file && !(out->file = tn_optim_copy(file, e)))) goto short_of_memory;
    if (d->size < sizeof *d) {
        if (!(out->copy = tn_mem_new(sizeof *d))) goto short_of_memory;
        out->def = memcpy(out->copy, d, d->size);
    }
    if (base) {
        memcpy(out->hp, base->hp, d->hp_size);
        out->given = base->given;
    } else {
        tn_opts_default(d->hp, out->hp);
    }
    return 0;
short_of_memory:
    tn_fail(e, "optimizer %s: out of memory", d->name);
    tn_optim_part_free(out);
    return -1;
}

/* Options over what the part has, checked; the part holds nothing after an error. */
int tn_optim_part_set(tn_optim_part *part, const char *pattern, const char *options, tn_err *e) {
    char what[2 * TN_MAX_NAME + 64];
    const tn_optim_def *d = part->def;
    uint64_t given = 0;
    snprintf(what, sizeof what, "%s %.60s%s%.60s", d->wraps ? "wrapper" : "optimizer", d->name,
             pattern ? ", group " : "", pattern ? pattern : "");
    if ((d->wraps || !only_relatives_have(d, options, e))
        && !tn_opts_parse(d->hp, part->hp, options, what, &given, e)) {
        part->given |= given;
        if (!d->check || !d->check(part->hp, part->given, e)) return 0;
    }
    tn_optim_part_free(part);
    return -1;
}

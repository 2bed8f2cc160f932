/* SPDX-License-Identifier: MIT */
/* Data sets by name or by directory: the registry, and opening what --data names. */
#include "data_internal.h"
#include "internal.h"
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define TN_DATASET(def) extern const tn_dataset_def def;
#include "datasets.def"
#undef TN_DATASET

#define TN_DATASET(def) &def,
static const tn_dataset_def *const registry[] = {
#include "datasets.def"
};
#undef TN_DATASET

const tn_dataset_def *const *tn_datasets(int *n) {
    if (n) *n = TN_ARRAY_LEN(registry);
    return registry;
}

tn_data_options tn_data_options_default(void) {
    return (tn_data_options){.val_size = TN_VAL_AUTO};
}

static const tn_dataset_def *by_name(const char *name) {
    for (int i = 0; i < TN_ARRAY_LEN(registry); i++)
        if (strcmp(registry[i]->name, name) == 0) return registry[i];
    return NULL;
}

void tn_dir_name(const char *dir, const char *otherwise, char *out, size_t cap) {
    char *full = realpath(dir, NULL);
    const char *slash = full ? strrchr(full, '/') : NULL;
    snprintf(out, cap, "%.*s", (int)cap - 1, slash && slash[1] ? slash + 1 : otherwise);
    free(full);
}

/* Neither a directory nor a name: say what it could have been. */
static int unknown(const char *where, const char *name, tn_err *e) {
    const char *names[TN_ARRAY_LEN(registry)];
    for (int i = 0; i < TN_ARRAY_LEN(registry); i++) names[i] = registry[i]->name;
    const char *near = tn_nearest(name, TN_ARRAY_LEN(registry), names);
    return tn_fail(e,
                   "--data %s: no such directory%s%s%s; give a directory with the four IDX files of MNIST "
                   "(train-images-idx3-ubyte.gz, ...; data/mnist holds them) or one with a folder of "
                   "pictures a class, or "
                   "synthetic:n=6000 for a data set made by formula, with no file",
                   where, near ? " (did you mean \"" : "", near ? near : "", near ? "\"?)" : "");
}

/*
 * "DIR" or "DIR,key=value,..." after "name:". What is there as it stands is a directory, whatever it has in
 * its name; else what stands before the first comma, when it is no option.
 */
static int open_named(const tn_dataset_def *def, const char *options, const tn_data_options *o,
                      tn_dataset *out, tn_err *e) {
    struct stat st;
    size_t n = strcspn(options, ",");
    int whole = stat(options, &st) == 0;
    if (!*options || (!whole && memchr(options, '=', n)))
        return tn_dataset_open_def(def, NULL, options, o, out, e);
    if (whole) n = strlen(options);
    char *dir = tn_mem_new(n + 1);
    if (!dir) return tn_fail(e, "data set %s: out of memory", def->name);
    memcpy(dir, options, n);
    int rc = tn_dataset_open_def(def, dir, options + n + (options[n] == ','), o, out, e);
    tn_free(dir);
    return rc;
}

int tn_dataset_open(const char *where, const tn_data_options *o, tn_dataset *out, tn_err *e) {
    char name[TN_MAX_NAME];
    struct stat st;
    memset(out, 0, sizeof *out);
    if (stat(where, &st) == 0) {
        if (!S_ISDIR(st.st_mode))
            return tn_fail(e, "--data %s: is a file; give the directory that holds the data set's files",
                           where);
        for (int i = 0; i < TN_ARRAY_LEN(registry); i++)
            if (registry[i]->recognise && registry[i]->recognise(where))
                return tn_dataset_open_def(registry[i], where, NULL, o, out, e);
        return tn_fail(e,
                       "--data %s: this directory holds no data set that is known here (looked for "
                       "train-images-idx3-ubyte, train-images.idx3-ubyte, with or without .gz, and so on; "
                       "and for sub-folders with pictures, one a class)",
                       where);
    }
    int why = errno;
    const char *options = tn_spec_split(where, name, sizeof name);
    const tn_dataset_def *def = by_name(name);
    if (def && def->recognise) return open_named(def, options, o, out, e);
    if (def) return tn_dataset_open_def(def, NULL, options, o, out, e);
    if (why != ENOENT && why != ENOTDIR) return tn_fail(e, "--data %s: %s", where, strerror(why));
    return unknown(where, name, e);
}

/* A definition from outside must have kept its promises. */
static int check_opened(const tn_dataset_def *def, const tn_dataset *d, tn_err *e) {
    const tn_data *a = &d->train, *b = &d->test;
    if (d->test_only && a->n == 0 && b->n > 0 && b->own) return 0;
    if (a->n < 1 || b->n < 1 || !a->own || !b->own || d->val.n != 0 || strlen(d->data_hash) != 64)
        return tn_fail(e, "data set %s: its open() left train, test or data_hash unset", def->name);
    if (a->xtype != b->xtype || a->nd != b->nd || memcmp(a->dim, b->dim, sizeof a->dim)
        || a->classes != b->classes || a->targets != b->targets)
        return tn_fail(e, "data set %s: its training and test parts differ in shape or targets", def->name);
    return 0;
}

int tn_dataset_open_def(const tn_dataset_def *def, const char *dir, const char *options,
                        const tn_data_options *o, tn_dataset *out, tn_err *e) {
    char what[TN_MAX_NAME + 16];
    memset(out, 0, sizeof *out);
    if (def->abi != TN_ABI || def->size != sizeof *def)
        return tn_fail(e, "data set %s: made for another version of tern_data.h", def->name);
    void *cfg = tn_mem_new(def->cfg_size);
    if (!cfg) return tn_fail(e, "data set %s: out of memory", def->name);
    snprintf(what, sizeof what, "--data %s", def->name);
    tn_opts_default(def->cfg, cfg);
    int rc = tn_opts_parse(def->cfg, cfg, options, what, NULL, e);
    out->test_only = o->test_only;
    if (rc == 0) rc = def->open(dir, cfg, out, e);
    if (rc == 0) rc = check_opened(def, out, e);
    if (rc == 0 && out->train.n > 0) rc = tn_dataset_prepare(out, o, e);
    tn_free(cfg);
    if (rc) tn_dataset_free(out);
    return rc ? -1 : 0;
}

void tn_dataset_free(tn_dataset *d) {
    tn_data_free(&d->train);
    tn_data_free(&d->val);
    tn_data_free(&d->test);
    tn_free(d->class_name);
    memset(d, 0, sizeof *d);
}

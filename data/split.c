/* SPDX-License-Identifier: MIT */
/*
 * What is done to a data set once it has been read: validation split, subset, label noise, normalisation,
 * hashes.
 *
 * The arrays of the training set are big, so nothing is copied but the validation images: what is left is
 * moved together in place and the memory behind it given back. When the same data serve many runs
 * (tn_dataset_derive), all this is done to labels and positions alone, and only the samples that are left are
 * copied from the whole set.
 */
#include "data_internal.h"
#include "internal.h"
#include <math.h>
#include <string.h>

/*
 * The split belongs to the data, not to the run: runs with different seeds are compared on the same images.
 */
static const uint64_t SPLIT_SEED = 1;
enum { VAL_MOST = 5000, VAL_SHARE = 12 };

/* ---- stratified draws ---- */

/*
 * How many of k draws from n samples each class gets, count[c] of them being of class c: k count[c] / n
 * rounded down, and one more for the largest remainders (the lower class where equal) until they add up to k.
 */
static void quotas(int classes, const int *count, int n, int k, int *quota) {
    int left = k;
    for (int c = 0; c < classes; c++) left -= quota[c] = (int)((int64_t)k * count[c] / n);
    for (; left > 0; left--) {
        int best = -1;
        int64_t most = -1;
        for (int c = 0; c < classes; c++) {
            int64_t rest = (int64_t)k * count[c] - (int64_t)quota[c] * n;
            if (rest > most) most = rest, best = c;
        }
        quota[best]++;
    }
}

/*
 * Sets mark[i] for k samples of d, each class in proportion; class c draws from (seed, stream, c). -1: no
 * memory.
 */
static int draw(const tn_data *d, int k, uint64_t seed, const char *stream, unsigned char *mark) {
    int classes = d->classes > 0 ? d->classes : 1, n = d->n;
    int *count = tn_mem_new(2 * (size_t)classes * sizeof *count), *quota = count ? count + classes : NULL;
    int *member = tn_mem_new(2 * (size_t)n * sizeof *member), *order = member ? member + n : NULL;
    if (!count || !member) {
        tn_free(count);
        tn_free(member);
        return -1;
    }
    for (int i = 0; i < n; i++) count[d->label ? d->label[i] : 0]++;
    quotas(classes, count, n, k, quota);
    memset(mark, 0, (size_t)n);
    for (int c = 0; c < classes; c++) {
        int members = 0;
        tn_rng r = tn_rng_make(seed, stream, "", (uint64_t)c, 0);
        for (int i = 0; i < n; i++)
            if (!d->label || d->label[i] == c) member[members++] = i;
        tn_permutation(&r, members, order);
        for (int i = 0; i < quota[c]; i++) mark[member[order[i]]] = 1;
    }
    tn_free(count);
    tn_free(member);
    return 0;
}

/* ---- moving samples ---- */

static void move(tn_data *to, int i, const tn_data *from, int j) {
    tn_arrays *a = to->own, *b = from->own;
    size_t row = from->len * tn_dtype_size(from->xtype), targets = (size_t)from->targets;
    if (a == b && i == j) return;
    if (a->x && b->x) memcpy((char *)a->x + (size_t)i * row, (char *)b->x + (size_t)j * row, row);
    a->origin[i] = b->origin[j];
    if (b->label) a->label[i] = b->label[j];
    if (b->target)
        memcpy(a->target + (size_t)i * targets, b->target + (size_t)j * targets, targets * sizeof(float));
}

/* Gives back memory; should that fail, what was there still holds everything. */
static void *shrink(void *p, size_t bytes) {
    void *q = p ? tn_mem_resize(p, bytes) : NULL;
    return q ? q : p;
}

static void set_size(tn_data *d, int n) {
    tn_arrays *a = d->own;
    size_t count = (size_t)n;
    d->n = n;
    d->x = a->x = shrink(a->x, count * d->len * tn_dtype_size(d->xtype));
    d->origin = a->origin = shrink(a->origin, count * sizeof *a->origin);
    d->label = a->label = shrink(a->label, count * sizeof *a->label);
    d->target = a->target = shrink(a->target, count * (size_t)d->targets * sizeof *a->target);
}

/*
 * Moves the marked samples to out (NULL: drops them); the others close up. Both keep the order of the file.
 */
static void part(tn_data *from, const unsigned char *mark, tn_data *out) {
    int kept = 0, taken = 0;
    for (int i = 0; i < from->n; i++) {
        if (!mark[i])
            move(from, kept++, from, i);
        else if (out)
            move(out, taken++, from, i);
    }
    set_size(from, kept);
}

/* The samples of d out of the whole set. origin said where they are in it; now it says so of the file. */
static int fetch(tn_data *d, const tn_data *whole) {
    tn_arrays *a = d->own;
    size_t row = d->len * tn_dtype_size(d->xtype);
    if (!d->n) return 0;
    if (!a->x) d->x = a->x = tn_mem_new((size_t)d->n * row);
    if (!a->x) return -1;
    for (int i = 0; i < d->n; i++) {
        int from = a->origin[i];
        memcpy((char *)a->x + (size_t)i * row, (const char *)whole->x + (size_t)from * row, row);
        if (whole->origin) a->origin[i] = whole->origin[from];
    }
    return 0;
}

/* ---- the steps ---- */

static int check(const tn_dataset *ds, const tn_data_options *o, int val, tn_err *e) {
    int n = ds->train.n, left = n - val;
    if (o->val_size < TN_VAL_AUTO) return tn_fail(e, "--val-size %d: must be 0 (none) or more", o->val_size);
    if (left < 1)
        return tn_fail(
            e,
            "--val-size %d: the training set of %s has %d samples, of which at least one must be left to "
            "train on",
            val, ds->name, n);
    if (o->train_size < 0) return tn_fail(e, "--train-size %d: must be 0 (all) or more", o->train_size);
    if (o->train_size > left)
        return tn_fail(e, "--train-size %d: %s has %d training samples, %d with --val-size %d taken out",
                       o->train_size, ds->name, n, left, val);
    if (!(o->label_noise >= 0 && o->label_noise < 1))
        return tn_fail(e, "--label-noise %g: must be a share, 0 or more and less than 1", o->label_noise);
    if (o->label_noise > 0 && ds->train.classes < 2)
        return tn_fail(e, "--label-noise %g: %s has no classes to confuse", o->label_noise, ds->name);
    if (o->normalize < 0 || o->normalize > 1) return tn_fail(e, "--normalize: none or meanstd");
    return 0;
}

static int take_validation(tn_dataset *ds, int val, unsigned char *mark, tn_err *e) {
    tn_data *d = &ds->train;
    if (val == 0) return 0;
    if (tn_data_alloc(&ds->val, val, d->nd, d->dim, d->xtype, d->classes, d->targets, e)) return -1;
    ds->val.scale = d->scale;
    ds->val.shift = d->shift;
    if (draw(d, val, SPLIT_SEED, "split", mark)) return tn_fail(e, "%s: out of memory", ds->name);
    part(d, mark, &ds->val);
    return 0;
}

static int take_subset(tn_data *d, int size, uint64_t seed, unsigned char *mark) {
    if (size == 0 || size == d->n) return 0;
    if (draw(d, size, seed, "subset", mark)) return -1;
    for (int i = 0; i < d->n; i++) mark[i] ^= 1;
    part(d, mark, NULL);
    return 0;
}

/*
 * The first round(p n) samples of a random order get another label. Order and new labels do not depend on p:
 * more noise adds to what less noise has changed.
 */
static int add_noise(tn_data *d, double p, uint64_t seed) {
    int k = (int)floor(p * d->n + 0.5), *label = ((tn_arrays *)d->own)->label;
    if (k == 0) return 0;
    int *order = tn_mem_new((size_t)d->n * sizeof *order);
    if (!order) return -1;
    tn_rng r = tn_rng_make(seed, "noise", "which", 0, 0), to = tn_rng_make(seed, "noise", "label", 0, 0);
    tn_permutation(&r, d->n, order);
    for (int i = 0; i < k; i++) {
        int *y = &label[order[i]];
        *y = (*y + 1 + tn_below(&to, d->classes - 1)) % d->classes;
    }
    tn_free(order);
    return 0;
}

/*
 * Mean and standard deviation of all values; for bytes from their histogram, so exact but for the last
 * rounding.
 */
static void mean_std(const tn_data *d, double *mean, double *std) {
    size_t n = (size_t)d->n * d->len;
    double sum = 0, sq = 0;
    if (d->xtype == TN_U8) {
        const unsigned char *x = d->x;
        uint64_t count[256] = {0}, s = 0;
        for (size_t i = 0; i < n; i++) count[x[i]]++;
        for (int v = 0; v < 256; v++) s += count[v] * (uint64_t)v;
        *mean = (double)s / (double)n;
        for (int v = 0; v < 256; v++) sq += (double)count[v] * (v - *mean) * (v - *mean);
    } else {
        const float *x = d->x;
        for (size_t i = 0; i < n; i++) sum += x[i];
        *mean = sum / (double)n;
        for (size_t i = 0; i < n; i++) sq += (x[i] - *mean) * (x[i] - *mean);
    }
    *std = sqrt(sq / (double)n);
}

static int normalize(tn_dataset *ds, tn_err *e) {
    double mean, std;
    mean_std(&ds->train, &mean, &std);
    if (!(std > 0) || isinf(std))
        return tn_fail(e, "--normalize meanstd: the training samples of %s have standard deviation %g",
                       ds->name, std);
    tn_data *part[] = {&ds->train, &ds->val, &ds->test};
    for (int i = 0; i < 3; i++) {
        part[i]->scale = 1 / std;
        part[i]->shift = -mean / std;
    }
    return 0;
}

static void hash_split(tn_dataset *ds) {
    tn_sha256 sha;
    tn_sha256_begin(&sha);
    if (ds->val.n) tn_sha256_int(&sha, ds->val.origin, (size_t)ds->val.n);
    tn_sha256_end(&sha, ds->split_hash);
}

/* Hash of a part: where its samples come from, and its labels, which noise may have changed. */
static void hash_part(const tn_dataset *ds, const char *name, tn_data *d) {
    tn_sha256 sha;
    if (d->n == 0) return;
    tn_sha256_begin(&sha);
    tn_sha256_add(&sha, ds->data_hash, 64);
    tn_sha256_add(&sha, name, strlen(name) + 1);
    tn_sha256_int(&sha, &d->n, 1);
    tn_sha256_int(&sha, d->origin, (size_t)d->n);
    if (d->label) tn_sha256_int(&sha, d->label, (size_t)d->n);
    tn_sha256_end(&sha, d->hash);
}

/* Split, subset and noise. whole: where samples that were not copied come from, or NULL. */
static int prepare(tn_dataset *ds, const tn_dataset *whole, const tn_data_options *o, tn_err *e) {
    int n = ds->train.n, val = o->val_size, rc;
    if (val == TN_VAL_AUTO) val = n / VAL_SHARE < VAL_MOST ? n / VAL_SHARE : VAL_MOST;
    if (check(ds, o, val, e)) return -1;
    unsigned char *mark = tn_mem_new((size_t)n);
    if (!mark) return tn_fail(e, "%s: out of memory", ds->name);
    rc = take_validation(ds, val, mark, e);
    if (rc == 0
        && (take_subset(&ds->train, o->train_size, o->seed, mark)
            || add_noise(&ds->train, o->label_noise, o->seed)))
        rc = tn_fail(e, "%s: out of memory", ds->name);
    tn_free(mark);
    if (rc == 0 && whole && (fetch(&ds->train, &whole->train) || fetch(&ds->val, &whole->train)))
        rc = tn_fail(e, "%s: out of memory", ds->name);
    if (rc || (o->normalize && normalize(ds, e))) return -1;
    hash_split(ds);
    hash_part(ds, "train", &ds->train);
    hash_part(ds, "val", &ds->val);
    hash_part(ds, "test", &ds->test);
    return 0;
}

int tn_dataset_prepare(tn_dataset *ds, const tn_data_options *o, tn_err *e) {
    return prepare(ds, NULL, o, e);
}

/* ---- from a whole set ---- */

/* A copy. Without samples: for now origin is where they are in from. */
static int copy_part(tn_data *to, const tn_data *from, int samples, tn_err *e) {
    tn_arrays *a;
    size_t n = (size_t)from->n, bytes = n * from->len * tn_dtype_size(from->xtype);
    *to = *from;
    to->x = NULL, to->label = NULL, to->target = NULL, to->origin = NULL;
    to->own = a = tn_mem_new(sizeof *a);
    if (!a) return tn_fail(e, "data: out of memory");
    if (samples) to->x = a->x = tn_mem_new(bytes);
    if (from->label) to->label = a->label = tn_mem_new(n * sizeof *a->label);
    if (from->target) to->target = a->target = tn_mem_new(n * (size_t)from->targets * sizeof *a->target);
    to->origin = a->origin = tn_mem_new(n * sizeof *a->origin);
    if ((samples && !a->x) || (from->label && !a->label) || (from->target && !a->target) || !a->origin)
        return tn_fail(e, "data: out of memory: %d samples", from->n);
    if (samples) memcpy(a->x, from->x, bytes);
    if (from->label) memcpy(a->label, from->label, n * sizeof *a->label);
    if (from->target) memcpy(a->target, from->target, n * (size_t)from->targets * sizeof *a->target);
    for (int i = 0; i < from->n; i++) a->origin[i] = samples && from->origin ? from->origin[i] : i;
    return 0;
}

static int copy_names(tn_dataset *to, const tn_dataset *from, tn_err *e) {
    size_t bytes = (size_t)from->train.classes * sizeof *from->class_name;
    if (!from->class_name) return 0;
    if (!(to->class_name = tn_mem_new(bytes))) return tn_fail(e, "%s: out of memory", from->name);
    memcpy(to->class_name, from->class_name, bytes);
    return 0;
}

int tn_dataset_derive(const tn_dataset *whole, const tn_data_options *o, tn_dataset *out, tn_err *e) {
    *out = *whole;
    out->class_name = NULL;
    memset(&out->train, 0, sizeof out->train);
    memset(&out->val, 0, sizeof out->val);
    memset(&out->test, 0, sizeof out->test);
    int rc =
        whole->val.n ? tn_fail(e, "%s: is not whole: it was opened with a validation split", whole->name) : 0;
    if (rc == 0) rc = copy_names(out, whole, e);
    if (rc == 0) rc = copy_part(&out->train, &whole->train, 0, e);
    if (rc == 0) rc = copy_part(&out->test, &whole->test, 1, e);
    if (rc == 0) rc = prepare(out, whole, o, e);
    if (rc) tn_dataset_free(out);
    return rc ? -1 : 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * A folder of pictures: one sub-folder a class, named as the class; or such sub-folders in train/ and in
 * test/. Classes and files are taken in the order of their names (bytes), so that the same folder is the same
 * data set.
 */
#include "data_internal.h"
#include "internal.h"
#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

enum { CLASSES_MOST = 1000, FILES_MOST = 1000000, TEST_SEED = 0 };
#define BYTES_MOST ((size_t)1 << 31)

typedef struct {
    char dir[TN_MAX_TEXT];
    long size, height, width;
    int color, skip_broken;
    double test;
} config;
static const tn_opt table[] = {
    TN_OPT_TEXT(config, dir, "", "the folder"),
    TN_OPT_INT(config, size, 28, 1, 1024, "height and width that pictures are stretched to, in pixels"),
    TN_OPT_INT(config, height, 0, 0, 1024, "height; 0: size"),
    TN_OPT_INT(config, width, 0, 0, 1024, "width; 0: size"),
    TN_OPT_WORD(config, color, "grey|rgb", 0, "one channel or three"),
    TN_OPT_REAL(config, test, 0, 0, 0.9, 0,
                "share of each class kept for testing; 0: the folder test beside train, or else 0.2"),
    TN_OPT_BOOL(config, skip_broken, 0, "leave out pictures that cannot be read, and count them"),
    TN_OPT_END,
};

/* ---- lists of names ---- */

typedef struct {
    char **name;
    int *label; /* of pictures */
    int n, cap;
} list;

/* What lay beside the pictures. */
typedef struct {
    long links, hidden, other, broken;
    char first[128]; /* the first broken one */
} left_out;

static void list_free(list *l) {
    for (int i = 0; i < l->n; i++) tn_free(l->name[i]);
    tn_free(l->name);
    tn_free(l->label);
    memset(l, 0, sizeof *l);
}

/* Adds "dir/name", or name alone when dir is NULL. */
static int list_add(list *l, const char *dir, const char *name, int label, tn_err *e) {
    if (l->n == l->cap) {
        int cap = l->cap ? 2 * l->cap : 64;
        char **a = tn_mem_resize(l->name, (size_t)cap * sizeof *a);
        if (a) l->name = a;
        int *b = a ? tn_mem_resize(l->label, (size_t)cap * sizeof *b) : NULL;
        if (!b) return tn_fail(e, "%s: out of memory", dir ? dir : name);
        l->label = b;
        l->cap = cap;
    }
    size_t room = (dir ? strlen(dir) + 1 : 0) + strlen(name) + 1;
    char *p = tn_mem_new(room);
    if (!p) return tn_fail(e, "%s: out of memory", dir ? dir : name);
    snprintf(p, room, "%s%s%s", dir ? dir : "", dir ? "/" : "", name);
    l->label[l->n] = label;
    l->name[l->n++] = p;
    return 0;
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static int has(const list *l, const char *name) {
    for (int i = 0; i < l->n; i++)
        if (strcmp(l->name[i], name) == 0) return 1;
    return 0;
}

static int is_picture(const char *name) {
    static const char *const endings[] = {"png", "jpg", "jpeg", "bmp", "gif", "pnm", "pgm", "ppm"};
    const char *dot = strrchr(name, '.');
    for (int i = 0; dot && i < TN_ARRAY_LEN(endings); i++)
        if (strcasecmp(dot + 1, endings[i]) == 0) return 1;
    return 0;
}

/*
 * The sub-folders (folders 1) or the pictures (0) of dir, by name; counts what is neither when out is not
 * NULL.
 */
static int scan(const char *dir, int folders, int label, list *l, left_out *out, tn_err *e) {
    DIR *d = opendir(dir);
    int start = l->n, rc = 0;
    if (!d) return tn_fail(e, "%s: cannot open: %s", dir, strerror(errno));
    for (struct dirent *f; rc == 0 && (errno = 0, f = readdir(d)) != NULL;) {
        struct stat st;
        char path[PATH_MAX];
        if (strcmp(f->d_name, ".") == 0 || strcmp(f->d_name, "..") == 0) continue;
        int n = snprintf(path, sizeof path, "%s/%s", dir, f->d_name);
        int known = n < (int)sizeof path && lstat(path, &st) == 0;
        long *why = &out->other;
        if (f->d_name[0] == '.')
            why = &out->hidden;
        else if (known && S_ISLNK(st.st_mode))
            why = &out->links;
        else if (known && (folders ? S_ISDIR(st.st_mode) : S_ISREG(st.st_mode) && is_picture(f->d_name)))
            why = NULL;
        if (why)
            ++*why;
        else if (l->n == (folders ? CLASSES_MOST : FILES_MOST))
            rc = tn_fail(e, "%s: too many %s: more than %d", dir, folders ? "sub-folders" : "pictures", l->n);
        else
            rc = list_add(l, folders ? NULL : dir, f->d_name, label, e);
    }
    if (rc == 0 && errno) rc = tn_fail(e, "%s: cannot read: %s", dir, strerror(errno));
    closedir(d);
    if (l->n > start) qsort(l->name + start, (size_t)(l->n - start), sizeof *l->name, by_name);
    return rc;
}

/* A directory with a sub-folder with a picture; or with those one level down, in train. */
static int holds_pictures(const char *dir, int deeper) {
    char path[PATH_MAX];
    list names = {0}, files = {0};
    left_out ignored = {0};
    int yes = 0;
    if (scan(dir, 1, 0, &names, &ignored, NULL) == 0)
        for (int i = 0; i < names.n && !yes && files.n == 0; i++) {
            snprintf(path, sizeof path, "%s/%s", dir, names.name[i]);
            if (deeper && strcmp(names.name[i], "train") == 0) yes = holds_pictures(path, 0);
            (void)scan(path, 0, 0, &files, &ignored, NULL);
        }
    yes |= files.n > 0;
    list_free(&names);
    list_free(&files);
    return yes;
}

static int recognise(const char *dir) {
    return holds_pictures(dir, 1);
}

/* ---- classes and their files ---- */

/* Names go into checkpoints, tables and messages. */
static int check_name(const char *dir, const char *name, tn_err *e) {
    const unsigned char *p = (const unsigned char *)name;
    int bad = strlen(name) >= TN_MAX_NAME;
    for (int rest = 0; *p || rest; p++) { /* UTF-8, no control characters */
        if (rest) {
            if ((*p & 0xc0) != 0x80) return tn_fail(e, "%s: a sub-folder's name is not UTF-8", dir);
            rest--;
            continue;
        }
        bad |= *p < ' ' || *p == 127;
        rest = *p < 0x80                 ? 0
               : *p >= 0xc2 && *p < 0xe0 ? 1
               : *p >= 0xe0 && *p < 0xf0 ? 2
               : *p >= 0xf0 && *p < 0xf5 ? 3
                                         : -1;
        if (rest < 0) return tn_fail(e, "%s: a sub-folder's name is not UTF-8", dir);
    }
    return bad ? tn_fail(
               e, "%s: the sub-folder %.60s: its name is longer than %d bytes or has control characters", dir,
               name, TN_MAX_NAME - 1)
               : 0;
}

static int list_part(const char *dir, const list *classes, list *files, left_out *out, tn_err *e) {
    char path[PATH_MAX];
    for (int c = 0; c < classes->n; c++) {
        int before = files->n, n = snprintf(path, sizeof path, "%s/%s", dir, classes->name[c]);
        if (n >= (int)sizeof path) return tn_fail(e, "%s: its path is too long", dir);
        if (scan(path, 0, c, files, out, e)) return -1;
        if (files->n == before)
            return tn_fail(
                e,
                "%s: no pictures in this folder (.png .jpg .bmp .gif .pnm .pgm .ppm); each sub-folder of %s "
                "is a class",
                path, dir);
    }
    return 0;
}

/* The classes of dir; the same ones as *must, when there are any. */
static int list_classes(const char *dir, list *classes, const list *must, left_out *out, tn_err *e) {
    if (scan(dir, 1, 0, classes, out, e)) return -1;
    for (int i = 0; i < classes->n; i++) {
        if (check_name(dir, classes->name[i], e)) return -1;
        if (must && !has(must, classes->name[i]))
            return tn_fail(e, "%s: the class %s is not among those to train on", dir, classes->name[i]);
    }
    for (int i = 0; must && i < must->n; i++)
        if (!has(classes, must->name[i]))
            return tn_fail(e, "%s: the class %s is missing", dir, must->name[i]);
    if (classes->n < 2)
        return tn_fail(e,
                       "%s: holds %s; each sub-folder with pictures is a class, and at least two are needed",
                       dir, classes->n ? "one sub-folder only" : "no sub-folders");
    return 0;
}

/* Moves a share of each class to test: which ones, depends on the number of its files and its name alone. */
static int draw_test(double share, const list *classes, list *train, list *test, tn_err *e) {
    int kept = 0, rc = 0;
    int *order = tn_mem_new((size_t)train->n * sizeof *order);
    unsigned char *mark = tn_mem_new((size_t)train->n);
    if (!order || !mark) rc = tn_fail(e, "out of memory");
    for (int lo = 0, hi; lo < train->n && rc == 0; lo = hi) {
        for (hi = lo; hi < train->n && train->label[hi] == train->label[lo]; hi++) continue;
        int n = hi - lo, k = (int)(share * n + 0.5);
        tn_rng r = tn_rng_make(TEST_SEED, "images", classes->name[train->label[lo]], 0, 0);
        tn_permutation(&r, n, order);
        if (k < 1) k = 1;
        if (k > n - 1) k = n - 1;
        for (int i = 0; i < k; i++) mark[lo + order[i]] = 1;
    }
    for (int i = 0; i < train->n && rc == 0; i++)
        if (mark[i]) rc = list_add(test, NULL, train->name[i], train->label[i], e);
    for (int i = 0; i < train->n && rc == 0; i++)
        if (mark[i]) {
            tn_free(train->name[i]);
        } else {
            train->label[kept] = train->label[i];
            train->name[kept++] = train->name[i];
        }
    if (rc == 0) train->n = kept;
    tn_free(order);
    tn_free(mark);
    if (rc == 0 && test->n == 0) rc = tn_fail(e, "no class has two pictures: nothing is left for testing");
    return rc;
}

/* ---- reading ---- */

typedef struct {
    const list *files;
    tn_data *d;
    unsigned char *failed; /* one a file */
} job;

/* Picture i into its place of the data, channels first. */
static int read_one(const job *j, int i, tn_err *e) {
    const tn_data *d = j->d;
    tn_image full, small;
    if (tn_image_read(j->files->name[i], d->dim[0], 0, &full, e)) return -1;
    int bad = tn_image_resize(&full, d->dim[1], d->dim[2], &small, e);
    tn_image_free(&full);
    if (bad) return -1;
    unsigned char *to = (unsigned char *)((tn_arrays *)d->own)->x + (size_t)i * d->len;
    size_t plane = d->len / (size_t)d->dim[0];
    for (size_t p = 0; p < d->len; p++)
        to[p % (size_t)d->dim[0] * plane + p / (size_t)d->dim[0]] = small.x[p];
    tn_image_free(&small);
    return 0;
}

static void read_chunk(void *arg, int i) {
    job *j = arg;
    j->failed[i] = read_one(j, i, NULL) != 0;
}

/* Closes the gaps of the pictures that failed. */
static void close_up(job *j) {
    tn_data *d = j->d;
    tn_arrays *a = d->own;
    int kept = 0;
    for (int i = 0; i < d->n; i++) {
        if (j->failed[i]) continue;
        memmove((char *)a->x + (size_t)kept * d->len, (char *)a->x + (size_t)i * d->len, d->len);
        a->label[kept] = a->label[i];
        a->origin[kept++] = i;
    }
    d->n = kept;
}

static int after_reading(job *j, const config *c, const list *classes, left_out *out, tn_err *e) {
    unsigned char left[CLASSES_MOST] = {0};
    for (int i = 0; i < j->d->n; i++) {
        if (!j->failed[i]) left[j->files->label[i]] = 1;
        if (!j->failed[i] || out->broken++ > 0) continue;
        if (!c->skip_broken) {
            tn_err why = {""};
            if (read_one(j, i, &why) == 0)
                return tn_fail(e, "%s: could be read at the second try only", j->files->name[i]);
            return tn_fail(e, "%.440s; skip_broken=on leaves it out", why.msg);
        }
        snprintf(out->first, sizeof out->first, "%s", j->files->name[i]);
    }
    for (int k = 0; k < classes->n; k++)
        if (!left[k] && out->broken)
            return tn_fail(e, "%s: no picture of class %s is left, all are broken", j->files->name[0],
                           classes->name[k]);
    close_up(j);
    return 0;
}

static int read_part(const config *c, const list *files, const list *classes, tn_data *d, left_out *out,
                     tn_sha256 *sha, tn_err *e) {
    int h = (int)(c->height ? c->height : c->size), w = (int)(c->width ? c->width : c->size);
    if (tn_data_alloc(d, files->n, 3, (int[]){c->color ? 3 : 1, h, w}, TN_U8, classes->n, 0, e)) return -1;
    memcpy(((tn_arrays *)d->own)->label, files->label, (size_t)files->n * sizeof(int));
    job j = {files, d, tn_mem_new((size_t)files->n)};
    if (!j.failed) return tn_fail(e, "out of memory");
    tn_parallel(files->n, read_chunk, &j);
    int rc = after_reading(&j, c, classes, out, e);
    tn_free(j.failed);
    if (rc) return -1;
    tn_sha256_int(sha, (int[]){d->n, d->dim[0], h, w}, 4);
    tn_sha256_add(sha, d->x, (size_t)d->n * d->len);
    tn_sha256_int(sha, d->label, (size_t)d->n);
    return 0;
}

static void write_note(const left_out *o, char *out, size_t cap) {
    size_t at = 0;
    const struct {
        long n;
        const char *one, *more;
    } rows[] = {{o->hidden, "hidden entry", "hidden entries"},
                {o->links, "symbolic link", "symbolic links"},
                {o->other, "other file or folder", "other files or folders"}};
    if (o->broken)
        at = (size_t)snprintf(out, cap, "%ld broken picture%s left out, the first is %.100s", o->broken,
                              o->broken == 1 ? "" : "s", o->first);
    for (int i = 0; i < TN_ARRAY_LEN(rows); i++)
        if (rows[i].n && at < cap)
            at += (size_t)snprintf(out + at, cap - at, "%s%ld %s not looked at", at ? "; " : "", rows[i].n,
                                   rows[i].n == 1 ? rows[i].one : rows[i].more);
}

typedef struct {
    list top, train_classes, test_classes, train, test;
    left_out out;
} folder;

/* Finds classes and files of both parts. */
static int look(const char *dir, const config *c, folder *f, tn_err *e) {
    char path[PATH_MAX];
    if (scan(dir, 1, 0, &f->top, &f->out, e)) return -1;
    if (!has(&f->top, "train") || !has(&f->top, "test")) {
        f->out = (left_out){0};
        return list_classes(dir, &f->train_classes, NULL, &f->out, e)
                       || list_part(dir, &f->train_classes, &f->train, &f->out, e)
                       || draw_test(c->test > 0 ? c->test : 0.2, &f->train_classes, &f->train, &f->test, e)
                   ? -1
                   : 0;
    }
    if (c->test > 0)
        return tn_fail(e, "--data images: test=%g contradicts %s/test, which is there", c->test, dir);
    f->out.other += f->top.n - 2; /* folders beside the two */
    snprintf(path, sizeof path, "%s/train", dir);
    if (list_classes(path, &f->train_classes, NULL, &f->out, e)
        || list_part(path, &f->train_classes, &f->train, &f->out, e))
        return -1;
    snprintf(path, sizeof path, "%s/test", dir);
    return list_classes(path, &f->test_classes, &f->train_classes, &f->out, e)
                   || list_part(path, &f->test_classes, &f->test, &f->out, e)
               ? -1
               : 0;
}

static int open_found(const char *dir, const config *c, folder *f, tn_dataset *out, tn_err *e) {
    size_t one = (size_t)(c->height ? c->height : c->size) * (size_t)(c->width ? c->width : c->size)
                 * (c->color ? 3 : 1);
    const list *classes = &f->train_classes;
    tn_sha256 sha;
    if (((size_t)f->train.n + (size_t)f->test.n) * one > BYTES_MOST)
        return tn_fail(
            e, "%s: too many pictures: %d of %zu bytes each are more than %zu bytes; choose a smaller size",
            dir, f->train.n + f->test.n, one, BYTES_MOST);
    out->class_name = tn_mem_new((size_t)classes->n * sizeof *out->class_name);
    if (!out->class_name) return tn_fail(e, "%s: out of memory", dir);
    tn_sha256_begin(&sha);
    for (int i = 0; i < classes->n; i++) {
        snprintf(out->class_name[i], TN_MAX_NAME, "%s", classes->name[i]);
        tn_sha256_add(&sha, classes->name[i], strlen(classes->name[i]) + 1);
    }
    int rc = read_part(c, &f->train, classes, &out->train, &f->out, &sha, e)
             || read_part(c, &f->test, classes, &out->test, &f->out, &sha, e);
    tn_sha256_end(&sha, out->data_hash);
    write_note(&f->out, out->note, sizeof out->note);
    tn_dir_name(dir, "images", out->name, sizeof out->name);
    return rc ? -1 : 0;
}

static int open_images(const char *dir, const void *cfg, tn_dataset *out, tn_err *e) {
    const config *c = cfg;
    folder f = {0};
    if (!dir) dir = c->dir;
    if (!*dir) return tn_fail(e, "--data images: needs its folder: --data images:DIR");
    int rc = look(dir, c, &f, e) || open_found(dir, c, &f, out, e);
    list *lists[] = {&f.top, &f.train_classes, &f.test_classes, &f.train, &f.test};
    for (int i = 0; i < TN_ARRAY_LEN(lists); i++) list_free(lists[i]);
    return rc ? -1 : 0;
}

extern const tn_dataset_def tn_dataset_images;
const tn_dataset_def tn_dataset_images = {
    .abi = TN_ABI,
    .size = sizeof(tn_dataset_def),
    .name = "images",
    .summary = "a folder of pictures, one sub-folder a class: images:DIR or images:DIR,key=value",
    .cfg_size = sizeof(config),
    .cfg = table,
    .recognise = recognise,
    .open = open_images,
};

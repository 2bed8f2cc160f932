/* SPDX-License-Identifier: MIT */
/*
 * MNIST and every data set that comes in the same four IDX files (Fashion-MNIST, KMNIST, one part of EMNIST
 * renamed): training and test, pictures of any size and their labels.
 */
#include "data_internal.h"
#include "internal.h"
#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>

enum { TRAIN_X, TRAIN_Y, TEST_X, TEST_Y, FILES };
enum { PATH_BYTES = 1024, SLAB = 1 << 22 };

typedef struct {
    char dir[TN_MAX_TEXT];
    long classes;
} config;
static const tn_opt table[] = {
    TN_OPT_TEXT(config, dir, "", "directory of the four files"),
    TN_OPT_INT(config, classes, 10, 2, 256, "labels are 0 ... classes - 1"),
    TN_OPT_END,
};

/* ---- finding the files ---- */

static const char *const stem[FILES] = {"train-images", "train-labels", "t10k-images", "t10k-labels"};

/* The first name under which file i is there: with '-' or '.', plain before gzipped. 0: found. */
static int find(const char *dir, int i, char path[PATH_BYTES]) {
    static const char *const ending[] = {"", ".gz"};
    struct stat st;
    for (int gz = 0; gz < 2; gz++)
        for (int dot = 0; dot < 2; dot++) {
            int n = snprintf(path, PATH_BYTES, "%s/%s%cidx%d-ubyte%s", dir, stem[i], "-."[dot], i % 2 ? 1 : 3,
                             ending[gz]);
            if (n < PATH_BYTES && (stat(path, &st) == 0 || (errno != ENOENT && errno != ENOTDIR))) return 0;
        }
    return -1;
}

static int recognise(const char *dir) {
    char path[PATH_BYTES];
    for (int i = 0; i < FILES; i++)
        if (find(dir, i, path) == 0) return 1;
    return 0;
}

/* ---- checks ---- */

static int check_kind(const tn_idx *f, int i, const char *path, tn_err *e) {
    int dim[TN_IDX_MAX_DIM], nd = tn_idx_shape(f, dim), want = i % 2 ? 1 : 3;
    if (nd == want) return 0;
    if (nd == 4 - want)
        return tn_fail(e, "%s: holds %s, not %s: are the files for pictures and labels swapped?", path,
                       i % 2 ? "pictures" : "labels", i % 2 ? "labels" : "pictures");
    return tn_fail(e, "%s: has %d dimensions; %s", path, nd, i % 2 ? "labels have 1" : "pictures have 3");
}

static int check_counts(tn_idx *const f[], char path[][PATH_BYTES], tn_err *e) {
    int dim[FILES][TN_IDX_MAX_DIM];
    for (int i = 0; i < FILES; i++) tn_idx_shape(f[i], dim[i]);
    for (int i = 0; i < FILES; i += 2)
        if (dim[i][0] != dim[i + 1][0])
            return tn_fail(e, "%s: %d pictures, but %d labels in %s: they do not belong together", path[i],
                           dim[i][0], dim[i + 1][0], path[i + 1]);
    if (dim[TRAIN_X][1] != dim[TEST_X][1] || dim[TRAIN_X][2] != dim[TEST_X][2])
        return tn_fail(e, "%s: pictures of %d x %d, but %d x %d in %s: they do not belong together",
                       path[TEST_X], dim[TEST_X][1], dim[TEST_X][2], dim[TRAIN_X][1], dim[TRAIN_X][2],
                       path[TRAIN_X]);
    return 0;
}

/* ---- reading ---- */

/* Slab k is unpacked while slab k - 1 is hashed. Few slabs: each ends at a barrier, dear on busy cores. */
typedef struct {
    tn_idx *f;
    unsigned char *to;
    const unsigned char *from;
    size_t read, hash;
    tn_sha256 *const *sha;
    int failed;
    tn_err *err;
} slabs;

static void hash(tn_sha256 *const *sha, const void *bytes, size_t n) {
    for (; *sha; sha++) tn_sha256_add(*sha, bytes, n);
}

static void slab(void *arg, int chunk) {
    slabs *s = arg;
    if (chunk == 0 && s->read > 0) s->failed = tn_idx_read(s->f, s->to, s->read, s->err);
    if (chunk == 1 && s->hash > 0) hash(s->sha, s->from, s->hash);
}

/* All values of f into to; header and values into the hashes, of which NULL ends the list. */
static int read_all(tn_idx *f, unsigned char *to, tn_sha256 *const *sha, tn_err *e) {
    const unsigned char *header;
    size_t len = tn_idx_len(f), done = 0, n = tn_idx_header(f, &header);
    slabs s = {.f = f, .sha = sha, .err = e};
    hash(sha, header, n);
    do {
        s.from = to + done - s.read;
        s.hash = s.read;
        s.to = to + done;
        s.read = len - done < SLAB ? len - done : SLAB;
        tn_parallel(2, slab, &s);
        if (s.failed) return -1;
        done += s.read;
    } while (s.read > 0);
    return tn_idx_end(f, e);
}

static int read_labels(tn_idx *f, const char *path, int classes, int *label, tn_sha256 *const *sha,
                       tn_err *e) {
    size_t n = tn_idx_len(f);
    unsigned char *b = tn_mem_new(n);
    if (!b) return tn_fail(e, "%s: out of memory", path);
    int rc = read_all(f, b, sha, e);
    for (size_t i = 0; i < n && rc == 0; i++) {
        label[i] = b[i];
        if (b[i] >= classes)
            rc = tn_fail(e,
                         "%s: label %d of picture %zu is outside 0 ... %d (for data with more classes: "
                         "--data mnist:dir=DIR,classes=N)",
                         path, b[i], i, classes - 1);
    }
    tn_free(b);
    return rc;
}

static int read_part(tn_idx *const f[2], const char *path, int classes, tn_data *d, tn_sha256 *const *sha,
                     tn_err *e) {
    int dim[TN_IDX_MAX_DIM];
    tn_idx_shape(f[0], dim);
    if (tn_data_alloc(d, dim[0], 3, (int[]){1, dim[1], dim[2]}, TN_U8, classes, 0, e)) return -1;
    if (read_all(f[0], (unsigned char *)d->x, sha, e)) return -1;
    return read_labels(f[1], path, classes, (int *)d->label, sha, e);
}

static int open_files(const char *dir, tn_idx *f[], char path[][PATH_BYTES], tn_err *e) {
    for (int i = 0; i < FILES; i++) {
        if (find(dir, i, path[i]))
            return tn_fail(
                e,
                "%s: %s-idx%d-ubyte is missing (nor is it there as .gz or with '.' for '-'); four files are "
                "needed: train-images, train-labels, t10k-images, t10k-labels",
                dir, stem[i], i % 2 ? 1 : 3);
        if (!(f[i] = tn_idx_open(path[i], e)) || check_kind(f[i], i, path[i], e)) return -1;
    }
    return check_counts(f, path, e);
}

static int open_mnist(const char *dir, const void *cfg, tn_dataset *out, tn_err *e) {
    const config *c = cfg;
    char path[FILES][PATH_BYTES];
    tn_idx *f[FILES] = {NULL};
    tn_sha256 all, test, *const both[] = {&all, &test, NULL}, *const one[] = {&all, NULL};
    const int classes = (int)c->classes;
    if (!dir) dir = c->dir;
    if (!*dir) return tn_fail(e, "--data mnist: needs its directory: --data DIR, or --data mnist:dir=DIR");
    tn_sha256_begin(&all);
    tn_sha256_begin(&test);
    int rc = open_files(dir, f, path, e);
    if (rc == 0 && !out->test_only) rc = read_part(f + TRAIN_X, path[TRAIN_Y], classes, &out->train, one, e);
    if (rc == 0) rc = read_part(f + TEST_X, path[TEST_Y], classes, &out->test, both, e);
    for (int i = 0; i < FILES; i++) tn_idx_close(f[i]);
    if (!out->test_only) tn_sha256_end(&all, out->data_hash);
    tn_sha256_end(&test, out->test_hash);
    tn_dir_name(dir, "mnist", out->name, sizeof out->name);
    return rc;
}

extern const tn_dataset_def tn_dataset_mnist;
const tn_dataset_def tn_dataset_mnist = {
    .abi = TN_ABI,
    .size = sizeof(tn_dataset_def),
    .name = "mnist",
    .summary = "a directory with the four IDX files of MNIST or of a data set packed like it",
    .cfg_size = sizeof(config),
    .cfg = table,
    .recognise = recognise,
    .open = open_mnist,
};

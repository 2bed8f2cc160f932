/* SPDX-License-Identifier: MIT */
/* Every way in which the four files of a data set can be wrong, each with its own message, made in a
 * temporary directory; and the ways in which they can be right. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <zlib.h>

#include "tern_data.h"

enum { TRAIN = 30, TEST = 20, H = 5, W = 4, MOST = 4096 };
enum { TRAIN_X, TRAIN_Y, TEST_X, TEST_Y };

static const char *const name[4] = {"train-images-idx3-ubyte", "train-labels-idx1-ubyte",
                                    "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"};
static char dir[64];
static tn_err err;

/* An allocator that remembers the largest request and can run dry. */
static size_t largest;
static long live, left = -1;
static void *new_memory(size_t n) {
    if (n > largest) largest = n;
    if (left == 0) return NULL;
    if (left > 0) left--;
    live++;
    return malloc(n);
}
static void *resize(void *p, size_t n) {
    return realloc(p, n);
}
static void release(void *p) {
    live--;
    free(p);
}

/* ---- making files ---- */

typedef struct {
    unsigned char b[MOST];
    size_t n;
} bytes;

static void put32(bytes *f, unsigned v) {
    for (int i = 24; i >= 0; i -= 8) f->b[f->n++] = (unsigned char)(v >> i);
}

/* What file i holds when all is well. */
static bytes contents(int i) {
    bytes f = {.n = 0};
    unsigned n = i < TEST_X ? TRAIN : TEST;
    put32(&f, i % 2 ? 0x801 : 0x803);
    put32(&f, n);
    if (i % 2 == 0) put32(&f, H), put32(&f, W);
    for (unsigned k = 0; k < (i % 2 ? n : n * H * W); k++)
        f.b[f.n++] = (unsigned char)(i % 2 ? k % 10 : k * 37 + (unsigned)i);
    return f;
}

static bytes gzipped(const void *p, size_t n) {
    bytes f = {.n = 0};
    z_stream z = {.next_in = (unsigned char *)p, .avail_in = (unsigned)n, .next_out = f.b, .avail_out = MOST};
    assert_int_equal(deflateInit2(&z, 9, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
    assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
    f.n = z.total_out;
    deflateEnd(&z);
    return f;
}

static bytes gz(const bytes *f) {
    return gzipped(f->b, f->n);
}

static void path_of(char path[200], const char *file, const char *suffix) {
    snprintf(path, 200, "%s/%s%s", dir, file, suffix);
}

static void write_file(const char *file, const char *suffix, const void *p, size_t n) {
    char path[200];
    path_of(path, file, suffix);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static void erase(int i) {
    static const char *const form[] = {"", ".gz"};
    char path[200], dotted[64];
    strcpy(dotted, name[i]);
    *strstr(dotted, "-idx") = '.';
    for (int k = 0; k < 4; k++) {
        path_of(path, k < 2 ? name[i] : dotted, form[k % 2]);
        if (remove(path) && errno != ENOENT) fail_msg("%s: %s", path, strerror(errno));
    }
}

static void put(int i, const bytes *f) {
    erase(i);
    write_file(name[i], "", f->b, f->n);
}

static void put_gz(int i, const bytes *f) {
    erase(i);
    write_file(name[i], ".gz", f->b, f->n);
}

static int fresh(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        bytes f = contents(i);
        put(i, &f);
    }
    largest = 0;
    return 0;
}

/* ---- opening ---- */

static int open_dir(tn_dataset *d) {
    tn_data_options o = tn_data_options_default();
    o.val_size = 0;
    return tn_dataset_open(dir, &o, d, &err);
}

/* The error names the file (NULL: the directory) and says part; nothing is left behind. */
static void refused(const char *file, const char *part) {
    tn_dataset d;
    long before = live;
    strcpy(err.msg, "");
    if (open_dir(&d) != -1) fail_msg("accepted, but expected: %s", part);
    if (!strstr(err.msg, file ? file : dir) || !strstr(err.msg, part))
        fail_msg("message \"%s\" lacks \"%s\" or \"%s\"", err.msg, file ? file : dir, part);
    assert_int_equal(live, before);
    assert_null(d.train.own);
}

/* Whatever happened to the file: its contents are the same, or it is refused. */
static int same_or_refused(const char *hash) {
    tn_dataset d;
    if (open_dir(&d)) return 1;
    assert_string_equal(d.data_hash, hash);
    tn_dataset_free(&d);
    return 0;
}

static void accepted(const char *hash) {
    tn_dataset d;
    if (open_dir(&d)) fail_msg("%s", err.msg);
    assert_string_equal(d.data_hash, hash);
    tn_dataset_free(&d);
}

/* ---- right ---- */

static void both_styles(void **state) {
    tn_dataset d;
    char hash[65], by_hand[65];
    tn_sha256 s;
    (void)state;
    if (open_dir(&d)) fail_msg("%s", err.msg);
    assert_int_equal(d.train.n, TRAIN);
    assert_int_equal(d.test.n, TEST);
    assert_int_equal(d.train.dim[1], H);
    assert_int_equal(d.train.dim[2], W);
    bytes x = contents(TRAIN_X), t = contents(TEST_X);
    assert_memory_equal(d.train.x, x.b + 16, TRAIN * H * W);
    assert_memory_equal(d.test.x, t.b + 16, TEST * H * W);
    for (int i = 0; i < TRAIN; i++) assert_int_equal(d.train.label[i], i % 10);
    assert_string_equal(d.name, strrchr(dir, '/') + 1);
    strcpy(hash, d.data_hash);
    tn_dataset_free(&d);
    tn_sha256_begin(&s);
    for (int i = 0; i < 4; i++) {
        bytes f = contents(i);
        tn_sha256_add(&s, f.b, f.n);
    }
    tn_sha256_end(&s, by_hand);
    assert_string_equal(hash, by_hand);
    for (int k = 0; k < 16; k++) { /* each of the four as name or gz, with '-' or '.' */
        for (int i = 0; i < 4; i++) {
            char file[64];
            bytes f = contents(i), g = gz(&f);
            int form = (k + i) % 4;
            erase(i);
            strcpy(file, name[i]);
            if (form & 1) *strstr(file, "-idx") = '.';
            if (form & 2)
                write_file(file, ".gz", g.b, g.n);
            else
                write_file(file, "", f.b, f.n);
        }
        accepted(hash);
    }
    for (int i = 0; i < 4; i++) { /* seen from the first bytes, whatever the name says */
        bytes f = contents(i), g = gz(&f);
        if (i % 2)
            put_gz(i, &f);
        else
            put(i, &g);
    }
    accepted(hash);
}

static void more_classes(void **state) {
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    char where[128];
    (void)state;
    bytes f = contents(TRAIN_Y);
    f.b[8 + 7] = 46;
    put(TRAIN_Y, &f);
    o.val_size = 0;
    snprintf(where, sizeof where, "mnist:dir=%s,classes=47", dir);
    if (tn_dataset_open(where, &o, &d, &err)) fail_msg("%s", err.msg);
    assert_int_equal(d.train.classes, 47);
    assert_int_equal(d.train.label[7], 46);
    tn_dataset_free(&d);
}

/* ---- wrong ---- */

static void missing(void **state) {
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    char path[200];
    (void)state;
    for (int i = 0; i < 4; i++) {
        bytes f = contents(i);
        erase(i);
        refused(NULL, "is missing");
        assert_non_null(strstr(err.msg, name[i]));
        put(i, &f);
    }
    path_of(path, name[0], "");
    assert_int_equal(tn_dataset_open(path, &o, &d, &err), -1);
    assert_non_null(strstr(err.msg, "is a file"));
    for (int i = 0; i < 4; i++) erase(i);
    refused(NULL, "holds no data set");
}

static void not_a_file(void **state) {
    char path[200];
    (void)state;
    path_of(path, name[TEST_Y], "");
    erase(TEST_Y);
    assert_int_equal(mkdir(path, 0700), 0);
    refused(name[TEST_Y], "is a directory");
    assert_int_equal(rmdir(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0); /* must not wait for a writer */
    refused(name[TEST_Y], "device or pipe");
    assert_int_equal(remove(path), 0);
    bytes f = contents(TEST_Y);
    put(TEST_Y, &f);
    assert_int_equal(chmod(path, 0), 0);
    if (geteuid() != 0) refused(name[TEST_Y], "Permission denied");
    assert_int_equal(remove(path), 0);
}

static void sizes(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        bytes f = contents(i), good = f;
        size_t full = f.n;
        f.n = 0;
        put(i, &f);
        refused(name[i], "is empty");
        for (size_t n = 1; n < full; n += 1 + n / 8) {
            f.n = n;
            put(i, &f);
            refused(name[i], "truncated");
        }
        f.n = full - 1;
        put(i, &f);
        refused(name[i], "truncated: holds");
        f.n = full + 1;
        put(i, &f);
        refused(name[i], "holds more than");
        put(i, &good);
    }
}

static void headers(void **state) {
    static const struct {
        unsigned char magic[4];
        const char *says;
    } bad[] = {{{0x01, 0, 0x08, 3}, "not an IDX file: magic number 0x01000803"},
               {{0, 0x01, 0x08, 3}, "not an IDX file"},
               {{0, 0, 0x0d, 3}, "type 0x0d (float)"},
               {{0, 0, 0x09, 3}, "type 0x09 (signed byte)"},
               {{0, 0, 0x07, 3}, "not an IDX file"},
               {{0, 0, 0x08, 0}, "0 dimensions"},
               {{0, 0, 0x08, 5}, "5 dimensions"},
               {{'<', '!', 'D', 'O'}, "web page"}};
    (void)state;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        for (int packed = 0; packed < 2; packed++) {
            bytes f = contents(TRAIN_X);
            memcpy(f.b, bad[k].magic, 4);
            if (packed) f = gz(&f);
            put(TRAIN_X, &f);
            refused(name[TRAIN_X], bad[k].says);
        }
    bytes f = contents(TRAIN_X); /* vectors, not pictures */
    f.b[3] = 2;
    memmove(f.b + 12, f.b + 16, f.n - 16);
    f.n = 12 + TRAIN * H;
    put(TRAIN_X, &f);
    refused(name[TRAIN_X], "has 2 dimensions");
}

/* Dimensions of zero, overflowing or beyond the limit: refused without memory of any size being asked for. */
static void dimensions(void **state) {
    static const struct {
        unsigned d[3];
        const char *says;
    } bad[] = {{{0, H, W}, "dimension 1 is 0"},
               {{TRAIN, H, 0}, "dimension 3 is 0"},
               {{0xffffffff, 0xffffffff, 0xffffffff}, "refused"},
               {{65536, 65536, 1}, "refused"},           /* 2^32 */
               {{65536, 65536, 65536}, "refused"},       /* 2^48 */
               {{1u << 31, 2, 1}, "refused"},            /* does not fit an int */
               {{4194304, 2097152, 2097152}, "refused"}, /* 2^64: 0 in 64 bits */
               {{60000, 28, 28}, "truncated"},
               {{TRAIN - 1, H, W}, "holds more than"}};
    (void)state;
    for (size_t k = 0; k < sizeof bad / sizeof *bad; k++)
        for (int packed = 0; packed < 2; packed++) {
            bytes f = contents(TRAIN_X), head = {.n = 0};
            for (int i = 0; i < 3; i++) put32(&head, bad[k].d[i]);
            memcpy(f.b + 4, head.b, 12);
            if (packed) f = gz(&f);
            put(TRAIN_X, &f);
            refused(name[TRAIN_X], bad[k].says);
        }
    assert_in_range(largest, 1, 1 << 18);
}

static void mixed_up(void **state) {
    bytes train_x = contents(TRAIN_X), train_y = contents(TRAIN_Y), test_x = contents(TEST_X),
          test_y = contents(TEST_Y);
    (void)state;
    put(TRAIN_X, &train_y);
    put(TRAIN_Y, &train_x);
    refused(name[TRAIN_X], "swapped");
    put(TRAIN_X, &train_x);
    refused(name[TRAIN_Y], "swapped");
    put(TRAIN_Y, &test_y);
    refused(name[TRAIN_X], "30 pictures, but 20 labels");
    put(TRAIN_Y, &train_y);
    put(TEST_X, &train_x);
    refused(name[TEST_X], "30 pictures, but 20 labels");
    test_x.b[11] = W, test_x.b[15] = H;
    put(TEST_X, &test_x);
    refused(name[TEST_X], "pictures of 4 x 5, but 5 x 4");
}

static void labels(void **state) {
    (void)state;
    for (int i = TRAIN_Y; i < 4; i += 2)
        for (int value = 10; value < 256; value += 245) {
            bytes f = contents(i), good = f;
            char says[64];
            f.b[8 + 13] = (unsigned char)value;
            snprintf(says, sizeof says, "label %d of picture 13 is outside 0 ... 9", value);
            put(i, &f);
            refused(name[i], says);
            put(i, &good);
        }
}

static void gzip_damage(void **state) {
    tn_dataset d;
    char hash[65];
    int noticed = 0, changes = 0;
    (void)state;
    if (open_dir(&d)) fail_msg("%s", err.msg);
    strcpy(hash, d.data_hash);
    tn_dataset_free(&d);
    for (int i = 0; i < 4; i++) {
        bytes f = contents(i), good = gz(&f), g;
        for (size_t n = 2; n < good.n; n++) {
            g = good;
            g.n = n;
            put_gz(i, &g);
            refused(name[i], "truncated");
        }
        g = good, g.b[g.n - 8] ^= 1;
        put_gz(i, &g);
        refused(name[i], "the CRC is wrong");
        g = good, g.b[g.n - 4] ^= 1;
        put_gz(i, &g);
        refused(name[i], "damaged");
        for (size_t at = 10; at < good.n - 8; at++, changes++) { /* padding bits alone may change unnoticed */
            g = good, g.b[at] ^= (unsigned char)(1 << at % 8);
            put_gz(i, &g);
            noticed += same_or_refused(hash);
        }
        g = good, g.b[2] = 7; /* an unknown method */
        put_gz(i, &g);
        refused(name[i], "damaged");
        put_gz(i, &good);
    }
    assert_in_range(noticed, changes - 8, changes);
}

static void gzip_contents(void **state) {
    (void)state;
    for (int i = 0; i < 4; i++) {
        bytes f = contents(i), good = f, g;
        f.b[f.n++] = 0;
        g = gz(&f);
        put_gz(i, &g);
        refused(name[i], "holds more than");
        f.n -= 2;
        g = gz(&f);
        put_gz(i, &g);
        refused(name[i], "truncated: holds");
        f.n = 0;
        g = gz(&f);
        put_gz(i, &g);
        refused(name[i], "is empty");
        g = gz(&good), g.b[g.n] = 0, g.n++; /* one byte after the stream */
        put_gz(i, &g);
        refused(name[i], "");
        g = gz(&good);
        memcpy(g.b + g.n, g.b + g.n - 4, 4); /* bytes after the stream that end like it */
        g.n += 4;
        put_gz(i, &g);
        refused(name[i], "bytes follow the end of its gzip stream");
        g = gz(&good);
        put_gz(i, &g);
    }
}

/* Contents of many megabytes in a small file, whatever the header says: refused, and no memory asked for. */
static void bombs(void **state) {
    enum { BIG = 100 << 20 };
    unsigned char *zeros = calloc(1, BIG);
    size_t cap = 1 << 20, n;
    unsigned char *packed = malloc(cap);
    bytes head = contents(TRAIN_X);
    (void)state;
    assert_non_null(zeros);
    assert_non_null(packed);
    for (int k = 0; k < 3; k++) {
        static const char *const says[] = {"holds more than", "holds more than", "gzip bomb"};
        memcpy(zeros, head.b, 16);
        if (k == 2) { /* a header that tells the truth: (100 << 20) - 16 pixels */
            bytes d = {.n = 0};
            put32(&d, (BIG - 16) / 16), put32(&d, 4), put32(&d, 4);
            memcpy(zeros + 4, d.b, 12);
        }
        z_stream z = {.next_in = zeros, .avail_in = BIG, .next_out = packed, .avail_out = (unsigned)cap};
        assert_int_equal(deflateInit2(&z, 6, Z_DEFLATED, 31, 8, Z_DEFAULT_STRATEGY), Z_OK);
        assert_int_equal(deflate(&z, Z_FINISH), Z_STREAM_END);
        n = z.total_out;
        deflateEnd(&z);
        if (k == 1) { /* the trailer lies as well */
            unsigned want = 16 + TRAIN * H * W;
            for (int i = 0; i < 4; i++) packed[n - 4 + (size_t)i] = (unsigned char)(want >> 8 * i);
        }
        erase(TRAIN_X);
        write_file(name[TRAIN_X], ".gz", packed, n);
        largest = 0;
        refused(name[TRAIN_X], says[k]);
        assert_in_range(largest, 1, 1 << 18);
    }
    free(zeros);
    free(packed);
}

/* Memory runs out at each request in turn: an error each time, and nothing is lost. */
static void no_memory(void **state) {
    int k, rc = -1;
    (void)state;
    bytes f = contents(TRAIN_X), g = gz(&f);
    put_gz(TRAIN_X, &g);
    for (k = 0; rc != 0 && k < 200; k++) {
        tn_data_options o = tn_data_options_default();
        tn_dataset d;
        long before = live;
        o.val_size = 5, o.train_size = 10, o.label_noise = 0.5;
        strcpy(err.msg, "");
        left = k;
        rc = tn_dataset_open(dir, &o, &d, &err);
        left = -1;
        if (rc)
            assert_non_null(strstr(err.msg, "memory"));
        else
            tn_dataset_free(&d);
        assert_int_equal(live, before);
    }
    assert_in_range(k, 15, 100);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(both_styles, fresh),   cmocka_unit_test_setup(more_classes, fresh),
        cmocka_unit_test_setup(missing, fresh),       cmocka_unit_test_setup(not_a_file, fresh),
        cmocka_unit_test_setup(sizes, fresh),         cmocka_unit_test_setup(headers, fresh),
        cmocka_unit_test_setup(dimensions, fresh),    cmocka_unit_test_setup(mixed_up, fresh),
        cmocka_unit_test_setup(labels, fresh),        cmocka_unit_test_setup(gzip_damage, fresh),
        cmocka_unit_test_setup(gzip_contents, fresh), cmocka_unit_test_setup(bombs, fresh),
        cmocka_unit_test_setup(no_memory, fresh),
    };
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, sizeof dir, "%s/tern-idx-XXXXXX", tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    if (!mkdtemp(dir)) return perror(dir), 1;
    tn_set_allocator(&(tn_allocator){new_memory, resize, release});
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    for (int i = 0; i < 4; i++) erase(i);
    return rmdir(dir) || failed;
}

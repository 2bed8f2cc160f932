/* SPDX-License-Identifier: MIT */
/* Data sets made by the test and the real MNIST: split, subset, noise, batches, pictures, hashes. Files that
 * are wrong are in test_idx.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "data_internal.h"

#ifndef TERN_SOURCE_DIR
#define TERN_SOURCE_DIR "."
#endif
#define MNIST TERN_SOURCE_DIR "/data/mnist"

static tn_err err;

static void open_set(const char *where, const tn_data_options *o, tn_dataset *d) {
    if (tn_dataset_open(where, o, d, &err)) fail_msg("%s", err.msg);
}

static void count(const tn_data *d, int n[256]) {
    memset(n, 0, 256 * sizeof *n);
    for (int i = 0; i < d->n; i++) n[d->label[i]]++;
}

static const unsigned char *pixels(const tn_data *d, int i) {
    return (const unsigned char *)d->x + (size_t)i * d->len;
}

static void same_part(const tn_data *a, const tn_data *b) {
    assert_int_equal(a->n, b->n);
    assert_true(a->scale == b->scale && a->shift == b->shift);
    assert_string_equal(a->hash, b->hash);
    if (!a->n) return;
    assert_memory_equal(a->x, b->x, (size_t)a->n * a->len * (a->xtype == TN_U8 ? 1 : sizeof(float)));
    assert_memory_equal(a->origin, b->origin, (size_t)a->n * sizeof(int));
    if (a->label) assert_memory_equal(a->label, b->label, (size_t)a->n * sizeof(int));
    if (a->target) assert_memory_equal(a->target, b->target, (size_t)(a->n * a->targets) * sizeof(float));
}

/* Of a whole set the same is derived as opening gives. */
static void derived(void **state) {
    static const char *const where[] = {MNIST, "synthetic:n=700"};
    tn_data_options all = tn_data_options_default();
    (void)state;
    all.val_size = 0;
    for (int w = 0; w < 2; w++) {
        tn_dataset whole, a, b;
        open_set(where[w], &all, &whole);
        for (int i = 0; i < 5; i++) {
            tn_data_options o = tn_data_options_default();
            o.val_size = i == 4 ? 0 : i ? 50 : TN_VAL_AUTO;
            o.train_size = i > 1 ? 300 : 0;
            o.label_noise = i > 2 ? 0.2 : 0;
            o.normalize = i > 2;
            o.seed = (uint64_t)i;
            open_set(where[w], &o, &a);
            assert_int_equal(tn_dataset_derive(&whole, &o, &b, &err), 0);
            same_part(&a.train, &b.train);
            same_part(&a.val, &b.val);
            same_part(&a.test, &b.test);
            assert_string_equal(a.split_hash, b.split_hash);
            assert_string_equal(a.data_hash, b.data_hash);
            assert_string_equal(a.name, b.name);
            assert_string_equal(a.note, b.note);
            tn_dataset_free(&a);
            if (b.val.n) assert_int_equal(tn_dataset_derive(&b, &o, &a, &err), -1); /* not whole any more */
            o.train_size = 1 << 30;
            assert_int_equal(tn_dataset_derive(&whole, &o, &a, &err), -1);
            assert_null(a.train.own);
            tn_dataset_free(&b);
        }
        tn_dataset_free(&whole);
    }
}

/* ---- SHA-256: the examples of FIPS 180-4 and of its companion page at NIST ---- */

static void check_sha(const void *p, size_t n, const char *want) {
    tn_sha256 s;
    char hex[65];
    for (size_t step = 1; step <= 200; step += 61) { /* in pieces of any size */
        tn_sha256_begin(&s);
        for (size_t i = 0; i < n; i += step)
            tn_sha256_add(&s, (const char *)p + i, n - i < step ? n - i : step);
        tn_sha256_end(&s, hex);
        assert_string_equal(hex, want);
    }
}

static void sha256(void **state) {
    (void)state;
    check_sha("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_sha("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_sha("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
              "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    char *a = malloc(1000000);
    assert_non_null(a);
    memset(a, 'a', 1000000);
    check_sha(a, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
    free(a);
}

/* With the processor's instructions, where it has them, and in plain C. */
static void sha256_plain(void **state) {
    (void)state;
    unsigned char block[64 * 5];
    uint64_t x = 1;
    for (size_t n = 1; n <= 5; n++) {
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = (unsigned char)((x = x * 6364136223846793005u + 1442695040888963407u) >> 56);
        tn_sha256 s;
        tn_sha256_begin(&s);
        uint32_t plain[8];
        memcpy(plain, s.h, sizeof plain);
        tn_sha256_add(&s, block, 64 * n);
        tn_sha256_plain(plain, block, n);
        assert_memory_equal(plain, s.h, sizeof plain);
    }
}

/* ---- the files that are shipped ---- */

/* The test part alone: the same samples and hash as with the rest. */
static void test_part_alone(void **state) {
    (void)state;
    tn_dataset all, one;
    tn_data_options o = tn_data_options_default();
    open_set(MNIST, &o, &all);
    o.test_only = 1;
    open_set(MNIST, &o, &one);
    assert_int_equal(one.train.n + one.val.n, 0);
    assert_int_equal(one.test.n, all.test.n);
    assert_memory_equal(one.test.x, all.test.x, (size_t)one.test.n * one.test.len);
    assert_memory_equal(one.test.label, all.test.label, (size_t)one.test.n * sizeof *one.test.label);
    assert_int_equal(strlen(one.test_hash), 64);
    assert_string_equal(one.test_hash, all.test_hash);
    assert_string_not_equal(all.test_hash, all.data_hash);
    assert_string_equal(one.data_hash, "");
    tn_dataset_free(&all);
    tn_dataset_free(&one);
    open_set("synthetic:n=100,test=20", &o, &one); /* a reader that knows nothing of it */
    assert_int_equal(one.test.n, 20);
    assert_true(one.train.n > 0);
    tn_dataset_free(&one);
}

static void mnist_files(void **state) {
    static const char *const sum[][2] = {
        {"train-images-idx3-ubyte", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"},
        {"train-labels-idx1-ubyte", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"},
        {"t10k-images-idx3-ubyte", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"},
        {"t10k-labels-idx1-ubyte", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"}};
    static unsigned char b[1 << 16];
    (void)state;
    for (int i = 0; i < 4; i++) {
        char path[512], hex[65];
        tn_sha256 s;
        int n;
        snprintf(path, sizeof path, "%s/%s.gz", MNIST, sum[i][0]);
        gzFile f = gzopen(path, "rb");
        assert_non_null(f);
        tn_sha256_begin(&s);
        while ((n = gzread(f, b, sizeof b)) > 0) tn_sha256_add(&s, b, (size_t)n);
        tn_sha256_end(&s, hex);
        assert_int_equal(gzclose(f), Z_OK);
        assert_string_equal(hex, sum[i][1]);
    }
}

static void mnist_whole(void **state) {
    static const int train[10] = {5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949};
    static const int test[10] = {980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009};
    static const int first[10] = {5, 0, 4, 1, 9, 2, 1, 3, 1, 4};
    unsigned char dark[784];
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    int n[256];
    (void)state;
    o.val_size = 0;
    open_set(MNIST, &o, &d);
    assert_string_equal(d.name, "mnist");
    assert_int_equal(d.train.n, 60000);
    assert_int_equal(d.val.n, 0);
    assert_int_equal(d.test.n, 10000);
    assert_int_equal(d.train.nd, 3);
    assert_int_equal(d.train.dim[0], 1);
    assert_int_equal(d.train.dim[1], 28);
    assert_int_equal(d.train.dim[2], 28);
    assert_int_equal(d.train.classes, 10);
    assert_int_equal(d.train.origin[59999], 59999);
    count(&d.train, n);
    assert_memory_equal(n, train, sizeof train);
    count(&d.test, n);
    assert_memory_equal(n, test, sizeof test);
    assert_memory_equal(d.train.label, first, sizeof first);
    /* gzip -dc train-images* train-labels* t10k-images* t10k-labels* | sha256sum */
    assert_string_equal(d.data_hash, "b2d8f5bf39174ee5ffeefa97e42d673c35432b411bb5d1f74fbbeddae7f1690a");
    assert_int_equal(tn_never_lit(&d.train, dark), 67);
    assert_int_equal(dark[0], 1);
    assert_int_equal(dark[14 * 28 + 14], 0);
    tn_dataset_free(&d);
    assert_null(d.train.x);
}

/* The default split: stratified, the same for every seed, and every image in exactly one part. */
static void mnist_split(void **state) {
    tn_data_options o = tn_data_options_default();
    tn_dataset d, other;
    int all[256], val[256];
    static unsigned char seen[60000];
    (void)state;
    open_set(MNIST, &o, &d);
    assert_int_equal(d.train.n, 55000);
    assert_int_equal(d.val.n, 5000);
    assert_string_equal(d.split_hash, "ba5e64be18d8b2549600dba82ae63a8b64dcd4340243f8906d8b24b4cabf90e4");
    count(&d.train, all);
    count(&d.val, val);
    for (int c = 0; c < 10; c++) assert_true(fabs(val[c] - 5000. * (all[c] + val[c]) / 60000) < 1);
    memset(seen, 0, sizeof seen);
    for (int i = 0; i < d.train.n; i++) seen[d.train.origin[i]]++;
    for (int i = 0; i < d.val.n; i++) seen[d.val.origin[i]]++;
    for (int i = 0; i < 60000; i++) assert_int_equal(seen[i], 1);
    for (int i = 1; i < d.train.n; i++) assert_true(d.train.origin[i - 1] < d.train.origin[i]);
    o.seed = 77, o.train_size = 1000, o.label_noise = 0.2;
    open_set(MNIST, &o, &other);
    assert_string_equal(other.split_hash, d.split_hash);
    assert_string_equal(other.data_hash, d.data_hash);
    assert_string_equal(other.val.hash, d.val.hash);
    assert_string_equal(other.test.hash, d.test.hash);
    assert_string_not_equal(other.train.hash, d.train.hash);
    assert_memory_equal(other.val.x, d.val.x, d.val.len * 5000);
    tn_dataset_free(&other);
    tn_dataset_free(&d);
}

/* ---- by formula ---- */

static void synthetic(void **state) {
    tn_data_options o = tn_data_options_default();
    tn_dataset a, b;
    unsigned char dark[20 * 30];
    (void)state;
    o.val_size = 0;
    open_set("synthetic:n=300,test=40,classes=7,height=20,width=30", &o, &a);
    assert_string_equal(a.name, "synthetic");
    assert_int_equal(a.train.n, 300);
    assert_int_equal(a.test.n, 40);
    assert_int_equal(a.train.classes, 7);
    assert_int_equal(a.train.dim[1], 20);
    assert_int_equal(a.train.dim[2], 30);
    int n = tn_never_lit(&a.train, dark);
    assert_int_equal(n, 2 * 30 + 2 * 18); /* a frame of one pixel, no more */
    assert_int_equal(dark[0], 1);
    assert_int_equal(dark[31], 0);
    open_set("synthetic:n=300,test=40,classes=7,height=20,width=30", &o, &b);
    assert_string_equal(a.data_hash, b.data_hash);
    assert_memory_equal(a.train.x, b.train.x, 300 * a.train.len);
    tn_dataset_free(&b);
    open_set("synthetic:n=400,test=40,classes=7,height=20,width=30", &o,
             &b); /* begins with the smaller set */
    assert_memory_equal(a.train.x, b.train.x, 300 * a.train.len);
    assert_memory_not_equal(a.train.x, a.test.x, 40 * a.train.len);
    tn_dataset_free(&b);
    open_set("synthetic:n=300,test=40,classes=7,height=20,width=30,seed=2", &o, &b);
    assert_string_not_equal(a.data_hash, b.data_hash);
    tn_dataset_free(&b);
    tn_dataset_free(&a);
    open_set("synthetic", &o, &a);
    /* The same bits on every machine. */
    assert_string_equal(a.data_hash, "571c0cbc3dac432baaebdd1468ff2e4b5c80014594ed73bd8328d04a6fe9876e");
    tn_dataset_free(&a);
}

/* Nearest class mean: far better than chance on the test part, far from perfect. */
static void synthetic_is_learnable(void **state) {
    enum { N = 784 };
    static double mean[10][N];
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    int right = 0;
    (void)state;
    open_set("synthetic:n=3000,test=1000", &o, &d);
    assert_int_equal(d.val.n, 250); /* a twelfth */
    memset(mean, 0, sizeof mean);
    for (int i = 0; i < d.train.n; i++)
        for (int j = 0; j < N; j++) mean[d.train.label[i]][j] += pixels(&d.train, i)[j] / (d.train.n / 10.);
    for (int i = 0; i < d.test.n; i++) {
        double best = INFINITY;
        int guess = 0;
        for (int c = 0; c < 10; c++) {
            double far = 0;
            for (int j = 0; j < N; j++) far += pow(pixels(&d.test, i)[j] - mean[c][j], 2);
            if (far < best) best = far, guess = c;
        }
        right += guess == d.test.label[i];
    }
    assert_in_range(right, 400, 900);
    tn_dataset_free(&d);
}

/* ---- subset and noise ---- */

#define SMALL "synthetic:n=1200,test=20,classes=4,height=8,width=8"

static void subset(void **state) {
    tn_data_options o = tn_data_options_default();
    tn_dataset all, a, b;
    int n[256];
    (void)state;
    o.val_size = 101;
    open_set(SMALL, &o, &all);
    o.train_size = 402, o.seed = 5;
    open_set(SMALL, &o, &a);
    assert_int_equal(a.train.n, 402);
    count(&a.train, n);
    for (int c = 0; c < 4; c++) assert_in_range(n[c], 100, 101);
    for (int i = 0; i < a.train.n; i++) { /* the pictures and labels of their positions, in file order */
        int at = a.train.origin[i];
        assert_int_equal(a.train.label[i], at % 4);
        assert_true(i == 0 || a.train.origin[i - 1] < at);
        for (int j = 0; j < a.val.n; j++) assert_true(a.val.origin[j] != at);
    }
    for (int i = 0, j = 0; i < a.train.n; i++, j++) {
        while (all.train.origin[j] != a.train.origin[i]) j++;
        assert_memory_equal(pixels(&a.train, i), pixels(&all.train, j), a.train.len);
    }
    open_set(SMALL, &o, &b);
    assert_string_equal(a.train.hash, b.train.hash);
    tn_dataset_free(&b);
    o.label_noise = 0.3; /* noise leaves the subset alone */
    open_set(SMALL, &o, &b);
    assert_memory_equal(a.train.origin, b.train.origin, 402 * sizeof(int));
    assert_memory_equal(a.train.x, b.train.x, 402 * a.train.len);
    assert_string_not_equal(a.train.hash, b.train.hash);
    tn_dataset_free(&b);
    o.label_noise = 0, o.seed = 6;
    open_set(SMALL, &o, &b);
    assert_memory_not_equal(a.train.origin, b.train.origin, 402 * sizeof(int));
    tn_dataset_free(&b);
    o.train_size = 1099; /* all that is left */
    open_set(SMALL, &o, &b);
    assert_int_equal(b.train.n, 1099);
    tn_dataset_free(&b);
    tn_dataset_free(&a);
    tn_dataset_free(&all);
}

static void noise(void **state) {
    static const double share[] = {0.0004, 0.0005, 0.1, 0.5, 0.9995};
    static const int want[] = {0, 1, 100, 500, 1000}; /* round(share * 1000) */
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    int earlier[1000];
    (void)state;
    o.val_size = 200, o.seed = 3;
    for (int i = 0; i < 1000; i++) earlier[i] = -1;
    for (int k = 0; k < 5; k++) {
        int changed = 0, to[4][4] = {{0}};
        o.label_noise = share[k];
        open_set(SMALL, &o, &d);
        assert_int_equal(d.train.n, 1000);
        for (int i = 0; i < 1000; i++) {
            int clean = d.train.origin[i] % 4, y = d.train.label[i];
            changed += y != clean;
            to[clean][y]++;
            assert_in_range(y, 0, 3);
            if (earlier[i] >= 0) assert_int_equal(y, earlier[i]); /* more noise keeps what less has done */
            if (y != clean) earlier[i] = y;
        }
        assert_int_equal(changed, want[k]);
        for (int c = 0; c < 4 && k == 4; c++)
            for (int y = 0; y < 4; y++)
                if (y != c) assert_in_range(to[c][y], 55, 115); /* 83 expected, deviation about 7.5 */
        for (int i = 0; i < d.val.n; i++) assert_int_equal(d.val.label[i], d.val.origin[i] % 4);
        for (int i = 0; i < d.test.n; i++) assert_int_equal(d.test.label[i], i % 4);
        tn_dataset_free(&d);
    }
}

/* Quotas add up and are within one of the exact share, also when classes are of very different size. */
static int uneven_open(const char *dir, const void *cfg, tn_dataset *out, tn_err *e);
static const tn_opt no_options[] = {TN_OPT_END};
static const tn_dataset_def uneven = {.abi = TN_ABI,
                                      .size = sizeof uneven,
                                      .name = "uneven",
                                      .cfg_size = 1,
                                      .cfg = no_options,
                                      .open = uneven_open};
static const int uneven_count[5] = {1, 7, 50, 190, 752};

static int uneven_open(const char *dir, const void *cfg, tn_dataset *out, tn_err *e) {
    (void)dir, (void)cfg;
    if (tn_data_alloc(&out->train, 1000, 1, (int[]){2}, TN_U8, 5, 0, e)
        || tn_data_alloc(&out->test, 3, 1, (int[]){2}, TN_U8, 5, 0, e))
        return -1;
    for (int c = 0, i = 0; c < 5; c++)
        for (int k = 0; k < uneven_count[c]; k++) ((int *)out->train.label)[i++] = c;
    memset(out->data_hash, 'a', 64);
    return 0;
}

static void stratified(void **state) {
    (void)state;
    for (int val = 1; val < 1000; val += 83) {
        tn_data_options o = tn_data_options_default();
        tn_dataset d;
        int n[256];
        o.val_size = val;
        assert_int_equal(tn_dataset_open_def(&uneven, NULL, NULL, &o, &d, &err), 0);
        assert_int_equal(d.val.n, val);
        assert_int_equal(d.train.n, 1000 - val);
        count(&d.val, n);
        for (int c = 0; c < 5; c++) assert_true(fabs(n[c] - val * uneven_count[c] / 1000.) < 1);
        tn_dataset_free(&d);
    }
}

/* ---- wrong options ---- */

static void refused(const char *where, tn_data_options o, const char *part) {
    tn_dataset d;
    strcpy(err.msg, "");
    if (tn_dataset_open(where, &o, &d, &err) != -1) fail_msg("accepted, but expected: %s", part);
    if (!strstr(err.msg, part)) fail_msg("message \"%s\" lacks \"%s\"", err.msg, part);
    assert_null(d.train.x);
    assert_null(d.test.own);
}

static void wrong_options(void **state) {
    tn_data_options o = tn_data_options_default(), p;
    (void)state;
#define REFUSED(set, part) (p = o, set, refused(SMALL, p, part))
    REFUSED(p.val_size = 1200, "--val-size 1200");
    REFUSED(p.val_size = 5000, "1200 samples");
    REFUSED(p.val_size = -2, "--val-size -2");
    REFUSED((p.val_size = 200, p.train_size = 1001), "--train-size 1001");
    REFUSED(p.train_size = -1, "--train-size -1");
    REFUSED(p.label_noise = 1, "--label-noise 1");
    REFUSED(p.label_noise = -0.1, "--label-noise -0.1");
    REFUSED(p.label_noise = NAN, "--label-noise nan");
    REFUSED(p.normalize = 2, "--normalize");
    refused("synthetic:n=0", o, "n");
    refused("synthetic:noise=x", o, "noise");
    refused("synthetic:clases=3", o, "classes");
    refused("synthetic:n=1000000,height=256,width=256", o, "bytes");
    refused("syntetic:n=10", o, "did you mean \"synthetic\"");
    refused("no/such/place", o, "--data no/such/place: no such directory");
    refused("no/such/place", o, "synthetic:n=");
    refused("mnist", o, "--data DIR");
    refused("mnist:classes=4", o, "dir=DIR");
}

/* ---- arrays of the caller's own, floats, targets ---- */

static void own_arrays(void **state) {
    static const float x[12] = {0, 1, 2, 3, 4, 5, -6, 7, 8, 9, 10, 11};
    static const float y[6] = {0.5f, 1, 2, 3, 4, 5};
    static const int label[3] = {0, 2, 1};
    tn_tape *tape = tn_tape_new(&err);
    tn_data d, other;
    (void)state;
    assert_non_null(tape);
    assert_int_equal(tn_data_from_arrays(&d, 3, 2, (int[]){2, 2}, TN_F32, x, NULL, 0, y, 2, &err), 0);
    tn_t *in = tn_batch_input(tape, &d, 2, (int[]){2, 0}, 0);
    assert_int_equal(in->nd, 3);
    assert_int_equal(in->dim[0], 2);
    assert_true(in->x[0] == 8 && in->x[3] == 11 && in->x[4] == 0);
    tn_t *out = tn_batch_targets(tape, &d, 2, NULL, 1);
    assert_int_equal(out->nd, 2);
    assert_true(out->x[0] == 2 && out->x[3] == 5 && !out->needs);
    assert_int_equal(tn_data_from_arrays(&other, 3, 2, (int[]){2, 2}, TN_F32, x, label, 3, NULL, 0, &err), 0);
    assert_string_not_equal(d.hash, other.hash);
    int got[2];
    tn_batch_labels(&other, 2, NULL, 1, got);
    assert_int_equal(got[0], 2);
    assert_int_equal(got[1], 1);
    tn_data_free(&d);
    tn_data_free(&d);
    assert_int_equal(tn_data_from_arrays(&d, 3, 1, (int[]){4}, TN_F32, x, label, 2, NULL, 0, &err), -1);
    assert_non_null(strstr(err.msg, "label 2 of sample 1"));
    assert_int_equal(tn_data_from_arrays(&d, 3, 1, (int[]){4}, TN_F32, x, label, 3, y, 2, &err), -1);
    assert_int_equal(tn_data_from_arrays(&d, 3, 1, (int[]){4}, TN_F32, x, NULL, 0, NULL, 0, &err), -1);
    assert_int_equal(tn_data_from_arrays(&d, 0, 1, (int[]){4}, TN_F32, x, label, 3, NULL, 0, &err), -1);
    assert_int_equal(tn_data_from_arrays(&d, 3, 4, (int[]){1, 1, 1, 4}, TN_F32, x, label, 3, NULL, 0, &err),
                     -1);
    assert_int_equal(tn_data_from_arrays(&d, 3, 2, (int[]){1 << 30, 16}, TN_U8, x, label, 3, NULL, 0, &err),
                     -1);
    assert_int_equal(tn_data_from_arrays(&d, 3, 1, (int[]){0}, TN_U8, x, label, 3, NULL, 0, &err), -1);
    tn_tape_free(tape);
}

static int broken;
static int regression_open(const char *dir, const void *cfg, tn_dataset *out, tn_err *e) {
    (void)dir, (void)cfg;
    if (tn_data_alloc(&out->train, 100, 1, (int[]){3}, TN_F32, 0, 2, e)
        || tn_data_alloc(&out->test, 10, 1, (int[]){broken == 2 ? 4 : 3}, TN_F32, 0, 2, e))
        return -1;
    for (int i = 0; i < 300 && broken != 3; i++) ((float *)out->train.x)[i] = (float)(i % 7) * 10;
    for (int i = 0; i < 200; i++) ((float *)out->train.target)[i] = (float)i;
    if (broken != 1) memset(out->data_hash, 'b', 64);
    return 0;
}

static void regression(void **state) {
    tn_dataset_def def = {.abi = TN_ABI,
                          .size = sizeof def,
                          .name = "lines",
                          .cfg_size = 1,
                          .cfg = no_options,
                          .open = regression_open};
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    double sum = 0, sq = 0;
    (void)state;
    o.val_size = 30, o.train_size = 50, o.normalize = 1;
    assert_int_equal(tn_dataset_open_def(&def, NULL, NULL, &o, &d, &err), 0);
    assert_int_equal(d.train.n, 50);
    assert_int_equal(d.val.n, 30);
    for (int i = 0; i < 50; i++) assert_true(d.train.target[2 * i + 1] == (float)(2 * d.train.origin[i] + 1));
    tn_tape *tape = tn_tape_new(&err);
    tn_t *x = tn_batch_input(tape, &d.train, 50, NULL, 0);
    for (int i = 0; i < 150; i++) sum += x->x[i], sq += x->x[i] * x->x[i];
    assert_true(fabs(sum / 150) < 1e-5 && fabs(sq / 150 - 1) < 1e-5);
    tn_tape_free(tape);
    tn_dataset_free(&d);
    o.label_noise = 0.1;
    assert_int_equal(tn_dataset_open_def(&def, NULL, NULL, &o, &d, &err), -1);
    assert_non_null(strstr(err.msg, "--label-noise"));
    o.label_noise = 0;
    for (broken = 1; broken <= 3; broken++) { /* no hash; shapes differ; nothing to normalize by */
        assert_int_equal(tn_dataset_open_def(&def, NULL, NULL, &o, &d, &err), -1);
        assert_null(d.train.own);
    }
    assert_non_null(strstr(err.msg, "--normalize meanstd"));
    def.abi++;
    assert_int_equal(tn_dataset_open_def(&def, NULL, NULL, &o, &d, &err), -1);
}

/* ---- batches ---- */

static void order(void **state) {
    enum { N = 1000 };
    int a[N], b[N], hit[N] = {0};
    (void)state;
    tn_epoch_order(1, 0, N, 1, a);
    for (int i = 0; i < N; i++) hit[a[i]]++;
    for (int i = 0; i < N; i++) assert_int_equal(hit[i], 1);
    tn_epoch_order(1, 0, N, 1, b);
    assert_memory_equal(a, b, sizeof a);
    tn_epoch_order(1, 1, N, 1, b);
    assert_memory_not_equal(a, b, sizeof a);
    tn_epoch_order(2, 0, N, 1, b);
    assert_memory_not_equal(a, b, sizeof a);
    tn_epoch_order(2, 0, N, 0, b);
    for (int i = 0; i < N; i++) assert_int_equal(b[i], i);
    assert_int_equal(tn_steps_per_epoch(1000, 128, 0), 8);
    assert_int_equal(tn_steps_per_epoch(1000, 128, 1), 7);
    assert_int_equal(tn_steps_per_epoch(1024, 128, 0), 8);
    assert_int_equal(tn_steps_per_epoch(1024, 128, 1), 8);
    assert_int_equal(tn_steps_per_epoch(5, 128, 1), 0);
}

static void check_batch(const tn_data *d, tn_tape *tape, int n, const int *idx, int first) {
    int label[200];
    tn_tape_reset(tape);
    tn_t *x = tn_batch_input(tape, d, n, idx, first);
    tn_batch_labels(d, n, idx, first, label);
    assert_int_equal(x->nd, 4);
    assert_int_equal(x->dim[0], n);
    assert_int_equal(x->dim[2], d->dim[1]);
    assert_false(x->needs);
    for (int i = 0; i < n; i++) {
        int at = idx ? idx[i] : first + i;
        assert_int_equal(label[i], d->label[at]);
        for (size_t j = 0; j < d->len; j++) {
            float want = fmaf(pixels(d, at)[j], (float)d->scale, (float)d->shift);
            if (x->x[(size_t)i * d->len + j] != want) fail_msg("sample %d, pixel %d differs", at, (int)j);
        }
    }
}

static void batches(void **state) {
    tn_data_options o = tn_data_options_default();
    tn_tape *tape = tn_tape_new(&err);
    tn_dataset d;
    int order[550];
    (void)state;
    for (o.normalize = 0; o.normalize < 2; o.normalize++) {
        open_set("synthetic:n=600,test=50,height=13,width=37", &o, &d);
        assert_int_equal(d.train.n, 550);
        tn_epoch_order(9, 0, 550, 1, order);
        check_batch(&d.train, tape, 128, order + 128, 0); /* several chunks */
        check_batch(&d.train, tape, 38, order + 512, 0);  /* the last of the epoch */
        check_batch(&d.train, tape, 128, NULL, 422);
        check_batch(&d.train, tape, 1, order + 3, 0);
        check_batch(&d.val, tape, 50, NULL, 0);
        check_batch(&d.test, tape, 3, (int[]){49, 0, 49}, 0);
        tn_t *x = tn_batch_input(tape, &d.train, 550, NULL, 0);
        double sum = 0, sq = 0, lo = 9, hi = -9;
        for (size_t i = 0; i < x->len; i++) {
            double v = x->x[i];
            sum += v, sq += v * v, lo = fmin(lo, v), hi = fmax(hi, v);
        }
        sum /= (double)x->len, sq /= (double)x->len;
        if (o.normalize)
            assert_true(fabs(sum) < 1e-5 && fabs(sq - 1) < 1e-5);
        else
            assert_true(lo == 0 && hi == 1); /* 255 becomes 1 exactly */
        tn_dataset_free(&d);
    }
    tn_tape_free(tape);
}

static jmp_buf escape;
static char panic_text[256];
static void on_panic(void *arg, const char *msg) {
    (void)arg;
    snprintf(panic_text, sizeof panic_text, "%s", msg);
    longjmp(escape, 1);
}

static void panics(const tn_data *d, int n, const int *idx, int first, int targets) {
    tn_tape *tape = tn_tape_new(&err);
    tn_on_panic(tape, on_panic, NULL);
    strcpy(panic_text, "");
    if (setjmp(escape) == 0) {
        if (targets)
            tn_batch_targets(tape, d, n, idx, first);
        else
            tn_batch_input(tape, d, n, idx, first);
        fail_msg("no panic for %d samples from %d", n, first);
    }
    assert_non_null(strstr(panic_text, targets ? "tn_batch_targets" : "tn_batch_input"));
    tn_tape_free(tape);
}

static void batch_bugs(void **state) {
    static const unsigned char x[6];
    static const int label[3];
    tn_data d;
    (void)state;
    assert_int_equal(tn_data_from_arrays(&d, 3, 1, (int[]){2}, TN_U8, x, label, 2, NULL, 0, &err), 0);
    panics(&d, 0, NULL, 0, 0);
    panics(&d, 4, NULL, 0, 0);
    panics(&d, 2, NULL, 2, 0);
    panics(&d, 1, NULL, -1, 0);
    panics(&d, 2, (int[]){0, 3}, 0, 0);
    panics(&d, 1, (int[]){-1}, 0, 0);
    panics(&d, 1, NULL, 0, 1);
}

/* ---- looking ---- */

static void never_lit(void **state) {
    static const unsigned char x[8] = {0, 0, 7, 0, 1, 0, 0, 0};
    static const float f[8] = {0, -0.0f, 7, 0, -1, 0, 0, 1e-30f};
    static const int label[2] = {0, 1};
    unsigned char dark[4];
    tn_data d;
    (void)state;
    assert_int_equal(tn_data_from_arrays(&d, 2, 1, (int[]){4}, TN_U8, x, label, 2, NULL, 0, &err), 0);
    assert_int_equal(tn_never_lit(&d, dark), 2);
    assert_memory_equal(dark, ((unsigned char[]){0, 1, 0, 1}), 4);
    assert_int_equal(tn_data_from_arrays(&d, 2, 1, (int[]){4}, TN_F32, f, label, 2, NULL, 0, &err), 0);
    assert_int_equal(tn_never_lit(&d, dark), 1);
    assert_memory_equal(dark, ((unsigned char[]){0, 1, 0, 0}), 4);
}

static void picture(void **state) {
    static const unsigned char x[12] = {255, 0, 255, 0, 0, 0, 255, 255, 0, 128, 0, 255}; /* 3 x 4 */
    static const int label[1];
    char out[200];
    tn_data d;
    (void)state;
    assert_int_equal(tn_data_from_arrays(&d, 1, 2, (int[]){3, 4}, TN_U8, x, label, 2, NULL, 0, &err), 0);
    const char *want = "\xe2\x96\x80 \xe2\x96\x88\xe2\x96\x84\n \xe2\x96\x80 \xe2\x96\x80\n";
    assert_int_equal(tn_data_picture(&d, 0, 80, 1, out, sizeof out), (int)strlen(want));
    assert_string_equal(out, want);
    assert_int_equal(tn_data_picture(&d, 0, 80, 0, out, sizeof out), 10);
    assert_string_equal(out, "+ @+\n : +\n");
    assert_int_equal(tn_data_picture(&d, 0, 2, 0, out, sizeof out), 3); /* boxes of 2 x 2 */
    assert_int_equal(tn_data_picture(&d, 0, 80, 0, out, 11), 10);
    assert_int_equal(tn_data_picture(&d, 0, 80, 0, out, 10), -1);
    assert_int_equal(tn_data_picture(&d, 1, 80, 0, out, sizeof out), -1);
    assert_int_equal(tn_data_from_arrays(&d, 1, 1, (int[]){12}, TN_U8, x, label, 2, NULL, 0, &err), 0);
    assert_int_equal(tn_data_picture(&d, 0, 80, 0, out, sizeof out), -1);
}

static void registry(void **state) {
    int n;
    const tn_dataset_def *const *def = tn_datasets(&n);
    (void)state;
    assert_int_equal(n, 3);
    for (int i = 0; i < n; i++) {
        assert_int_equal(def[i]->abi, TN_ABI);
        assert_int_equal(def[i]->size, sizeof *def[i]);
        assert_true(def[i]->summary[0] != 0);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256),          cmocka_unit_test(sha256_plain),
        cmocka_unit_test(test_part_alone), cmocka_unit_test(mnist_files),
        cmocka_unit_test(mnist_whole),     cmocka_unit_test(mnist_split),
        cmocka_unit_test(synthetic),       cmocka_unit_test(synthetic_is_learnable),
        cmocka_unit_test(derived),         cmocka_unit_test(subset),
        cmocka_unit_test(noise),           cmocka_unit_test(stratified),
        cmocka_unit_test(wrong_options),   cmocka_unit_test(own_arrays),
        cmocka_unit_test(regression),      cmocka_unit_test(order),
        cmocka_unit_test(batches),         cmocka_unit_test(batch_bugs),
        cmocka_unit_test(never_lit),       cmocka_unit_test(picture),
        cmocka_unit_test(registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

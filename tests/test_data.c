/* SPDX-License-Identifier: MIT */
/* The data sets: the real MNIST as it is shipped, those made by formula, wrong options. Files that are wrong are
 * in test_idx.c, images in test_images.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <zlib.h>

#include "data_internal.h"
#include "data_rig.h"

static tn_err err;

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
    count_labels(&d.train, n);
    assert_memory_equal(n, train, sizeof train);
    count_labels(&d.test, n);
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
    count_labels(&d.train, all);
    count_labels(&d.val, val);
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
        for (int j = 0; j < N; j++)
            mean[d.train.label[i]][j] += pixels_of(&d.train, i)[j] / (d.train.n / 10.);
    for (int i = 0; i < d.test.n; i++) {
        double best = INFINITY;
        int guess = 0;
        for (int c = 0; c < 10; c++) {
            double far = 0;
            for (int j = 0; j < N; j++) far += pow(pixels_of(&d.test, i)[j] - mean[c][j], 2);
            if (far < best) best = far, guess = c;
        }
        right += guess == d.test.label[i];
    }
    assert_in_range(right, 400, 900);
    tn_dataset_free(&d);
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
        cmocka_unit_test(test_part_alone), cmocka_unit_test(mnist_files),
        cmocka_unit_test(mnist_whole),     cmocka_unit_test(mnist_split),
        cmocka_unit_test(synthetic),       cmocka_unit_test(synthetic_is_learnable),
        cmocka_unit_test(wrong_options),   cmocka_unit_test(registry),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}

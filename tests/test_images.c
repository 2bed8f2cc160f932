/* SPDX-License-Identifier: MIT */
/*
 * Pictures: files of all formats, good and bad, folders as data sets, digits made like MNIST's, contact
 * sheets. The pictures are made here, by stb_image_write and byte by byte.
 */
#include <math.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "support.h"
#include "tern_data.h"

#ifdef TERN_HAVE_STB
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#include <stb/stb_image_write.h>

enum { H = 12, W = 17 };
static tn_err err;
static char root[64];

static const char *path(const char *name) {
    static char p[4][512];
    static int k;
    k = (k + 1) % 4;
    snprintf(p[k], sizeof p[k], "%s/%s", root, name);
    return p[k];
}

static void make_dir(const char *name) {
    assert_int_equal(mkdir(path(name), 0777), 0);
}

static void write_bytes(const char *name, const void *p, size_t n) {
    FILE *f = fopen(path(name), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(p, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static size_t read_bytes(const char *name, unsigned char *p, size_t cap) {
    FILE *f = fopen(path(name), "rb");
    assert_non_null(f);
    size_t n = fread(p, 1, cap, f);
    fclose(f);
    return n;
}

/* A new empty folder; the last one goes. */
static int setup(void **state) {
    (void)state;
    snprintf(root, sizeof root, "/tmp/tern-images-XXXXXX");
    return mkdtemp(root) ? 0 : -1;
}

static int teardown(void **state) {
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command);
}

static void fill(unsigned char *x, int c) {
    for (int i = 0; i < H * W * c; i++) x[i] = (unsigned char)(i * 37 + i * i / 11);
}

/* Refused, with a message that names the file and holds the text. */
static void refused(const char *name, const char *text) {
    tn_image i = {0};
    assert_int_equal(tn_image_read(path(name), 1, 0, &i, &err), -1);
    assert_null(i.x);
    assert_contains(err.msg, path(name));
    assert_contains(err.msg, text);
}

static void open_set(const char *where, int val, tn_dataset *d) {
    tn_data_options o = tn_data_options_default();
    o.val_size = val;
    if (tn_dataset_open(where, &o, d, &err)) fail_msg("%s", err.msg);
}

static void set_refused(const char *where, const char *text) {
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    o.val_size = 0;
    assert_int_equal(tn_dataset_open(where, &o, &d, &err), -1);
    assert_contains(err.msg, text);
    assert_null(strchr(err.msg, '\n'));
}

static const char *images(const char *name, const char *options) {
    static char p[600];
    snprintf(p, sizeof p, "images:%s%s%s", path(name), *options ? "," : "", options);
    return p;
}

/* ---- files ---- */

static void formats_without_loss(void **state) {
    unsigned char grey[H * W], rgb[3 * H * W], file[2 * H * W + 64];
    tn_image i;
    (void)state;
    fill(grey, 1);
    fill(rgb, 3);
    assert_true(stbi_write_png(path("grey.png"), W, H, 1, grey, W));
    assert_true(stbi_write_png(path("rgb.png"), W, H, 3, rgb, 3 * W));
    assert_true(stbi_write_bmp(path("rgb.bmp"), W, H, 3, rgb));
    int n = snprintf((char *)file, sizeof file, "P5\n# a comment\n%d %d\n255\n", W, H);
    memcpy(file + n, grey, sizeof grey);
    write_bytes("grey.pgm", file, (size_t)n + sizeof grey);
    FILE *f = fopen(path("rgb.ppm"), "wb");
    fprintf(f, "P6 %d %d 255\n", W, H);
    fwrite(rgb, 1, sizeof rgb, f);
    fclose(f);

    const char *greys[] = {"grey.png", "grey.pgm"}, *colours[] = {"rgb.png", "rgb.bmp", "rgb.ppm"};
    for (int k = 0; k < 2; k++) {
        assert_int_equal(tn_image_read(path(greys[k]), 1, 0, &i, &err), 0);
        assert_true(i.h == H && i.w == W && i.c == 1);
        assert_memory_equal(i.x, grey, sizeof grey);
        tn_image_free(&i);
        assert_int_equal(tn_image_read(path(greys[k]), 3, 0, &i, &err), 0);
        assert_true(i.c == 3 && i.x[0] == grey[0] && i.x[1] == grey[0] && i.x[5] == grey[1]);
        tn_image_free(&i);
    }
    for (int k = 0; k < 3; k++) {
        assert_int_equal(tn_image_read(path(colours[k]), 3, 0, &i, &err), 0);
        assert_true(i.h == H && i.w == W && i.c == 3);
        assert_memory_equal(i.x, rgb, sizeof rgb);
        tn_image_free(&i);
        assert_int_equal(tn_image_read(path(colours[k]), 1, 0, &i, &err), 0);
        for (int p = 0; p < H * W; p++) { /* ITU-R BT.601 */
            double want = 0.299 * rgb[3 * p] + 0.587 * rgb[3 * p + 1] + 0.114 * rgb[3 * p + 2];
            assert_true(fabs(i.x[p] - want) < 1.5);
        }
        tn_image_free(&i);
    }
    write_bytes("pipe", "", 0);
    refused("pipe", "empty");
}

/* 2 x 1 pixels: black, white (GIF89a's appendix F, by hand): clear, 0, 1, end, 3 bits each. */
static const unsigned char gif[] = {'G', 'I', 'F', '8', '9', 'a', 2,   0,    1,    0, 0x80, 0,
                                    0,   0,   0,   0,   255, 255, 255, 0x2c, 0,    0, 0,    0,
                                    2,   0,   1,   0,   0,   2,   2,   0x44, 0x0a, 0, 0x3b};

static void jpeg_and_gif(void **state) {
    unsigned char slope[32 * 32];
    tn_image i;
    (void)state;
    for (int p = 0; p < 32 * 32; p++) slope[p] = (unsigned char)(4 * (p / 32) + 3 * (p % 32));
    assert_true(stbi_write_jpg(path("a.jpg"), 32, 32, 1, slope, 95));
    assert_int_equal(tn_image_read(path("a.jpg"), 1, 0, &i, &err), 0);
    assert_true(i.h == 32 && i.w == 32);
    for (int p = 0; p < 32 * 32; p++) assert_true(abs(i.x[p] - slope[p]) < 6);
    tn_image_free(&i);
    write_bytes("a.gif", gif, sizeof gif);
    assert_int_equal(tn_image_read(path("a.gif"), 1, 0, &i, &err), 0);
    assert_true(i.h == 1 && i.w == 2 && i.x[0] == 0 && i.x[1] == 255);
    tn_image_free(&i);
}

/* The same picture for each of Exif's eight, from the one that such a camera would have stored. */
static void orientation(void **state) {
    static unsigned char jpg[1 << 16], with[1 << 16], dark[32 * 16];
    tn_image i;
    (void)state;
    memset(dark, 255, sizeof dark); /* 32 wide, 16 high; the upper left quarter black */
    for (int y = 0; y < 8; y++) memset(dark + 32 * y, 0, 16);
    assert_true(stbi_write_jpg(path("o.jpg"), 32, 16, 1, dark, 95));
    size_t n = read_bytes("o.jpg", jpg, sizeof jpg);
    /* where the black quarter is to be seen: lower, right */
    static const int where[9][2] = {{0, 0}, {0, 0}, {0, 1}, {1, 1}, {1, 0}, {0, 0}, {0, 1}, {1, 1}, {1, 0}};
    for (int o = 1; o <= 8; o++)
        for (int big = 0; big < 2; big++) {
            unsigned char tag[36] = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0};
            const unsigned char *tiff =
                (const unsigned char *)(big ? "MM\0*\0\0\0\10\0\1\1\22\0\3\0\0\0\1\0?\0\0\0\0\0\0"
                                            : "II*\0\10\0\0\0\1\0\22\1\3\0\1\0\0\0?\0\0\0\0\0\0\0");
            memcpy(tag + 10, tiff, 26);
            tag[10 + (big ? 19 : 18)] = (unsigned char)o;
            memcpy(with, jpg, 2);
            memcpy(with + 2, tag, 36);
            memcpy(with + 38, jpg + 2, n - 2);
            assert_int_equal(tn_image_decode(with, n + 36, "o", 1, 0, &i, &err), 0);
            assert_true(i.h == (o >= 5 ? 32 : 16) && i.w == (o >= 5 ? 16 : 32));
            for (int y = 0; y < 2; y++)
                for (int x = 0; x < 2; x++) {
                    int v = i.x[(i.h / 4 + y * i.h / 2) * i.w + i.w / 4 + x * i.w / 2];
                    assert_int_equal(v < 128, y == where[o][0] && x == where[o][1]);
                }
            tn_image_free(&i);
        }
}

static void transparency(void **state) {
    const unsigned char black[] = {0, 0, 0, 0, 0, 0, 0, 255},
                        white[] = {255, 255, 255, 0, 255, 255, 255, 255};
    tn_image i;
    (void)state;
    assert_true(stbi_write_png(path("b.png"), 2, 1, 4, black, 8));
    assert_true(stbi_write_png(path("w.png"), 2, 1, 4, white, 8));
    assert_int_equal(tn_image_read(path("b.png"), 1, TN_IMAGE_CONTRAST, &i, &err), 0);
    assert_true(i.x[0] == 255 && i.x[1] == 0);
    tn_image_free(&i);
    assert_int_equal(tn_image_read(path("w.png"), 1, TN_IMAGE_CONTRAST, &i, &err), 0);
    assert_true(i.x[0] == 0 && i.x[1] == 255);
    tn_image_free(&i);
    assert_int_equal(tn_image_read(path("w.png"), 1, 0, &i, &err), 0);
    assert_true(i.x[0] == 255 && i.x[1] == 255);
    tn_image_free(&i);
}

/* Every file cut at every length is refused, and so is what is no picture. */
static void broken_files(void **state) {
    static unsigned char grey[H * W], whole[1 << 16];
    tn_image i;
    (void)state;
    fill(grey, 1);
    stbi_write_png(path("c.png"), W, H, 1, grey, W);
    stbi_write_bmp(path("c.bmp"), W, H, 1, grey);
    stbi_write_jpg(path("c.jpg"), W, H, 1, grey, 80);
    write_bytes("c.gif", gif, sizeof gif);
    FILE *f = fopen(path("c.pgm"), "wb");
    fprintf(f, "P5 %d %d 255\n", W, H);
    fwrite(grey, 1, sizeof grey, f);
    fclose(f);
    const char *names[] = {"c.png", "c.bmp", "c.jpg", "c.gif", "c.pgm"};
    for (int k = 0; k < 5; k++) {
        size_t n = read_bytes(names[k], whole, sizeof whole);
        int rc = tn_image_decode(whole, n, "whole", 1, 0, &i, &err);
        if (rc) fail_msg("%s: %s", names[k], err.msg);
        tn_image_free(&i);
        /* the last bytes of a GIF end a block that the first frame does not need */
        for (size_t cut = 0; cut < n - (k == 3 ? 3 : 0); cut++) {
            unsigned char *copy = malloc(cut + 1); /* exactly as long, for address sanitizer */
            memcpy(copy, whole, cut);
            if (!tn_image_decode(copy, cut, "cut", 1, 0, &i, &err))
                fail_msg("%s cut at %zu was read", names[k], cut);
            free(copy);
        }
    }
    size_t n = read_bytes("c.png", whole, sizeof whole);
    for (size_t at = 0; at < n; at++) { /* a checksum stands over every byte of a PNG file */
        whole[at] ^= 0x10;
        if (!tn_image_decode(whole, n, "changed", 1, 0, &i, &err))
            fail_msg("a PNG file changed at %zu was read", at);
        whole[at] ^= 0x10;
    }
    write_bytes("text.png", "hello, world, this is no picture", 32);
    refused("text.png", "not a PNG");
    write_bytes("empty.png", "", 0);
    refused("empty.png", "empty");
    refused("nothere.png", "No such file");
    make_dir("folder.png");
    refused("folder.png", "not a file");
    write_bytes("huge.pgm", "P5 16000 16000 255\n123", 22);
    refused("huge.pgm", "16,384");
    write_bytes("wide.pgm", "P5 20000 2 255\n123", 18);
    refused("wide.pgm", "16,384");
    write_bytes("none.pgm", "P5 0 5 255\n123", 14);
    refused("none.pgm", "picture");
    write_bytes("negative.ppm", "P6 4294967295 1 255\n123", 23);
    refused("negative.ppm", "picture");
}

static void resizing(void **state) {
    unsigned char x[8 * 6];
    tn_image a = {8, 6, 1, x}, b;
    (void)state;
    for (int i = 0; i < 48; i++) x[i] = (unsigned char)(10 * (i / 6) + 20 * (i % 6));
    assert_int_equal(tn_image_resize(&a, 8, 6, &b, &err), 0);
    assert_memory_equal(b.x, x, sizeof x);
    tn_image_free(&b);
    assert_int_equal(tn_image_resize(&a, 16, 18, &b, &err), 0); /* a slope stays one, but for the edges */
    for (int y = 2; y < 14; y++)
        for (int c = 3; c < 15; c++)
            assert_true(fabs(b.x[y * 18 + c] - (10 * ((y + 0.5) / 2 - 0.5) + 20 * ((c + 0.5) / 3 - 0.5)))
                        < 0.51);
    tn_image_free(&b);
    assert_int_equal(tn_image_resize(&a, 1, 1, &b, &err), 0);
    assert_true(abs(b.x[0] - 85) <= 1); /* the mean */
    tn_image_free(&b);
    memset(x, 200, sizeof x);
    assert_int_equal(tn_image_resize(&a, 3, 5, &b, &err), 0);
    for (int i = 0; i < 15; i++) assert_int_equal(b.x[i], 200);
    tn_image_free(&b);
}

/* ---- folders ---- */

/* n pictures of one grey value each in dir, alternating in format. */
static void add_pictures(const char *dir, int n, int value) {
    char name[128];
    unsigned char x[10 * 10];
    make_dir(dir);
    for (int i = 0; i < n; i++) {
        memset(x, value + i, sizeof x);
        snprintf(name, sizeof name, "%s/%02d.%s", dir, i, i % 2 ? "BMP" : "png");
        assert_true((i % 2 ? stbi_write_bmp(path(name), 10, 10, 1, x)
                           : stbi_write_png(path(name), 10, 10, 1, x, 10)));
    }
}

static void folder(void **state) {
    tn_dataset d, again;
    (void)state;
    make_dir("set");
    add_pictures("set/dog", 5, 100);
    add_pictures("set/cat", 10, 10);
    add_pictures("set/\xc3\xa4pfel", 2, 200);
    open_set(images("set", ""), 0, &d);
    assert_true(d.train.n == 13 && d.test.n == 4 && d.train.classes == 3);
    assert_true(d.train.nd == 3 && d.train.dim[0] == 1 && d.train.dim[1] == 28 && d.train.dim[2] == 28);
    assert_string_equal(d.class_name[0], "cat");
    assert_string_equal(d.class_name[1], "dog");
    assert_string_equal(d.class_name[2], "\xc3\xa4pfel");
    assert_string_equal(d.name, "set");
    assert_string_equal(d.note, "");
    int seen[256] = {0};
    for (int p = 0; p < 2; p++) { /* every picture once, with its own label; in the order of the names */
        const tn_data *t = p ? &d.test : &d.train;
        for (int i = 0; i < t->n; i++) {
            int v = ((const unsigned char *)t->x)[(size_t)i * t->len + 300];
            seen[v]++;
            assert_int_equal(t->label[i], v < 100 ? 0 : v < 200 ? 1 : 2);
            if (i) assert_true(t->label[i] >= t->label[i - 1]);
        }
    }
    for (int v = 0; v < 256; v++)
        assert_int_equal(seen[v], (v >= 10 && v < 20) || (v >= 100 && v < 105) || v == 200 || v == 201);

    open_set(path("set"), 3,
             &again); /* recognised without the name; the same data on any number of threads */
    assert_string_equal(again.data_hash, d.data_hash);
    assert_int_equal(again.val.n, 3);
    tn_dataset_free(&again);
    int threads = tn_threads();
    tn_set_threads(threads == 1 ? 3 : 1);
    open_set(images("set", ""), 0, &again);
    tn_set_threads(threads);
    assert_string_equal(again.data_hash, d.data_hash);
    assert_string_equal(again.train.hash, d.train.hash);
    tn_dataset_free(&again);
    open_set(images("set", "color=rgb,height=7,width=9,test=0.5"), 0, &again);
    assert_true(again.train.dim[0] == 3 && again.train.dim[1] == 7 && again.train.dim[2] == 9
                && again.test.n == 9);
    assert_string_not_equal(again.data_hash, d.data_hash);
    tn_dataset_free(&again);
    tn_dataset_free(&d);
}

static void colour_planes(void **state) {
    const unsigned char red[] = {250, 20, 30, 250, 20, 30};
    tn_dataset d;
    (void)state;
    make_dir("rgb");
    add_pictures("rgb/a", 2, 0);
    make_dir("rgb/b");
    stbi_write_png(path("rgb/b/1.png"), 2, 1, 3, red, 6);
    stbi_write_png(path("rgb/b/2.png"), 2, 1, 3, red, 6);
    open_set(images("rgb", "color=rgb,size=2"), 0, &d);
    const unsigned char *x = (const unsigned char *)d.train.x + d.train.len * (size_t)(d.train.n - 1);
    for (int i = 0; i < 4; i++) assert_true(x[i] == 250 && x[4 + i] == 20 && x[8 + i] == 30);
    tn_dataset_free(&d);
}

static void train_and_test(void **state) {
    tn_dataset d;
    (void)state;
    make_dir("tt");
    make_dir("tt/train");
    make_dir("tt/test");
    add_pictures("tt/train/a", 3, 10);
    add_pictures("tt/train/b", 3, 20);
    add_pictures("tt/test/a", 1, 30);
    set_refused(path("tt"), "the class b is missing"); /* recognised, and looked at */
    add_pictures("tt/test/b", 2, 40);
    open_set(path("tt"), 0, &d);
    assert_true(d.train.n == 6 && d.test.n == 3);
    for (int i = 0; i < 3; i++) assert_true(((const unsigned char *)d.test.x)[(size_t)i * d.test.len] >= 30);
    tn_dataset_free(&d);
    set_refused(images("tt", "test=0.3"), "contradicts");
    add_pictures("tt/test/c", 1, 50);
    set_refused(path("tt"), "the class c is not among");
}

static void bad_folders(void **state) {
    tn_dataset d;
    (void)state;
    set_refused(images("nowhere", ""), "nowhere");
    set_refused("images:", "needs its folder");
    set_refused(images("nowhere", "siez=3"), "did you mean \"size\"");
    set_refused(images("nowhere", "size=0"), "size");
    make_dir("bad");
    set_refused(images("bad", ""), "no sub-folders");
    set_refused(path("bad"), "no data set");
    add_pictures("bad/a", 3, 10);
    set_refused(images("bad", ""), "one sub-folder only");
    make_dir("bad/b");
    set_refused(images("bad", ""), "bad/b: no pictures");
    write_bytes("bad/b/notes.txt", "x", 1);
    set_refused(images("bad", ""), "bad/b: no pictures");
    assert_int_equal(rmdir(path("bad/b")), -1);
    add_pictures("bad/c", 4, 50);
    write_bytes("bad/b/x.png", "no picture", 10);
    set_refused(images("bad", ""), "bad/b/x.png");
    assert_contains(err.msg, "skip_broken");
    set_refused(images("bad", "skip_broken=on"), "class b is left");
    assert_int_equal(unlink(path("bad/b/x.png")), 0);
    assert_int_equal(unlink(path("bad/b/notes.txt")), 0);
    assert_int_equal(rmdir(path("bad/b")), 0);
    write_bytes("bad/c/x.png", "no picture", 10);
    write_bytes("bad/c/y.png", "nor this", 8);
    set_refused(images("bad", "test=0.3"), ".png: no picture that can be read");
    write_bytes("bad/c/.hidden.png", "x", 1);
    write_bytes("bad/a/readme.md", "x", 1);
    make_dir("bad/a/deeper");
    assert_int_equal(symlink(path("bad/a/00.png"), path("bad/a/link.png")), 0);
    open_set(images("bad", "skip_broken=on"), 0, &d);
    assert_int_equal(d.train.n + d.test.n, 7);
    assert_contains(d.note, "2 broken pictures left out");
    assert_contains(d.note, "1 hidden entry");
    assert_contains(d.note, "1 symbolic link ");
    assert_contains(d.note, "2 other files or folders");
    tn_dataset_free(&d);
    char name[160];
    snprintf(name, sizeof name, "bad/%070d", 0);
    make_dir(name);
    set_refused(images("bad", ""), "longer than");
    assert_int_equal(rmdir(path(name)), 0);
    make_dir("bad/\xff");
    set_refused(images("bad", ""), "not UTF-8");
}

static void too_many(void **state) {
    char name[64];
    (void)state;
    make_dir("many");
    make_dir("many/a");
    make_dir("many/b");
    for (int i = 0; i < 700; i++) { /* never read: 2.2 GB of pixels are more than the limit */
        snprintf(name, sizeof name, "many/%c/%d.png", "ab"[i % 2], i);
        write_bytes(name, "", 0);
    }
    set_refused(images("many", "size=1024,color=rgb"), "too many pictures");
}

/* ---- digits ---- */

/* The best of no shift and one pixel each way: where the centre of mass lies between two, either is right. */
static double correlation(const unsigned char *a, const unsigned char *b) {
    double best = 0;
    for (int s = 0; s < 9; s++) {
        double ab = 0, aa = 0, bb = 0;
        for (int y = 1; y < 27; y++)
            for (int x = 1; x < 27; x++) {
                double u = a[28 * y + x], v = b[28 * (y + s / 3 - 1) + x + s % 3 - 1];
                ab += u * v, aa += u * u, bb += v * v;
            }
        if (ab / sqrt(aa * bb) > best) best = ab / sqrt(aa * bb);
    }
    return best;
}

/*
 * A picture of 28 k x 28 k pixels and more on each side: the digit light or dark on a ground that slopes,
 * with noise and a speck.
 */
static void photograph(const unsigned char *digit, int k, int margin, int dark, double ink, double slope,
                       int noise, tn_image *out) {
    tn_image a = {28, 28, 1, (unsigned char *)digit}, big;
    uint64_t state = 7;
    assert_int_equal(tn_image_resize(&a, 28 * k, 28 * k, &big, &err), 0);
    assert_int_equal(tn_image_new(out, 28 * k + margin, 28 * k + 2 * margin, 1, &err), 0);
    for (int y = 0; y < out->h; y++)
        for (int x = 0; x < out->w; x++) {
            int sy = y - margin / 3, sx = x - margin;
            double v = sy >= 0 && sx >= 0 && sy < big.h && sx < big.w ? big.x[sy * big.w + sx] / 255.0 : 0;
            if (noise && y > 4 && y < 7 && x > 10 && x < 13) v = 1; /* a speck */
            double light = 1 - slope * x / out->w, grey = dark ? 230 - ink * v : 30 + ink * v;
            state = state * UINT64_C(6364136223846793005) + 1442695040888963407u;
            double g = grey * light + (noise ? (double)(state >> 33) / 4294967296.0 * 2 * noise - noise : 0);
            out->x[y * out->w + x] = (unsigned char)(g < 0 ? 0 : g > 255 ? 255 : g + 0.5);
        }
    tn_image_free(&big);
}

static void digits(void **state) {
    static const struct {
        int k, margin, dark;
        double ink, slope;
        int noise;
        double least, mean;
    } kinds[] = {
        {1, 0, 0, 225, 0, 0, 0.85, 0.97},     {1, 0, 1, 225, 0, 0, 0.85, 0.97},
        {6, 60, 1, 200, 0, 0, 0.8, 0.95},     {6, 60, 0, 120, 0, 0, 0.8, 0.95},
        {8, 90, 1, 150, 0.4, 8, 0.7, 0.93},   {3, 20, 0, 90, 0.3, 5, 0.7, 0.93},
        {20, 200, 1, 150, 0.3, 8, 0.7, 0.93},
    };
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    (void)state;
    if (tn_dataset_open(TERN_SOURCE_DIR "/data/mnist", &o, &d, &err)) fail_msg("%s", err.msg);
    for (int q = 0; q < (int)(sizeof kinds / sizeof *kinds); q++) {
        enum { N = 40 };
        double sum = 0;
        for (int i = 0; i < N; i++) {
            const unsigned char *x = (const unsigned char *)d.test.x + (size_t)i * 784;
            unsigned char out[784];
            tn_image p;
            photograph(x, kinds[q].k, kinds[q].margin, kinds[q].dark, kinds[q].ink, kinds[q].slope,
                       kinds[q].noise, &p);
            if (tn_image_digit(&p, "p", out, &err)) fail_msg("kind %d, digit %d: %s", q, i, err.msg);
            double c = correlation(x, out);
            if (c < kinds[q].least) fail_msg("kind %d, digit %d: correlation %.3f", q, i, c);
            sum += c / N;
            tn_image_free(&p);
        }
        print_message("kind %d: mean correlation %.4f\n", q, sum);
        if (sum < kinds[q].mean) fail_msg("kind %d: mean correlation %.4f", q, sum);
    }
    tn_dataset_free(&d);
}

/* The table beside the paper is larger and darker than the digit, and is left out. */
static void digit_beside_an_edge(void **state) {
    tn_data_options o = tn_data_options_default();
    tn_dataset d;
    (void)state;
    if (tn_dataset_open(TERN_SOURCE_DIR "/data/mnist", &o, &d, &err)) fail_msg("%s", err.msg);
    for (int i = 0; i < 20; i++) {
        const unsigned char *x = (const unsigned char *)d.test.x + (size_t)i * 784;
        unsigned char out[784];
        tn_image p;
        photograph(x, 6, 60, 1, 150, 0, 0, &p);
        for (int y = p.h - 22; y < p.h; y++) memset(p.x + y * p.w, 20, (size_t)p.w);
        if (tn_image_digit(&p, "p", out, &err)) fail_msg("digit %d: %s", i, err.msg);
        double c = correlation(x, out);
        if (c < 0.9) fail_msg("digit %d: correlation %.3f", i, c);
        tn_image_free(&p);
    }
    tn_dataset_free(&d);
}

static void digit_geometry(void **state) {
    unsigned char out[784];
    tn_image i;
    (void)state;
    /* a thin line keeps a stroke that can be seen, in a box of 20 rows */
    assert_int_equal(tn_image_new(&i, 300, 200, 1, &err), 0);
    memset(i.x, 255, 300 * 200);
    for (int y = 50; y < 250; y++) i.x[y * 200 + 70] = i.x[y * 200 + 71] = 0;
    assert_int_equal(tn_image_digit(&i, "line", out, &err), 0);
    int rows = 0, most = 0, sum = 0;
    for (int y = 0; y < 28; y++) {
        int lit = 0;
        for (int x = 0; x < 28; x++)
            lit += out[28 * y + x] > 60, sum += out[28 * y + x],
                most = out[28 * y + x] > most ? out[28 * y + x] : most;
        rows += lit > 0;
        assert_true(lit <= 4);
    }
    assert_true(rows >= 19 && rows <= 20 && most == 255 && sum > 20 * 350);
    /* nothing there; almost nothing; no digit at all */
    memset(i.x, 180, 300 * 200);
    assert_int_equal(tn_image_digit(&i, "blank.png", out, &err), -1);
    assert_contains(err.msg, "blank.png: no digit");
    for (int p = 0; p < 300 * 200; p++) i.x[p] = (unsigned char)(178 + p * 7 % 5);
    assert_int_equal(tn_image_digit(&i, "noise.png", out, &err), -1);
    for (int p = 0; p < 300 * 200; p++)
        i.x[p] = p / 200 > 100 && p / 200 < 200 && p % 200 > 90 && p % 200 < 110 ? 165 : 180;
    assert_int_equal(tn_image_digit(&i, "faint.png", out, &err), -1);
    i.h = 2;
    assert_int_equal(tn_image_digit(&i, "small.png", out, &err), -1);
    assert_contains(err.msg, "too few");
    tn_image_free(&i);
}

/* ---- contact sheets ---- */

static void sheets(void **state) {
    enum { N = 7, S = 5 };
    static unsigned char x[N * S * S];
    const int label[N] = {1, 0, 1, 1, 0, 1, 1};
    tn_data d;
    tn_image sheet, back;
    (void)state;
    for (int i = 0; i < N; i++) memset(x + i * S * S, 10 * (i + 1), S * S);
    assert_int_equal(tn_data_from_arrays(&d, N, 3, (int[]){1, S, S}, TN_U8, x, label, 2, NULL, 0, &err), 0);
    assert_int_equal(tn_data_sheet(&d, 0, 4, 3, 2, &sheet, &err),
                     0); /* rows: class 0 (2), class 1 (3 and 1) */
    assert_true(sheet.c == 1 && sheet.w == 2 + 3 * 12 && sheet.h == 2 + 3 * 12);
    const int want[3][3] = {{20, 50, 96}, {10, 30, 40}, {60, 96, 96}};
    for (int k = 0; k < 9; k++)
        assert_int_equal(sheet.x[(2 + 12 * (k / 3) + 9) * sheet.w + 2 + 12 * (k % 3) + 9],
                         want[k / 3][k % 3]);
    assert_int_equal(tn_image_write(path("sheet.png"), &sheet, &err), 0);
    assert_int_equal(tn_image_read(path("sheet.png"), 1, 0, &back, &err), 0);
    assert_true(back.h == sheet.h && back.w == sheet.w);
    assert_memory_equal(back.x, sheet.x, (size_t)(sheet.h * sheet.w));
    tn_image_free(&back);
    assert_int_equal(tn_image_write(path("none/sheet.png"), &sheet, &err), -1);
    assert_contains(err.msg, "none/sheet.png");
    tn_image_free(&sheet);
    assert_int_equal(tn_data_sheet(&d, 10, 4, 3, 1, &sheet, &err), -1);
    assert_int_equal(tn_data_sheet(&d, 0, 4, 3, 5000, &sheet, &err), -1);
    assert_contains(err.msg, "too large");
}

int main(void) {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(formats_without_loss), T(jpeg_and_gif),   T(orientation), T(transparency),
        T(broken_files),         T(resizing),       T(folder),      T(colour_planes),
        T(train_and_test),       T(bad_folders),    T(too_many),    T(digits),
        T(digit_beside_an_edge), T(digit_geometry), T(sheets),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
int main(void) {
    puts("skipped: built without stb");
    return 77;
}
#endif

/* SPDX-License-Identifier: MIT */
/*
 * A data set by formula: no file, no network, the same bits everywhere.
 *
 * A class is a picture of four smooth blobs. A sample is its class's picture, shifted and of random strength,
 * on top of a weaker one of any class, plus noise in every pixel. A frame of two pixels (of 28) stays zero in
 * all samples, as the corners of MNIST do. Sample i depends on (seed, part, i) alone, so a larger set begins
 * with the smaller one. Only integers, and doubles in operations that IEEE 754 rounds correctly, come between
 * the seed and the pixels.
 */
#include "data_internal.h"
#include "internal.h"
#include <string.h>

enum { BLOBS = 4, CLASSES_MOST = 256, BYTES_MOST = 1 << 30 };

typedef struct {
    long n, test, classes, height, width, seed;
    double noise;
} config;
static const tn_opt table[] = {
    TN_OPT_INT(config, n, 12000, 1, 1000000, "training pictures, validation included"),
    TN_OPT_INT(config, test, 2000, 1, 1000000, "test pictures"),
    TN_OPT_INT(config, classes, 10, 2, CLASSES_MOST, "classes, all equally frequent"),
    TN_OPT_INT(config, height, 28, 8, 256, "pixels"),
    TN_OPT_INT(config, width, 28, 8, 256, "pixels"),
    TN_OPT_REAL(config, noise, 0.15, 0, 10, 0, "standard deviation of the noise, white being 1"),
    TN_OPT_INT(config, seed, 1, 0, 1e15, "of the pictures; the run's seed is another one"),
    TN_OPT_END,
};

/* Prototypes are drawn on a canvas with room for the shifts on each side. */
typedef struct {
    const config *c;
    int h, w, shift, frame;
    unsigned char *proto; /* classes x (h + 2 shift) x (w + 2 shift) */
    size_t canvas;
} maker;

static double between(tn_rng *r, double lo, double hi) {
    return lo + (hi - lo) * tn_uniform(r);
}

/* Blobs of height 1 / (1 + (d / radius)^2)^2, the brightest pixel scaled to 255. */
static void draw_prototype(const maker *m, int class, double *canvas) {
    int H = m->h + 2 * m->shift, W = m->w + 2 * m->shift, least = m->h < m->w ? m->h : m->w;
    tn_rng r = tn_rng_make((uint64_t)m->c->seed, "synthetic", "class", (uint64_t) class, 0);
    double most = 0;
    memset(canvas, 0, m->canvas * sizeof *canvas);
    for (int b = 0; b < BLOBS; b++) {
        double cy = between(&r, 0.25 * m->h, 0.75 * m->h) + m->shift,
               cx = between(&r, 0.25 * m->w, 0.75 * m->w) + m->shift;
        double radius = between(&r, 0.08, 0.16) * least;
        for (int y = 0; y < H; y++)
            for (int x = 0; x < W; x++) {
                double far = ((y - cy) * (y - cy) + (x - cx) * (x - cx)) / (radius * radius);
                canvas[y * W + x] += 1 / ((1 + far) * (1 + far));
            }
    }
    for (size_t i = 0; i < m->canvas; i++)
        if (canvas[i] > most) most = canvas[i];
    for (size_t i = 0; i < m->canvas; i++)
        m->proto[(size_t) class * m->canvas + i] = (unsigned char)(255 * canvas[i] / most + 0.5);
}

/* A picture of a class, shifted at random: the address of its upper left pixel. */
static const unsigned char *shifted(const maker *m, int class, tn_rng *r) {
    int dy = tn_below(r, 2 * m->shift + 1), dx = tn_below(r, 2 * m->shift + 1);
    return m->proto + (size_t) class * m->canvas + dy * (m->w + 2 * m->shift) + dx;
}

/* The sum of a random number's eight bytes: mean 1020, standard deviation 209.02, nearly normal. */
static int byte_sum(tn_rng *r) {
    const uint64_t even = 0x00ff00ff00ff00ffu;
    uint64_t v = tn_rng_next(r), pairs = (v & even) + (v >> 8 & even);
    return (int)(pairs * 0x0001000100010001u >> 48);
}

static void draw_sample(const maker *m, int class, tn_rng *r, unsigned char *out) {
    int stride = m->w + 2 * m->shift;
    const unsigned char *mine = shifted(m, class, r), *other = shifted(m, tn_below(r, (int)m->c->classes), r);
    int strong = 128 + tn_below(r, 128), weak = tn_below(r, 128); /* of 256 */
    double unit = m->c->noise * 255 / 209.02;
    for (int y = m->frame; y < m->h - m->frame; y++)
        for (int x = m->frame; x < m->w - m->frame; x++) {
            int at = y * stride + x;
            int v = (strong * mine[at] + weak * other[at]) / 256 + (int)(unit * (byte_sum(r) - 1020));
            out[y * m->w + x] = (unsigned char)(v < 0 ? 0 : v > 255 ? 255 : v);
        }
}

static int draw_part(const maker *m, int part, long n, tn_data *d, tn_sha256 *sha, tn_err *e) {
    int classes = (int)m->c->classes;
    if (tn_data_alloc(d, (int)n, 3, (int[]){1, m->h, m->w}, TN_U8, classes, 0, e)) return -1;
    tn_arrays *a = d->own;
    for (int i = 0; i < d->n; i++) {
        tn_rng r = tn_rng_make((uint64_t)m->c->seed, "synthetic", "sample", (uint64_t)part, (uint64_t)i);
        a->label[i] = i % classes;
        draw_sample(m, a->label[i], &r, (unsigned char *)a->x + (size_t)i * d->len);
    }
    tn_sha256_int(sha, (int[]){d->n, m->h, m->w, classes}, 4);
    tn_sha256_add(sha, d->x, (size_t)d->n * d->len);
    tn_sha256_int(sha, d->label, (size_t)d->n);
    return 0;
}

static int open_synthetic(const char *dir, const void *cfg, tn_dataset *out, tn_err *e) {
    const config *c = cfg;
    maker m = {.c = c, .h = (int)c->height, .w = (int)c->width};
    int least = m.h < m.w ? m.h : m.w;
    tn_sha256 sha;
    (void)dir;
    if (c->n + c->test > BYTES_MOST / (c->height * c->width))
        return tn_fail(e, "--data synthetic: n, test, height and width ask for more than %d bytes",
                       BYTES_MOST);
    m.shift = least / 8;
    m.frame = least / 14 > 1 ? least / 14 : 1;
    m.canvas = (size_t)(m.h + 2 * m.shift) * (size_t)(m.w + 2 * m.shift);
    m.proto = tn_mem_new((size_t)c->classes * m.canvas);
    double *canvas = tn_mem_new(m.canvas * sizeof *canvas);
    int rc = m.proto && canvas ? 0 : tn_fail(e, "--data synthetic: out of memory");
    tn_sha256_begin(&sha);
    for (int k = 0; k < c->classes && rc == 0; k++) draw_prototype(&m, k, canvas);
    if (rc == 0) rc = draw_part(&m, 0, c->n, &out->train, &sha, e);
    if (rc == 0) rc = draw_part(&m, 1, c->test, &out->test, &sha, e);
    tn_sha256_end(&sha, out->data_hash);
    snprintf(out->name, sizeof out->name, "synthetic");
    tn_free(canvas);
    tn_free(m.proto);
    return rc;
}

extern const tn_dataset_def tn_dataset_synthetic;
const tn_dataset_def tn_dataset_synthetic = {
    .abi = TN_ABI,
    .size = sizeof(tn_dataset_def),
    .name = "synthetic",
    .summary = "pictures of blobs made by formula: no file needed",
    .cfg_size = sizeof(config),
    .cfg = table,
    .open = open_synthetic,
};

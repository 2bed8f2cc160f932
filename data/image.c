/* SPDX-License-Identifier: MIT */
/* One picture: read from a file of any of the usual formats, resized, written as PNG. */
#include "data_internal.h"
#include "internal.h"
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void tn_image_free(tn_image *i) {
    tn_free(i->x);
    *i = (tn_image){0, 0, 0, NULL};
}

int tn_image_new(tn_image *out, int h, int w, int c, tn_err *e) {
    *out = (tn_image){h, w, c, tn_mem_new((size_t)h * (size_t)w * (size_t)c)};
    return out->x ? 0 : tn_fail(e, "not enough memory for a picture of %d x %d pixels", w, h);
}

/* ---- Decoding ---------------------------------------------------------------------------------------- */

static int luminance(const unsigned char *p) { /* ITU-R BT.601, in 256ths */
    return (77 * p[0] + 150 * p[1] + 29 * p[2] + 128) >> 8;
}

/*
 * The ground that shows through transparent pixels: white; or with TN_IMAGE_CONTRAST, where white ink would
 * vanish on it, black.
 */
static int ground_for(const unsigned char *x, size_t n, int c, int how) {
    uint64_t sum = 0, weight = 0;
    if (!(how & TN_IMAGE_CONTRAST)) return 255;
    for (const unsigned char *p = x; p < x + n * (size_t)c; p += c) {
        sum += (uint64_t)p[c - 1] * (uint64_t)(c == 4 ? luminance(p) : p[0]);
        weight += p[c - 1];
    }
    return sum >= 128 * weight ? 0 : 255;
}

/* From 1 ... 4 channels (2 and 4: the last is opacity) to 1 or 3. */
static void convert(const unsigned char *x, int from, tn_image *to, int how) {
    size_t n = (size_t)to->h * (size_t)to->w;
    int ground = from % 2 == 0 ? ground_for(x, n, from, how) : 0;
    unsigned char *y = to->x;
    for (const unsigned char *p = x; p < x + n * (size_t)from; p += from) {
        unsigned char v[3];
        for (int k = 0; k < 3; k++) {
            int value = p[from < 3 ? 0 : k], alpha = from % 2 ? 255 : p[from - 1];
            v[k] = (unsigned char)((value * alpha + ground * (255 - alpha) + 127) / 255);
        }
        if (to->c == 1)
            *y++ = (unsigned char)(from < 3 ? v[0] : luminance(v));
        else
            for (int k = 0; k < 3; k++) *y++ = v[k];
    }
}

/* Exif's 1 ... 8: mirrored and turned in some way; 5 ... 8 swap rows and columns. */
static int turn(tn_image *i, int orientation, tn_err *e) {
    tn_image to;
    int swap = orientation >= 5, flip_x, flip_y;
    if (orientation == 1) return 0;
    flip_x = orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
    flip_y = orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
    if (tn_image_new(&to, swap ? i->w : i->h, swap ? i->h : i->w, i->c, e)) return -1;
    for (int y = 0; y < to.h; y++)
        for (int x = 0; x < to.w; x++) {
            int sy = swap ? x : y, sx = swap ? y : x;
            if (flip_y) sy = i->h - 1 - sy;
            if (flip_x) sx = i->w - 1 - sx;
            memcpy(to.x + ((size_t)y * (size_t)to.w + (size_t)x) * (size_t)i->c,
                   i->x + ((size_t)sy * (size_t)i->w + (size_t)sx) * (size_t)i->c, (size_t)i->c);
        }
    tn_image_free(i);
    *i = to;
    return 0;
}

int tn_image_decode(const void *bytes, size_t n, const char *name, int c, int how, tn_image *out, tn_err *e) {
    int h = 0, w = 0, from = 0;
    *out = (tn_image){0, 0, 0, NULL};
    if (n == 0) return tn_fail(e, "%s: is empty", name);
    const char *why = tn_image_check(bytes, n);
    unsigned char *x = why ? NULL : tn_stb_decode(bytes, n, &h, &w, &from, &why);
    if (!x) return tn_fail(e, "%s: no picture that can be read: %s", name, why);
    int bad = tn_image_new(out, h, w, c, e);
    if (!bad) convert(x, from, out, how);
    tn_free(x);
    if (!bad) bad = turn(out, tn_exif_orientation(bytes, n), e);
    if (bad) tn_image_free(out);
    return bad;
}

static unsigned char *read_file(const char *path, size_t *n, tn_err *e) {
    struct stat st;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe must not make us wait */
    if (fd < 0) return tn_fail(e, "%s: cannot open: %s", path, strerror(errno)), NULL;
    unsigned char *p = NULL;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode))
        tn_fail(e, "%s: is not a file", path);
    else if (st.st_size > 1 << 28)
        tn_fail(e, "%s: is larger than 256 MiB", path);
    else if (!(p = tn_mem_new((size_t)st.st_size)))
        tn_fail(e, "%s: not enough memory to read it", path);
    for (*n = 0; p && *n < (size_t)st.st_size;) {
        ssize_t got = read(fd, p + *n, (size_t)st.st_size - *n);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) {
            tn_fail(e, "%s: cannot read: %s", path, strerror(errno));
            tn_free(p);
            p = NULL;
        }
        if (got <= 0) break;
        *n += (size_t)got;
    }
    close(fd);
    return p;
}

int tn_image_read(const char *path, int c, int how, tn_image *out, tn_err *e) {
    size_t n;
    *out = (tn_image){0, 0, 0, NULL};
    unsigned char *p = read_file(path, &n, e);
    int bad = !p || tn_image_decode(p, n, path, c, how, out, e);
    tn_free(p);
    return bad ? -1 : 0;
}

/* ---- Resizing ---------------------------------------------------------------------------------------- */

/* Weights of the source pixels for one pixel of the result: first, count and w[count], their sum 1. */
typedef struct {
    int first, count;
    double *w;
} taps;

/*
 * A triangle as wide as two pixels of the coarser grid: bilinear where it grows, a local mean where it
 * shrinks.
 */
static void make_taps(int from, int to, int at, taps *t) {
    double step = (double)from / to, reach = step > 1 ? step : 1, centre = (at + 0.5) * step, sum = 0;
    int lo = (int)(centre - reach), hi = (int)(centre + reach) + 1;
    t->first = lo > 0 ? lo : 0;
    t->count = (hi < from ? hi : from) - t->first;
    for (int i = 0; i < t->count; i++) {
        double d = t->first + i + 0.5 - centre, v = 1 - (d < 0 ? -d : d) / reach;
        sum += t->w[i] = v > 0 ? v : 0;
    }
    for (int i = 0; i < t->count; i++) t->w[i] /= sum;
}

/* Columns first, into rows of doubles; then rows. */
static void resize(const tn_image *a, const tn_image *b, double *middle, double *w) {
    size_t ac = (size_t)a->c, row = (size_t)b->w * ac;
    taps t = {.w = w};
    for (int x = 0; x < b->w; x++) {
        make_taps(a->w, b->w, x, &t);
        for (int y = 0; y < a->h; y++)
            for (size_t c = 0; c < ac; c++) {
                const unsigned char *p = a->x + ((size_t)y * (size_t)a->w + (size_t)t.first) * ac + c;
                double s = 0;
                for (int i = 0; i < t.count; i++) s += w[i] * p[(size_t)i * ac];
                middle[(size_t)y * row + (size_t)x * ac + c] = s;
            }
    }
    for (int y = 0; y < b->h; y++) {
        make_taps(a->h, b->h, y, &t);
        for (size_t j = 0; j < row; j++) {
            double s = 0;
            for (int i = 0; i < t.count; i++) s += w[i] * middle[(size_t)(t.first + i) * row + j];
            b->x[(size_t)y * row + j] = (unsigned char)(s + 0.5);
        }
    }
}

int tn_image_resize(const tn_image *a, int h, int w, tn_image *out, tn_err *e) {
    if (tn_image_new(out, h, w, a->c, e)) return -1;
    if (a->h == h && a->w == w) {
        memcpy(out->x, a->x, (size_t)h * (size_t)w * (size_t)a->c);
        return 0;
    }
    size_t most = 2 * (size_t)(a->h > a->w ? a->h : a->w) + 4;
    double *middle = tn_mem_new((size_t)a->h * (size_t)w * (size_t)a->c * sizeof *middle);
    double *weights = tn_mem_new(most * sizeof *weights);
    int bad = !middle || !weights ? tn_fail(e, "not enough memory to resize a picture") : 0;
    if (!bad) resize(a, out, middle, weights);
    tn_free(middle);
    tn_free(weights);
    if (bad) tn_image_free(out);
    return bad;
}

/* ---- Writing ------------------------------------------------------------------------------------------ */

int tn_image_write(const char *path, const tn_image *i, tn_err *e) {
    size_t n = 0;
    const char *why = "";
    unsigned char *png = tn_stb_png(i->h, i->w, i->c, i->x, &n, &why);
    if (!png) return tn_fail(e, "%s: %s", path, why);
    int bad = tn_write_file(path, png, n, e);
    tn_free(png);
    return bad;
}

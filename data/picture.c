/* SPDX-License-Identifier: MIT */
/* Looking at samples: a picture in the terminal, and the pixels that no sample ever lights. */
#include "data_internal.h"
#include <float.h>
#include <string.h>

static double element(const tn_data *d, size_t at) {
    return d->xtype == TN_U8 ? ((const unsigned char *)d->x)[at] : (double)((const float *)d->x)[at];
}

/* Bytes into mask; with restrict a compiler makes it vectors. */
static void gather_lit(unsigned char *restrict mask, const unsigned char *restrict x, size_t len) {
    for (size_t j = 0; j < len; j++) mask[j] |= x[j];
}

int tn_never_lit(const tn_data *d, unsigned char *mask) {
    int dark = 0;
    memset(mask, 0, d->len);
    for (int i = 0; i < d->n; i++) {
        size_t row = (size_t)i * d->len;
        if (d->xtype == TN_U8)
            gather_lit(mask, (const unsigned char *)d->x + row, d->len);
        else
            for (size_t j = 0; j < d->len; j++) mask[j] |= element(d, row + j) != 0;
    }
    for (size_t j = 0; j < d->len; j++) dark += mask[j] = mask[j] == 0;
    return dark;
}

/* One sample being drawn: its grey values, in boxes of step x step pixels. */
typedef struct {
    const tn_data *d;
    size_t start;
    int c, h, w, step;
    double lo, range;
} picture;

/* Mean of box (row, col) over its pixels and channels, 0 (dark) to 1; 0 below the last row. */
static double grey(const picture *p, int row, int col) {
    double sum = 0;
    int n = 0;
    for (int y = row * p->step; y < p->h && y < (row + 1) * p->step; y++)
        for (int x = col * p->step; x < p->w && x < (col + 1) * p->step; x++)
            for (int c = 0; c < p->c; c++, n++)
                sum += element(p->d,
                               p->start + ((size_t)c * (size_t)p->h + (size_t)y) * (size_t)p->w + (size_t)x);
    return n ? (sum / n - p->lo) / p->range : 0;
}

static const char *symbol(double top, double bottom, int unicode) {
    static const char *const half[] = {" ", "\xe2\x96\x84", "\xe2\x96\x80", "\xe2\x96\x88"};
    static const char *const ramp[] = {" ", ".", ":", "-", "=", "+", "*", "#", "%", "@"};
    const double lit = 0.4;
    if (unicode) return half[2 * (top > lit) + (bottom > lit)];
    double mean = (top + bottom) / 2;
    return ramp[mean > 0 && mean < 1 ? (int)(10 * mean) : mean >= 1 ? 9 : 0];
}

static void find_range(picture *p) {
    double lo = DBL_MAX, hi = -DBL_MAX;
    for (size_t j = 0; j < p->d->len; j++) {
        double v = element(p->d, p->start + j);
        if (v < lo) lo = v;
        if (v > hi) hi = v;
    }
    p->lo = p->d->xtype == TN_U8 || !(lo < hi) ? 0 : lo;
    p->range = p->d->xtype == TN_U8 ? 255 : lo < hi ? hi - lo : 1;
}

int tn_data_picture(const tn_data *d, int i, int columns, int unicode, char *out, size_t cap) {
    if (i < 0 || i >= d->n || d->nd < 2 || columns < 1 || cap == 0) return -1;
    picture p = {.d = d, .start = (size_t)i * d->len, .c = d->nd == 3 ? d->dim[0] : 1};
    p.h = d->dim[d->nd - 2];
    p.w = d->dim[d->nd - 1];
    p.step = (p.w - 1) / columns + 1;
    find_range(&p);
    int rows = (p.h - 1) / p.step + 1, cols = (p.w - 1) / p.step + 1;
    size_t at = 0;
    for (int row = 0; row < rows; row += 2)
        for (int col = 0; col <= cols; col++) {
            const char *s = col == cols ? "\n" : symbol(grey(&p, row, col), grey(&p, row + 1, col), unicode);
            size_t n = strlen(s);
            if (n >= cap - at) return -1;
            memcpy(out + at, s, n);
            at += n;
        }
    out[at] = 0;
    return (int)at;
}

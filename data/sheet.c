/* SPDX-License-Identifier: MIT */
/* A contact sheet: samples of a data set side by side in one picture, a class after the other. */
#include "data_internal.h"
#include "internal.h"
#include <limits.h>
#include <string.h>

enum { GAP = 2, GROUND = 96 };

typedef struct {
    const tn_data *d;
    int c, h, w, zoom, columns;
    tn_image *to;
} sheet;

/* Bytes are shown as they are, other values from their smallest to their largest in the sample. */
static void draw_sample(const sheet *s, int sample, int cell) {
    size_t from = (size_t)sample * s->d->len, plane = (size_t)s->h * (size_t)s->w;
    const unsigned char *u8 = s->d->x;
    const float *f32 = s->d->x;
    float lo = 0, range = 0;
    int is_u8 = s->d->xtype == TN_U8;
    for (size_t i = 0; i < s->d->len && !is_u8; i++) {
        float v = f32[from + i];
        if (i == 0 || v < lo) range += i ? lo - v : 0, lo = v;
        if (v - lo > range) range = v - lo;
    }
    int top = GAP + cell / s->columns * (s->h * s->zoom + GAP),
        left = GAP + cell % s->columns * (s->w * s->zoom + GAP);
    for (int y = 0; y < s->h * s->zoom; y++)
        for (int x = 0; x < s->w * s->zoom; x++)
            for (int c = 0; c < s->to->c; c++) {
                size_t at =
                    from + (size_t)c * plane + (size_t)(y / s->zoom) * (size_t)s->w + (size_t)(x / s->zoom);
                float v = is_u8 ? u8[at] : range > 0 ? 255 * (f32[at] - lo) / range : 0;
                s->to->x[((size_t)(top + y) * (size_t)s->to->w + (size_t)(left + x)) * (size_t)s->to->c
                         + (size_t)c] = (unsigned char)(v >= 0 && v <= 255 ? v + 0.5f : 0);
            }
}

/* The next sample of a class (-1: of any) from i on; d->n: none. */
static int next_of(const tn_data *d, int class, int i) {
    while (i < d->n && class >= 0 && d->label[i] != class) i++;
    return i;
}

/* Calls of draw_sample for all cells when s->to has pixels; returns the rows of the sheet. */
static int lay_out(const sheet *s, int first, int most) {
    int classes = s->d->label ? s->d->classes : 1, row = 0;
    for (int k = 0; k < classes; k++) {
        int class = s->d->label ? k : -1, seen = 0, shown = 0;
        for (int i = next_of(s->d, class, 0); i < s->d->n && shown < most; i = next_of(s->d, class, i + 1)) {
            if (seen++ < first) continue;
            if (s->to->x) draw_sample(s, i, row * s->columns + shown);
            shown++;
        }
        row += (shown + s->columns - 1) / s->columns;
    }
    return row;
}

int tn_data_sheet(const tn_data *d, int first, int most, int columns, int zoom, tn_image *out, tn_err *e) {
    *out = (tn_image){0, 0, 0, NULL};
    sheet s = {.d = d, .zoom = zoom, .columns = columns, .to = out};
    if (d->nd < 2)
        return tn_fail(e, "a sheet of pictures: the samples are no pictures, they have one dimension");
    if (first < 0 || most < 1 || columns < 1 || zoom < 1)
        return tn_fail(e, "a sheet of pictures: nothing to show");
    s.c = d->nd == 3 ? d->dim[0] : 1;
    s.h = d->dim[d->nd - 2];
    s.w = d->dim[d->nd - 1];
    int rows = lay_out(&s, first, most);
    double h = GAP + (double)rows * (s.h * (double)zoom + GAP),
           w = GAP + (double)columns * (s.w * (double)zoom + GAP);
    if (rows == 0) return tn_fail(e, "a sheet of pictures: no samples to show");
    if (h * w > TN_IMAGE_MOST || h > TN_IMAGE_MOST_SIDE || w > TN_IMAGE_MOST_SIDE)
        return tn_fail(e, "a sheet of %.0f x %.0f pixels is too large: show fewer samples", w, h);
    if (tn_image_new(out, (int)h, (int)w, s.c == 3 ? 3 : 1, e)) return -1;
    memset(out->x, GROUND, (size_t)out->h * (size_t)out->w * (size_t)out->c);
    lay_out(&s, first, most);
    return 0;
}

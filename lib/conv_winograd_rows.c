/* SPDX-License-Identifier: MIT */
#include "conv_winograd_rows.h"
#include "internal.h"

enum {
    PRODUCTS = 6,
    TAPS = 5,
    BAND = 2, /* rows of windows at a time: what conv_channels takes side by side */
    LEAST_FILTERS = 12
};

int tn_winograd_rows_fits(const tn_conv_plan *p, const tn_window *pool) {
    const tn_window *g = &p->g;
    return tn_gemm_own() && pool && pool->kh == 2 && pool->kw == 2 && g->kh == TAPS && g->kw == TAPS
           && p->groups == 1 && g->sh == 1 && g->sw == 1 && g->dh == 1 && g->dw == 1 && p->co >= LEAST_FILTERS
           && g->c > 1;
}

static int pitch_of(const tn_winograd_rows *j) {
    return tn_pieces(2 * j->across + TAPS - 1, TN_LANES) * TN_LANES;
}

void tn_winograd_rows_terms(const tn_winograd_rows *j, int *off) {
    for (int i = 0; i < j->ci * TAPS; i++) *off++ = i / TAPS * pitch_of(j) + i % TAPS;
    for (int i = 0; i < j->ci * TAPS * TAPS; i++)
        *off++ = (int)(i / (TAPS * TAPS) * j->plane + i / TAPS % TAPS * j->row) + i % TAPS;
}

void tn_winograd_rows_weights(const tn_winograd_rows *j, tn_real *u) {
    for (ptrdiff_t o = 0; o < j->ld; o += j->panel)
        j->k->winograd_rows_weights(j->ci, j->panel, j->w + o * j->ci * TAPS * TAPS,
                                    u + o * j->ci * TAPS * PRODUCTS);
}

/* The transformed rows, then the products, of a band. */
static size_t rows_len(const tn_winograd_rows *j) {
    return (size_t)(PRODUCTS * BAND * j->ci) * (size_t)pitch_of(j);
}
static ptrdiff_t product_len(const tn_winograd_rows *j) {
    return (ptrdiff_t)(BAND * 2 * j->across) * j->ld;
}
size_t tn_winograd_rows_scratch(const tn_winograd_rows *j) {
    return rows_len(j) + PRODUCTS * (size_t)product_len(j);
}

/* A row of windows by direct sums, which go to z: as long as two rows of them, of which there are BAND in a product. */
static void direct_row(const tn_winograd_rows *j, const tn_real *x, tn_real *y, tn_real *place, tn_real *z) {
    const int cols = 2 * j->across, terms = j->ci * TAPS * TAPS;
    for (ptrdiff_t o = 0; o < j->ld; o += j->panel)
        j->k->conv_channels(terms, j->off + j->ci * TAPS, TAPS, 2, cols, x, j->row, j->panel / j->k->width,
                            j->w + o * terms, j->bias ? j->bias + o : NULL, j->relu, z + o, j->ld);
    j->k->max_pool_channels(1, j->across, 2, 2, j->ld, z, cols * j->ld, j->ld, y, place);
}

void tn_winograd_rows_image(const tn_winograd_rows *j, const tn_real *x, tn_real *y, tn_real *place,
                            tn_real *scratch) {
    const int cols = 2 * j->across, terms = j->ci * TAPS;
    const ptrdiff_t pitch = pitch_of(j), one = j->ci * pitch, line = (ptrdiff_t)j->across * j->ld;
    const tn_real *const end = x + j->ci * j->plane;
    tn_real *const m = scratch + rows_len(j);
    for (int r = 0; r < j->down; r += BAND) {
        const int rows = tn_least(BAND, j->down - r);
        for (int i = 0; i < rows; i++)
            j->k->winograd_rows_input(j->ci, cols + TAPS - 1, x + 2 * (r + i) * j->row, end, j->row, j->plane,
                                      scratch + i * one, pitch, BAND * one);
        for (int p = 0; p < PRODUCTS; p++)
            for (ptrdiff_t o = 0; o < j->ld; o += j->panel)
                j->k->conv_channels(terms, j->off, TAPS, rows, cols, scratch + p * BAND * one, one,
                                    j->panel / j->k->width, j->u + (o * PRODUCTS + p * j->panel) * terms,
                                    NULL, 0, m + p * product_len(j) + o, j->ld);
        int wrong[BAND];
        for (int i = 0; i < rows; i++)
            wrong[i] = j->k->winograd_rows_pool(j->across, j->ld, m + i * cols * j->ld, product_len(j),
                                                j->bias, j->relu, y + i * line, place + i * line);
        for (int i = 0; i < rows; i++, y += line, place += line)
            if (wrong[i])
                direct_row(j, x + 2 * (r + i) * j->row, y, place, m); /* the products are done with */
    }
}

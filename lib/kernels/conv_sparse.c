/* SPDX-License-Identifier: MIT */
/*
 * Gradients of a convolution whose output went through max pooling: of each pooling window one element alone has a
 * gradient, and none where ReLU was off, so the non-zeros are visited one by one. Images have their channels last, so that
 * a row of a window is one run of reals; a tile of rows by vectors of it is held in registers:
 *
 *   dw  the tile is a filter's gradient: for each non-zero of the filter's channel, by the lists that conv_sparse_split.c
 *       makes, tile += v * (the window there)
 *   dx  the tile is a window's gradient: for each channel that is not zero at a pixel, by the bits of a mask,
 *       tile += v * (its weights); then the image += the tile
 *
 * Lanes beyond the end of a row hold what happens to stand there: dw leaves them to the caller, dx does not add them.
 */
#include "vec_part.h"

enum { WORD = 64, LINE = 64, MOST = TN_SPARSE_TILE(MR) };

#define TILE_ROW(m, r) m(r, 0) m(r, 1) m(r, 2) m(r, 3) m(r, 4) m(r, 5)
#define TILE(m)        TILE_ROW(m, 0) TILE_ROW(m, 1) TILE_ROW(m, 2) TILE_ROW(m, 3) TILE_ROW(m, 4)
#define CASE_OF(rows, vectors, call)      \
    case (rows)*8 + (vectors):            \
        if ((rows) * (vectors) <= MOST) { \
            call;                         \
        }                                 \
        break;
#define CASES_OF(rows, m) m(rows, 1) m(rows, 2) m(rows, 3) m(rows, 4) m(rows, 5) m(rows, 6)
#define CASES(m)          CASES_OF(1, m) CASES_OF(2, m) CASES_OF(3, m) CASES_OF(4, m) CASES_OF(5, m)

/* ---- what is not zero ---- */

void tn_k_sparse_bits(int planes, int n, const tn_real *v, ptrdiff_t ld, uint64_t *bits) {
    for (int p = 0; p < planes; p++, v += ld)
        for (int q = 0; q < n; q += WORD) {
            uint64_t word = 0;
            int end = n - q < WORD ? n - q : WORD;
            for (int l = 0; l < end; l += VL) {
                const ptrdiff_t readable = (planes - 1 - p) * ld + n - q - l;
                V x = readable < VL ? vload_part(v + q + l, (size_t)(end - l), 0) : vload(v + q + l);
                word |= (uint64_t)vnonzero(x) << l;
            }
            *bits++ = end < WORD ? word & (((uint64_t)1 << end) - 1) : word;
        }
}

void tn_k_sparse_keys(int windows, int places, int channels, const tn_real *key, uint64_t *bits) {
    for (int q = 0; q < windows; q++, key += channels)
        for (int k = 0; k < places; k++)
            for (int o = 0; o < channels; o += WORD) {
                uint64_t word = 0;
                int end = channels - o < WORD ? channels - o : WORD;
                for (int l = 0; l < end; l += VL)
                    word |= (uint64_t)vbits_of(veq(vload(key + o + l), vset1((tn_real)k))) << l;
                *bits++ = word;
            }
}

/* ---- weights ---- */

__attribute__((always_inline)) static inline void dw(const int rows, const int vectors,
                                                     const tn_sparse_lists *s, const tn_real *x,
                                                     ptrdiff_t row, tn_real *sum, ptrdiff_t sum_row,
                                                     ptrdiff_t sum_ld) {
    const tn_real *x0 = x, *x1 = x0 + row, *x2 = x1 + row, *x3 = x2 + row, *x4 = x3 + row, *v = s->v;
    const int *off = s->off, *count = s->count;
    for (int o = 0; o < s->lists; o++, off += s->ld, v += s->ld, count += s->count_ld, sum += sum_ld) {
#define LOAD(r, c) V a##r##c = rows > r && vectors > c ? vload(sum + r * sum_row + c * VL) : vset1(0);
        TILE(LOAD)
        for (ptrdiff_t i = 0; i < *count; i++) {
            const ptrdiff_t at = off[i];
            const V g = vset1(v[i]);
#define ADD(r, c) \
    if (rows > r && vectors > c) a##r##c = vfma(g, vload(x##r + at + c * VL), a##r##c);
            TILE(ADD)
        }
#define STORE(r, c) \
    if (rows > r && vectors > c) vstore(sum + r * sum_row + c * VL, a##r##c);
        TILE(STORE)
    }
}

/*
 * Rows of at most HL reals: the tile is so small that a sum would wait for its last term, so two channels take turns.
 */
#define ROWS(m) m(0) m(1) m(2) m(3) m(4)

__attribute__((always_inline)) static inline void dw_narrow(const int rows, const tn_sparse_lists *s,
                                                            const tn_real *x, ptrdiff_t row, tn_real *sum,
                                                            ptrdiff_t sum_row, ptrdiff_t sum_ld) {
    const tn_real *x0 = x, *x1 = x0 + row, *x2 = x1 + row, *x3 = x2 + row, *x4 = x3 + row;
    for (int o = 0; o < s->lists; o += 2, sum += 2 * sum_ld) {
        const ptrdiff_t two = o + 1 < s->lists, n = s->count[o * s->count_ld],
                        n2 = two ? s->count[(o + 1) * s->count_ld] : 0, both = n < n2 ? n : n2;
        const int *off = s->off + o * s->ld, *off2 = off + two * s->ld;
        const tn_real *v = s->v + o * s->ld, *v2 = v + two * s->ld;
        tn_real *sum2 = sum + two * sum_ld;
#define LOAD_ROW(r)                         \
    VH a##r = vh_set1(0), b##r = a##r;      \
    if (rows > r) {                         \
        a##r = vh_load(sum + r * sum_row);  \
        b##r = vh_load(sum2 + r * sum_row); \
    }
        ROWS(LOAD_ROW)
#define TERM(s, off, v)              \
    {                                \
        const ptrdiff_t at = off[i]; \
        const VH g = vh_set1(v[i]);  \
        ROWS(s)                      \
    }
#define ADD_A(r) \
    if (rows > r) a##r = vh_fma(g, vh_load(x##r + at), a##r);
#define ADD_B(r) \
    if (rows > r) b##r = vh_fma(g, vh_load(x##r + at), b##r);
        for (ptrdiff_t i = 0; i < both; i++) {
            TERM(ADD_A, off, v)
            TERM(ADD_B, off2, v2)
        }
        for (ptrdiff_t i = both; i < n; i++) TERM(ADD_A, off, v)
        for (ptrdiff_t i = both; i < n2; i++) TERM(ADD_B, off2, v2)
#define STORE_ROW(r)                                 \
    if (rows > r) {                                  \
        if (two) vh_store(sum2 + r * sum_row, b##r); \
        vh_store(sum + r * sum_row, a##r);           \
    }
        ROWS(STORE_ROW)
    }
}

void tn_k_sparse_dw(int rows, int vectors, int lanes, const tn_sparse_lists *s, const tn_real *x,
                    ptrdiff_t row, tn_real *sum, ptrdiff_t sum_row, ptrdiff_t sum_ld) {
#define NARROW(r)                                          \
    case r + 1:                                            \
        dw_narrow(r + 1, s, x, row, sum, sum_row, sum_ld); \
        return;
    if (vectors == 1 && lanes <= HL) {
        switch (rows) { ROWS(NARROW) }
    }
#define DW(r, c) CASE_OF(r, c, dw(r, c, s, x, row, sum, sum_row, sum_ld))
    switch (rows * 8 + vectors) { CASES(DW) }
}

/* ---- input ---- */

/* keep: lanes of a row's last vector that are added; the image's own vector is stored whole. */
__attribute__((always_inline)) static inline void dx(const int rows, const int vectors, VI keep, int channels,
                                                     const uint64_t *bits, const tn_real *v, const tn_real *w,
                                                     tn_real *to, ptrdiff_t row) {
#define ZERO(r, c) V a##r##c = vset1(0);
    TILE(ZERO)
    for (int o = 0; o < channels; o += WORD, v += WORD, w += WORD * rows * vectors * VL)
        for (uint64_t m = *bits++; m; m &= m - 1) {
            size_t l = (size_t)__builtin_ctzll(m); /* not an int: fewer instructions an element */
            const tn_real *at = w + l * (size_t)(rows * vectors * VL);
            V g = vset1(v[l]);
#define ADD_W(r, c) \
    if (rows > r && vectors > c) a##r##c = vfma(g, vload(at + (r * vectors + c) * VL), a##r##c);
            TILE(ADD_W)
        }
#define PUT(r, c)                                                           \
    if (rows > r && vectors > c) {                                          \
        V add = vectors == c + 1 ? vsel(keep, a##r##c, vset1(0)) : a##r##c; \
        vstore(to + r * row + c * VL, vload(to + r * row + c * VL) + add);  \
    }
    TILE(PUT)
}

static inline void dx_tile(int rows, int vectors, VI keep, int channels, const uint64_t *bits,
                           const tn_real *v, const tn_real *w, tn_real *to, ptrdiff_t row) {
#define DX(r, c) CASE_OF(r, c, dx(r, c, keep, channels, bits, v, w, to, row))
    switch (rows * 8 + vectors) { CASES(DX) }
}

static inline int least(int a, int b) {
    return a < b ? a : b;
}

/* Every pixel of an image, tile by tile; with one tile alone its size is known when this is compiled. */
__attribute__((always_inline)) static inline void
dx_pixels(const int rows, const int vectors, const tn_sparse_block *b, const tn_sparse_window *s,
          int channels, const uint64_t *bits, const tn_real *v, const tn_real *w, tn_real *image) {
    tn_real number[VL];
    for (int l = 0; l < VL; l++) number[l] = (tn_real)l;
    const VI keep = vlt(vload(number), vset1((tn_real)b->lanes)), all = ~(keep ^ keep);
    const char *soon = s->soon;
    int words = (channels + WORD - 1) / WORD;
    for (int r = 0; r < s->oh; r++)
        for (int c = 0; c < s->ow; c++, v += channels)
            for (int i = 0; i < s->kh; i++)
                for (int j = 0; j < s->kw; j++, bits += words) {
                    for (int l = 0; l < s->step; l += LINE) __builtin_prefetch(soon + l, 1);
                    soon += s->step;
                    uint64_t any = 0;
                    for (int o = 0; o < words; o++) any |= bits[o];
                    if (!any) continue;
                    tn_real *to = image + (r * s->kh + i) * s->row + (c * s->kw + j) * s->pixel;
                    const tn_real *at = w;
                    if (rows) {
                        dx(rows, vectors, keep, channels, bits, v, w, to, s->row);
                        continue;
                    }
                    for (int y = 0; y < b->rows; y += b->tile_rows)
                        for (int x = 0; x < b->vectors; x += b->tile_vectors) {
                            int h = least(b->tile_rows, b->rows - y),
                                n = least(b->tile_vectors, b->vectors - x);
                            dx_tile(h, n, x + n == b->vectors ? keep : all, channels, bits, v, at,
                                    to + y * s->row + x * VL, s->row);
                            at += channels * h * n * VL;
                        }
                }
}

void tn_k_sparse_dx(const tn_sparse_block *b, const tn_sparse_window *s, int channels, const uint64_t *bits,
                    const tn_real *v, const tn_real *w, tn_real *image) {
#define DX_PIXELS(r, c) CASE_OF(r, c, dx_pixels(r, c, b, s, channels, bits, v, w, image))
    if (b->rows > b->tile_rows || b->vectors > b->tile_vectors)
        dx_pixels(0, 0, b, s, channels, bits, v, w, image);
    else
        switch (b->rows * 8 + b->vectors) { CASES(DX_PIXELS) }
}

/* SPDX-License-Identifier: MIT */
/*
 * Convolution with lanes over the pixels of an output row, for few filters or short sums: a tile is up to FILTERS filters
 * by VECTORS vectors of pixels, so that each load of pixels serves all filters and each weight all vectors. The vectors of
 * a plane are counted along its rows; a tile takes the next ones, wherever they lie. Where rows of the result have no room
 * for whole vectors, the last one of a row ends at its edge and overlaps the one before.
 */
#include "level.h"

/* 24 sums, four vectors of pixels and a weight in 32 registers; 12, two and one in 16. */
enum { FILTERS = MR < 6 ? MR : 6, VECTORS = MR < 8 ? 2 : 4 };

#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5)

/* The vectors of a tile: where each begins in x and in a plane of out, and how many of its pixels are stored. */
typedef struct {
    ptrdiff_t x[4], out[4];
    int n[4];
} place;

static inline void put(tn_real *out, int n, V v) {
    if (n >= VL)
        vstore(out, v);
    else if (n > 0)
        vstore_part(out, (size_t)n, v);
}

typedef struct {
    int k;
    const int *off;
    ptrdiff_t ldw, plane;
    int relu;
} layer;

__attribute__((always_inline)) static inline void tile(const int filters, const layer *g, const tn_real *x,
                                                       const tn_real *w, const tn_real *bias, const place *at,
                                                       tn_real *out) {
#define ZERO(l) V a##l = vset1(0), b##l = a##l, c##l = a##l, d##l = a##l;
    EACH(ZERO)
    const ptrdiff_t x1 = at->x[1] - at->x[0], x2 = at->x[2] - at->x[0], x3 = at->x[3] - at->x[0],
                    ldw = g->ldw;
    const int *off = g->off, *const end = off + g->k;
    for (x += at->x[0]; off < end; off++, w += ldw) {
        const tn_real *q = x + *off;
        V p = vload(q), r = vload(q + x1), s = p, t = p;
        if (VECTORS > 2) s = vload(q + x2), t = vload(q + x3);
#define STEP(l)                                                                      \
    if (filters > l) {                                                               \
        V weight = vset1(w[l]);                                                      \
        a##l = vfma(weight, p, a##l), b##l = vfma(weight, r, b##l);                  \
        if (VECTORS > 2) c##l = vfma(weight, s, c##l), d##l = vfma(weight, t, d##l); \
    }
        EACH(STEP)
    }
#define BIAS(l)                                                         \
    if (filters > l) {                                                  \
        V weight = vset1(bias[l]);                                      \
        a##l += weight, b##l += weight, c##l += weight, d##l += weight; \
    }
    if (bias) {
        EACH(BIAS)
    }
#define RECT(l)                                           \
    if (filters > l) {                                    \
        a##l = vmax(zero, a##l), b##l = vmax(zero, b##l); \
        c##l = vmax(zero, c##l), d##l = vmax(zero, d##l); \
    }
    if (g->relu) {
        const V zero = vset1(0);
        EACH(RECT)
    }
    const ptrdiff_t plane = g->plane;
#define STORE_A(l) \
    if (filters > l) vstore(out + at->out[0] + (l)*plane, a##l);
#define STORE_B(l) \
    if (filters > l) vstore(out + at->out[1] + (l)*plane, b##l);
#define STORE_C(l) \
    if (filters > l) vstore(out + at->out[2] + (l)*plane, c##l);
#define STORE_D(l) \
    if (filters > l) vstore(out + at->out[3] + (l)*plane, d##l);
    if (at->n[VECTORS - 1] == VL) { /* all are whole, the last one being so */
        EACH(STORE_A) EACH(STORE_B) if (VECTORS > 2) {
            EACH(STORE_C) EACH(STORE_D)
        }
        return;
    }
#define PUT(l)                                                 \
    if (filters > l) {                                         \
        put(out + at->out[0] + (l)*plane, at->n[0], a##l);     \
        put(out + at->out[1] + (l)*plane, at->n[1], b##l);     \
        if (VECTORS > 2) {                                     \
            put(out + at->out[2] + (l)*plane, at->n[2], c##l); \
            put(out + at->out[3] + (l)*plane, at->n[3], d##l); \
        }                                                      \
    }
    EACH(PUT)
}

static void filters_of_tile(int filters, const layer *g, const tn_real *x, const tn_real *w,
                            const tn_real *bias, const place *at, tn_real *out) {
#define CASE(l)                                               \
    case l + 1:                                               \
        if (l < FILTERS) tile(l + 1, g, x, w, bias, at, out); \
        break;
    switch (filters) { EACH(CASE) }
}

void tn_k_conv_pixels(int k, const int *off, int oh, int ow, const tn_real *x, ptrdiff_t row, int co,
                      const tn_real *w, ptrdiff_t ldw, const tn_real *bias, int relu, tn_real *out,
                      ptrdiff_t pitch, ptrdiff_t plane) {
    const layer g = {k, off, ldw, plane, relu};
    const int blocks = (co + FILTERS - 1) / FILTERS, few = co / blocks, more = co % blocks;
    const int roomy = pitch >= (ow + VL - 1) / VL * VL;
    place at;
    for (int r = 0, c = 0; r < oh;) {
        for (int i = 0; i < VECTORS; i++) {
            if (r == oh) { /* none is left: the last one once more, not stored */
                at.x[i] = at.x[i - 1], at.out[i] = at.out[i - 1], at.n[i] = 0;
                continue;
            }
            int from = roomy || ow < VL || c + VL <= ow ? c : ow - VL;
            at.x[i] = r * row + from, at.out[i] = r * pitch + from, at.n[i] = roomy || ow > VL ? VL : ow;
            if ((c += VL) >= ow) c = 0, r++;
        }
        for (int b = 0, o = 0, n; b < blocks; b++, o += n) {
            n = few + (b < more);
            filters_of_tile(n, &g, x, w + o, bias ? bias + o : NULL, &at, out + o * plane);
        }
    }
}

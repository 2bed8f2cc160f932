/* SPDX-License-Identifier: MIT */
/*
 * Convolution for few filters or short sums with 2 x 2 max pooling in registers: lanes over the pooling windows of a row,
 * a tile of up to FILTERS filters by the four places of a window. Even and odd columns of the image stand apart, so that
 * the windows' pixels of a place are neighbours, and what competes for a window stands in the same lane of four sums.
 */
#include "level.h"

/* 24 sums, four vectors of pixels and a weight in 32 registers; 8, four and one in 16. */
enum { FILTERS = MR < 8 ? 2 : 6 };

#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5)

typedef struct {
    int k;
    const int *even, *odd;
    ptrdiff_t row, ldw, plane;
    int relu;
} layer;

/* n: windows that may be written. */
static inline void pool(V a, V b, V c, V d, const tn_real *bias, int relu, int n, tn_real *y,
                        unsigned char *winner) {
    const V zero = vset1(0);
    if (bias) {
        V v = vset1(*bias);
        a += v, b += v, c += v, d += v;
    }
    if (relu) a = vmax(zero, a), b = vmax(zero, b), c = vmax(zero, c), d = vmax(zero, d);
    V place = zero, below = vset1(2);
    vtake(&a, &place, b, vset1(1));
    vtake(&c, &below, d, vset1(3));
    vtake(&a, &place, c, below);
    if (n >= VL) {
        vstore(y, a), vstore_u8(winner, place);
    } else {
        unsigned char t[VL];
        vstore_part(y, (size_t)n, a), vstore_u8(t, place);
        memcpy(winner, t, (size_t)n);
    }
}

__attribute__((always_inline)) static inline void tile(const int filters, const layer *g, const tn_real *x,
                                                       const tn_real *w, const tn_real *bias, int n,
                                                       tn_real *y, unsigned char *winner) {
#define ZERO(l) V a##l = vset1(0), b##l = a##l, c##l = a##l, d##l = a##l;
    EACH(ZERO)
    const tn_real *down = x + g->row;
    const ptrdiff_t ldw = g->ldw;
    const int *even = g->even, *odd = g->odd, *const end = even + g->k;
    for (; even < end; even++, odd++, w += ldw) {
        V p = vload(x + *even), q = vload(x + *odd), r = vload(down + *even), s = vload(down + *odd);
#define STEP(l)                                           \
    if (filters > l) {                                    \
        V v = vset1(w[l]);                                \
        a##l = vfma(v, p, a##l), b##l = vfma(v, q, b##l); \
        c##l = vfma(v, r, c##l), d##l = vfma(v, s, d##l); \
    }
        EACH(STEP)
    }
#define POOL(l)                                                                            \
    if (filters > l)                                                                       \
        pool(a##l, b##l, c##l, d##l, bias ? bias + l : NULL, g->relu, n, y + l * g->plane, \
             winner + l * g->plane);
    EACH(POOL)
}

void tn_k_conv_pixels_pool(int k, const int *terms, const int *even, const int *odd, int oh, int ow,
                           const tn_real *x, ptrdiff_t row, int co, const tn_real *w, const tn_real *bias,
                           int relu, tn_real *y, unsigned char *winner) {
    layer g = {k, even, odd, row, co, (ptrdiff_t)oh * ow, relu};
    const int blocks = (co + FILTERS - 1) / FILTERS, few = co / blocks, more = co % blocks;
    for (int r = 0; r < oh; r++, x += 2 * row) {
        const tn_real *from = w;
        if (terms) {
            g.k = terms[1] - terms[0], g.even = even + terms[0], g.odd = odd + terms[0];
            from = w + terms[0] * (ptrdiff_t)co, terms += 2;
        }
        for (int i = 0; i < ow; i += VL) {
            /* what spills over belongs to the next row, which comes later; the last row ends with the plane */
            int c = ow >= VL && i + VL > ow ? ow - VL : i, n = (oh - r) * ow - c, at = r * ow + c;
            for (int b = 0, o = 0, m; b < blocks; b++, o += m) {
                m = few + (b < more);
#define CASE(l)                                                                               \
    case l + 1:                                                                               \
        if (l < FILTERS)                                                                      \
            tile(l + 1, &g, x + c, from + o, bias ? bias + o : NULL, n, y + o * g.plane + at, \
                 winner + o * g.plane + at);                                                  \
        break;
                switch (m) { EACH(CASE) }
            }
        }
    }
}

void tn_k_unzip(size_t n, const tn_real *x, tn_real *even, tn_real *odd) {
    for (size_t i = 0; i < n; i += VL) {
        V a = vload(x + 2 * i), b = vload(x + 2 * i + VL);
        vstore(even + i, veven(a, b)), vstore(odd + i, vodd(a, b));
    }
}

/* SPDX-License-Identifier: MIT */
/*
 * Convolution with lanes over the pixels of an output row, for few filters or small windows: a tile is up to
 * MAX_FILTERS filters by two vectors of pixels, so that each load of pixels serves all filters and each weight two
 * vectors. The two vectors lie side by side in a row, or in two rows when a row is no wider than one of them. The last
 * vector of a row ends at its edge and overlaps the one before.
 */
#include "level.h"

enum {
    MAX_FILTERS = MR < 8 ? MR : 8
}; /* with 6: 12 sums, two vectors of pixels and a weight in 16 registers */

#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7)

/* Where the two vectors of a tile lie, from its first pixel; pixels of each that are stored. */
typedef struct {
    ptrdiff_t x, out;
    int n, n2;
} second;

static inline V finish(V sum, const tn_real *bias, int l, int relu) {
    if (bias) sum += vset1(bias[l]);
    return relu ? vmax(vset1(0), sum) : sum;
}

static inline void put(tn_real *out, int n, V v) {
    if (n >= VL)
        vstore(out, v);
    else if (n > 0)
        vstore_part(out, (size_t)n, v);
}

__attribute__((always_inline)) static inline void tile(const int filters, int k, const int *off,
                                                       const tn_real *x, const tn_real *w, ptrdiff_t ldw,
                                                       const tn_real *bias, int relu, const second *s,
                                                       tn_real *out, ptrdiff_t ld) {
#define ZERO(l) V a##l = vset1(0), b##l = a##l;
    EACH(ZERO)
    ptrdiff_t x2 = s->x;
    for (int p = 0; p < k; p++, w += ldw) {
        const tn_real *at = x + off[p];
        V u = vload(at), v = vload(at + x2);
#define STEP(l)                                                     \
    if (filters > l) {                                              \
        V weight = vset1(w[l]);                                     \
        a##l = vfma(weight, u, a##l), b##l = vfma(weight, v, b##l); \
    }
        EACH(STEP)
    }
#define FINISH(l)                                                       \
    if (filters > l) {                                                  \
        put(out + (l)*ld, s->n, finish(a##l, bias, l, relu));           \
        put(out + (l)*ld + s->out, s->n2, finish(b##l, bias, l, relu)); \
    }
    EACH(FINISH)
}

static void filters_of_tile(int filters, int k, const int *off, const tn_real *x, const tn_real *w,
                            ptrdiff_t ldw, const tn_real *bias, int relu, const second *s, tn_real *out,
                            ptrdiff_t ld) {
#define CASE(l)                                                                      \
    case l + 1:                                                                      \
        if (l < MAX_FILTERS) tile(l + 1, k, off, x, w, ldw, bias, relu, s, out, ld); \
        break;
    switch (filters) { EACH(CASE) }
}

void tn_k_conv_pixels(int k, const int *off, int oh, int ow, const tn_real *x, ptrdiff_t row, int co,
                      const tn_real *w, ptrdiff_t ldw, const tn_real *bias, int relu, tn_real *out,
                      ptrdiff_t plane) {
    int blocks = (co + MAX_FILTERS - 1) / MAX_FILTERS, pair = ow <= VL;
    for (int r = 0; r < oh; r += 1 + pair)
        for (int c = 0; c < ow; c += 2 * VL) {
            int first = c, next = c + VL;
            if (ow >= 2 * VL && c + 2 * VL > ow) first = ow - 2 * VL, next = ow - VL;
            if (next + VL > ow && ow > VL) next = ow - VL;
            second s = {next - first, next - first, VL, VL};
            if (pair) {
                int two = r + 1 < oh; /* no second row: the first once more, not stored */
                s = (second){two ? row : 0, ow, ow, two ? ow : 0};
            }
            for (int b = 0; b < blocks; b++) {
                int o = (int)((long)co * b / blocks), o1 = (int)((long)co * (b + 1) / blocks);
                filters_of_tile(o1 - o, k, off, x + r * row + first, w + o, ldw, bias ? bias + o : NULL, relu,
                                &s, out + o * plane + (ptrdiff_t)r * ow + first, plane);
            }
        }
}

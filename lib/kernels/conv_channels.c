/* SPDX-License-Identifier: MIT */
/*
 * Convolution with lanes over the output channels (implicit GEMM): the weights of a panel of one or two vectors of
 * channels are loaded, pixels are broadcast straight out of the image's planes, which are never copied into columns. A
 * tile has two sets of up to MAX_PIXELS sums: neighbours in a row by two vectors of channels, or, where one vector
 * holds all channels, neighbours in each of two rows. The result has its channels last.
 */
#include "level.h"

/* 24 sums in 32 registers; 12 with two vectors of weights and a pixel in 16. */
enum { MAX_PIXELS = MR < 8 ? MR : 12 };

#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11)

static inline V finish(V sum, const tn_real *bias, int relu) {
    if (bias) sum += vload(bias);
    return relu ? vmax(vset1(0), sum) : sum;
}

/* vectors 2: b is the second vector of channels; 1: b is the row below, at x + row and out + down. */
__attribute__((always_inline)) static inline void tile(const int vectors, const int pixels, int k,
                                                       const int *off, const tn_real *x, ptrdiff_t row,
                                                       const tn_real *w, const tn_real *bias, int relu,
                                                       tn_real *out, ptrdiff_t ld, ptrdiff_t down) {
#define ZERO(l) V a##l = vset1(0), b##l = a##l;
    EACH(ZERO)
    for (int p = 0; p < k; p++, w += vectors * VL) {
        const tn_real *at = x + off[p], *below = vectors == 1 ? at + row : at;
        V u = vload(w), v = vectors == 2 ? vload(w + VL) : u;
#define STEP(l) \
    if (pixels > l) a##l = vfma(vset1(at[l]), u, a##l), b##l = vfma(vset1(below[l]), v, b##l);
        EACH(STEP)
    }
    const tn_real *bias2 = vectors == 2 && bias ? bias + VL : bias;
    tn_real *out2 = vectors == 2 ? out + VL : out + down;
#define FINISH(l)                                         \
    if (pixels > l) {                                     \
        vstore(out + (l)*ld, finish(a##l, bias, relu));   \
        vstore(out2 + (l)*ld, finish(b##l, bias2, relu)); \
    }
    EACH(FINISH)
}

static void pixels_of_tile(int vectors, int pixels, int k, const int *off, const tn_real *x, ptrdiff_t row,
                           const tn_real *w, const tn_real *bias, int relu, tn_real *out, ptrdiff_t ld,
                           ptrdiff_t down) {
#define CASE(l)                                                           \
    case l + 1:                                                           \
        if (l >= MAX_PIXELS) break;                                       \
        if (vectors == 2)                                                 \
            tile(2, l + 1, k, off, x, row, w, bias, relu, out, ld, down); \
        else                                                              \
            tile(1, l + 1, k, off, x, row, w, bias, relu, out, ld, down); \
        break;
    switch (pixels) { EACH(CASE) }
}

void tn_k_conv_channels(int k, const int *off, int oh, int ow, const tn_real *x, ptrdiff_t row, int vectors,
                        const tn_real *w, const tn_real *bias, int relu, tn_real *out, ptrdiff_t ld) {
    int pieces = (ow + MAX_PIXELS - 1) / MAX_PIXELS, rows = vectors == 1 ? 2 : 1;
    for (int r = 0; r < oh; r += rows)
        for (int i = 0; i < pieces; i++) {
            int c = ow * i / pieces, c1 = ow * (i + 1) / pieces, two = r + rows <= oh;
            /* no second row: the first is made twice */
            pixels_of_tile(vectors, c1 - c, k, off, x + r * row + c, two ? row : 0, w, bias, relu,
                           out + ((ptrdiff_t)r * ow + c) * ld, ld, two ? ow * ld : 0);
        }
}

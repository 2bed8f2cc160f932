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

/*
 * Two rows, or a last one alone, by one vector, windows `run` pixels wide: a tile's row of the image is broadcast pixel
 * by pixel, each for up to run sums, since loads, not multiplications, bound the tile above. The order of a sum's terms
 * is the same.
 */
#define PIXEL(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11) m(12) m(13) m(14) m(15)
#define TERMS(m, j) \
    m(j, 0) m(j, 1) m(j, 2) m(j, 3) m(j, 4) m(j, 5) m(j, 6) m(j, 7) m(j, 8) m(j, 9) m(j, 10) m(j, 11)

__attribute__((always_inline)) static inline V pick(const int i, V w0, V w1, V w2, V w3, V w4) {
    return i == 0 ? w0 : i == 1 ? w1 : i == 2 ? w2 : i == 3 ? w3 : w4;
}

__attribute__((always_inline)) static inline void run_tile(const int rows, const int run, const int pixels,
                                                           int k, const int *off, const tn_real *x,
                                                           ptrdiff_t row, const tn_real *w,
                                                           const tn_real *bias, int relu, tn_real *out,
                                                           ptrdiff_t ld, ptrdiff_t down) {
    EACH(ZERO)
    for (int p = 0; p < k; p += run, w += run * VL) {
        const tn_real *at = x + off[p], *below = at + row;
        V w0 = vload(w), w1 = vload(w + VL), w2 = vload(w + 2 * VL), w3 = run > 3 ? vload(w + 3 * VL) : w2,
          w4 = run > 4 ? vload(w + 4 * VL) : w3;
#define TERM(j, l)                                                            \
    if (pixels > l && j >= l && j - l < run) {                                \
        a##l = vfma(u, pick(j - l, w0, w1, w2, w3, w4), a##l);                \
        if (rows == 2) b##l = vfma(v, pick(j - l, w0, w1, w2, w3, w4), b##l); \
    }
#define STEPS(j)                                                 \
    if (j < pixels + run - 1) {                                  \
        V u = vset1(at[j]), v = rows == 2 ? vset1(below[j]) : u; \
        TERMS(TERM, j)                                           \
    }
        PIXEL(STEPS)
    }
#define FINISH2(l)                                                            \
    if (pixels > l) {                                                         \
        vstore(out + (l)*ld, finish(a##l, bias, relu));                       \
        if (rows == 2) vstore(out + down + (l)*ld, finish(b##l, bias, relu)); \
    }
    EACH(FINISH2)
}

static void pixels_of_run_tile(int rows, int run, int pixels, int k, const int *off, const tn_real *x,
                               ptrdiff_t row, const tn_real *w, const tn_real *bias, int relu, tn_real *out,
                               ptrdiff_t ld, ptrdiff_t down) {
#define RUN_CASE(l)                                                              \
    case l + 1:                                                                  \
        if (l >= MAX_PIXELS) break;                                              \
        if (run == 5 && rows == 2)                                               \
            run_tile(2, 5, l + 1, k, off, x, row, w, bias, relu, out, ld, down); \
        else if (run == 5)                                                       \
            run_tile(1, 5, l + 1, k, off, x, row, w, bias, relu, out, ld, down); \
        else if (rows == 2)                                                      \
            run_tile(2, 3, l + 1, k, off, x, row, w, bias, relu, out, ld, down); \
        else                                                                     \
            run_tile(1, 3, l + 1, k, off, x, row, w, bias, relu, out, ld, down); \
        break;
    switch (pixels) { EACH(RUN_CASE) }
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

void tn_k_conv_channels(int k, const int *off, int run, int oh, int ow, const tn_real *x, ptrdiff_t row,
                        int vectors, const tn_real *w, const tn_real *bias, int relu, tn_real *out,
                        ptrdiff_t ld) {
    int pieces = (ow + MAX_PIXELS - 1) / MAX_PIXELS, rows = vectors == 1 ? 2 : 1;
    for (int r = 0; r < oh; r += rows)
        for (int i = 0; i < pieces; i++) {
            int c = ow * i / pieces, c1 = ow * (i + 1) / pieces, two = r + rows <= oh;
            if (MAX_PIXELS == 12 && vectors == 1 && (run == 5 || run == 3))
                pixels_of_run_tile(1 + two, run, c1 - c, k, off, x + r * row + c, row, w, bias, relu,
                                   out + ((ptrdiff_t)r * ow + c) * ld, ld, ow * ld);
            else /* no second row: the first is made twice */
                pixels_of_tile(vectors, c1 - c, k, off, x + r * row + c, two ? row : 0, w, bias, relu,
                               out + ((ptrdiff_t)r * ow + c) * ld, ld, two ? ow * ld : 0);
        }
}

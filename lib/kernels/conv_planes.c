/* SPDX-License-Identifier: MIT */
/*
 * Weight gradients of a convolution with short sums (a first layer: one channel, 3 x 3): lanes over the pixels of a row.
 * A plane of the output's gradient has the pitch of the input's plane, with zeros in the gaps, so that it is one run. Some
 * taps of a filter at a time have their sums in registers while it passes once.
 * Each tap has TN_LANES virtual lanes, added up at the end in a fixed tree, so the bits do not depend on the level.
 */
#include "vec_part.h"

/* F(t, l) for every tap of a group and every vector of its lanes. */
#if defined(TN_LEVEL_PLAIN)
enum { TAPS = 1 };
#define LANES(F, t) \
    F(t, 0)         \
    F(t, 1)         \
    F(t, 2)         \
    F(t, 3)         \
    F(t, 4) F(t, 5) F(t, 6) F(t, 7) F(t, 8) F(t, 9) F(t, 10) F(t, 11) F(t, 12) F(t, 13) F(t, 14) F(t, 15)
#define GROUP(F) LANES(F, 0)
#elif defined(TN_LEVEL_NEON)
enum { TAPS = 5 };
#define LANES(F, t) F(t, 0) F(t, 1) F(t, 2) F(t, 3)
#define GROUP(F)    LANES(F, 0) LANES(F, 1) LANES(F, 2) LANES(F, 3) LANES(F, 4)
#elif defined(TN_LEVEL_AVX2)
enum { TAPS = 5 };
#define LANES(F, t) F(t, 0) F(t, 1)
#define GROUP(F)    LANES(F, 0) LANES(F, 1) LANES(F, 2) LANES(F, 3) LANES(F, 4)
#else
enum { TAPS = 9 };
#define LANES(F, t) F(t, 0)
#define GROUP(F) \
    LANES(F, 0)  \
    LANES(F, 1) LANES(F, 2) LANES(F, 3) LANES(F, 4) LANES(F, 5) LANES(F, 6) LANES(F, 7) LANES(F, 8)
#endif

#define LOAD(t, l)  V s##t##_##l = vload(sum + t * TN_LANES + l * VL);
#define STEP(t, l)  s##t##_##l = vfma(vload(g + l * VL), vload(p + off[t] + l * VL), s##t##_##l);
#define STORE(t, l) vstore(sum + t * TN_LANES + l * VL, s##t##_##l);

static void group(const int *off, int blocks, const tn_real *g, const tn_real *p, tn_real *sum) {
    GROUP(LOAD)
    for (int b = 0; b < blocks; b++, g += TN_LANES, p += TN_LANES) {
        GROUP(STEP)
    }
    GROUP(STORE)
}

void tn_k_planes_dw(int taps, const int *off, int blocks, const tn_real *g, const tn_real *x, tn_real *sum) {
    int whole = taps - taps % TAPS;
    for (int t = 0; t < whole; t += TAPS) group(off + t, blocks, g, x, sum + t * TN_LANES);
    if (whole == taps) return;
    tn_real rest[TAPS * TN_LANES] = {
        0}; /* a group that is not full repeats tap 0 in sums that nobody reads */
    int last[TAPS] = {0}, lanes = (taps - whole) * TN_LANES;
    for (int t = whole; t < taps; t++) last[t - whole] = off[t];
    for (int l = 0; l < lanes; l++) rest[l] = sum[whole * TN_LANES + l];
    group(last, blocks, g, x, rest);
    for (int l = 0; l < lanes; l++) sum[whole * TN_LANES + l] = rest[l];
}

static inline V masked(const tn_real *gy, const tn_real *y, size_t n) {
    V g = vload_first(gy, n);
    return y ? vbehind_relu(g, vload_first(y, n)) : g;
}

void tn_k_planes_gradient(int rows, int cols, const tn_real *gy, const tn_real *y, tn_real *out,
                          ptrdiff_t pitch) {
    for (int r = 0; r < rows; r++, gy += cols, y = y ? y + cols : NULL, out += pitch) {
        /* Whole vectors reach into the next row, which is written later, but for the last. */
        size_t room = r + 1 < rows ? (size_t)cols + VL : (size_t)cols;
        if (room > (size_t)(rows - r) * (size_t)cols) room = (size_t)(rows - r) * (size_t)cols;
        for (int c = 0; c < cols; c += VL)
            vstore(out + c, masked(gy + c, y ? y + c : NULL, room - (size_t)c));
        for (ptrdiff_t c = cols; c < pitch; c++) out[c] = 0;
    }
}

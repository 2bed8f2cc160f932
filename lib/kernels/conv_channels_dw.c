/* SPDX-License-Identifier: MIT */
/*
 * Weight and bias gradients of convolution + ReLU with short sums, channels last: lanes over the output channels, pixels
 * of the input broadcast. The sums of all taps of one or two vectors of channels stand in registers while the image passes
 * once.
 */
#include "vec_part.h"

#if defined(TN_LEVEL_AVX512) || defined(TN_LEVEL_NEON)
enum { VECTORS = 2 };
#else
enum { VECTORS = 1 };
#endif
enum { TAPS = 9 };

#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8)

/* A group of taps of `vectors` vectors of channels; the bias' gradient is added to bias unless that is NULL. */
__attribute__((always_inline)) static inline void group(const int vectors, const int taps,
                                                        const tn_channels_dw *s, const int *off,
                                                        const tn_real *x, const tn_real *y, const tn_real *gy,
                                                        tn_real *sum, tn_real *bias) {
#define ZERO(t) V a##t = vset1(0), b##t = a##t;
    EACH(ZERO)
    V a = vset1(0), b = a;
    const ptrdiff_t ld = s->channels;
    for (int r = 0; r < s->oh; r++, x += s->row, y += s->pitch, gy += s->pitch)
        for (int c = 0; c < s->ow; c++) {
            V g = vbehind_relu(vload(gy + c * ld), vload(y + c * ld));
            V h = vectors == 2 ? vbehind_relu(vload(gy + c * ld + VL), vload(y + c * ld + VL)) : g;
            a += g, b += h;
#define STEP(t)                                           \
    if (taps > t) {                                       \
        V p = vset1(x[c + off[t]]);                       \
        a##t = vfma(p, g, a##t), b##t = vfma(p, h, b##t); \
    }
            EACH(STEP)
        }
#define ADD(t)                                                                        \
    if (taps > t) {                                                                   \
        vstore(sum + t * ld, vload(sum + t * ld) + a##t);                             \
        if (vectors == 2) vstore(sum + t * ld + VL, vload(sum + t * ld + VL) + b##t); \
    }
    EACH(ADD)
    if (!bias) return;
    vstore(bias, vload(bias) + a);
    if (vectors == 2) vstore(bias + VL, vload(bias + VL) + b);
}

static void some_taps(int vectors, int taps, const tn_channels_dw *s, const int *off, const tn_real *x,
                      const tn_real *y, const tn_real *gy, tn_real *sum, tn_real *bias) {
#define CASE(t)                                           \
    case t + 1:                                           \
        if (vectors == 2)                                 \
            group(2, t + 1, s, off, x, y, gy, sum, bias); \
        else                                              \
            group(1, t + 1, s, off, x, y, gy, sum, bias); \
        break;
    switch (taps) { EACH(CASE) }
}

void tn_k_channels_dw(const tn_channels_dw *s, const tn_real *x, const tn_real *y, const tn_real *gy,
                      tn_real *sum) {
    for (int o = 0, vectors; o < s->channels; o += vectors * VL) {
        vectors = VECTORS == 2 && o + 2 * VL <= s->channels ? 2 : 1;
        for (int t = 0; t < s->taps; t += TAPS)
            some_taps(vectors, s->taps - t < TAPS ? s->taps - t : TAPS, s, s->off + t, x, y + o, gy + o,
                      sum + (ptrdiff_t)t * s->channels + o,
                      t ? NULL : sum + (ptrdiff_t)s->taps * s->channels + o);
    }
}

/* SPDX-License-Identifier: MIT */
/*
 * Winograd's F(2, 5) down the columns: the two rows of a row of 2 x 2 pooling windows, each a sum over five rows of the image,
 * from six products of a row instead of ten (points 0, 1, -1, 2, -2 and infinity). Along a row the sums are direct, by
 * conv_channels: six rows of the image are turned into six sums of them, which meet six sums of the five rows of weights,
 * and what comes out is added up to the two rows and pooled at once.
 *
 *   input    4 0 -5 0 1 0    weights  1/4 0 0 0 0                         output  1 1  1 1  1 0
 *            0 -4 -4 1 1 0            -1/6 of 1  1 1  1  1                        0 1 -1 2 -2 1
 *            0 4 -4 -1 1 0            -1/6 of 1 -1 1 -1  1
 *            0 -2 -1 2 1 0            1/24 of 1  2 4  8 16
 *            0 2 -1 -2 1 0            1/24 of 1 -2 4 -8 16
 *            0 4 0 -5 0 1             0 0 0 0 1
 *
 * What is not finite spreads over all a window's results here, infinity turns to NaN, and what lies near the largest number
 * overflows. So a row of windows with a result that is not finite (in any channel, so that all vector levels agree) is to be
 * made anew by direct sums.
 */
#include "vec_part.h"

enum { ROWS = 5 };

void tn_k_winograd_rows_weights(int ci, int lanes, const tn_real *w, tn_real *u) {
    const ptrdiff_t row = ROWS * lanes,
                    step = ci * row; /* from one row of weights to the next; one product */
    const V quarter = vset1((tn_real)0.25), sixth = vset1((tn_real)(-1.0 / 6)),
            rest = vset1((tn_real)(1.0 / 24));
    for (int c = 0; c < ci; c++, w += ROWS * row, u += row)
        for (ptrdiff_t l = 0; l < row; l += VL) {
            V a = vload(w + l), b = vload(w + row + l), d = vload(w + 2 * row + l),
              e = vload(w + 3 * row + l), f = vload(w + 4 * row + l);
            V even = a + d + f, odd = b + e;
            vstore(u + l, a * quarter);
            vstore(u + step + l, (even + odd) * sixth), vstore(u + 2 * step + l, (even - odd) * sixth);
            even = vfma(vset1(4), d, a) + vset1(16) * f, odd = vset1(2) * b + vset1(8) * e;
            vstore(u + 3 * step + l, (even + odd) * rest), vstore(u + 4 * step + l, (even - odd) * rest);
            vstore(u + 5 * step + l, f);
        }
}

/* A vector of which no more than what lies below end is read. */
static inline V load_below(const tn_real *p, const tn_real *end) {
    return end - p >= (int)VL ? vload(p) : end > p ? vload_part(p, (size_t)(end - p), 0) : vset1(0);
}

void tn_k_winograd_rows_input(int ci, int cols, const tn_real *x, const tn_real *end, ptrdiff_t row,
                              ptrdiff_t plane, tn_real *t, ptrdiff_t pitch, ptrdiff_t step) {
    for (int c = 0; c < ci; c++, x += plane, t += pitch)
        for (int l = 0; l < cols; l += VL) {
            const tn_real *at = x + l;
            tn_real *to = t + l;
            V a = load_below(at, end), b = load_below(at + row, end), d = load_below(at + 2 * row, end),
              e = load_below(at + 3 * row, end), f = load_below(at + 4 * row, end),
              g = load_below(at + 5 * row, end);
            const V minus4 = vset1(-4), two = vset1(2);
            V even = vfma(minus4, d, f), odd = vfma(minus4, b, e);
            vstore(to, vfma(vset1(4), a, vfma(vset1(-5), d, f)));
            vstore(to + step, even + odd), vstore(to + 2 * step, even - odd);
            even = f - d, odd = two * (e - b);
            vstore(to + 3 * step, even + odd), vstore(to + 4 * step, even - odd);
            vstore(to + 5 * step, vfma(vset1(4), b, vfma(vset1(-5), e, g)));
        }
}

/* The rows' sums before the bias from six products. */
static inline void two_rows(const tn_real *m, ptrdiff_t step, V *upper, V *lower) {
    V a = vload(m), b = vload(m + step), d = vload(m + 2 * step), e = vload(m + 3 * step),
      f = vload(m + 4 * step), g = vload(m + 5 * step);
    *upper = a + (b + d) + (e + f), *lower = vfma(vset1(2), e - f, b - d) + g;
}

int tn_k_winograd_rows_pool(int windows, int channels, const tn_real *m, ptrdiff_t step, const tn_real *bias,
                            int relu, tn_real *y, tn_real *place) {
    const V zero = vset1(0);
    V wrong = zero; /* NaN: something was not finite */
    for (int q = 0; q < windows; q++, m += 2 * channels, y += channels, place += channels)
        for (int o = 0; o < channels; o += VL) {
            V a, b, c, d, at = zero, below = vset1(2);
            two_rows(m + o, step, &a, &c), two_rows(m + channels + o, step, &b, &d);
            wrong = vfma(zero, (a + b) + (c + d), wrong);
            if (bias) {
                V v = vload(bias + o);
                a += v, b += v, c += v, d += v;
            }
            if (relu) a = vmax(zero, a), b = vmax(zero, b), c = vmax(zero, c), d = vmax(zero, d);
            vtake(&a, &at, b, vset1(1));
            vtake(&c, &below, d, vset1(3));
            vtake(&a, &at, c, below);
            vstore(y + o, a), vstore(place + o, at);
        }
    return vany(~veq(wrong, wrong));
}

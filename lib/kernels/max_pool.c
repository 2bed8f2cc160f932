/* SPDX-License-Identifier: MIT */
/*
 * Max pooling over windows side by side, with the place of the first largest element (or the first NaN) of each. Planes:
 * lanes over windows of a row, 2 x 2 alone being worth vectors (even and odd columns of two rows); channels last: lanes
 * over channels, any window.
 */
#include "level.h"

static void two_by_two(int ow, const tn_real *x, ptrdiff_t row, tn_real *y, unsigned char *winner,
                       size_t room) {
    for (int c = 0; c < ow; c += VL) {
        int c0 = ow >= VL && c + VL > ow ? ow - VL : c;
        const tn_real *up = x + 2 * c0, *down = up + row;
        V a = vload(up), b = vload(up + VL), d = vload(down), e = vload(down + VL);
        V best = veven(a, b), place = vset1(0), low = veven(d, e), below = vset1(2);
        vtake(&best, &place, vodd(a, b), vset1(1));
        vtake(&low, &below, vodd(d, e), vset1(3));
        vtake(&best, &place, low, below);
        if (room >= (size_t)c0 + VL) { /* what spills over belongs to the next row, which comes later */
            vstore(y + c0, best), vstore_u8(winner + c0, place);
        } else {
            unsigned char t[VL];
            vstore_part(y + c0, (size_t)(ow - c0), best), vstore_u8(t, place);
            memcpy(winner + c0, t, (size_t)(ow - c0));
        }
    }
}

void tn_k_max_pool_plane(int oh, int ow, int kh, int kw, const tn_real *x, ptrdiff_t row, tn_real *y,
                         unsigned char *winner, size_t room) {
    for (int r = 0; r < oh; r++, x += kh * row, y += ow, winner += ow, room -= (size_t)ow) {
        if (kh == 2 && kw == 2) {
            two_by_two(ow, x, row, y, winner, room);
            continue;
        }
        for (int c = 0; c < ow; c++) {
            tn_real best = x[c * kw];
            int place = 0;
            for (int i = 0; i < kh; i++)
                for (int j = 0; j < kw; j++) {
                    tn_real b = x[i * row + c * kw + j];
                    if (best == best && !(b <= best)) best = b, place = i * kw + j;
                }
            y[c] = best, winner[c] = (unsigned char)place;
        }
    }
}

void tn_k_max_pool_channels(int oh, int ow, int kh, int kw, int channels, const tn_real *x, ptrdiff_t row,
                            ptrdiff_t ld, tn_real *y, tn_real *place) {
    for (int r = 0; r < oh; r++)
        for (int c = 0; c < ow; c++, y += ld, place += ld)
            for (int l = 0; l < channels; l += VL) {
                const tn_real *at = x + r * kh * row + c * kw * ld + l;
                V best = vload(at), p = vset1(0);
                for (int i = 0; i < kh; i++)
                    for (int j = 0; j < kw; j++)
                        vtake(&best, &p, vload(at + i * row + j * ld), vset1((tn_real)(i * kw + j)));
                vstore(y + l, best), vstore(place + l, p);
            }
}

/* Short rows, for which memcpy's start costs more than the copy. */
void tn_k_copy_rows(int rows, int cols, const tn_real *src, ptrdiff_t ld_src, tn_real *dst,
                    ptrdiff_t ld_dst) {
    for (int r = 0; r < rows; r++, src += ld_src, dst += ld_dst) {
        if (cols < VL) {
            for (int c = 0; c < cols; c++) dst[c] = src[c];
            continue;
        }
        for (int c = 0; c < cols; c += VL) {
            int at = c + VL <= cols ? c : cols - VL;
            vstore(dst + at, vload(src + at));
        }
    }
}

void tn_k_to_u8(size_t n, const tn_real *x, unsigned char *out) {
    size_t i = 0;
    for (; i + VL <= n; i += VL) vstore_u8(out + i, vload(x + i));
    for (; i < n; i++) out[i] = (unsigned char)x[i];
}

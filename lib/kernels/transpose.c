/* SPDX-License-Identifier: MIT */
/*
 * The transpose of a matrix: images between NCHW and NHWC. Blocks of TL rows by 4 columns are turned in registers; what is
 * left at the right and at the bottom goes one by one. Blocks run down the columns, so that each line of the result is
 * filled while it is in the first-level cache.
 */
#include "level.h"
#include "turn.h"

static void one_by_one(int r0, int r1, int c0, int c1, const tn_real *src, ptrdiff_t ld_src, tn_real *dst,
                       ptrdiff_t ld_dst) {
    for (ptrdiff_t c = c0; c < c1; c++)
        for (ptrdiff_t r = r0; r < r1; r++) dst[c * ld_dst + r] = src[r * ld_src + c];
}

void tn_k_transpose(int rows, int cols, const tn_real *src, ptrdiff_t ld_src, tn_real *dst,
                    ptrdiff_t ld_dst) {
#ifdef TN_LEVEL_PLAIN
    one_by_one(0, rows, 0, cols, src, ld_src, dst, ld_dst);
#else
    int down = rows - rows % TL, across = cols - cols % 4;
    for (ptrdiff_t c = 0; c < across; c += 4)
        for (ptrdiff_t r = 0; r < down; r += TL)
            turn_block(src + r * ld_src + c, ld_src, dst + c * ld_dst + r, ld_dst);
    one_by_one(0, down, across, cols, src, ld_src, dst, ld_dst);
    one_by_one(down, rows, 0, cols, src, ld_src, dst, ld_dst);
#endif
}

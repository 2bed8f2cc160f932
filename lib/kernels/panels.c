/* SPDX-License-Identifier: MIT */
/*
 * Products of a recurrent layer: some rows by one panel, which is as wide as the largest register tile: with 32
 * registers three vectors, where gemm's panels have two, because few rows meet each panel and what a tile costs to begin
 * and to end counts. The panel is cut into blocks of k that stay in L1 for all rows.
 */
#include "tile.h"

enum { PANEL_K = 160 };

static int rows_of_tile(int left) {
    if (left <= MR) return left;
    return left >= 2 * MR ? MR : (left + 1) / 2;
}

void tn_k_panel_product(int m, int w, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs,
                        const tn_real *panel, tn_real *c, ptrdiff_t ldc, int add) {
    int blocks = (k + PANEL_K - 1) / PANEL_K;
    for (int b = 0, p = 0, end; b < blocks; b++, p = end) {
        end = (int)((long)k * (b + 1) / blocks);
        tile_out o = {ldc, NULL, add || b ? ADD : 0};
        for (int i = 0, rows; i < m; i += rows) {
            rows = rows_of_tile(m - i);
            any_tile(rows, w, end - p, a + i * rs + p * cs, rs, cs, panel + (ptrdiff_t)p * w, w, c + i * ldc,
                     &o);
        }
    }
}

/* SPDX-License-Identifier: MIT */
/*
 * Windows to columns and back. A row of the matrix belongs to one element of the window and runs over output positions,
 * so with stride 1 it is made of copies of whole image rows; what hangs over the edge is found once a row, not once an
 * element.
 */
#include "im2col.h"
#include <string.h>

int tn_window_out(int in, int k, int stride, int pad, int dilation) {
    long reach = (long)in + 2L * pad - (long)dilation * (k - 1) - 1;
    return reach < 0 ? 0 : (int)(reach / stride) + 1;
}

/* Output columns [*lo, *hi) whose input column j dw + ow sw - pw lies inside the image. */
static void inside(const tn_window *g, int j, int *lo, int *hi) {
    long first = (long)g->pw - (long)j * g->dw, last = first + g->w - 1; /* in units of input columns */
    long a = first <= 0 ? 0 : (first + g->sw - 1) / g->sw, b = last < 0 ? 0 : last / g->sw + 1;
    *lo = (int)(a < g->ow ? a : g->ow), *hi = (int)(b < g->ow ? b : g->ow);
    if (*hi < *lo) *hi = *lo;
}

void tn_im2col(const tn_window *g, const tn_real *x, int row0, int row1, tn_real *col) {
    for (int c = 0; c < g->c; c++)
        for (int i = 0; i < g->kh; i++)
            for (int j = 0; j < g->kw; j++) {
                int lo, hi;
                inside(g, j, &lo, &hi);
                for (int r = row0; r < row1; r++, col += g->ow) {
                    int y = r * g->sh - g->ph + i * g->dh;
                    if (y < 0 || y >= g->h) {
                        memset(col, 0, (size_t)g->ow * sizeof *col);
                        continue;
                    }
                    const tn_real *in = x + ((ptrdiff_t)c * g->h + y) * g->w + (j * g->dw - g->pw);
                    for (int p = 0; p < lo; p++) col[p] = 0;
                    if (g->sw == 1)
                        memcpy(col + lo, in + lo, (size_t)(hi - lo) * sizeof *col);
                    else
                        for (int p = lo; p < hi; p++) col[p] = in[(ptrdiff_t)p * g->sw];
                    for (int p = hi; p < g->ow; p++) col[p] = 0;
                }
            }
}

void tn_col2im(const tn_window *g, const tn_real *col, int row0, int row1, tn_real *x) {
    for (int c = 0; c < g->c; c++)
        for (int i = 0; i < g->kh; i++)
            for (int j = 0; j < g->kw; j++) {
                int lo, hi;
                inside(g, j, &lo, &hi);
                for (int r = row0; r < row1; r++, col += g->ow) {
                    int y = r * g->sh - g->ph + i * g->dh;
                    if (y < 0 || y >= g->h) continue;
                    tn_real *out = x + ((ptrdiff_t)c * g->h + y) * g->w + (j * g->dw - g->pw);
                    for (int p = lo; p < hi; p++) out[(ptrdiff_t)p * g->sw] += col[p];
                }
            }
}

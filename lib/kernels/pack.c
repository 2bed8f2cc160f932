/* SPDX-License-Identifier: MIT */
/*
 * Packs the right factor of a product into panels of NR columns: k rows of NR reals each, so that the inner
 * loop of the product reads one stream from beginning to end.
 */
#include "level.h"
#include "turn.h"

enum { AHEAD = 16 }; /* reals in a cache line: columns are fetched two lines ahead */

/* Rows p0..k-1 of columns j0..NR-1, one by one, for any strides; zeros from column cols on. */
static void pack_slowly(int p0, int k, int j0, int cols, const tn_real *b, ptrdiff_t rs, ptrdiff_t cs,
                        tn_real *out) {
    for (ptrdiff_t p = p0; p < k; p++) {
        for (ptrdiff_t j = j0; j < cols; j++) out[p * NR + j] = b[p * rs + j * cs];
        for (ptrdiff_t j = j0 > cols ? j0 : cols; j < NR; j++) out[p * NR + j] = 0;
    }
}

static void pack_full_rows(int k, const tn_real *b, ptrdiff_t rs, tn_real *out) {
    for (int p = 0; p < k; p++, b += rs, out += NR) {
        vstore(out, vload(b));
        vstore(out + VL, vload(b + VL));
    }
}

#ifdef TN_LEVEL_PLAIN

static void pack_columns(int k, int cols, const tn_real *b, ptrdiff_t cs, tn_real *out) {
    pack_slowly(0, k, 0, cols, b, 1, cs, out);
}

#else

/*
 * Columns that are contiguous in memory: weights (out, in), used as their transpose. Four rows of the whole panel at a
 * time, so that every line of it is written once.
 */
static void pack_columns(int k, int cols, const tn_real *b, ptrdiff_t cs, tn_real *out) {
    int rows = k - k % 4, turned = cols - cols % TL;
    for (int p = 0; p < rows; p += 4, b += 4, out += 4 * NR) {
        if (p % AHEAD == 0) /* more streams than the processor follows by itself */
            for (ptrdiff_t j = 0; j < cols; j++) __builtin_prefetch(b + j * cs + 2 * AHEAD);
        for (ptrdiff_t j = 0; j < turned; j += TL) turn_block(b + j * cs, cs, out + j, NR);
        if (turned < NR) pack_slowly(0, 4, turned, cols, b, 1, cs, out);
    }
    if (rows < k) pack_slowly(0, k - rows, 0, cols, b, 1, cs, out);
}

#endif

void tn_k_pack_panel(int k, int cols, const tn_real *b, ptrdiff_t rs, ptrdiff_t cs, tn_real *out) {
    if (cs == 1 && cols == NR)
        pack_full_rows(k, b, rs, out);
    else if (rs == 1)
        pack_columns(k, cols, b, cs, out);
    else
        pack_slowly(0, k, 0, cols, b, rs, cs, out);
}

void tn_k_pack_b(int k, int n, const tn_real *b, ptrdiff_t rs, ptrdiff_t cs, tn_real *out) {
    for (int j = 0; j < n; j += NR, out += (ptrdiff_t)k * NR)
        tn_k_pack_panel(k, n - j < NR ? n - j : NR, b + j * cs, rs, cs, out);
}

/* SPDX-License-Identifier: MIT */
/*
 * The product by one panel of a B whose rows, and C's, lie far apart in memory: there the lines that are needed soon come
 * from the last cache one by one, and a burst of requests for them holds up everything else. So they are asked for evenly,
 * between the steps of the tiles: C's rows in time for their tile's end, and another array's for the next panel.
 * The tile is as high as the registers allow, which needs the fewest loads for each operation.
 */
#include "level.h"

#if defined(TN_LEVEL_AVX512) || defined(TN_LEVEL_NEON)
enum { ROWS = 12 };
#else
enum { ROWS = 6 };
#endif
enum { GROUPS = 16, LINE = 64 / (int)sizeof(tn_real) };

#define EACH(m) m(0) m(1) m(2) m(3) m(4) m(5) m(6) m(7) m(8) m(9) m(10) m(11)

static inline void fetch_soon(const tn_real *p, int len) {
    for (int l = 0; l < len; l += LINE) __builtin_prefetch(p + l, 0, 2);
}

/* soon: `more` rows, ld apart, of what is fetched meanwhile. */
__attribute__((always_inline)) static inline void
tile(const int rows, const tn_gemm_panel *s, const tn_real *a, tn_real *c, const tn_real *soon, int more) {
    const ptrdiff_t lda = s->lda, ldc = s->ldc;
    const tn_real *b = s->b;
#define ZERO(i) V l##i = vset1(0), r##i = l##i;
    EACH(ZERO)
#define LOAD(i) \
    if (rows > i) l##i = vload(c + i * ldc), r##i = vload(c + i * ldc + VL);
    if (s->add) {
        EACH(LOAD)
    }
    for (int g = 0, p = 0; g < GROUPS; g++) {
        if (g < rows && !s->add) __builtin_prefetch(c + g * ldc, 1), __builtin_prefetch(c + g * ldc + VL, 1);
        for (int i = more * g / GROUPS; i < more * (g + 1) / GROUPS; i++)
            fetch_soon(soon + i * s->ld_soon, s->soon_len);
        for (int end = (int)((long)s->k * (g + 1) / GROUPS); p < end; p++, a++, b += NR) {
            V bl = vload(b), br = vload(b + VL);
#define STEP(i)                                             \
    if (rows > i) {                                         \
        V x = vset1(a[i * lda]);                            \
        l##i = vfma(x, bl, l##i), r##i = vfma(x, br, r##i); \
    }
            EACH(STEP)
        }
    }
#define STORE(i) \
    if (rows > i) vstore(c + i * ldc, l##i), vstore(c + i * ldc + VL, r##i);
    EACH(STORE)
}

static void any_tile(int rows, const tn_gemm_panel *s, const tn_real *a, tn_real *c, const tn_real *soon,
                     int more) {
#define CASE(i)                                         \
    case i + 1:                                         \
        if (i < ROWS) tile(i + 1, s, a, c, soon, more); \
        break;
    switch (rows) { EACH(CASE) }
}

void tn_k_gemm_panel(const tn_gemm_panel *s) {
    const int tiles = (s->m + ROWS - 1) / ROWS;
    for (int t = 0; t < tiles; t++) { /* as equal as can be: a thin tile does not fill the units */
        const int i = (int)((long)s->m * t / tiles), end = (int)((long)s->m * (t + 1) / tiles);
        const int n = (int)((long)s->soon_rows * t / tiles), n1 = (int)((long)s->soon_rows * (t + 1) / tiles);
        any_tile(end - i, s, s->a + i * s->lda, s->c + i * s->ldc, s->soon + n * s->ld_soon, n1 - n);
    }
}

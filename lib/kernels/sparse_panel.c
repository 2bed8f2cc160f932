/* SPDX-License-Identifier: MIT */
/*
 * The product of an A that is mostly zeros (pictures; a gradient behind ReLU and dropout) and a panel of B of four vectors,
 * which stays in the first-level cache: the rows of B that meet something are visited by the bits of a mask. Two rows of A
 * go together and skip what is zero in both: they are often neighbours and alike, and what is loaded for one serves the
 * other, as the processor (measured) does not reach two multiply-adds a cycle when each has to load a factor.
 * C's rows and the next panel's may lie far apart in memory and are fetched ahead.
 */
#include "level.h"

enum { WIDTH = TN_SPARSE_WIDTH, LINE = 64 / (int)sizeof(tn_real), AHEAD = 8, WORD = 64 };

/* Keeps gcc from loading a factor once for each of its uses. */
#if defined(TN_LEVEL_AVX512)
#define IN_REGISTER(v) __asm__("" : "+v"(v))
#elif defined(TN_LEVEL_AVX2)
#define IN_REGISTER(v) __asm__("" : "+x"(v))
#else
#define IN_REGISTER(v)
#endif

#define EACH(m)   m(0) m(1) m(2) m(3)
#define ZERO(i)   V c##i = vset1(0), d##i = c##i;
#define LOAD_C(i) c##i = vload(c + (i)*VL), d##i = vload(d + (i)*VL);
#define STEP(i)                                                     \
    {                                                               \
        V factor = vload(b + (i)*VL);                               \
        IN_REGISTER(factor);                                        \
        c##i = vfma(x, factor, c##i), d##i = vfma(y, factor, d##i); \
    }
#define STORE(i) vstore(c + (i)*VL, c##i), vstore(d + (i)*VL, d##i);

/* Row i and the next one, or itself again. */
static inline void two_rows(const tn_sparse_panel *s, int i, int next) {
    const uint64_t *bits = s->bits + i * s->ld_bits, *more = bits + next * s->ld_bits;
    const tn_real *a = s->a + i * s->rs, *of_next = a + next * s->rs;
    tn_real *c = s->c + i * s->ldc, *d = c + next * s->ldc;
    const ptrdiff_t cs = s->cs;
    EACH(ZERO)
    if (s->add) {
        EACH(LOAD_C)
    }
    for (int w = 0; w < s->words; w++, a += WORD * cs, of_next += WORD * cs) {
        const tn_real *panel = s->b + (ptrdiff_t)w * WORD * WIDTH;
        for (uint64_t left = bits[w] | more[w]; left; left &= left - 1) {
            const ptrdiff_t p = __builtin_ctzll(left);
            const tn_real *b = panel + p * WIDTH;
            const V x = vset1(a[p * cs]), y = vset1(of_next[p * cs]);
            EACH(STEP)
        }
    }
    EACH(STORE)
}

void tn_k_sparse_panel(const tn_sparse_panel *s) {
    for (int i = 0, soon = 0; i < s->m; i += 2) {
        for (int r = i + AHEAD; r < i + AHEAD + 2 && r < s->m && s->far; r++)
            for (int l = 0; l < WIDTH; l += LINE) __builtin_prefetch(s->c + r * s->ldc + l, 1);
        for (int end = (int)((long)s->soon_rows * (i + 2) / s->m); soon < end && soon < s->soon_rows; soon++)
            for (int l = 0; l < s->soon_len; l += LINE)
                __builtin_prefetch(s->soon + soon * s->ld_soon + l, 0, 2);
        two_rows(s, i, i + 1 < s->m);
    }
}

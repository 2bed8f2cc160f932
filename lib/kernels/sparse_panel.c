/* SPDX-License-Identifier: MIT */
/*
 * The product of an A that is mostly zeros (pictures; a gradient behind ReLU and dropout) and a panel of B of four or eight
 * vectors, which stays in the first-level cache: the rows of B that meet something are visited by the bits of a mask.
 *
 * What counts is loads (measured: one of a vector costs half as much as a multiply-add, although they could go side by
 * side) and chains (four sums wait for themselves). So with four vectors two rows of A go together. Neighbours that are
 * alike skip what is zero in both, and what is loaded for one serves the other; rows that are not alike, such as the
 * pictures of a batch, each visit their own. With eight vectors, where registers allow that, such a row goes alone, and
 * half as many bits are looked at.
 *
 * C's rows may lie far apart in memory and are fetched ahead, as is what the caller needs next.
 */
#include "level.h"

enum { LINE = 64 / (int)sizeof(tn_real), AHEAD = 8, WORD = 64 };

#define EACH_4(m) m(0) m(1) m(2) m(3)
#define EACH_8(m) EACH_4(m) m(4) m(5) m(6) m(7)

#define ZERO(i)   V c##i = vset1(0);
#define LOAD_C(i) c##i = vload(c + (i)*VL);
#define STEP(i)   c##i = vfma(x, vload(b + (i)*VL), c##i);
#define STORE(i)  vstore(c + (i)*VL, c##i);

#define ZERO_2(i)   V c##i = vset1(0), d##i = c##i;
#define LOAD_C_2(i) c##i = vload(c + (i)*VL), d##i = vload(d + (i)*VL);
#define STEP_2(i)                                                   \
    {                                                               \
        V factor = vload(b + (i)*VL);                               \
        IN_REGISTER(factor);                                        \
        c##i = vfma(x, factor, c##i), d##i = vfma(y, factor, d##i); \
    }
#define STORE_2(i) vstore(c + (i)*VL, c##i), vstore(d + (i)*VL, d##i);

/* Row i and the next one, or itself again. */
static inline void two_rows(const tn_sparse_panel *s, int i, int next) {
    const uint64_t *bits = s->bits + i * s->ld_bits, *more = bits + next * s->ld_bits;
    const tn_real *a = s->a + i * s->rs, *of_next = a + next * s->rs;
    tn_real *c = s->c + i * s->ldc, *d = c + next * s->ldc;
    const ptrdiff_t cs = s->cs, step = s->word_step;
    EACH_4(ZERO_2)
    if (s->add) {
        EACH_4(LOAD_C_2)
    }
    for (int w = 0; w < s->words; w++, a += WORD * cs, of_next += WORD * cs) {
        const tn_real *panel = s->b + (ptrdiff_t)w * WORD * TN_SPARSE_WIDTH;
        for (uint64_t left = bits[w * step] | more[w * step]; left; left &= left - 1) {
            const ptrdiff_t p = __builtin_ctzll(left);
            const tn_real *b = panel + p * TN_SPARSE_WIDTH;
            const V x = vset1(a[p * cs]), y = vset1(of_next[p * cs]);
            EACH_4(STEP_2)
        }
    }
    EACH_4(STORE_2)
}

#define STEP_D(i) d##i = vfma(y, vload(b + (i)*VL), d##i);

/* The same, each by its own bits, side by side as long as both have some. */
static inline void two_apart(const tn_sparse_panel *s, int i, int next) {
    const uint64_t *bits = s->bits + i * s->ld_bits, *more = bits + next * s->ld_bits;
    const tn_real *a = s->a + i * s->rs, *of_next = a + next * s->rs, *panel = s->b, *b;
    tn_real *c = s->c + i * s->ldc, *d = c + next * s->ldc;
    const ptrdiff_t cs = s->cs, step = s->word_step;
    EACH_4(ZERO_2)
    if (s->add) {
        EACH_4(LOAD_C_2)
    }
    for (int w = 0; w < s->words;
         w++, a += WORD * cs, of_next += WORD * cs, panel += WORD * TN_SPARSE_WIDTH) {
        uint64_t left = bits[w * step], right = more[w * step];
        ptrdiff_t p;
        V x, y;
        for (; left && right; left &= left - 1, right &= right - 1) {
            p = __builtin_ctzll(left), b = panel + p * TN_SPARSE_WIDTH, x = vset1(a[p * cs]);
            EACH_4(STEP)
            p = __builtin_ctzll(right), b = panel + p * TN_SPARSE_WIDTH, y = vset1(of_next[p * cs]);
            EACH_4(STEP_D)
        }
        for (; left; left &= left - 1) {
            p = __builtin_ctzll(left), b = panel + p * TN_SPARSE_WIDTH, x = vset1(a[p * cs]);
            EACH_4(STEP)
        }
        for (; right; right &= right - 1) {
            p = __builtin_ctzll(right), b = panel + p * TN_SPARSE_WIDTH, y = vset1(of_next[p * cs]);
            EACH_4(STEP_D)
        }
    }
    EACH_4(STORE_2)
}

/* Of a wide panel. */
static inline void one_row(const tn_sparse_panel *s, int i) {
    const uint64_t *bits = s->bits + i * s->ld_bits;
    const tn_real *a = s->a + i * s->rs;
    tn_real *c = s->c + i * s->ldc;
    const ptrdiff_t cs = s->cs, step = s->word_step;
    EACH_8(ZERO)
    if (s->add) {
        EACH_8(LOAD_C)
    }
    for (int w = 0; w < s->words; w++, a += WORD * cs) {
        const tn_real *panel = s->b + (ptrdiff_t)w * WORD * 8 * VL;
        for (uint64_t left = bits[w * step]; left; left &= left - 1) {
            const ptrdiff_t p = __builtin_ctzll(left);
            const tn_real *b = panel + p * 8 * VL;
            const V x = vset1(a[p * cs]);
            EACH_8(STEP)
        }
    }
    EACH_8(STORE)
}

/* Before row i and the next one; *due: rows of soon that are due, times m, and *row of them were fetched. */
static inline void fetch(const tn_sparse_panel *s, int i, long *due, int *row) {
    for (int r = i + AHEAD; r < i + AHEAD + 2 && r < s->m && s->far; r++)
        for (int l = 0; l < s->width; l += LINE) __builtin_prefetch(s->c + r * s->ldc + l, 1);
    for (*due += 2L * s->soon_rows; *due >= s->m && *row < s->soon_rows; *due -= s->m, ++*row) {
        const tn_real *at = s->soon + *row * s->ld_soon;
        for (int l = 0; l < s->soon_len && s->soon_write; l += LINE) __builtin_prefetch(at + l, 1);
        for (int l = 0; l < s->soon_len && !s->soon_write; l += LINE) __builtin_prefetch(at + l, 0, 2);
    }
}

/* Functions of their own, or gcc runs out of registers for both. */
__attribute__((noinline)) static void by_pairs(const tn_sparse_panel *s) {
    long due = 0;
    for (int i = 0, row = 0; i < s->m; i += 2) {
        fetch(s, i, &due, &row);
        two_rows(s, i, i + 1 < s->m);
    }
}

__attribute__((noinline)) static void side_by_side(const tn_sparse_panel *s) {
    long due = 0;
    for (int i = 0, row = 0; i < s->m; i += 2) {
        fetch(s, i, &due, &row);
        two_apart(s, i, i + 1 < s->m);
    }
}

__attribute__((noinline)) static void one_by_one(const tn_sparse_panel *s) {
    long due = 0;
    for (int i = 0, row = 0; i < s->m; i++) {
        if (i % 2 == 0) fetch(s, i, &due, &row);
        one_row(s, i);
    }
}

void tn_k_sparse_panel(const tn_sparse_panel *s) {
    if (s->width > (int)TN_SPARSE_WIDTH)
        one_by_one(s);
    else if (s->alike)
        by_pairs(s);
    else
        side_by_side(s);
}

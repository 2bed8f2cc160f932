/* SPDX-License-Identifier: MIT */
/*
 * Products of a recurrent layer whose input is mostly zeros, such as pixels. Forward by the input's weights: rows, with bits
 * that say what is not zero, two at a time by the columns where either is not, so that what the weights cost to fetch
 * serves two, and there are fewer jumps, which are hard to foretell. Backward by the gates' gradients two columns of
 * the input at a time, for the same reasons; the bits are turned for that.
 */
#include "cells.h"
#include "level.h"

enum { WORD = 64, LINE = 64 / sizeof(tn_real) };

#define EACH_1(F)  F(0)
#define EACH_2(F)  EACH_1(F) F(1)
#define EACH_3(F)  EACH_2(F) F(2)
#define EACH_4(F)  EACH_3(F) F(3)
#define EACH_5(F)  EACH_4(F) F(4)
#define EACH_6(F)  EACH_5(F) F(5)
#define EACH_7(F)  EACH_6(F) F(6)
#define EACH_8(F)  EACH_7(F) F(7)
#define EACH_9(F)  EACH_8(F) F(8)
#define EACH_10(F) EACH_9(F) F(9)
#define EACH_11(F) EACH_10(F) F(10)
#define EACH_12(F) EACH_11(F) F(11)

/* Of vector i; x is of the first row, y of the second. */
#define ZERO(i) V x_##i = vset1(0), y_##i = x_##i;
#define BIAS(i) x_##i = y_##i = vload(bias + (i)*VL);
#define ADD(i)                              \
    {                                       \
        V w = vload(p + (i)*VL);            \
        if (two) IN_REGISTER(w);            \
        x_##i = vfma(x, w, x_##i);          \
        if (two) y_##i = vfma(y, w, y_##i); \
    }
#define PUT(i)                 \
    vstore(c + (i)*VL, x_##i); \
    if (two) vstore(c + more_c + (i)*VL, y_##i);

/* Vectors of a pair of rows that stay in registers. */
#if defined(TN_LEVEL_PLAIN) || defined(TN_LEVEL_AVX2)
enum { MOST = 6 };
#else
enum { MOST = 12 };
#endif

/* A's row i and that which goes with it, if one does; b and bias and c from the first of some columns on. */
typedef void pair_fn(const tn_sparse_rows *, int i, const tn_real *b, const tn_real *bias, tn_real *c);

#define PAIR(n)                                                                                           \
    static inline __attribute__((always_inline)) void any_rows_##n(                                       \
        int two, const tn_sparse_rows *s, int i, const tn_real *b, const tn_real *bias, tn_real *c) {     \
        const ptrdiff_t ldb = s->ldb, more_a = s->two ? s->step : s->stride;                              \
        const ptrdiff_t more_c = s->two ? s->c_step : s->ldc;                                             \
        const ptrdiff_t more_bits = s->two ? s->bits_step : s->bits_row;                                  \
        const uint64_t *bits = s->bits + i * s->bits_row;                                                 \
        const tn_real *a = s->a + i * s->stride;                                                          \
        c += i * s->ldc;                                                                                  \
        EACH_##n(ZERO);                                                                                   \
        if (bias) {                                                                                       \
            EACH_##n(BIAS)                                                                                \
        }                                                                                                 \
        for (int q = 0; q < s->words; q++, a += WORD, b += WORD * ldb)                                    \
            for (uint64_t left = two ? bits[q] | bits[more_bits + q] : bits[q]; left; left &= left - 1) { \
                int at = __builtin_ctzll(left);                                                           \
                const tn_real *p = b + at * ldb;                                                          \
                V x = vset1(a[at]), y = two ? vset1(a[more_a + at]) : x;                                  \
                (void)y;                                                                                  \
                EACH_##n(ADD)                                                                             \
            }                                                                                             \
        EACH_##n(PUT)                                                                                     \
    }                                                                                                     \
    static void rows_##n(const tn_sparse_rows *s, int i, const tn_real *b, const tn_real *bias,           \
                         tn_real *c) {                                                                    \
        if (s->two || i + 1 < s->m)                                                                       \
            any_rows_##n(1, s, i, b, bias, c);                                                            \
        else                                                                                              \
            any_rows_##n(0, s, i, b, bias, c);                                                            \
    } /* declared again, so that the macro ends with a semicolon */                                       \
    static pair_fn rows_##n

PAIR(1);
PAIR(2);
PAIR(3);
PAIR(4);
PAIR(5);
PAIR(6);
#if defined(TN_LEVEL_PLAIN) || defined(TN_LEVEL_AVX2)
static pair_fn *const rows[MOST + 1] = {NULL, rows_1, rows_2, rows_3, rows_4, rows_5, rows_6};
#else
PAIR(7);
PAIR(8);
PAIR(9);
PAIR(10);
PAIR(11);
PAIR(12);
static pair_fn *const rows[MOST + 1] = {NULL,   rows_1, rows_2, rows_3,  rows_4,  rows_5, rows_6,
                                        rows_7, rows_8, rows_9, rows_10, rows_11, rows_12};
#endif

void tn_k_sparse_rows(const tn_sparse_rows *s) {
    for (int col = 0, n; col < s->w; col += n * VL) {
        int left = (s->w - col) / VL;
        n = left < MOST ? left : MOST;
        for (int i = 0; i < s->m; i += s->two ? 1 : 2)
            rows[n](s, i, s->b + col, s->bias ? s->bias + col : NULL, s->c + col);
    }
}

/* ---- transposed ---- */

/* Vectors of a pair of columns that stay in registers. */
#if defined(TN_LEVEL_PLAIN) || defined(TN_LEVEL_AVX2)
enum { MOST_TURNED = 4 };
#else
enum { MOST_TURNED = 8 };
#endif

/* Up to WORD rows of A: where each begins, and columns of bits. */
typedef struct {
    const tn_real *row[WORD];
    uint64_t bits[WORD];
} rows_block;

/* Squares of n bits within b: of each four, those beside the diagonal change places. low: n bits of every 2 n. */
static inline __attribute__((always_inline)) void swap_squares(uint64_t *b, int n, uint64_t low) {
    for (int r = 0; r < WORD; r += 2 * n)
        for (int i = r; i < r + n; i++) {
            uint64_t swap = (b[i] >> n ^ b[i + n]) & low;
            b[i] ^= swap << n, b[i + n] ^= swap;
        }
}

/* The transpose of a square of bits. */
static void turn_bits(uint64_t *b) {
    swap_squares(b, 32, 0x00000000ffffffff), swap_squares(b, 16, 0x0000ffff0000ffff);
    swap_squares(b, 8, 0x00ff00ff00ff00ff), swap_squares(b, 4, 0x0f0f0f0f0f0f0f0f);
    swap_squares(b, 2, 0x3333333333333333), swap_squares(b, 1, 0x5555555555555555);
}

/* x is of the first column, y of the second. */
#define LOAD_TWO(i) V x_##i = vload(c + (i)*VL), y_##i = two ? vload(c + more_c + (i)*VL) : x_##i;

/* Columns `at` of A and, of two, the next, into as many rows of c; b and c from the first of some columns on. */
typedef void turned_fn(const tn_sparse_turned *, const rows_block *, int at, int two, const tn_real *b,
                       tn_real *c);

#define TURNED(n)                                                                                           \
    static inline __attribute__((always_inline)) void any_turned_##n(                                       \
        int two, const tn_sparse_turned *s, const rows_block *rows, int at, const tn_real *b, tn_real *c) { \
        const ptrdiff_t ldb = s->ldb, more_c = s->ldc;                                                      \
        uint64_t left = two ? rows->bits[at % WORD] | rows->bits[at % WORD + 1] : rows->bits[at % WORD];    \
        if (!left) return;                                                                                  \
        EACH_##n(LOAD_TWO);                                                                                 \
        for (; left; left &= left - 1) {                                                                    \
            int i = __builtin_ctzll(left);                                                                  \
            const tn_real *p = b + i * ldb, *a = rows->row[i] + at;                                         \
            V x = vset1(a[0]), y = two ? vset1(a[1]) : x;                                                   \
            (void)y;                                                                                        \
            EACH_##n(ADD)                                                                                   \
        }                                                                                                   \
        EACH_##n(PUT)                                                                                       \
    }                                                                                                       \
    static void turned_##n(const tn_sparse_turned *s, const rows_block *rows, int at, int two,              \
                           const tn_real *b, tn_real *c) {                                                  \
        if (two)                                                                                            \
            any_turned_##n(1, s, rows, at, b, c);                                                           \
        else                                                                                                \
            any_turned_##n(0, s, rows, at, b, c);                                                           \
    } /* declared again, as above */                                                                        \
    static turned_fn turned_##n

TURNED(1);
TURNED(2);
TURNED(3);
TURNED(4);
#if defined(TN_LEVEL_PLAIN) || defined(TN_LEVEL_AVX2)
static turned_fn *const turned[MOST_TURNED + 1] = {NULL, turned_1, turned_2, turned_3, turned_4};
#else
TURNED(5);
TURNED(6);
TURNED(7);
TURNED(8);
static turned_fn *const turned[MOST_TURNED + 1] = {NULL,     turned_1, turned_2, turned_3, turned_4,
                                                   turned_5, turned_6, turned_7, turned_8};
#endif

/* Columns c0 to the end of their word, by the n rows of b from b on. */
static void turned_word(const tn_sparse_turned *s, const rows_block *rows, int c0, const tn_real *b) {
    int end = s->k - c0 < WORD ? s->k : c0 + WORD;
    for (int col = 0, n; col < s->w; col += n * VL) {
        int left = (s->w - col) / VL;
        n = left < MOST_TURNED ? left : MOST_TURNED;
        for (int at = c0; at < end; at += 2)
            turned[n](s, rows, at, at + 1 < end, b + col, s->c + at * s->ldc + col);
    }
}

/* As many rows at a time as a word has bits: b's stay in the first-level cache for all columns. */
void tn_k_sparse_turned(const tn_sparse_turned *s) {
    rows_block rows;
    const int all = s->steps * s->m, words = (s->k + WORD - 1) / WORD;
    for (int first = 0, n; first < all; first += n) {
        n = all - first < WORD ? all - first : WORD;
        for (int q = 0; q < words; q++) {
            int i = first % s->m;
            const tn_real *row = s->a + first / s->m * s->step + i * s->stride;
            const uint64_t *bits = s->bits + first / s->m * s->bits_step + i * s->bits_row + q;
            for (int r = 0; r < n; r++, row += s->stride, bits += s->bits_row) {
                if (i++ == s->m)
                    i = 1, row += s->step - s->m * s->stride, bits += s->bits_step - s->m * s->bits_row;
                rows.row[r] = row, rows.bits[r] = *bits;
                for (int c = q * WORD; c < s->k && c < (q + 1) * WORD; c += LINE) __builtin_prefetch(row + c);
            }
            for (int r = n; r < WORD; r++) rows.bits[r] = 0;
            turn_bits(rows.bits);
            turned_word(s, &rows, q * WORD, s->b + first * s->ldb);
        }
    }
}

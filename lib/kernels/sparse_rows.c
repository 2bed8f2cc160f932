/* SPDX-License-Identifier: MIT */
/*
 * Products of a recurrent layer whose input is mostly zeros, such as pixels: forward by the input's weights, backward by the
 * gates' gradients. Rows, with bits that say what is not zero, go two at a time by the columns where either is not: so what
 * the other factor or the result costs to fetch serves two, and there are fewer jumps, which are hard to foretell.
 */
#include "cells.h"
#include "level.h"

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
#define ZERO(i)  V x_##i = vset1(0), y_##i = x_##i;
#define BIAS(i)  x_##i = y_##i = vload(bias + (i)*VL);
#define FETCH(i) V x_##i = vload(b + (i)*VL), y_##i = two ? vload(b + ldb + (i)*VL) : x_##i;
#define ADD(i)                              \
    {                                       \
        V w = vload(p + (i)*VL);            \
        x_##i = vfma(x, w, x_##i);          \
        if (two) y_##i = vfma(y, w, y_##i); \
    }
#define ADD_OUTER(i)                                         \
    {                                                        \
        V sum = vfma(x, x_##i, vload(p + (i)*VL));           \
        vstore(p + (i)*VL, two ? vfma(y, y_##i, sum) : sum); \
    }
#define PUT(i)                 \
    vstore(c + (i)*VL, x_##i); \
    if (two) vstore(c + ldc + (i)*VL, y_##i);

/* Vectors of a pair of rows that stay in registers, forward and backward. */
#if defined(TN_LEVEL_PLAIN) || defined(TN_LEVEL_AVX2)
enum { WORD = 64, MOST = 6, MOST_OUTER = 6 };
#else
enum { WORD = 64, MOST = 12, MOST_OUTER = 8 };
#endif

/* A's row i and, of two, the next; b and bias or c from the first of some columns on. */
typedef void pair_fn(const tn_sparse_rows *, int i, const tn_real *b, const tn_real *bias, tn_real *c);

/* For each column of A where one of the rows is not 0: at. Its elements are x and y. */
#define COLUMNS(STEP, moves, by, from)                                                                  \
    for (int q = 0; q < s->words; q++, a += WORD, moves += WORD * by)                                   \
        for (uint64_t left = two ? bits[q] | bits[s->bits_row + q] : bits[q]; left; left &= left - 1) { \
            int at = __builtin_ctzll(left);                                                             \
            from = moves + at * by;                                                                     \
            V x = vset1(a[at]), y = two ? vset1(a[s->stride + at]) : x;                                 \
            (void)y;                                                                                    \
            STEP                                                                                        \
        }

#define PAIR(n)                                                                                       \
    static inline __attribute__((always_inline)) void any_rows_##n(                                   \
        int two, const tn_sparse_rows *s, int i, const tn_real *b, const tn_real *bias, tn_real *c) { \
        const ptrdiff_t ldb = s->ldb, ldc = s->ldc;                                                   \
        const uint64_t *bits = s->bits + i * s->bits_row;                                             \
        const tn_real *a = s->a + i * s->stride, *p;                                                  \
        c += i * ldc;                                                                                 \
        EACH_##n(ZERO);                                                                               \
        if (bias) {                                                                                   \
            EACH_##n(BIAS)                                                                            \
        }                                                                                             \
        COLUMNS(EACH_##n(ADD), b, ldb, p)                                                             \
        EACH_##n(PUT)                                                                                 \
    }                                                                                                 \
    static void rows_##n(const tn_sparse_rows *s, int i, const tn_real *b, const tn_real *bias,       \
                         tn_real *c) {                                                                \
        if (i + 1 < s->m)                                                                             \
            any_rows_##n(1, s, i, b, bias, c);                                                        \
        else                                                                                          \
            any_rows_##n(0, s, i, b, bias, c);                                                        \
    } /* declared again, so that the macro ends with a semicolon */                                   \
    static pair_fn rows_##n

#define OUTER(n)                                                                                             \
    static inline __attribute__((always_inline)) void any_outer_##n(int two, const tn_sparse_rows *s, int i, \
                                                                    const tn_real *b, tn_real *c) {          \
        const ptrdiff_t ldb = s->ldb, ldc = s->ldc;                                                          \
        const uint64_t *bits = s->bits + i * s->bits_row;                                                    \
        const tn_real *a = s->a + i * s->stride;                                                             \
        tn_real *p;                                                                                          \
        b += i * ldb;                                                                                        \
        EACH_##n(FETCH);                                                                                     \
        COLUMNS(EACH_##n(ADD_OUTER), c, ldc, p)                                                              \
    }                                                                                                        \
    static void outer_##n(const tn_sparse_rows *s, int i, const tn_real *b, const tn_real *unused,           \
                          tn_real *c) {                                                                      \
        (void)unused;                                                                                        \
        if (i + 1 < s->m)                                                                                    \
            any_outer_##n(1, s, i, b, c);                                                                    \
        else                                                                                                 \
            any_outer_##n(0, s, i, b, c);                                                                    \
    } /* declared again, as above */                                                                         \
    static pair_fn outer_##n

#define BOTH(n) \
    PAIR(n);    \
    OUTER(n)

BOTH(1);
BOTH(2);
BOTH(3);
BOTH(4);
BOTH(5);
BOTH(6);
#if defined(TN_LEVEL_PLAIN) || defined(TN_LEVEL_AVX2)
static pair_fn *const rows[MOST + 1] = {NULL, rows_1, rows_2, rows_3, rows_4, rows_5, rows_6};
static pair_fn *const outer[MOST_OUTER + 1] = {NULL, outer_1, outer_2, outer_3, outer_4, outer_5, outer_6};
#else
BOTH(7);
BOTH(8);
PAIR(9);
PAIR(10);
PAIR(11);
PAIR(12);
static pair_fn *const rows[MOST + 1] = {NULL,   rows_1, rows_2, rows_3,  rows_4,  rows_5, rows_6,
                                        rows_7, rows_8, rows_9, rows_10, rows_11, rows_12};
static pair_fn *const outer[MOST_OUTER + 1] = {NULL,    outer_1, outer_2, outer_3, outer_4,
                                               outer_5, outer_6, outer_7, outer_8};
#endif

void tn_k_sparse_rows(const tn_sparse_rows *s) {
    for (int col = 0, n; col < s->w; col += n * VL) {
        int left = (s->w - col) / VL;
        n = left < MOST ? left : MOST;
        for (int i = 0; i < s->m; i += 2)
            rows[n](s, i, s->b + col, s->bias ? s->bias + col : NULL, s->c + col);
    }
}

static void fetch_next(const tn_sparse_rows *s, int i) {
    enum { LINE = 64 / sizeof(tn_real) };
    for (int end = i + 2 < s->m ? i + 2 : s->m; i < end; i++) {
        const char *a = (const char *)(s->a + i * s->stride);
        for (int q = 0; q < s->k; q += LINE)
            __builtin_prefetch(a + (s->next + q) * (ptrdiff_t)sizeof(tn_real));
    }
}

void tn_k_sparse_outer(const tn_sparse_rows *s) {
    for (int col = 0, n; col < s->w; col += n * VL) {
        int left = (s->w - col) / VL;
        n = left < MOST_OUTER ? left : MOST_OUTER;
        for (int i = 0; i < s->m; i += 2) {
            if (s->next && !col) fetch_next(s, i);
            outer[n](s, i, s->b + col, NULL, s->c + col);
        }
    }
}

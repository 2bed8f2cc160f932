/* SPDX-License-Identifier: MIT */
/*
 * Products of a recurrent layer whose input is mostly zeros, such as pixels. Forward by the input's weights: rows, with bits
 * that say what is not zero, two at a time by the columns where either is not, so that what the weights cost to fetch
 * serves two, and there are fewer jumps, which are hard to foretell. Backward by the gates' gradients: columns of the
 * input as lists, two at a time, since the sums of one are too few to keep the units busy.
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
#define ZERO(i) V x_##i = vset1(0), y_##i = x_##i;
#define BIAS(i) x_##i = y_##i = vload(bias + (i)*VL);
#define ADD(i)                              \
    {                                       \
        V w = vload(p + (i)*VL);            \
        x_##i = vfma(x, w, x_##i);          \
        if (two) y_##i = vfma(y, w, y_##i); \
    }
#define PUT(i)                 \
    vstore(c + (i)*VL, x_##i); \
    if (two) vstore(c + ldc + (i)*VL, y_##i);

/* Vectors of a pair of rows that stay in registers. */
#if defined(TN_LEVEL_PLAIN) || defined(TN_LEVEL_AVX2)
enum { WORD = 64, MOST = 6 };
#else
enum { WORD = 64, MOST = 12 };
#endif

/* A's row i and, of two, the next; b and bias and c from the first of some columns on. */
typedef void pair_fn(const tn_sparse_rows *, int i, const tn_real *b, const tn_real *bias, tn_real *c);

#define PAIR(n)                                                                                             \
    static inline __attribute__((always_inline)) void any_rows_##n(                                         \
        int two, const tn_sparse_rows *s, int i, const tn_real *b, const tn_real *bias, tn_real *c) {       \
        const ptrdiff_t ldb = s->ldb, ldc = s->ldc;                                                         \
        const uint64_t *bits = s->bits + i * s->bits_row;                                                   \
        const tn_real *a = s->a + i * s->stride;                                                            \
        c += i * ldc;                                                                                       \
        EACH_##n(ZERO);                                                                                     \
        if (bias) {                                                                                         \
            EACH_##n(BIAS)                                                                                  \
        }                                                                                                   \
        for (int q = 0; q < s->words; q++, a += WORD, b += WORD * ldb)                                      \
            for (uint64_t left = two ? bits[q] | bits[s->bits_row + q] : bits[q]; left; left &= left - 1) { \
                int at = __builtin_ctzll(left);                                                             \
                const tn_real *p = b + at * ldb;                                                            \
                V x = vset1(a[at]), y = two ? vset1(a[s->stride + at]) : x;                                 \
                (void)y;                                                                                    \
                EACH_##n(ADD)                                                                               \
            }                                                                                               \
        EACH_##n(PUT)                                                                                       \
    }                                                                                                       \
    static void rows_##n(const tn_sparse_rows *s, int i, const tn_real *b, const tn_real *bias,             \
                         tn_real *c) {                                                                      \
        if (i + 1 < s->m)                                                                                   \
            any_rows_##n(1, s, i, b, bias, c);                                                              \
        else                                                                                                \
            any_rows_##n(0, s, i, b, bias, c);                                                              \
    } /* declared again, so that the macro ends with a semicolon */                                         \
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
        for (int i = 0; i < s->m; i += 2)
            rows[n](s, i, s->b + col, s->bias ? s->bias + col : NULL, s->c + col);
    }
}

/* ---- lists ---- */

enum { MOST_LIST = 4 };

#define LOAD_TWO(i) V x_##i = vload(c + (i)*VL), y_##i = two ? vload(d + (i)*VL) : x_##i;
#define STEP_X(i)   x_##i = vfma(x, vload(p + (i)*VL), x_##i);
#define STEP_Y(i)   y_##i = vfma(y, vload(q + (i)*VL), y_##i);
#define PUT_TWO(i)             \
    vstore(c + (i)*VL, x_##i); \
    if (two) vstore(d + (i)*VL, y_##i);

/* Rows i of A and, of two, the next; b and c from the first of some columns on. */
typedef void lists_fn(const tn_sparse_lists *, int i, int two, const tn_real *b, tn_real *c);

#define LISTS(n)                                                                                    \
    static void lists_##n(const tn_sparse_lists *s, int i, int two, const tn_real *b, tn_real *c) { \
        const ptrdiff_t ldb = s->ldb;                                                               \
        const unsigned char *at = s->at + i * s->each, *bt = at + s->each;                          \
        const tn_real *v = s->v + i * s->each, *w = v + s->each;                                    \
        tn_real *d = c + s->ldc;                                                                    \
        int k = s->len[i], l = two ? s->len[i + 1] : 0, both = k < l ? k : l, e = 0;                \
        EACH_##n(LOAD_TWO);                                                                         \
        for (; e < both; e++) {                                                                     \
            const tn_real *p = b + at[e] * ldb, *q = b + bt[e] * ldb;                               \
            V x = vset1(v[e]), y = vset1(w[e]);                                                     \
            EACH_##n(STEP_X) EACH_##n(STEP_Y)                                                       \
        }                                                                                           \
        for (int f = e; f < k; f++) {                                                               \
            const tn_real *p = b + at[f] * ldb;                                                     \
            V x = vset1(v[f]);                                                                      \
            EACH_##n(STEP_X)                                                                        \
        }                                                                                           \
        for (; e < l; e++) {                                                                        \
            const tn_real *q = b + bt[e] * ldb;                                                     \
            V y = vset1(w[e]);                                                                      \
            EACH_##n(STEP_Y)                                                                        \
        }                                                                                           \
        EACH_##n(PUT_TWO)                                                                           \
    } /* declared again, as above */                                                                \
    static lists_fn lists_##n

LISTS(1);
LISTS(2);
LISTS(3);
LISTS(4);

/* Few columns of b at a time: its rows stay in the first-level cache for all lists. */
void tn_k_sparse_lists(const tn_sparse_lists *s) {
    static lists_fn *const fn[MOST_LIST + 1] = {NULL, lists_1, lists_2, lists_3, lists_4};
    for (int col = 0, n; col < s->w; col += n * VL) {
        int left = (s->w - col) / VL;
        n = left < MOST_LIST ? left : MOST_LIST;
        for (int i = 0; i < s->m; i += 2) fn[n](s, i, i + 1 < s->m, s->b + col, s->c + i * s->ldc + col);
    }
}

/* SPDX-License-Identifier: MIT */
/*
 * Products of a recurrent layer whose input is mostly zeros, such as pixels: forward by the input's weights, rows with bits
 * that say what is not zero, a row's sums of up to twelve vectors in registers; backward by the gates' gradients, columns of
 * the input as lists, two at a time, since the sums of one are too few to keep the units busy.
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

#define ZERO_A(i) V a_##i = vset1(0);
#define ZERO_B(i) V b_##i = vset1(0);
#define LOAD_A(i) a_##i = vload(c + (i)*VL);
#define LOAD_B(i) b_##i = vload(d + (i)*VL);
#define BIAS_A(i) a_##i = vload(bias + (i)*VL);
#define STEP_A(i) a_##i = vfma(x, vload(p + (i)*VL), a_##i);
#define STEP_B(i) b_##i = vfma(y, vload(q + (i)*VL), b_##i);
#define PUT_A(i)  vstore(c + (i)*VL, a_##i);
#define PUT_B(i)  vstore(d + (i)*VL, b_##i);

/* ---- bits ---- */

enum { WORD = 64, MOST = 12 };

typedef void row_fn(int words, const uint64_t *bits, const tn_real *a, const tn_real *b, ptrdiff_t ldb,
                    const tn_real *bias, tn_real *c);

#define ROW(n)                                                                                              \
    static void row_##n(int words, const uint64_t *bits, const tn_real *a, const tn_real *b, ptrdiff_t ldb, \
                        const tn_real *bias, tn_real *c) {                                                  \
        EACH_##n(ZERO_A);                                                                                   \
        if (bias) {                                                                                         \
            EACH_##n(BIAS_A)                                                                                \
        }                                                                                                   \
        for (int q = 0; q < words; q++, a += WORD, b += WORD * ldb)                                         \
            for (uint64_t left = bits[q]; left; left &= left - 1) {                                         \
                int at = __builtin_ctzll(left);                                                             \
                const tn_real *p = b + at * ldb;                                                            \
                V x = vset1(a[at]);                                                                         \
                EACH_##n(STEP_A)                                                                            \
            }                                                                                               \
        EACH_##n(PUT_A)                                                                                     \
    } /* declared again, so that the macro ends with a semicolon */                                         \
    static row_fn row_##n

ROW(1);
ROW(2);
ROW(3);
ROW(4);
ROW(5);
ROW(6);
ROW(7);
ROW(8);
ROW(9);
ROW(10);
ROW(11);
ROW(12);

static row_fn *const row[MOST + 1] = {NULL,  row_1, row_2, row_3,  row_4,  row_5, row_6,
                                      row_7, row_8, row_9, row_10, row_11, row_12};

void tn_k_sparse_rows(const tn_sparse_rows *s) {
    for (int col = 0, n; col < s->w; col += n * VL) {
        int left = (s->w - col) / VL;
        n = left < MOST ? left : MOST;
        for (int i = 0; i < s->m; i++)
            row[n](s->words, s->bits + i * s->bits_row, s->a + i * s->stride, s->b + col, s->ldb,
                   s->bias ? s->bias + col : NULL, s->c + i * s->ldc + col);
    }
}

/* ---- lists ---- */

/* Rows c of C and, of two, d. */
#define LISTS(n)                                                                                        \
    static void lists_##n(const tn_sparse_lists *s, int i, int two) {                                   \
        const unsigned char *at = s->at + i * s->each, *bt = at + s->each;                              \
        const tn_real *v = s->v + i * s->each, *w = v + s->each;                                        \
        tn_real *c = s->c + i * s->ldc, *d = c + s->ldc;                                                \
        int k = s->len[i], l = two ? s->len[i + 1] : 0, both = k < l ? k : l, e = 0;                    \
        EACH_##n(ZERO_A) EACH_##n(ZERO_B);                                                              \
        if (s->add) {                                                                                   \
            EACH_##n(LOAD_A) if (two) {                                                                 \
                EACH_##n(LOAD_B)                                                                        \
            }                                                                                           \
        }                                                                                               \
        for (; e < both; e++) {                                                                         \
            const tn_real *p = s->b + (ptrdiff_t)at[e] * n * VL, *q = s->b + (ptrdiff_t)bt[e] * n * VL; \
            V x = vset1(v[e]), y = vset1(w[e]);                                                         \
            EACH_##n(STEP_A) EACH_##n(STEP_B)                                                           \
        }                                                                                               \
        for (int f = e; f < k; f++) {                                                                   \
            const tn_real *p = s->b + (ptrdiff_t)at[f] * n * VL;                                        \
            V x = vset1(v[f]);                                                                          \
            EACH_##n(STEP_A)                                                                            \
        }                                                                                               \
        for (; e < l; e++) {                                                                            \
            const tn_real *q = s->b + (ptrdiff_t)bt[e] * n * VL;                                        \
            V y = vset1(w[e]);                                                                          \
            EACH_##n(STEP_B)                                                                            \
        }                                                                                               \
        EACH_##n(PUT_A) if (two) {                                                                      \
            EACH_##n(PUT_B)                                                                             \
        }                                                                                               \
    } /* declared again, as above */                                                                    \
    static void lists_##n(const tn_sparse_lists *, int, int)

LISTS(1);
LISTS(2);
LISTS(3);

void tn_k_sparse_lists(const tn_sparse_lists *s) {
    static void (*const fn[])(const tn_sparse_lists *, int, int) = {NULL, lists_1, lists_2, lists_3};
    for (int i = 0; i < s->m; i += 2) fn[s->w / VL](s, i, i + 1 < s->m);
}

/* SPDX-License-Identifier: MIT */
/*
 * The product of rows that are mostly zeros, given as lists of what is not, by a B that stays in the first-level cache: the
 * pixels by the input weights of a recurrent layer, and back by the gradients of its gates. A row's sums of up to twelve
 * vectors stay in registers; where C is narrow two rows take turns, since the sums of one are too few to keep the units
 * busy.
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
#define STEP_A(i) a_##i = vfma(x, vload(p + (i)*VL), a_##i);
#define STEP_B(i) b_##i = vfma(y, vload(q + (i)*VL), b_##i);
#define PUT_A(i)  vstore(c + (i)*VL, a_##i);
#define PUT_B(i)  vstore(d + (i)*VL, b_##i);

typedef void row_fn(const tn_sparse_rows *s, int i, int col);

#define ONE_ROW(n)                                                       \
    static void one_##n(const tn_sparse_rows *s, int i, int col) {       \
        const tn_real *b = s->b + col;                                   \
        tn_real *c = s->c + i * s->ldc + col;                            \
        EACH_##n(ZERO_A);                                                \
        if (s->add) {                                                    \
            EACH_##n(LOAD_A)                                             \
        }                                                                \
        for (int e = s->start[i], end = s->start[i + 1]; e < end; e++) { \
            const tn_real *p = b + s->at[e] * s->ldb;                    \
            V x = vset1(s->v[e]);                                        \
            EACH_##n(STEP_A)                                             \
        }                                                                \
        EACH_##n(PUT_A)                                                  \
    } /* declared again, so that the macro ends with a semicolon */      \
    static row_fn one_##n

/* Rows i and i + 1. */
#define TWO_ROWS(n)                                                               \
    static void two_##n(const tn_sparse_rows *s, int i, int col) {                \
        const tn_real *b = s->b + col;                                            \
        tn_real *c = s->c + i * s->ldc + col, *d = c + s->ldc;                    \
        int e = s->start[i], e1 = s->start[i + 1], f = e1, f1 = s->start[i + 2];  \
        EACH_##n(ZERO_A) EACH_##n(ZERO_B);                                        \
        if (s->add) {                                                             \
            EACH_##n(LOAD_A) EACH_##n(LOAD_B)                                     \
        }                                                                         \
        for (; e < e1 && f < f1; e++, f++) {                                      \
            const tn_real *p = b + s->at[e] * s->ldb, *q = b + s->at[f] * s->ldb; \
            V x = vset1(s->v[e]), y = vset1(s->v[f]);                             \
            EACH_##n(STEP_A) EACH_##n(STEP_B)                                     \
        }                                                                         \
        for (; e < e1; e++) {                                                     \
            const tn_real *p = b + s->at[e] * s->ldb;                             \
            V x = vset1(s->v[e]);                                                 \
            EACH_##n(STEP_A)                                                      \
        }                                                                         \
        for (; f < f1; f++) {                                                     \
            const tn_real *q = b + s->at[f] * s->ldb;                             \
            V y = vset1(s->v[f]);                                                 \
            EACH_##n(STEP_B)                                                      \
        }                                                                         \
        EACH_##n(PUT_A) EACH_##n(PUT_B)                                           \
    } /* declared again, as above */                                              \
    static row_fn two_##n

ONE_ROW(1);
ONE_ROW(2);
ONE_ROW(3);
ONE_ROW(4);
ONE_ROW(5);
ONE_ROW(6);
ONE_ROW(7);
ONE_ROW(8);
ONE_ROW(9);
ONE_ROW(10);
ONE_ROW(11);
ONE_ROW(12);
TWO_ROWS(1);
TWO_ROWS(2);
TWO_ROWS(3);

enum { MOST = 12, MOST_OF_TWO = 3 };

static row_fn *const one[MOST + 1] = {NULL,  one_1, one_2, one_3,  one_4,  one_5, one_6,
                                      one_7, one_8, one_9, one_10, one_11, one_12};
static row_fn *const two[MOST_OF_TWO + 1] = {NULL, two_1, two_2, two_3};

void tn_k_sparse_rows(const tn_sparse_rows *s) {
    for (int col = 0, n; col < s->w; col += n * VL) {
        int left = (s->w - col) / VL, i = 0;
        n = left < MOST ? left : MOST;
        for (; n <= MOST_OF_TWO && i + 1 < s->m; i += 2) two[n](s, i, col);
        for (; i < s->m; i++) one[n](s, i, col);
    }
}

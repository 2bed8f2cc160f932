/* SPDX-License-Identifier: MIT */
/*
 * The product of an A that is mostly zeros (a gradient behind ReLU and dropout) and a panel of B of four vectors, which
 * stays in the first-level cache: of each row of A the elements that are not zero, one by one, two rows at a time, since
 * the sums of one are too few to keep the units busy. C's rows and the next panel's lie far apart in memory and are
 * fetched ahead.
 */
#include "level.h"

enum { WIDTH = 4 * VL, LINE = 64 / (int)sizeof(tn_real), AHEAD = 8 };

#define EACH(m)   m(0) m(1) m(2) m(3)
#define ZERO(i)   V a##i = vset1(0), b##i = a##i;
#define LOAD_A(i) a##i = vload(c + (i)*VL);
#define LOAD_B(i) b##i = vload(d + (i)*VL);
#define STEP_A(i) a##i = vfma(x, vload(p + (i)*VL), a##i);
#define STEP_B(i) b##i = vfma(y, vload(q + (i)*VL), b##i);
#define PUT_A(i)  vstore(c + (i)*VL, a##i);
#define PUT_B(i)  vstore(d + (i)*VL, b##i);

/* Rows c and d, which may be the same with no elements in the second list. */
static inline void two_rows(const tn_sparse_panel *s, int i, int two) {
    tn_real *c = s->c + i * s->ldc, *d = c + s->ldc;
    int e = s->start[i], e1 = s->start[i + 1], f = e1, f1 = two ? s->start[i + 2] : e1;
    EACH(ZERO)
    if (s->add) {
        EACH(LOAD_A)
        if (two) {
            EACH(LOAD_B)
        }
    }
    for (; e < e1 && f < f1; e++, f++) {
        const tn_real *p = s->b + (ptrdiff_t)s->at[e] * WIDTH, *q = s->b + (ptrdiff_t)s->at[f] * WIDTH;
        V x = vset1(s->v[e]), y = vset1(s->v[f]);
        EACH(STEP_A) EACH(STEP_B)
    }
    for (; e < e1; e++) {
        const tn_real *p = s->b + (ptrdiff_t)s->at[e] * WIDTH;
        V x = vset1(s->v[e]);
        EACH(STEP_A)
    }
    for (; f < f1; f++) {
        const tn_real *q = s->b + (ptrdiff_t)s->at[f] * WIDTH;
        V y = vset1(s->v[f]);
        EACH(STEP_B)
    }
    EACH(PUT_A)
    if (two) {
        EACH(PUT_B)
    }
}

void tn_k_sparse_panel(const tn_sparse_panel *s) {
    for (int i = 0, soon = 0; i < s->m; i += 2) {
        for (int r = i + AHEAD; r < i + AHEAD + 2 && r < s->m; r++)
            for (int l = 0; l < WIDTH; l += LINE) __builtin_prefetch(s->c + r * s->ldc + l, 1);
        for (int end = (int)((long)s->soon_rows * (i + 2) / s->m); soon < end && soon < s->soon_rows; soon++)
            for (int l = 0; l < WIDTH; l += LINE) __builtin_prefetch(s->soon + soon * s->ld_soon + l, 0, 2);
        two_rows(s, i, i + 1 < s->m);
    }
}

/* SPDX-License-Identifier: MIT */
/*
 * What the kernels of recurrent cells work on: one time step of some rows and units. A row has z (forward) and dg
 * (backward) as blocks of units, one a product:
 *   Elman z = gates before the nonlinearity, dg their gradients: one block;
 *   LSTM the same: i f g o;
 *   GRU z = r, z, the input's part of n, the state's part of n; dg = the input's part of n, r, z, the state's part of n,
 *   so that what goes to the input (the first three) and to the state (the last three) each lie side by side.
 */
#ifndef TN_KERNELS_CELLS_H
#define TN_KERNELS_CELLS_H
#include "tern.h"
#include <stddef.h>
#include <stdint.h>

typedef struct {
    int rows, units;          /* units: whole vectors */
    const tn_real *z;         /* with the biases; forward */
    ptrdiff_t z_row, z_block; /* from row to row, from block to block */
    const tn_real *h0, *c0;   /* the states before; c: LSTM */
    tn_real *h1,
        *c1; /* the states after: results, or what backward reads; elsewhere than the states before */
    ptrdiff_t h_row, c_row;
    tn_real *kept; /* what backward needs, cell_kept[cell] reals a unit; NULL: it is not kept */
    ptrdiff_t kept_row;
    tn_real *dh, *dc; /* in: of h1, c1; out: of h0, c0 but for the state's product */
    ptrdiff_t d_row;
    tn_real *dg; /* backward's result */
    ptrdiff_t dg_row, dg_block;
    tn_real *sum; /* dg's sums over rows are added here, block by block; or NULL */
    ptrdiff_t sum_block;
} tn_cell_rows;

typedef void tn_cell_fn(const tn_cell_rows *);

/*
 * C (m x w, row stride ldc) = A by one panel, k rows of w columns, or += with add; chains as gemm's, but that without
 * add they begin with bias. Element (i, p) of A is at a[i * stride + p], or with columns at a[i + p * stride].
 */
typedef struct {
    int m, w, k, columns;
    const tn_real *a;
    ptrdiff_t stride;
    const tn_real *panel;
    ptrdiff_t panel_row; /* with columns: from a row of the panel to the next; 0: w */
    tn_real *c;
    ptrdiff_t ldc;
    int add;
    const tn_real *bias; /* w, or NULL: zeros */
    const void *soon[2]; /* memory that will be used soon, to be fetched meanwhile; or NULL */
    size_t soon_len[2];  /* bytes */
} tn_panel_product;

/*
 * C (m x w, w whole vectors) = bias + A (m x k) by b, row strides ldc, stride and ldb. A is mostly zeros: of row i the
 * columns that are not have bits set, in words = ceil(k / 64) words from bits[i * bits_row] on, and the others are
 * skipped, or not: what they meet is finite. Rows go by twos: i and i + 1, or with two, row i of A and of a second A whose
 * bits, rows and C begin bits_step, step and c_step further on.
 */
typedef struct {
    int m, w, words, two;
    const uint64_t *bits;
    ptrdiff_t bits_row, bits_step;
    const tn_real *a, *b, *bias; /* bias: w, or NULL: zeros */
    tn_real *c;
    ptrdiff_t stride, step, ldb, ldc, c_step;
} tn_sparse_rows;

/*
 * C (k x w, w whole vectors) += A transposed by b, row after row. A's and b's rows are m of each of some steps: of step t
 * A's row i begins at a[t * step + i * stride] and has its bits, as above, at bits[t * bits_step + i * bits_row]; b's rows
 * lie side by side, ldb apart, C's ldc.
 */
typedef struct {
    int steps, m, k, w;
    const uint64_t *bits;
    ptrdiff_t bits_row, bits_step;
    const tn_real *a, *b;
    tn_real *c;
    ptrdiff_t stride, step, ldb, ldc;
} tn_sparse_turned;
#endif

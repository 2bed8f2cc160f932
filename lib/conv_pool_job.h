/* SPDX-License-Identifier: MIT */
/* What the files of conv_pool_backward.c share: a job, how a window is cut into tiles, and its packed weights. */
#ifndef TN_CONV_POOL_JOB_H
#define TN_CONV_POOL_JOB_H
#include "conv_pool.h"
#include "kernels/kernels.h"

typedef struct {
    int rows, vectors;
} tn_conv_tile;

typedef struct {
    const tn_conv_pool_plan *p;
    const tn_kernels_t *k;
    const tn_conv_source *from; /* NULL: x, gx */
    const tn_real *x, *y, *gy;
    const unsigned char *winner;
    tn_real *gx, *gw;    /* gw: partial sums of a chunk, (co, kh, vectors width) */
    tn_real *gb;         /* partial sums of a chunk, (co, TN_LANES) */
    int add, chunks, dx; /* dx: the input's gradient is wanted */
    tn_real scale;
    int run, vectors; /* reals of a window's row, and vectors that hold them */
    int row, ld;      /* reals of a row of a padded image; channels, a multiple of TN_LANES */
    int band;         /* pooled rows of a band */
    int dw_row,
        dw_pixel; /* dw: from a window to the one below, to the right: in the image, or in its copy by windows */
    int windows, places, words;
    tn_conv_tile dw;
    int block_rows,
        block_run;    /* dx: part of a window whose weights stay in the cache; the same at every level */
    int by_columns;   /* dx: tn_conv_pool_by_columns */
    const tn_real *w; /* tiles of (co, rows, vectors, width) */
    const int *base;  /* of each window's first pixel in the image */
    size_t w_len, image_len, second_len, spread_len, dw_len, scratch_len;
    tn_real *scratch;
} tn_conv_pool_job;

enum { TN_CONV_POOL_FILTERS = 4 }; /* of a chunk of what is done filter by filter */

/* The cut of rows by vectors that makes fewest passes, with at most `most` vectors of sums. */
tn_conv_tile tn_conv_pool_tile(int rows, int vectors, int most);
/* The block of rows i ... and reals l ... of a window. */
tn_sparse_block tn_conv_pool_block_at(const tn_conv_pool_job *, int i, int l);
/* Reals of the weights by columns. */
size_t tn_conv_pool_by_columns_room(const tn_conv_pool_plan *);
/* The weights as sparse_dx, or with by_columns sparse_dx_pool, reads them: out has w_len reals. */
void tn_conv_pool_pack(tn_tape *, const tn_conv_pool_job *, const tn_real *w, tn_real *out);
#endif

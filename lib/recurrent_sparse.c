/* SPDX-License-Identifier: MIT */
/*
 * A recurrent layer whose input is mostly zeros, such as the rows of an image: forward marks what is not, chunk by chunk of
 * the batch, and the products of x, of both passes, skip the rest and read x where it lies. No bit changes: a
 * multiply-add with 0 leaves a sum as it is, provided that the other factor is finite, which the callers see to. (Of a
 * sum that has underflowed to -0 the sign may go, at every level alike.)
 */
#include "recurrent.h"
#include <string.h>

enum { LEAST_IN = 8, WORD = 64 };

static size_t words_of(const tn_recurrent *r) {
    return ((size_t)r->in + WORD - 1) / WORD;
}

void tn_recurrent_bits_room(tn_recurrent *r, tn_tape *t) {
    r->bits = NULL;
    if (r->in < LEAST_IN || !tn_gemm_own()) return;
    r->bits = tn_scratch(t, (size_t)r->steps * (size_t)r->rows * words_of(r) * sizeof *r->bits);
    r->sparse = tn_scratch(t, (size_t)tn_recurrent_chunks(r) * sizeof *r->sparse);
}

/* Marks rows of x that lie side by side; padding, whatever it holds, is not to be seen. How many are not 0. */
static size_t mark_rows(const tn_recurrent *r, const tn_kernels_t *k, const tn_real *x, size_t first,
                        size_t rows) {
    size_t some = 0, words = rows * words_of(r);
    uint64_t *bits = r->bits + first * words_of(r);
    k->sparse_bits((int)rows, r->in, x + first * (size_t)r->in, r->in, bits);
    for (size_t i = 0; r->length && i < rows; i++) {
        size_t at = first + i;
        int row = (int)(r->rows_first ? at / (size_t)r->steps : at % (size_t)r->rows),
            step = (int)(r->rows_first ? at % (size_t)r->steps : at / (size_t)r->rows);
        if (!tn_recurrent_active(r, row, step)) memset(bits + i * words_of(r), 0, words_of(r) * sizeof *bits);
    }
    for (size_t i = 0; i < words; i++) some += (size_t)__builtin_popcountll(bits[i]);
    return some;
}

void tn_recurrent_mark(const tn_recurrent *r, const tn_kernels_t *k, const tn_real *x, int chunk) {
    int row0 = tn_recurrent_row(r, chunk);
    size_t some = 0, m = (size_t)(tn_recurrent_row(r, chunk + 1) - row0), rows = m * (size_t)r->steps;
    if (r->rows_first) some = mark_rows(r, k, x, tn_recurrent_x(r, 0, row0), rows);
    for (int t = 0; !r->rows_first && t < r->steps; t++)
        some += mark_rows(r, k, x, tn_recurrent_x(r, t, row0), m);
    r->sparse[chunk] = some <= rows * (size_t)(r->in / 2);
}

void tn_recurrent_marked(const tn_recurrent *r, const tn_real *x, int chunk, int t, tn_sparse_rows *s) {
    int row0 = tn_recurrent_row(r, chunk);
    size_t at = tn_recurrent_x(r, t, row0);
    ptrdiff_t row = r->rows_first ? r->steps : 1; /* from one of the batch to the next */
    *s = (tn_sparse_rows){.m = tn_recurrent_row(r, chunk + 1) - row0, .words = (int)words_of(r)};
    s->bits = r->bits + at * words_of(r), s->bits_row = row * s->words;
    s->a = x + at * (size_t)r->in, s->stride = row * r->in;
}

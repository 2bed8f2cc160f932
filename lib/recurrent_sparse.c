/* SPDX-License-Identifier: MIT */
/*
 * A recurrent layer whose input is mostly zeros, such as the rows of an image: forward marks what is not, chunk by chunk of
 * the batch, and the products of [x, 1], of both passes, skip the rest. No bit changes: a multiply-add with 0 leaves a sum
 * as it is, provided that the other factor is finite, which the callers see to. (Of a sum that has underflowed to -0
 * the sign may go: forward, the bias takes it anyway; backward it is the same at every level.)
 */
#include "recurrent_back.h"

enum { LEAST_IN = 8, WORD = 64, LINE = 16, AHEAD = 12 };

static size_t words_of(const tn_recurrent *r) {
    return ((size_t)r->in + 1 + WORD - 1) / WORD;
}

void tn_recurrent_bits_room(tn_recurrent *r, tn_tape *t) {
    r->bits = NULL;
    if (r->in < LEAST_IN || !tn_gemm_own()) return;
    r->bits = tn_scratch(t, (size_t)r->steps * (size_t)r->rows * words_of(r) * sizeof *r->bits);
    r->sparse = tn_scratch(t, (size_t)tn_recurrent_chunks(r) * sizeof *r->sparse);
}

static uint64_t *bits_of(const tn_recurrent *r, int chunk, int t) {
    return r->bits + tn_recurrent_at(r, r->steps, t, tn_recurrent_row(r, chunk)) * words_of(r);
}

void tn_recurrent_mark(const tn_recurrent *r, const tn_kernels_t *k, int chunk) {
    int row0 = tn_recurrent_row(r, chunk), rows = (int)tn_recurrent_len_of(r, row0);
    uint64_t *bits = bits_of(r, chunk, 0);
    size_t some = 0, words = (size_t)rows * words_of(r);
    k->sparse_bits(rows, r->in + 1, tn_recurrent_edge(r, r->reverse, row0) + r->x_at, r->stride, bits);
    for (size_t i = 0; i < words; i++) some += (size_t)__builtin_popcountll(bits[i]);
    r->sparse[chunk] = some - (size_t)rows <= (size_t)rows * (size_t)(r->in / 2);
}

void tn_recurrent_marked(const tn_recurrent *r, int chunk, int t, tn_sparse_rows *s) {
    int row0 = tn_recurrent_row(r, chunk);
    s->m = tn_recurrent_row(r, chunk + 1) - row0, s->words = (int)words_of(r), s->bits = bits_of(r, chunk, t);
    s->a = tn_recurrent_edge(r, t + r->reverse, row0) + r->x_at, s->stride = r->stride;
}

/* ---- backward: of each column of x a list of a piece's rows ---- */

void tn_recurrent_list(const tn_recurrent_piece *q, int *len, unsigned char *at, tn_real *v) {
    const tn_recurrent *r = q->j->r;
    tn_sparse_rows from;
    tn_recurrent_marked(r, q->chunk, q->t, &from);
    memset(len, 0, (size_t)(r->in + 1) * sizeof *len);
    for (int p = 0; p < q->steps * q->m; p++) {
        const tn_real *x = from.a + p * from.stride;
        for (int c = 0; c < r->in; c += LINE) __builtin_prefetch(x + AHEAD * from.stride + c);
        const uint64_t *bits = from.bits + (ptrdiff_t)p * from.words;
        for (int w = 0; w < from.words; w++)
            for (uint64_t left = bits[w]; left; left &= left - 1) {
                int c = w * WORD + __builtin_ctzll(left), to = c * TN_RECURRENT_PIECE + len[c]++;
                at[to] = (unsigned char)p, v[to] = x[c];
            }
    }
}

/* SPDX-License-Identifier: MIT */
/*
 * A recurrent layer whose input is mostly zeros, such as the rows of an image: forward lists what is not, chunk by chunk of
 * the batch, and the input's products of both passes go through the lists. No bit changes: a multiply-add with 0 leaves
 * a sum as it is, provided that the other factor is finite, which the callers see to.
 */
#include "recurrent_back.h"

enum { LEAST_IN = 8, PIECE = 160 }; /* PIECE: rows of a panel that stay in the first-level cache */

/* Elements of a row's list, at most on average: half of the input, and the 1 of the bias. */
static size_t list_len(const tn_recurrent *r) {
    return (size_t)r->in / 2 + 1;
}

void tn_recurrent_lists_room(tn_recurrent *r, tn_tape *t) {
    size_t rows = (size_t)r->steps * (size_t)r->rows, all = rows * list_len(r);
    r->list_start = NULL;
    if (r->in < LEAST_IN || !tn_gemm_own()) return;
    r->list_start = tn_scratch(t, (rows + (size_t)tn_recurrent_chunks(r)) * sizeof *r->list_start);
    r->list_at = tn_scratch(t, all * sizeof *r->list_at);
    r->list_v = tn_scratch(t, all * sizeof *r->list_v);
}

static const tn_real *input(const tn_recurrent *r, const tn_real *x, int t, int i) {
    return x
           + (r->rows_first ? (size_t)i * (size_t)r->steps + (size_t)t
                            : (size_t)t * (size_t)r->rows + (size_t)i)
                 * (size_t)r->in;
}

static int *starts(const tn_recurrent *r, int chunk) {
    return r->list_start + (size_t)tn_recurrent_row(r, chunk) * (size_t)r->steps + chunk;
}

void tn_recurrent_list(const tn_recurrent *r, int chunk, const tn_real *x) {
    if (!r->list_start) return;
    int r0 = tn_recurrent_row(r, chunk), r1 = tn_recurrent_row(r, chunk + 1), *start = starts(r, chunk),
        n = 0;
    size_t base = (size_t)r0 * (size_t)r->steps * list_len(r);
    long most = (long)(r1 - r0) * r->steps * (r->in / 2), some = 0;
    start[0] = -1;
    for (int t = 0; t < r->steps && some <= most; t++)
        for (int i = r0; i < r1; i++) {
            const tn_real *from = input(r, x, t, i);
            int here = 0;
            for (int c = 0; c < r->in; c++) here += from[c] != 0; /* NaN is not */
            some += here;
        }
    if (some > most) return;
    int *at = r->list_at + base;
    tn_real *v = r->list_v + base;
    for (int t = 0; t < r->steps; t++)
        for (int i = r0; i < r1; i++) {
            const tn_real *from = input(r, x, t, i);
            *start++ = n;
            for (int c = 0; c < r->in && tn_recurrent_active(r, i, t); c++)
                at[n] = c, v[n] = from[c], n += from[c] != 0;
            at[n] = r->in, v[n++] = 1;
        }
    *start = n;
}

int tn_recurrent_lists(const tn_recurrent *r, int chunk, int t, tn_sparse_rows *s) {
    if (!r->list_start || starts(r, chunk)[0] < 0) return 0;
    int r0 = tn_recurrent_row(r, chunk), m = tn_recurrent_row(r, chunk + 1) - r0;
    size_t base = (size_t)r0 * (size_t)r->steps * list_len(r);
    s->m = m, s->start = starts(r, chunk) + t * m, s->at = r->list_at + base, s->v = r->list_v + base;
    return 1;
}

/* ---- the lists turned: of each column of the input the rows of all steps, piece by piece of them ---- */

static int pieces_of(size_t rows) {
    return (int)((rows + PIECE - 1) / PIECE);
}

size_t tn_recurrent_turned_len(const tn_recurrent *r) {
    size_t rows = (size_t)r->each * (size_t)r->steps;
    return r->list_start ? (size_t)pieces_of(rows) * (size_t)(r->in + 1) + 1 : 0;
}

size_t tn_recurrent_turned_room(const tn_recurrent *r) {
    return r->list_start ? (size_t)r->each * (size_t)r->steps * (size_t)(r->in / 2) : 0;
}

/* Rows lo ... hi - 1 are listed from start[0] on, which is set, to start[in]. */
static void turn_piece(const tn_recurrent *r, const tn_sparse_rows *from, int lo, int hi, int *start, int *at,
                       tn_real *v) {
    int sum = start[0];
    memset(start + 1, 0, (size_t)r->in * sizeof *start);
    for (int p = lo; p < hi; p++)
        for (int e = from->start[p], end = from->start[p + 1] - 1; e < end; e++) start[from->at[e] + 1]++;
    for (int c = 1; c <= r->in; c++) { /* the end of a column's list is where its first element goes */
        int n = start[c];
        start[c] = sum, sum += n;
    }
    for (int p = lo; p < hi; p++)
        for (int e = from->start[p], end = from->start[p + 1] - 1; e < end; e++) {
            int to = start[from->at[e] + 1]++;
            at[to] = p - lo, v[to] = from->v[e];
        }
}

int tn_recurrent_turn(const tn_recurrent *r, int chunk, tn_recurrent_turned *to) {
    tn_sparse_rows from;
    if (!tn_recurrent_lists(r, chunk, 0, &from)) return 0;
    int rows = (int)tn_recurrent_len_of(r, tn_recurrent_row(r, chunk)), *start = to->start;
    to->pieces = pieces_of((size_t)rows);
    start[0] = 0;
    for (int i = 0; i < to->pieces; i++, start += r->in + 1) {
        turn_piece(r, &from, tn_recurrent_turned_at(rows, i, to->pieces),
                   tn_recurrent_turned_at(rows, i + 1, to->pieces), start, to->at, to->v);
        start[r->in + 1] = start[r->in];
    }
    return 1;
}

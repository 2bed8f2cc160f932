/* SPDX-License-Identifier: MIT */
/*
 * A recurrent layer backward, the gradients of weights and biases: the transposed product of [x, state] by the
 * gradients of the step's products, piece by piece, as soon as a chunk has gone through a piece's steps.
 */
#include "recurrent_back.h"

typedef tn_recurrent_back job;

/* Rows of the transposed gradient that a block of dg meets: of a GRU's n the parts of input and state are apart. */
static int first_row(const tn_recurrent *r, int block) {
    return r->cell == TN_GRU && block == 3 ? r->in : 0;
}
static int end_row(const tn_recurrent *r, int block) {
    return r->in + 1 + (r->cell == TN_GRU && !block ? 0 : r->padded);
}

void tn_recurrent_weights_room(job *j, tn_tape *t) {
    const tn_recurrent *r = j->r;
    if (!j->packed_hh) return;
    size_t bytes = tn_recurrent_part(j) * sizeof *j->turned;
    j->turned = tn_scratch(t, bytes * (size_t)tn_recurrent_groups(r));
    if (j->add >> TN_SRC_WIH) j->turned_again = tn_scratch(t, bytes);
}

/* x's part and the sums are only ever added to. */
void tn_recurrent_weights_begin(const job *j, int group) {
    const tn_recurrent *r = j->r;
    memset(j->turned + (size_t)group * tn_recurrent_part(j), 0,
           (size_t)(r->in + 1) * (size_t)j->dg_row * sizeof *j->turned);
}

/* ---- a piece's part ---- */

/* A panel of block g of dg, units u ..., by some rows of the transposed gradient, which are columns of edge as they lie. */
typedef struct {
    const tn_recurrent_piece *piece;
    int g, u, w;
} panel_job;

static tn_real *result(const panel_job *q, int row) {
    const tn_recurrent *r = q->piece->j->r;
    return q->piece->j->turned + (size_t)q->piece->group * tn_recurrent_part(q->piece->j)
           + row * q->piece->j->dg_row + (ptrdiff_t)q->g * r->padded + q->u;
}

/* Rows lo..hi-1 of the transposed gradient, [x, sums, state], by the piece's rows up to end; lo is not the sums'. */
static void panel_rows(const panel_job *q, int lo, int hi, ptrdiff_t end) {
    const tn_recurrent_piece *piece = q->piece;
    const tn_recurrent *r = piece->j->r;
    if (lo >= hi || !end) return;
    piece->j->k->panel_product(&(tn_panel_product){.m = hi - lo,
                                                   .w = q->w,
                                                   .k = (int)end,
                                                   .columns = 1,
                                                   .a = tn_recurrent_edge(r, piece->t + r->reverse, piece->r0)
                                                        + r->x_at + lo - (lo > r->in),
                                                   .stride = r->stride,
                                                   .panel = piece->dg + (ptrdiff_t)q->g * r->padded + q->u,
                                                   .panel_row = piece->j->dg_row,
                                                   .c = result(q, lo),
                                                   .ldc = piece->j->dg_row,
                                                   .add = lo < r->in || piece->begun});
}

/* Are a block's gradients finite? Their sums so far tell, and one that has overflowed does not matter. */
static int block_finite(const job *j, int group, int g) {
    const tn_real *sum = tn_recurrent_sums(j, group) + (ptrdiff_t)g * j->r->padded;
    int bad = 0;
    for (int u = 0; u < j->r->padded; u++) bad |= sum[u] - sum[u] != 0;
    return !bad;
}

/* x's rows of all blocks (a GRU's last has none), where x is mostly zeros: by its bits, from where x lies. */
static void sparse_inputs(const tn_recurrent_piece *piece) {
    const job *j = piece->j;
    const tn_recurrent *r = j->r;
    panel_job q = {.piece = piece};
    tn_sparse_rows x, next;
    tn_recurrent_marked(r, j->x, piece->chunk, piece->t, &x);
    int t = piece->steps == 1 ? piece->t : r->reverse ? piece->t + 1 : piece->t - 1;
    tn_recurrent_marked(r, j->x, piece->chunk, t, &next);
    j->k->sparse_turned(&(tn_sparse_turned){.steps = piece->steps,
                                            .m = x.m,
                                            .k = r->in,
                                            .w = r->gates * r->padded,
                                            .bits = x.bits,
                                            .bits_row = x.bits_row,
                                            .bits_step = next.bits - x.bits,
                                            .a = x.a,
                                            .stride = x.stride,
                                            .step = next.a - x.a,
                                            .b = piece->dg,
                                            .ldb = j->dg_row,
                                            .c = result(&q, 0),
                                            .ldc = j->dg_row});
}

static void piece_block(const tn_recurrent_piece *piece, int g, int sparse) {
    const tn_recurrent *r = piece->j->r;
    ptrdiff_t end = (ptrdiff_t)piece->steps * piece->m, to = end;
    /* the step that begins with a state of zeros adds nothing to the state's weights */
    if (r->from_zero && tn_recurrent_back_at(r, piece->t) + piece->steps == r->steps) to -= piece->m;
    panel_job q = {.piece = piece, .g = g};
    for (q.u = 0; q.u < r->padded; q.u += q.w) {
        q.w = tn_recurrent_units(r, piece->j->k, q.u);
        if (!sparse) panel_rows(&q, first_row(r, g), r->in, end);
        panel_rows(&q, r->in + 1, end_row(r, g), to);
    }
}

void tn_recurrent_weights_piece(const tn_recurrent_piece *piece) {
    const job *j = piece->j;
    const tn_recurrent *r = j->r;
    int sparse = tn_recurrent_sparse(r, piece->chunk), dense = 0;
    for (int g = 0; sparse && g < r->blocks; g++) dense |= !block_finite(j, piece->group, g);
    for (int i = 0; dense && i < piece->steps; i++)
        tn_recurrent_put_x(r, j->k, j->x, piece->chunk, r->reverse ? piece->t + i : piece->t - i);
    if (sparse && !dense) sparse_inputs(piece);
    for (int g = 0; g < r->blocks; g++) piece_block(piece, g, sparse && !dense);
}

/* ---- all parts ---- */

/* Turns rows a..b-1 of the transposed gradient of w_hh or w_ih (state: 1 or 0), block to gate g, into the gradient. */
static void turn_back(const job *j, int state, int g, int a, int b) {
    const tn_recurrent *r = j->r;
    int src = state ? TN_SRC_WHH : TN_SRC_WIH, dim = state ? r->hidden : r->in;
    if (b > dim) b = dim;
    if (!(j->need >> src & 1) || a >= b) return;
    ptrdiff_t row = j->dg_row, at = a + (state ? r->in + 1 : 0), n = b - a;
    const tn_real *from = j->turned + at * row + (ptrdiff_t)tn_recurrent_block(r, g, state) * r->padded;
    tn_real *to = j->gx[src] + (ptrdiff_t)g * r->hidden * dim + a;
    if (!(j->add >> src & 1)) {
        j->k->transpose((int)n, r->hidden, from, row, to, dim);
        return;
    }
    tn_real *again =
        j->turned_again
        + (at + (ptrdiff_t)tn_recurrent_block(r, g, state) * (r->in + 1 + r->padded)) * r->hidden;
    j->k->transpose((int)n, r->hidden, from, row, again, n);
    for (int u = 0; u < r->hidden; u++) j->k->accumulate((size_t)n, again + u * n, to + (ptrdiff_t)u * dim);
}

/* Pieces that a block's rows are cut into, to be added up. */
enum { PIECES = 4 };

static void sum_piece(void *arg, int chunk) {
    const job *j = arg;
    const tn_recurrent *r = j->r;
    int block = chunk / PIECES, i = chunk % PIECES, x = r->in + 1, groups = tn_recurrent_groups(r);
    int lo = first_row(r, block), n = end_row(r, block) - lo, a = lo + n * i / PIECES,
        b = lo + n * (i + 1) / PIECES;
    for (int row = a; row < b; row++) {
        tn_real *sum = j->turned + row * j->dg_row + (ptrdiff_t)block * r->padded;
        for (int q = 1; q < groups; q++)
            j->k->accumulate((size_t)r->padded, sum + (size_t)q * tn_recurrent_part(j), sum);
    }
    for (int g = 0; g < r->gates; g++) {
        if (a < x && tn_recurrent_block(r, g, 0) == block) turn_back(j, 0, g, a, b < x ? b : x);
        if (b > x && tn_recurrent_block(r, g, 1) == block) turn_back(j, 1, g, a > x ? a - x : 0, b - x);
    }
}

static void own_weights(job *j) {
    const tn_recurrent *r = j->r;
    tn_parallel(r->blocks * PIECES, sum_piece, j);
    for (int src = TN_SRC_BIH; src <= TN_SRC_BHH; src++)
        for (int g = 0; g < r->gates && j->need >> src & 1; g++) {
            int b = tn_recurrent_block(r, g, src == TN_SRC_BHH);
            tn_recurrent_put(j, (size_t)r->hidden, tn_recurrent_sums(j, 0) + (ptrdiff_t)b * r->padded,
                             j->add >> src & 1, j->gx[src] + (ptrdiff_t)g * r->hidden);
        }
}

/* By OpenBLAS, chunk after chunk. */
static void blas_chunk(const job *j, int row0, int begun) {
    const tn_recurrent *r = j->r;
    int all = (int)tn_recurrent_len_of(r, row0);
    const tn_real *first = j->dg + (ptrdiff_t)tn_recurrent_at(r, r->steps, 0, row0) * j->dg_row;
    if (r->bits) /* forward ran on own kernels, which may have left x where it was */
        for (int t = 0; t < r->steps; t++) tn_recurrent_put_x(r, j->k, j->x, row0 / r->each, t);
    for (int state = 0; state < 2; state++)
        for (int g = 0; g < r->gates; g++) {
            const tn_real *dg = first + (ptrdiff_t)tn_recurrent_block(r, g, state) * r->padded;
            int w = state ? TN_SRC_WHH : TN_SRC_WIH, b = state ? TN_SRC_BHH : TN_SRC_BIH,
                n = state ? r->hidden : r->in;
            if (j->need >> w & 1)
                tn_gemm(&(tn_gemm_args){.m = r->hidden,
                                        .n = n,
                                        .k = all,
                                        .a = dg,
                                        .ars = 1,
                                        .acs = j->dg_row,
                                        .b = tn_recurrent_edge(r, r->reverse ? 1 : r->steps - 1, row0)
                                             + (state ? r->h_at : r->x_at),
                                        .brs = r->stride,
                                        .bcs = 1,
                                        .c = j->gx[w] + (ptrdiff_t)g * r->hidden * n,
                                        .ldc = n,
                                        .add = begun || j->add >> w & 1});
            if (j->need >> b & 1)
                j->k->col_sum(all, r->hidden, dg, j->dg_row, begun || j->add >> b & 1,
                              j->gx[b] + (ptrdiff_t)g * r->hidden);
        }
}

void tn_recurrent_weights(job *j) {
    if (j->turned)
        own_weights(j);
    else
        for (int c = 0; c < tn_recurrent_chunks(j->r); c++) blas_chunk(j, tn_recurrent_row(j->r, c), c > 0);
}

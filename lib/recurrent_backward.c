/* SPDX-License-Identifier: MIT */
/*
 * A recurrent layer backward. Chunks of rows go back through all time steps on their own, as forward; the gradients of
 * the products that the cells leave go at once, from the cache, into the state's and the input's, and wait there for a
 * product over some steps and their rows, whose left factor [x, state] forward has left: the gradients of the weights.
 */
#include "recurrent_back.h"

typedef tn_recurrent_back job;
typedef tn_recurrent_piece piece;

/* ---- steps ---- */

static size_t packed_gate_len(const tn_recurrent *r) {
    return tn_gemm_packed_len(r->in, r->hidden);
}

static int panels_of(const tn_recurrent *r, const tn_kernels_t *k) {
    return (r->padded + k->panel - 1) / k->panel;
}

/* One panel of the state's weights of one gate; with the first, the gate's input's. */
static void pack_gate(void *arg, int chunk) {
    const job *j = arg;
    const tn_recurrent *r = j->r;
    int g = chunk % r->gates, u = chunk / r->gates * j->k->panel, w = tn_recurrent_units(r, j->k, u),
        cols = r->hidden - u < w ? r->hidden - u : w;
    ptrdiff_t h = r->hidden;
    if (j->dx && u == 0)
        j->k->pack_b(r->hidden, r->in, j->w_ih + g * h * r->in, r->in, 1,
                     j->packed_ih + (size_t)g * packed_gate_len(r));
    tn_real *out = j->packed_hh + (r->gates * u + g * w) * h;
    if (cols < w) memset(out, 0, (size_t)(h * w) * sizeof *out);
    for (ptrdiff_t p = 0; p < h; p++)
        memcpy(out + p * w, j->w_hh + (g * h + p) * h + u, (size_t)cols * sizeof *out);
}

/* What the next step backward reads is fetched during this one's products, n of them: kept by all, edge and c in turns. */
static void fetch_next(const piece *q, int t, int n, tn_soon soon[3]) {
    const tn_recurrent *r = q->j->r;
    int next = r->reverse ? t + 1 : t - 1, edge = next + (r->kept ? r->reverse : !r->reverse);
    size_t rows = (size_t)q->m * sizeof(tn_real), wide = (size_t)r->padded;
    memset(soon, 0, 3 * sizeof *soon);
    if (next < 0 || next >= r->steps) return;
    if (r->kept)
        soon[0] = tn_soon_of(tn_recurrent_kept(r, next, q->r0), rows * (size_t)r->kept_len * wide, n);
    soon[1] = tn_soon_of(tn_recurrent_edge(r, edge, q->r0), rows * (size_t)r->stride, r->c ? n / 2 : n);
    if (r->c) soon[2] = tn_soon_of(tn_recurrent_c(r, next + r->reverse, q->r0), rows * wide, n / 2);
}

/* dh of rows r0... += dg by w_hh. */
static void state_product(const piece *q, int t, const tn_real *dg) {
    const job *j = q->j;
    const tn_recurrent *r = j->r;
    tn_real *dh = j->dh + (ptrdiff_t)q->r0 * r->padded;
    ptrdiff_t h = r->hidden;
    if (!j->packed_hh) {
        for (int g = 0; g < r->gates; g++)
            tn_gemm_serial(&(tn_gemm_args){.m = q->m,
                                           .n = r->hidden,
                                           .k = r->hidden,
                                           .a = dg + (ptrdiff_t)tn_recurrent_block(r, g, 1) * r->padded,
                                           .ars = j->dg_row,
                                           .acs = 1,
                                           .b = j->w_hh + g * h * h,
                                           .brs = h,
                                           .bcs = 1,
                                           .c = dh,
                                           .ldc = r->padded,
                                           .add = 1});
        return;
    }
    const tn_real *b = j->packed_hh;
    int i = 0;
    tn_soon soon[3];
    fetch_next(q, t, r->gates * panels_of(r, j->k), soon);
    for (int u = 0, w; u < r->padded; u += w) {
        w = tn_recurrent_units(r, j->k, u);
        tn_panel_product p = {
            .m = q->m, .w = w, .k = r->hidden, .stride = j->dg_row, .c = dh + u, .ldc = r->padded, .add = 1};
        for (int g = 0; g < r->gates; g++, b += h * w) {
            p.a = dg + (ptrdiff_t)tn_recurrent_block(r, g, 1) * r->padded, p.panel = b;
            tn_soon_next(&soon[0], &p, 0), tn_soon_next(&soon[r->c ? 1 + i++ % 2 : 1], &p, 1);
            j->k->panel_product(&p);
        }
    }
}

/* dx of a step and some rows, or += with add. */
static void input_product(const job *j, int m, const tn_real *dg, tn_real *dx, ptrdiff_t ldc) {
    const tn_recurrent *r = j->r;
    for (int g = 0; g < r->gates; g++)
        tn_gemm_serial(
            &(tn_gemm_args){.m = m,
                            .n = r->in,
                            .k = r->hidden,
                            .a = dg + (ptrdiff_t)tn_recurrent_block(r, g, 0) * r->padded,
                            .ars = j->dg_row,
                            .acs = 1,
                            .b = j->w_ih + (ptrdiff_t)g * r->hidden * r->in,
                            .brs = r->in,
                            .bcs = 1,
                            .packed_b = j->packed_ih ? j->packed_ih + (size_t)g * packed_gate_len(r) : NULL,
                            .c = dx,
                            .ldc = ldc,
                            .add = j->dx_add || g});
}

static void cells(const piece *q, int t, int r0, int r1, tn_real *sum) {
    const job *j = q->j;
    const tn_recurrent *r = j->r;
    tn_cell_rows s = {.rows = r1 - r0, .units = r->padded, .h_row = r->stride, .c_row = r->padded};
    s.h0 = tn_recurrent_edge(r, t + r->reverse, r0) + r->h_at;
    s.h1 = tn_recurrent_edge(r, t + !r->reverse, r0) + r->h_at;
    s.d_row = r->padded, s.dh = j->dh + (ptrdiff_t)r0 * r->padded;
    if (r->c) s.c0 = tn_recurrent_c(r, t + r->reverse, r0);
    if (r->c) s.dc = j->dc + (ptrdiff_t)r0 * r->padded;
    if (r->kept) s.kept_row = (ptrdiff_t)r->kept_len * r->padded, s.kept = tn_recurrent_kept(r, t, r0);
    if (sum) s.sum = sum, s.sum_block = r->padded;
    s.dg_row = j->dg_row, s.dg_block = r->padded, s.dg = tn_recurrent_dg(q, t, r0);
    j->k->cell_back[r->cell](&s);
}

/* Beyond its length a row has no gradient of a product, and the state's waits. */
static void no_cells(const piece *q, int t, int i) {
    const tn_recurrent *r = q->j->r;
    memset(tn_recurrent_dg(q, t, i), 0, (size_t)(r->blocks * r->padded) * sizeof *q->dg);
}

static void back_step(const piece *q, int t, int first, tn_real *sum) {
    const job *j = q->j;
    const tn_recurrent *r = j->r;
    int r0 = q->r0, r1 = r0 + q->m;
    for (int i = r0; j->gy && i < r1; i++)
        if (tn_recurrent_active(r, i, t))
            j->k->accumulate((size_t)r->hidden,
                             j->gy + ((size_t)t * (size_t)r->rows + (size_t)i) * (size_t)r->hidden,
                             j->dh + (size_t)i * (size_t)r->padded);
    if (!r->length) cells(q, t, r0, r1, sum);
    for (int i = r0; r->length && i < r1; i++) {
        if (tn_recurrent_active(r, i, t))
            cells(q, t, i, i + 1, sum);
        else
            no_cells(q, t, i);
    }
    const tn_real *dg = tn_recurrent_dg(q, t, r0);
    if (!first || j->dh0) state_product(q, t, dg);
    if (!j->dx) return;
    ptrdiff_t x_step = r->rows_first ? r->in : (ptrdiff_t)r->rows * r->in,
              x_row = r->rows_first ? (ptrdiff_t)r->steps * r->in : r->in;
    input_product(j, q->m, dg, j->dx + t * x_step + r0 * x_row, x_row);
}

static void put_rows(const tn_recurrent *r, const tn_real *from, int r0, int r1, tn_real *to) {
    for (int i = r0; i < r1; i++) {
        memcpy(to + (size_t)i * (size_t)r->padded, from + (size_t)i * (size_t)r->hidden,
               (size_t)r->hidden * sizeof *to);
        memset(to + (size_t)i * (size_t)r->padded + r->hidden, 0,
               (size_t)(r->padded - r->hidden) * sizeof *to);
    }
}

/* begun: the group's part of the weights' gradients holds something. */
static void backward_chunk(const job *j, int group, int chunk, int begun) {
    const tn_recurrent *r = j->r;
    int r0 = tn_recurrent_row(r, chunk), r1 = tn_recurrent_row(r, chunk + 1),
        most = tn_recurrent_piece_steps(r);
    tn_real *sum = j->turned ? tn_recurrent_sums(j, group) : NULL;
    piece q = {.j = j, .group = group, .chunk = chunk, .r0 = r0, .m = r1 - r0, .begun = begun};
    if (j->packed_hh) q.dg = j->dg + (size_t)tn_worker() * tn_recurrent_piece_room(j);
    put_rows(r, j->gh_n, r0, r1, j->dh);
    if (j->dc) put_rows(r, j->gc_n, r0, r1, j->dc);
    for (int left = r->steps; left > 0; left -= q.steps, q.begun = 1) {
        q.steps = left < most ? left : most;
        q.t = r->reverse ? r->steps - left : left - 1;
        if (!j->packed_hh)
            q.dg = j->dg + (ptrdiff_t)tn_recurrent_at(r, r->steps, r->steps - left, r0) * j->dg_row;
        for (int i = 0; i < q.steps; i++) back_step(&q, r->reverse ? q.t + i : q.t - i, left - i == 1, sum);
        if (j->turned) tn_recurrent_weights_piece(&q);
    }
}

/* A thread's chunks go backward in the order opposite to forward. A group's sums are its own, whoever makes them. */
static void backward_group(void *arg, int i) {
    const job *j = arg;
    int group = tn_backwards(tn_recurrent_groups(j->r), j->threads, i),
        first = tn_recurrent_group(j->r, group), end = tn_recurrent_group(j->r, group + 1);
    if (j->turned) tn_recurrent_weights_begin(j, group);
    for (int chunk = end - 1; chunk >= first; chunk--) backward_chunk(j, group, chunk, chunk < end - 1);
}

static void state_gradient(const job *j, int src, const tn_real *from) {
    const tn_recurrent *r = j->r;
    for (int i = 0; i < r->rows && j->need >> src & 1; i++)
        tn_recurrent_put(j, (size_t)r->hidden, from + (size_t)i * (size_t)r->padded, j->add >> src & 1,
                         j->gx[src] + (size_t)i * (size_t)r->hidden);
}

void tn_recurrent_backward(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const tn_recurrent *r = y->aux;
    tn_tape *t = y->tape;
    size_t n = tn_recurrent_state(r), row = (size_t)(r->blocks * r->padded);
    const tn_real *last = r->last_only ? gy : gy + (size_t)r->steps * n;
    job j = {.r = r,
             .k = tn_kernels_get(NULL),
             .threads = tn_threads(),
             .x = y->src[TN_SRC_X]->x,
             .w_ih = y->src[TN_SRC_WIH]->x,
             .w_hh = y->src[TN_SRC_WHH]->x,
             .gy = r->last_only ? NULL : gy,
             .gh_n = last,
             .gc_n = r->c ? last + n : NULL,
             .dx = need >> TN_SRC_X & 1 ? gx[TN_SRC_X] : NULL,
             .dx_add = add >> TN_SRC_X & 1,
             .dh0 = need >> TN_SRC_H0 & 1,
             .gx = gx,
             .need = need,
             .add = add};
    size_t state = (size_t)r->rows * (size_t)r->padded * sizeof(tn_real);
    j.dh = tn_scratch(t, state), j.dc = r->c ? tn_scratch(t, state) : NULL;
    j.dg_row = (ptrdiff_t)row + 16; /* rows whole pages apart would crowd into one set of the cache */
    if (tn_gemm_own()) {
        size_t gates = (size_t)r->gates * sizeof(tn_real);
        j.dg = tn_scratch(t, (size_t)tn_worker_slots() * tn_recurrent_piece_room(&j) * sizeof *j.dg);
        j.packed_hh = tn_scratch(t, (size_t)r->hidden * (size_t)r->padded * gates);
        if (j.dx) j.packed_ih = tn_scratch(t, packed_gate_len(r) * gates);
        tn_parallel(r->gates * panels_of(r, j.k), pack_gate, &j);
    } else {
        j.dg = tn_scratch(t, tn_recurrent_rows(r) * (size_t)j.dg_row * sizeof *j.dg);
    }
    int weights = need >> TN_SRC_WIH != 0;
    if (weights) tn_recurrent_weights_room(&j, t);
    tn_parallel(tn_recurrent_groups(r), backward_group, &j);
    state_gradient(&j, TN_SRC_H0, j.dh);
    state_gradient(&j, TN_SRC_C0, j.dc);
    if (weights) tn_recurrent_weights(&j);
}

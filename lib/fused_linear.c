/* SPDX-License-Identifier: MIT */
/*
 * act(x w' + b) in one op.
 *
 * Forward has three ways, with the same bits: an input that is mostly zeros goes to linear_sparse.c; else what is less to
 * pack is packed, the samples as the columns of x', once for all units, against weights as they are kept, or some units'
 * weights on the way, in the first-level cache. With few samples, or where the weights' packed form is there already
 * (evaluation), that is used. The input gradient packs weights on the way, too, and the weight gradient reads the input as
 * it lies, and dz' from a copy that is made as dz is. Bias and ReLU ride on the product's last pass. Both passes of a
 * small layer are linear_small.c's, again with the same bits.
 *
 * Which chunk does what decides how much a thread reads that another wrote: the units of a layer stay with one thread
 * in the product forward, both gradients and the packing, so that of the large arrays only the input is read by all.
 */
#include "internal.h"
#include "kernels/kernels.h"
#include "linear_small.h"
#include "linear_sparse.h"
#include "linear_wide.h"
#include <string.h>

typedef struct {
    tn_act act;
    const tn_sparse_input *sparse; /* or NULL */
} linear_aux;

enum { UNITS = 64 /* two panels or more */, MAX_CHUNKS = 16, FEWEST = TN_NR_MAX / 2 /* samples */ };
enum { SMALL = 1 << 17 }; /* products that take a thread no longer than to call another */

/* Units of a chunk of the product forward and of the weight gradient. */
static int chunk_units(int out) {
    int units = (out + MAX_CHUNKS - 1) / MAX_CHUNKS;
    return units < UNITS ? UNITS : units;
}

/* Half of n in whole panels, the larger one. */
static int half_of(int n) {
    int half = ((n + 1) / 2 + TN_NR_MAX - 1) / TN_NR_MAX * TN_NR_MAX;
    return half < n ? half : n;
}

/* ---- forward ---- */

typedef struct {
    const tn_kernels_t *k;
    int n, in, out, units, half, relu; /* half: samples of the first half of the chunks */
    const tn_real *x, *w, *bias;
    tn_real *panels, *y;
} forward;

static void pack_samples(void *arg, int chunk) {
    const forward *f = arg;
    int r0 = chunk * TN_NR_MAX, r1 = r0 + TN_NR_MAX < f->n ? r0 + TN_NR_MAX : f->n;
    f->k->pack_b(f->in, r1 - r0, f->x + (size_t)r0 * (size_t)f->in, 1, f->in,
                 f->panels + (size_t)r0 * (size_t)f->in);
}

/* Some units, half of the samples. */
static void forward_units(void *arg, int chunk) {
    const forward *f = arg;
    int r0 = chunk / 2 * f->units, r1 = r0 + f->units < f->out ? r0 + f->units : f->out;
    int c0 = chunk % 2 ? f->half : 0, c1 = chunk % 2 ? f->n : f->half;
    if (c0 < c1)
        f->k->gemm_turned(r1 - r0, c1 - c0, f->in, f->w + (size_t)r0 * (size_t)f->in, f->in,
                          f->panels + (size_t)c0 * (size_t)f->in, f->y + (size_t)c0 * (size_t)f->out + r0,
                          f->out, f->bias ? f->bias + r0 : NULL, f->relu);
}

/* The other way round, x w' from packed weights. */
static void forward_packed(const forward *f, const tn_real *packed_w) {
    tn_gemm(&(tn_gemm_args){.m = f->n,
                            .n = f->out,
                            .k = f->in,
                            .a = f->x,
                            .ars = f->in,
                            .acs = 1,
                            .b = f->w,
                            .brs = 1,
                            .bcs = f->in,
                            .packed_b = packed_w,
                            .c = f->y,
                            .ldc = f->out,
                            .bias = f->bias,
                            .relu = f->relu});
}

/* Some units, all samples, their weights packed panel by panel on the way. */
static void forward_panels(void *arg, int chunk) {
    const forward *f = arg;
    const int o = chunk * f->units, units = f->out - o < f->units ? f->out - o : f->units;
    f->k->gemm_raw_b(f->n, units, f->in, f->x, f->in, 1, f->w + (size_t)o * (size_t)f->in, 1, f->in, f->y + o,
                     f->out, 0, f->bias ? f->bias + o : NULL, f->relu);
}

/*
 * Which is less to pack. With several threads packed samples also have to pass from core to core, as the samples
 * themselves will for the weight gradient, where weights stay with the thread that packs them: they win then up to four
 * times the number of samples. The choice may depend on the threads because no bit depends on it: either way an element
 * is one chain over `in`, then the bias (tests/test_layers.c, either_way_round).
 */
static int better_turned(int n, int out) {
    return tn_threads() > 1 ? 4L * n < out : n <= 4L * out;
}

/*
 * The packed form that is there, or will be wanted: without recording (evaluation) the next batch has the same weights. NULL
 * otherwise.
 */
static const tn_real *kept_panels(const tn_t *w) {
    return tn_is_packed(w) || (w->param && !tn_tape_mode(w->tape).record) ? tn_packed(w) : NULL;
}

static void run_forward(forward *f, const tn_sparse_input *sparse, const tn_t *w) {
    if (sparse && tn_linear_sparse_forward(w->tape, sparse, f->out, f->w, f->bias, f->relu, f->y)) return;
    const tn_real *packed = kept_panels(w);
    if (!tn_gemm_own() || packed || f->n < FEWEST) {
        forward_packed(f, packed ? packed : tn_packed(w));
        return;
    }
    if (tn_linear_small_fits(f->n, f->in, f->out)) {
        tn_linear_small_forward(w->tape, f->n, f->in, f->out, f->x, f->w, f->bias, f->relu, f->y);
        return;
    }
    f->k = tn_kernels_get(NULL);
    f->units = chunk_units(f->out);
    if (!better_turned(f->n, f->out)) {
        tn_parallel((f->out + f->units - 1) / f->units, forward_panels, f);
        return;
    }
    f->half = half_of(f->n);
    f->panels = tn_scratch(w->tape, tn_gemm_packed_len(f->n, f->in) * sizeof *f->panels);
    tn_parallel((f->n + TN_NR_MAX - 1) / TN_NR_MAX, pack_samples, f);
    tn_parallel(2 * ((f->out + f->units - 1) / f->units), forward_units, f);
}

/* ---- gradients ---- */

/* What the passes of one backward share; dz = gy act'(z) (n, out), turned: dz' (out, n), row stride ld. */
typedef struct {
    const tn_kernels_t *k;
    tn_act act;
    int n, in, out;
    int units, half;     /* of a chunk: units; where the columns of dw are cut in two */
    int blocks;          /* of units */
    int columns, strips; /* of a chunk of dx; chunks, an even number */
    const tn_real *gy, *y, *x, *w;
    const tn_real *dz;
    tn_real *own_dz, *own_x, *turned, *dx, *dw, *db;
    int ldx, ld; /* row strides of x, or of its copy own_x, and of turned */
    unsigned add;
} back;

/*
 * The weight gradient's product reads x as it lies when rows begin on a line and do not crowd into few sets of the
 * first-level cache. Others are copied to rows an odd number of lines apart.
 */
static int row_stride(int in, int n) {
    enum { LINE = 64 / (int)sizeof(tn_real), MOST = 256 };
    int lines = (in + LINE - 1) / LINE, shared = lines & -lines; /* the power of two in lines */
    if (in % LINE == 0 && shared * (n < MOST ? n : MOST) <= MOST) return in;
    return tn_odd_lines(in);
}

/* Some units of all samples: dz, its transpose, its sums; and a share of the copy of x. */
static void back_units(void *arg, int chunk) {
    const back *b = arg;
    const int o = chunk * b->units, units = b->out - o < b->units ? b->out - o : b->units;
    for (int i = 0; i < b->n && b->own_dz; i++) {
        const size_t at = (size_t)i * (size_t)b->out + (size_t)o;
        tn_act_slope(b->act, (size_t)units, b->gy + at, b->y + at, b->own_dz + at);
    }
    if (b->turned)
        b->k->transpose(b->n, units, b->dz + o, b->out, b->turned + (size_t)o * (size_t)b->ld, b->ld);
    if (b->db) b->k->col_sum(b->n, units, b->dz + o, b->out, (b->add >> 2) & 1, b->db + o);
    if (b->own_x) {
        const int r0 = (int)((long)b->n * chunk / b->blocks),
                  r1 = (int)((long)b->n * (chunk + 1) / b->blocks);
        b->k->copy_rows(r1 - r0, b->in, b->x + (size_t)r0 * (size_t)b->in, b->in,
                        b->own_x + (size_t)r0 * (size_t)b->ldx, b->ldx);
    }
}

/* Some columns of dx = dz w. */
static void back_strip(const back *b, int strip) {
    const int c0 = strip * b->columns, c1 = c0 + b->columns < b->in ? c0 + b->columns : b->in;
    if (c0 < c1)
        b->k->gemm_raw_b(b->n, c1 - c0, b->out, b->dz, b->out, 1, b->w + c0, b->in, 1, b->dx + c0, b->in,
                         b->add & 1, NULL, 0);
}

/* A block of dw = dz' x. */
static void back_block(const back *b, int block) {
    const tn_real *x = b->own_x ? b->own_x : b->x;
    int r0 = block / 2 * b->units, r1 = r0 + b->units < b->out ? r0 + b->units : b->out;
    int c0 = block % 2 ? b->half : 0, c1 = block % 2 ? b->in : b->half;
    if (c0 < c1)
        b->k->gemm_raw_b(r1 - r0, c1 - c0, b->n, b->turned + (size_t)r0 * (size_t)b->ld, b->ld, 1, x + c0,
                         b->ldx, 1, b->dw + (size_t)r0 * (size_t)b->in + c0, b->in, (b->add >> 1) & 1, NULL,
                         0);
}

/* The first half of dx's and dw's chunks, then the others: with two threads each has the same half of both. */
static void back_products(void *arg, int chunk) {
    const back *b = arg;
    const int strips = b->strips / 2, blocks = b->turned ? b->blocks : 0; /* of a half */
    const int second = chunk >= strips + blocks, at = second ? chunk - strips - blocks : chunk;
    if (at < strips)
        back_strip(b, second * strips + at);
    else
        back_block(b, second * blocks + at - strips);
}

/*
 * Everything is shared out by units and, in dx, by the units of the layer below: a thread's units are the same in the
 * layers' products, in both directions. dx packs weights panel by panel on the way, while they
 * are in the first-level cache, which costs less than to keep them packed: they change with every step.
 */
static void own_bwd(tn_t *y, const linear_aux *a, const tn_real *gy, tn_real *const gx[], unsigned need,
                    unsigned add) {
    tn_t *x = y->src[0], *w = y->src[1];
    back b = {.k = tn_kernels_get(NULL),
              .act = a->act,
              .n = y->dim[0],
              .in = w->dim[1],
              .out = w->dim[0],
              .gy = gy,
              .y = y->x,
              .x = x->x,
              .w = w->x,
              .dz = gy,
              .add = add};
    const int add_dw = (add >> 1) & 1, of_itself = x == w; /* one buffer for dx and dw: one after the other */
    const int dense = need & 2 && !of_itself;
    if (a->act != TN_ACT_NONE) b.dz = b.own_dz = tn_scratch(y->tape, y->len * sizeof *gy);
    if (need & 1) b.dx = gx[0];
    if (need & 4) b.db = gx[2];
    const int small = (double)b.n * b.in * b.out <= SMALL;
    b.units = small ? b.out : chunk_units(b.out), b.blocks = (b.out + b.units - 1) / b.units;
    b.half = half_of(b.in);
    b.ld = tn_odd_lines(b.n), b.ldx = dense && b.out > UNITS ? row_stride(b.in, b.n) : b.in;
    if (dense) b.dw = gx[1], b.turned = tn_scratch(y->tape, (size_t)b.out * (size_t)b.ld * sizeof *gy);
    if (b.ldx != b.in) b.own_x = tn_scratch(y->tape, (size_t)b.n * (size_t)b.ldx * sizeof *gy);
    tn_parallel(b.blocks, back_units, &b);
    if (b.dx) {
        b.columns = small ? b.in : chunk_units(b.in);
        b.strips = ((b.in + b.columns - 1) / b.columns + 1) / 2 * 2;
    }
    const int products = b.strips + (dense ? 2 * b.blocks : 0);
    for (int i = 0; i < products && small; i++) back_products(&b, i);
    if (!small) tn_parallel(products, back_products, &b);
    if (need & 2 && of_itself) tn_product(b.out, b.in, b.n, b.dz, 1, b.x, 0, gx[1], add_dw);
}

/* Its weights and bias by the masks; what else is needed is left to own_bwd. */
static unsigned sparse_bwd(tn_t *y, const linear_aux *a, const tn_real *gy, tn_real *const gx[],
                           unsigned need, unsigned add) {
    if (!a->sparse || !(need & 2) || y->src[0] == y->src[1]) return need;
    tn_sparse_back b = {.out = y->dim[1], .act = a->act, .y = y->x, .gy = gy, .dw = gx[1]};
    if (need & 4) b.db = gx[2];
    b.add_dw = (add >> 1) & 1, b.add_db = (add >> 2) & 1;
    tn_linear_sparse_back(y->tape, a->sparse, &b);
    return need & 1;
}

static void linear_bwd(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add) {
    const linear_aux *a = y->aux;
    tn_t *x = y->src[0], *w = y->src[1];
    int n = y->dim[0], out = w->dim[0], in = w->dim[1];
    if (tn_linear_wide_fits(n, in, out, 1)) {
        const tn_real *dz = tn_act_back(y, a->act, gy);
        tn_linear_wide_back(y->tape, n, in, out, dz, x->x, w->x, add, need & 1 ? gx[0] : NULL,
                            need & 2 ? gx[1] : NULL);
        if (need & 4) tn_kernels_get(NULL)->col_sum(n, out, dz, out, (add >> 2) & 1, gx[2]);
        return;
    }
    if (!a->sparse && x != w && tn_linear_small_fits(n, in, out)) {
        tn_linear_small l = {.act = a->act, .n = n, .in = in, .out = out, .x = x->x, .w = w->x};
        l.y = y->x, l.gy = gy, l.add = add;
        if (need & 1) l.dx = gx[0];
        if (need & 2) l.dw = gx[1];
        if (need & 4) l.db = gx[2];
        tn_linear_small_back(y->tape, &l);
        return;
    }
    if (tn_gemm_own()) {
        need = sparse_bwd(y, a, gy, gx, need, add);
        if (need) own_bwd(y, a, gy, gx, need, add);
        return;
    }
    const tn_real *dz = tn_act_back(y, a->act, gy);
    if (need & 1) tn_product(n, in, out, dz, 0, w->x, 0, gx[0], add & 1);
    if (need & 2) tn_product(out, in, n, dz, 1, x->x, 0, gx[1], (add >> 1) & 1);
    if (need & 4) tn_kernels_get(NULL)->col_sum(n, out, dz, out, (add >> 2) & 1, gx[2]);
}

static tn_t *linear_expand(tn_t *y) {
    const linear_aux *a = y->aux;
    tn_t *z = tn_matmul(y->src[0], y->src[1], 0, 1);
    if (y->src[2]) z = tn_add(z, y->src[2]);
    return tn_activate(z, a->act);
}

static double linear_flops(const tn_t *y) {
    return 2.0 * (double)y->len * y->src[1]->dim[1];
}

static const tn_op op_linear = {
    .name = "linear", .expand = linear_expand, .bwd = linear_bwd, .flops = linear_flops};

tn_t *tn_linear_act(tn_t *x, tn_t *w, tn_t *b, tn_act act) {
    if (x->nd != 2 || w->nd != 2 || x->dim[1] != w->dim[1] || (b && (b->nd != 1 || b->dim[0] != w->dim[0]))) {
        char sx[64], sw[64], sb[64] = "none";
        tn_shape_text(x, sx), tn_shape_text(w, sw);
        if (b) tn_shape_text(b, sb);
        tn_panic(x->tape, "linear: input %s, weight %s and bias %s do not fit: (n, in), (out, in), (out,)",
                 sx, sw, sb);
    }
    /* GELU is not a function of its own output: the product is one op, the activation a composite on top. */
    if (act == TN_ACT_GELU) return tn_gelu(tn_linear_act(x, w, b, TN_ACT_NONE));
    int n = x->dim[0], out = w->dim[0], in = w->dim[1];
    tn_t *y = tn_new(x->tape, 2, (int[]){n, out});
    linear_aux a = {act, NULL};
    if (tn_linear_wide_fits(n, in, out, 0)) {
        tn_linear_wide_forward(x->tape, n, in, out, x->x, w->x, kept_panels(w), b ? b->x : NULL,
                               act == TN_ACT_RELU, y->x);
        if (act == TN_ACT_TANH || act == TN_ACT_SIGMOID) tn_act_all(act, y->len, y->x);
        return tn_result(&op_linear, y, 3, (tn_t *[]){x, w, b}, &a, sizeof a);
    }
    const int kept = w->needs && tn_tape_mode(x->tape).record;
    tn_place place = tn_mark(x->tape);
    const tn_sparse_input *sparse = tn_linear_sparse_input(x->tape, n, in, out, x->x, kept);
    if (kept && sparse) a.sparse = sparse, place = tn_mark(x->tape);
    run_forward(&(forward){.n = n,
                           .in = in,
                           .out = out,
                           .relu = act == TN_ACT_RELU,
                           .x = x->x,
                           .w = w->x,
                           .bias = b ? b->x : NULL,
                           .y = y->x},
                sparse, w);
    tn_rewind(x->tape, place);
    if (act == TN_ACT_TANH || act == TN_ACT_SIGMOID) tn_act_all(act, y->len, y->x);
    return tn_result(&op_linear, y, 3, (tn_t *[]){x, w, b}, &a, sizeof a);
}

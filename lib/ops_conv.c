/* SPDX-License-Identifier: MIT */
/*
 * Convolution: conv2d, conv2d_dx and conv2d_dw are the three partial derivatives of one trilinear form
 * sum g[n,o,p] w[o,c,k] x[n,c,window(p,k)], so each one's rule is the other two, and any order of derivative exists.
 *
 * Forward, and the input gradient without strides, go by conv_forward.c where that has their shape. Else an image is cut
 * into blocks of output rows whose windows, copied into the columns of a matrix, stay in the second-level cache, and multiply
 * there. Images are dealt to chunks; the weight gradient keeps one sum for each of a fixed number of slices of the batch
 * and adds these up in order, so no bit depends on the number of threads.
 */
#include "conv.h"
#include "kernels/kernels.h"
#include <string.h>

enum {
    BLOCK = 32 * 1024,
    CHUNKS = 16
}; /* reals of a block of columns; chunks of a batch, partial weight gradients */

/* ---- geometry ---- */

static int sensible(const tn_conv *c) {
    int ok = c->groups > 0;
    for (int i = 0; i < 2; i++) ok &= c->stride[i] > 0 && c->dilation[i] > 0 && c->pad[i] >= 0;
    return ok;
}

tn_conv_plan tn_conv_shape(tn_tape *t, const char *op, const int x[4], const int w[4], const tn_conv *c) {
    TN_CHECK(t, sensible(c), "%s: stride, dilation and groups must be positive, padding not negative", op);
    TN_CHECK(t, x[1] == w[1] * c->groups && w[0] % c->groups == 0,
             "%s: input (%d, %d, %d, %d) and weight (%d, %d, %d, %d) do not fit in %d groups", op, x[0], x[1],
             x[2], x[3], w[0], w[1], w[2], w[3], c->groups);
    tn_window g = {w[1],         x[2],      x[3],      w[2],           w[3],          0, 0, c->stride[0],
                   c->stride[1], c->pad[0], c->pad[1], c->dilation[0], c->dilation[1]};
    g.oh = tn_window_out(g.h, g.kh, g.sh, g.ph, g.dh), g.ow = tn_window_out(g.w, g.kw, g.sw, g.pw, g.dw);
    TN_CHECK(t, g.oh > 0 && g.ow > 0,
             "%s: a %d x %d window (dilation %d, %d) is larger than a %d x %d image padded by %d, %d", op,
             g.kh, g.kw, g.dh, g.dw, g.h, g.w, g.ph, g.pw);
    int k = w[1] * w[2] * w[3], rows = BLOCK / (k * g.ow);
    return (tn_conv_plan){
        g,   x[0], c->groups, w[0] / c->groups, k, rows < 1 ? 1 : rows > g.oh ? g.oh : rows, c->algorithm,
        NULL};
}

/* ---- one chunk of images through one of the three products ---- */

typedef struct {
    const tn_conv_plan *p;
    const tn_real *x, *w, *y;
    tn_real *out, *scratch;
    size_t scratch_len; /* of one chunk */
    int chunks, relu, bias_row;
} job;

static size_t in_len(const tn_conv_plan *p) {
    return (size_t)p->groups * (size_t)(p->g.c * p->g.h * p->g.w);
}

static size_t out_len(const tn_conv_plan *p) {
    return (size_t)p->groups * (size_t)(p->co * p->g.oh * p->g.ow);
}

typedef void block_fn(const job *, int group, const tn_real *x, const tn_real *y, tn_real *out, tn_real *col,
                      int r0, int r1);

/* Calls fn for every image, group and block of output rows of a chunk. */
static void each_block(const job *j, int chunk, size_t out_image, block_fn *fn) {
    const tn_conv_plan *p = j->p;
    tn_real *col = j->scratch + (size_t)chunk * j->scratch_len;
    int n0 = (int)((long)p->n * chunk / j->chunks), n1 = (int)((long)p->n * (chunk + 1) / j->chunks);
    for (int n = n0; n < n1; n++)
        for (int g = 0; g < p->groups; g++)
            for (int r = 0; r < p->g.oh; r += p->rows) {
                int r1 = r + p->rows < p->g.oh ? r + p->rows : p->g.oh;
                fn(j, g, j->x ? j->x + (size_t)n * in_len(p) : NULL,
                   j->y ? j->y + (size_t)n * out_len(p) : NULL, j->out + (size_t)n * out_image, col, r, r1);
            }
}

/* y = w col; with bias_row the weights carry the bias as one more column and the windows a row of ones. */
static void forward_block(const job *j, int group, const tn_real *x, const tn_real *y, tn_real *out,
                          tn_real *col, int r0, int r1) {
    const tn_conv_plan *p = j->p;
    int cols = (r1 - r0) * p->g.ow, k = p->k + j->bias_row, all = p->g.oh * p->g.ow;
    (void)y;
    tn_im2col(&p->g, x + (size_t)group * (size_t)(p->g.c * p->g.h * p->g.w), r0, r1, col);
    for (int i = 0; j->bias_row && i < cols; i++) col[(size_t)p->k * (size_t)cols + (size_t)i] = 1;
    tn_gemm_serial(&(tn_gemm_args){.m = p->co,
                                   .n = cols,
                                   .k = k,
                                   .a = j->w + (size_t)group * (size_t)(p->co * k),
                                   .ars = k,
                                   .acs = 1,
                                   .b = col,
                                   .brs = cols,
                                   .bcs = 1,
                                   .c = out + (size_t)(group * p->co * all + r0 * p->g.ow),
                                   .ldc = all,
                                   .relu = j->relu});
}

/* col = w' y, then back to where the windows came from */
static void input_block(const job *j, int group, const tn_real *x, const tn_real *y, tn_real *out,
                        tn_real *col, int r0, int r1) {
    const tn_conv_plan *p = j->p;
    int cols = (r1 - r0) * p->g.ow, all = p->g.oh * p->g.ow;
    (void)x;
    tn_gemm_serial(&(tn_gemm_args){.m = p->k,
                                   .n = cols,
                                   .k = p->co,
                                   .a = j->w + (size_t)group * (size_t)(p->co * p->k),
                                   .ars = 1,
                                   .acs = p->k,
                                   .b = y + (size_t)(group * p->co * all + r0 * p->g.ow),
                                   .brs = all,
                                   .bcs = 1,
                                   .c = col,
                                   .ldc = cols});
    tn_col2im(&p->g, col, r0, r1, out + (size_t)group * (size_t)(p->g.c * p->g.h * p->g.w));
}

/* dw += y col' */
static void weight_block(const job *j, int group, const tn_real *x, const tn_real *y, tn_real *out,
                         tn_real *col, int r0, int r1) {
    const tn_conv_plan *p = j->p;
    int cols = (r1 - r0) * p->g.ow, all = p->g.oh * p->g.ow;
    tn_im2col(&p->g, x + (size_t)group * (size_t)(p->g.c * p->g.h * p->g.w), r0, r1, col);
    tn_gemm_serial(&(tn_gemm_args){.m = p->co,
                                   .n = p->k,
                                   .k = cols,
                                   .a = y + (size_t)(group * p->co * all + r0 * p->g.ow),
                                   .ars = all,
                                   .acs = 1,
                                   .b = col,
                                   .brs = 1,
                                   .bcs = cols,
                                   .c = out + (size_t)group * (size_t)(p->co * p->k),
                                   .ldc = p->k,
                                   .add = 1});
}

static void forward_chunk(void *arg, int chunk) {
    const job *j = arg;
    each_block(j, chunk, out_len(j->p), forward_block);
}

static void input_chunk(void *arg, int chunk) {
    const job *j = arg;
    each_block(j, chunk, in_len(j->p), input_block);
}

static void weight_chunk(void *arg, int chunk) {
    job j = *(const job *)arg;
    const tn_conv_plan *p = j.p;
    size_t len = (size_t)p->groups * (size_t)(p->co * p->k);
    j.out += (size_t)chunk * len;
    memset(j.out, 0, len * sizeof *j.out);
    each_block(&j, chunk, 0, weight_block);
}

static void run(tn_tape *t, job *j, void (*chunk)(void *, int)) {
    const tn_conv_plan *p = j->p;
    j->chunks = p->n < CHUNKS ? p->n : CHUNKS;
    j->scratch_len = ((size_t)(p->k + 1) * (size_t)(p->rows * p->g.ow) + 31) / 16 * 16;
    j->scratch = tn_scratch(t, (size_t)j->chunks * j->scratch_len * sizeof(tn_real));
    tn_parallel(j->chunks, chunk, j);
}

void tn_conv_forward(tn_tape *t, const tn_conv_plan *p, const tn_real *x, const tn_real *w,
                     const tn_real *bias, int relu, tn_real *y) {
    if (tn_conv_fast_forward(t, p, NULL, x, w, bias, relu, y, NULL)) return;
    tn_place place = tn_mark(t);
    if (bias) { /* (co, k) and bias side by side: fma(b, 1, sum) is the sum plus b, rounded once */
        int rows = p->groups * p->co;
        tn_real *wb = tn_scratch(t, (size_t)rows * (size_t)(p->k + 1) * sizeof *wb);
        for (int i = 0; i < rows; i++) {
            memcpy(wb + (size_t)i * (size_t)(p->k + 1), w + (size_t)i * (size_t)p->k,
                   (size_t)p->k * sizeof *w);
            wb[(size_t)i * (size_t)(p->k + 1) + (size_t)p->k] = bias[i];
        }
        w = wb;
    }
    run(t, &(job){.p = p, .x = x, .w = w, .out = y, .relu = relu, .bias_row = bias != NULL}, forward_chunk);
    tn_rewind(t, place);
}

/* w (co, c, taps) with its channels exchanged and each window turned by 180 degrees. */
static void turn_weights(int co, int c, int taps, const tn_real *w, tn_real *out) {
    for (int o = 0; o < co; o++)
        for (int i = 0; i < c; i++)
            for (int t = 0; t < taps; t++, w++) out[((ptrdiff_t)i * co + o) * taps + taps - 1 - t] = *w;
}

/*
 * Without strides the input gradient is a convolution of gy, padded by what windows reach beyond it, with the weights turned:
 * the forward kernels need no columns. 0: nothing done, they do not have this shape.
 */
static int input_grad_forward(tn_tape *t, const tn_conv_plan *p, const tn_real *gy, const tn_real *w, int add,
                              tn_real *gx) {
    const tn_window *g = &p->g;
    if (p->groups != 1 || g->sh != 1 || g->sw != 1 || g->dh != 1 || g->dw != 1 || g->ph >= g->kh
        || g->pw >= g->kw)
        return 0;
    const tn_place place = tn_mark(t);
    const int taps = g->kh * g->kw, ph = g->kh - 1 - g->ph, pw = g->kw - 1 - g->pw;
    const size_t len = (size_t)p->n * in_len(p);
    tn_conv_plan turned = {.n = p->n, .groups = 1, .co = g->c, .k = p->co * taps, .rows = 1};
    turned.g = (tn_window){p->co, g->oh, g->ow, g->kh, g->kw, g->h, g->w, 1, 1, ph, pw, 1, 1};
    turned.algorithm = p->algorithm;
    tn_real *v = tn_scratch(t, (size_t)(p->co * p->k) * sizeof *v),
            *out = add ? tn_scratch(t, len * sizeof *out) : gx;
    turn_weights(p->co, g->c, taps, w, v);
    const int done = tn_conv_fast_forward(t, &turned, NULL, gy, v, NULL, 0, out, NULL);
    if (done && add) tn_kernels_get(NULL)->accumulate(len, out, gx);
    tn_rewind(t, place);
    return done;
}

void tn_conv_input_grad(tn_tape *t, const tn_conv_plan *p, const tn_real *gy, const tn_real *w, int add,
                        tn_real *gx) {
    if (input_grad_forward(t, p, gy, w, add, gx)) return;
    tn_place place = tn_mark(t);
    if (!add) memset(gx, 0, (size_t)p->n * in_len(p) * sizeof *gx);
    run(t, &(job){.p = p, .y = gy, .w = w, .out = gx}, input_chunk);
    tn_rewind(t, place);
}

void tn_conv_weight_grad(tn_tape *t, const tn_conv_plan *p, const tn_real *x, const tn_real *gy, int add,
                         tn_real *gw) {
    if (tn_conv_planes_fit(p)) {
        tn_conv_planes_grad(t, p, x, gy, NULL, add != 0, gw, NULL);
        return;
    }
    tn_place place = tn_mark(t);
    size_t len = (size_t)p->groups * (size_t)(p->co * p->k);
    int slices = p->n < CHUNKS ? p->n : CHUNKS;
    tn_real *part = tn_scratch(t, (size_t)slices * len * sizeof *part);
    run(t, &(job){.p = p, .x = x, .y = gy, .out = part}, weight_chunk);
    for (int i = 0; i < slices; i++) {
        if (i == 0 && !add)
            memcpy(gw, part, len * sizeof *gw);
        else
            tn_kernels_get(NULL)->accumulate(len, part + (size_t)i * len, gw);
    }
    tn_rewind(t, place);
}

/* ---- the operations ---- */

static double conv_flops(const tn_conv_plan *p) {
    return 2.0 * (double)p->n * (double)out_len(p) * p->k;
}

static void need4(const char *op, const tn_t *a, const tn_t *b) {
    char sa[64], sb[64];
    tn_shape_text(a, sa), tn_shape_text(b, sb);
    TN_CHECK(a->tape, a->nd == 4 && b->nd == 4, "%s: operands %s and %s; both must have four dimensions", op,
             sa, sb);
}

typedef struct {
    tn_conv c;
    tn_conv_plan p;
} conv_aux;

static void conv2d_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    const conv_aux *a = y->aux;
    tn_t *x = y->src[0], *w = y->src[1];
    if (x->needs) gx[0] = tn_conv2d_dx(gy, w, &a->c, x->dim[2], x->dim[3]);
    if (w->needs) gx[1] = tn_conv2d_dw(x, gy, &a->c, w->dim[2], w->dim[3]);
}
static double conv2d_flops(const tn_t *y) {
    return conv_flops(&((const conv_aux *)y->aux)->p);
}
static const tn_op op_conv2d = {.name = "conv2d", .vjp = conv2d_vjp, .flops = conv2d_flops};
tn_t *tn_conv2d(tn_t *x, tn_t *w, const tn_conv *c) {
    need4("conv2d", x, w);
    conv_aux a = {*c, tn_conv_shape(x->tape, "conv2d", x->dim, w->dim, c)};
    if (w->param) a.p.kept = w;
    tn_t *y = tn_new(x->tape, 4, (int[]){x->dim[0], w->dim[0], a.p.g.oh, a.p.g.ow});
    tn_conv_forward(x->tape, &a.p, x->x, w->x, NULL, 0, y->x);
    return tn_result(&op_conv2d, y, 2, (tn_t *[]){x, w}, &a, sizeof a);
}

static void conv2d_dx_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    const conv_aux *a = y->aux;
    tn_t *g = y->src[0], *w = y->src[1];
    if (g->needs) gx[0] = tn_conv2d(gy, w, &a->c);
    if (w->needs) gx[1] = tn_conv2d_dw(gy, g, &a->c, w->dim[2], w->dim[3]);
}
static const tn_op op_conv2d_dx = {.name = "conv2d_dx", .vjp = conv2d_dx_vjp, .flops = conv2d_flops};
tn_t *tn_conv2d_dx(tn_t *g, tn_t *w, const tn_conv *c, int h, int wd) {
    need4("conv2d_dx", g, w);
    int xs[4] = {g->dim[0], w->dim[1] * c->groups, h, wd};
    conv_aux a = {*c, tn_conv_shape(g->tape, "conv2d_dx", xs, w->dim, c)};
    TN_CHECK(g->tape, g->dim[1] == w->dim[0] && g->dim[2] == a.p.g.oh && g->dim[3] == a.p.g.ow,
             "conv2d_dx: the output gradient (%d, %d, %d, %d) does not belong to an input of %d x %d",
             g->dim[0], g->dim[1], g->dim[2], g->dim[3], h, wd);
    tn_t *y = tn_new(g->tape, 4, xs);
    tn_conv_input_grad(g->tape, &a.p, g->x, w->x, 0, y->x);
    return tn_result(&op_conv2d_dx, y, 2, (tn_t *[]){g, w}, &a, sizeof a);
}

static void conv2d_dw_vjp(tn_t *y, tn_t *gy, tn_t *gx[]) {
    const conv_aux *a = y->aux;
    tn_t *x = y->src[0], *g = y->src[1];
    if (x->needs) gx[0] = tn_conv2d_dx(g, gy, &a->c, x->dim[2], x->dim[3]);
    if (g->needs) gx[1] = tn_conv2d(x, gy, &a->c);
}
static const tn_op op_conv2d_dw = {.name = "conv2d_dw", .vjp = conv2d_dw_vjp, .flops = conv2d_flops};
tn_t *tn_conv2d_dw(tn_t *x, tn_t *g, const tn_conv *c, int kh, int kw) {
    need4("conv2d_dw", x, g);
    TN_CHECK(x->tape, c->groups > 0 && x->dim[1] % c->groups == 0, "conv2d_dw: %d channels in %d groups",
             x->dim[1], c->groups);
    int ws[4] = {g->dim[1], x->dim[1] / c->groups, kh, kw};
    conv_aux a = {*c, tn_conv_shape(x->tape, "conv2d_dw", x->dim, ws, c)};
    TN_CHECK(
        x->tape, g->dim[0] == x->dim[0] && g->dim[2] == a.p.g.oh && g->dim[3] == a.p.g.ow,
        "conv2d_dw: the output gradient (%d, %d, %d, %d) does not belong to this input and a %d x %d window",
        g->dim[0], g->dim[1], g->dim[2], g->dim[3], kh, kw);
    tn_t *y = tn_new(x->tape, 4, ws);
    tn_conv_weight_grad(x->tape, &a.p, x->x, g->x, 0, y->x);
    return tn_result(&op_conv2d_dw, y, 2, (tn_t *[]){x, g}, &a, sizeof a);
}

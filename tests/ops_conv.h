/* SPDX-License-Identifier: MIT */
/* Cases of test_ops.c: convolution and pooling, against loops over every element of every window. */
#include "opcheck.h"
#include <math.h>

/* ---- convolution: out = sum w x over the window, term by term ---- */

typedef struct {
    int n, ci, h, w, co, kh, kw;
    tn_conv c;
    int oh, ow;
} conv_size;

static const conv_size conv_sizes[] = {
    {1, 1, 1, 1, 1, 1, 1, {{1, 1}, {0, 0}, {1, 1}, 1, TN_CONV_AUTO}, 1, 1},
    {2, 3, 5, 4, 2, 3, 3, {{1, 1}, {1, 1}, {1, 1}, 1, TN_CONV_AUTO}, 5, 4},
    {2, 2, 5, 6, 3, 3, 2, {{2, 1}, {1, 0}, {1, 2}, 1, TN_CONV_AUTO}, 3, 4},
    {1, 4, 5, 5, 6, 2, 3, {{1, 2}, {0, 1}, {2, 1}, 2, TN_CONV_AUTO}, 3, 3},
    {3, 3, 4, 4, 3, 3, 3, {{3, 3}, {2, 2}, {1, 1}, 3, TN_CONV_AUTO}, 2, 2},
    {1, 1, 2, 2, 2, 3, 3, {{1, 1}, {1, 1}, {1, 1}, 1, TN_CONV_AUTO}, 2, 2},
    {2, 1, 1, 7, 1, 1, 3, {{1, 2}, {0, 3}, {1, 2}, 1, TN_CONV_AUTO}, 1, 5},
    {1, 2, 7, 1, 2, 4, 1, {{4, 1}, {3, 2}, {1, 1}, 1, TN_CONV_AUTO}, 3, 5},
    {17, 1, 4, 4, 2, 3, 3, {{1, 1}, {0, 0}, {1, 1}, 1, TN_CONV_AUTO}, 2, 2},
};
enum { CONV_SIZES = sizeof conv_sizes / sizeof *conv_sizes };

/* Calls f for each product of the trilinear form: x[xi] w[wi] belongs to y[yi]. */
static void each_term(const conv_size *s, void (*f)(void *, int xi, int wi, int yi), void *arg) {
    int cg = s->ci / s->c.groups, og = s->co / s->c.groups;
    for (int n = 0; n < s->n; n++)
        for (int o = 0; o < s->co; o++)
            for (int r = 0; r < s->oh; r++)
                for (int q = 0; q < s->ow; q++)
                    for (int c = 0; c < cg; c++)
                        for (int i = 0; i < s->kh; i++)
                            for (int j = 0; j < s->kw; j++) {
                                int y = r * s->c.stride[0] - s->c.pad[0] + i * s->c.dilation[0];
                                int x = q * s->c.stride[1] - s->c.pad[1] + j * s->c.dilation[1];
                                if (y < 0 || y >= s->h || x < 0 || x >= s->w) continue;
                                f(arg, ((n * s->ci + o / og * cg + c) * s->h + y) * s->w + x,
                                  ((o * cg + c) * s->kh + i) * s->kw + j,
                                  ((n * s->co + o) * s->oh + r) * s->ow + q);
                            }
}

typedef struct {
    const double *a, *b;
    double *out;
} term_sum;

static void add_to_y(void *p, int xi, int wi, int yi) {
    term_sum *t = p;
    t->out[yi] += t->a[xi] * t->b[wi];
}
static void add_to_x(void *p, int xi, int wi, int yi) { /* a: y, b: w */
    term_sum *t = p;
    t->out[xi] += t->a[yi] * t->b[wi];
}
static void add_to_w(void *p, int xi, int wi, int yi) { /* a: x, b: y */
    term_sum *t = p;
    t->out[wi] += t->a[xi] * t->b[yi];
}

static void sum_terms(const op_case *c, const double *const x[], double *y,
                      void (*f)(void *, int, int, int)) {
    term_sum t = {x[0], x[1], y};
    memset(y, 0, shape_len(&c->out) * sizeof *y);
    each_term(&conv_sizes[c->i[0]], f, &t);
}

static void conv_ref(const op_case *c, const double *const x[], double *y) {
    sum_terms(c, x, y, add_to_y);
}
static void conv_dx_ref(const op_case *c, const double *const x[], double *y) {
    sum_terms(c, x, y, add_to_x);
}
static void conv_dw_ref(const op_case *c, const double *const x[], double *y) {
    sum_terms(c, x, y, add_to_w);
}

static tn_t *apply_conv(tn_t *const x[], const op_case *c) {
    return tn_conv2d(x[0], x[1], &conv_sizes[c->i[0]].c);
}
static tn_t *apply_conv_dx(tn_t *const x[], const op_case *c) {
    const conv_size *s = &conv_sizes[c->i[0]];
    return tn_conv2d_dx(x[0], x[1], &s->c, s->h, s->w);
}
static tn_t *apply_conv_dw(tn_t *const x[], const op_case *c) {
    const conv_size *s = &conv_sizes[c->i[0]];
    return tn_conv2d_dw(x[0], x[1], &s->c, s->kh, s->kw);
}

static void conv_cases(const char *name, tn_t *(*f)(tn_t *const[], const op_case *),
                       void (*ref)(const op_case *, const double *const[], double *), const int part[3]) {
    for (int i = 0; i < CONV_SIZES; i++) {
        const conv_size *s = &conv_sizes[i];
        test_shape all[] = {SHAPE(s->n, s->ci, s->h, s->w), SHAPE(s->co, s->ci / s->c.groups, s->kh, s->kw),
                            SHAPE(s->n, s->co, s->oh, s->ow)};
        check_op(&(op_case){.name = name,
                            .n = 2,
                            .in = {all[part[0]], all[part[1]]},
                            .out = all[part[2]],
                            .f = f,
                            .ref = ref,
                            .i = {i}});
    }
}

static void case_conv2d(void **state) {
    (void)state;
    conv_cases("conv2d", apply_conv, conv_ref, (const int[]){0, 1, 2});
}
static void case_conv2d_dx(void **state) {
    (void)state;
    conv_cases("conv2d_dx", apply_conv_dx, conv_dx_ref, (const int[]){2, 1, 0});
}
static void case_conv2d_dw(void **state) {
    (void)state;
    conv_cases("conv2d_dw", apply_conv_dw, conv_dw_ref, (const int[]){0, 2, 1});
}

/* ---- the fused layer: i[1] is the activation ---- */

static tn_t *apply_conv_act(tn_t *const x[], const op_case *c) {
    return tn_conv2d_act(x[0], x[1], c->n > 2 ? x[2] : NULL, &conv_sizes[c->i[0]].c, (tn_act)c->i[1]);
}

static void conv_act_ref(const op_case *c, const double *const x[], double *y) {
    int channels = c->out.dim[1], plane = c->out.dim[2] * c->out.dim[3];
    conv_ref(c, x, y);
    for (int i = 0; i < (int)shape_len(&c->out); i++)
        y[i] = activated(c->i[1], y[i] + (c->n > 2 ? x[2][i / plane % channels] : 0));
}

static void case_conv2d_act(void **state) {
    (void)state;
    for (int i = 0; i < CONV_SIZES; i++)
        for (int act = TN_ACT_NONE; act <= TN_ACT_GELU; act++)
            for (int bias = 0; bias < 2; bias++) {
                const conv_size *s = &conv_sizes[i];
                op_case c = {.name = "conv2d_act",
                             .n = 2 + bias,
                             .f = apply_conv_act,
                             .ref = conv_act_ref,
                             .in = {SHAPE(s->n, s->ci, s->h, s->w),
                                    SHAPE(s->co, s->ci / s->c.groups, s->kh, s->kw), SHAPE(s->co)},
                             .out = SHAPE(s->n, s->co, s->oh, s->ow),
                             .i = {i, act}};
                if (act != TN_ACT_RELU || shape_len(&c.out) < 20)
                    check_op(&c);
                else
                    check_paths(&c); /* among so many some lie at the kink */
            }
}

/* ---- pooling ---- */

static const struct {
    int n, c, h, w;
    tn_pool p;
    int oh, ow;
} pool_sizes[] = {
    {1, 1, 1, 1, {{1, 1}, {1, 1}, {0, 0}}, 1, 1}, {2, 3, 4, 6, {{2, 2}, {2, 2}, {0, 0}}, 2, 3},
    {2, 1, 5, 7, {{2, 2}, {2, 2}, {0, 0}}, 2, 3}, {1, 2, 6, 5, {{3, 2}, {2, 1}, {1, 0}}, 3, 4},
    {1, 2, 5, 5, {{3, 3}, {1, 1}, {1, 1}}, 5, 5}, {3, 1, 7, 2, {{4, 2}, {3, 2}, {2, 1}}, 3, 2},
    {1, 1, 3, 9, {{3, 2}, {1, 4}, {0, 0}}, 1, 2},
};

static void pool_ref(const op_case *c, const double *const x[], double *y, int max) {
    const tn_pool *p = &pool_sizes[c->i[0]].p;
    int h = c->in[0].dim[2], w = c->in[0].dim[3], oh = c->out.dim[2], ow = c->out.dim[3];
    for (int i = 0; i < (int)shape_len(&c->out); i++) {
        const double *plane = x[0] + i / (oh * ow) * h * w;
        double top = -INFINITY, sum = 0;
        for (int a = 0; a < p->kernel[0]; a++)
            for (int b = 0; b < p->kernel[1]; b++) {
                int r = i / ow % oh * p->stride[0] - p->pad[0] + a, q = i % ow * p->stride[1] - p->pad[1] + b;
                if (r < 0 || r >= h || q < 0 || q >= w) continue;
                top = fmax(top, plane[r * w + q]), sum += plane[r * w + q];
            }
        y[i] = max ? top : sum / (p->kernel[0] * p->kernel[1]);
    }
}
static void max_pool_ref(const op_case *c, const double *const x[], double *y) {
    pool_ref(c, x, y, 1);
}
static void avg_pool_ref(const op_case *c, const double *const x[], double *y) {
    pool_ref(c, x, y, 0);
}
static tn_t *apply_max_pool(tn_t *const x[], const op_case *c) {
    return tn_max_pool2d(x[0], &pool_sizes[c->i[0]].p);
}
static tn_t *apply_avg_pool(tn_t *const x[], const op_case *c) {
    return tn_avg_pool2d(x[0], &pool_sizes[c->i[0]].p);
}

static void pool_cases(const char *name, tn_t *(*f)(tn_t *const[], const op_case *),
                       void (*ref)(const op_case *, const double *const[], double *)) {
    for (int i = 0; i < (int)(sizeof pool_sizes / sizeof *pool_sizes); i++) {
        int n = pool_sizes[i].n, ch = pool_sizes[i].c;
        check_op(&(op_case){.name = name,
                            .n = 1,
                            .in = {SHAPE(n, ch, pool_sizes[i].h, pool_sizes[i].w)},
                            .out = SHAPE(n, ch, pool_sizes[i].oh, pool_sizes[i].ow),
                            .f = f,
                            .ref = ref,
                            .i = {i}});
    }
}
static void case_max_pool2d(void **state) {
    (void)state;
    pool_cases("max_pool2d", apply_max_pool, max_pool_ref);
}
static void case_avg_pool2d(void **state) {
    (void)state;
    pool_cases("avg_pool2d", apply_avg_pool, avg_pool_ref);
}

/* ---- convolution, activation and max pooling in one: i[1] is the activation, i[2] the window ---- */

static const tn_pool windows[] = {
    {{1, 1}, {1, 1}, {0, 0}}, {{2, 2}, {2, 2}, {0, 0}}, {{2, 1}, {2, 1}, {0, 0}}, {{1, 3}, {1, 3}, {0, 0}},
    {{2, 2}, {1, 2}, {0, 0}}, {{2, 2}, {2, 2}, {1, 0}}, /* the last two are not fused */
};

static tn_t *apply_conv_pool(tn_t *const x[], const op_case *c) {
    return tn_conv2d_pool(x[0], x[1], c->n > 2 ? x[2] : NULL, &conv_sizes[c->i[0]].c, (tn_act)c->i[1],
                          &windows[c->i[2]]);
}

static void conv_pool_ref(const op_case *c, const double *const x[], double *y) {
    const conv_size *s = &conv_sizes[c->i[0]];
    const tn_pool *p = &windows[c->i[2]];
    op_case whole = *c;
    whole.out = (test_shape)SHAPE(s->n, s->co, s->oh, s->ow);
    double *z = calloc(shape_len(&whole.out), sizeof *z);
    assert_non_null(z);
    conv_act_ref(&whole, x, z);
    for (int i = 0; i < (int)shape_len(&c->out); i++) {
        int ow = c->out.dim[3], oh = c->out.dim[2];
        double top = -INFINITY;
        for (int a = 0; a < p->kernel[0]; a++)
            for (int b = 0; b < p->kernel[1]; b++) {
                int r = i / ow % oh * p->stride[0] - p->pad[0] + a, q = i % ow * p->stride[1] - p->pad[1] + b;
                if (r >= 0 && r < s->oh && q >= 0 && q < s->ow)
                    top = fmax(top, z[(i / (oh * ow) * s->oh + r) * s->ow + q]);
            }
        y[i] = top;
    }
    free(z);
}

static int pooled(int in, const tn_pool *p, int axis) {
    return (in + 2 * p->pad[axis] - p->kernel[axis]) / p->stride[axis] + 1;
}

static void case_conv2d_pool(void **state) {
    (void)state;
    for (int i = 0; i < CONV_SIZES; i++)
        for (int k = 0; k < (int)(sizeof windows / sizeof *windows); k++)
            for (int act = TN_ACT_NONE; act <= TN_ACT_TANH; act++)
                for (int bias = 0; bias < 2; bias++) {
                    const conv_size *s = &conv_sizes[i];
                    const tn_pool *p = &windows[k];
                    if (s->oh + 2 * p->pad[0] < p->kernel[0] || s->ow + 2 * p->pad[1] < p->kernel[1])
                        continue;
                    op_case c = {.name = "conv2d_pool",
                                 .n = 2 + bias,
                                 .f = apply_conv_pool,
                                 .ref = conv_pool_ref,
                                 .in = {SHAPE(s->n, s->ci, s->h, s->w),
                                        SHAPE(s->co, s->ci / s->c.groups, s->kh, s->kw), SHAPE(s->co)},
                                 .out = SHAPE(s->n, s->co, pooled(s->oh, p, 0), pooled(s->ow, p, 1)),
                                 .i = {i, act, k}};
                    if (s->n * s->co * s->oh * s->ow < 20)
                        check_op(&c);
                    else
                        check_paths(&c); /* among so many some are nearly equal, or lie at the kink */
                }
}

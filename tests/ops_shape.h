/* SPDX-License-Identifier: MIT */
/* Cases of test_ops.c: products, and what moves elements or adds them up. */
#include "opcheck.h"
#include <math.h>

/* ---- matmul: a, b hold the transposes ---- */

static tn_t *apply_matmul(tn_t *const x[], const op_case *c) {
    return tn_matmul(x[0], x[1], c->i[0], c->i[1]);
}

static void matmul_ref(const op_case *c, const double *const x[], double *y) {
    int ta = c->i[0], tb = c->i[1], m = c->out.dim[0], n = c->out.dim[1], k = c->in[0].dim[ta ? 0 : 1];
    for (int i = 0; i < m; i++)
        for (int j = 0; j < n; j++) {
            double sum = 0;
            for (int p = 0; p < k; p++)
                sum += (ta ? x[0][p * m + i] : x[0][i * k + p]) * (tb ? x[1][j * k + p] : x[1][p * n + j]);
            y[i * n + j] = sum;
        }
}

static void case_matmul(void **state) {
    (void)state;
    static const int sizes[][3] = {{1, 1, 1},  {2, 3, 4},  {3, 3, 3},   {1, 5, 2},  {5, 1, 3},   {4, 3, 1},
                                   {9, 17, 6}, {7, 33, 5}, {16, 32, 8}, {1, 40, 1}, {33, 1, 17}, {65, 70, 3}};
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int t = 0; t < 4; t++) {
            int m = sizes[s][0], n = sizes[s][1], k = sizes[s][2], ta = t & 1, tb = t >> 1;
            op_case c = {.name = "matmul",
                         .n = 2,
                         .f = apply_matmul,
                         .ref = matmul_ref,
                         .i = {ta, tb},
                         .in = {SHAPE(ta ? k : m, ta ? m : k), SHAPE(tb ? n : k, tb ? k : n)},
                         .out = SHAPE(m, n)};
            check_op(&c);
        }
}

/* ---- reshape, transpose ---- */

static tn_t *apply_reshape(tn_t *const x[], const op_case *c) {
    int dim[TN_MAX_DIM];
    memcpy(dim, c->out.dim, sizeof dim);
    if (c->i[0] > 0) dim[c->i[0] - 1] = -1; /* to be worked out */
    return tn_reshape(x[0], c->out.nd, dim);
}

static void same_ref(const op_case *c, const double *const x[], double *y) {
    memcpy(y, x[0], shape_len(&c->out) * sizeof *y);
}

static void case_reshape(void **state) {
    (void)state;
    static const test_shape shapes[][2] = {{SHAPE(2, 6), SHAPE(3, 4)},  {SHAPE(6), SHAPE(1, 2, 3, 1)},
                                           {SHAPE(1, 1), SCALAR},       {SCALAR, SHAPE(1, 1, 1)},
                                           {SHAPE(2, 3, 4), SHAPE(24)}, {SHAPE(5), SHAPE(5)}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (int open = 0; open <= shapes[i][1].nd; open++) {
            op_case c = {.name = "reshape",
                         .n = 1,
                         .in = {shapes[i][0]},
                         .out = shapes[i][1],
                         .f = apply_reshape,
                         .ref = same_ref,
                         .i = {open}};
            check_op(&c);
        }
}

static tn_t *apply_transpose(tn_t *const x[], const op_case *c) {
    return tn_transpose(x[0], c->i[0], c->i[1]);
}

/* Place i of the result as four indices, the two axes swapped, back to a place of the source. */
static void transpose_ref(const op_case *c, const double *const x[], double *y) {
    int nd = c->out.nd, a = c->i[0] < 0 ? c->i[0] + nd : c->i[0], b = c->i[1] < 0 ? c->i[1] + nd : c->i[1];
    for (size_t i = 0; i < shape_len(&c->out); i++) {
        size_t index[TN_MAX_DIM], rest = i, from = 0;
        for (int k = nd - 1; k >= 0; k--)
            index[k] = rest % (size_t)c->out.dim[k], rest /= (size_t)c->out.dim[k];
        for (int k = 0; k < nd; k++)
            from = from * (size_t)c->in[0].dim[k] + index[k == a ? b : k == b ? a : k];
        y[i] = x[0][from];
    }
}

static void case_transpose(void **state) {
    (void)state;
    static const test_shape shapes[] = {SHAPE(1), SHAPE(3, 4), SHAPE(2, 3, 4), SHAPE(2, 3, 1, 5)};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int a = -shapes[s].nd; a < shapes[s].nd; a++)
            for (int b = 0; b < shapes[s].nd; b++) {
                op_case c = {.name = "transpose",
                             .n = 1,
                             .in = {shapes[s]},
                             .out = shapes[s],
                             .f = apply_transpose,
                             .ref = transpose_ref,
                             .i = {a, b}};
                int at = a < 0 ? a + shapes[s].nd : a;
                c.out.dim[at] = shapes[s].dim[b], c.out.dim[b] = shapes[s].dim[at];
                check_op(&c);
            }
}

/* ---- sum_to and broadcast_to ---- */

static tn_t *apply_sum_to(tn_t *const x[], const op_case *c) {
    return tn_sum_to(x[0], c->out.nd, c->out.dim);
}
static tn_t *apply_broadcast_to(tn_t *const x[], const op_case *c) {
    return tn_broadcast_to(x[0], c->out.nd, c->out.dim);
}

/* Where the element at this place of the large shape goes in the small one. */
static size_t shrunk(const test_shape *small, const test_shape *large, size_t at) {
    size_t index = 0, step = 1;
    for (int k = 0; k < large->nd; k++) {
        int l = large->nd - 1 - k, s = small->nd - 1 - k;
        if (s >= 0 && small->dim[s] > 1) index += at % (size_t)large->dim[l] * step;
        if (s >= 0) step *= (size_t)small->dim[s];
        at /= (size_t)large->dim[l];
    }
    return index;
}

static void sum_to_ref(const op_case *c, const double *const x[], double *y) {
    memset(y, 0, shape_len(&c->out) * sizeof *y);
    for (size_t i = 0; i < shape_len(&c->in[0]); i++) y[shrunk(&c->out, &c->in[0], i)] += x[0][i];
}
static void broadcast_to_ref(const op_case *c, const double *const x[], double *y) {
    for (size_t i = 0; i < shape_len(&c->out); i++) y[i] = x[0][shrunk(&c->in[0], &c->out, i)];
}

static const test_shape stretches[][2] = {
    {SCALAR, SCALAR},
    {SCALAR, SHAPE(2, 3)},
    {SHAPE(3), SHAPE(2, 3)},
    {SHAPE(2, 1), SHAPE(2, 3)},
    {SHAPE(1, 3), SHAPE(2, 3)},
    {SHAPE(2, 3), SHAPE(2, 3)},
    {SHAPE(1), SHAPE(4, 1, 2)},
    {SHAPE(1, 3, 1), SHAPE(2, 3, 4)},
    {SHAPE(2, 1, 4), SHAPE(2, 3, 4)},
    {SHAPE(2, 1, 1), SHAPE(2, 3, 4)},
    {SHAPE(1, 3, 1, 1), SHAPE(2, 3, 2, 2)},
    {SHAPE(3, 1, 1), SHAPE(2, 3, 2, 2)},
    {SHAPE(2, 3, 2, 1), SHAPE(2, 3, 2, 5)},
    {SHAPE(2, 1), SHAPE(3, 2, 1)},
    {SHAPE(2, 1, 2), SHAPE(2, 2, 2)},
    {SHAPE(1, 2, 1), SHAPE(2, 2, 1)},
    {SHAPE(37), SHAPE(19, 37)},
    {SHAPE(19, 1), SHAPE(19, 37)},
    {SHAPE(1, 1), SHAPE(50, 1)},
};

static void case_sum_to(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof stretches / sizeof *stretches; i++)
        check_op(&(op_case){.name = "sum_to",
                            .n = 1,
                            .in = {stretches[i][1]},
                            .out = stretches[i][0],
                            .f = apply_sum_to,
                            .ref = sum_to_ref});
}

static void case_broadcast_to(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof stretches / sizeof *stretches; i++)
        check_op(&(op_case){.name = "broadcast_to",
                            .n = 1,
                            .in = {stretches[i][0]},
                            .out = stretches[i][1],
                            .f = apply_broadcast_to,
                            .ref = broadcast_to_ref});
}

/* ---- slice, embed_in, concat: i is axis, lo, hi or size ---- */

static tn_t *apply_slice(tn_t *const x[], const op_case *c) {
    return tn_slice(x[0], c->i[0], c->i[1], c->i[2]);
}
static tn_t *apply_embed_in(tn_t *const x[], const op_case *c) {
    return tn_embed_in(x[0], c->i[0], c->i[1], c->i[2]);
}

/* Place of an element of the part in the whole, the part lying at lo of the axis. */
static size_t place_in(const test_shape *part, const test_shape *whole, int axis, int lo, size_t at) {
    size_t index[TN_MAX_DIM], to = 0;
    for (int k = part->nd - 1; k >= 0; k--) index[k] = at % (size_t)part->dim[k], at /= (size_t)part->dim[k];
    index[axis] += (size_t)lo;
    for (int k = 0; k < whole->nd; k++) to = to * (size_t)whole->dim[k] + index[k];
    return to;
}

static void slice_ref(const op_case *c, const double *const x[], double *y) {
    int axis = c->i[0] < 0 ? c->i[0] + c->out.nd : c->i[0];
    for (size_t i = 0; i < shape_len(&c->out); i++)
        y[i] = x[0][place_in(&c->out, &c->in[0], axis, c->i[1], i)];
}
static void embed_in_ref(const op_case *c, const double *const x[], double *y) {
    int axis = c->i[0] < 0 ? c->i[0] + c->out.nd : c->i[0];
    memset(y, 0, shape_len(&c->out) * sizeof *y);
    for (size_t i = 0; i < shape_len(&c->in[0]); i++)
        y[place_in(&c->in[0], &c->out, axis, c->i[1], i)] = x[0][i];
}

static void ranges(int embed) {
    static const test_shape shapes[] = {SHAPE(5), SHAPE(4, 3), SHAPE(3, 2, 4), SHAPE(1, 2, 3, 3),
                                        SHAPE(2, 2, 3, 2)};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int axis = -1; axis < shapes[s].nd; axis++) {
            int at = axis < 0 ? axis + shapes[s].nd : axis, size = shapes[s].dim[at];
            for (int lo = 0; lo < size; lo++)
                for (int hi = lo + 1; hi <= size; hi += 2) {
                    test_shape part = shapes[s];
                    part.dim[at] = hi - lo;
                    op_case c = {.name = embed ? "embed_in" : "slice",
                                 .n = 1,
                                 .in = {embed ? part : shapes[s]},
                                 .out = embed ? shapes[s] : part,
                                 .f = embed ? apply_embed_in : apply_slice,
                                 .ref = embed ? embed_in_ref : slice_ref,
                                 .i = {axis, lo, embed ? size : hi}};
                    check_op(&c);
                }
        }
}

static void case_slice(void **state) {
    (void)state;
    ranges(0);
}
static void case_embed_in(void **state) {
    (void)state;
    ranges(1);
}

static tn_t *apply_concat(tn_t *const x[], const op_case *c) {
    return tn_concat(c->n, x, c->i[0]);
}

static void concat_ref(const op_case *c, const double *const x[], double *y) {
    int axis = c->i[0] < 0 ? c->i[0] + c->out.nd : c->i[0], lo = 0;
    for (int s = 0; s < c->n; lo += c->in[s++].dim[axis])
        for (size_t i = 0; i < shape_len(&c->in[s]); i++)
            y[place_in(&c->in[s], &c->out, axis, lo, i)] = x[s][i];
}

static void case_concat(void **state) {
    (void)state;
    check_op(&(op_case){.name = "concat",
                        .n = 1,
                        .in = {SHAPE(2, 3)},
                        .out = SHAPE(2, 3),
                        .f = apply_concat,
                        .ref = concat_ref,
                        .i = {1}});
    check_op(&(op_case){.name = "concat",
                        .n = 2,
                        .in = {SHAPE(2), SHAPE(3)},
                        .out = SHAPE(5),
                        .f = apply_concat,
                        .ref = concat_ref,
                        .i = {0}});
    check_op(&(op_case){.name = "concat",
                        .n = 3,
                        .in = {SHAPE(2, 1, 2), SHAPE(2, 3, 2), SHAPE(2, 2, 2)},
                        .out = SHAPE(2, 6, 2),
                        .f = apply_concat,
                        .ref = concat_ref,
                        .i = {1}});
    check_op(&(op_case){.name = "concat",
                        .n = 4,
                        .in = {SHAPE(1, 3), SHAPE(1, 3), SHAPE(1, 3), SHAPE(1, 3)},
                        .out = SHAPE(4, 3),
                        .f = apply_concat,
                        .ref = concat_ref,
                        .i = {0}});
    check_op(&(op_case){.name = "concat",
                        .n = 2,
                        .in = {SHAPE(1, 2, 2, 3), SHAPE(1, 2, 2, 2)},
                        .out = SHAPE(1, 2, 2, 5),
                        .f = apply_concat,
                        .ref = concat_ref,
                        .i = {-1}});
}

/* ---- take, put_add ---- */

static tn_t *apply_take(tn_t *const x[], const op_case *c) {
    return tn_take(x[0], c->idx, c->out.nd, c->out.dim);
}
static tn_t *apply_put_add(tn_t *const x[], const op_case *c) {
    return tn_put_add(x[0], c->idx, c->out.nd, c->out.dim);
}
static void take_ref(const op_case *c, const double *const x[], double *y) {
    for (size_t i = 0; i < shape_len(&c->out); i++) y[i] = x[0][c->idx[i]];
}
static void put_add_ref(const op_case *c, const double *const x[], double *y) {
    for (size_t i = 0; i < shape_len(&c->out); i++) {
        y[i] = 0;
        for (size_t j = 0; j < shape_len(&c->in[0]); j++) y[i] += c->idx[j] == (int)i ? x[0][j] : 0;
    }
}

static const int places[] = {3, 0, 3, 7, 1, 3, 0, 5, 2, 7, 4, 6};
static const test_shape few[] = {SCALAR, SHAPE(1), SHAPE(12), SHAPE(3, 4), SHAPE(2, 3, 2)};
static const test_shape many[] = {SHAPE(8), SHAPE(2, 4), SHAPE(1, 2, 2, 2), SHAPE(11)};

static void case_take(void **state) {
    (void)state;
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 4; j++)
            check_op(&(op_case){.name = "take",
                                .n = 1,
                                .in = {many[j]},
                                .out = few[i],
                                .f = apply_take,
                                .ref = take_ref,
                                .idx = places});
}
static void case_put_add(void **state) {
    (void)state;
    for (int i = 0; i < 5; i++)
        for (int j = 0; j < 4; j++)
            check_op(&(op_case){.name = "put_add",
                                .n = 1,
                                .in = {few[i]},
                                .out = many[j],
                                .f = apply_put_add,
                                .ref = put_add_ref,
                                .idx = places});
}

/* SPDX-License-Identifier: MIT */
/* Cases of test_ops.c: batch norm; a is eps. */
#include "opcheck.h"
#include <math.h>

static tn_t *apply_batch_norm(tn_t *const x[], const op_case *c) {
    return tn_batch_norm(x[0], c->n > 1 ? x[1] : NULL, c->n > 2 ? x[2] : NULL, c->a, NULL, NULL);
}

static void batch_norm_ref(const op_case *c, const double *const x[], double *y) {
    int channels = c->in[0].dim[1], plane = c->in[0].nd == 4 ? c->in[0].dim[2] * c->in[0].dim[3] : 1;
    int len = (int)shape_len(&c->in[0]);
    for (int ch = 0; ch < channels; ch++) {
        double sum = 0, square = 0, count = (double)len / channels;
        for (int i = 0; i < len; i++) sum += i / plane % channels == ch ? x[0][i] : 0;
        for (int i = 0; i < len; i++)
            if (i / plane % channels == ch) square += (x[0][i] - sum / count) * (x[0][i] - sum / count);
        for (int i = 0; i < len; i++)
            if (i / plane % channels == ch)
                y[i] = (x[0][i] - sum / count) / sqrt(square / count + c->a) * (c->n > 1 ? x[1][ch] : 1)
                       + (c->n > 2 ? x[2][ch] : 0);
    }
}

static void case_batch_norm(void **state) {
    (void)state;
    static const test_shape shapes[] = {SHAPE(2, 1),       SHAPE(5, 3),       SHAPE(33, 2),
                                        SHAPE(1, 2, 1, 2), SHAPE(3, 1, 2, 2), SHAPE(2, 3, 3, 5),
                                        SHAPE(1, 2, 4, 5), SHAPE(19, 2, 1, 1)};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        for (int inputs = 1; inputs <= 3; inputs++)
            for (int far = 0; far < (sizeof(tn_real) == 8 ? 2 : 1);
                 far++) { /* far: a mean large beside the spread */
                int c = shapes[s].dim[1];
                check_op(&(op_case){.name = "batch_norm",
                                    .n = inputs,
                                    .in = {shapes[s], SHAPE(c), SHAPE(c)},
                                    .out = shapes[s],
                                    .lo = far ? 9 : -1,
                                    .hi = far ? 11 : 1,
                                    .f = apply_batch_norm,
                                    .ref = batch_norm_ref,
                                    .a = 0.1});
            }
}

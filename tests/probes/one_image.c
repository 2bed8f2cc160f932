/* SPDX-License-Identifier: MIT */
/*
 * Inference on one image: the same forward with n = 1 gives the bits of that image's row in a batch of
 * any size.
 */
#include "probe.h"
#include "tern.h"

enum { BATCH = 37, IN = 100, HIDDEN = 33, OUT = 10 };
typedef struct {
    tn_linear fc1, fc2, fc3;
    tn_norm norm;
} net;

static tn_t *forward(const net *m, tn_tape *tape, const tn_real *x, int n) {
    tn_t *h = tn_linear_fwd(&m->fc1, tn_input(tape, x, 2, (int[]){n, IN}), TN_ACT_RELU);
    h = tn_dropout(tn_layer_norm_fwd(&m->norm, h), 0.5, "drop"); /* evaluation mode: passes through */
    return tn_log_softmax(tn_linear_fwd(&m->fc3, tn_linear_fwd(&m->fc2, h, TN_ACT_GELU), TN_ACT_NONE));
}

int main(void) {
    tn_err e;
    EXPECT(tn_simd(&e), "%s", e.msg);
    EXPECT(tn_gemm_backend("own", &e) == 0, "%s", e.msg); /* OpenBLAS makes no promise about bits */
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    tn_params *params = tn_params_new();
    net m;
    m.fc1 = tn_linear_new(params, "fc1", IN, HIDDEN, 1);
    m.norm = tn_layer_norm_new(params, "norm", HIDDEN);
    m.fc2 = tn_linear_new(params, "fc2", HIDDEN, HIDDEN, 0);
    m.fc3 = tn_linear_new(params, "fc3", HIDDEN, OUT, 1);
    EXPECT(tn_params_seal(params, 11, &e) == 0, "%s", e.msg);

    static tn_real x[BATCH * IN], batch[BATCH * OUT];
    tn_rng rng = tn_rng_make(1, "probe", "x", 0, 0);
    for (int i = 0; i < BATCH * IN; i++) x[i] = (tn_real)tn_uniform(&rng);
    tn_record(tape, 0);
    memcpy(batch, forward(&m, tape, x, BATCH)->x, sizeof batch);

    long warm = 0;
    for (int i = 0; i < BATCH; i++) {
        tn_tape_reset(tape);
        const tn_t *y = forward(&m, tape, x + (size_t)i * IN, 1);
        EXPECT(y->nd == 2 && y->dim[0] == 1 && y->dim[1] == OUT, "one row in, one row out");
        for (int k = 0; k < OUT; k++)
            EXPECT(memcmp(&y->x[k], &batch[i * OUT + k], sizeof *y->x) == 0,
                   "image %d, output %d: %.9g, in the batch %.9g", i, k, y->x[k], batch[i * OUT + k]);
        if (i == 0) warm = tn_tape_allocations(tape);
    }
    EXPECT(tn_tape_allocations(tape) == warm, "a warm forward asked for memory");
    for (int n = 2; n <= 9; n++) { /* other batch sizes: other remainders in the kernels */
        tn_tape_reset(tape);
        const tn_t *y = forward(&m, tape, x, n);
        EXPECT(memcmp(y->x, batch, (size_t)n * OUT * sizeof *y->x) == 0, "a batch of %d has other bits", n);
    }
    tn_params_free(params);
    tn_tape_free(tape);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * A weight used twice: tn_use gives one leaf a parameter, so a tied weight gets the sum of both
 * gradients.
 */
#include "probe.h"
#include "tern.h"

enum { ROWS = 3, IN = 4, HIDDEN = 5 };

/* |tanh(x w') v - x|^2: an autoencoder whose decoder is v; tied when v is w. */
static double train_loss(tn_tape *tape, tn_params *params, tn_param *w, tn_param *v, const tn_real *data) {
    tn_tape_reset(tape);
    tn_t *x = tn_input(tape, data, 2, (int[]){ROWS, IN});
    tn_t *h = tn_tanh(tn_matmul(x, tn_use(tape, w), 0, 1));
    tn_t *y = tn_matmul(h, tn_use(tape, v), 0, 0);
    return tn_backward(tn_mse(y, x, TN_SUM), params, 0);
}

int main(void) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    tn_params *params = tn_params_new();
    int shape[] = {HIDDEN, IN};
    tn_param *w = tn_param_add(params, "encoder", "weight", 0, tn_init_normal(0, 0.5), 2, shape);
    tn_param *v = tn_param_add(params, "decoder", "weight", 0, tn_init_const(0), 2, shape);
    EXPECT(tn_params_seal(params, 1, &e) == 0, "%s", e.msg);
    EXPECT(tn_use(tape, w) == tn_use(tape, w), "one leaf a parameter");

    tn_real data[ROWS * IN];
    for (int i = 0; i < ROWS * IN; i++) data[i] = (tn_real)(i % 5 - 2) / 2;

    /* Untied, v a copy of w: two gradients. Tied: their sum in w, and nothing in v. */
    memcpy(v->w, w->w, w->len * sizeof *w->w);
    tn_params_touch(params);
    double untied = train_loss(tape, params, w, v, data);
    tn_real sum[HIDDEN * IN];
    for (size_t i = 0; i < w->len; i++) sum[i] = w->g[i] + v->g[i];
    double tied = train_loss(tape, params, w, w, data);
    EXPECT(probe_close(tied, untied, 1e-6), "loss %.9g, untied %.9g", tied, untied);
    for (size_t i = 0; i < w->len; i++) {
        EXPECT(probe_close(w->g[i], sum[i], 1e-5), "gradient %zu: %.9g, sum of both %.9g", i, w->g[i],
               sum[i]);
        EXPECT(v->g[i] == 0, "unused weight %zu has gradient %g", i, v->g[i]);
    }
    EXPECT(sum[0] != 0, "gradient is zero");
    tn_params_free(params);
    tn_tape_free(tape);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * The half of float_double_main.c that speaks to libtern64: one definition before the header, the same
 * calls.
 */
#define TN_DOUBLE 1
#include "float_double.h"
#include "probe.h"
#include "tern.h"

size_t real_size_in_double(void) {
    return sizeof(tn_real);
}

double loss_in_double(const double *x, int n, double *grad) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    tn_t *v = tn_leaf(tape, x, 1, &n), *g[1];
    tn_t *loss = tn_mean(tn_exp(tn_tanh(v)));
    tn_grad(loss, NULL, 1, &v, g, 0);
    memcpy(grad, g[0]->x, (size_t)n * sizeof *grad);
    double value = tn_value(loss);
    tn_tape_free(tape);
    return value;
}

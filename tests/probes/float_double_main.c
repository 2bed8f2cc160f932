/* SPDX-License-Identifier: MIT */
/*
 * Float and double in one program: this file speaks to libtern, float_double_64.c to libtern64; both are
 * linked, and each computes the same loss and gradient in its own precision.
 */
#include "float_double.h"
#include "probe.h"
#include "tern.h"

static double loss_in_float(const double *x, int n, double *grad) {
    tn_err e;
    tn_tape *tape = tn_tape_new(&e);
    EXPECT(tape, "%s", e.msg);
    tn_t *v = tn_full(tape, 0, 1, &n), *g[1];
    for (int i = 0; i < n; i++) v->x[i] = (tn_real)x[i];
    v = tn_leaf(tape, v->x, 1, &n);
    tn_t *loss = tn_mean(tn_exp(tn_tanh(v)));
    tn_grad(loss, NULL, 1, &v, g, 0);
    for (int i = 0; i < n; i++) grad[i] = g[0]->x[i];
    double value = tn_value(loss);
    tn_tape_free(tape);
    return value;
}

int main(void) {
    enum { N = 5 };
    static const double x[N] = {-1.1, -0.3, 0.2, 0.7, 1.9};
    double g32[N], g64[N], want = 0;
    double y32 = loss_in_float(x, N, g32), y64 = loss_in_double(x, N, g64);
    for (int i = 0; i < N; i++) {
        double t = tanh(x[i]);
        want += exp(t) / N;
        EXPECT(fabs(g64[i] - exp(t) * (1 - t * t) / N) < 1e-14, "double gradient %d: %.17g", i, g64[i]);
        EXPECT(fabs(g32[i] - g64[i]) < 1e-6, "gradient %d: float %.9g, double %.17g", i, g32[i], g64[i]);
    }
    EXPECT(sizeof(tn_real) == 4 && real_size_in_double() == 8, "not float here and double there");
    EXPECT(fabs(y64 - want) < 1e-14, "double loss %.17g, want %.17g", y64, want);
    EXPECT(fabs(y32 - want) < 1e-6 && y32 != y64, "float loss %.9g, double %.17g", y32, y64);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * lamb's norms: tensors in one piece, in several, and so large that the step is made again, against lamb in double; sizes
 * whose squares leave the range of a float; the same bits at every level and number of threads.
 */
#include "kernels.h"
#include "support.h"
#include <math.h>
#include <stdlib.h>

enum { STEPS = 3 };
static const double LR = 0.125, BETA1 = 0.9, BETA2 = 0.999, LAMBDA = 0.0625;

static double noise(uint32_t i, uint32_t salt) {
    uint32_t x = (i + 1) * 2654435761u ^ salt * 0x9e3779b9u;
    x ^= x >> 15, x *= 0x2c1b3c6du, x ^= x >> 12;
    return (double)x / 2147483648.0 - 1;
}
static tn_real weight(uint32_t i, double size) {
    return (tn_real)(size * noise(i, 1));
}
static tn_real gradient(uint32_t i, int t, double size) {
    return i % 7 ? (tn_real)(size * noise(i, (uint32_t)t + 2)) : 0;
}

/* Of n weights as large as w, after some steps on gradients as large as g. */
static tn_real *trained(const tn_kernels_t *level, size_t n, double w, double g) {
    tn_err e = {""};
    const int dim = (int)n;
    tn_params *params = tn_params_new();
    tn_param *p = tn_param_add(params, "p", "weight", 0, tn_init_const(0), 1, &dim);
    if (tn_params_seal(params, 1, &e)) fail_msg("%s", e.msg);
    const tn_optim_def *def = NULL;
    for (int i = 0; level->optims[i]; i++)
        if (!strcmp(level->optims[i]->name, "lamb")) def = level->optims[i];
    tn_optim *o = def ? tn_optim_new_def(params, def, "lr=0.125,weight_decay=0.0625,eps=1e-6", &e) : NULL;
    if (!o) fail_msg("%s", e.msg);
    for (size_t i = 0; i < n; i++) p->w[i] = weight((uint32_t)i, w);
    for (int t = 1; t <= STEPS; t++) {
        tn_tick k = tn_tick_at(t, STEPS, NULL, NULL);
        for (size_t i = 0; i < n; i++) p->g[i] = gradient((uint32_t)i, t, g);
        tn_optim_step(o, &k);
    }
    tn_real *out = malloc(n * sizeof *out);
    assert_non_null(out);
    memcpy(out, p->w, n * sizeof *out);
    tn_optim_free(o), tn_params_free(params);
    return out;
}

/* The formula of the paper. */
static double *reference(size_t n, double size, double g_size) {
    double *x = calloc(4 * n, sizeof *x), *w = x, *m = x + n, *v = x + 2 * n, *u = x + 3 * n;
    assert_non_null(x);
    for (size_t i = 0; i < n; i++) w[i] = (double)weight((uint32_t)i, size);
    for (int t = 1; t <= STEPS; t++) {
        double of_w = 0, of_u = 0;
        for (size_t i = 0; i < n; i++) {
            const double g = (double)gradient((uint32_t)i, t, g_size);
            m[i] = BETA1 * m[i] + (1 - BETA1) * g, v[i] = BETA2 * v[i] + (1 - BETA2) * g * g;
            u[i] = m[i] / (1 - pow(BETA1, t)) / (sqrt(v[i] / (1 - pow(BETA2, t))) + 1e-6) + LAMBDA * w[i];
            of_w += w[i] * w[i], of_u += u[i] * u[i];
        }
        const double ratio = of_w == 0 || of_u == 0 ? 1 : sqrt(of_w) / sqrt(of_u);
        for (size_t i = 0; i < n; i++) w[i] -= LR * ratio * u[i];
    }
    return x;
}

static void test_norms(void **state) {
    (void)state;
    const struct {
        size_t n;
        double w, g;
    } cases[] = {{1, 1, 1},          {37, 1, 1},         {5000, 0.1, 1e-3},       {16384, 0.1, 1},
                 {16385, 0.1, 1e-2}, {70001, 0.1, 1e-3}, {(1 << 18) + 1, 0.1, 1}, {300007, 0.1, 1e-3},
                 {1000, 1e-25, 1},   {20011, 1e-25, 1},  {20011, 1e25, 1},        {300007, 1e-25, 1},
                 {300007, 1e25, 1},  {20011, 1e-22, 0},  {300007, 1e-22, 0},      {20011, 0, 1}};
    const char *const names[] = {"plain", "avx2", "avx512", "neon"};
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        const size_t n = cases[c].n;
        double *want = reference(n, cases[c].w, cases[c].g), most = 0;
        for (size_t i = 0; i < n; i++) most = fmax(most, fabs(want[i]));
        tn_real *first = NULL;
        for (int l = 0; l < 4; l++) {
            const tn_kernels_t *level = tn_kernels_level(names[l]);
            if (!level) continue;
            tn_set_threads(l + 1);
            tn_real *got = trained(level, n, cases[c].w, cases[c].g);
            if (!first) {
                for (size_t i = 0; i < n; i++)
                    if (!(fabs((double)got[i] - want[i]) <= 2e-6 * most))
                        fail_msg("case %zu: %zu of %zu is %.9g, not %.9g", c, i, n, (double)got[i], want[i]);
                first = got;
                continue;
            }
            if (!same_bits(got, first, n)) fail_msg("case %zu, %s: other bits than plain", c, names[l]);
            free(got);
        }
        free(first), free(want);
    }
    tn_set_threads(0);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_norms)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

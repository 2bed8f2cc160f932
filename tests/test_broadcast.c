/* SPDX-License-Identifier: MIT */
/*
 * Elementwise operations of two tensors: every way in which shapes of up to four dimensions meet, against one sum, difference,
 * product and quotient an element, bit for bit, for 1 to 4 threads; rows longer and shorter than what is done at once.
 */
#include "support.h"
#include <stdlib.h>
#include <string.h>

typedef struct {
    int nd, dim[TN_MAX_DIM];
} shape;

static tn_t *filled(tn_tape *t, const shape *s, uint64_t seed) {
    tn_t *x = tn_full(t, 0, s->nd, s->dim);
    double *u = malloc(x->len * sizeof *u);
    assert_non_null(u);
    golden_uniform(seed, 1, x->len, u);
    for (size_t i = 0; i < x->len; i++) x->x[i] = (tn_real)(u[i] + 2);
    free(u);
    return x;
}

/* The element of x that element `at` of a tensor of this shape meets. */
static tn_real met(const tn_t *x, const tn_t *y, size_t at) {
    size_t i = 0, step = 1;
    for (int d = 1; d <= y->nd; d++) {
        const size_t of = (size_t)y->dim[y->nd - d], here = at % of;
        at /= of;
        if (d > x->nd) continue;
        if (x->dim[x->nd - d] > 1) i += here * step;
        step *= (size_t)x->dim[x->nd - d];
    }
    return x->x[i];
}

static void meet(const shape *sa, const shape *sb) {
    tn_tape *t = tn_tape_new(NULL);
    tn_t *a = filled(t, sa, 1), *b = filled(t, sb, 2);
    tn_t *y[] = {tn_add(a, b), tn_sub(a, b), tn_mul(a, b), tn_div(a, b), tn_maximum(a, b)};
    for (size_t i = 0; i < y[0]->len; i++) {
        const tn_real p = met(a, y[0], i), q = met(b, y[0], i);
        const tn_real want[] = {p + q, p - q, p * q, p / q, p > q ? p : q};
        for (int k = 0; k < 5; k++)
            if (memcmp(&y[k]->x[i], &want[k], sizeof *want) != 0)
                fail_msg("operation %d, element %zu of %zu: %g, not %g", k, i, y[k]->len, (double)y[k]->x[i],
                         (double)want[k]);
    }
    tn_tape_free(t);
}

static void shapes(void **unused) {
    (void)unused;
    static const shape pairs[][2] = {
        {{4, {3, 5, 40, 21}}, {3, {5, 1, 1}}},  {{4, {2, 3, 1, 7}}, {4, {2, 1, 4, 7}}},
        {{4, {2, 3, 4, 1}}, {4, {2, 3, 1, 5}}}, {{2, {70, 300}}, {1, {300}}},
        {{2, {70, 300}}, {2, {70, 1}}},         {{2, {1, 513}}, {2, {40, 1}}},
        {{3, {9, 1, 256}}, {3, {1, 11, 256}}},  {{2, {40, 1}}, {1, {1}}},
        {{4, {2, 3, 1, 1}}, {3, {3, 6, 257}}},  {{4, {4, 5, 60, 30}}, {4, {4, 5, 60, 30}}},
        {{0, {0}}, {3, {3, 2, 1000}}}};
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++)
        for (int threads = 1; threads <= 4; threads++) {
            tn_set_threads(threads);
            meet(&pairs[i][0], &pairs[i][1]);
            meet(&pairs[i][1], &pairs[i][0]);
        }
}

int main(void) {
    const struct CMUnitTest all[] = {cmocka_unit_test(shapes)};
    return cmocka_run_group_tests(all, NULL, NULL);
}

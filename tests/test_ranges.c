/* SPDX-License-Identifier: MIT */
/* How a pass over all parameters is cut and shared out: everything once, and what belongs together on one thread. */
#include "ranges.h"
#include "support.h"
#include <math.h>
#include <stdio.h>

static tn_params *made(int n, const int (*dim)[2], int buffer) {
    tn_params *p = tn_params_new();
    tn_err e;
    assert_non_null(p);
    for (int i = 0; i < n; i++) {
        char name[16];
        snprintf(name, sizeof name, "p%d", i);
        tn_param_add(p, NULL, name, i == buffer ? TN_BUFFER : 0, tn_init_const(1), 2, dim[i]);
    }
    assert_int_equal(tn_params_seal(p, 1, &e), 0);
    return p;
}

static const int mlp[][2] = {{512, 784}, {512, 1}, {256, 512}, {256, 1}, {10, 256}, {10, 1}};
static const int small[][2] = {{128, 100}, {1, 1}, {3, 17}};
static const int odd[][2] = {{1, 8191}, {1, 8192}, {1, 8193}, {77, 1001}, {1, 1}, {3000, 1200}, {1, 4097}};
static const struct {
    int n, buffer, skipped;
    const int (*dim)[2];
} sets[] = {{6, -1, -1, mlp}, {3, -1, -1, small}, {7, -1, -1, odd}, {7, 3, 5, odd}, {6, -1, 0, mlp}};
enum { SETS = sizeof sets / sizeof *sets };

static void every_element_once(void **state) {
    (void)state;
    for (int s = 0; s < SETS; s++) {
        unsigned char skip[8] = {0};
        tn_ranges r;
        tn_params *p = made(sets[s].n, sets[s].dim, sets[s].buffer);
        if (sets[s].skipped >= 0) skip[sets[s].skipped] = 1;
        assert_int_equal(tn_ranges_new(p, skip, &r), 0);
        assert_true(r.nchunk >= 1 && r.nchunk <= TN_MAX_CHUNKS);
        assert_int_equal(r.chunk[0], 0);
        assert_int_equal(r.chunk[r.nchunk], r.n);
        for (int c = 0; c < r.nchunk; c++) assert_true(r.chunk[c] < r.chunk[c + 1]);
        for (int i = 0; i < sets[s].n; i++) {
            size_t at = 0; /* a tensor's ranges follow each other, as they go by their place */
            for (int k = 0; k < r.n; k++) {
                if (r.range[k].param != i) continue;
                assert_int_equal(r.range[k].lo, at);
                assert_true(at == 0 || r.range[k].lo % 16 == 0);
                at = r.range[k].hi;
                assert_true(at == p->p[i]->len || at - r.range[k].lo >= TN_RANGE);
            }
            assert_int_equal(at, i == sets[s].buffer || skip[i] ? 0 : p->p[i]->len);
        }
        tn_ranges_free(&r);
        tn_params_free(p);
    }
}

/* Two threads, half of the chunks each: half of each layer's units, but for a line. */
static void halves(void **state) {
    (void)state;
    tn_params *p = made(6, mlp, -1);
    for (int i = 0; i < 4; i += 2) {
        const tn_ranges *r = p->ranges;
        size_t first = 0;
        for (int k = 0; k < r->chunk[r->nchunk / 2]; k++)
            if (r->range[k].param == i) first += r->range[k].hi - r->range[k].lo;
        assert_true(first > p->p[i]->len / 2 - 4 * 784 && first < p->p[i]->len / 2 + 4 * 784);
    }
    tn_params_free(p);
}

static void backwards(void **state) {
    (void)state;
    for (int n = 1; n <= 40; n++)
        for (int threads = 1; threads <= 9; threads++) {
            const int team = threads < n ? threads : n;
            for (int t = 0; t < team;
                 t++) /* a thread's run, as tn_parallel cuts them, in the opposite order */
                for (int lo = n * t / team, hi = n * (t + 1) / team, c = lo; c < hi; c++)
                    assert_int_equal(tn_backwards(n, threads, c), lo + hi - 1 - c);
        }
}

/* The norm sees every element of a gradient, once, whatever the threads. */
static void norm(void **state) {
    (void)state;
    tn_params *p = made(7, odd, 3);
    long double square = 0; /* 3.6 million terms */
    for (int i = 0; i < 7; i++)
        for (size_t k = 0; k < p->p[i]->len; k++) {
            p->p[i]->g[k] = (tn_real)((double)(k * 2654435761u % 1000 + (size_t)i) / 1000 - 0.4);
            if (i != 3) square += (long double)p->p[i]->g[k] * p->p[i]->g[k];
        }
    tn_set_threads(1);
    const double one = tn_grad_norm(p);
    assert_true(fabs(one - (double)sqrtl(square)) < 1e-13 * one);
    tn_set_threads(3);
    const double three = tn_grad_norm(p);
    assert_memory_equal(&one, &three, sizeof one);
    tn_set_threads(0);
    tn_params_free(p);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_element_once), cmocka_unit_test(halves),
                                       cmocka_unit_test(backwards), cmocka_unit_test(norm)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

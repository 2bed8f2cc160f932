/* SPDX-License-Identifier: MIT */
/*
 * Every model: the same bits for 1, 2 and 4 threads, and no call of the allocator in a step once memory is warm. And that
 * scratch of a thread has room for every thread.
 */
#include "internal.h"
#include "support.h"
#include "tern_models.h"
#include <stdio.h>
#include <stdlib.h>

/* ---- an allocator that counts ---- */

static long calls;
static void *counted_alloc(size_t n) {
    calls++;
    return malloc(n);
}
static void *counted_resize(void *p, size_t n) {
    calls++;
    return realloc(p, n);
}

/* ---- a few steps of a model ---- */

enum { IMAGES = 37, SIDE = 14, PIXELS = SIDE * SIDE, STEPS = 4 };
static tn_real image[IMAGES * PIXELS];
static int label[IMAGES];

static const char *const specs[] = {
    "logistic",
    "mlp:hidden=33,dropout=0.3,layer_norm=on",
    "lenet",
    "lenet:activation=tanh,pool=average",
    "cnn:filters=5,hidden=17",
    "rnn:hidden=19",
    "rnn:hidden=8,nonlinearity=relu,layers=2,dropout=0.4",
    "gru:hidden=19",
    "lstm:hidden=19",
    "lstm:hidden=7,layers=2,bidirectional=on,dropout=0.25",
    "resnet:width=4,blocks=2",
};

static tn_t *loss_of(void *arg, tn_tape *t, int micro, double *weight) {
    int at = micro * 20, n = micro ? IMAGES - 20 : 20;
    tn_t *x = tn_input(t, image + (size_t)at * PIXELS, 4, (int[]){n, 1, SIDE, SIDE});
    *weight = n;
    return tn_cross_entropy(tn_forward(arg, x), label + at, NULL);
}

/* STEPS steps on so many threads; the flat weights and buffers, to be freed. */
static tn_real *weights_after(const char *spec, int threads, size_t *len) {
    tn_err e;
    tn_model *m = tn_model_new(spec, &(tn_model_shape){3, {1, SIDE, SIDE}, 10}, 7, &e);
    if (!m) fail_msg("%s: %s", spec, e.msg);
    tn_optim *o = tn_optim_new(m->params, "adamw:lr=0.01", &e);
    tn_stepper *s = tn_stepper_new(m->params, o, &(tn_step_options){2, 1, 0}, &e);
    tn_tape *t = tn_tape_new(&e);
    assert_true(o && s && t);
    tn_set_threads(threads);
    long warm = 0;
    for (int k = 0; k < STEPS; k++) {
        tn_tick tick = tn_tick_at(k + 1, STEPS, NULL, NULL);
        tn_step_result r;
        tick.batch = IMAGES, tick.seed = 5;
        if (k == 2) warm = calls;
        if (tn_stepper_run(s, t, loss_of, m, &tick, &r)) fail_msg("%s: %s", spec, r.nonfinite);
    }
    if (calls != warm) fail_msg("%s: %ld allocations in two warm steps", spec, calls - warm);
    tn_set_threads(1);
    const tn_real *w = tn_params_flat(m->params, len);
    tn_real *copy = malloc(*len * sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, w, *len * sizeof *copy);
    tn_tape_free(t), tn_stepper_free(s), tn_optim_free(o), tn_model_free(m);
    return copy;
}

static void same_bits_for_any_threads(void **state) {
    (void)state;
    if (strcmp(tn_gemm_backend_name(), "own") != 0) skip();
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        size_t len;
        tn_real *one = weights_after(specs[i], 1, &len);
        for (int threads = 2; threads <= 4; threads *= 2) {
            tn_real *more = weights_after(specs[i], threads, &len);
            for (size_t k = 0; k < len; k++)
                if (!same_bits(one + k, more + k, 1))
                    fail_msg("%s: weight %zu differs with %d threads", specs[i], k, threads);
            free(more);
        }
        free(one);
    }
}

/* ---- scratch of a thread ---- */

enum { MORE = 4, CHUNKS = 64 };
static int numbers[CHUNKS];
static void note_number(void *arg, int chunk) {
    (void)arg;
    numbers[chunk] = tn_worker();
}

/* Threads that exist may still come late to a job after their number was lowered: there is room for all of them. */
static void room_for_every_thread(void **state) {
    (void)state;
    tn_set_threads(MORE);
    tn_parallel(CHUNKS, note_number, NULL);
    for (int threads = MORE; threads > 0; threads--) {
        tn_set_threads(threads);
        assert_true(tn_worker_slots() >= MORE);
        tn_parallel(CHUNKS, note_number, NULL);
        for (int i = 0; i < CHUNKS; i++) assert_true(numbers[i] >= 0 && numbers[i] < tn_worker_slots());
    }
    tn_set_threads(1);
}

/* The names above are not forgotten when a model is added. */
static void every_model_is_here(void **state) {
    (void)state;
    int n;
    const tn_model_def *const *list = tn_models(&n);
    for (int i = 0; i < n; i++) {
        int found = 0;
        for (size_t k = 0; k < sizeof specs / sizeof *specs; k++) {
            char name[TN_MAX_NAME];
            tn_spec_split(specs[k], name, sizeof name);
            found |= !strcmp(name, list[i]->name);
        }
        if (!found) fail_msg("no case for model %s", list[i]->name);
    }
}

int main(void) {
    tn_set_allocator(&(tn_allocator){counted_alloc, counted_resize, free});
    double u[IMAGES * PIXELS];
    golden_uniform(3, 1, IMAGES * PIXELS, u);
    for (int i = 0; i < IMAGES * PIXELS; i++) image[i] = (tn_real)(u[i] > 0 ? u[i] : 0);
    for (int i = 0; i < IMAGES; i++) label[i] = i * 7 % 10;
    const struct CMUnitTest tests[] = {cmocka_unit_test(same_bits_for_any_threads),
                                       cmocka_unit_test(every_model_is_here),
                                       cmocka_unit_test(room_for_every_thread)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}

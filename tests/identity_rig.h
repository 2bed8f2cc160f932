/* SPDX-License-Identifier: MIT */
/*
 * For the tests of what an optimizer's steps must satisfy whatever the numbers are: each check runs at every vector level
 * and with 1 to 4 threads, on tensors that are one chunk, and on some that are many.
 */
#ifndef TEST_IDENTITY_RIG_H
#define TEST_IDENTITY_RIG_H
#include "kernels.h"
#include "support.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef TN_DOUBLE
static const double EPS = 2.3e-16;
#else
static const double EPS = 1.2e-7;
#endif
#define COUNT(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- at which level, with how many threads, how many weights ---- */

typedef struct {
    const tn_kernels_t *level;
    const char *name;
    int threads, n[2]; /* elements of the weight and of the bias */
} setting;

/* Two of the rigs that an identity compares differ in their options, in what they are fed, or in their tensors. */
typedef struct {
    tn_params *params;
    tn_param *p[2];
    tn_optim *o;
    tn_tick tick; /* t: steps done */
} rig;

static const tn_optim_def *definition(const setting *s, const char *name, size_t len) {
    for (int i = 0; s->level->optims[i]; i++)
        if (strlen(s->level->optims[i]->name) == len && strncmp(s->level->optims[i]->name, name, len) == 0)
            return s->level->optims[i];
    return NULL;
}

/* which: bit i for tensor i; swapped: the bias first. */
static inline rig rig_of(const setting *s, const char *spec, int which, int swapped) {
    static const char *const names[] = {"weight", "bias"};
    const char *colon = strchr(spec, ':');
    const tn_optim_def *d = definition(s, spec, colon ? (size_t)(colon - spec) : strlen(spec));
    rig r = {
        .params = tn_params_new(),
        .tick = {.total = 1000, .steps_per_epoch = 10, .batch = 32, .lr_mul = 1, .wd_mul = 1, .seed = 1}};
    tn_err e = {""};
    if (!d) fail_msg("%s is not built in", spec);
    for (int k = 0; k < 2; k++) {
        const int i = swapped ? 1 - k : k;
        if (which >> i & 1)
            r.p[i] = tn_param_add(r.params, "p", names[i], i ? TN_NO_DECAY : 0, tn_init_const(0), 2,
                                  (int[]){i ? 1 : s->n[i] / 10, i ? s->n[i] : 10});
    }
    if (tn_params_seal(r.params, 1, &e) || !(r.o = tn_optim_new_def(r.params, d, colon ? colon + 1 : "", &e)))
        fail_msg("%s: %s", spec, e.msg);
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; r.p[i] && j < r.p[i]->len; j++)
            r.p[i]->w[j] = (tn_real)(((double)((j * 7919 + (size_t)i * 13) % 1021) - 510.5) / 512);
    return r;
}
static inline rig rig_at(const setting *s, const char *spec) {
    return rig_of(s, spec, 3, 0);
}
static inline void drop(rig *r) {
    tn_optim_free(r->o);
    tn_params_free(r->params);
}
static inline void step(rig *r) {
    r->tick.t++;
    tn_optim_step(r->o, &r->tick);
}

/* Element j of tensor i at step t: in (-1, 1), never 0, exact in float, the same for whoever asks. */
static inline double gradient(long t, int i, size_t j) {
    uint64_t z = (uint64_t)t * 1000003u + (uint64_t)i * 500009u + j + 1;
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return (2 * (double)((z ^ z >> 31) >> 50) - 16383) / 16384;
}
static inline void fill(rig *r, double scale) {
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; r->p[i] && j < r->p[i]->len; j++)
            r->p[i]->g[j] = (tn_real)(scale * gradient(r->tick.t, i, j));
}
static inline void walk(rig *r, int steps) {
    for (int s = 0; s < steps; s++) fill(r, 1), step(r);
}
static inline void constant(rig *r, double g) {
    for (int i = 0; i < 2; i++)
        for (size_t j = 0; j < r->p[i]->len; j++) r->p[i]->g[j] = (tn_real)g;
}

static inline void same(const setting *s, const char *what, const char *spec, const rig *a, const rig *b) {
    for (int i = 0; i < 2; i++) {
        if (!a->p[i] || !b->p[i]) continue;
        if (!same_bits(a->p[i]->w, b->p[i]->w, a->p[i]->len))
            fail_msg("%s, %s, level %s, %d threads, step %ld: %s differs", what, spec, s->name, s->threads,
                     a->tick.t, a->p[i]->name);
    }
}

static inline void near_to(const setting *s, const char *what, double got, double want, double allowed) {
    if (!(fabs(got - want) <= allowed))
        fail_msg("%s, level %s, %d threads: %.9g, not %.9g", what, s->name, s->threads, got, want);
}

/* Runs the check in every setting; with few: on the small tensors, and on the large ones with 4 threads alone. */
static inline void everywhere(void (*check)(const setting *), int few) {
    static const char *const names[] = {"plain", "avx2", "avx512", "neon"};
    int levels = 0;
    for (int l = 0; l < COUNT(names); l++) {
        setting s = {.level = tn_kernels_level(names[l]), .name = names[l]};
        if (!s.level) continue;
        levels++;
        for (s.threads = 1; s.threads <= 4; s.threads++)
            for (int large = 0; large < 2; large++) {
                if (large && few && s.threads < 4) continue;
                s.n[0] = large ? 18000 : 40, s.n[1] = large ? 4103 : 7;
                tn_set_threads(s.threads);
                check(&s);
            }
    }
    tn_set_threads(0);
    assert_true(levels >= 1);
}
#endif

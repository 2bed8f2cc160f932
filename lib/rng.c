/* SPDX-License-Identifier: MIT */
/*
 * Random numbers: splitmix64 (Steele, Lea and Flood, OOPSLA 2014), one generator a purpose. A generator's start is
 * a hash of everything that names the purpose, so that adding a layer never changes the shuffle.
 */
#include "internal.h"
#include <math.h>

static uint64_t mix(uint64_t z) {
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
    return z ^ (z >> 31);
}

static uint64_t absorb(uint64_t h, uint64_t v) {
    return mix(h * 0x9E3779B97F4A7C15u + v + 0x632BE59BD9B4E019u);
}

static uint64_t absorb_text(uint64_t h, const char *s) {
    uint64_t n = 0;
    for (; s && *s; s++, n++) h = absorb(h, (unsigned char)*s);
    return absorb(h, n + 256); /* the length, so that ("ab", "c") differs from ("a", "bc") */
}

tn_rng tn_rng_make(uint64_t seed, const char *stream, const char *name, uint64_t i, uint64_t j) {
    uint64_t h = absorb_text(absorb_text(mix(seed), stream), name);
    return (tn_rng){absorb(absorb(h, i), j)};
}

uint64_t tn_rng_next(tn_rng *r) {
    return mix(r->s += 0x9E3779B97F4A7C15u);
}

double tn_uniform(tn_rng *r) {
    return (double)(tn_rng_next(r) >> 11) * 0x1p-53;
}

double tn_normal(tn_rng *r) {
    double u = tn_uniform(r), v = tn_uniform(r);
    return sqrt(-2 * tn_exact_log(1 - u)) * tn_exact_cos2pi(v);
}

int tn_below(tn_rng *r, int n) {
    return (int)(tn_uniform(r) * n);
}

void tn_permutation(tn_rng *r, int n, int *p) {
    for (int i = 0; i < n; i++) p[i] = i;
    for (int i = n - 1; i > 0; i--) {
        int j = tn_below(r, i + 1), t = p[i];
        p[i] = p[j], p[j] = t;
    }
}

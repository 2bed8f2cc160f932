/* SPDX-License-Identifier: MIT */
/* Initial weights. All draws come from the parameter's own generator and are made of exactly rounded operations. */
#include "internal.h"
#include <math.h>

static void fans(const tn_param *p, double *in, double *out) {
    double field = 1;
    for (int i = 2; i < p->nd; i++) field *= p->dim[i];
    *in = p->nd > 1 ? p->dim[1] * field : 1;
    *out = p->nd > 0 ? p->dim[0] * field : 1;
}

static void uniform(tn_real *w, size_t n, double bound, tn_rng *r) {
    for (size_t i = 0; i < n; i++) w[i] = (tn_real)(bound * (2 * tn_uniform(r) - 1));
}

static void normal(tn_real *w, size_t n, double mean, double std, tn_rng *r) {
    for (size_t i = 0; i < n; i++) w[i] = (tn_real)(mean + std * tn_normal(r));
}

static void fill_const(const tn_init *k, tn_real *w, const tn_param *p, tn_rng *r) {
    (void)r;
    for (size_t i = 0; i < p->len; i++) w[i] = (tn_real)k->a;
}

static void fill_uniform(const tn_init *k, tn_real *w, const tn_param *p, tn_rng *r) {
    for (size_t i = 0; i < p->len; i++) w[i] = (tn_real)(k->a + (k->b - k->a) * tn_uniform(r));
}

static void fill_normal(const tn_init *k, tn_real *w, const tn_param *p, tn_rng *r) {
    normal(w, p->len, k->a, k->b, r);
}

/* a: gain; b: what the fan is multiplied by: 1 for fan_in alone, 2 for fan_in + fan_out */
static void fill_fan_uniform(const tn_init *k, tn_real *w, const tn_param *p, tn_rng *r) {
    double in, out;
    fans(p, &in, &out);
    uniform(w, p->len, k->a * sqrt(3 * k->b / (k->b == 1 ? in : in + out)), r);
}

static void fill_fan_normal(const tn_init *k, tn_real *w, const tn_param *p, tn_rng *r) {
    double in, out;
    fans(p, &in, &out);
    normal(w, p->len, 0, k->a * sqrt(k->b / (k->b == 1 ? in : in + out)), r);
}

static void fill_pytorch(const tn_init *k, tn_real *w, const tn_param *p, tn_rng *r) {
    double in, out;
    (void)k;
    fans(p, &in, &out);
    uniform(w, p->len, 1 / sqrt(in), r);
}

/*
 * Modified Gram-Schmidt, twice for accuracy, on normal vectors: rows of the (dim[0], rest) matrix when it is wide,
 * columns when it is tall. Works in place, one vector of stride `step` at a time.
 */
static void fill_orthogonal(const tn_init *k, tn_real *w, const tn_param *p, tn_rng *r) {
    size_t rows = p->nd ? (size_t)p->dim[0] : 1, cols = p->len / rows;
    size_t n = rows < cols ? rows : cols, len = rows < cols ? cols : rows;
    size_t next = rows < cols ? cols : 1, step = rows < cols ? 1 : cols;
    for (size_t i = 0; i < n; i++) {
        tn_real *v = w + i * next;
        for (size_t e = 0; e < len; e++) v[e * step] = (tn_real)tn_normal(r);
        for (int pass = 0; pass < 2; pass++) {
            for (size_t j = 0; j < i; j++) {
                const tn_real *u = w + j * next;
                double dot = 0;
                for (size_t e = 0; e < len; e++) dot += (double)u[e * step] * (double)v[e * step];
                for (size_t e = 0; e < len; e++)
                    v[e * step] = (tn_real)((double)v[e * step] - dot * (double)u[e * step]);
            }
            double norm = 0;
            for (size_t e = 0; e < len; e++) norm += (double)v[e * step] * (double)v[e * step];
            for (size_t e = 0; e < len; e++) v[e * step] = (tn_real)((double)v[e * step] / sqrt(norm));
        }
    }
    for (size_t i = 0; i < p->len; i++) w[i] = (tn_real)(k->a * (double)w[i]);
}

tn_init tn_init_const(double value) {
    return (tn_init){fill_const, value, 0};
}

tn_init tn_init_uniform(double lo, double hi) {
    return (tn_init){fill_uniform, lo, hi};
}

tn_init tn_init_normal(double mean, double std) {
    return (tn_init){fill_normal, mean, std};
}

tn_init tn_init_pytorch(void) {
    return (tn_init){fill_pytorch, 0, 0};
}

tn_init tn_init_kaiming_uniform(double gain) {
    return (tn_init){fill_fan_uniform, gain, 1};
}

tn_init tn_init_kaiming_normal(double gain) {
    return (tn_init){fill_fan_normal, gain, 1};
}

tn_init tn_init_xavier_uniform(double gain) {
    return (tn_init){fill_fan_uniform, gain, 2};
}

tn_init tn_init_xavier_normal(double gain) {
    return (tn_init){fill_fan_normal, gain, 2};
}

tn_init tn_init_orthogonal(double gain) {
    return (tn_init){fill_orthogonal, gain, 0};
}

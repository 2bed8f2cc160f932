/* SPDX-License-Identifier: MIT */
/*
 * An optimizer that needs whole matrices: the momentum is orthogonalised by Newton-Schulz steps, X <- 1.5
 * X - 0.5 (X X') X (Bernstein and Newhouse, arXiv:2409.20325), in scratch that the library provides;
 * vectors take a plain step.
 */
#include "probe.h"
#include "tern.h"

typedef struct {
    double lr, momentum;
    long steps;
} hyper;
static const tn_opt options[] = {
    TN_OPT_REAL(hyper, lr, 0.1, 0, 10, TN_OPEN_MIN, "step size"),
    TN_OPT_REAL(hyper, momentum, 0.9, 0, 1, TN_OPEN_MAX, "decay of the momentum"),
    TN_OPT_INT(hyper, steps, 30, 1, 100, "Newton-Schulz steps"),
    TN_OPT_END,
};

static size_t rows_of(int nd, const int *dim) {
    return nd ? (size_t)dim[0] : 1;
}
static size_t cols_of(int nd, const int *dim) {
    size_t n = 1;
    for (int i = 1; i < nd; i++) n *= (size_t)dim[i];
    return n;
}
static int slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp;
    out[0] = (tn_slot){"momentum", rows_of(nd, dim) * cols_of(nd, dim), 0};
    return 1;
}
static size_t scratch(const void *hp, int nd, const int *dim) { /* X (r, c), X X' (r, r) and X X' X */
    size_t r = rows_of(nd, dim), c = cols_of(nd, dim);
    (void)hp;
    return nd < 2 ? 0 : (2 * r * c + r * r) * sizeof(tn_real);
}
static void orthogonalise(long steps, int r, int c, tn_real *x, tn_real *xx, tn_real *next) {
    for (; steps; steps--) {
        tn_product(r, r, c, x, 0, x, 1, xx, 0);
        tn_product(r, c, r, xx, 0, x, 0, next, 0);
        for (int i = 0; i < r * c; i++) x[i] = (tn_real)1.5 * x[i] - (tn_real)0.5 * next[i];
    }
}
static void update(const void *hp, const tn_tick *tick, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const hyper *h = hp;
    tn_real *m = p->slot[0], lr = (tn_real)(h->lr * tick->lr_mul), decay = (tn_real)h->momentum, *x = m;
    double norm = 0;
    EXPECT(lo == 0 && hi == p->n, "a TN_TENSOR update got part of %s", p->name);
    for (size_t i = 0; i < p->n; i++) {
        m[i] = decay * m[i] + p->g[i];
        norm += (double)m[i] * m[i];
    }
    if (p->nd >= 2 && norm > 0) { /* Frobenius norm 1 first: then all singular values are within (0, 1] */
        size_t r = rows_of(p->nd, p->dim), c = cols_of(p->nd, p->dim);
        x = p->scratch;
        for (size_t i = 0; i < p->n; i++) x[i] = m[i] / (tn_real)sqrt(norm);
        orthogonalise(h->steps, (int)r, (int)c, x, x + r * c, x + r * c + r * r);
    }
    for (size_t i = 0; i < p->n; i++) p->w[i] -= lr * x[i];
}
static const tn_optim_def orthogonal_momentum = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "ortho",
    .summary = "orthogonalised momentum",
    .source = "arXiv:2409.20325",
    .hp_size = sizeof(hyper),
    .hp = options,
    .scope = TN_TENSOR,
    .slots = slots,
    .scratch = scratch,
    .update = update,
};

int main(void) {
    enum { R = 3, C = 5000 }; /* large enough to be cut into ranges for threads, were it elementwise */
    tn_err e;
    tn_params *params = tn_params_new();
    tn_param *w = tn_param_add(params, "fc", "weight", 0, tn_init_const(0), 2, (int[]){R, C});
    tn_param *b = tn_param_add(params, "fc", "bias", TN_NO_DECAY, tn_init_const(0), 1, (int[]){R});
    EXPECT(tn_params_seal(params, 1, &e) == 0, "%s", e.msg);
    tn_optim *optim = tn_optim_new_def(params, &orthogonal_momentum, "lr=0.5", &e);
    EXPECT(optim, "%s", e.msg);
    tn_rng rng = tn_rng_make(1, "probe", "gradient", 0, 0);
    for (int i = 0; i < R * C; i++) w->g[i] = (tn_real)tn_normal(&rng);
    for (int i = 0; i < R; i++) b->g[i] = (tn_real)(i + 1);
    tn_tick tick = tn_tick_at(1, 1, NULL, NULL);
    tn_optim_step(optim, &tick);

    /* The step of a matrix is lr times a matrix with orthonormal rows; that of a vector is lr g. */
    for (int i = 0; i < R; i++)
        for (int j = 0; j < R; j++) {
            double dot = 0;
            for (int k = 0; k < C; k++) dot += (double)w->w[i * C + k] * w->w[j * C + k];
            EXPECT(fabs(dot - (i == j ? 0.25 : 0)) < 1e-5, "rows %d and %d: %.9g", i, j, dot);
        }
    for (int i = 0; i < R; i++) EXPECT(b->w[i] == -(tn_real)(0.5 * (i + 1)), "bias %d: %.9g", i, b->w[i]);
    tn_optim_free(optim);
    tn_params_free(params);
    return 0;
}

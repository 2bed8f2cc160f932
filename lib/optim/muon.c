/* SPDX-License-Identifier: MIT */
/*
 * Muon (Jordan et al., 2024), as torch.optim.Muon: momentum whose matrix is made nearly orthogonal by ns_steps steps of a
 * Newton-Schulz iteration. For matrices; what has other dimensions goes to adamw. The products are in the build's type
 * (PyTorch's are in bfloat16), by the kernels of all other products.
 *
 *   buf = momentum buf + (1 - momentum) g,  u = buf;  nesterov: u = (1 - momentum) g + momentum buf
 *   X   = u / max(|u|, eps)                      Frobenius norm
 *   X   = ns_a X + (ns_b G + ns_c G G) X         ns_steps times, G = X X^T
 *   w   = (w - lr_t lambda w) - lr_t f X
 *
 * f = sqrt(max(1, rows / columns)) (original) or 0.2 sqrt(max(rows, columns)) (match_rms_adamw). Where there are more rows
 * than columns, G = X^T X stands on the other side: the same polynomial of the singular values, with the smaller matrix.
 */
#include "optim.h"

enum { ORIGINAL, MATCH_RMS_ADAMW };

typedef struct {
    double lr, weight_decay, momentum, ns_a, ns_b, ns_c, eps;
    int nesterov, adjust_lr_fn;
    long ns_steps;
} muon_hp;

static const tn_opt muon_opts[] = {
    TN_OPT_LR(muon_hp, 1e-3),
    TN_OPT_REAL(muon_hp, weight_decay, 0.1, 0, 1e6, 0, "lambda of the decay beside the step"),
    TN_OPT_BETA(muon_hp, momentum, 0.95, "decay of the average of gradients"),
    TN_OPT_BOOL(muon_hp, nesterov, 1, "steps along that average and the gradient"),
    TN_OPT_INT(muon_hp, ns_steps, 5, 1, 99, "steps of the iteration"),
    TN_OPT_REAL(muon_hp, ns_a, 3.4445, -100, 100, 0, "its factor of X"),
    TN_OPT_REAL(muon_hp, ns_b, -4.7750, -100, 100, 0, "its factor of X X^T X"),
    TN_OPT_REAL(muon_hp, ns_c, 2.0315, -100, 100, 0, "its factor of (X X^T)^2 X"),
    TN_OPT_REAL(muon_hp, eps, 1e-7, 0, 1, TN_OPEN_MIN, "least norm that it divides by"),
    TN_OPT_WORD(muon_hp, adjust_lr_fn, "original|match_rms_adamw", ORIGINAL,
                "the rate is multiplied by sqrt(max(1, rows / columns)), or by 0.2 sqrt(max(rows, columns)), "
                "which makes steps as large as adamw's"),
    TN_OPT_END};

enum { BUFFER };

static int muon_takes(const void *hp, int nd, const int *dim, unsigned flags) {
    (void)hp, (void)dim, (void)flags;
    return nd == 2;
}

static int muon_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp;
    out[BUFFER] = (tn_slot){"momentum_buffer", tn_elements(nd, dim), 0};
    return 1;
}

/* X, the next X, G and G G. */
static size_t muon_scratch(const void *hp, int nd, const int *dim) {
    (void)hp;
    if (nd != 2) return 0;
    const size_t r = (size_t)dim[0], c = (size_t)dim[1], s = r < c ? r : c;
    return 2 * (r * c + s * s) * sizeof(tn_real);
}

static double muon_shrink(const void *hp, const tn_tick *k) {
    const muon_hp *h = hp;
    return h->lr * k->lr_mul * h->weight_decay * k->wd_mul;
}

TN_STEP gather(const tn_opt_tensor p, tn_real *x, tn_real momentum, tn_real take, int nesterov, double *lane,
               size_t i, size_t n) {
    const V g = vget(p.g + i, n), m = vset1(momentum), t = vset1(take);
    const V buf = vflush(vfma(m, vget(p.slot[BUFFER] + i, n), t * g));
    const V u = nesterov ? vfma(m, buf, t * g) : buf;
    vput(p.slot[BUFFER] + i, n, buf);
    vput(x + i, n, u);
    vadd_squares(lane, u, i, n);
}

/* out = a x + b y; out may be x or y. */
TN_STEP blend(tn_real a, const tn_real *x, tn_real b, const tn_real *y, tn_real *out, size_t i, size_t n) {
    vput(out + i, n, vfma(vset1(a), vget(x + i, n), vset1(b) * vget(y + i, n)));
}

TN_STEP scale(tn_real a, const tn_real *x, tn_real *out, size_t i, size_t n) {
    vput(out + i, n, vset1(a) * vget(x + i, n));
}

TN_STEP move(tn_real *w, const tn_real *x, tn_real rate, tn_real shrink, size_t i, size_t n) {
    vput(w + i, n, vfma(vset1(-rate), vget(x + i, n), vshrunk(vget(w + i, n), shrink)));
}

/* The iteration from x on, the other matrices behind it; where the result is. */
static const tn_real *orthogonal(const muon_hp *h, int rows, int cols, tn_real *x) {
    const size_t n = (size_t)rows * (size_t)cols;
    const int wide = rows <= cols, s = wide ? rows : cols, other = wide ? cols : rows;
    const size_t square = (size_t)s * (size_t)s;
    tn_real *next = x + n, *gram = next + n, *twice = gram + square;
    for (long step = 0; step < h->ns_steps; step++) {
        tn_product(s, s, other, x, !wide, x, wide, gram, 0);
        tn_product(s, s, s, gram, 0, gram, 0, twice, 0);
        TN_EACH_VECTOR(0, square, blend, (tn_real)h->ns_b, gram, (tn_real)h->ns_c, twice, gram);
        TN_EACH_VECTOR(0, n, scale, (tn_real)h->ns_a, x, next);
        if (wide)
            tn_product(rows, cols, rows, gram, 0, x, 0, next, 1);
        else
            tn_product(rows, cols, cols, x, 0, gram, 0, next, 1);
        tn_real *t = x;
        x = next, next = t;
    }
    return x;
}

static void muon_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const muon_hp *h = hp;
    const double rows = p->dim[0], cols = p->dim[1], lr = h->lr * k->lr_mul;
    const double f = h->adjust_lr_fn == ORIGINAL ? sqrt(fmax(1, rows / cols)) : 0.2 * sqrt(fmax(rows, cols));
    double lane[TN_LANES] = {0};
    tn_real *x = p->scratch;
    (void)lo, (void)hi;
    TN_EACH_VECTOR(0, p->n, gather, *p, x, (tn_real)h->momentum, (tn_real)(1 - h->momentum), h->nesterov,
                   lane);
    const double norm = sqrt(tn_add_lanes(lane));
    TN_EACH_VECTOR(0, p->n, scale, (tn_real)(1 / (norm < h->eps ? h->eps : norm)), x, x);
    const tn_real *result = orthogonal(h, p->dim[0], p->dim[1], x);
    const tn_real shrink = p->flags & TN_NO_DECAY ? 0 : (tn_real)muon_shrink(hp, k);
    TN_EACH_VECTOR(0, p->n, move, p->w, result, (tn_real)(lr * f), shrink);
}

/* ---- tern explain: one weight, a matrix of 1 x 1, whose norm is its size ---- */

static int has_decay(const void *hp) {
    return ((const muon_hp *)hp)->weight_decay != 0;
}
static int has_nesterov(const void *hp) {
    return ((const muon_hp *)hp)->nesterov;
}
static int no_nesterov(const void *hp) {
    return !((const muon_hp *)hp)->nesterov;
}
TN_VALUE(direction) {
    const muon_hp *h = hp;
    const double buf = (double)p->slot[BUFFER][0];
    return h->nesterov ? (1 - h->momentum) * (double)old->g[0] + h->momentum * buf : buf;
}
TN_VALUE(normalized) {
    const double u = direction(hp, k, old, p);
    return u / fmax(fabs(u), ((const muon_hp *)hp)->eps);
}
TN_VALUE(iterated) {
    const muon_hp *h = hp;
    double x = normalized(hp, k, old, p);
    for (long s = 0; s < h->ns_steps; s++) x = h->ns_a * x + (h->ns_b + h->ns_c * x * x) * x * x * x;
    return x;
}
TN_VALUE(orthogonal_part) {
    const muon_hp *h = hp;
    const double f = h->adjust_lr_fn == ORIGINAL ? 1 : 0.2;
    return -h->lr * k->lr_mul * f * iterated(hp, k, old, p);
}
TN_VALUE(decay_value) {
    return tn_shrunk_by(muon_shrink(hp, k), old);
}
static const tn_explain muon_explain[] = {
    {"momentum_buffer", "momentum momentum_buffer + (1 - momentum) g", NULL, 0, NULL},
    {"u", "(1 - momentum) g + momentum momentum_buffer", direction, 0, has_nesterov},
    {"u", "momentum_buffer", direction, 0, no_nesterov},
    {"X_0", "u / max(|u|, eps): of one weight its sign, where |u| is not below eps", normalized, 0, NULL},
    {"X", "ns_steps times X = ns_a X + ns_b X^3 + ns_c X^5, from X_0 on", iterated, 0, NULL},
    {"orthogonal part", "-lr_t f X, f: 1, or with match_rms_adamw 0.2", orthogonal_part, 1, NULL},
    {"decay part", "-lr_t lambda w", decay_value, 1, has_decay},
    TN_EXPLAIN_END};

const tn_optim_def TN_OPTIM_DEF(muon) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "muon",
    .summary = "orthogonal steps for matrices, adamw for everything else",
    .source = "Jordan et al., kellerjordan.github.io/posts/muon; torch.optim.Muon",
    .hp_size = sizeof(muon_hp),
    .hp = muon_opts,
    .scope = TN_TENSOR,
    .slots = muon_slots,
    .scratch = muon_scratch,
    .update = muon_update,
    .shrink = muon_shrink,
    .explain = muon_explain,
    .takes = muon_takes,
    .rest = "adamw"};

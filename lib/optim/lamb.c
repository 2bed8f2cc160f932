/* SPDX-License-Identifier: MIT */
/*
 * LAMB (You et al., arXiv:1904.00962, Algorithm 2, with phi(x) = x), as optax.lamb: Adam's step and its decay, made as large
 * as the weights of the tensor times the rate.
 *
 *   m = beta1 m + (1 - beta1) g
 *   v = beta2 v + ((1 - beta2) g) g
 *   u = m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + lambda w
 *   w = w - lr_t |w| / |u| u         norms of the whole tensor; the ratio is 1 where one of them is 0
 *
 * The ratio has to be known before the first weight moves, so a step walks twice over memory: reduce moves m and v,
 * update the weights. It finds u in scratch where a tensor fits a cache; of a larger one it makes u again from m and v, as
 * memory is slower than that.
 */
#include "optim.h"

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
} lamb_hp;

static const tn_opt lamb_opts[] = {
    TN_OPT_LR(lamb_hp, 1e-3),
    TN_OPT_BETA(lamb_hp, beta1, 0.9, "decay of the average of gradients"),
    TN_OPT_BETA(lamb_hp, beta2, 0.999, "decay of the average of squared gradients"),
    TN_OPT_REAL(lamb_hp, eps, 1e-6, 0, 1, 0, "added to the root of that average, after bias correction"),
    TN_OPT_REAL(lamb_hp, weight_decay, 0, 0, 1e6, 0,
                "lambda of the decay, a part of the step that is scaled"),
    TN_OPT_END};

enum { FIRST, SECOND };
enum { RATIO }; /* of own */

/* The norms are summed in so many pieces of a tensor at most, cut by its size alone; a small tensor is one. */
enum { PIECES = 64, LEAST_PIECE = 4096, ALONE = 16384 };
/*
 * Squares are summed in tn_real over so many elements, 16 to a lane, and on in double: to widen each would cost as much as
 * the rest of the step. FAINT keeps the first sums from being subnormal; a sum that it or an overflow could spoil, as that
 * of tiny or no weights, is made again in double alone.
 */
enum { BLOCK = 16 * TN_LANES };
#define FAINT 0x1p-100
#define LEAST 0x1p-60 /* mean square, against FAINT / 16 */

typedef struct {
    double w[PIECES], u[PIECES]; /* sums of squares */
    tn_real step[];              /* u of each weight, up to KEPT */
} lamb_scratch;
enum { KEPT = 1 << 18 };

static int lamb_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    (void)hp;
    out[FIRST] = (tn_slot){"m", len, 0};
    out[SECOND] = (tn_slot){"v", len, 0};
    return 2;
}

static size_t lamb_scratch_size(const void *hp, int nd, const int *dim) {
    const size_t n = tn_elements(nd, dim);
    (void)hp;
    return sizeof(lamb_scratch) + (n <= KEPT ? n * sizeof(tn_real) : 0);
}

typedef struct {
    tn_real l2, beta1, one_minus_beta1, beta2, one_minus_beta2, eps, corr, root_corr;
} lamb_coef;

static lamb_coef coefficients(const lamb_hp *h, const tn_tick *k, const tn_opt_tensor *p) {
    return (lamb_coef){.l2 = tn_l2_of(h->weight_decay, k, p),
                       .beta1 = (tn_real)h->beta1,
                       .one_minus_beta1 = (tn_real)(1 - h->beta1),
                       .beta2 = (tn_real)h->beta2,
                       .one_minus_beta2 = (tn_real)(1 - h->beta2),
                       .eps = (tn_real)h->eps,
                       .corr = (tn_real)(1 / (1 - tn_exact_powi(h->beta1, k->t))),
                       .root_corr = (tn_real)(1 / sqrt(1 - tn_exact_powi(h->beta2, k->t)))};
}

typedef struct {
    V w, u;
} lamb_lanes;

static inline V direction(const lamb_coef c, V m, V v, V w) {
    const V root = vfma(vsqrt(v), vset1(c.root_corr), vset1(c.eps));
    return vpenalized(vset1(c.corr) * vover_root(m, root), c.l2, w);
}

/* Moves m and v; leaves u where step is not NULL. */
static inline __attribute__((always_inline)) lamb_lanes lamb_step(const lamb_coef c, const tn_opt_tensor p,
                                                                  tn_real *step, size_t i, size_t n) {
    const V w = vget(p.w + i, n), g = vget(p.g + i, n);
    const V m = vsettled(vfma(vset1(c.beta1), vget(p.slot[FIRST] + i, n), vset1(c.one_minus_beta1) * g));
    const V v = vflush(vfma(vset1(c.beta2), vget(p.slot[SECOND] + i, n), vsquared(c.one_minus_beta2, g)));
    const V u = direction(c, m, v, w);
    vput(p.slot[FIRST] + i, n, m), vput(p.slot[SECOND] + i, n, v);
    if (step) vput(step + i, n, u);
    return (lamb_lanes){w, u};
}

static inline void add_lanes(double *lane, V sum) {
    tn_real t[VL];
    vstore(t, sum);
    for (int l = 0; l < VL; l++) lane[l] += (double)t[l];
}

/* [lo, hi), of whole TN_LANES: every vector whose elements belong to the same lanes, then those of the next lanes. */
static inline __attribute__((always_inline)) void measure_block(const lamb_coef c, const tn_opt_tensor p,
                                                                tn_real *step, double of_w[TN_LANES],
                                                                double of_u[TN_LANES], size_t lo, size_t hi) {
    for (size_t lane = 0; lane < TN_LANES; lane += VL) {
        lamb_lanes sum = {vset1((tn_real)FAINT), vset1((tn_real)FAINT)};
        for (size_t i = lo + lane; i < hi; i += TN_LANES) {
            const lamb_lanes x = lamb_step(c, p, step, i, VL);
            sum.w = vfma(x.w, x.w, sum.w), sum.u = vfma(x.u, x.u, sum.u);
        }
        add_lanes(of_w + lane, sum.w), add_lanes(of_u + lane, sum.u);
    }
}
/* What is left at the end of a piece. */
TN_STEP measure_rest(const lamb_coef c, const tn_opt_tensor p, tn_real *step, double *of_w, double *of_u,
                     size_t i, size_t n) {
    const lamb_lanes x = lamb_step(c, p, step, i, n);
    vadd_squares(of_w, x.w, i, n), vadd_squares(of_u, x.u, i, n);
}

typedef struct {
    lamb_coef c;
    const tn_opt_tensor *p;
    size_t piece;
} lamb_job;

static void measure_piece(void *arg, size_t lo, size_t hi) {
    const lamb_job *j = arg;
    const lamb_coef c = j->c;
    const tn_opt_tensor p = *j->p;
    lamb_scratch *to = p.scratch;
    double of_w[TN_LANES] = {0}, of_u[TN_LANES] = {0};
    const size_t whole = lo + (hi - lo) / TN_LANES * TN_LANES;
    for (size_t at = lo; at < whole; at += BLOCK) {
        const size_t end = whole - at < BLOCK ? whole : at + BLOCK;
        if (p.n <= KEPT)
            measure_block(c, p, to->step, of_w, of_u, at, end);
        else
            measure_block(c, p, NULL, of_w, of_u, at, end);
    }
    TN_EACH_VECTOR(whole, hi, measure_rest, c, p, p.n <= KEPT ? to->step : NULL, of_w, of_u);
    to->w[lo / j->piece] = tn_add_lanes(of_w), to->u[lo / j->piece] = tn_add_lanes(of_u);
}

TN_STEP square(double *lane, const tn_real *x, size_t i, size_t n) {
    vadd_squares(lane, vget(x + i, n), i, n);
}
TN_STEP square_again(double *lane, const lamb_coef c, const tn_opt_tensor p, size_t i, size_t n) {
    const V m = vget(p.slot[FIRST] + i, n), v = vget(p.slot[SECOND] + i, n);
    vadd_squares(lane, direction(c, m, v, vget(p.w + i, n)), i, n);
}

static double total(const double *sum, size_t n) {
    double all = 0;
    for (size_t i = 0; i < n; i++) all += sum[i];
    return all;
}
static int is_spoilt(double sum, size_t n) {
    return !(sum >= LEAST * (double)n && sum < HUGE_VAL);
}

static void lamb_reduce(const void *hp, const tn_tick *k, const tn_opt_tensor *p, double acc[]) {
    lamb_job j = {.c = coefficients(hp, k, p), .p = p, .piece = p->n};
    const lamb_scratch *from = p->scratch;
    (void)acc;
    if (p->n > ALONE) {
        j.piece = (p->n + PIECES * TN_LANES - 1) / (PIECES * TN_LANES) * TN_LANES;
        if (j.piece < LEAST_PIECE) j.piece = LEAST_PIECE;
    }
    tn_parallel_range(p->n, j.piece, measure_piece, &j);
    const size_t pieces = (p->n + j.piece - 1) / j.piece;
    double w = total(from->w, pieces), u = total(from->u, pieces);
    if (is_spoilt(w, p->n)) {
        double lane[TN_LANES] = {0};
        TN_EACH_VECTOR(0, p->n, square, lane, p->w);
        w = tn_add_lanes(lane);
    }
    if (is_spoilt(u, p->n)) {
        double lane[TN_LANES] = {0};
        if (p->n <= KEPT)
            TN_EACH_VECTOR(0, p->n, square, lane, from->step);
        else
            TN_EACH_VECTOR(0, p->n, square_again, lane, j.c, *p);
        u = tn_add_lanes(lane);
    }
    p->own[RATIO] = w == 0 || u == 0 ? 1 : sqrt(w) / sqrt(u);
}

TN_STEP move(tn_real *w, const tn_real *step, tn_real rate, size_t i, size_t n) {
    vput(w + i, n, vfma(vset1(-rate), vget(step + i, n), vget(w + i, n)));
}
TN_STEP move_again(const lamb_coef c, const tn_opt_tensor p, tn_real rate, size_t i, size_t n) {
    const V w = vget(p.w + i, n), m = vget(p.slot[FIRST] + i, n), v = vget(p.slot[SECOND] + i, n);
    vput(p.w + i, n, vfma(vset1(-rate), direction(c, m, v, w), w));
}

static void lamb_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const lamb_scratch *from = p->scratch;
    const lamb_coef c = coefficients(hp, k, p);
    const tn_real rate = (tn_real)(((const lamb_hp *)hp)->lr * k->lr_mul * p->own[RATIO]);
    if (p->n <= KEPT)
        TN_EACH_VECTOR(lo, hi, move, p->w, from->step, rate);
    else
        TN_EACH_VECTOR(lo, hi, move_again, c, *p, rate);
}

/* Not a factor that all tensors share, so no shrink: of the step, rate lambda w is the decay's. */
static void lamb_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                            const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const lamb_hp *h = hp;
    const double s = h->lr * k->lr_mul * p->own[RATIO] * h->weight_decay * k->wd_mul;
    (void)moment;
    for (size_t i = lo; i < hi; i++) part[i] = (tn_real)(-s * (double)old[i]);
}

/* ---- tern explain ---- */

static int has_decay(const void *hp) {
    return ((const lamb_hp *)hp)->weight_decay != 0;
}
TN_VALUE(first_corrected) {
    return (double)p->slot[FIRST][0] / (1 - tn_exact_powi(((const lamb_hp *)hp)->beta1, k->t));
}
TN_VALUE(second_corrected) {
    return (double)p->slot[SECOND][0] / (1 - tn_exact_powi(((const lamb_hp *)hp)->beta2, k->t));
}
TN_VALUE(ratio) {
    return p->own[RATIO];
}
TN_VALUE(adaptive_part) {
    const lamb_hp *h = hp;
    const double u = first_corrected(hp, k, old, p) / (sqrt(second_corrected(hp, k, old, p)) + h->eps);
    return -h->lr * k->lr_mul * p->own[RATIO] * u;
}
TN_VALUE(decay_value) {
    const lamb_hp *h = hp;
    return tn_shrunk_by(h->lr * k->lr_mul * p->own[RATIO] * h->weight_decay * k->wd_mul, old);
}
static const tn_explain lamb_explain[] = {
    {"m", "beta1 m + (1 - beta1) g", NULL, 0, NULL},
    {"v", "beta2 v + (1 - beta2) g g", NULL, 0, NULL},
    {"m^", "m / (1 - beta1^t)", first_corrected, 0, NULL},
    {"v^", "v / (1 - beta2^t)", second_corrected, 0, NULL},
    {"ratio", "|w| / |u|, u = m^ / (sqrt(v^) + eps) + lambda w; of one weight here", ratio, 0, NULL},
    {"adaptive part", "-lr_t ratio m^ / (sqrt(v^) + eps)", adaptive_part, 1, NULL},
    {"decay part", "-lr_t ratio lambda w", decay_value, 1, has_decay},
    TN_EXPLAIN_END};

const tn_optim_def TN_OPTIM_DEF(lamb) = {
    .abi = TN_ABI,
    .size = sizeof(tn_optim_def),
    .name = "lamb",
    .summary = "Adam's step as large as the tensor's weights; for large batches",
    .source = "You et al., arXiv:1904.00962; optax.lamb",
    .hp_size = sizeof(lamb_hp),
    .hp = lamb_opts,
    .scope = TN_ELEMENT,
    .slots = lamb_slots,
    .scratch = lamb_scratch_size,
    .reduce = lamb_reduce,
    .update = lamb_update,
    .decay_part = lamb_decay_part,
    .penalty = tn_no_penalty,
    .explain = lamb_explain};

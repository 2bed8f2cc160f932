/* SPDX-License-Identifier: MIT */
/*
 * Schedule-free AdamW and SGD (Defazio et al., arXiv:2405.15682; the authors' AdamWScheduleFree and SGDScheduleFree): no
 * schedule that knows the end, an average of the iterates in its place. The weights that train are y, between the iterates z
 * and their average x; x is evaluated.
 *
 *   l_t = lr_t min(1, t / warmup_steps),  q_t = t^r max(l_1 ... l_t)^weight_lr_power,  c = q_t / (q_1 + ... + q_t)
 *   v   = beta2 v + ((1 - beta2) g) g                            adamw
 *   u   = g / (sqrt(v / (1 - beta2^t)) + eps) + lambda y         sgd: u = g + lambda y
 *   y   = y + c (z - y) - l_t (1 - beta (1 - c)) u               beta: beta1, of sgd momentum
 *   z   = z - l_t u
 *   x   = y + (1 - 1 / beta) (z - y)
 */
#include "optim.h"

typedef struct {
    double lr, beta1, beta2, eps, momentum, weight_decay, r, weight_lr_power;
    long warmup_steps;
} free_hp;

#define AVERAGE_OPTIONS                                                                                    \
    TN_OPT_REAL(free_hp, weight_decay, 0, 0, 1e6, 0, "lambda of the decay, of the weights that train"),    \
        TN_OPT_INT(free_hp, warmup_steps, 0, 0, 1e9, "steps in which the rate grows to lr"),               \
        TN_OPT_REAL(free_hp, r, 0, 0, 100, 0, "a step counts in the average as its number to this power"), \
        TN_OPT_REAL(free_hp, weight_lr_power, 2, 0, 100, 0, "and as the largest rate so far to this power")

static const tn_opt adamw_opts[] = {
    TN_OPT_LR(free_hp, 2.5e-3),
    TN_OPT_REAL(free_hp, beta1, 0.9, 0, 1, TN_OPEN_MIN | TN_OPEN_MAX,
                "part of the average in the weights that train"),
    TN_OPT_BETA(free_hp, beta2, 0.999, "decay of the average of squared gradients"),
    TN_OPT_REAL(free_hp, eps, 1e-8, 0, 1, 0, "added to the root of that average, after bias correction"),
    AVERAGE_OPTIONS,
    TN_OPT_END};
static const tn_opt sgd_opts[] = {TN_OPT_LR(free_hp, 1),
                                  TN_OPT_REAL(free_hp, momentum, 0.9, 0, 1, TN_OPEN_MIN | TN_OPEN_MAX,
                                              "part of the average in the weights that train"),
                                  AVERAGE_OPTIONS, TN_OPT_END};

enum { ITERATE, SECOND };
enum { TOTAL, LARGEST, PART }; /* of shared: q_1 + ... + q_t, the largest rate, c */

static int adamw_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    (void)hp;
    out[ITERATE] = (tn_slot){"z", len, 0};
    out[SECOND] = (tn_slot){"v", len, 0};
    return 2;
}

static int sgd_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    (void)hp;
    out[ITERATE] = (tn_slot){"z", tn_elements(nd, dim), 0};
    return 1;
}

static void free_begin(const void *hp, tn_opt_tensor *p) {
    (void)hp;
    memcpy(p->slot[ITERATE], p->w, p->n * sizeof *p->w);
}

static double beta_of(const free_hp *h) {
    return h->beta1 + h->momentum; /* one of them is 0 */
}

static double rate_at(const free_hp *h, const tn_tick *k) {
    const double lr = h->lr * k->lr_mul;
    return k->t < h->warmup_steps ? lr * ((double)k->t / (double)h->warmup_steps) : lr;
}

static void free_decide(const void *hp, const tn_tick *k, const double acc[], double shared[]) {
    const free_hp *h = hp;
    (void)acc;
    shared[LARGEST] = fmax(shared[LARGEST], rate_at(h, k));
    const double q = tn_exact_pow((double)k->t, h->r) * tn_exact_pow(shared[LARGEST], h->weight_lr_power);
    shared[TOTAL] += q;
    shared[PART] = shared[TOTAL] > 0 ? q / shared[TOTAL] : 0;
}

typedef struct {
    tn_real l2, beta2, one_minus_beta2, eps, root_corr, part, rate_y, rate_z;
} free_coef;

static free_coef coefficients(const free_hp *h, const tn_tick *k, const tn_opt_tensor *p) {
    const double rate = rate_at(h, k), c = p->shared[PART], beta = beta_of(h);
    return (free_coef){.l2 = tn_l2_of(h->weight_decay, k, p),
                       .beta2 = (tn_real)h->beta2,
                       .one_minus_beta2 = (tn_real)(1 - h->beta2),
                       .eps = (tn_real)h->eps,
                       .root_corr = (tn_real)(1 / sqrt(1 - tn_exact_powi(h->beta2, k->t))),
                       .part = (tn_real)c,
                       .rate_y = (tn_real)(rate * (1 - beta * (1 - c))),
                       .rate_z = (tn_real)rate};
}

TN_STEP free_step(const free_coef c, const tn_opt_tensor p, int scaled, size_t i, size_t n) {
    const V y = vget(p.w + i, n), z = vget(p.slot[ITERATE] + i, n);
    V u = vget(p.g + i, n);
    if (scaled) {
        const V v =
            vflush(vfma(vset1(c.beta2), vget(p.slot[SECOND] + i, n), vset1(c.one_minus_beta2) * u * u));
        vput(p.slot[SECOND] + i, n, v);
        u = vover_root(u, vfma(vsqrt(v), vset1(c.root_corr), vset1(c.eps)));
    }
    u = vpenalized(u, c.l2, y);
    vput(p.slot[ITERATE] + i, n, vflush(vfma(vset1(-c.rate_z), u, z)));
    vput(p.w + i, n, vfma(vset1(-c.rate_y), u, vfma(vset1(c.part), z - y, y)));
}

/* adamw has no momentum and sgd no beta1: the option that it does not have is 0. */
static int scales(const void *hp) {
    return ((const free_hp *)hp)->momentum == 0;
}
static int does_not_scale(const void *hp) {
    return !scales(hp);
}

static void free_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const free_coef c = coefficients(hp, k, p);
    if (scales(hp))
        TN_EACH_VECTOR(lo, hi, free_step, c, *p, 1);
    else
        TN_EACH_VECTOR(lo, hi, free_step, c, *p, 0);
}

static void free_eval(const void *hp, const tn_tick *k, const tn_opt_tensor *p, tn_real *out) {
    const tn_real f = (tn_real)(1 - 1 / beta_of(hp)), *z = p->slot[ITERATE], *y = p->w;
    (void)k;
    for (size_t i = 0; i < p->n; i++) out[i] = y[i] + f * (z[i] - y[i]);
}

static void free_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                            const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const free_coef c = coefficients(hp, k, p);
    const double of_step = (double)c.rate_y * (double)c.l2;
    (void)moment;
    for (size_t i = lo; i < hi; i++) part[i] = (tn_real)(-of_step * (double)old[i]);
}

/* ---- tern explain ---- */

static int has_decay(const void *hp) {
    return ((const free_hp *)hp)->weight_decay != 0;
}
TN_VALUE(share) {
    return p->shared[PART];
}
TN_VALUE(second_corrected) {
    return (double)p->slot[SECOND][0] / (1 - tn_exact_powi(((const free_hp *)hp)->beta2, k->t));
}
TN_VALUE(average_part) {
    return p->shared[PART] * ((double)old->slot[ITERATE][0] - (double)old->w[0]);
}
TN_VALUE(size_of_step) {
    return rate_at(hp, k) * (1 - beta_of(hp) * (1 - p->shared[PART]));
}
TN_VALUE(gradient_part) {
    const double g = (double)old->g[0];
    return -size_of_step(hp, k, old, p)
           * (scales(hp) ? g / (sqrt(second_corrected(hp, k, old, p)) + ((const free_hp *)hp)->eps) : g);
}
TN_VALUE(decay_value) {
    return tn_shrunk_by(size_of_step(hp, k, old, p) * ((const free_hp *)hp)->weight_decay * k->wd_mul, old);
}
static const tn_explain free_explain[] = {
    {"v", "beta2 v + (1 - beta2) g g", NULL, 0, scales},
    {"v^", "v / (1 - beta2^t)", second_corrected, 0, scales},
    {"c", "this step's share in the average, q_t / (q_1 + ... + q_t)", share, 0, NULL},
    {"s", "l_t (1 - beta1 (1 - c)), l_t: lr_t warmed up", size_of_step, 0, scales},
    {"s", "l_t (1 - momentum (1 - c)), l_t: lr_t warmed up", size_of_step, 0, does_not_scale},
    {"average part", "c (z - w), with z before the step", average_part, 1, NULL},
    {"adaptive part", "-s g / (sqrt(v^) + eps)", gradient_part, 1, scales},
    {"gradient part", "-s g", gradient_part, 1, does_not_scale},
    {"decay part", "-s lambda w", decay_value, 1, has_decay},
    {"z", "z - l_t (g / (sqrt(v^) + eps) + lambda w)", NULL, 0, scales},
    {"z", "z - l_t (g + lambda w)", NULL, 0, does_not_scale},
    TN_EXPLAIN_END};

#define FREE_DEF(which)                                                                           \
    .abi = TN_ABI, .size = sizeof(tn_optim_def), .name = "schedulefree_" #which,                  \
    .source = "Defazio et al., arXiv:2405.15682", .hp_size = sizeof(free_hp), .hp = which##_opts, \
    .scope = TN_ELEMENT, .slots = which##_slots, .begin = free_begin, .decide = free_decide,      \
    .update = free_update, .eval_weights = free_eval, .decay_part = free_decay_part,              \
    .penalty = tn_no_penalty, .explain = free_explain

const tn_optim_def TN_OPTIM_DEF(schedulefree_adamw) = {
    FREE_DEF(adamw), .summary = "AdamW that averages its iterates in the place of a schedule"};
const tn_optim_def TN_OPTIM_DEF(schedulefree_sgd) = {
    FREE_DEF(sgd), .summary = "SGD that averages its iterates in the place of a schedule"};

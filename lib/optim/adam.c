/* SPDX-License-Identifier: MIT */
/*
 * Adam, AdamL2 and AdamW: one step, three definitions, which differ only in where the decay goes.
 *
 *   adam    Kingma and Ba, arXiv:1412.6980, Algorithm 1: m and v from g, no decay at all
 *   adaml2  m and v from g + lambda w, the gradient with the penalty lambda/2 |w|^2: the weight_decay of
 *           torch.optim.Adam
 *   adamw   Loshchilov and Hutter, arXiv:1711.05101: adam's step, and beside it w -= s w of the w before it;
 *             coupled      s = lr_t lambda, as torch.optim.AdamW
 *             independent  s = s_t lambda, s_t the schedule's multiplier: Algorithm 2 there
 *             normalized   as independent, with lambda sqrt(b / (B T)) in the place of lambda, for b images a
 *                          step, B training images and T epochs: appendix B.1 there
 *             corrected    s = lr_t^2 / lr lambda, lr the largest rate: the norm that weights settle at does not grow as
 *                          the rate falls (Defazio, arXiv:2506.02285; timm's corrected weight decay)
 *           cautious (Chen et al., arXiv:2510.12402): only weights that adam's step makes smaller, or leaves, decay: s w
 *           where (m^ / root) w >= 0. It goes with each form of the decay.
 *
 * eps stands outside the root, after bias correction. With lambda = 0 all three give the same bits. amsgrad
 * (Reddi et al., ICLR 2018, as in PyTorch) divides by the largest v so far. One step:
 *
 *   g'   = g + lambda w                          adaml2
 *   m    = beta1 m + (1 - beta1) g'
 *   v    = beta2 v + ((1 - beta2) g') g'         in this order: g' g' alone would underflow for |g'| < 1e-19
 *   vmax = max(vmax, v)                          amsgrad; else v in its place
 *   w'   = w - s w                               adamw
 *   w    = w' - lr_t / (1 - beta1^t) (m / (sqrt(vmax) / sqrt(1 - beta2^t) + eps))
 *
 * The rate comes last, inside the fused multiply-add: times m alone it would be subnormal for a small m.
 */
#include "optim.h"

enum { COUPLED, INDEPENDENT, NORMALIZED, CORRECTED };
enum { FIRST, SECOND, LARGEST };

typedef struct {
    double lr, beta1, beta2, eps, weight_decay;
    int amsgrad, decay, cautious;
} adam_hp;

#define ADAM_OPTIONS(amsgrad_default)                                                                       \
    TN_OPT_LR(adam_hp, 1e-3),                                                                               \
        TN_OPT_REAL(adam_hp, beta1, 0.9, 0, 1, TN_OPEN_MAX, "decay of the average of gradients"),           \
        TN_OPT_REAL(adam_hp, beta2, 0.999, 0, 1, TN_OPEN_MAX, "decay of the average of squared gradients"), \
        TN_OPT_REAL(adam_hp, eps, 1e-8, 0, 1, 0,                                                            \
                    "added to the root of that average, after bias correction"),                            \
        TN_OPT_BOOL(adam_hp, amsgrad, amsgrad_default, "divides by the largest average of squares so far")

static const tn_opt adam_opts[] = {ADAM_OPTIONS(0), TN_OPT_END};
static const tn_opt amsgrad_opts[] = {ADAM_OPTIONS(1), TN_OPT_END};
static const tn_opt adaml2_opts[] = {ADAM_OPTIONS(0), TN_OPT_L2(adam_hp, 1e-4), TN_OPT_END};
static const tn_opt adamw_opts[] = {
    ADAM_OPTIONS(0),
    TN_OPT_REAL(adam_hp, weight_decay, 1e-2, 0, 1e6, 0, "lambda of the decay beside the step"),
    TN_OPT_WORD(
        adam_hp, decay, "coupled|independent|normalized|corrected", COUPLED,
        "coupled: w -= lr lambda w; independent: w -= lambda w; normalized: as independent, with "
        "lambda sqrt(batch / (images epochs)); a schedule multiplies all three; corrected: as coupled, "
        "with the schedule's multiplier squared"),
    TN_OPT_BOOL(adam_hp, cautious, 0, "only weights that the step does not move away from 0 decay"),
    TN_OPT_END};

static int amsgrad_check(void *hp, uint64_t given, tn_err *e) {
    (void)given;
    if (((const adam_hp *)hp)->amsgrad) return 0;
    return tn_fail(e, "optimizer amsgrad: amsgrad=off is plain adam; use the optimizer adam");
}

static int adamw_check(void *hp, uint64_t given, tn_err *e) {
    const adam_hp *h = hp;
    (void)given;
    if (h->decay == COUPLED || h->decay == CORRECTED || h->weight_decay <= 1) return 0;
    return tn_fail(
        e,
        "optimizer adamw: weight_decay=%g is out of range with decay=%s, which takes that part of each "
        "weight away in a step; it must be 0 <= weight_decay <= 1",
        h->weight_decay, h->decay == INDEPENDENT ? "independent" : "normalized");
}

static int adam_slots(const void *hp, int nd, const int *dim, tn_slot out[]) {
    const size_t len = tn_elements(nd, dim);
    out[FIRST] = (tn_slot){"m", len, 0};
    out[SECOND] = (tn_slot){"v", len, 0};
    out[LARGEST] = (tn_slot){"vmax", len, 0};
    return ((const adam_hp *)hp)->amsgrad ? 3 : 2;
}

typedef struct {
    tn_real beta1, one_minus_beta1, beta2, one_minus_beta2, l2, shrink, eps;
    tn_real rate, root_corr; /* lr_t / (1 - beta1^t), 1 / sqrt(1 - beta2^t) */
} adam_coef;

/* What of the weight is left: with cautious, all of it where the step goes away from 0. */
static inline V vdecayed(V w, V step, tn_real shrink, int cautious) {
    const V less = vshrunk(w, shrink);
    return cautious ? vsel(vlt(vsign(step) * vsign(w), vset1(0)), w, less) : less;
}

TN_STEP adam_step(const adam_coef c, const tn_opt_tensor p, int amsgrad, int cautious, size_t i, size_t n) {
    V w = vget(p.w + i, n), g = vpenalized(vget(p.g + i, n), c.l2, w);
    V m = vfma(vset1(c.beta1), vget(p.slot[FIRST] + i, n), vset1(c.one_minus_beta1) * g);
    V v = vfma(vset1(c.beta2), vget(p.slot[SECOND] + i, n), vsquared(c.one_minus_beta2, g));
    m = vsettled(m), v = vflush(v);
    vput(p.slot[FIRST] + i, n, m), vput(p.slot[SECOND] + i, n, v);
    if (amsgrad) {
        v = vflush(vmax(vget(p.slot[LARGEST] + i, n), v)); /* this way round NaN gets through */
        vput(p.slot[LARGEST] + i, n, v);
    }
    V root = vfma(vsqrt(v), vset1(c.root_corr), vset1(c.eps));
    const V step = vover_root(m, root);
    vput(p.w + i, n, vfma(vset1(-c.rate), step, vdecayed(w, step, c.shrink, cautious)));
}

static void run(const adam_hp *h, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi, double l2,
                double shrink) {
    const int decays = !(p->flags & TN_NO_DECAY);
    const double corr1 = 1 - tn_exact_powi(h->beta1, k->t), corr2 = 1 - tn_exact_powi(h->beta2, k->t);
    const adam_coef c = {.beta1 = (tn_real)h->beta1,
                         .one_minus_beta1 = (tn_real)(1 - h->beta1),
                         .beta2 = (tn_real)h->beta2,
                         .one_minus_beta2 = (tn_real)(1 - h->beta2),
                         .l2 = decays ? (tn_real)l2 : 0,
                         .shrink = decays ? (tn_real)shrink : 0,
                         .eps = (tn_real)h->eps,
                         .rate = (tn_real)(h->lr * k->lr_mul / corr1),
                         .root_corr = (tn_real)(1 / sqrt(corr2))};
    if (h->amsgrad && h->cautious)
        TN_EACH_VECTOR(lo, hi, adam_step, c, *p, 1, 1);
    else if (h->amsgrad)
        TN_EACH_VECTOR(lo, hi, adam_step, c, *p, 1, 0);
    else if (h->cautious)
        TN_EACH_VECTOR(lo, hi, adam_step, c, *p, 0, 1);
    else
        TN_EACH_VECTOR(lo, hi, adam_step, c, *p, 0, 0);
}

static void adam_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    run(hp, k, p, lo, hi, 0, 0);
}

static void adaml2_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    const adam_hp *h = hp;
    run(h, k, p, lo, hi, h->weight_decay * k->wd_mul, 0);
}

/* sqrt(b / (B T)), T = total / steps_per_epoch; without the number of images all batches count as full. */
static double normalization(const tn_tick *k) {
    if (k->images <= 0 || k->steps_per_epoch <= 0) return sqrt(1 / (double)k->total);
    return sqrt((double)k->batch * (double)k->steps_per_epoch / ((double)k->images * (double)k->total));
}

static double decay_factor(const void *hp, const tn_tick *k) {
    const adam_hp *h = hp;
    const double s = h->weight_decay * k->lr_mul * k->wd_mul;
    switch (h->decay) {
    case INDEPENDENT:
        return s;
    case NORMALIZED:
        return s * normalization(k);
    case CORRECTED:
        return s * h->lr * k->lr_mul;
    default:
        return s * h->lr;
    }
}

/* Cautious decay is not one factor for all weights; adamw_decay_part tells it. */
static double adamw_shrink(const void *hp, const tn_tick *k) {
    return ((const adam_hp *)hp)->cautious ? 0 : decay_factor(hp, k);
}

static void adamw_decide(const void *hp, const tn_tick *k, const double acc[], double shared[]) {
    (void)acc, (void)shared;
    TN_CHECK(NULL, ((const adam_hp *)hp)->decay != NORMALIZED || k->total > 0,
             "adamw: decay=normalized needs the planned number of steps in tn_tick.total");
}

static void adamw_update(const void *hp, const tn_tick *k, const tn_opt_tensor *p, size_t lo, size_t hi) {
    run(hp, k, p, lo, hi, 0, decay_factor(hp, k));
}

/* ---- tern explain ---- */

static int has_decay(const void *hp) {
    return ((const adam_hp *)hp)->weight_decay != 0;
}
static int is_coupled(const void *hp) {
    return has_decay(hp) && ((const adam_hp *)hp)->decay == COUPLED;
}
static int is_independent(const void *hp) {
    return has_decay(hp) && ((const adam_hp *)hp)->decay == INDEPENDENT;
}
static int is_normalized(const void *hp) {
    return has_decay(hp) && ((const adam_hp *)hp)->decay == NORMALIZED;
}

static int is_corrected(const void *hp) {
    return has_decay(hp) && ((const adam_hp *)hp)->decay == CORRECTED;
}

TN_VALUE(penalized) {
    return tn_penalized(((const adam_hp *)hp)->weight_decay, k, old);
}
TN_VALUE(first_corrected) {
    return (double)p->slot[FIRST][0] / (1 - tn_exact_powi(((const adam_hp *)hp)->beta1, k->t));
}
TN_VALUE(second_corrected) {
    const adam_hp *h = hp;
    return (double)p->slot[h->amsgrad ? LARGEST : SECOND][0] / (1 - tn_exact_powi(h->beta2, k->t));
}
TN_VALUE(adaptive_part) {
    const adam_hp *h = hp;
    const double root = sqrt(second_corrected(hp, k, old, p)) + h->eps;
    return -h->lr * k->lr_mul * first_corrected(hp, k, old, p) / root;
}
static int is_spared(const adam_hp *h, tn_real m, tn_real w) {
    return h->cautious && ((m < 0 && w > 0) || (m > 0 && w < 0));
}
TN_VALUE(decay_part) {
    return is_spared(hp, p->slot[FIRST][0], old->w[0]) ? 0 : tn_shrunk_by(decay_factor(hp, k), old);
}
#define ADAM_EXPLAIN(G)                                                        \
    {"m", "beta1 m + (1 - beta1) " G, NULL, 0, NULL},                          \
        {"v", "beta2 v + (1 - beta2) " G " " G, NULL, 0, NULL},                \
        {"vmax", "max(vmax, v), in the place of v below", NULL, 0, NULL},      \
        {"m^", "m / (1 - beta1^t)", first_corrected, 0, NULL},                 \
        {"v^", "v / (1 - beta2^t)", second_corrected, 0, NULL}, {              \
        "adaptive part", "-lr_t m^ / (sqrt(v^) + eps)", adaptive_part, 1, NULL \
    }
static const tn_explain adam_explain[] = {ADAM_EXPLAIN("g"), TN_EXPLAIN_END};
static const tn_explain adaml2_explain[] = {
    {"g'", "g + lambda w", penalized, 0, NULL}, ADAM_EXPLAIN("g'"), TN_EXPLAIN_END};
static const tn_explain adamw_explain[] = {
    ADAM_EXPLAIN("g"),
    {"decay part", "-lr_t lambda w", decay_part, 1, is_coupled},
    {"decay part", "-s_t lambda w", decay_part, 1, is_independent},
    {"decay part", "-s_t lambda sqrt(b / (B T)) w", decay_part, 1, is_normalized},
    {"decay part", "-lr_t^2 / lr lambda w", decay_part, 1, is_corrected},
    TN_EXPLAIN_END};

/* ---- the penalty's part of a step ---- */

static void adaml2_decay_track(const void *hp, const tn_tick *k, const tn_opt_tensor *p, tn_real *moment,
                               long past, size_t lo, size_t hi) {
    const adam_hp *h = hp;
    tn_track_average(h->beta1, h->weight_decay * k->wd_mul, p, moment, past, lo, hi);
}

TN_STEP adaml2_part_step(const adam_coef c, const tn_real *v, const tn_real *moment, tn_real *part, size_t i,
                         size_t n) {
    const V root = vfma(vsqrt(vget(v + i, n)), vset1(c.root_corr), vset1(c.eps));
    vput(part + i, n, vset1(-c.rate) * (vget(moment + i, n) / root));
}

static void adaml2_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                              const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const adam_hp *h = hp;
    const adam_coef c = {.rate = (tn_real)(h->lr * k->lr_mul / (1 - tn_exact_powi(h->beta1, k->t))),
                         .root_corr = (tn_real)(1 / sqrt(1 - tn_exact_powi(h->beta2, k->t))),
                         .eps = (tn_real)h->eps};
    const tn_real *v = p->slot[h->amsgrad ? LARGEST : SECOND];
    (void)old;
    TN_EACH_VECTOR(lo, hi, adaml2_part_step, c, v, moment, part);
}

static void adamw_decay_part(const void *hp, const tn_tick *k, const tn_opt_tensor *p, const tn_real *old,
                             const tn_real *moment, tn_real *part, size_t lo, size_t hi) {
    const double s = decay_factor(hp, k);
    (void)moment;
    for (size_t i = lo; i < hi; i++)
        part[i] = is_spared(hp, p->slot[FIRST][i], old[i]) ? 0 : (tn_real)(-s * (double)old[i]);
}

#define ADAM_DEF(name_)                                                                      \
    .abi = TN_ABI, .size = sizeof(tn_optim_def), .name = #name_, .hp_size = sizeof(adam_hp), \
    .hp = name_##_opts, .scope = TN_ELEMENT, .slots = adam_slots

const tn_optim_def TN_OPTIM_DEF(adam) = {ADAM_DEF(adam), .summary = "Adam, without weight decay",
                                         .source = "Kingma and Ba, arXiv:1412.6980, Algorithm 1",
                                         .update = adam_update, .explain = adam_explain};
const tn_optim_def TN_OPTIM_DEF(amsgrad) = {ADAM_DEF(amsgrad),
                                            .summary = "adam with amsgrad=on",
                                            .source = "Reddi, Kale and Kumar, ICLR 2018; torch.optim.Adam",
                                            .check = amsgrad_check,
                                            .update = adam_update,
                                            .explain = adam_explain};
const tn_optim_def TN_OPTIM_DEF(adaml2) = {ADAM_DEF(adaml2),
                                           .summary = "Adam whose moments see the gradient of an L2 penalty",
                                           .source = "torch.optim.Adam with weight_decay",
                                           .update = adaml2_update,
                                           .explain = adaml2_explain,
                                           .decay_track = adaml2_decay_track,
                                           .decay_part = adaml2_decay_part};
const tn_optim_def TN_OPTIM_DEF(adamw) = {
    ADAM_DEF(adamw),
    .summary = "Adam with weight decay beside the step",
    .source = "Loshchilov and Hutter, arXiv:1711.05101; torch.optim.AdamW",
    .check = adamw_check,
    .decide = adamw_decide,
    .update = adamw_update,
    .decay_part = adamw_decay_part,
    .shrink = adamw_shrink,
    .penalty = tn_no_penalty,
    .explain = adamw_explain};

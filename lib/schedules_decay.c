/* SPDX-License-Identifier: MIT */
/* Schedules that fall once: polynomial, warm-up-stable-decay. */
#include "schedules.h"
#include <math.h>

/* ---- polynomial ---- */

/* torch.optim.lr_scheduler.PolynomialLR: (1 - k / total)^power, then 0 */
typedef struct {
    long warmup, total;
    double power;
} polynomial_hp;

static double polynomial_mul(const void *hp, long k, long n) {
    const polynomial_hp *h = hp;
    const long total = h->total ? h->total : n;
    if (k >= total) return 0;
    return tn_exact_pow(1 - (double)k / (double)total, h->power);
}
static const tn_opt polynomial_opts[] = {
    TN_OPT_REAL(polynomial_hp, power, 1, 0, 100, TN_OPEN_MIN, "exponent; 1: a straight line"),
    TN_OPT_INT(polynomial_hp, total, 0, 0, 1e9,
               "steps until the rate is 0; 0: all of the run after the warm-up"),
    TN_OPT_WARMUP(polynomial_hp), TN_OPT_END};
const tn_schedule_def tn_schedule_def_polynomial = {TN_ABI,
                                                    sizeof(tn_schedule_def),
                                                    "polynomial",
                                                    "falls to 0 as a power of the steps that are left",
                                                    sizeof(polynomial_hp),
                                                    polynomial_opts,
                                                    polynomial_mul,
                                                    1,
                                                    .source = "torch PolynomialLR"};

/* ---- wsd ---- */

/*
 * Warm-up, stable, decay: Hu et al., arXiv:2404.06395; the shape 1 - sqrt: Haegele et al., arXiv:2405.18392. The last
 * m = round(decay n) of the n steps after the warm-up fall from 1 to end; at step j of them, x = j / m:
 *
 *   linear 1 - x    cosine (1 + cos(pi x)) / 2    sqrt 1 - sqrt(x)
 */
enum { SHAPE_LINEAR, SHAPE_COSINE, SHAPE_SQRT };
typedef struct {
    long warmup;
    double decay, end;
    int shape;
} wsd_hp;

static double wsd_mul(const void *hp, long k, long n) {
    const wsd_hp *h = hp;
    if (k >= n) return h->end;
    const double m = floor(h->decay * (double)n + 0.5), j = (double)k - ((double)n - m);
    if (j <= 0) return 1;
    const double x = j / m;
    const double left = h->shape == SHAPE_LINEAR   ? 1 - x
                        : h->shape == SHAPE_COSINE ? (1 + tn_exact_cos2pi(x / 2)) / 2
                                                   : 1 - sqrt(x);
    return h->end + (1 - h->end) * left;
}
static const tn_opt wsd_opts[] = {
    TN_OPT_REAL(wsd_hp, decay, 0.1, 0, 1, 0,
                "share of the steps after the warm-up in which the rate falls, the last ones"),
    TN_OPT_WORD(wsd_hp, shape, "linear|cosine|sqrt", SHAPE_LINEAR, "of the fall; sqrt: 1 - sqrt(x)"),
    TN_OPT_END_FACTOR(wsd_hp), TN_OPT_WARMUP(wsd_hp), TN_OPT_END};
const tn_schedule_def tn_schedule_def_wsd = {
    TN_ABI,
    sizeof(tn_schedule_def),
    "wsd",
    "warm-up, stable, decay: 1 until the last steps",
    sizeof(wsd_hp),
    wsd_opts,
    wsd_mul,
    1,
    .source = "Hu et al., arXiv:2404.06395; Haegele et al., arXiv:2405.18392 (shape sqrt)"};

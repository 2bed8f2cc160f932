/* SPDX-License-Identifier: MIT */
/* tern_stats.h: statistics for comparing two optimizers seed by seed.
 *
 * A comparison is n pairs: run i of A and run i of B share their seed (initial weights, data order).
 * Everything below is about the differences d[i] = a[i] - b[i], where higher is better (accuracies, as
 * fractions of 1). This header and its sources stand alone: plain C17, double precision, no state; every
 * function may be called from any thread. Memory is taken with malloc and released before return.
 *
 * Errors: functions that return int give 0, or a negative TN_STATS_* code and, where err is not NULL, a
 * message that says what was wrong. Results are untouched after an error. NaN and infinite inputs are
 * refused. */
#ifndef TERN_STATS_H
#define TERN_STATS_H

#include <stddef.h>
#include <stdint.h>

#ifndef TN_API
#if defined(__GNUC__)
#define TN_API __attribute__((visibility("default")))
#else
#define TN_API
#endif
#endif

#ifdef __cplusplus
extern "C" {
#endif

enum {
    TN_STATS_OK = 0,
    TN_STATS_NONFINITE = -1, /* an input is NaN or infinite, or so large that sums overflow */
    TN_STATS_RANGE = -2,     /* a count, level, margin or p-value outside its range */
    TN_STATS_NOMEM = -3
};
typedef struct {
    char msg[192];
} tn_stats_err;

/* A closed interval. [-INFINITY, INFINITY] means: so few pairs that no interval exists at this level. */
typedef struct {
    double lo, hi;
} tn_interval;

/* -- the sign-flip permutation test and its interval ----------------------------------------------------- */

enum {
    TN_SIGNFLIP_EXACT_MAX = 20, /* up to here all 2^n sign assignments are counted */
    TN_SIGNFLIP_DRAWS = 200000, /* beyond: that many, the observed one and 199,999 random ones */
    TN_BCA_RESAMPLES = 10000
};

/* Two-sided sign-flip test of H0 "d[0..n) is symmetric about 0", statistic |mean(d)| (Fisher 1935), and the
 * confidence intervals for the centre of symmetry that come from inverting it (Hartigan 1969, "typical
 * values").
 *
 *   scale   largest magnitude of the numbers that d was computed from, 0 if d are the data themselves.
 *           Sums of differences no larger than 1e-11 sum|d| + 4 n DBL_EPSILON scale count as 0, so that ties
 *           which decimal fractions hide from binary arithmetic (0.3 - 0.2 against 0.1) are ties.
 *   seed    used when n > TN_SIGNFLIP_EXACT_MAX only (splitmix64, top bit first).
 *   p       may be NULL: share of assignments with |mean| at least the observed one; never below 2/2^n
 *           (exact) or 1/200,000 (drawn).
 *   level   nlevel confidence levels in (0, 1), for example 0.95; ci[i] receives the interval for level[i].
 *           It is the set of shifts mu that the test on d - mu does not reject, rejection being p <= 1 -
 *           level: 0 lies outside ci[i] exactly when p <= 1 - level[i]. For exchangeable signs coverage is >=
 *           level.
 *
 * Time: n = 12 well under 1 ms, n = 20 some 20 ms; memory 16 * 2^(n-1) bytes, at most 8 MB. */
TN_API int tn_signflip(const double *d, int n, double scale, uint64_t seed, double *p, int nlevel,
                       const double *level, tn_interval *ci, tn_stats_err *err);

/* Fewest pairs for which the exact test can reject at this level: the least n with 2/2^n <= 1 - level (0.95:
 * 6; 0.99: 8). With fewer the interval is infinite whatever the data. level in (0, 1), else -1. */
TN_API int tn_signflip_pairs_needed(double level);

/* -- bootstrap ------------------------------------------------------------------------------------------- */

/* BCa bootstrap interval for the mean of d[0..n) (Efron 1987): TN_BCA_RESAMPLES resamples drawn by
 * splitmix64(seed) from the sorted data, so the order of d does not matter; acceleration by the jackknife;
 * percentiles by linear interpolation. At n = 12 a 95% interval covers 87 to 90%: show it, decide by another.
 * All values equal: [mean, mean]. n = 1: infinite. */
TN_API int tn_bca(const double *d, int n, double level, uint64_t seed, tn_interval *ci, tn_stats_err *err);

/* -- distributions and small intervals ------------------------------------------------------------------- */

TN_API double tn_normal_cdf(double x);
/* Quantiles: the x with P(X <= x) = p. p = 0 and 1 give -+infinity; p outside [0, 1], df <= 0 or NaN give
 * NaN. Student's t is inverted from the incomplete beta function (continued fraction, DLMF 8.17.22) and
 * agrees with SciPy to a relative 1e-12; df may be fractional; df = infinity is the normal distribution. */
TN_API double tn_normal_quantile(double p);
TN_API double tn_t_quantile(double p, double df);

/* Mean, standard deviation (n - 1) and Student-t interval of the mean of x[0..n): a table's "mean and 95%
 * interval". mean, sd, ci may be NULL. Not clipped to [0, 1]. Equal values: sd 0 and [mean, mean]. n = 1: sd
 * NaN, interval infinite. */
TN_API int tn_mean_interval(const double *x, int n, double level, double *mean, double *sd, tn_interval *ci,
                            tn_stats_err *err);

/* Wilson's score interval (1927) for a proportion: successes (halves allowed) out of n > 0. */
TN_API int tn_wilson(double successes, double n, double level, tn_interval *ci, tn_stats_err *err);

/* Holm's step-down adjustment (1979) of the m p-values of a family: with p sorted upwards, adjusted p_(i) =
 * max over j <= i of min(1, (m - j + 1) p_(j)); out keeps the order of p; out may be p. Rejecting where
 * out[i] <= alpha keeps the chance of any false rejection in the family at most alpha. */
TN_API int tn_holm(const double *p, int m, double *out, tn_stats_err *err);

/* -- the comparison of two optimizers -------------------------------------------------------------------- */

typedef enum { TN_UNDECIDED, TN_BETTER, TN_WORSE, TN_EQUIVALENT } tn_verdict;

/* Verdict from one simultaneous interval, in this order: wholly inside the open (-margin, margin):
 * equivalent; wholly above 0: better; wholly below 0: worse; else undecided. A bound within a relative 1e-9
 * of the margin is on it, so not inside. margin 0 never gives equivalence. side, if not NULL, receives +1 or
 * -1 when the interval excludes 0 (which an equivalent pair may do as well), else 0. */
TN_API tn_verdict tn_verdict_of(tn_interval ci, double margin, int *side);
TN_API const char *tn_verdict_word(tn_verdict); /* "undecided", "better", "worse", "equivalent" */

typedef struct {
    int n;                 /* pairs */
    int family;            /* m: comparisons that share the error rate */
    double level, margin;  /* as given */
    double mean_a, mean_b; /* means of the two columns */
    double mean, sd;       /* of d = a - b; sd with n - 1, NaN for n = 1 */
    double p;              /* sign-flip test; not adjusted: see tn_holm */
    int exact;             /* 1: all 2^n assignments, 0: drawn */
    tn_interval ci;        /* at level, inverting that test */
    tn_interval ci_sim;    /* at 1 - (1 - level) / family: gives the verdict */
    tn_interval bca;       /* at level; secondary */
    double dz;             /* mean / sd; sd 0: 0 if the mean is 0, else +-infinity; NaN for n = 1 */
    int wins, losses, ties;
    double prob;         /* probability of improvement: (wins + ties / 2) / n over pairs of the same seed */
    tn_interval prob_ci; /* Wilson, at level; ties enter as halves, which makes it wide rather than narrow */
    tn_verdict verdict;
    int side; /* +1, -1: ci_sim lies above, below 0; 0: it holds 0 */
} tn_paired;

/* All of the above for n >= 1 pairs a[i], b[i]. level in (0, 1); family >= 1; margin >= 0 in the units of a.
 * seed drives the bootstrap, and the test when n > TN_SIGNFLIP_EXACT_MAX. */
TN_API int tn_paired_stats(const double *a, const double *b, int n, double level, int family, double margin,
                           uint64_t seed, tn_paired *out, tn_stats_err *err);

/* Writes the verdict as one English sentence that says "at these settings", with fractions shown as
 * percentage points. Returns the length as snprintf does (>= size: cut short). */
TN_API int tn_paired_sentence(const tn_paired *r, const char *name_a, const char *name_b, char *buf,
                              size_t size);

#ifdef __cplusplus
}
#endif
#endif

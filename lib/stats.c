/* SPDX-License-Identifier: MIT */
/* The comparison of two optimizers over pairs of runs that share a seed: effect sizes, Holm's adjustment, the
 * verdict and its sentence. The test, the bootstrap and the distributions are in stats_*.c. */
#include "stats_private.h"

int tn_holm(const double *p, int m, double *out, tn_stats_err *err) {
    if (m < 1) return stats_fail(err, TN_STATS_RANGE, "a family of %d p-values: at least 1 is needed", m);
    for (int i = 0; i < m; i++) {
        if (isnan(p[i])) return stats_fail(err, TN_STATS_NONFINITE, "p-value %d of the family is NaN", i);
        if (p[i] < 0 || p[i] > 1) {
            return stats_fail(err, TN_STATS_RANGE, "p-value %d of the family is %g: not in [0, 1]", i, p[i]);
        }
    }
    double *sorted = stats_sorted(p, m);
    if (!sorted) return stats_fail(err, TN_STATS_NOMEM, "out of memory for %d p-values", m);
    double *adjusted = malloc((size_t)m * sizeof *adjusted);
    if (!adjusted) {
        free(sorted);
        return stats_fail(err, TN_STATS_NOMEM, "out of memory for %d p-values", m);
    }
    double worst = 0;
    for (int i = 0; i < m; i++) {
        worst = fmin(1, fmax(worst, (m - i) * sorted[i]));
        adjusted[i] = worst;
    }
    for (int i = 0; i < m; i++) {
        /* Equal p-values have equal results, so it does not matter which of them the search finds. */
        const double *at = bsearch(&p[i], sorted, (size_t)m, sizeof *sorted, stats_cmp);
        out[i] = adjusted[at - sorted];
    }
    free(sorted);
    free(adjusted);
    return 0;
}

tn_verdict tn_verdict_of(tn_interval ci, double margin, int *side) {
    double inside = margin * (1 - 1e-9);
    int s = ci.lo > 0 ? 1 : ci.hi < 0 ? -1 : 0;
    if (side) *side = s;
    if (ci.lo > -inside && ci.hi < inside) return TN_EQUIVALENT;
    return s > 0 ? TN_BETTER : s < 0 ? TN_WORSE : TN_UNDECIDED;
}

const char *tn_verdict_word(tn_verdict v) {
    switch (v) {
    case TN_BETTER:
        return "better";
    case TN_WORSE:
        return "worse";
    case TN_EQUIVALENT:
        return "equivalent";
    default:
        return "undecided";
    }
}

static double simultaneous_level(const tn_paired *r) {
    return 1 - (1 - r->level) / r->family;
}

static double largest(const double *x, int n) {
    double m = 0;
    for (int i = 0; i < n; i++) m = fmax(m, fabs(x[i]));
    return m;
}

static int effect_sizes(const double *d, double scale, tn_paired *r, tn_stats_err *err) {
    double guard = stats_guard(d, r->n, scale) / r->n, lo = d[0], hi = d[0];
    int bad = tn_mean_interval(d, r->n, r->level, &r->mean, &r->sd, NULL, err);
    if (bad) return bad;
    for (int i = 0; i < r->n; i++) {
        int tie = fabs(d[i]) <= 4 * DBL_EPSILON * scale;
        r->ties += tie;
        r->wins += !tie && d[i] > 0;
        r->losses += !tie && d[i] < 0;
        lo = fmin(lo, d[i]);
        hi = fmax(hi, d[i]);
    }
    /* Differences that are equal but for rounding have no spread, and a mean of rounding error is none. */
    if (fabs(r->mean) <= guard) r->mean = 0;
    if (r->n > 1 && hi - lo <= guard) r->sd = 0;
    r->dz = r->sd != 0 ? r->mean / r->sd : r->mean == 0 ? 0 : copysign(INFINITY, r->mean);
    double score = r->wins + 0.5 * r->ties;
    r->prob = score / r->n;
    return tn_wilson(score, r->n, r->level, &r->prob_ci, err);
}

static int compare(const double *d, double scale, uint64_t seed, tn_paired *r, tn_stats_err *err) {
    double level[2] = {r->level, simultaneous_level(r)};
    tn_interval ci[2];
    int bad = tn_signflip(d, r->n, scale, seed, &r->p, 2, level, ci, err);
    if (bad || (bad = tn_bca(d, r->n, r->level, seed, &r->bca, err))) return bad;
    if ((bad = effect_sizes(d, scale, r, err))) return bad;
    r->ci = ci[0];
    r->ci_sim = ci[1];
    r->exact = r->n <= TN_SIGNFLIP_EXACT_MAX;
    r->verdict = tn_verdict_of(r->ci_sim, r->margin, &r->side);
    return 0;
}

int tn_paired_stats(const double *a, const double *b, int n, double level, int family, double margin,
                    uint64_t seed, tn_paired *out, tn_stats_err *err) {
    tn_paired r = {.n = n, .family = family, .level = level, .margin = margin};
    int bad = stats_check_data("a", a, n, err);
    if (bad || (bad = stats_check_data("b", b, n, err)) || (bad = stats_check_level(level, err))) return bad;
    if (family < 1) {
        return stats_fail(err, TN_STATS_RANGE, "a family of %d comparisons: at least 1 is needed", family);
    }
    if (!(margin >= 0 && margin <= DBL_MAX)) {
        return stats_fail(err, TN_STATS_RANGE, "margin %g: it must be 0 or a positive number", margin);
    }
    double *d = malloc((size_t)n * sizeof *d);
    if (!d) return stats_fail(err, TN_STATS_NOMEM, "out of memory for %d pairs", n);
    for (int i = 0; i < n; i++) {
        d[i] = a[i] - b[i];
        r.mean_a += a[i] / n;
        r.mean_b += b[i] / n;
    }
    bad = compare(d, fmax(largest(a, n), largest(b, n)), seed, &r, err);
    free(d);
    if (!bad) *out = r;
    return bad;
}

/* A fraction as signed percentage points; what rounds to zero shows no sign. */
static const char *points(double x, char buf[32]) {
    snprintf(buf, 32, "%+.3f", 100 * x);
    if (strtod(buf, NULL) == 0) snprintf(buf, 32, "%.3f", 0.0);
    return buf;
}

int tn_paired_sentence(const tn_paired *r, const char *a, const char *b, char *buf, size_t size) {
    char mean[32], lo[32], hi[32], bounds[96];
    double level = 100 * r->level;
    points(r->mean, mean);
    snprintf(bounds, sizeof bounds, "%s to %s", points(r->ci_sim.lo, lo), points(r->ci_sim.hi, hi));
    if (isinf(r->ci_sim.lo)) {
        return snprintf(
            buf, size,
            "At these settings %s and %s are undecided: mean difference %s points, but %d pairs give no "
            "interval at this level (%g%% over %d comparisons); at least %d are needed.",
            a, b, mean, r->n, level, r->family, tn_signflip_pairs_needed(simultaneous_level(r)));
    }
    if (r->verdict == TN_EQUIVALENT) {
        const char *ahead = r->side == 0 ? "" : r->side > 0 ? a : b;
        return snprintf(buf, size,
                        "At these settings %s and %s are equivalent: mean difference %s points, simultaneous "
                        "%g%% interval %s, inside the margin of %g%s%s%s.",
                        a, b, mean, level, bounds, 100 * r->margin, r->side ? "; it excludes 0: " : "", ahead,
                        r->side ? " is ahead, by less than the margin" : "");
    }
    if (r->verdict == TN_UNDECIDED) {
        return snprintf(
            buf, size,
            "At these settings %s and %s are undecided: mean difference %s points, simultaneous %g%% "
            "interval %s holds 0 and is not inside the margin of %g.",
            a, b, mean, level, bounds, 100 * r->margin);
    }
    return snprintf(
        buf, size,
        "At these settings %s is %s than %s: mean difference %s points, simultaneous %g%% interval %s.", a,
        tn_verdict_word(r->verdict), b, mean, level, bounds);
}

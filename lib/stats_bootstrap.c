/* SPDX-License-Identifier: MIT */
/* The BCa bootstrap interval of a mean (Efron 1987, "Better bootstrap confidence intervals"). */
#include "stats_private.h"

static void resampled_means(const double *d, int n, uint64_t seed, double *out) {
    for (int r = 0; r < TN_BCA_RESAMPLES; r++) {
        double sum = 0;
        for (int i = 0; i < n; i++) { /* multiply-shift: an index in [0, n), bias below n / 2^32 */
            sum += d[((stats_random(&seed) >> 32) * (uint64_t)n) >> 32];
        }
        out[r] = sum / n;
    }
}

/* For a mean the jackknife's leave-one-out deviations are (d - mean)/(n - 1); the factor cancels. */
static double acceleration(const double *d, int n, double mean) {
    double s2 = 0, s3 = 0, scale = fmax(fabs(d[0] - mean), fabs(d[n - 1] - mean));
    for (int i = 0; i < n; i++) {
        double e = (d[i] - mean) / scale; /* scaled: cubes of tiny differences must not vanish */
        s2 += e * e;
        s3 += e * e * e;
    }
    return s3 / (6 * s2 * sqrt(s2));
}

/* z0: the normal score of the share of resampled means below the mean, equal ones half. */
static double bias_score(const double *m, double mean, double guard) {
    double below = 0;
    for (int r = 0; r < TN_BCA_RESAMPLES; r++) {
        double e = m[r] - mean;
        below += fabs(e) <= guard ? 0.5 : e < 0;
    }
    double half = 0.5 / TN_BCA_RESAMPLES; /* a share of 0 or 1 would have no finite score */
    return tn_normal_quantile(fmin(fmax(below / TN_BCA_RESAMPLES, half), 1 - half));
}

static double adjusted(double z0, double a, double z) {
    double den = 1 - a * (z0 + z);
    if (den <= 0) return a > 0 ? 1 : 0; /* beyond the pole: the last resampled mean on that side */
    return tn_normal_cdf(z0 + (z0 + z) / den);
}

static double percentile(const double *sorted, double p) {
    double at = p * (TN_BCA_RESAMPLES - 1);
    int i = (int)at;
    if (i >= TN_BCA_RESAMPLES - 1) return sorted[TN_BCA_RESAMPLES - 1];
    return sorted[i] + (at - i) * (sorted[i + 1] - sorted[i]);
}

int tn_bca(const double *d, int n, double level, uint64_t seed, tn_interval *ci, tn_stats_err *err) {
    int bad = stats_check_data("d", d, n, err);
    if (bad || (bad = stats_check_level(level, err))) return bad;
    if (n == 1) {
        *ci = (tn_interval){-INFINITY, INFINITY};
        return 0;
    }
    double *sorted = stats_sorted(d, n), *m = malloc(TN_BCA_RESAMPLES * sizeof *m);
    if (!sorted || !m) {
        free(sorted);
        free(m);
        return stats_fail(err, TN_STATS_NOMEM, "out of memory for %d bootstrap resamples", TN_BCA_RESAMPLES);
    }
    double sum = 0, guard = stats_guard(sorted, n, 0) / n;
    for (int i = 0; i < n; i++) sum += sorted[i];
    double mean = sum / n;
    if (sorted[n - 1] - sorted[0] <= guard) {
        *ci = (tn_interval){mean, mean};
    } else {
        resampled_means(sorted, n, seed, m);
        double z0 = bias_score(m, mean, guard), a = acceleration(sorted, n, mean);
        double z = tn_normal_quantile(0.5 + level / 2);
        qsort(m, TN_BCA_RESAMPLES, sizeof *m, stats_cmp);
        *ci = (tn_interval){percentile(m, adjusted(z0, a, -z)), percentile(m, adjusted(z0, a, z))};
    }
    free(sorted);
    free(m);
    return 0;
}

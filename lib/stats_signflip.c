/* SPDX-License-Identifier: MIT */
/* The sign-flip permutation test and the interval that inverts it.
 *
 * Shift the data to e = d - mu. Flipping the signs of a subset A turns the sum E into E - 2 E_A, where E_A is
 * the sum over A. The flipped assignment counts as at least as extreme when
 *
 *     |E - 2 E_A| >= |E|   <=>   E_A (E_A - E) >= 0   <=>   E_A * E_rest <= 0,
 *
 * that is, when mu lies between the mean of d over A and the mean over the rest, ends included. A and
 * its complement give the same condition; the empty set (the observed assignment and its mirror image) always
 * counts. So with K = 2^(n-1) splits of d into two groups, split k covering [lo_k, hi_k] between its group
 * means (split 0, nothing against everything: the whole line),
 *
 *     p(mu) = #{k : lo_k <= mu <= hi_k} / K.
 *
 * Every split's interval holds the grand mean, so right of it only hi_k matters and p falls; to the left
 * likewise. The shifts with p(mu) > alpha therefore form the closed interval from the r-th smallest lo_k to
 * the r-th largest hi_k with r = floor(alpha K) + 1. No search over mu, and r = 1 gives the whole line by
 * itself. For large n, K - 1 random splits replace the full list and everything else stays as it is; the
 * observed assignment is split 0. */
#include "stats_private.h"

typedef struct {
    size_t count;
    double *lo, *hi;
} splits;

static void put_split(splits *s, size_t k, double sum_a, int n_a, double sum_b, int n_b, double guard) {
    if (n_a == 0 || n_b == 0) {
        s->lo[k] = -INFINITY;
        s->hi[k] = INFINITY;
        return;
    }
    double a = fabs(sum_a) <= guard ? 0 : sum_a / n_a;
    double b = fabs(sum_b) <= guard ? 0 : sum_b / n_b;
    s->lo[k] = a < b ? a : b;
    s->hi[k] = a < b ? b : a;
}

/* Split k puts d[i] into group A where bit i of k is set; d[n-1] is never in A, so no split comes twice. */
static void all_splits(splits *s, const double *d, int n, double guard) {
    double *sum = s->lo; /* sums of A first, each replaced by its bound below */
    sum[0] = 0;
    for (int i = 0; i < n - 1; i++) {
        size_t half = (size_t)1 << i;
        for (size_t k = 0; k < half; k++) sum[half + k] = sum[k] + d[i];
    }
    double total = sum[s->count - 1] + d[n - 1];
    for (size_t k = 0; k < s->count; k++) {
        int size = 0;
        for (size_t bits = k; bits; bits &= bits - 1) size++;
        put_split(s, k, sum[k], size, total - sum[k], n - size, guard);
    }
}

static void random_splits(splits *s, const double *d, int n, double guard, uint64_t seed) {
    double total = 0;
    for (int i = 0; i < n; i++) total += d[i];
    put_split(s, 0, 0, 0, total, n, guard);
    for (size_t k = 1; k < s->count; k++) {
        uint64_t bits = 0;
        double sum = 0;
        int size = 0;
        for (int i = 0; i < n; i++, bits <<= 1) {
            if (i % 64 == 0) bits = stats_random(&seed);
            int in = (int)(bits >> 63);
            sum += in ? d[i] : 0;
            size += in;
        }
        put_split(s, k, sum, size, total - sum, n - size, guard);
    }
}

static double share_holding_zero(const splits *s) {
    size_t c = 0;
    for (size_t k = 0; k < s->count; k++) c += s->lo[k] <= 0 && s->hi[k] >= 0;
    return (double)c / (double)s->count;
}

/* The k-th smallest of x[0..n), k from 0; reorders x. Hoare's selection with a pseudo-random pivot. */
static double kth_smallest(double *x, size_t n, size_t k) {
    ptrdiff_t left = 0, right = (ptrdiff_t)n - 1, want = (ptrdiff_t)k;
    uint64_t state = 0;
    while (left < right) {
        double pivot = x[left + (ptrdiff_t)(stats_random(&state) % (uint64_t)(right - left + 1))];
        ptrdiff_t i = left, j = right;
        while (i <= j) {
            while (x[i] < pivot) i++;
            while (x[j] > pivot) j--;
            if (i > j) break;
            double t = x[i];
            x[i++] = x[j];
            x[j--] = t;
        }
        if (want <= j) {
            right = j;
        } else if (want >= i) {
            left = i;
        } else {
            break;
        }
    }
    return x[want];
}

static tn_interval invert(splits *s, double level) {
    /* The small term: 1 - 0.9 lies just under 0.1, and 0.1 K is a whole number for a drawn test. */
    double r = floor((1 - level) * (double)s->count + 1e-9);
    size_t rank = r < (double)s->count ? (size_t)r : s->count - 1;
    tn_interval ci = {kth_smallest(s->lo, s->count, rank),
                      kth_smallest(s->hi, s->count, s->count - 1 - rank)};
    return ci;
}

int tn_signflip(const double *d, int n, double scale, uint64_t seed, double *p, int nlevel,
                const double *level, tn_interval *ci, tn_stats_err *err) {
    int bad = stats_check_data("d", d, n, err);
    if (bad) return bad;
    if (!(scale >= 0 && scale <= DBL_MAX)) {
        return stats_fail(err, TN_STATS_RANGE, "scale %g: it must be 0 or a positive number", scale);
    }
    for (int i = 0; i < nlevel; i++) {
        if ((bad = stats_check_level(level[i], err))) return bad;
    }
    int exact = n <= TN_SIGNFLIP_EXACT_MAX;
    splits s = {exact ? (size_t)1 << (n - 1) : TN_SIGNFLIP_DRAWS, NULL, NULL};
    double *sorted = stats_sorted(d, n);
    s.lo = malloc(s.count * sizeof *s.lo);
    s.hi = malloc(s.count * sizeof *s.hi);
    if (sorted && s.lo && s.hi) {
        double guard = stats_guard(sorted, n, scale);
        if (exact) {
            all_splits(&s, sorted, n, guard);
        } else {
            random_splits(&s, sorted, n, guard, seed);
        }
        if (p) *p = share_holding_zero(&s);
        for (int i = 0; i < nlevel; i++) ci[i] = invert(&s, level[i]);
    } else {
        bad = stats_fail(err, TN_STATS_NOMEM, "out of memory: the sign-flip test of %d pairs needs %zu bytes",
                         n, 2 * s.count * sizeof *s.lo);
    }
    free(sorted);
    free(s.lo);
    free(s.hi);
    return bad;
}

int tn_signflip_pairs_needed(double level) {
    if (!(level > 0 && level < 1)) return -1;
    int n = 1;
    /* Times 1 + 1e-9 as in invert: 0.0625 written as 1 - 0.9375 or as 0.5 / 8 must mean the same. */
    while (ldexp(1, 1 - n) > (1 - level) * (1 + 1e-9)) n++;
    return n;
}

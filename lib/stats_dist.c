/* SPDX-License-Identifier: MIT */
/* Distributions: normal and Student-t quantiles, and the intervals that need nothing else. */
#include "stats_private.h"

double tn_normal_cdf(double x) {
    return 0.5 * erfc(-x / sqrt(2));
}

static double normal_upper(double x, double unused) {
    (void)unused;
    return 0.5 * erfc(x / sqrt(2));
}

/* Gamma(x + 1/2) / Gamma(x): the recurrence takes x beyond 40, where the asymptotic series (DLMF 5.11.13 with
 * a = 1/2, b = 0) is good to 1e-14. No lgamma: it writes the global signgam, and differences of it cancel. */
static double half_gamma_ratio(double x) {
    double f = 1;
    while (x < 40) {
        f *= x / (x + 0.5);
        x += 1;
    }
    double r = 1 / x;
    double series = -399.0 / 262144 + r * (869.0 / 4194304);
    series = 5.0 / 1024 + r * (-21.0 / 32768 + r * series);
    series = 1 + r * (-1.0 / 8 + r * (1.0 / 128 + r * series));
    return f * sqrt(x) * series;
}

/* The continued fraction of the incomplete beta function (DLMF 8.17.22), by Lentz's method. */
static double beta_fraction(double a, double b, double x) {
    const double tiny = 1e-300;
    double c = 1, d = 1 - (a + b) * x / (a + 1);
    d = 1 / (fabs(d) < tiny ? tiny : d);
    double f = d;
    for (int m = 1; m <= 100000; m++) {
        double even = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m));
        double odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1));
        d = 1 + even * d;
        c = 1 + even / c;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = fabs(c) < tiny ? tiny : c;
        f *= d * c;
        d = 1 + odd * d;
        c = 1 + odd / c;
        d = 1 / (fabs(d) < tiny ? tiny : d);
        c = fabs(c) < tiny ? tiny : c;
        f *= d * c;
        if (fabs(d * c - 1) < DBL_EPSILON) break;
    }
    return f;
}

/* P(T > t) for t >= 0: I_x(df/2, 1/2) / 2 with x = df / (df + t^2). Logarithms are taken of x and 1 - x
 * apart, so that neither end loses digits. */
static double t_upper(double t, double df) {
    if (t == 0) return 0.5;
    double a = df / 2, b = 0.5, q = t / df * t; /* q = t^2 / df */
    double front = exp(-a * log1p(q) - b * log1p(1 / q)) * half_gamma_ratio(a) / sqrt(acos(-1));
    double x = 1 / (1 + q), y = q / (1 + q);
    if (!isfinite(q)) return 0;
    if (x < (a + 1) / (a + b + 2)) return 0.5 * front * beta_fraction(a, b, x) / a;
    return 0.5 - 0.5 * front * beta_fraction(b, a, y) / b;
}

/* The x > 0 whose upper tail is q < 1/2, by bisection down to neighbouring doubles. */
static double upper_quantile(double (*upper)(double, double), double q, double df) {
    double lo = 0, hi = 1;
    while (upper(hi, df) > q) {
        lo = hi;
        hi *= 2;
        if (hi > 1e150) return INFINITY;
    }
    for (;;) {
        double mid = lo + (hi - lo) / 2;
        if (mid <= lo || mid >= hi) return mid;
        if (upper(mid, df) > q) {
            lo = mid;
        } else {
            hi = mid;
        }
    }
}

static double symmetric_quantile(double (*upper)(double, double), double p, double df) {
    if (!(p >= 0 && p <= 1)) return NAN;
    if (p == 0 || p == 1) return p == 0 ? -INFINITY : INFINITY;
    if (p == 0.5) return 0;
    return p < 0.5 ? -upper_quantile(upper, p, df) : upper_quantile(upper, 1 - p, df);
}

double tn_normal_quantile(double p) {
    return symmetric_quantile(normal_upper, p, 0);
}

double tn_t_quantile(double p, double df) {
    if (!(df > 0)) return NAN;
    return symmetric_quantile(isinf(df) ? normal_upper : t_upper, p, df);
}

int tn_mean_interval(const double *x, int n, double level, double *mean, double *sd, tn_interval *ci,
                     tn_stats_err *err) {
    int bad = stats_check_data("x", x, n, err);
    if (bad || (bad = stats_check_level(level, err))) return bad;
    double sum = 0, ss = 0, lo = x[0], hi = x[0];
    for (int i = 0; i < n; i++) {
        sum += x[i];
        lo = fmin(lo, x[i]);
        hi = fmax(hi, x[i]);
    }
    double m = sum / n;
    for (int i = 0; i < n; i++) ss += (x[i] - m) * (x[i] - m);
    double s = n == 1 ? NAN : hi == lo ? 0 : sqrt(ss / (n - 1));
    if (hi == lo) m = lo; /* equal values are their own mean, to the bit */
    double half = n == 1 ? INFINITY : tn_t_quantile(0.5 + level / 2, n - 1) * s / sqrt(n);
    if (mean) *mean = m;
    if (sd) *sd = s;
    if (ci) *ci = (tn_interval){m - half, m + half};
    return 0;
}

int tn_wilson(double successes, double n, double level, tn_interval *ci, tn_stats_err *err) {
    int bad = stats_check_level(level, err);
    if (bad) return bad;
    if (!(n > 0 && n <= DBL_MAX && successes >= 0 && successes <= n)) {
        return stats_fail(err, TN_STATS_RANGE,
                          "%g successes out of %g: a count between 0 and a positive total", successes, n);
    }
    double z = tn_normal_quantile(0.5 + level / 2), z2 = z * z;
    double p = successes / n, grow = 1 + z2 / n;
    double centre = (p + z2 / (2 * n)) / grow;
    double half = z / grow * sqrt(p * (1 - p) / n + z2 / (4 * n * n));
    ci->lo = successes == 0 ? 0 : fmax(0, centre - half); /* exact ends where rounding would miss them */
    ci->hi = successes == n ? 1 : fmin(1, centre + half);
    return 0;
}

/* SPDX-License-Identifier: MIT */
/*
 * Scalar functions in double whose bits do not depend on the C library: initial weights, schedules and bias
 * corrections are made of them, and a seed has to mean the same weights everywhere. They use nothing but
 * operations that IEEE 754 rounds correctly, so that any conforming compiler gives the same bits.
 */
#include "internal.h"
#include <math.h>
#include <string.h>

static const double LN2_HI = 0x1.62e42fefa3800p-1, LN2_LO = 0x1.ef35793c76730p-45;

/* log(2^e m) = e ln 2 + 2 atanh(s), s = (m - 1) / (m + 1), m in [1/sqrt 2, sqrt 2): 12 terms reach 1e-18. */
double tn_exact_log(double x) {
    if (x != x || x == INFINITY) return x;
    if (x <= 0) return x == 0 ? -INFINITY : NAN;
    int e;
    double m = frexp(x, &e);
    if (m < 0.70710678118654752) m *= 2, e--;
    double f = m - 1, s = f / (2 + f), z = s * s, p = 0;
    for (int k = 12; k >= 1; k--) p = z * (p + 2.0 / (2 * k + 1));
    /* 2 s = f - s f, so that the large part f is exact */
    return e * LN2_HI + (f - (s * (f - p) - e * LN2_LO));
}

/* exp(x) = 2^k exp(r), |r| <= ln 2 / 2, by 14 terms of the series. */
double tn_exact_exp(double x) {
    if (x != x) return x;
    if (x > 709.782712893384) return INFINITY;
    if (x < -745.2) return 0;
    double k = floor(x / 0.69314718055994531 + 0.5), r = (x - k * LN2_HI) - k * LN2_LO, p = 1;
    for (int i = 14; i >= 1; i--) p = 1 + r * p / i;
    return ldexp(p, (int)k);
}

/* cos(2 pi x): exact reduction to an eighth of a turn, then the series. */
double tn_exact_cos2pi(double x) {
    x = fabs(x - floor(x + 0.5)); /* [0, 1/2] */
    double sign = 1;
    if (x > 0.25) x = 0.5 - x, sign = -1;
    int use_sin = x > 0.125;
    double t = 6.283185307179586476925 * (use_sin ? 0.25 - x : x), z = t * t, p = 1;
    if (use_sin) {
        for (int k = 9; k >= 1; k--) p = 1 - z * p / ((2 * k) * (2 * k + 1));
        return sign * t * p;
    }
    for (int k = 9; k >= 1; k--) p = 1 - z * p / ((2 * k - 1) * (2 * k));
    return sign * p;
}

double tn_exact_powi(double x, long n) {
    unsigned long k = n < 0 ? 0UL - (unsigned long)n : (unsigned long)n;
    double y = 1;
    for (; k; k >>= 1, x *= x)
        if (k & 1) y *= x;
    return n < 0 ? 1 / y : y;
}

/* x^p: whole powers by products, others by exp(p log x). */
double tn_exact_pow(double x, double p) {
    if (p == floor(p) && fabs(p) <= 64) return tn_exact_powi(x, (long)p);
    if (p == 0.5) return sqrt(x);
    if (x == 0 && p == p) return p > 0 ? 0 : INFINITY;
    if (x < 0 && p == floor(p)) { /* whole and beyond 64; from 2^53 on all are even */
        double y = tn_exact_exp(p * tn_exact_log(-x));
        return p / 2 == floor(p / 2) ? y : -y;
    }
    return tn_exact_exp(p * tn_exact_log(x));
}

/*
 * erf: below 3 by 2/sqrt(pi) e^{-x^2} sum 2^n x^{2n+1} / (2n+1)!! (Abramowitz and Stegun 7.1.6), beyond by the
 * continued fraction of erfc (7.1.14).
 */
double tn_exact_erf(double x) {
    if (x != x) return x;
    double a = fabs(x), z = a * a, y;
    if (a < 3) {
        double term = a, sum = a;
        for (int n = 1; n < 100 && term > 1e-18 * sum; n++) term *= 2 * z / (2 * n + 1), sum += term;
        y = 1.1283791670955126 * tn_exact_exp(-z) * sum;
    } else if (a < 6) {
        double f = a;
        for (int n = 60; n >= 1; n--) f = a + 0.5 * n / f;
        y = 1 - tn_exact_exp(-z) / (f * 1.7724538509055160);
    } else {
        y = 1;
    }
    return x < 0 ? -y : y;
}

# SPDX-License-Identifier: MIT
"""Records stats.json: reference values for tests/test_stats.c, from SciPy and from plain enumeration.

The build and the tests never run this. To make the file again:
    python3 -m venv venv && venv/bin/pip install scipy==1.17.1 && venv/bin/python record.py > stats.json
Data are whole numbers (units of 1/10000, as test accuracies over 10,000 images are), so that ties are exact
here; the C test divides them, which hides the ties from binary arithmetic.
"""
import itertools
import json
from fractions import Fraction

import numpy as np
import scipy
from scipy import stats

rng = np.random.default_rng(20240601)


def scipy_p(a, b):
    r = stats.permutation_test((a, b), lambda x, y, axis: np.mean(x - y, axis=axis), vectorized=True,
                               permutation_type="samples", n_resamples=np.inf, alternative="two-sided")
    return float(r.pvalue)


def sumdist_p(d):
    """Exact sign-flip p for whole numbers, by convolving the distribution of the sum."""
    ways = {0: 1}
    for x in d:
        new = {}
        for s, c in ways.items():
            new[s + x] = new.get(s + x, 0) + c
            new[s - x] = new.get(s - x, 0) + c
        ways = new
    hit = sum(c for s, c in ways.items() if abs(s) >= abs(sum(d)))
    return hit / 2 ** len(d)


def enumerated_interval(d, level):
    """Tests every shift that could be an end (any subset mean) by counting all assignments, in rationals."""
    n = len(d)
    signs = list(itertools.product((1, -1), repeat=n))
    cand = {Fraction(sum(x for x, s in zip(d, sg) if s > 0), sg.count(1)) for sg in signs if sg.count(1)}
    alpha = 1 - Fraction(level)
    kept = []
    for mu in cand:
        e = [(x - mu) * mu.denominator for x in d]
        e = [int(x) for x in e]
        observed = abs(sum(e))
        hits = sum(abs(sum(x * s for x, s in zip(e, sg))) >= observed for sg in signs)
        if Fraction(hits, 2 ** n) > alpha:
            kept.append(mu)
    if Fraction(2, 2 ** n) > alpha:
        return None
    return [float(min(kept)), float(max(kept))]


def paired():
    cases = []
    for n, loc, spread in [(2, 3, 5), (5, 6, 4), (6, 0, 3), (8, 4, 6), (10, 8, 12), (12, 5, 9), (13, -6, 10),
                           (14, 1, 4)]:
        for tied in (False, True):
            d = rng.normal(loc, spread, n).round().astype(int)
            if tied:
                d[1] = -d[0]
                d[n // 2] = 0
            a = rng.integers(9700, 9800, n)
            b = a - d
            cases.append({"a": a.tolist(), "b": b.tolist(), "p": scipy_p(a.astype(float), b.astype(float)),
                          "dz": float(d.mean() / d.std(ddof=1))})
    return cases


def intervals():
    out = []
    for n in (4, 6, 8, 9):
        for tied in (False, True):
            d = rng.normal(2, 12, n).round().astype(int).tolist()
            if tied:
                d[1], d[2] = d[0], 0
            for level in ("0.75", "0.9", "0.95", "0.99"):
                out.append({"d": d, "level": float(level), "ci": enumerated_interval(d, level)})
    return out


def large():
    out = []
    for n, loc in [(21, 1), (24, 3), (40, 2)]:
        d = rng.normal(loc, 9, n).round().astype(int).tolist()
        out.append({"d": d, "p": sumdist_p(d)})
    return out


def bca():
    out = []
    for n, draw in [(8, rng.normal), (12, rng.exponential), (20, rng.normal)]:
        d = draw(size=n).round(3)
        r = stats.bootstrap((d,), np.mean, method="BCa", n_resamples=200000, rng=np.random.default_rng(1))
        ci = r.confidence_interval
        out.append({"d": d.tolist(), "ci": [float(ci.low), float(ci.high)]})
    return out


def t_quantiles():
    ps = [1e-12, 1e-6, 0.001, 0.025, 0.2, 0.4999, 0.6, 0.9, 0.975, 0.995, 0.9999]
    return [{"p": p, "df": df, "t": float(stats.t.ppf(p, df))}
            for df in (0.5, 1, 2, 3, 4.5, 7, 11, 19, 29, 100, 1234, 1e5) for p in ps]


def mean_intervals():
    out = []
    for n, level in [(2, 0.95), (3, 0.9), (12, 0.95), (12, 0.99), (40, 0.95)]:
        x = rng.normal(0.98, 0.002, n).round(4)
        ci = stats.ttest_1samp(x, 0).confidence_interval(level)
        out.append({"x": x.tolist(), "level": level, "mean": float(x.mean()), "sd": float(x.std(ddof=1)),
                    "ci": [float(ci.low), float(ci.high)]})
    return out


def wilson():
    out = []
    for k, n, level in [(0, 12, 0.95), (12, 12, 0.95), (9, 12, 0.95), (3, 8, 0.99), (500, 1000, 0.9)]:
        ci = stats.binomtest(k, n).proportion_ci(level, method="wilson")
        out.append({"k": k, "n": n, "level": level, "ci": [float(ci.low), float(ci.high)]})
    return out


sections = {"paired": paired(), "intervals": intervals(), "large": large(), "bca": bca(), "t": t_quantiles(),
            "normal": [{"p": p, "x": float(stats.norm.ppf(p))}
                       for p in (1e-300, 1e-10, 0.025, 0.3, 0.75, 0.995)],
            "mean": mean_intervals(), "wilson": wilson()}
print('{"made_with": ' + json.dumps(f"scipy {scipy.__version__}, numpy {np.__version__}"), end="")
for name, rows in sections.items():  # one case a line
    print(f',\n"{name}": [\n' + ",\n".join(json.dumps(r) for r in rows) + "]", end="")
print("}")

/* SPDX-License-Identifier: MIT */
/* Which known mistake reproduces the numbers of an optimizer that fails. */
#include "conform.h"
#include <math.h>
#include <stdlib.h>

/* How often the tolerance counts as reproduced: what is judged may compute in float, the reference does in double. */
static const double ROOM = 3;

/* Largest difference of two paths over the size of the tensor's weights; both not finite from the same step on is equal. */
static double apart(const conform_file *f, const double *a, const double *b) {
    double worst = 0;
    for (int s = 0; s < CONFORM_PASSES * f->steps; s++)
        for (int i = 0; i < f->tensors; i++) {
            const size_t at = (size_t)s * f->len + f->tensor[i].at;
            double top = 0, d = 0;
            for (size_t j = 0; j < f->tensor[i].n; j++) {
                const double x = a[at + j], y = b[at + j];
                if (!isfinite(x) && !isfinite(y)) continue;
                if (!isfinite(x) || !isfinite(y)) return INFINITY;
                if (fabs(y) > top) top = fabs(y);
                if (fabs(x - y) > d) d = fabs(x - y);
            }
            if (d > 0) worst = fmax(worst, d / top);
        }
    return worst;
}

int conform_tells(const conform_file *f, const conform_case *c, int mistake) {
    const size_t n = CONFORM_PASSES * (size_t)f->steps * f->len;
    double *a = malloc(n * sizeof *a), *b = malloc(n * sizeof *b);
    int tells =
        a && b && conform_plain(f, c, 0, a) && conform_plain(f, c, mistake, b) && apart(f, a, b) > c->tol;
    free(a), free(b);
    return tells;
}

/*
 * A mistake counts by the cases that it reproduces, the passed ones, too: it must not spoil what is right, and where it
 * would show it must be seen as often as not (any small step looks like any other in weights that hardly move). Of
 * those that reproduce a failed case the one with the most wins; of equals, the one that is nearest.
 */
void conform_diagnose(const conform_file *f, const conform_result *r, conform_verdict *v) {
    const size_t n = CONFORM_PASSES * (size_t)f->steps * f->len, cases = (size_t)f->cases;
    double *w = malloc((cases + 1) * n * sizeof *w), *near = calloc(cases * MISTAKES, sizeof *near);
    int score[MISTAKES] = {0}, failed[MISTAKES] = {0}, shows[MISTAKES] = {0}, missed[MISTAKES] = {0};
    double sum[MISTAKES] = {0};
    for (int c = 0; c < f->cases; c++) v[c] = (conform_verdict){0, 0, 0};
    for (int m = 0; w && near && m < MISTAKES; m++)
        for (int c = 0; c < f->cases; c++) {
            double *d = &near[(size_t)c * MISTAKES + (size_t)m], *right = w + (size_t)(c + 1) * n;
            double *path = m ? w : right;
            *d = INFINITY;
            if (!r[c].w || !conform_plain(f, &f->c[c], m, path)) continue;
            *d = apart(f, r[c].w, path) / (ROOM * f->c[c].tol);
            const double made = apart(f, right, path); /* by the mistake */
            if (m && made == 0 && *d * ROOM > 1) *d = INFINITY;
            if (made > f->c[c].tol) shows[m]++, missed[m] += *d > 1;
            if (*d <= 1) score[m]++, failed[m] += !(r[c].deviation <= f->c[c].tol), sum[m] += *d;
        }
    /* First the cases whose weights are wrong; then those where only the state is, by what the others have shown. */
    int named[MISTAKES] = {0};
    for (int state = 0; w && near && state < 2; state++)
        for (int c = 0; c < f->cases; c++) {
            const double *d = &near[(size_t)c * MISTAKES];
            if (!r[c].w || r[c].deviation <= f->c[c].tol || state != (d[0] * ROOM <= 1)) continue;
            int best = 0;
            for (int m = 1; m < MISTAKES; m++) {
                if (!(d[m] <= 1) || 2 * missed[m] > shows[m] || (state && !named[m])) continue;
                if (!best || score[m] > score[best] || (score[m] == score[best] && sum[m] < sum[best]))
                    best = m;
            }
            v[c] = (conform_verdict){best, failed[best], state};
            if (!state) named[best]++;
        }
    free(w), free(near);
}

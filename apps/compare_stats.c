/* SPDX-License-Identifier: MIT */
/* From single results to the rows of the tables: means with intervals, paired differences, verdicts. */
#include "compare.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

comparison *comparison_new(int results) {
    comparison *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    c->result = calloc((size_t)(results > 0 ? results : 1), sizeof *c->result);
    c->level = 0.95;
    c->seconds = NAN;
    if (c->result) return c;
    free(c);
    return NULL;
}

void comparison_free(comparison *c) {
    if (c) free(c->result);
    free(c);
}

int comparison_model(comparison *c, const char *name, tn_err *e) {
    for (int i = 0; i < c->models; i++)
        if (strcmp(c->model[i].name, name) == 0) return i;
    if (c->models == COMPARE_MOST) return tn_fail(e, "more than %d models in one comparison", COMPARE_MOST);
    snprintf(c->model[c->models].name, COMPARE_LABEL, "%s", name);
    return c->models++;
}

int comparison_optimizer(comparison *c, const char *name, tn_err *e) {
    for (int i = 0; i < c->optimizers; i++)
        if (strcmp(c->optimizer[i], name) == 0) return i;
    if (c->optimizers == COMPARE_MOST)
        return tn_fail(e, "more than %d optimizers in one comparison", COMPARE_MOST);
    snprintf(c->optimizer[c->optimizers], COMPARE_LABEL, "%s", name);
    return c->optimizers++;
}

int spec_value(const char *spec, const char *key, char *out, size_t cap) {
    size_t n = strlen(key);
    for (const char *p = spec + strcspn(spec, ":"); *p; p += strcspn(p, ",")) {
        p++;
        if (strncmp(p, key, n) || p[n] != '=') continue;
        snprintf(out, cap, "%.*s", (int)strcspn(p + n + 1, ",+"), p + n + 1);
        return 1;
    }
    out[0] = 0;
    return 0;
}

/* ---- Arms ----------------------------------------------------------------------------------------------------------- */

typedef struct {
    const comparison *c;
    double *x, *y;         /* room for one number a result */
    const result **a, **b; /* and for one pointer */
} work;

/* The results of one model and optimizer into out; how many. */
static int select_results(const comparison *c, int model, int optimizer, const result **out) {
    int n = 0;
    for (int i = 0; i < c->results; i++)
        if (strcmp(c->result[i].model, c->model[model].name) == 0
            && strcmp(c->result[i].optimizer, c->optimizer[optimizer]) == 0)
            out[n++] = &c->result[i];
    return n;
}

static double value_of(const result *r) {
    return r->value;
}
static double gap_of(const result *r) {
    return r->diverged ? NAN : r->train - r->value;
}
static double norm_of(const result *r) {
    return r->diverged ? NAN : r->weight_norm;
}
static double never_lit_of(const result *r) {
    return r->diverged ? NAN : r->never_lit_norm;
}
static double never_lit_start_of(const result *r) {
    return r->never_lit_start;
}

/* Over those results that have this number. */
static column column_of(const work *w, int n, double (*number)(const result *)) {
    column out = {NAN, {NAN, NAN}, 0};
    for (int i = 0; i < n; i++) {
        double v = number(w->a[i]);
        if (isfinite(v)) w->x[out.n++] = v;
    }
    tn_stats_err e;
    if (out.n && tn_mean_interval(w->x, out.n, w->c->level, &out.mean, NULL, &out.ci, &e)) out.n = 0;
    return out;
}

static void add_arm(comparison *c, const work *w, int model, int optimizer) {
    int n = select_results(c, model, optimizer, w->a);
    if (!n) return;
    arm *a = &c->arm[c->arms++];
    *a = (arm){.model = model, .optimizer = optimizer, .spec = w->a[0]->spec, .n = n};
    for (int i = 0; i < n; i++) a->diverged += w->a[i]->diverged;
    a->value = column_of(w, n, value_of);
    a->gap = column_of(w, n, gap_of);
    a->weight_norm = column_of(w, n, norm_of);
    a->never_lit_norm = column_of(w, n, never_lit_of);
    a->never_lit_start = column_of(w, n, never_lit_start_of);
}

/* ---- Pairs ------------------------------------------------------------------------------------------------------------- */

/* Values of the seeds that both have, a in w->x, b in w->y, in the order of a; how many. */
static int match(const work *w, int na, int nb) {
    int n = 0;
    for (int i = 0; i < na; i++)
        for (int k = 0; k < nb; k++)
            if (w->a[i]->seed == w->b[k]->seed) {
                w->x[n] = w->a[i]->value;
                w->y[n++] = w->b[k]->value;
            }
    return n;
}

/* Later minus earlier, so that with adam, adaml2, adamw a positive difference speaks for the decay. */
static int find_pairs(comparison *c, const work *w, tn_err *e) {
    for (int m = 0; m < c->models; m++) {
        int before = c->pairs;
        for (int a = 1; a < c->optimizers; a++)
            for (int b = 0; b < a; b++) {
                int na = select_results(c, m, a, w->a), nb = select_results(c, m, b, w->b),
                    n = match(w, na, nb);
                if (n)
                    c->pair[c->pairs++] =
                        (pair_stats){.model = m, .a = a, .b = b, .left_out = na + nb - 2 * n};
            }
        if (c->pairs == before)
            return tn_fail(e, "model %s: no two optimizers share a seed, so there is nothing to compare",
                           c->model[m].name);
    }
    return 0;
}

/* The bootstrap's seed; it decides nothing. Fixed, so that the same results give the same numbers. */
static const uint64_t STATS_SEED = 1;

static int measure_pairs(comparison *c, const work *w, tn_err *e) {
    double p[sizeof c->pair / sizeof *c->pair];
    tn_stats_err why;
    for (int i = 0; i < c->pairs; i++) {
        pair_stats *q = &c->pair[i];
        int n = match(w, select_results(c, q->model, q->a, w->a), select_results(c, q->model, q->b, w->b));
        if (tn_paired_stats(w->x, w->y, n, c->level, c->pairs, c->model[q->model].margin, STATS_SEED, &q->s,
                            &why))
            return tn_fail(e, "%s, %s against %s: %s", c->model[q->model].name, c->optimizer[q->a],
                           c->optimizer[q->b], why.msg);
        p[i] = q->s.p;
    }
    if (tn_holm(p, c->pairs, p, &why)) return tn_fail(e, "%s", why.msg);
    for (int i = 0; i < c->pairs; i++) c->pair[i].p_holm = p[i];
    return 0;
}

/* ---- Checks ----------------------------------------------------------------------------------------------------------------- */

static int check_results(const comparison *c, tn_err *e) {
    const char *mode = NULL;
    if (!c->results) return tn_fail(e, "there are no results to compare");
    for (int i = 0; i < c->results; i++) {
        const result *r = &c->result[i];
        if (r->numeric[0] && !mode) mode = r->numeric;
        if (r->numeric[0] && strcmp(r->numeric, mode) != 0)
            return tn_fail(
                e,
                "%s %s seed %ld was computed as '%s', others as '%s': runs of different numeric modes "
                "differ in bits and cannot be compared",
                r->model, r->optimizer, r->seed, r->numeric, mode);
        for (int k = 0; k < i; k++)
            if (r->seed == c->result[k].seed && strcmp(r->model, c->result[k].model) == 0
                && strcmp(r->optimizer, c->result[k].optimizer) == 0)
                return tn_fail(e, "%s %s seed %ld is there twice", r->model, r->optimizer, r->seed);
    }
    return 0;
}

int comparison_compute(comparison *c, tn_err *e) {
    if (check_results(c, e)) return -1;
    c->arms = c->pairs = 0;
    size_t n = (size_t)c->results;
    work w = {c, malloc(n * sizeof(double)), malloc(n * sizeof(double)), malloc(n * sizeof(result *)),
              malloc(n * sizeof(result *))};
    int bad = !w.x || !w.y || !w.a || !w.b ? tn_fail(e, "not enough memory for the statistics") : 0;
    for (int m = 0; m < c->models && !bad; m++)
        for (int o = 0; o < c->optimizers; o++) add_arm(c, &w, m, o);
    bad = bad || find_pairs(c, &w, e) || measure_pairs(c, &w, e);
    free(w.x);
    free(w.y);
    free(w.a);
    free(w.b);
    return bad ? -1 : 0;
}

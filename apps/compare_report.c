/* SPDX-License-Identifier: MIT */
/* The comparison in words: tables of 80 columns, a sentence a pair, and what follows from all of them. */
#include "compare.h"
#include "terminal.h"
#include <math.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

enum { WIDTH = 80 };

void print_wrapped(FILE *f, const char *text, int indent) {
    int at = 0;
    while (*text) {
        int n = (int)strcspn(text, " ");
        if (at && at + 1 + n > WIDTH) {
            fprintf(f, "\n%*s", indent, "");
            at = indent;
        } else if (at) {
            fputc(' ', f);
            at++;
        }
        fprintf(f, "%.*s", n, text);
        at += n;
        text += n;
        text += strspn(text, " ");
    }
    fputc('\n', f);
}

/* A paragraph that grows piece by piece. */
typedef struct {
    char text[8192];
    size_t n;
} para;

static void say(para *p, const char *fmt, ...) TN_PRINTF(2, 3);
static void say(para *p, const char *fmt, ...) {
    va_list ap;
    va_start(ap, fmt);
    int k = vsnprintf(p->text + p->n, sizeof p->text - p->n, fmt, ap);
    va_end(ap);
    if (k > 0) p->n = p->n + (size_t)k < sizeof p->text ? p->n + (size_t)k : sizeof p->text - 1;
}

/* ---- Numbers --------------------------------------------------------------------------------------------------------- */

typedef struct {
    char s[128];
} text;

static text number(const char *fmt, double v) {
    text t;
    if (isfinite(v))
        snprintf(t.s, sizeof t.s, fmt, v);
    else
        snprintf(t.s, sizeof t.s, "%s", isnan(v) ? "-" : v > 0 ? "inf" : "-inf");
    return t;
}

/* A fraction as points: what rounds to zero has no sign. */
static text points(const char *fmt, double v) {
    text t = number(fmt, 100 * v);
    if (strspn(t.s, "+-0.") == strlen(t.s) && strlen(t.s) > 1) memmove(t.s, t.s + 1, strlen(t.s));
    return t;
}

static text interval(const char *fmt, tn_interval ci, const char *between) {
    text t;
    if (!isfinite(ci.lo) || !isfinite(ci.hi)) return (text){"none"};
    snprintf(t.s, sizeof t.s, "%.50s%s%.50s", points(fmt, ci.lo).s, between, points(fmt, ci.hi).s);
    return t;
}

static text p_value(double p) {
    return number(p < 0.0001 ? "%.0e" : "%.4f", p);
}

/* ---- The table of one model ------------------------------------------------------------------------------------------- */

static text spec_number(const char *spec, const char *key) {
    text t;
    char raw[64];
    if (!spec_value(spec, key, raw, sizeof raw)) return (text){"-"};
    snprintf(t.s, sizeof t.s, "%g", strtod(raw, NULL));
    return t;
}

static text mean_of(const char *fmt, const column *c, double scale) {
    return number(fmt, c->n ? scale * c->mean : NAN);
}

/* A first column; a name too long for it gets a line of its own. */
static void print_name(FILE *f, const char *name, int width) {
    if ((int)strlen(name) > width)
        fprintf(f, "%s\n%*s", name, width, "");
    else
        fprintf(f, "%-*s", width, name);
}

static void print_arms(const comparison *c, int model, FILE *f) {
    static const char row[] = " %8s %6s %6s  %-13s %6s %6s %8s %8s\n";
    int noted = 0;
    fprintf(f, "%-10s", "");
    fprintf(f, row, "", "", "test", number("%g%%", 100 * c->level).s, "train", "", "|w| on", "");
    fprintf(f, "%-10s", "optimizer");
    fprintf(f, row, "lr", "lambda", "acc. %", "interval", "- test", "|w|", "unlit", "diverged");
    for (int i = 0; i < c->arms; i++) {
        const arm *a = &c->arm[i];
        if (a->model != model) continue;
        print_name(f, c->optimizer[a->optimizer], 10);
        fprintf(f, row, spec_number(a->spec, "lr").s, spec_number(a->spec, "weight_decay").s,
                mean_of("%.2f", &a->value, 100).s, interval("%.2f", a->value.ci, " - ").s,
                mean_of("%.2f", &a->gap, 100).s,
                mean_of(a->weight_norm.mean < 1e3 ? "%.2f" : "%.0e", &a->weight_norm, 1).s,
                mean_of(a->never_lit_norm.mean < 0.01 ? "%.1e" : "%.3f", &a->never_lit_norm, 1).s,
                number("%.0f", a->diverged).s);
        noted += a->diverged > 0;
    }
    const char *noise = strstr(c->model[model].training, "--label-noise ");
    if (noise) {
        para note = {.n = 0};
        say(&note,
            "train: accuracy on the training labels, of which %g%% are wrong on purpose; test labels are "
            "clean.",
            100 * strtod(noise + strlen("--label-noise "), NULL));
        print_wrapped(f, note.text, 0);
    }
    if (noted)
        print_wrapped(
            f, "A diverged run counts with the accuracy of guessing; gap and norms are those of the others.",
            0);
}

/* ---- Pairs ------------------------------------------------------------------------------------------------------------------ */

static void print_pairs(const comparison *c, int model, FILE *f) {
    static const char row[] = " %6s  %-13s %-13s %7s %7s %5s %4s\n";
    text level;
    snprintf(level.s, sizeof level.s, "%g%% interval", 100 * c->level);
    fprintf(f, "\n%-16s", "difference");
    fprintf(f, row, "mean", level.s, "simultaneous", "p", "Holm p", "d_z", "P(>)");
    for (int i = 0; i < c->pairs; i++) {
        const pair_stats *q = &c->pair[i];
        char name[2 * COMPARE_LABEL + 8];
        if (q->model != model) continue;
        snprintf(name, sizeof name, "%s - %s", c->optimizer[q->a], c->optimizer[q->b]);
        print_name(f, name, 16);
        fprintf(f, row, points("%+.2f", q->s.mean).s, interval("%+.2f", q->s.ci, " ").s,
                interval("%+.2f", q->s.ci_sim, " ").s, p_value(q->s.p).s, p_value(q->p_holm).s,
                number("%.2f", q->s.dz).s, number("%.2f", q->s.prob).s);
    }
    fprintf(f, "\n");
    for (int i = 0; i < c->pairs; i++) {
        const pair_stats *q = &c->pair[i];
        char sentence[1024];
        if (q->model != model) continue;
        tn_paired_sentence(&q->s, c->optimizer[q->a], c->optimizer[q->b], sentence, sizeof sentence);
        print_wrapped(f, sentence, 2);
        if (q->left_out) {
            para note = {.n = 0};
            say(&note, "  (%d of their runs have no partner of the same seed and are left out.)",
                q->left_out);
            print_wrapped(f, note.text, 2);
        }
    }
}

static void print_model(const comparison *c, int model, FILE *f) {
    const compared_model *m = &c->model[model];
    para head = {.n = 0};
    say(&head, "%s", m->name);
    if (m->spec[0]) say(&head, ": %s", m->spec);
    if (m->training[0]) say(&head, " %s", m->training);
    print_wrapped(f, head.text, 2);
    fprintf(f, "\n");
    print_arms(c, model, f);
    print_pairs(c, model, f);
    if (m->source[0]) print_wrapped(f, m->source, 2);
    fprintf(f, "\n");
}

/* ---- All models in one table ------------------------------------------------------------------------------------------------- */

static const pair_stats *find_pair(const comparison *c, int model, int a, int b) {
    for (int i = 0; i < c->pairs; i++)
        if (c->pair[i].model == model && c->pair[i].a == a && c->pair[i].b == b) return &c->pair[i];
    return NULL;
}

static void print_summary(const comparison *c, FILE *f) {
    if (c->models < 2 || c->optimizers > 3) return;
    fprintf(f, "All models: the first against the second, mean difference in points\n\n%-12s", "");
    for (int a = 1; a < c->optimizers; a++)
        for (int b = 0; b < a; b++) {
            text t;
            snprintf(t.s, sizeof t.s, "%.10s - %.10s", c->optimizer[a], c->optimizer[b]);
            fprintf(f, " %-21s", t.s);
        }
    for (int m = 0; m < c->models; m++) {
        fprintf(f, "\n%-12s", c->model[m].name);
        for (int a = 1; a < c->optimizers; a++)
            for (int b = 0; b < a; b++) {
                const pair_stats *q = find_pair(c, m, a, b);
                text t = {"-"};
                if (q)
                    snprintf(t.s, sizeof t.s, "%s %.40s", tn_verdict_word(q->s.verdict),
                             points("%+.2f", q->s.mean).s);
                fprintf(f, " %-21s", t.s);
            }
    }
    fprintf(f, "\n\n");
}

/* ---- What follows ---------------------------------------------------------------------------------------------------------------- */

static void say_ranking(const comparison *c, int model, para *p) {
    const arm *best = NULL, *worst = NULL;
    for (int i = 0; i < c->arms; i++) {
        const arm *a = &c->arm[i];
        if (a->model != model) continue;
        if (!best || a->value.mean > best->value.mean) best = a;
        if (!worst || a->value.mean < worst->value.mean) worst = a;
    }
    if (!best || best == worst) return;
    say(p, " On %s, %s has the highest mean test accuracy (%.2f%%) and %s the lowest (%.2f%%).",
        c->model[model].name, c->optimizer[best->optimizer], 100 * best->value.mean,
        c->optimizer[worst->optimizer], 100 * worst->value.mean);
}

/* "adamw is better than adam" for each pair with this verdict. */
static void say_verdicts(const comparison *c, int model, para *p) {
    static const char *const between[] = {"is undecided against", "is better than", "is worse than",
                                          "is equivalent to"};
    int said = 0;
    for (int i = 0; i < c->pairs; i++) {
        const pair_stats *q = &c->pair[i];
        if (q->model != model) continue;
        say(p, "%s%s %s %s", said++ ? "; " : " ", c->optimizer[q->a], between[q->s.verdict],
            c->optimizer[q->b]);
    }
    say(p, ".");
}

/* Share of the initial norm that is left, in percent; NAN: unknown. */
static double never_lit_kept(const arm *a) {
    if (!a->never_lit_norm.n || !a->never_lit_start.n || !(a->never_lit_start.mean > 0)) return NAN;
    return 100 * a->never_lit_norm.mean / a->never_lit_start.mean;
}

static void say_never_lit(const comparison *c, int model, para *p) {
    double lo = INFINITY, hi = -INFINITY;
    const arm *some = NULL;
    int known = 0, said = 0;
    for (int i = 0; i < c->arms; i++) {
        double kept = never_lit_kept(&c->arm[i]);
        if (c->arm[i].model != model || isnan(kept)) continue;
        lo = fmin(lo, kept);
        hi = fmax(hi, kept);
        some = &c->arm[i];
        known++;
    }
    if (known < 2) return;
    say(p,
        " The weights on pixels that no training image lights %s: of their initial norm (%.2f) there is left",
        lo < 0.9 * hi ? "tell them apart whatever the accuracies say" : "are nearly the same with all",
        some->never_lit_start.mean);
    for (int i = 0; i < c->arms; i++) {
        double kept = never_lit_kept(&c->arm[i]);
        if (c->arm[i].model != model || isnan(kept)) continue;
        const char *fmt = kept >= 10 || kept == 0 ? "%.0f" : kept >= 0.01 ? "%.2g" : "%.0e";
        say(p, "%s %s%% with %s", said++ ? "," : "", number(fmt, kept).s, c->optimizer[c->arm[i].optimizer]);
    }
    say(p, ".");
}

static void print_found(const comparison *c, FILE *f) {
    para p = {.n = 0};
    say(&p, "What was found.");
    for (int m = 0; m < c->models; m++) {
        say_ranking(c, m, &p);
        if (c->pairs == 1)
            say(&p, " The verdict:");
        else
            say(&p, " The verdicts, which hold for all %d pairs together:", c->pairs);
        say_verdicts(c, m, &p);
        say_never_lit(c, m, &p);
    }
    print_wrapped(f, p.text, 0);
}

static int count_verdicts(const comparison *c, tn_verdict v) {
    int n = 0;
    for (int i = 0; i < c->pairs; i++) n += c->pair[i].s.verdict == v;
    return n;
}

static int fewest_pairs(const comparison *c) {
    int n = c->pair[0].s.n;
    for (int i = 1; i < c->pairs; i++) n = c->pair[i].s.n < n ? c->pair[i].s.n : n;
    return n;
}

/* The standard error that the choice of the test images gives to an accuracy. */
static double test_error(const comparison *c) {
    double v = c->arm[0].value.mean;
    return sqrt(v * (1 - v) / (double)c->test_n);
}

static void print_limits(const comparison *c, FILE *f) {
    para p = {.n = 0};
    int diverged = 0, n = fewest_pairs(c);
    for (int i = 0; i < c->arms; i++) diverged += c->arm[i].diverged;
    say(&p, "What this does not show. It holds at these settings: another amount of data, noise, budget, "
            "schedule or "
            "lambda may turn it around.");
    say(&p, " The intervals cover what a seed draws");
    if (c->test_n)
        say(&p,
            ", not the choice of the %ld test images, which all runs share; that alone gives each accuracy a "
            "standard "
            "error of %.2f points, the differences less.",
            c->test_n, 100 * test_error(c));
    else
        say(&p, ", and nothing that all runs share, such as the test set.");
    if (count_verdicts(c, TN_UNDECIDED))
        say(&p, " Undecided means that these seeds cannot tell, not that the two are equal.");
    if (count_verdicts(c, TN_EQUIVALENT))
        say(&p, " Equivalent means within the declared margin, not identical.");
    if (n < tn_signflip_pairs_needed(c->level))
        say(&p,
            " With %d seed%s p < %.2g is impossible: the smallest two-sided p is 2/2^%d = %.4g; at least %d "
            "seeds are "
            "needed.",
            n, n == 1 ? "" : "s", 1 - c->level, n, n < 60 ? 2 / pow(2, n) : 0,
            tn_signflip_pairs_needed(c->level));
    if (diverged)
        say(&p,
            " %d diverged run%s with the accuracy of guessing, so means and intervals that hold one are "
            "dominated by it.",
            diverged, diverged == 1 ? " counts" : "s count");
    print_wrapped(f, p.text, 0);
}

static void print_time(const comparison *c, FILE *f) {
    char took[24];
    if (!isfinite(c->seconds)) return;
    duration_text(c->seconds, took);
    fprintf(f, "\nTime: %s (min:s); %d runs trained", took, c->trained);
    if (c->kept) fprintf(f, ", %d from an earlier call", c->kept);
    fprintf(f, "; %d at a time.\n", c->side_by_side);
}

void comparison_print(const comparison *c, FILE *f) {
    for (int m = 0; m < c->models; m++) print_model(c, m, f);
    print_summary(c, f);
    print_found(c, f);
    fprintf(f, "\n");
    print_limits(c, f);
    print_time(c, f);
}

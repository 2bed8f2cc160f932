/* SPDX-License-Identifier: MIT */
/* What explain_run found, as tables of at most 80 columns and as JSON. */
#include "args.h"
#include "explain.h"
#include "rundir.h"
#include <string.h>

enum {
    WIDTH = 80,
    CELL = 16,
    FIRST = 3, /* width of the first column, t */
    SHOWN = EXPLAIN_COLUMNS * EXPLAIN_MOST
};

/* A column on paper. */
typedef struct {
    const explain_column *c;
    char above[TN_MAX_NAME], head[TN_MAX_NAME]; /* the two lines of the head */
    int group, width; /* several at once: columns of one group stand together when a line has room; else -1 */
} shown;

static void number(double v, char out[CELL]) {
    snprintf(out, CELL, "%.5g", v);
}

static int is_weight(const shown *s) {
    return strcmp(s->c->name, "new w") == 0;
}

static int width_of(const shown *s, int steps, double w) {
    char text[CELL];
    int width = (int)strlen(s->head), above = s->group < 0 ? (int)strlen(s->above) : 0;
    if (above > width) width = above;
    for (int t = is_weight(s) ? -1 : 0; t < steps; t++) {
        number(t < 0 ? w : s->c->v[t], text);
        if ((int)strlen(text) > width) width = (int)strlen(text);
    }
    return width;
}

/* How many of the n columns go on one line: whole groups, or as much of the first as there is room for. */
static int that_fit(const shown *s, int n) {
    int at = FIRST, fit = 0, whole = 0;
    while (fit < n && at + 2 + s[fit].width <= WIDTH) {
        at += 2 + s[fit++].width;
        if (fit == n || s[fit].group < 0 || s[fit].group != s[fit - 1].group) whole = fit;
    }
    return whole ? whole : fit ? fit : 1;
}

static void spaces(FILE *f, int *due) {
    fprintf(f, "%*s", *due, "");
    *due = 0;
}

/* "----- m -----" above the columns of a group, "adaptive" above "part". */
static void print_above(FILE *f, const shown *s, int n) {
    int due = FIRST;
    for (int i = 0, k; i < n; i = k) {
        int width = -2;
        for (k = i; k < n && (k == i || (s[i].group >= 0 && s[k].group == s[i].group)); k++)
            width += 2 + s[k].width;
        const int name = (int)strlen(s[i].above), dashes = s[i].group < 0 ? 0 : width - name - 2;
        due += 2;
        if (!name) {
            due += width;
            continue;
        }
        spaces(f, &due);
        if (dashes < 2) {
            fprintf(f, "%*s", width, s[i].above);
            continue;
        }
        for (int d = 0; d < dashes / 2; d++) fputc('-', f);
        fprintf(f, " %s ", s[i].above);
        for (int d = dashes / 2; d < dashes; d++) fputc('-', f);
    }
    fputc('\n', f);
}

static void print_block(FILE *f, const shown *s, int n, const explain_input *in) {
    char text[CELL];
    int above = 0, start = 0;
    for (int i = 0; i < n; i++) above |= s[i].above[0] != 0, start |= is_weight(&s[i]);
    if (above) print_above(f, s, n);
    fprintf(f, "%*s", FIRST, "t");
    for (int i = 0; i < n; i++) fprintf(f, "  %*s", s[i].width, s[i].head);
    fputc('\n', f);
    for (int t = start ? -1 : 0; t < in->n; t++) {
        int due = 0; /* spaces that are only written when something follows */
        fprintf(f, "%*d", FIRST, t + 1);
        for (int i = 0; i < n; i++) {
            due += 2;
            if (t < 0 && !is_weight(&s[i])) {
                due += s[i].width;
                continue;
            }
            number(t < 0 ? in->w : s[i].c->v[t], text);
            spaces(f, &due);
            fprintf(f, "%*s", s[i].width, text);
        }
        fputc('\n', f);
    }
}

/* A group is at least as wide as its name. */
static void widen(shown *s, int n) {
    for (int i = 0, k; i < n; i = k) {
        int width = -2;
        for (k = i; k < n && (k == i || (s[i].group >= 0 && s[k].group == s[i].group)); k++)
            width += 2 + s[k].width;
        if (s[i].group >= 0 && width < (int)strlen(s[i].above)) s[i].width += (int)strlen(s[i].above) - width;
    }
}

static void print_columns(FILE *f, shown *s, int n, const explain_input *in) {
    for (int i = 0; i < n; i++) s[i].width = width_of(&s[i], in->n, in->w);
    widen(s, n);
    for (int at = 0, k; at < n; at += k) {
        k = that_fit(s + at, n - at);
        if (at) fputc('\n', f);
        print_block(f, s + at, k, in);
    }
}

/* ---- the order of quantities, and their formulas ---- */

typedef struct {
    int n;
    const char *name[SHOWN];
} order;

static int place_of(const order *q, const char *name) {
    int k = 0;
    while (k < q->n && strcmp(q->name[k], name) != 0) k++;
    return k;
}

/* Those of all optimizers; what one has alone stands behind what it has before it. */
static void order_all(order *q, int n, const explained *x) {
    q->n = 0;
    for (int o = 0; o < n; o++)
        for (int i = 0, at = 0; i < x[o].n; i++) {
            int k = place_of(q, x[o].column[i].name);
            if (k == q->n) {
                memmove(q->name + at + 1, q->name + at, (size_t)(q->n++ - at) * sizeof *q->name);
                q->name[k = at] = x[o].column[i].name;
            }
            at = k + 1;
        }
}

static const explain_column *column_of(const explained *x, const char *name) {
    for (int i = 0; i < x->n; i++)
        if (strcmp(x->column[i].name, name) == 0) return &x->column[i];
    return NULL;
}

/* A line a formula; where optimizers differ it names those that have it. */
static void print_formula(FILE *f, int width, int n, const explained *x, const char *name) {
    for (int o = 0; o < n; o++) {
        const explain_column *c = column_of(&x[o], name), *other;
        char who[EXPLAIN_MOST * (TN_MAX_NAME + 2)] = "", text[sizeof who + sizeof c->formula];
        int said = 0, differ = 0;
        for (int p = 0; p < n && c; p++) {
            if (!(other = column_of(&x[p], name))) continue;
            const int same = strcmp(other->formula, c->formula) == 0;
            said |= same && p < o;
            differ |= !same;
            if (same)
                snprintf(who + strlen(who), sizeof who - strlen(who), "%s%s", *who ? ", " : "", x[p].label);
        }
        if (!c || said) continue;
        snprintf(text, sizeof text, "%s%s%s", differ ? who : "", differ ? ": " : "", c->formula);
        args_wrapped(f, text, fprintf(f, "  %-*s  ", width, name), width + 4);
    }
}

static void print_formulas(FILE *f, const order *q, int n, const explained *x) {
    int width = 0;
    for (int k = 0; k < q->n; k++)
        if ((int)strlen(q->name[k]) > width) width = (int)strlen(q->name[k]);
    for (int k = 0; k < q->n; k++) print_formula(f, width, n, x, q->name[k]);
    args_wrapped(
        f,
        "t is the step, lr_t the learning rate times the multiplier s_t of the schedule, lambda weight_decay "
        "times that of --wd-schedule. A formula takes a quantity as it was before the step, or new when its "
        "column stands further left.",
        0, 0);
}

/* ---- all of it ---- */

static int gather(const order *q, int n, const explained *x, shown *s) {
    int count = 0;
    for (int k = 0; k < q->n; k++)
        for (int o = 0; o < n; o++) {
            const explain_column *c = column_of(&x[o], q->name[k]);
            const char *name = q->name[k], *space = strchr(name, ' ');
            const int same_for_all =
                strcmp(name, "g") == 0 || strcmp(name, "s_t") == 0 || strcmp(name, "wd_t") == 0;
            if (!c || (same_for_all && o)) continue;
            shown *to = &s[count++];
            *to = (shown){.c = c, .group = n > 1 && !same_for_all ? k : -1};
            if (to->group >= 0) {
                snprintf(to->above, sizeof to->above, "%s", name);
                snprintf(to->head, sizeof to->head, "%s", x[o].label);
            } else {
                snprintf(to->above, sizeof to->above, "%.*s", space ? (int)(space - name) : 0, name);
                snprintf(to->head, sizeof to->head, "%s", space ? space + 1 : name);
            }
        }
    return count;
}

void explain_print(FILE *f, int n, const explained *x, const explain_input *in) {
    static shown s[SHOWN];
    static order q;
    order_all(&q, n, x);
    for (int o = 0; o < n; o++) args_wrapped(f, x[o].spec, 0, 2);
    fputc('\n', f);
    print_columns(f, s, gather(&q, n, x, s), in);
    fputc('\n', f);
    print_formulas(f, &q, n, x);
    for (int o = 0; o < n; o++) {
        char text[TN_MAX_NAME + 160];
        if (!x[o].whole) continue;
        snprintf(text, sizeof text,
                 "%s works on whole matrices: what it takes of rows, columns or norms is that of a matrix of "
                 "1 x 1 here.",
                 x[o].label);
        args_wrapped(f, text, 0, 0);
    }
}

static json_t *one_json(const explained *x, const explain_input *in) {
    json_t *columns = json_array(), *steps = json_array();
    for (int i = 0; i < x->n; i++)
        json_array_append_new(columns, json_pack("{s:s, s:s, s:b}", "name", x->column[i].name, "formula",
                                                 x->column[i].formula, "part", x->column[i].part));
    for (int t = 0; t < in->n; t++) {
        json_t *values = json_object();
        for (int i = 0; i < x->n; i++)
            json_object_set_new(values, x->column[i].name, json_number(x->column[i].v[t]));
        json_array_append_new(steps, json_pack("{s:i, s:o}", "step", t + 1, "values", values));
    }
    return json_pack("{s:s, s:o, s:o}", "optimizer", x->spec, "columns", columns, "steps", steps);
}

json_t *explain_json(int n, const explained *x, const explain_input *in) {
    json_t *all = json_array();
    for (int o = 0; o < n; o++) json_array_append_new(all, one_json(&x[o], in));
    return json_pack("{s:o, s:o}", "w", json_number(in->w), "optimizers", all);
}

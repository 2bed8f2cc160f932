/* SPDX-License-Identifier: MIT */
/*
 * Where the time of training goes: one reading of the clock after each op, forward and backward, and after each lap.
 * The time since the reading before goes to the line of what has just been done, so the lines add up to all of it by
 * construction. A tape without a profile pays for one test of a pointer an op.
 */
#include "tape.h"
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MAX_LINES = 512, SLOTS = 2 * MAX_LINES };

/* What a line is found by: the op and its parameter, or a lap's name. */
typedef struct {
    const void *op, *param;
} line_key;

struct tn_profile {
    double (*now)(void);
    double last; /* the reading before */
    int n;
    tn_profile_line line[MAX_LINES]; /* in the order of their first time; the first is "other" */
    line_key key[MAX_LINES];
    int slot[SLOTS]; /* hash table: 1 + the line, or 0 */
};

static double monotonic(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static uint64_t hash_text(const char *s) {
    uint64_t h = 1469598103934665603u;
    for (; *s; s++) h = (h ^ (unsigned char)*s) * 1099511628211u;
    return h;
}

static uint64_t hash_key(line_key k, tn_profile_kind kind) {
    uint64_t h = ((uint64_t)(uintptr_t)k.op * 31 + (uint64_t)(uintptr_t)k.param) * 31 + (uint64_t)kind;
    return h * 0x9e3779b97f4a7c15u >> 20;
}

/* "fc1" of fc1.weight, "gru.weight_ih_l0" of that. */
static void name_of(const tn_param *p, char out[TN_MAX_NAME]) {
    static const char ending[] = ".weight";
    size_t n = strlen(p->name), m = sizeof ending - 1;
    if (n > m && !strcmp(p->name + n - m, ending)) n -= m;
    snprintf(out, TN_MAX_NAME, "%.*s", (int)n, p->name);
}

/* The line of an op (name NULL) or of a lap; "other" when there are too many. */
static tn_profile_line *line_of(tn_profile *p, tn_profile_kind kind, line_key k, const char *name) {
    uint64_t h = kind == TN_LAP ? hash_text(name) : hash_key(k, kind);
    int *s = &p->slot[h % SLOTS];
    for (; *s; s = &p->slot[++h % SLOTS]) {
        tn_profile_line *l = &p->line[*s - 1];
        const line_key *at = &p->key[*s - 1];
        if (l->kind != kind) continue;
        if (kind == TN_LAP ? !strncmp(l->name, name, sizeof l->name - 1)
                           : at->op == k.op && at->param == k.param)
            return l;
    }
    if (p->n == MAX_LINES) return p->line;
    tn_profile_line *l = &p->line[p->n];
    *l = (tn_profile_line){.kind = kind};
    snprintf(l->name, sizeof l->name, "%s", name);
    if (k.param) name_of(k.param, l->of);
    p->key[p->n] = k;
    *s = ++p->n;
    return l;
}

static void reading(tn_profile *p, tn_profile_line *l) {
    double now = p->now();
    l->seconds += now - p->last, l->calls++;
    p->last = now;
}

/* ---- What the tape and the sweep report ---- */

static const tn_param *param_of(const tn_t *y) {
    for (int i = 0; i < y->nsrc; i++)
        if (y->src[i] && y->src[i]->param) return y->src[i]->param;
    return NULL;
}

void tn_profile_forward(tn_profile *p, const tn_t *y) {
    if (!y->op) { /* parameters and scalars take no time; larger inputs are the data */
        if (!y->param && y->len > 1) tn_profile_lap(p, "data");
        return;
    }
    tn_profile_line *l = line_of(p, TN_FORWARD, (line_key){y->op, param_of(y)}, y->op->name);
    reading(p, l);
    l->operations += y->op->flops ? y->op->flops(y) : 0;
    const tn_t *first = y->nsrc ? y->src[0] : NULL;
    if (first && y->x >= first->x && y->x < first->x + first->len) return; /* a view: no bytes were moved */
    size_t reals = y->len;
    for (int i = 0; i < y->nsrc; i++) reals += y->src[i] ? y->src[i]->len : 0;
    l->bytes += (double)(reals * sizeof(tn_real));
}

void tn_profile_backward(tn_profile *p, const tn_t *y) {
    tn_profile_line *l = line_of(p, TN_BACKWARD, (line_key){y->op, param_of(y)}, y->op->name);
    reading(p, l);
    size_t reals = 2 * y->len;
    for (int i = 0; i < y->nsrc; i++)
        if (y->src[i]) reals += (y->src[i]->needs ? 2 : 1) * y->src[i]->len;
    l->bytes += (double)(reals * sizeof(tn_real));
    l->operations += tn_back_flops(y);
}

void tn_profile_clock(tn_profile *p, double (*now)(void)) {
    p->now = now, p->last = now();
}

/* ---- The public part ---- */

tn_profile *tn_profile_new(tn_err *e) {
    tn_profile *p = tn_mem_new(sizeof *p);
    if (!p) {
        tn_fail(e, "out of memory: no room for a profile");
        return NULL;
    }
    line_of(p, TN_LAP, (line_key){NULL, NULL}, "other");
    tn_profile_clock(p, monotonic);
    return p;
}

void tn_profile_free(tn_profile *p) {
    tn_free(p);
}

tn_profile *tn_tape_profile(tn_tape *t, tn_profile *p) {
    tn_profile *was = t->profile;
    t->profile = p;
    if (p) p->last = p->now();
    return was;
}

void tn_profile_lap(tn_profile *p, const char *what) {
    if (!p) return;
    if (what)
        reading(p, line_of(p, TN_LAP, (line_key){NULL, NULL}, what));
    else
        p->last = p->now();
}

double tn_profile_seconds(const tn_profile *p) {
    double s = 0;
    for (int i = 0; i < p->n; i++) s += p->line[i].seconds;
    return s;
}

const tn_profile_line *tn_profile_at(const tn_profile *p, int i) {
    return i >= 0 && i < p->n ? &p->line[i] : NULL;
}

/* ---- The table ---- */

static int slower(const void *a, const void *b) {
    const tn_profile_line *x = *(const tn_profile_line *const *)a, *y = *(const tn_profile_line *const *)b;
    return (x->seconds < y->seconds) - (x->seconds > y->seconds);
}

/* "12.3 MB" */
static void bytes_text(double b, char out[16]) {
    static const char *const unit[] = {"B", "KB", "MB", "GB", "TB", "PB"};
    int i = 0;
    while (b >= 999.5 && i < 5) b /= 1000, i++;
    snprintf(out, 16, "%.*f %s", b < 9.95 && i ? 2 : b < 99.5 && i ? 1 : 0, b, unit[i]);
}

static void print_line(FILE *f, const tn_profile_line *l, double total) {
    enum { NAME = 27 };
    char name[2 * TN_MAX_NAME + 2], rate[16] = "", bytes[16] = "";
    static const char *const pass[] = {"", "forward", "backward"};
    snprintf(name, sizeof name, "%s%s%s", l->name, l->of[0] ? " " : "", l->of);
    if (l->operations > 0 && l->seconds > 0)
        snprintf(rate, sizeof rate, "%.1f", l->operations / l->seconds / 1e9);
    if (l->bytes > 0) bytes_text(l->bytes, bytes);
    if (fprintf(f, "%-*s", NAME, name) > NAME) fprintf(f, "\n%*s", NAME, "");
    fprintf(f, " %-8s %9ld %9.3f %5.1f%%", pass[l->kind], l->calls, l->seconds,
            total > 0 ? 100 * l->seconds / total : 0);
    if (rate[0] || bytes[0]) fprintf(f, " %7s %7s", rate, bytes);
    fputc('\n', f);
}

void tn_profile_print(const tn_profile *p, FILE *f) {
    const tn_profile_line *order[MAX_LINES];
    double total = tn_profile_seconds(p);
    for (int i = 0; i < p->n; i++) order[i] = &p->line[i];
    qsort(order, (size_t)p->n, sizeof *order, slower);
    fprintf(f, "%-27s %-8s %9s %9s %6s %7s %7s\n", "op", "pass", "calls", "seconds", "share", "GFLOP/s",
            "bytes");
    for (int i = 0; i < p->n; i++)
        if (order[i]->calls) print_line(f, order[i], total);
    fprintf(f, "%-27s %-8s %9s %9.3f %5.1f%%\n", "in all", "", "", total, total > 0 ? 100.0 : 0);
}

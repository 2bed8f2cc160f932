/* SPDX-License-Identifier: MIT */
/* Learning-rate schedules: the list, specs, and the warm-up that stands in front of any of them. */
#include "internal.h"
#include <string.h>

#define TN_SCHEDULE(name) extern const tn_schedule_def tn_schedule_def_##name;
#include "schedules.def"
#undef TN_SCHEDULE

static const tn_schedule_def *const defs[] = {
#define TN_SCHEDULE(name) &tn_schedule_def_##name,
#include "schedules.def"
#undef TN_SCHEDULE
};

struct tn_schedule {
    const tn_schedule_def *def;
    void *hp;
    long warmup;
    double state[TN_SCHEDULE_STATE];
};

const tn_schedule_def *const *tn_schedules(int *n) {
    *n = TN_ARRAY_LEN(defs);
    return defs;
}

static const tn_schedule_def *find(const char *name, tn_err *e) {
    const char *names[TN_ARRAY_LEN(defs)];
    char list[256] = "", hint[128] = "";
    for (int i = 0; i < TN_ARRAY_LEN(defs); i++) {
        names[i] = defs[i]->name;
        if (!strcmp(names[i], name)) return defs[i];
        size_t at = strlen(list);
        snprintf(list + at, sizeof list - at, "%s%s", i ? ", " : "", names[i]);
    }
    const char *near = tn_nearest(name, TN_ARRAY_LEN(defs), names);
    if (near) snprintf(hint, sizeof hint, " (did you mean \"%s\"?)", near);
    tn_fail(e, "unknown schedule \"%.60s\"%s; there are %s", name, hint, list);
    return NULL;
}

static long warmup_of(const tn_schedule *s) {
    for (const tn_opt *o = s->def->hp; o->name; o++)
        if (!strcmp(o->name, "warmup")) return *(const long *)((const char *)s->hp + o->offset);
    return 0;
}

tn_schedule *tn_schedule_new(const char *spec, tn_err *e) {
    char name[TN_MAX_NAME], what[TN_MAX_NAME + 16];
    const char *options = tn_spec_split(spec, name, sizeof name);
    const tn_schedule_def *def = find(name, e);
    if (!def) return NULL;
    tn_schedule *s = tn_mem_new(sizeof *s);
    if (!s || !(s->hp = tn_mem_new(def->hp_size))) {
        tn_schedule_free(s);
        tn_fail(e, "schedule %s: out of memory", name);
        return NULL;
    }
    s->def = def;
    tn_opts_default(def->hp, s->hp);
    snprintf(what, sizeof what, "schedule %s", name);
    if (tn_opts_parse(def->hp, s->hp, options, what, NULL, e)) {
        tn_schedule_free(s);
        return NULL;
    }
    s->warmup = warmup_of(s);
    if (def->nstate) def->begin(s->hp, s->state);
    return s;
}

void tn_schedule_free(tn_schedule *s) {
    if (!s) return;
    tn_free(s->hp);
    tn_free(s);
}

double tn_schedule_mul(const tn_schedule *s, long step, long total) {
    TN_CHECK(NULL, step >= 0, "tn_schedule_mul: step %ld; steps count from 0", step);
    TN_CHECK(NULL, total > 0 || !s->def->uses_total,
             "tn_schedule_mul: schedule %s needs the planned number of steps", s->def->name);
    double mul = step < s->warmup ? (double)(step + 1) / (double)s->warmup
                                  : s->def->mul(s->hp, step - s->warmup, total - s->warmup);
    return s->def->nstate ? mul * s->state[0] : mul;
}

int tn_schedule_uses_total(const tn_schedule *s) {
    return s->def->uses_total;
}

int tn_schedule_observes(const tn_schedule *s) {
    return s->def->nstate > 0;
}

void tn_schedule_observe(tn_schedule *s, double loss) {
    if (s->def->nstate) s->def->observe(s->hp, loss, s->state);
}

double *tn_schedule_state(tn_schedule *s, int *n) {
    *n = s->def->nstate;
    return s->state;
}

int tn_schedule_text(const tn_schedule *s, char *out, size_t cap) {
    int n = snprintf(out, cap, "%s:", s->def->name);
    if (n < 0 || (size_t)n >= cap) return -1;
    int more = tn_opts_text(s->def->hp, s->hp, 1, out + n, cap - (size_t)n);
    return more < 0 ? -1 : n + more;
}

tn_tick tn_tick_at(long t, long total, const tn_schedule *lr, const tn_schedule *wd) {
    tn_tick k = {.t = t, .total = total, .lr_mul = 1, .wd_mul = 1};
    if (lr) k.lr_mul = tn_schedule_mul(lr, t - 1, total);
    if (wd) k.wd_mul = tn_schedule_mul(wd, t - 1, total);
    return k;
}

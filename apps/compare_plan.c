/* SPDX-License-Identifier: MIT */
/* What is to be run: lists of specs, the jobs, and what of them stands in --out already. */
#include "compare.h"
#include "host.h"
#include "run_state.h"
#include "signals.h"
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- Lists of specs --------------------------------------------------------------------------------------------- */

/* "adamw", "adamw:lr=1e-3" and "adamw:lr=1e-3+ema:decay=0.9" start a spec; "lr=1e-3" and "lr=1e-3+ema:..." do not. */
static int starts_spec(const char *part, size_t n) {
    const char *eq = memchr(part, '=', n), *colon = memchr(part, ':', n);
    return !eq || (colon && colon < eq);
}

int split_specs(const char *text, const char *option, char out[COMPARE_MOST][CONFIG_SPEC], tn_err *e) {
    int count = 0;
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, ",");
        if (!n) return tn_fail(e, "--%s: '%.80s' has an empty place between commas", option, text);
        int first = starts_spec(p, n);
        if (first && count == COMPARE_MOST) return tn_fail(e, "--%s: more than %d", option, COMPARE_MOST);
        if (first) out[count++][0] = 0;
        if (!count) return tn_fail(e, "--%s: '%.80s' does not start with a name", option, text);
        char *spec = out[count - 1];
        size_t used = strlen(spec);
        if (used + n + 2 > CONFIG_SPEC) return tn_fail(e, "--%s: a spec is too long", option);
        snprintf(spec + used, CONFIG_SPEC - used, "%s%.*s", first ? "" : ",", (int)n, p);
        p += n;
        if (*p == ',' && !*++p) return tn_fail(e, "--%s: '%.80s' ends in a comma", option, text);
    }
    if (!count) return tn_fail(e, "--%s: is empty", option);
    return count;
}

void label_specs(int n, char spec[][CONFIG_SPEC], char label[][COMPARE_LABEL]) {
    size_t len[COMPARE_MOST];
    for (int i = 0; i < n; i++) len[i] = strcspn(spec[i], ":+");
    for (int i = 0; i < n; i++) {
        int same = 0, before = 0, shown = len[i] < COMPARE_LABEL - 4 ? (int)len[i] : COMPARE_LABEL - 4;
        for (int k = 0; k < n; k++) {
            int equal = len[i] == len[k] && strncmp(spec[i], spec[k], len[i]) == 0;
            same += equal;
            before += equal && k <= i;
        }
        snprintf(label[i], COMPARE_LABEL, "%.*s", shown, spec[i]);
        if (same > 1) snprintf(label[i] + shown, 4, "#%d", before % 10);
    }
}

/* ---- Jobs ------------------------------------------------------------------------------------------------------------ */

static int by_cost(const void *a, const void *b) {
    const plan_model *const *x = a, *const *y = b;
    if ((*x)->cost != (*y)->cost) return (*x)->cost < (*y)->cost ? 1 : -1;
    return *x < *y ? -1 : *x > *y;
}

void plan_optimizer_of(run_config *c, const char *spec) {
    enum { BYTES = 1024 };
    _Alignas(max_align_t) char hp[BYTES];
    char name[TN_MAX_NAME];
    const char *options = tn_spec_split(spec, name, sizeof name);
    const tn_optim_def *d = tn_optim_find(name);
    if (spec != c->optimizer) snprintf(c->optimizer, sizeof c->optimizer, "%s", spec);
    if (!d || d->hp_size > BYTES) return;
    tn_opts_default(d->hp, hp);
    if (tn_opts_parse(d->hp, hp, options, "", NULL, NULL)) return; /* the run says what is wrong with it */
    if (option_real(d, hp, "weight_decay", 0) == 0)
        snprintf(c->wd_schedule, sizeof c->wd_schedule, "constant");
}

job *plan_jobs(const plan *p, const char *out, int *n, tn_err *e) {
    const plan_model *order[COMPARE_MOST];
    job *jobs = calloc((size_t)(p->models * p->seeds * p->optimizers), sizeof *jobs);
    if (!jobs) {
        tn_fail(e, "not enough memory for the plan");
        return NULL;
    }
    for (int m = 0; m < p->models; m++) order[m] = &p->model[m];
    qsort(order, (size_t)p->models, sizeof *order, by_cost);
    *n = 0;
    for (int m = 0; m < p->models; m++)
        for (int s = 0; s < p->seeds; s++)
            for (int o = 0; o < p->optimizers; o++) {
                job *j = &jobs[(*n)++];
                long seed = p->first_seed + s;
                *j = (job){.config = order[m]->base, .test = 1, .cost = order[m]->cost};
                j->config.seed = seed;
                plan_optimizer_of(&j->config, order[m]->optimizer[o]);
                snprintf(j->label, sizeof j->label, "%s %s seed %ld", order[m]->name, p->label[o], seed);
                snprintf(j->dir, sizeof j->dir, "%s/%s/%s-%ld", out, order[m]->name, p->label[o], seed);
            }
    return jobs;
}

/* ---- What stands there ------------------------------------------------------------------------------------------------- */

/* Which option of the run in dir is another one; specs are compared as the engine writes them. */
static int other_settings(const job *j, tn_err *e) {
    run_config c;
    run_summary s;
    char mode[64];
    host_numeric_mode(mode, sizeof mode);
    if (!run_summary_read(j->dir, &s, NULL) && strcmp(s.numeric, mode) != 0)
        return tn_fail(
            e,
            "%s: was computed as '%s', this run would be as '%s': the bits differ, so they cannot be "
            "compared; use another --out, or overwrite with --force",
            j->dir, s.numeric, mode);
    if (run_dir_config(j->dir, &c, NULL))
        return tn_fail(e, "%s: holds a run that cannot be read; use another --out, or overwrite with --force",
                       j->dir);
    const char *what = c.epochs != j->config.epochs             ? "--epochs"
                       : c.batch != j->config.batch             ? "--batch"
                       : c.train_size != j->config.train_size   ? "--train-size"
                       : c.label_noise != j->config.label_noise ? "--label-noise"
                                                                : "its settings or data";
    return tn_fail(e, "%s: holds another run (%s differs); use another --out, or overwrite with --force",
                   j->dir, what);
}

static int look(job *j, int force, data_cache *data, tn_err *e) {
    char there[17], wanted[17];
    run_dir_state state = run_dir_look(j->dir, there);
    if (state == RUN_DIR_EMPTY) return 0;
    const tn_dataset *set = data_cache_get(data, &j->config, e);
    if (!set || run_identify(&j->config, set, wanted, e)) return -1;
    if (strcmp(there, wanted) != 0) {
        if (!force) return other_settings(j, e);
        j->force = 1;
        return 0;
    }
    if (state == RUN_DIR_PARTIAL) {
        j->resume = 1;
        return 0;
    }
    if (run_summary_read(j->dir, &j->sum, e)) return -1;
    j->guess = set->test.classes ? 1.0 / set->test.classes : NAN;
    j->state = JOB_DONE;
    j->kept = 1;
    return 0;
}

int plan_look(job *jobs, int n, int force, data_cache *data, tn_err *e) {
    for (int i = 0; i < n && !signal_stop; i++)
        if (look(&jobs[i], force, data, e)) return -1;
    return 0;
}

/* ---- The lock ------------------------------------------------------------------------------------------------------- */

int plan_directory(const char *dir, tn_err *e) {
    char path[CONFIG_PATH];
    size_t n = strlen(dir);
    if (!n || n >= sizeof path) return tn_fail(e, "--out: is empty or too long");
    for (size_t i = 1; i <= n; i++) {
        if (dir[i] && dir[i] != '/') continue;
        snprintf(path, sizeof path, "%.*s", (int)i, dir);
        if (mkdir(path, 0777) && errno != EEXIST)
            return tn_fail(e, "%s: cannot make the directory: %s", path, strerror(errno));
    }
    return 0;
}

int plan_lock(const char *out, tn_err *e) {
    char path[CONFIG_PATH + 32];
    if (plan_directory(out, e)) return -1;
    snprintf(path, sizeof path, "%s/lock", out);
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (fd < 0) return tn_fail(e, "%s: cannot write: %s", path, strerror(errno));
    for (int tries = 0; flock(fd, LOCK_EX | LOCK_NB); tries++) {
        if (errno == EWOULDBLOCK && tries < 100 && !signal_stop) {
            nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
            continue;
        }
        close(fd);
        return tn_fail(
            e, errno == EWOULDBLOCK ? "%s: another tern compare is at work here" : "%s: cannot lock it", out);
    }
    return fd;
}

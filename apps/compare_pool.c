/* SPDX-License-Identifier: MIT */
/*
 * Whole runs side by side, each in a single-threaded child process. A child is forked when the data of its run stand
 * open in the parent, so it shares their memory; it reports over a pipe of its own and ends without a trace.
 *
 * A run ends with evaluation and with writing, which waits for the disk. Where every core has a run, the next one
 * starts when the training steps of one are done, so that no core waits, too.
 *
 * The parent alone hears the terminal's SIGINT: it asks the children to stop (SIGTERM), which makes them write their
 * checkpoints. A child whose parent is gone finds its pipe closed and stops in the same way.
 */
#include "compare.h"
#include "host.h"
#include "run_state.h"
#include "signals.h"
#include "terminal.h"
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SLOTS = 256, CACHE_SETS = 64 };
static const size_t CACHE_BYTES = (size_t)384 << 20;

/* ---- Opened data ------------------------------------------------------------------------------------------------ */

typedef struct {
    run_config config;
    tn_dataset set;
    long used; /* time of the last use; 0: the place is free */
} cached;

struct data_cache {
    long clock;
    /* the files as they are, from which the set of each seed is derived: reading and hashing them takes longest */
    int have_whole;
    char where[CONFIG_PATH];
    tn_dataset whole;
    cached at[CACHE_SETS];
};

data_cache *data_cache_new(void) {
    return calloc(1, sizeof(data_cache));
}

static size_t part_bytes(const tn_data *d) {
    return (size_t)d->n * (d->len * (d->xtype == TN_U8 ? 1 : sizeof(float)) + 2 * sizeof(int));
}

static size_t set_bytes(const tn_dataset *s) {
    return part_bytes(&s->train) + part_bytes(&s->val) + part_bytes(&s->test);
}

static void drop(cached *c) {
    if (c->used) tn_dataset_free(&c->set);
    c->used = 0;
}

void data_cache_free(data_cache *c) {
    for (int i = 0; c && i < CACHE_SETS; i++) drop(&c->at[i]);
    if (c && c->have_whole) tn_dataset_free(&c->whole);
    free(c);
}

/* A free place; before that, sets that were not used for long go until those that stay are small enough. */
static cached *make_room(data_cache *c) {
    for (;;) {
        size_t bytes = 0;
        cached *oldest = NULL, *empty = NULL;
        for (int i = 0; i < CACHE_SETS; i++) {
            cached *at = &c->at[i];
            if (!at->used) {
                empty = at;
                continue;
            }
            bytes += set_bytes(&at->set);
            if (!oldest || at->used < oldest->used) oldest = at;
        }
        if (empty && bytes <= CACHE_BYTES) return empty;
        drop(oldest);
    }
}

static int open_whole(data_cache *c, const run_config *config, tn_err *e) {
    run_config all = run_config_default();
    int threads = tn_threads();
    if (c->have_whole && strcmp(c->where, config->data) == 0) return 0;
    if (c->have_whole) tn_dataset_free(&c->whole);
    snprintf(all.data, sizeof all.data, "%s", config->data);
    all.val_size = 0;
    tn_set_threads(host_cores()); /* no child is at work yet */
    c->have_whole = run_open_data(&all, &c->whole, e) == 0;
    tn_set_threads(threads);
    snprintf(c->where, sizeof c->where, "%s", config->data);
    return c->have_whole ? 0 : -1;
}

const tn_dataset *data_cache_get(data_cache *c, const run_config *config, tn_err *e) {
    c->clock++;
    for (int i = 0; i < CACHE_SETS; i++)
        if (c->at[i].used && run_config_same_data(&c->at[i].config, config)) {
            c->at[i].used = c->clock;
            return &c->at[i].set;
        }
    cached *at = make_room(c);
    tn_data_options o = run_config_data(config);
    if (open_whole(c, config, e) || tn_dataset_derive(&c->whole, &o, &at->set, e)) return NULL;
    at->config = *config;
    at->used = c->clock;
    return &at->set;
}

/* ---- The child ----------------------------------------------------------------------------------------------------- */

/* Each message is its kind and then the payload of that kind. */
enum { PROGRESS = 'p', LAST_STEP = 'l', DONE = 'd', FAILED = 'f' };

/* Each of them: whoever ends a whole process group sends a child the signal twice. */
static void on_term(int sig) {
    signal_stop = sig;
}

static int write_all(int fd, const void *data, size_t n) {
    for (const char *p = data; n > 0;) {
        ssize_t k = write(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

static int send_message(int fd, char kind, const void *payload, size_t n) {
    return write_all(fd, &kind, 1) || write_all(fd, payload, n) ? -1 : 0;
}

typedef struct {
    int fd;
    double told;
} reporter;

static void report_progress(void *arg, const run *r, run_event event) {
    reporter *to = arg;
    double now = now_seconds();
    if (event == RUN_ON_LAST && send_message(to->fd, LAST_STEP, NULL, 0)) signal_stop = SIGPIPE;
    if (event != RUN_ON_STEP || now - to->told < 0.1 || !r->total) return;
    to->told = now;
    double part = (double)r->step / (double)r->total;
    if (send_message(to->fd, PROGRESS, &part, sizeof part)) signal_stop = SIGPIPE; /* the parent is gone */
}

static void child(const job *j, const tn_dataset *set, int fd) {
    reporter to = {.fd = fd, .told = now_seconds()};
    run_options how = run_options_default();
    run_summary sum;
    tn_err e = {""};
    struct sigaction term = {.sa_handler = on_term};
    sigaction(SIGTERM, &term, NULL);
    signal(SIGINT, SIG_IGN);
    how.dir = j->dir[0] ? j->dir : NULL;
    how.resume = j->resume;
    how.force = j->force;
    how.test = j->test;
    how.log_steps = 0;
    how.checkpoint_every = LONG_MAX;
    how.on = report_progress;
    how.arg = &to;
    how.stop = &signal_stop;
    int bad = run_train(&j->config, set, &how, &sum, &e);
    _exit(bad ? send_message(fd, FAILED, &e, sizeof e) : send_message(fd, DONE, &sum, sizeof sum));
}

/* ---- The parent ------------------------------------------------------------------------------------------------------ */

typedef struct {
    pid_t pid;
    int fd;
    job *j;
    double part; /* done */
    int ending;  /* its steps are done */
} slot;

typedef struct {
    job *jobs;
    int n, next, live, most, overlap, quiet;
    slot at[SLOTS];
    int stopping; /* the signal that asked for it, or -1: a run failed */
    data_cache *data;
    double started;
    tn_err *e;
} pool;

static void fail(pool *p) {
    if (!p->stopping) p->stopping = -1;
}

static void tell_children(const pool *p) {
    for (int i = 0; i < p->live; i++) kill(p->at[i].pid, SIGTERM);
}

static int start(pool *p, job *j) {
    int fd[2];
    const tn_dataset *set = data_cache_get(p->data, &j->config, p->e);
    if (!set) return -1;
    j->guess = set->test.classes ? 1.0 / set->test.classes : NAN;
    if (pipe(fd)) return tn_fail(p->e, "cannot make a pipe: %s", strerror(errno));
    fflush(NULL);
    pid_t pid = fork();
    if (pid < 0) {
        close(fd[0]);
        close(fd[1]);
        return tn_fail(p->e, "cannot start a process: %s", strerror(errno));
    }
    if (pid == 0) {
        for (int i = 0; i < p->live; i++) close(p->at[i].fd);
        close(fd[0]);
        child(j, set, fd[1]);
    }
    close(fd[1]);
    p->at[p->live++] = (slot){pid, fd[0], j, 0, 0};
    j->state = JOB_RUNS;
    return 0;
}

static int read_all(int fd, void *data, size_t n) {
    for (char *p = data; n > 0;) {
        ssize_t k = read(fd, p, n);
        if (k < 0 && errno == EINTR) continue;
        if (k <= 0) return -1;
        p += k;
        n -= (size_t)k;
    }
    return 0;
}

/* Of a run that is over. */
static void reap(pool *p, slot *s) {
    int status = 0;
    close(s->fd);
    while (waitpid(s->pid, &status, 0) < 0 && errno == EINTR) {}
    if (s->j->state == JOB_RUNS && !p->stopping) {
        if (WIFSIGNALED(status))
            tn_fail(p->e, "%s: its process was ended by signal %d", s->j->label, WTERMSIG(status));
        else
            tn_fail(p->e, "%s: its process ended without a result", s->j->label);
        fail(p);
        tell_children(p);
    }
    if (s->j->state == JOB_RUNS) s->j->state = JOB_WAITS;
    *s = p->at[--p->live];
}

static void say_done(const pool *p, const job *j) {
    int done = 0;
    if (p->quiet || term_live()) return;
    for (int i = 0; i < p->n; i++) done += p->jobs[i].state == JOB_DONE;
    const run_summary *s = &j->sum;
    const score *shown = j->test ? &s->test : &s->val;
    fprintf(stderr, "[%*d/%d] %s: ", p->n > 99 ? 3 : 2, done, p->n, j->label);
    if (s->status == RUN_DIVERGED)
        fprintf(stderr, "diverged: %s", s->reason);
    else
        fprintf(stderr, "%s %.2f%%", j->test ? "test" : "validation", 100 * shown->accuracy);
    fprintf(stderr, " (%.1f s)\n", s->seconds);
}

/* A message of this child: 1 when it was its last. */
static int receive(pool *p, slot *s) {
    char kind;
    job *j = s->j;
    if (read_all(s->fd, &kind, 1)) return 1;
    if (kind == PROGRESS) return read_all(s->fd, &s->part, sizeof s->part) != 0;
    if (kind == LAST_STEP) {
        s->ending = 1;
        return 0;
    }
    if (kind == FAILED) {
        tn_err e;
        if (read_all(s->fd, &e, sizeof e) || p->stopping) return 1;
        tn_fail(p->e, "%s: %s", j->label, e.msg);
        fail(p);
        tell_children(p);
        return 1;
    }
    if (read_all(s->fd, &j->sum, sizeof j->sum)) return 1;
    if (j->sum.status == RUN_FINISHED || j->sum.status == RUN_DIVERGED) {
        j->state = JOB_DONE;
        say_done(p, j);
    }
    return 1;
}

/* Time left: what is left of the cost at the rate so far. */
static void show(const pool *p) {
    double done = 0, left = 0, now = now_seconds() - p->started;
    int finished = 0;
    char text[24] = "";
    if (p->quiet || !term_live()) return;
    for (int i = 0; i < p->n; i++) {
        finished += p->jobs[i].state == JOB_DONE;
        if (p->jobs[i].state == JOB_DONE && !p->jobs[i].kept) done += p->jobs[i].cost;
        if (p->jobs[i].state != JOB_DONE) left += p->jobs[i].cost;
    }
    for (int i = 0; i < p->live; i++) {
        done += p->at[i].part * p->at[i].j->cost;
        left -= p->at[i].part * p->at[i].j->cost;
    }
    if (done > 0 && now > 1) duration_text(left * now / done, text);
    term_line("%d of %d runs%s%s%s%s%s", finished, p->n, p->live ? ", now " : "",
              p->live ? p->at[0].j->label : "", p->live > 1 ? " and others" : "", text[0] ? ", left " : "",
              text);
}

static void wait_for_children(pool *p) {
    struct pollfd wait[SLOTS];
    for (int i = 0; i < p->live; i++) wait[i] = (struct pollfd){p->at[i].fd, POLLIN, 0};
    if (poll(wait, (nfds_t)p->live, 200) <= 0) return;
    for (int i = p->live - 1; i >= 0; i--) /* downwards: reap moves the last one into the gap */
        if (wait[i].revents && receive(p, &p->at[i])) reap(p, &p->at[i]);
}

static job *next_waiting(pool *p) {
    while (p->next < p->n && p->jobs[p->next].state != JOB_WAITS) p->next++;
    return p->next < p->n ? &p->jobs[p->next] : NULL;
}

static int has_place(const pool *p) {
    int ending = 0;
    for (int i = 0; i < p->live; i++) ending += p->at[i].ending;
    return p->live - (p->overlap ? ending : 0) < p->most && p->live < SLOTS;
}

/* Fills the free places; then opens the next run's data while the children work. */
static void fill(pool *p) {
    job *j;
    while (!p->stopping && has_place(p) && (j = next_waiting(p))) {
        p->next++;
        if (start(p, j)) {
            fail(p);
            tell_children(p);
        }
    }
    tn_err ignored; /* should it fail, it fails again when its turn comes */
    if (!p->stopping && (j = next_waiting(p))) data_cache_get(p->data, &j->config, &ignored);
}

int pool_run(job *jobs, int n, int side_by_side, int quiet, data_cache *data, tn_err *e) {
    pool *p = calloc(1, sizeof *p);
    if (!p) return tn_fail(e, "not enough memory");
    *p = (pool){.jobs = jobs,
                .n = n,
                .most = side_by_side,
                .overlap = side_by_side >= host_cores(),
                .quiet = quiet,
                .data = data,
                .started = now_seconds(),
                .e = e};
    tn_set_threads(1);
    signals_catch();
    while (p->live || (!p->stopping && next_waiting(p))) {
        if (signal_stop && !p->stopping) {
            p->stopping = signal_stop;
            tell_children(p);
        }
        fill(p);
        show(p);
        if (p->live) wait_for_children(p);
    }
    if (!quiet) term_clear();
    int code = p->stopping;
    free(p);
    return code;
}

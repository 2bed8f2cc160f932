/* SPDX-License-Identifier: MIT */
/* The files of a run: directory, lock, logs. */
#include "rundir.h"
#include "host.h"
#include "run_state.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct rundir {
    char dir[CONFIG_PATH], path[CONFIG_PATH + 320];
    int lock;
    FILE *log, *csv, *decay; /* decay: opened when there is something to write */
};

static const char *const OWN_FILES[] = {
    "config.json",      "log.jsonl",          "metrics.csv", "summary.json", "last.safetensors",
    "best.safetensors", "resume.safetensors", "test.npz",    "decay.csv",    "decay.safetensors"};
enum { OWN_COUNT = sizeof OWN_FILES / sizeof *OWN_FILES };

const char *rundir_path(rundir *d, const char *file) {
    snprintf(d->path, sizeof d->path, "%s/%s", d->dir, file);
    return d->path;
}

json_t *json_number(double v) {
    return isfinite(v) ? json_real(v) : json_null();
}

json_t *json_from_file(const char *path, tn_err *e) {
    json_error_t why;
    FILE *f = fopen(path, "r");
    if (!f) {
        tn_fail(e, "%s: cannot open: %s", path, strerror(errno));
        return NULL;
    }
    json_t *j = json_loadf(f, JSON_REJECT_DUPLICATES, &why);
    if (!j && ferror(f)) /* a directory opens, and does not read */
        tn_fail(e, "%s: cannot read: %s", path, strerror(errno));
    else if (!j)
        tn_fail(e, "%s: line %d: %s", path, why.line, why.text);
    fclose(f);
    return j;
}

/* ---- Opening ------------------------------------------------------------------------------------------- */

static int make_directories(const char *dir, tn_err *e) {
    char path[CONFIG_PATH];
    size_t n = strlen(dir);
    if (!n || n >= sizeof path) return tn_fail(e, "run directory: its name is empty or too long");
    for (size_t i = 1; i <= n; i++) {
        if (dir[i] && dir[i] != '/') continue;
        snprintf(path, sizeof path, "%.*s", (int)i, dir);
        if (mkdir(path, 0777) && errno != EEXIST)
            return tn_fail(e, "%s: cannot make the directory: %s", path, strerror(errno));
    }
    struct stat st;
    if (stat(dir, &st) || !S_ISDIR(st.st_mode)) return tn_fail(e, "%s: is not a directory", dir);
    return 0;
}

/* A record lock on the directory's log: it ends with the process, however that ends. */
static int take_lock(rundir *d, tn_err *e) {
    const char *path = rundir_path(d, "log.jsonl");
    d->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (d->lock < 0) return tn_fail(e, "%s: cannot write: %s", path, strerror(errno));
    struct flock l = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(d->lock, F_SETLK, &l) && (errno == EACCES || errno == EAGAIN))
        return tn_fail(e, "%s: another process is writing this run", d->dir);
    return 0;
}

static int exists(rundir *d, const char *file) {
    return access(rundir_path(d, file), F_OK) == 0;
}

/* Removes what an old run left; the log is emptied through the lock instead, which hangs on it. */
static int clear_old(rundir *d, int force, tn_err *e) {
    if (!force
        && (exists(d, "config.json") || exists(d, "resume.safetensors") || exists(d, "last.safetensors")))
        return tn_fail(e, "%s: holds a run already; go on with --resume, or overwrite it with --force",
                       d->dir);
    for (int i = 0; i < OWN_COUNT; i++) {
        const char *path = rundir_path(d, OWN_FILES[i]);
        if (strcmp(OWN_FILES[i], "log.jsonl") != 0 && unlink(path) && errno != ENOENT)
            return tn_fail(e, "%s: cannot remove: %s", path, strerror(errno));
    }
    if (ftruncate(d->lock, 0)) return tn_fail(e, "%s/log.jsonl: cannot empty: %s", d->dir, strerror(errno));
    return 0;
}

/* The whole of a text file, with a 0; NULL: none, or memory is short. */
static char *slurp(const char *path, size_t *len) {
    FILE *f = fopen(path, "rb");
    char *text = NULL;
    if (f && !fseek(f, 0, SEEK_END)) {
        long n = ftell(f);
        rewind(f);
        text = n >= 0 ? malloc((size_t)n + 1) : NULL;
        if (text) text[ *len = fread(text, 1, (size_t)n, f)] = 0;
    }
    if (f) fclose(f);
    return text;
}

/* Keeps the head and the rows up to this step; a row that a kill cut short goes, too. */
static int cut_rows(rundir *d, const char *file, long step, tn_err *e) {
    size_t len = 0, keep = 0;
    char *text = slurp(rundir_path(d, file), &len);
    int code = 0;
    for (size_t at = 0; text && at < len;) {
        char *end = memchr(text + at, '\n', len - at);
        if (!end || (at && strtol(text + at, NULL, 10) > step)) break;
        keep = at = (size_t)(end - text) + 1;
    }
    if (text) code = tn_write_file(rundir_path(d, file), text, keep, e);
    free(text);
    return code;
}

/*
 * Drops a last line of the log that a kill cut short. Through the lock's own descriptor: closing another one
 * of the same file would give the lock away.
 */
static int mend_log(rundir *d, tn_err *e) {
    off_t n = lseek(d->lock, 0, SEEK_END);
    for (char c; n > 0 && pread(d->lock, &c, 1, n - 1) == 1 && c != '\n';) n--;
    return n < 0 || ftruncate(d->lock, n)
               ? tn_fail(e, "%s/log.jsonl: cannot mend: %s", d->dir, strerror(errno))
               : 0;
}

/* A kill in the middle of a write leaves "last.safetensors.tmp1234". */
static void sweep(rundir *d) {
    DIR *list = opendir(d->dir);
    for (struct dirent *f; list && (f = readdir(list));)
        for (int i = 0; i < OWN_COUNT; i++) {
            size_t n = strlen(OWN_FILES[i]);
            if (strncmp(f->d_name, OWN_FILES[i], n) || strncmp(f->d_name + n, ".tmp", 4)) continue;
            if (f->d_name[n + 4 + strspn(f->d_name + n + 4, "0123456789")] == 0)
                unlink(rundir_path(d, f->d_name));
        }
    if (list) closedir(list);
}

static FILE *open_append(rundir *d, const char *file, tn_err *e) {
    FILE *f = fopen(rundir_path(d, file), "ae");
    if (!f) tn_fail(e, "%s: cannot write: %s", d->path, strerror(errno));
    return f;
}

static const char METRICS_HEAD[] = "step,epoch,train_loss,penalty,lr_multiplier,val_loss,val_accuracy\n";

static int open_logs(rundir *d, tn_err *e) {
    d->log = open_append(d, "log.jsonl", e);
    d->csv = d->log ? open_append(d, "metrics.csv", e) : NULL;
    if (!d->csv) return -1;
    if (fseek(d->csv, 0, SEEK_END) == 0 && ftell(d->csv) == 0) fputs(METRICS_HEAD, d->csv);
    return fflush(d->csv) ? tn_fail(e, "%s: cannot write: %s", d->path, strerror(errno)) : 0;
}

rundir *rundir_open(const char *dir, long step, int force, tn_err *e) {
    if (make_directories(dir, e)) return NULL;
    rundir *d = calloc(1, sizeof *d);
    if (!d) {
        tn_fail(e, "%s: not enough memory", dir);
        return NULL;
    }
    d->lock = -1;
    snprintf(d->dir, sizeof d->dir, "%s", dir);
    int bad = take_lock(d, e)
              || (step < 0 ? clear_old(d, force, e)
                           : cut_rows(d, "metrics.csv", step, e) || cut_rows(d, "decay.csv", step, e)
                                 || mend_log(d, e));
    if (!bad && unlink(rundir_path(d, "summary.json")) && errno != ENOENT)
        bad = tn_fail(e, "%s: cannot remove: %s", d->path, strerror(errno));
    sweep(d);
    if (bad || open_logs(d, e)) {
        rundir_close(d);
        return NULL;
    }
    return d;
}

void rundir_close(rundir *d) {
    if (!d) return;
    if (d->log) fclose(d->log);
    if (d->csv) fclose(d->csv);
    if (d->decay) fclose(d->decay);
    if (d->lock >= 0) close(d->lock);
    free(d);
}

/* ---- Writing ------------------------------------------------------------------------------------------- */

int rundir_json(rundir *d, const char *file, json_t *j, tn_err *e) {
    char *text = json_dumps(j, JSON_INDENT(2));
    const char *path = rundir_path(d, file);
    json_decref(j);
    if (!text) return tn_fail(e, "%s: not enough memory, or text that is not UTF-8", path);
    size_t n = strlen(text);
    text[n] = '\n'; /* over the final 0: the file needs none */
    int code = tn_write_file(path, text, n + 1, e);
    free(text);
    return code;
}

/* Also notices what earlier writes left undone. */
static int flushed(rundir *d, FILE *f, const char *file, tn_err *e) {
    if (fflush(f) == 0 && !ferror(f)) return 0;
    return tn_fail(e, "%s/%s: cannot write: %s", d->dir, file, strerror(errno));
}

int rundir_event(rundir *d, const char *event, json_t *j, tn_err *e) {
    char when[32];
    time_t now = time(NULL);
    struct tm utc;
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &utc));
    json_t *all = json_pack("{s:s, s:s}", "event", event, "time", when);
    json_object_update(all, j);
    json_dumpf(all, d->log, JSON_COMPACT);
    fputc('\n', d->log);
    json_decref(all);
    json_decref(j);
    return flushed(d, d->log, "log.jsonl", e);
}

static void put_number(FILE *f, const char *key, double v) {
    if (isfinite(v))
        fprintf(f, ",\"%s\":%.17g", key, v);
    else
        fprintf(f, ",\"%s\":null", key);
}

int rundir_step(rundir *d, const run *r, tn_err *e) {
    fprintf(d->log, "{\"event\":\"step\",\"step\":%ld,\"epoch\":%ld", r->step,
            (r->step - 1) / r->per_epoch + 1);
    put_number(d->log, "loss", r->last.loss);
    put_number(d->log, "grad_norm", r->last.grad_norm);
    if (r->sam) put_number(d->log, "ascent_loss", r->last.ascent_loss);
    put_number(d->log, "lr_multiplier", r->lr_mul);
    if (r->wd_schedule) put_number(d->log, "wd_multiplier", r->wd_mul);
    fputs("}\n", d->log);
    return flushed(d, d->log, "log.jsonl", e);
}

static void put_cell(FILE *f, double v) {
    if (isfinite(v))
        fprintf(f, ",%.17g", v);
    else
        fputc(',', f);
}

int rundir_metrics(rundir *d, const run *r, tn_err *e) {
    fprintf(d->csv, "%ld,%ld", r->step, r->step ? (r->step - 1) / r->per_epoch + 1 : 0);
    put_cell(d->csv, r->epoch_images > 0 ? r->epoch_loss / r->epoch_images : NAN);
    put_cell(d->csv, run_penalty(r));
    put_cell(d->csv, r->lr_mul);
    put_cell(d->csv, r->val.n ? r->val.loss : NAN);
    put_cell(d->csv, r->val.n ? r->val.accuracy : NAN);
    fputc('\n', d->csv);
    return flushed(d, d->csv, "metrics.csv", e);
}

static const char DECAY_HEAD[] =
    "step,tensor,decay_rms,gradient_rms,update_rms,grad_rms,weight_norm,update_ratio,tracked\n";

int rundir_decay(rundir *d, long step, const tn_decay_row *row, tn_err *e) {
    if (!d->decay) {
        if (!(d->decay = open_append(d, "decay.csv", e))) return -1;
        if (fseek(d->decay, 0, SEEK_END) == 0 && ftell(d->decay) == 0) fputs(DECAY_HEAD, d->decay);
    }
    fprintf(d->decay, "%ld,%s", step, row->name);
    put_cell(d->decay, row->decay_rms);
    put_cell(d->decay, row->gradient_rms);
    put_cell(d->decay, row->update_rms);
    put_cell(d->decay, row->grad_rms);
    put_cell(d->decay, row->weight_norm);
    put_cell(d->decay, row->update_ratio);
    fprintf(d->decay, ",%ld\n", row->tracked);
    return flushed(d, d->decay, "decay.csv", e);
}

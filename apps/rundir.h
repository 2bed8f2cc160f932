/* SPDX-License-Identifier: MIT */
/*
 * The files of a run: config.json, log.jsonl, metrics.csv, summary.json, the three checkpoints and test.npz; with
 * --log-decay also decay.csv and, where a record is near, decay.safetensors.
 * Every function returns -1 with a message that names the file; a run stops when one of its files cannot be
 * written.
 */
#ifndef TERN_APP_RUNDIR_H
#define TERN_APP_RUNDIR_H
#include "run.h"

typedef struct rundir rundir;

/*
 * Makes the directory (and those above it), takes its lock, opens the logs. step -1: a new run; what an old
 * one left is removed with force and refused without. Else: goes on at that step; later rows of metrics.csv
 * and decay.csv are dropped.
 */
rundir *rundir_open(const char *dir, long step, int force, tn_err *);
void rundir_close(rundir *);                         /* NULL is fine */
const char *rundir_path(rundir *, const char *file); /* valid until the next call */
/* Indented JSON; takes over j. */
int rundir_json(rundir *, const char *file, json_t *j, tn_err *);

/* log.jsonl: one object a line, flushed. Takes over j, which gets "event" in front and "time". */
int rundir_event(rundir *, const char *event, json_t *j, tn_err *);
/* The line of a step, without an allocation. */
int rundir_step(rundir *, const run *, tn_err *);
/* metrics.csv: one row an evaluation. */
int rundir_metrics(rundir *, const run *, tn_err *);

/* decay.csv: one row a tensor and record. */
int rundir_decay(rundir *, long step, const tn_decay_row *, tn_err *);

/* A number for JSON: null when it is not finite. */
json_t *json_number(double);
/* Reads a JSON file; NULL with a message. */
json_t *json_from_file(const char *path, tn_err *);
#endif

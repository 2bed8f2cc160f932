/* SPDX-License-Identifier: MIT */
/* The fields of a run while it goes on: for the engine, and for those who show its progress (read only). */
#ifndef TERN_APP_RUN_STATE_H
#define TERN_APP_RUN_STATE_H
#include "run.h"

struct run {
    run_config config; /* with its specs resolved */
    run_options how;
    const tn_dataset *set;
    tn_model *model;
    tn_optim *optim;
    tn_schedule *schedule;
    tn_schedule *wd_schedule; /* NULL: constant */
    tn_stepper *stepper;      /* NULL: the loop is sam */
    tn_sam *sam;
    tn_decay_report *report; /* NULL: no --log-decay */
    tn_tape *tape, *eval_tape;
    json_t *identity; /* what the id is a hash of */
    run_summary sum;
    tn_augment augment;
    int *order; /* permutation of the epoch order_epoch */
    long order_epoch;
    int *labels; /* of one micro-batch */
    unsigned char *never_lit;
    long per_epoch;               /* steps */
    long skipped, skipped_in_row; /* steps left out because something was not finite; the last ones */
    long step, total;             /* done; planned */
    int resumed;
    int skip_init; /* 1: the weights come from a state, or do not matter */
    int usage;     /* 1: what failed is the user's wording, not a file */
    /*
     * sums over the steps of the epoch so far: kept in checkpoints, so that the log does not depend on a kill
     */
    double epoch_loss, epoch_images;
    tn_step_result last;          /* of the last step */
    double lr_mul, wd_mul;        /* of the last step */
    long saved_step;              /* of the last checkpoint; -1: none yet */
    score val;                    /* of the last validation */
    double started, step_seconds; /* monotonic seconds */
    long done_here;               /* steps of this process */
    double done_images;           /* and their images */
    char warning[512], note[512]; /* the last warning; what loading --init had to convert */
    struct rundir *files;         /* NULL: none */
};

/* run_open.c: everything that stands before the first step. Config resolved, identity and id made. */
int run_open(run *, const run_config *, const tn_dataset *, tn_err *);
int hash_file(const char *path, char hex[65], tn_err *); /* SHA-256 of its bytes */
/*
 * run_plugin.c: full paths of optimizers from files, and their hash, into the configuration; and a copy of it without
 * their folders, for the identity.
 */
int run_plugins_resolve(run *, tn_err *);
int run_plugins_identity(const run *, run_config *, tn_err *);
void run_close(run *);
/* The part of a resume file that is ours into r; *step: where it goes on. Refuses another run's. */
int run_restore(run *, const char *dir, tn_err *);
/* run_files.c: last.safetensors and resume.safetensors as they are now; best.safetensors; test.npz. */
int run_save(run *, tn_err *);
int run_save_best(run *, tn_err *);
int run_save_test(run *, const int *predicted, const tn_real *outputs, tn_err *);
int run_save_config(run *, tn_err *);
/* run_schedule.c: after a validation that was due. */
int run_observe(run *, tn_err *);
/* run_decay.c: --log-decay. Opened before the state is restored, its own state after that; logged after a step. */
int run_decay_open(run *, tn_err *);
int run_decay_restore(run *, const char *dir, tn_err *);
int run_decay_log(run *, tn_err *);
int run_decay_save(run *, tn_err *);
/* What run_save put beside the state, as JSON; NULL with a message. */
json_t *run_read_meta(const char *path, tn_err *);

tn_tick run_tick(const run *, long step); /* of the step with this number, from 0 */
void run_eval_weights(run *, int on);     /* for optimizers that evaluate on other weights than they train */
double run_penalty(const run *); /* lambda / 2 sum w^2 over all parameters with an L2 decay; 0: none */
const char *run_warning(const run *);
int run_warn(run *, tn_err *, const char *fmt, ...) TN_PRINTF(3, 4); /* shown and logged */
double now_seconds(void);                                            /* monotonic */
/* An option of type real by its name out of an optimizer's options, or missing. */
double option_real(const tn_optim_def *, const void *hp, const char *name, double missing);
#endif

/* SPDX-License-Identifier: MIT */
/*
 * The run engine: one whole training, from a configuration to a summary, in a run directory or in memory
 * alone.
 *
 *     tn_dataset set;                                       once, for all runs that see the same data
 *     run_open_data(&config, &set, &err);
 *     run_options how = run_options_default();
 *     how.dir = "runs/adamw-1";
 *     int code = run_train(&config, &set, &how, &summary, &err);
 *
 * The result is a function of the configuration, the data and the numeric mode: neither threads nor kill and
 * resume change a bit. run_train keeps no state of its own between calls and starts no thread beyond
 * tn_parallel's, so a child process made by fork() may call it (tn_set_threads(1) there).
 */
#ifndef TERN_APP_RUN_H
#define TERN_APP_RUN_H
#include "config.h"
#include "evaluate.h"
#include "tern_models.h"
#include <signal.h>

typedef enum {
    RUN_FINISHED,    /* all planned steps, test set read */
    RUN_STOPPED,     /* --max-steps came first; test set read */
    RUN_INTERRUPTED, /* by a signal: checkpoint written, test set not read */
    RUN_DIVERGED     /* loss, gradient or weights not finite: files hold the last good state */
} run_status;
const char *run_status_word(run_status); /* "finished", ... */

typedef struct run_summary {
    run_status status;
    char id[17]; /* of configuration, data and numeric mode */
    char model[CONFIG_SPEC], optimizer[CONFIG_SPEC], schedule[CONFIG_SPEC]; /* with every option */
    char numeric[64];                /* "float32 own", "float32 openblas:SkylakeX" */
    char reason[512];                /* why it diverged: step, op, tensor */
    long seed, steps, total, epochs; /* steps done and planned */
    long skipped;                    /* of them left out as not finite */
    size_t parameters;
    score train, val, test; /* of the last weights; n 0: not measured */
    double best_val;        /* best validation accuracy (regression: loss); NAN: none */
    long best_step;
    double penalty;         /* lambda / 2 sum w^2 where the optimizer has an L2 penalty, else 0 */
    double weight_norm;     /* of all decayed parameters together */
    int never_lit;          /* inputs that are zero in every training sample */
    double never_lit_norm;  /* norm of the first layer's weights on them at the end; NAN: not that kind */
    double never_lit_start; /* and with the initial weights */
    double seconds;         /* all of it; of this process alone after a resume */
    double step_seconds;    /* in training steps */
    double images_per_second;
} run_summary;

typedef struct run run; /* a run while it goes on; run_state.h has its fields */

typedef enum {
    RUN_ON_START, /* before the first step: time for the header */
    RUN_ON_STEP,  /* after each step */
    RUN_ON_LAST,  /* the last step is done: what follows is evaluation and writing */
    RUN_ON_EPOCH, /* after each epoch's end, evaluated */
    RUN_ON_EVAL,  /* after a validation inside an epoch */
    RUN_ON_CHECKPOINT,
    RUN_ON_WARNING, /* run_warning() has the text */
    RUN_ON_END
} run_event;

typedef struct run_options {
    const char *dir;       /* NULL: no files at all */
    int resume;            /* go on from dir/resume.safetensors; the configuration must fit it */
    int force;             /* a finished or other run in dir is overwritten */
    int test;              /* read the test set at the end (default 1); 0 for tuning */
    int test_file;         /* test.npz, too (default 1) */
    long max_steps;        /* stop after so many steps of the whole run; -1: no limit */
    long checkpoint_every; /* steps; 0: after each epoch; LONG_MAX: only at the end */
    int log_steps;         /* a line in log.jsonl for each step (default 1) */
    long log_decay;        /* a record of each tensor's decay every so many steps; 0: none */
    tn_profile *profile;   /* gets where the time of the training loop goes; may be NULL */
    void (*on)(void *arg, const run *, run_event); /* may be NULL */
    void *arg;
    const volatile sig_atomic_t *stop; /* the number of a signal to end by, or 0; may be NULL */
    volatile sig_atomic_t *save;       /* set to 1: write a checkpoint and go on; may be NULL */
} run_options;
run_options run_options_default(void);

/*
 * 0: *out is filled, whatever its status. -1: data, files or memory failed; -2: the configuration is wrong (a
 * usage error); err says what. A configuration's specs need not be resolved. When c->init_hash is empty it is
 * made from c->init.
 */
int run_train(const run_config *, const tn_dataset *, const run_options *, run_summary *out, tn_err *);

/* The id (may be NULL) that run_train would give this run; -1 and -2 as there. Trains nothing. */
int run_identify(const run_config *, const tn_dataset *, char id[17], tn_err *);

/*
 * What stands in a directory: nothing of ours, an interrupted run, or a finished one. id (may be NULL): of
 * that run.
 */
typedef enum { RUN_DIR_EMPTY, RUN_DIR_PARTIAL, RUN_DIR_FINISHED } run_dir_state;
run_dir_state run_dir_look(const char *dir, char id[17]);
/* The summary of a finished run from its summary.json; and the JSON of one (a new reference). */
int run_summary_read(const char *dir, run_summary *, tn_err *);
json_t *run_summary_json(const run_summary *);
/* {"seconds", "lines": [{"op", "of", "pass", "calls", "seconds", "operations", "bytes"}]} */
json_t *run_profile_json(const tn_profile *);
/*
 * The configuration an interrupted or finished run in dir was started with (from resume.safetensors,
 * config.json).
 */
int run_dir_config(const char *dir, run_config *, tn_err *);
#endif

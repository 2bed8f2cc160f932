/* SPDX-License-Identifier: MIT */
/*
 * tern compare: from a plan (models x optimizers x seeds) over runs side by side to statistics, tables and files.
 *
 *   compare_presets.c  the preset table: one row a model      compare_stats.c   pairs, intervals, verdicts
 *   compare_plan.c     the plan and its runs in --out         compare_report.c  tables and sentences
 *   compare_pool.c     child processes                        compare_json.c    results.json, results.csv
 *   compare_pilot.c    --pilot: lr and lambda on validation   compare_from.c    results from elsewhere
 */
#ifndef TERN_APP_COMPARE_H
#define TERN_APP_COMPARE_H
#include "run.h"
#include "tern_stats.h"

enum { COMPARE_LABEL = 48, COMPARE_MOST = 8, COMPARE_SEEDS = 1000 };

/* ---- Presets ------------------------------------------------------------------------------------------------- */

/* Where the pilot starts to look: count values from first on, each `factor` times the one before. */
typedef struct {
    double first, factor;
    int count;
} grid_axis;

/* What tern compare does for a model by itself. A new model is one row in compare_presets.c and its pilot's table. */
typedef struct {
    const char *name, *model;          /* "mlp", "mlp:hidden=128" */
    const char *training;              /* options as on a command line */
    const char *adam, *adaml2, *adamw; /* chosen by the pilot: best rows of its table */
    double margin;                     /* equivalence, as a fraction of 1 */
    double seconds;                    /* a run takes about, for the order and the time left */
    const char *pilot;                 /* the pilot's table, from the root of the sources */
    const char *pilot_seeds; /* option of the command that made it, " --seeds 2", or "" for the usual four */
    const char *note;        /* on the pilot, in a sentence; may be NULL */
    grid_axis lr, l2, w;     /* learning rate; lambda of adaml2; of adamw */
} preset;

extern const preset presets[];                                  /* ends with a row without a name */
const preset *preset_find(const char *name);                    /* NULL: none */
const char *preset_optimizer(const preset *, const char *name); /* its spec, or NULL */
/* "--epochs 40 --batch 32" into c. Of our own tables: panics on an error. */
void preset_training(const preset *, run_config *c);
/* An option of training by its name without dashes, checked as tern train checks it. */
int training_set(run_config *, const char *name, const char *value, tn_err *);
/* "--schedule cosine --epochs 40": what differs from tern train's defaults. */
void training_text(const run_config *, char *out, size_t cap);

/* ---- Child processes ------------------------------------------------------------------------------------------ */

/* Opened data sets that serve several runs; the least recently used go when they become too many bytes. */
typedef struct data_cache data_cache;
data_cache *data_cache_new(void);
void data_cache_free(data_cache *);
/* Stays valid until the next call. NULL with a message. */
const tn_dataset *data_cache_get(data_cache *, const run_config *, tn_err *);

typedef enum { JOB_WAITS, JOB_RUNS, JOB_DONE } job_state;
typedef struct {
    run_config config;
    char label[160];             /* "mlp adamw seed 3" */
    char dir[CONFIG_PATH + 160]; /* "": in memory */
    int test, resume, force;     /* of run_options */
    double cost;                 /* seconds, about */
    job_state state;             /* JOB_DONE from the start: not run */
    int kept;                    /* 1: an earlier call had finished it */
    run_summary sum;             /* when done */
    double guess;                /* accuracy of guessing: 1 / classes */
} job;

/*
 * Runs the jobs that wait, in their order, `side_by_side` at a time, each in a single-threaded child process.
 * 0: all done. A positive number: the signal that stopped them (children have written their checkpoints). -1: a run
 * failed, err says which and why; the others were stopped.
 */
int pool_run(job *, int n, int side_by_side, int quiet, data_cache *, tn_err *);

/* ---- The plan ---------------------------------------------------------------------------------------------------- */

typedef struct {
    char name[COMPARE_LABEL]; /* "mlp"; with a number when two have the same */
    const preset *p;          /* NULL: no preset for this model */
    run_config base;          /* everything but optimizer and seed */
    double margin, cost;
    char optimizer[COMPARE_MOST][CONFIG_SPEC]; /* of each label */
    int tuned[COMPARE_MOST];                   /* 1: the spec is the pilot's choice */
} plan_model;

typedef struct {
    int models, optimizers, seeds;
    long first_seed;
    plan_model model[COMPARE_MOST];
    char label[COMPARE_MOST][COMPARE_LABEL]; /* optimizers: "adamw", or "adamw#2" */
} plan;

/*
 * "adam,adamw:lr=1e-3,weight_decay=1,mlp" -> specs: a part that holds no '=', or a ':' before it, starts a new one.
 * Returns how many; -1 with a message when there are none, too many, or one is too long. option: for the message.
 */
int split_specs(const char *text, const char *option, char out[COMPARE_MOST][CONFIG_SPEC], tn_err *);
/* Names that are short and differ: "adamw", or "adamw#1", "adamw#2". */
void label_specs(int n, char spec[][CONFIG_SPEC], char label[][COMPARE_LABEL]);
/* One job a run, models with the longest runs first, then by seed. free() it. */
/* The optimizer of a run: what does not decay has no use for --wd-schedule, which is made constant. */
void plan_optimizer_of(run_config *, const char *spec);
job *plan_jobs(const plan *, const char *out, int *n, tn_err *);
/*
 * Looks at what stands in the jobs' directories: finished runs with the same id are read, interrupted ones will go
 * on. A run of other settings is an error that says what differs, or is overwritten with force. Ends early, with 0,
 * after a signal.
 */
int plan_look(job *, int n, int force, data_cache *, tn_err *);
/* Makes a directory and those above it. */
int plan_directory(const char *dir, tn_err *);
/*
 * Makes --out and takes its lock, which children inherit: it is free when the last of them is gone. Waits some
 * seconds for those of a call that was killed. The lock's descriptor, or -1 with a message.
 */
int plan_lock(const char *out, tn_err *);

/* ---- Results and their statistics ------------------------------------------------------------------------------------ */

typedef struct {
    char model[COMPARE_LABEL], optimizer[COMPARE_LABEL]; /* labels */
    char spec[CONFIG_SPEC];                              /* with every option, or "" */
    long seed;
    double value; /* test accuracy, a fraction; of a diverged run that of guessing */
    int diverged;
    double train, val, loss; /* accuracy on both, test loss; NAN: unknown, as the rest */
    double weight_norm, never_lit_norm, never_lit_start;
    int never_lit;
    double seconds;
    char numeric[64], id[17];
} result;

typedef struct {
    double mean;
    tn_interval ci; /* Student's t */
    int n;          /* 0: nothing known */
} column;

/* One model with one optimizer: a row of its table. */
typedef struct {
    int model, optimizer;
    const char *spec; /* of its first result */
    int n, diverged;
    column value, gap, weight_norm, never_lit_norm, never_lit_start;
} arm;

typedef struct {
    int model, a, b; /* d = a - b */
    int left_out;    /* seeds that only one of the two has */
    tn_paired s;
    double p_holm;
} pair_stats;

typedef struct {
    char name[COMPARE_LABEL];
    double margin;
    char spec[CONFIG_SPEC];     /* or "" */
    char training[CONFIG_SPEC]; /* options that differ from the default, or "" */
    char source[CONFIG_SPEC];   /* where lr and lambda come from, as a sentence, or "" */
} compared_model;

typedef struct {
    int results, models, optimizers, arms, pairs;
    result *result;
    compared_model model[COMPARE_MOST];
    char optimizer[COMPARE_MOST][COMPARE_LABEL];
    arm arm[COMPARE_MOST * COMPARE_MOST];
    pair_stats pair[COMPARE_MOST * COMPARE_MOST * (COMPARE_MOST - 1) / 2];
    double level;
    double seconds; /* of the whole command; NAN: unknown */
    int trained, kept, side_by_side;
    char data[64], data_hash[65];
    long test_n; /* test images of the last data set; 0: unknown */
} comparison;

comparison *comparison_new(int results);
void comparison_free(comparison *);
/* The index of a name in c->model or c->optimizer, added when new; -1 with a message when they are too many. */
int comparison_model(comparison *, const char *name, tn_err *);
int comparison_optimizer(comparison *, const char *name, tn_err *);
/*
 * Arms and pairs from c->result. Refuses results of different numeric modes, a run that is there twice, and a model
 * with fewer than two optimizers that share a seed.
 */
int comparison_compute(comparison *, tn_err *);
/* lr, weight_decay, ... out of a spec with every option. 0 when it is not there. */
int spec_value(const char *spec, const char *key, char *out, size_t cap);

/* ---- Output -------------------------------------------------------------------------------------------------------------- */

void comparison_print(const comparison *, FILE *);
json_t *comparison_json(const comparison *);
/* results.json and results.csv in dir. */
int comparison_save(const comparison *, const char *dir, tn_err *);
/* Results from a JSON or CSV file (by its content). margin < 0: the file's own, else 0.005. */
comparison *comparison_read(const char *path, double margin, tn_err *);
/* text at 80 columns, lines after the first indented. */
void print_wrapped(FILE *, const char *text, int indent);

/* ---- The pilot --------------------------------------------------------------------------------------------------------------- */

typedef struct {
    int side_by_side, quiet;
    const char *out;     /* directory of the tables */
    const char *command; /* as typed, for the table's head */
} pilot_options;
/*
 * For each model of the plan: lr and lambda of adam, adaml2 and adamw by validation accuracy, over the plan's seeds.
 * Prints the tables and writes OUT/NAME_pilot.tsv. Returns as pool_run.
 */
int pilot_run(const plan *, const pilot_options *, data_cache *, tn_err *);
#endif

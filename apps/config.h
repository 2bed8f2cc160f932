/* SPDX-License-Identifier: MIT */
/*
 * What a run is asked to do. The configuration and the data's hashes decide every bit of the result; what
 * does not (threads, folders, when checkpoints are written) stands in run_options. Needs args.h for its table
 * rows.
 */
#ifndef TERN_APP_CONFIG_H
#define TERN_APP_CONFIG_H
#include "args.h"
#include "tern_data.h"
#include <jansson.h>

enum { CONFIG_PATH = 4096, CONFIG_SPEC = 1024, CONFIG_GROUPS = 8 };

typedef struct run_config {
    char data[CONFIG_PATH]; /* --data: a directory or "synthetic:..."; never part of the run's identity */
    char model[CONFIG_SPEC], optimizer[CONFIG_SPEC], schedule[CONFIG_SPEC], wd_schedule[CONFIG_SPEC];
    char loop[CONFIG_SPEC];                 /* "plain" or "sam:rho=0.05,..." */
    char group[CONFIG_GROUPS][CONFIG_SPEC]; /* "PATTERN=options"; an empty text ends the list */
    char init[CONFIG_PATH];                 /* weights to start from, or "" */
    char init_hash[65];                     /* SHA-256 of that file; run_train fills it */
    char plugin_hash[65]; /* of the optimizers that come from files, or ""; run_train fills it */
    char gemm[16];        /* "own" or "openblas" */
    long epochs, batch, accumulate, seed, eval_every;
    long val_size, train_size;
    double label_noise, label_smoothing, clip_norm, clip_value;
    int shuffle, drop_last, normalize; /* 0 or 1; normalize 1: meanstd */
    int skip_nonfinite;                /* 1: --on-nonfinite skip */
    char augment[CONFIG_SPEC];         /* options of tn_augment, or "" */
} run_config;

/*
 * The rows of the options that fill a run_config, for the table of a command whose struct S has it as field
 * f.
 */
#define CONFIG_ARGS(S, f)                                                                                    \
    ARG_TEXT(S, f.data, "data", "WHERE", "",                                                                 \
             "directory of a data set, images:DIR,key=value or synthetic:key=value; default: MNIST as "      \
             "shipped with tern"),                                                                           \
        ARG_TEXT(S, f.model, "model", "SPEC", "mlp", "model, as name:key=value,...; see tern list models"),  \
        ARG_TEXT(S, f.optimizer, "optimizer", "SPEC", "adamw",                                               \
                 "optimizer, with wrappers behind a plus: adamw:lr=1e-3+ema; or a plug-in, "                 \
                 "./my_opt.so:lr=0.1, which runs with all your rights; see tern list optimizers"),           \
        ARG_TEXT(S, f.schedule, "schedule", "SPEC", "constant",                                              \
                 "learning-rate schedule; see tern list schedules"),                                         \
        ARG_TEXT(S, f.wd_schedule, "wd-schedule", "SPEC", "constant",                                        \
                 "schedule of weight_decay, beside the rate's; takes the same ones"),                        \
        ARG_TEXT(S, f.loop, "loop", "SPEC", "plain",                                                         \
                 "plain, or sam:rho=0.05,adaptive=off,eta=0.01: a second gradient where the loss rises "     \
                 "(sharpness-aware minimisation; adaptive=on: ASAM)"),                                       \
        ARG_MANY(S, f.group, "group", "PATTERN=SPEC", CONFIG_GROUPS,                                         \
                 "options, or an optimizer, for the parameters whose names match, as in '*.bias=lr=1e-4' or" \
                 " '*.bias=sgd:lr=0.1'; may be repeated, the last match holds"),                             \
        ARG_INT(S, f.epochs, "epochs", 10, 1, 1000000, "passes over the training images"),                   \
        ARG_INT(S, f.batch, "batch", 128, 1, 1000000, "images that one optimizer step sees"),                \
        ARG_INT(S, f.accumulate, "accumulate", 1, 1, 65536, "parts that a batch is cut into"),               \
        ARG_INT(S, f.seed, "seed", 1, 0, LONG_MAX,                                                           \
                "seed of initial weights, order, dropout, subset, noise and augmentation"),                  \
        ARG_WORD(S, f.shuffle, "shuffle", "off|on", 1, "new order of the training images in each epoch"),    \
        ARG_WORD(S, f.drop_last, "drop-last", "off|on", 0, "leave out an epoch's last, smaller batch"),      \
        ARG_TEXT(S, f.init, "init", "FILE", "", "start from the weights in a safetensors file"),             \
        ARG_INT(S, f.val_size, "val-size", 5000, 0, INT_MAX,                                                 \
                "training images kept for validation; 0: none"),                                             \
        ARG_INT(S, f.train_size, "train-size", 0, 0, INT_MAX,                                                \
                "train on a stratified subset of this size; 0: all"),                                        \
        ARG_REAL(S, f.label_noise, "label-noise", 0, 0, 1,                                                   \
                 "share of training labels replaced by another class"),                                      \
        ARG_WORD(S, f.normalize, "normalize", "none|meanstd", 0,                                             \
                 "pixels in [0, 1], or with mean 0 and variance 1"),                                         \
        ARG_TEXT(                                                                                            \
            S, f.augment, "augment", "OPTIONS", "",                                                          \
            "change each training picture at random: shift=2,rotate=10,scale=0.1,elastic=1,flip=on; see "    \
            "tern list augment"),                                                                            \
        ARG_REAL(S, f.label_smoothing, "label-smoothing", 0, 0, 1,                                           \
                 "share of the target spread over all classes"),                                             \
        ARG_REAL(S, f.clip_norm, "clip-norm", 0, 0, 1e30, "largest norm of the gradient; 0: no limit"),      \
        ARG_REAL(S, f.clip_value, "clip-value", 0, 0, 1e30,                                                  \
                 "largest absolute value in the gradient; 0: no limit"),                                     \
        ARG_WORD(S, f.skip_nonfinite, "on-nonfinite", "stop|skip", 0,                                        \
                 "a step whose loss or gradient is not finite ends the run, or is left out: weights and "    \
                 "optimizer state stay, the schedules go on; 10 in a row end the run"),                      \
        ARG_INT(S, f.eval_every, "eval-every", 0, 0, LONG_MAX,                                               \
                "validate every N steps; 0: after each epoch"),                                              \
        ARG_WORD_TEXT(S, f.gemm, "gemm", "auto|own|openblas", "auto",                                        \
                      "kernels that multiply matrices; auto: own where they are fast")

run_config run_config_default(void);

/*
 * What tn_dataset_open wants to know; and whether two runs see the same arrays, so that one opened set serves
 * both.
 */
tn_data_options run_config_data(const run_config *);
int run_config_same_data(const run_config *, const run_config *);
/*
 * Opens c->data. "" is MNIST as shipped: $TERN_DATA, ./data/mnist, the source folder or where tern is
 * installed.
 */
int run_open_data(const run_config *, tn_dataset *, tn_err *);
/* The same for who needs the test part alone: see tn_data_options.test_only. */
int run_open_test_data(const run_config *, tn_dataset *, tn_err *);

/*
 * All of it as JSON, in the table's order. with_paths 0 leaves out data and init (their hashes stand for
 * them), which is what the run id is made of.
 */
json_t *run_config_json(const run_config *, int with_paths);
/* Over what is in c; unknown keys and wrong types are errors. from: the file's name for the message. */
int run_config_from_json(run_config *c, const json_t *, const char *from, tn_err *);
#endif

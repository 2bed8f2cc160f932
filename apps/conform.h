/* SPDX-License-Identifier: MIT */
/*
 * The optimizers' vectors (tests/golden/optim/README.md): read, run against an optimizer, and asked for the mistake
 * behind a failure. Shared by tern conformance and the tests.
 */
#ifndef TERN_APP_CONFORM_H
#define TERN_APP_CONFORM_H
#include "tern.h"
#include <jansson.h>

enum { CONFORM_TENSORS = 4, CONFORM_PASSES = 2, CONFORM_PATH = 4096 };

typedef struct {
    const char *name;
    int nd, dim[TN_MAX_DIM], decays;
    size_t n, at; /* elements; the first one's place among those of all tensors */
} conform_tensor;

typedef struct {
    const char *name, *spec, *source;
    const json_t *options, *expect;
    double tol, *g, *lr_mul, *wd_mul; /* g: steps x len */
} conform_case;

/* One file. Its arrays run over all tensors, one after the other: len numbers. */
typedef struct {
    json_t *root;
    char path[CONFORM_PATH];
    const char *family;
    int steps, tensors, cases;
    size_t len;
    conform_tensor tensor[CONFORM_TENSORS];
    double *init;
    conform_case *c;
} conform_file;

/* NULL with a message when it cannot be read or is not of the format. */
conform_file *conform_open(const char *path, tn_err *);
void conform_close(conform_file *);
/* The families (file names without .json) in a folder, sorted; -1: no such folder. Release: each, and the array. */
int conform_families(const char *dir, char ***names, tn_err *);
/* Where the vectors are: given, in the source tree, or installed; NULL: nowhere. */
const char *conform_place(const char *given);

/* Makes the optimizer that is judged; spec: the case's. */
typedef struct {
    tn_optim *(*make)(const void *who, tn_params *, const char *spec, tn_err *);
    const void *who;
    int strict; /* state as well: the expected slots and no others; else those with the same name */
} conform_maker;
extern const conform_maker conform_builtin;

typedef struct {
    double deviation; /* largest |got - want| / max |want|; infinite: not finite, or not 0 where all is 0 */
    double *w;        /* weights after each step: passes x steps x len; the second pass is after a reset */
    char where[160];  /* "step 3, weight", "after a reset, step 2, bias, v" */
} conform_result;
/* -1: the optimizer was refused, or (strict) its slots are others. */
int conform_run(const conform_file *, const conform_case *, const conform_maker *, conform_result *,
                tn_err *);

/* ---- known mistakes: a plain reference step in double that makes one of them ---- */

#define CONFORM_MISTAKES(X)                                                                        \
    X(NONE, "none")                                                                                \
    X(STEP_SIGN, "wrong sign of the step: it goes uphill")                                         \
    X(EPS_INSIDE, "epsilon inside the root")                                                       \
    X(EPS_HAT, "epsilon added before the bias correction (epsilon hat)")                           \
    X(EPS_DEFAULT, "another default of epsilon: 1e-7")                                             \
    X(EPS_DEFAULT5, "another default of epsilon: 1e-5")                                            \
    X(NO_CORRECTION, "missing bias correction")                                                    \
    X(NO_CORRECTION_M, "missing bias correction of the first moment")                              \
    X(NO_CORRECTION_V, "missing bias correction of the second moment")                             \
    X(CORRECTION_TIMES, "bias correction multiplied instead of divided")                           \
    X(DAMPENING_FIRST, "dampening applied to the first gradient as well")                          \
    X(T_PER_TENSOR, "step counter advanced once a tensor instead of once a step")                  \
    X(T_AHEAD, "step counter off by one: the first step uses beta^2")                              \
    X(BETA_SWAP, "beta1 and beta2 swapped")                                                        \
    X(NO_DAMPING, "first moment without the factor 1 - beta1")                                     \
    X(MOMENTS_SHARED, "moments shared between tensors")                                            \
    X(STALE_MOMENTS, "a reset leaves the moments")                                                 \
    X(STALE_COUNTER, "a reset clears the moments but not the step counter")                        \
    X(DECAY_MOMENTS, "decay goes through the moments (L2 in the place of decoupled decay)")        \
    X(DECAY_BESIDE, "decay beside the step (decoupled, in the place of L2)")                       \
    X(DECAY_BOTH, "double decay: in the gradient and beside the step")                             \
    X(DECAY_TWICE, "double decay: applied twice, or lambda without the factor 1/2 of the penalty") \
    X(DECAY_HALF, "half the decay: the factor 1/2 of the penalty is in its gradient, too")         \
    X(DECAY_SIGN, "wrong sign of the decay: weights grow")                                         \
    X(DECAY_AFTER, "decay applied after the step, to the updated weights")                         \
    X(DECAY_BIASES, "biases decayed: the list of tensors without decay is ignored")                \
    X(DECAY_IGNORED, "weight_decay ignored")                                                       \
    X(DECAY_DEFAULT, "L2 of 5e-4 where no decay is asked for")                                     \
    X(DECAY_NO_LR, "decay without the learning rate")                                              \
    X(DECAY_WITH_LR, "decay times the learning rate where it should be independent of it")         \
    X(DECAY_NO_SCHEDULE, "decay with the initial learning rate: the schedule does not reach it")   \
    X(SCHEDULE_IGNORED, "learning-rate schedule ignored")                                          \
    X(AMSGRAD_IGNORED, "amsgrad ignored")                                                          \
    X(AMSGRAD_CORRECTED, "amsgrad's maximum taken of the corrected second moment")                 \
    X(MOMENTUM_IGNORED, "momentum ignored")                                                        \
    X(NESTEROV_IGNORED, "nesterov ignored")                                                        \
    X(DAMPENING_IGNORED, "dampening ignored")                                                      \
    X(LR_IN_BUFFER, "learning rate inside the momentum buffer")                                    \
    X(CENTERED_IGNORED, "centered ignored")                                                        \
    X(INITIAL_IGNORED, "initial_accumulator_value ignored")                                        \
    X(LR_DECAY_IGNORED, "lr_decay ignored")                                                        \
    X(GRADIENT_STALE, "the gradient of the step before is used")                                   \
    X(GRADIENT_SUMMED, "gradients are summed over the steps: not cleared after a step")            \
    X(MOMENTUM_LATE, "the step uses the first moment of before this gradient")                     \
    X(SGD_INSTEAD, "the rule is ignored: momentum SGD runs in its place")                          \
    X(LR_OUT_OF_BUFFER, "learning rate outside the momentum buffer")                               \
    X(EPS_OUTSIDE, "epsilon outside the root or maximum that the formula has it in")               \
    X(EPS_CORRECTED, "epsilon added after the bias correction, not before it")                     \
    X(RATIO_IGNORED, "the step is not scaled to the norm of the weights (lamb's ratio)")           \
    X(LAMBDA_DEFAULT, "another default of weight_decay: 0.004")                                    \
    X(LAMBDA_DEFAULT4, "another default of weight_decay: 1e-4")                                    \
    X(LAMBDA_DEFAULT2, "another default of weight_decay: 1e-2")                                    \
    X(LAMBDA_DEFAULT0, "another default of weight_decay: 0")

enum {
#define X(name, text) MISTAKE_##name,
    CONFORM_MISTAKES(X)
#undef X
        MISTAKES
};
extern const char *const conform_mistake_text[MISTAKES];

/* The reference's weights with that mistake, as conform_result.w. 0: it does not know the family. */
int conform_plain(const conform_file *, const conform_case *, int mistake, double *w);
int conform_knows(const conform_file *);
/* 1: what the mistake changes in this case is more than its tolerance can hide. */
int conform_tells(const conform_file *, const conform_case *, int mistake);

typedef struct {
    int mistake; /* 0: none of them explains it */
    int cases;   /* of how many failed cases it reproduces the numbers */
    int state;   /* 1: the weights are right, the state is not */
} conform_verdict;
/* The likeliest mistake behind each failed case; r[i].w NULL: case i was not run, and is left out. */
void conform_diagnose(const conform_file *, const conform_result *r, conform_verdict *v);
#endif

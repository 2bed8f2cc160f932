/* SPDX-License-Identifier: MIT */
/* Models: one file each, one line in models.def; options, help and checkpoints follow from the option table. */
#ifndef TERN_MODELS_H
#define TERN_MODELS_H
#include "tern.h"
#ifdef __cplusplus
extern "C" {
#endif

/* What a model is built for: the shape of one sample and the number of outputs (classes or targets). */
typedef struct { int nd, dim[3], outputs; } tn_model_shape;

typedef struct tn_model_def {
    uint32_t abi, size;        /* TN_ABI, sizeof(tn_model_def) */
    const char *name, *summary;
    size_t cfg_size;
    const tn_opt *cfg;         /* option table */
    size_t net_size;           /* the struct of layers that build fills */
    /* Registers its parameters. -1 with a message when cfg and shape do not fit. */
    int (*build)(void *net, const void *cfg, const tn_model_shape *, tn_params *, tn_err *);
    /* x (n, dim...) -> (n, outputs) */
    tn_t *(*forward)(const void *net, tn_t *x);
} tn_model_def;

typedef struct tn_model {
    const tn_model_def *def;
    void *cfg, *net;
    tn_model_shape shape;
    tn_params *params;
} tn_model;

TN_API const tn_model_def *const *tn_models(int *n);      /* the built-in ones */
/* From a spec "mlp:hidden=128", or from a definition of the caller's own. The seed makes the initial weights. */
TN_API tn_model *tn_model_new(const char *spec, const tn_model_shape *, uint64_t seed, tn_err *);
TN_API tn_model *tn_model_new_def(const tn_model_def *, const char *options, const tn_model_shape *, uint64_t seed,
                                  tn_err *);
TN_API void      tn_model_free(tn_model *);
TN_API tn_t     *tn_forward(const tn_model *, tn_t *x);
TN_API int       tn_model_text(const tn_model *, char *out, size_t cap); /* "mlp:hidden=128" with every option */
#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: MIT */
/*
 * tern.h: the public interface of the tern library, in reading order. This file is its manual.
 *
 *   1 numbers and errors    2 random numbers    3 threads and memory    4 the tape
 *   5 operations            6 composites and losses                     7 gradients
 *   8 parameters            9 initialisers     10 layers               11 options
 *  12 optimizers           13 schedules        14 the training step    15 files
 *
 * Models are in tern_models.h, data sets in tern_data.h, paired statistics in tern_stats.h.
 *
 * A training step, whole:
 *
 *     tn_tape_reset(tape);
 *     tn_t *x = tn_input(tape, pixels, 2, (int[]){n, 784});
 *     tn_t *h = tn_linear_fwd(&fc1, x, TN_ACT_RELU);
 *     tn_t *loss = tn_cross_entropy(tn_linear_fwd(&fc2, h, TN_ACT_NONE), labels, NULL);
 *     tn_backward(loss, params, 0);
 *     tn_optim_step(optim, &tick);
 *
 * Threads: a tape, and the parameters and optimizer used with it, belong to one thread at a time; different
 * tapes with different parameters may be used from different threads at once. Functions that take only const
 * pointers may be called from anywhere.
 */
#ifndef TERN_H
#define TERN_H
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* ---- 1. Numbers and errors ------------------------------------------------------------------------- */

/*
 * The library is built twice from the same sources: float (libtern) and double (libtern64). Define TN_DOUBLE
 * before this header to speak to the second; its symbols are renamed to tn64_..., so one program can link
 * both, one header a source file.
 */
#ifdef TN_DOUBLE
typedef double tn_real;
#include "tern64.h"
#else
typedef float tn_real;
#endif

#ifndef TN_API
#if defined(__GNUC__)
#define TN_API __attribute__((visibility("default")))
#else
#define TN_API
#endif
#endif
#if defined(__GNUC__)
#define TN_PRINTF(f, a) __attribute__((format(printf, f, a)))
#define TN_NORETURN     __attribute__((noreturn))
#else
#define TN_PRINTF(f, a)
#define TN_NORETURN
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define TN_VERSION "0.1.0"
enum { TN_ABI = 1 };                 /* of the structs below; every definition struct carries it */
enum { TN_MAX_DIM = 4 };             /* dimensions of a tensor */
enum { TN_MAX_NAME = 64 };           /* bytes of a parameter's name, its 0 included */

TN_API const char *tn_version(void); /* of the library that runs, TN_VERSION being that of the header */

/*
 * The outside world (files, options, data, memory) returns -1 or NULL and leaves a message: what is wrong,
 * where, and what to do. A tn_err pointer may always be NULL.
 */
typedef struct { char msg[512]; } tn_err;
TN_API int tn_fail(tn_err *e, const char *fmt, ...) TN_PRINTF(2, 3); /* formats into e; returns -1 */

/* ---- 2. Random numbers ------------------------------------------------------------------------------- */

/*
 * splitmix64. A generator is made for one purpose from (seed, stream, name, i, j) and has no other state, so
 * a draw never depends on how many draws something else made. Streams in use: "init" (name: the parameter),
 * "shuffle" (i: epoch), "dropout" (name: the layer, i: step, j: row), "augment" (name: what is done, i: epoch, j: sample),
 * "subset", "noise", "split", "images" (name: the class).
 */
typedef struct { uint64_t s; } tn_rng;
TN_API tn_rng   tn_rng_make(uint64_t seed, const char *stream, const char *name, uint64_t i, uint64_t j);
TN_API uint64_t tn_rng_next(tn_rng *);                    /* 64 random bits */
TN_API double   tn_uniform(tn_rng *);                     /* in [0, 1), a multiple of 2^-53 */
TN_API double   tn_normal(tn_rng *);                      /* mean 0, variance 1; Box-Muller, two uniforms a draw */
TN_API int      tn_below(tn_rng *, int n);                /* 0 ... n - 1, floor(u n) */
TN_API void     tn_permutation(tn_rng *, int n, int *p);  /* Fisher-Yates of 0 ... n - 1 into p[n] */

/* ---- 3. Threads and memory ----------------------------------------------------------------------------- */

/*
 * Runs fn(arg, 0) ... fn(arg, nchunk - 1) on a pool of threads that the library starts when it first needs it, neighbours
 * on one thread. nchunk must be a function of shapes alone. fn must not panic and must not call tn_parallel.
 */
TN_API void tn_parallel(int nchunk, void (*fn)(void *arg, int chunk), void *arg);
/*
 * Threads that tn_parallel uses in this process, the caller being one: n, or 0 for as many as OMP_NUM_THREADS says, or
 * else one a core (the start). 64 at most: whatever says more, here, there or by the cores, is taken as 64. When two
 * threads of the host call at once, one of them works alone. A child made by fork() starts a pool of its own.
 */
TN_API void tn_set_threads(int n);
TN_API int  tn_threads(void);

/* All memory of the library goes through these three; set them before its first use, or never. */
typedef struct {
    void *(*alloc)(size_t);
    void *(*resize)(void *, size_t);
    void (*release)(void *);
} tn_allocator;
TN_API void tn_set_allocator(const tn_allocator *);

/* Vector level in use ("avx2"), or NULL with a message if TERN_SIMD asks for one that is not there. */
TN_API const char *tn_simd(tn_err *);
/* Products by "own" kernels (the default in float) or "openblas"; see the log's numeric mode. -1: unknown word. */
TN_API int         tn_gemm_backend(const char *word, tn_err *);
TN_API const char *tn_gemm_backend_name(void);
/* c (m, n) = op(a) op(b), row major; ta, tb 1: the transpose; add 1: added to c. For optimizers that need products. */
TN_API void tn_product(int m, int n, int k, const tn_real *a, int ta, const tn_real *b, int tb, tn_real *c, int add);

/* ---- 4. The tape ------------------------------------------------------------------------------------------ */

/*
 * A tape owns every tensor that is computed on it: an arena that grows until it is warm, and the record. The
 * position on the tape is the topological order. Ops take no context: a tensor knows its tape, and mixing two
 * tapes panics.
 */
typedef struct tn_t tn_t;
typedef struct tn_op tn_op;
typedef struct tn_tape tn_tape;
typedef struct tn_param tn_param;
typedef struct tn_params tn_params;

/* tn_tape_new(err): a new tape; NULL if memory is short or if header and library do not match. */
#define tn_tape_new(err) tn_tape_new_checked(TN_ABI, sizeof(tn_real), sizeof(struct tn_t), (err))
TN_API tn_tape *tn_tape_new_checked(int abi, size_t real_size, size_t tensor_size, tn_err *);
TN_API void     tn_tape_free(tn_tape *);                  /* NULL is fine */
/* Forgets every tensor and binding; keeps the memory, the mode and the panic hook. */
TN_API void     tn_tape_reset(tn_tape *);
TN_API size_t   tn_tape_bytes(const tn_tape *);           /* memory held now */
TN_API long     tn_tape_allocations(const tn_tape *);     /* calls of the allocator so far: constant once warm */

/* Recording on (the start) or off; returns what it was. Off: values only, for evaluation. */
TN_API int tn_record(tn_tape *, int on);
/*
 * Training mode for dropout: masks are drawn from (seed, layer's name, step, first_row + row of the tensor).
 * tn_eval_mode: dropout passes its input through. A new tape is in evaluation mode.
 */
TN_API void tn_train_mode(tn_tape *, uint64_t seed, long step, int first_row);
TN_API void tn_eval_mode(tn_tape *);

/* What the three calls above have set: for ops and layers that behave by mode. */
typedef struct { int record, train; uint64_t seed; long step; int first_row; } tn_mode;
TN_API tn_mode tn_tape_mode(const tn_tape *);

/* Everything made on the tape after tn_mark is dropped by tn_rewind, newest mark first; so are bindings to it. */
typedef struct { int node; size_t block, used; } tn_place;
TN_API tn_place tn_mark(const tn_tape *);
TN_API void     tn_rewind(tn_tape *, tn_place);

/*
 * A bug in the caller (a shape that does not fit) panics with the op's name and the shapes. The tape's hook gets
 * the message first and may leave by longjmp (or, in C++, by throw); the tape is then good for tn_tape_reset.
 * Without a hook, or when it returns: the message on stderr and abort(). Functions without a tape (tn_param_add,
 * tn_optim_step) have no hook. Short memory in the middle of a tape is such a panic, too.
 */
TN_API void tn_on_panic(tn_tape *, void (*hook)(void *arg, const char *msg), void *arg);
TN_NORETURN TN_API void tn_panic(tn_tape *, const char *fmt, ...) TN_PRINTF(2, 3);
#define TN_CHECK(tape, cond, ...) ((cond) ? (void)0 : tn_panic((tape), __VA_ARGS__))

struct tn_t {
    tn_tape *tape;
    const tn_op *op;         /* NULL: a leaf or an input */
    tn_real *x;              /* values: contiguous, row major, NCHW */
    size_t len;
    int nd, dim[TN_MAX_DIM]; /* nd 0: a scalar, len 1 */
    int id;                  /* position on the tape */
    int needs;               /* 1: a gradient may be asked for through it */
    int nsrc;
    tn_t **src;              /* what it was computed from; NULL: an optional source that is absent */
    void *aux;               /* the op's own arguments and what forward keeps for backward; on the tape */
    tn_param *param;         /* the parameter whose leaf this is, or NULL */
    uint64_t version;        /* of that parameter's weights when they were read */
};

TN_API tn_t *tn_input(tn_tape *, const tn_real *x, int nd, const int *dim); /* copies x; no gradient */
TN_API tn_t *tn_leaf(tn_tape *, const tn_real *x, int nd, const int *dim);  /* copies x; gradients wanted */
TN_API tn_t *tn_const(tn_tape *, double value);                             /* a scalar; no gradient */
TN_API tn_t *tn_full(tn_tape *, double value, int nd, const int *dim);      /* filled with value; no gradient */
TN_API tn_t *tn_stop(tn_t *);                                               /* same values, no gradient */
TN_API double tn_value(const tn_t *);                                       /* of a tensor with one element */

/*
 * What an op's own code needs. tn_new makes the result, the op fills its x, tn_result records it; aux is copied, large
 * things go into tn_scratch and aux points to them. At most 32 sources for an op with bwd.
 */
TN_API tn_t *tn_new(tn_tape *, int nd, const int *dim); /* values not set; not yet recorded as a result */
TN_API tn_t *tn_result(const tn_op *, tn_t *y, int nsrc, tn_t *const src[], const void *aux, size_t aux_bytes);
TN_API void *tn_scratch(tn_tape *, size_t bytes);       /* aligned to 64; dies at reset or rewind */
TN_API int   tn_same_shape(const tn_t *, const tn_t *);
TN_API void  tn_shape_text(const tn_t *, char out[64]); /* "(128, 784)" */

/*
 * All that the library knows about an op. A primitive has vjp: given gy = d loss / d y it sets gx[i] for each
 * source i whose src[i]->needs, calling only tn_ functions, so that gradients of gradients work to any order;
 * gx[i] left NULL means zero. A fused op has expand (the same value from primitives, out of y->src and y->aux)
 * and bwd, its numeric backward: it writes (or adds to, where bit i of add is set) gx[i] for each i whose bit is
 * set in need; its tn_scratch lives until it returns. A primitive may have bwd, too: it is used when nothing is
 * recorded. flops: operations of the textbook forward pass, 2 a multiply-add; NULL: not counted. back_flops: those of the
 * gradients that are wanted; NULL: flops once for each of the first two sources that needs one, as for a product.
 */
struct tn_op {
    const char *name;
    void (*vjp)(tn_t *y, tn_t *gy, tn_t *gx[]);
    tn_t *(*expand)(tn_t *y);
    void (*bwd)(tn_t *y, const tn_real *gy, tn_real *const gx[], unsigned need, unsigned add);
    double (*flops)(const tn_t *y);
    double (*back_flops)(const tn_t *y);
};

/* ---- 5. Operations ------------------------------------------------------------------------------------------- */

/* Elementwise with NumPy's broadcasting: dimensions align at the right, 1 stretches. */
TN_API tn_t *tn_add(tn_t *, tn_t *);
TN_API tn_t *tn_sub(tn_t *, tn_t *);
TN_API tn_t *tn_mul(tn_t *, tn_t *);
TN_API tn_t *tn_div(tn_t *, tn_t *);
TN_API tn_t *tn_maximum(tn_t *, tn_t *);    /* NaN if either is; at equality each side gets half the gradient */
TN_API tn_t *tn_minimum(tn_t *, tn_t *);
/* Elementwise of one tensor. */
TN_API tn_t *tn_scale(tn_t *, double);      /* x c */
TN_API tn_t *tn_shift(tn_t *, double);      /* x + c */
TN_API tn_t *tn_neg(tn_t *);
TN_API tn_t *tn_exp(tn_t *);
TN_API tn_t *tn_log(tn_t *);
TN_API tn_t *tn_sqrt(tn_t *);               /* slope at 0 defined as 0, so that Adam can be differentiated */
TN_API tn_t *tn_pow(tn_t *, double p);      /* slope at x = 0 defined as 0 where p < 1 */
TN_API tn_t *tn_tanh(tn_t *);
TN_API tn_t *tn_sigmoid(tn_t *);
TN_API tn_t *tn_erf(tn_t *);
TN_API tn_t *tn_softplus(tn_t *);           /* log(1 + exp x), no overflow */
TN_API tn_t *tn_relu(tn_t *);               /* slope at 0: 0 */
TN_API tn_t *tn_step(tn_t *);               /* 1 where x > 0, else 0; NaN stays; no gradient */
TN_API tn_t *tn_sign(tn_t *);               /* -1, 0, 1; NaN stays; no gradient */
TN_API tn_t *tn_abs(tn_t *);                /* slope at 0: 0 */
TN_API tn_t *tn_clamp(tn_t *, double lo, double hi); /* slope 1 within [lo, hi], as PyTorch's; NaN stays */
/* op(a) op(b) of two matrices, ta / tb: 1 takes the transpose. (m, k) (k, n) -> (m, n) */
TN_API tn_t *tn_matmul(tn_t *a, tn_t *b, int ta, int tb);
/*
 * Convolution as PyTorch's (a correlation): x (n, ci, h, w), w (co, ci / groups, kh, kw) -> (n, co, oh, ow) with
 * oh = (h + 2 pad - dilation (kh - 1) - 1) / stride + 1. conv2d_dx and conv2d_dw are its adjoints for the input (of h x w)
 * and the weight (of kh x kw); each of the three is a derivative of the others. First element of each pair: rows.
 */
typedef enum { TN_CONV_AUTO, TN_CONV_DIRECT } tn_conv_algorithm; /* auto: Winograd's where it is faster; direct: never */
typedef struct { int stride[2], pad[2], dilation[2], groups; tn_conv_algorithm algorithm; } tn_conv;
TN_API tn_conv tn_conv_same(int k);    /* stride 1, padding k / 2: keeps the size for odd k */
TN_API tn_conv tn_conv_valid(void);    /* stride 1, no padding */
TN_API tn_t *tn_conv2d(tn_t *x, tn_t *w, const tn_conv *);
TN_API tn_t *tn_conv2d_dx(tn_t *gy, tn_t *w, const tn_conv *, int h, int wd);
TN_API tn_t *tn_conv2d_dw(tn_t *x, tn_t *gy, const tn_conv *, int kh, int kw);
/*
 * Shapes. One dimension given as -1 in tn_reshape is worked out. tn_reshape, and tn_slice along axis 0, share the values
 * of their source: an op with several outputs gives one buffer and slices of it.
 */
TN_API tn_t *tn_reshape(tn_t *, int nd, const int *dim);
TN_API tn_t *tn_transpose(tn_t *, int axis_a, int axis_b);
TN_API tn_t *tn_sum_to(tn_t *, int nd, const int *dim);       /* adds up what broadcasting would have stretched */
TN_API tn_t *tn_broadcast_to(tn_t *, int nd, const int *dim);
TN_API tn_t *tn_slice(tn_t *, int axis, int lo, int hi);      /* [lo, hi) */
TN_API tn_t *tn_embed_in(tn_t *, int axis, int lo, int size); /* zeros around: the adjoint of tn_slice */
TN_API tn_t *tn_concat(int n, tn_t *const x[], int axis);
/* y[i] = x[idx[i]] with flat indices (copied), y of shape dim; and its adjoint, y[idx[i]] += x[i] onto zeros. */
TN_API tn_t *tn_take(tn_t *x, const int *idx, int nd, const int *dim);
TN_API tn_t *tn_put_add(tn_t *x, const int *idx, int nd, const int *dim);

/* ---- 6. Composites and losses ----------------------------------------------------------------------------------- */

TN_API tn_t *tn_square(tn_t *);
TN_API tn_t *tn_sum(tn_t *);                          /* of all elements: a scalar */
TN_API tn_t *tn_mean(tn_t *);
TN_API tn_t *tn_sum_axis(tn_t *, int axis);           /* keeps the axis, with size 1 */
TN_API tn_t *tn_mean_axis(tn_t *, int axis);
TN_API tn_t *tn_max_axis(tn_t *, int axis);           /* the first largest element gets the gradient; NaN wins */
TN_API tn_t *tn_gelu(tn_t *);                         /* x Phi(x), exact: Hendrycks and Gimpel, arXiv:1606.08415 */
TN_API tn_t *tn_gelu_tanh(tn_t *);                    /* its tanh form, same source, section 2 */
TN_API tn_t *tn_softmax(tn_t *);                      /* over the last axis */
TN_API tn_t *tn_log_softmax(tn_t *);                  /* over the last axis */
/*
 * Training mode: x mask / (1 - p), mask 1 with probability 1 - p; else x itself. name keys the random draws: rows are
 * dim[0], and the same name used twice in a step gives the same mask twice.
 */
TN_API tn_t *tn_dropout(tn_t *, double p, const char *name);
/* (x - mean) / sqrt(var + eps) over the last axis, times gain plus bias; Ba et al., arXiv:1607.06450 */
TN_API tn_t *tn_layer_norm(tn_t *x, tn_t *gain, tn_t *bias, double eps);

/*
 * Losses. A prediction and a target of different shapes panic; nothing broadcasts. reduction: the mean as
 * PyTorch defines it (over rows that count, weighted by their class weights), or the sum.
 */
typedef enum { TN_MEAN, TN_SUM } tn_reduction;
typedef struct {
    double label_smoothing;        /* 0 ... 1: the target is (1 - s) one-hot + s / classes */
    int use_ignore, ignore_index;  /* rows with this label count for nothing */
    const tn_real *class_weight;   /* one a class, or NULL for all 1 */
    tn_reduction reduction;
} tn_ce_options;
/*
 * Mean of -log softmax(logits)[label]; logits (n, classes), label[n] in 0 ... classes - 1 (another label panics). Labels
 * and class weights are copied. Options may be NULL.
 */
TN_API tn_t *tn_cross_entropy(tn_t *logits, const int *label, const tn_ce_options *);
TN_API tn_t *tn_mse(tn_t *y, tn_t *target, tn_reduction);
TN_API tn_t *tn_bce_with_logits(tn_t *logits, tn_t *target, tn_reduction);
TN_API tn_t *tn_huber(tn_t *y, tn_t *target, double delta, tn_reduction);
/* lambda / 2 times the sum of squares of all parameters that decay: what adaml2 puts into its moments. */
TN_API tn_t *tn_l2_penalty(tn_tape *, tn_params *, double lambda);

/* ---- 7. Gradients ---------------------------------------------------------------------------------------------------- */

/*
 * out[i] = d sum(gy y) / d wrt[i] for n tensors of y's tape (gy NULL: ones; zeros where y does not depend on
 * wrt[i]). create_graph 1 records the gradients, so that they can be differentiated again; 0 computes numbers
 * only, in memory that is reused as soon as it is dead; out[i]->needs is then 0. A wrt without needs (an input, or what
 * was made while recording was off) panics.
 */
TN_API void tn_grad(tn_t *y, tn_t *gy, int n, tn_t *const wrt[], tn_t *out[], int create_graph);
/*
 * Gradients of a scalar loss for every parameter whose leaf is on its tape, into their g (zeros for the others);
 * returns the loss. TN_ACCUMULATE adds to what g holds. Panics if the weights changed since they were used.
 */
enum { TN_ACCUMULATE = 1 };
TN_API double tn_backward(tn_t *loss, tn_params *, unsigned flags);

/* ---- 8. Parameters ----------------------------------------------------------------------------------------------------- */

enum {
    TN_NO_DECAY = 1, /* weight decay and penalty leave it alone: biases, normalisation gains */
    TN_FROZEN = 2,   /* gradients are computed, the optimizer leaves it alone */
    TN_BUFFER = 4    /* saved with the weights, no gradient, never optimised */
};
typedef struct tn_init { void (*fill)(const struct tn_init *, tn_real *w, const tn_param *, tn_rng *); double a, b; } tn_init;
struct tn_param {
    char name[TN_MAX_NAME];  /* "conv1.weight": PyTorch's names and shapes */
    int index, nd, dim[TN_MAX_DIM];
    size_t len, offset;      /* offset into the set's flat buffers, a multiple of 16 reals */
    unsigned flags;
    tn_init init;
    tn_real *w, *g;          /* slices of the flat buffers; NULL before tn_params_seal */
    tn_params *set;
};
/* One ordered, named set of parameters for a model; a layer's constructor adds to it. */
TN_API tn_params *tn_params_new(void);                    /* NULL: out of memory */
TN_API void       tn_params_free(tn_params *);
/* Adds "layer.name" (layer NULL: "name"). Panics on a name used twice, an empty shape, or after the seal. */
TN_API tn_param  *tn_param_add(tn_params *, const char *layer, const char *name, unsigned flags, tn_init,
                               int nd, const int *dim);
/* Lays all parameters out in one flat buffer and fills them from (seed, "init", name). -1: out of memory. */
TN_API int        tn_params_seal(tn_params *, uint64_t seed, tn_err *);
TN_API void       tn_params_init(tn_params *, uint64_t seed); /* fills them anew */
TN_API int        tn_params_count(const tn_params *);
TN_API tn_param  *tn_params_at(const tn_params *, int i);
TN_API tn_param  *tn_params_find(const tn_params *, const char *name); /* NULL: no such name */
TN_API size_t     tn_params_total(const tn_params *);     /* elements that are trained: no buffers */
TN_API tn_real   *tn_params_flat(tn_params *, size_t *len);      /* all weights; gaps between slices are 0 */
TN_API tn_real   *tn_params_flat_grad(tn_params *, size_t *len);
/* To be called after any write to w that is not an optimizer's step: packed copies and leaves are then stale. */
TN_API void       tn_params_touch(tn_params *);
TN_API uint64_t   tn_params_version(const tn_params *);

/*
 * The parameter as a tensor of this tape: one leaf a parameter, so using it twice ties the weights; a new leaf once the
 * weights have changed.
 */
TN_API tn_t *tn_use(tn_tape *, tn_param *);
/*
 * From now on tn_use gives t for this parameter on this tape (MAML's fast weights), or its own leaf again (NULL).
 * Returns what was bound before. tn_backward finds the leaves, never what is bound.
 */
TN_API tn_t *tn_bind(tn_tape *, tn_param *, tn_t *t);
/*
 * Buffers change once a step, not in the forward pass: a plan is buffer = (1 - momentum) buffer + momentum value, and the
 * plans of several micro-batches are carried out one after the other. Values are copied. tn_stepper_run commits after a
 * step that was done and discards after one that was refused; who calls tn_backward by hand calls tn_params_commit after
 * the optimizer's step.
 */
TN_API void tn_plan_buffer(tn_param *buffer, const tn_t *value, double momentum);
TN_API void tn_params_commit(tn_params *);
TN_API void tn_params_discard(tn_params *);
TN_API double tn_grad_norm(const tn_params *);            /* Euclidean norm over all trained parameters */
TN_API double tn_clip_norm(tn_params *, double max_norm); /* g *= min(1, max / (norm + 1e-6)), as PyTorch; returns norm */
TN_API void   tn_clip_value(tn_params *, double max);     /* g into [-max, max] */
/* Name of the first parameter with a NaN or infinity in its gradient (or weights); NULL: none. */
TN_API const char *tn_nonfinite_grad(const tn_params *);
TN_API const char *tn_nonfinite_weight(const tn_params *);

/* ---- 9. Initialisers ------------------------------------------------------------------------------------------------------ */

/* fan_in: elements of one output's slice, dim[1] dim[2] ...; fan_out: dim[0] dim[2] ... */
TN_API tn_init tn_init_const(double value);
TN_API tn_init tn_init_uniform(double lo, double hi);
TN_API tn_init tn_init_normal(double mean, double std);
TN_API tn_init tn_init_pytorch(void);               /* uniform in +-1/sqrt(fan_in): PyTorch's for linear and conv */
TN_API tn_init tn_init_kaiming_uniform(double gain); /* +-gain sqrt(3 / fan_in); He et al., arXiv:1502.01852 */
TN_API tn_init tn_init_kaiming_normal(double gain);  /* std gain / sqrt(fan_in); gain sqrt(2) for ReLU */
TN_API tn_init tn_init_xavier_uniform(double gain);  /* +-gain sqrt(6 / (fan_in + fan_out)); Glorot and Bengio 2010 */
TN_API tn_init tn_init_xavier_normal(double gain);
TN_API tn_init tn_init_orthogonal(double gain);      /* rows or columns orthonormal; Saxe et al., arXiv:1312.6120 */

/* ---- 10. Layers -------------------------------------------------------------------------------------------------------------- */

typedef enum { TN_ACT_NONE, TN_ACT_RELU, TN_ACT_TANH, TN_ACT_SIGMOID, TN_ACT_GELU } tn_act;
/* act(x w' + b) as one fused op: x (n, in), w (out, in), b (out) or NULL -> (n, out) */
TN_API tn_t *tn_linear_act(tn_t *x, tn_t *w, tn_t *b, tn_act);
/* act(conv2d(x, w) + b) as one fused op; b (co) or NULL */
TN_API tn_t *tn_conv2d_act(tn_t *x, tn_t *w, tn_t *b, const tn_conv *, tn_act);
/*
 * Pooling of (n, c, h, w). Max: padding never wins, the first of equal elements does, NaN wins always. Average: over the
 * whole window, padding counting as zeros. PyTorch's defaults; padding at most half the kernel.
 */
typedef struct { int kernel[2], stride[2], pad[2]; } tn_pool;
TN_API tn_pool tn_pool_square(int k); /* k x k windows side by side */
TN_API tn_t *tn_max_pool2d(tn_t *x, const tn_pool *);
TN_API tn_t *tn_avg_pool2d(tn_t *x, const tn_pool *);
/*
 * tn_max_pool2d(tn_conv2d_act(x, w, b, c, act), pool) with the same meaning. One fused op, several times faster and without
 * the memory of what is pooled, when the convolution has stride 1, dilation 1 and one group, the windows of the pooling lie
 * side by side (stride = kernel <= 16, no padding), and act is none or ReLU; otherwise the two ops it is made of.
 */
TN_API tn_t *tn_conv2d_pool(tn_t *x, tn_t *w, tn_t *b, const tn_conv *, tn_act, const tn_pool *);
/*
 * Two convolutions with the same activation, max pooling and dropout, as in small picture networks:
 * tn_dropout(tn_conv2d_pool(tn_conv2d_act(x, w1, b1, c1, act), w2, b2, c2, act, pool), p, name) with the same meaning. One
 * fused op that never stores what lies between, when nobody asks for the gradient of x, act is ReLU, the first convolution
 * has a multiple of 16 filters and short sums (at most 50 terms), the second is 3 x 3 on 8 channels or more and the pooling
 * 2 x 2; otherwise the ops it is made of. (Sums of the first layer's gradients are in another order then.)
 */
TN_API tn_t *tn_conv2d_block(tn_t *x, tn_t *w1, tn_t *b1, const tn_conv *c1, tn_t *w2, tn_t *b2, const tn_conv *c2,
                             tn_act, const tn_pool *, double p, const char *name);
/*
 * One recurrent layer in one direction as one fused op. x (steps, rows, in), h0 and c0 (rows, hidden) or NULL for zeros
 * (c0: LSTM), w_ih (gates hidden, in), w_hh (gates hidden, hidden), biases (gates hidden) or NULL; gates LSTM i f g o, GRU
 * r z n. length[rows] (NULL: all steps): beyond it a row's state waits and its output is 0. Result, flat: y (steps, rows,
 * hidden), the last h (rows, hidden), for an LSTM the last c.
 */
typedef enum { TN_RNN_TANH, TN_RNN_RELU, TN_GRU, TN_LSTM } tn_cell;
TN_API tn_t *tn_recurrent_op(tn_cell, tn_t *x, tn_t *h0, tn_t *c0, tn_t *w_ih, tn_t *w_hh, tn_t *b_ih, tn_t *b_hh,
                             const int *length, int reverse);
/*
 * Batch norm of x (n, c) or (n, c, h, w): each channel is (x - mean) / sqrt(var + eps), times gain plus bias (c, or NULL);
 * Ioffe and Szegedy, arXiv:1502.03167. Statistics are over all n samples and positions of x, whatever the number of
 * threads; with micro-batches x is one of them. *mean and *var (either may be NULL) get the mean and the unbiased variance
 * (c), without gradient, for running averages. One value a channel has no variance: it panics, as PyTorch raises.
 */
TN_API tn_t *tn_batch_norm(tn_t *x, tn_t *gain, tn_t *bias, double eps, tn_t **mean, tn_t **var);
/* The same with statistics (c) that are given: what a trained layer does in evaluation. */
TN_API tn_t *tn_batch_norm_fixed(tn_t *x, tn_t *gain, tn_t *bias, tn_t *mean, tn_t *var, double eps);
/* weight (out, in) and bias (out), both uniform in +-1/sqrt(in) as PyTorch's; bias 0: none. */
typedef struct { tn_param *weight, *bias; } tn_linear;
TN_API tn_linear tn_linear_new(tn_params *, const char *name, int in, int out, int bias);
TN_API tn_t     *tn_linear_fwd(const tn_linear *, tn_t *x, tn_act);
/* weight (co, ci / groups, k, k) and bias (co), both uniform in +-1/sqrt(ci / groups k k) as PyTorch's. */
typedef struct { tn_param *weight, *bias; tn_conv conv; } tn_conv_layer;
TN_API tn_conv_layer tn_conv_new(tn_params *, const char *name, int ci, int co, int k, tn_conv, int bias);
TN_API tn_t         *tn_conv_fwd(const tn_conv_layer *, tn_t *x, tn_act);
TN_API tn_t         *tn_conv_pool_fwd(const tn_conv_layer *, tn_t *x, tn_act, const tn_pool *); /* max pooling after it */
/* Two of them, max pooling and dropout: tn_conv2d_block. */
TN_API tn_t         *tn_conv_block_fwd(const tn_conv_layer *first, const tn_conv_layer *second, tn_t *x, tn_act,
                                       const tn_pool *, double p, const char *name);
/* Row i of weight (n, dim) for each index; Gaussian start as PyTorch's. padding: that row starts at 0 (-1: none). */
typedef struct { tn_param *weight; int padding; } tn_embedding;
TN_API tn_embedding tn_embedding_new(tn_params *, const char *name, int n, int dim, int padding);
TN_API tn_t        *tn_embedding_fwd(const tn_embedding *, tn_tape *, const int *idx, int nd, const int *dim);
/*
 * Recurrent layers, PyTorch's names (weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, ..._reverse) and initial weights.
 * x (steps, rows, in); h0, c0 (layers directions, rows, hidden) or NULL; dropout between the layers.
 * y (steps, rows, directions hidden); h_n, c_n as h0; c_n NULL unless LSTM.
 */
enum { TN_MAX_RNN_LAYERS = 8 };
typedef struct {
    tn_cell cell;
    int hidden, layers, directions;
    double dropout;
    char name[TN_MAX_NAME];
    tn_param *w[TN_MAX_RNN_LAYERS][2][4]; /* weight_ih, weight_hh, bias_ih, bias_hh */
} tn_rnn;
typedef struct { tn_t *y, *h_n, *c_n; } tn_rnn_out;
TN_API tn_rnn     tn_rnn_new(tn_params *, const char *name, tn_cell, int in, int hidden, int layers, int both, double dropout);
TN_API tn_rnn_out tn_rnn_fwd(const tn_rnn *, tn_t *x, tn_t *h0, tn_t *c0, const int *length);
/*
 * What a classifier takes: the last layer's h_n, directions side by side: (rows, directions hidden). x is (rows, steps, in),
 * as pictures lie in memory. The values of tn_rnn_fwd, without the time and memory for a y that nobody reads.
 */
TN_API tn_t      *tn_rnn_last(const tn_rnn *, tn_t *x);
/* weight (gain, ones) and bias (zeros) of n features; neither decays. */
typedef struct { tn_param *weight, *bias; double eps; } tn_norm;
TN_API tn_norm tn_layer_norm_new(tn_params *, const char *name, int n);
TN_API tn_t   *tn_layer_norm_fwd(const tn_norm *, tn_t *x);
/*
 * weight (ones) and bias (zeros), neither of which decays, and the buffers running_mean and running_var of `channels`;
 * eps 1e-5. In training mode the batch's own statistics, which are planned into the buffers with momentum 0.1
 * (tn_plan_buffer); else the buffers. PyTorch's counter num_batches_tracked is not kept: it only matters for
 * momentum=None; tn_load_weights skips it, and PyTorch's strict load_state_dict fills it in when it is missing.
 */
typedef struct { tn_param *weight, *bias, *running_mean, *running_var; double eps, momentum; } tn_batch_norm_layer;
TN_API tn_batch_norm_layer tn_batch_norm_new(tn_params *, const char *name, int channels);
TN_API tn_t *tn_batch_norm_fwd(const tn_batch_norm_layer *, tn_t *x, tn_act);

/* ---- 11. Options ---------------------------------------------------------------------------------------------------------------- */

/*
 * One table row an option: parsing, range check, help, log header and checkpoints follow from it. A table ends
 * with a row without a name. A spec is "name:key=value,key=value"; list elements are separated by '/'.
 */
typedef enum { TN_REAL_OPT, TN_INT_OPT, TN_BOOL_OPT, TN_WORD_OPT, TN_TEXT_OPT, TN_LIST_OPT } tn_opt_type;
enum {
    TN_OPEN_MIN = 1, TN_OPEN_MAX = 2, /* the bound itself is not allowed */
    TN_PLANNED = 4                    /* a share of the planned steps: unless it is 0, the plan cannot change on the way */
};
enum { TN_MAX_LIST = 16, TN_MAX_TEXT = 256, TN_MAX_OPTS = 32 };
typedef struct { int n; double v[TN_MAX_LIST]; } tn_list;
typedef struct tn_opt {
    const char *name;
    tn_opt_type type; /* field: double | long | int | int (index of the word) | char[TN_MAX_TEXT] | tn_list */
    size_t offset;
    double def, min, max;   /* numbers and list elements; booleans and words: def is the index */
    unsigned flags;
    const char *text;       /* words "a|b|c"; default of a text or list */
    const char *help;
} tn_opt;
/* The offset of a field whose size is that of T: a field of another type does not compile. */
#define TN_FIELD(S, f, T) (offsetof(S, f) + 0 * sizeof(char[sizeof(((S *)0)->f) == sizeof(T) ? 1 : -1]))
#define TN_OPT_REAL(S, f, def, lo, hi, flags, help)                                                                    \
    {#f, TN_REAL_OPT, TN_FIELD(S, f, double), def, lo, hi, flags, NULL, help}
#define TN_OPT_INT(S, f, def, lo, hi, help)  {#f, TN_INT_OPT, TN_FIELD(S, f, long), def, lo, hi, 0, NULL, help}
#define TN_OPT_BOOL(S, f, def, help)         {#f, TN_BOOL_OPT, TN_FIELD(S, f, int), def, 0, 1, 0, "off|on", help}
#define TN_OPT_WORD(S, f, words, def, help)  {#f, TN_WORD_OPT, TN_FIELD(S, f, int), def, 0, 0, 0, words, help}
#define TN_OPT_TEXT(S, f, def, help)         {#f, TN_TEXT_OPT, TN_FIELD(S, f, char[TN_MAX_TEXT]), 0, 0, 0, 0, def, help}
#define TN_OPT_LIST(S, f, def, lo, hi, help) {#f, TN_LIST_OPT, TN_FIELD(S, f, tn_list), 0, lo, hi, 0, def, help}
#define TN_OPT_END                           {NULL, TN_REAL_OPT, 0, 0, 0, 0, 0, NULL, NULL}

TN_API void tn_opts_default(const tn_opt *, void *dst);
/*
 * Parses "key=value,..." (NULL or empty: nothing) into dst over what is there. Bit i of *given (may be NULL) is
 * set for each row that was named. what ("optimizer adam") opens the message of an error: unknown key with the
 * nearest valid one, a bad number, a value out of range with the range, a key given twice.
 */
TN_API int  tn_opts_parse(const tn_opt *, void *dst, const char *text, const char *what, uint64_t *given, tn_err *);
/* One value for one key, as tn_opts_parse does. */
TN_API int  tn_opts_set(const tn_opt *, void *dst, const char *key, const char *value, const char *what, tn_err *);
/* "key=value,..." that parses back to the same bits (at most cap bytes); all rows, or only what differs from def. */
TN_API int  tn_opts_text(const tn_opt *, const void *src, int all, char *out, size_t cap);
TN_API int  tn_opt_value(const tn_opt *, const void *src, char *out, size_t cap); /* one row's value as text */
TN_API void tn_opts_help(const tn_opt *, FILE *, const char *indent); /* a line a row, wrapped to 80 columns */
/* Splits "name:rest"; name gets the part before ':', the result points to the rest or to the final 0. */
TN_API const char *tn_spec_split(const char *spec, char *name, size_t cap);
/* The nearest of n words to a misspelt one, or NULL when none is near. */
TN_API const char *tn_nearest(const char *word, int n, const char *const words[]);

/* ---- 12. Optimizers --------------------------------------------------------------------------------------------------------------- */

enum { TN_MAX_SLOT = 6, TN_MAX_OWN = 4, TN_MAX_SHARED = 8 };
/* When and where a step happens. t counts optimizer steps from 1; the multipliers come from schedules. */
typedef struct {
    long t, total, steps_per_epoch; /* planned steps of the run; of an epoch */
    int batch;                      /* images an optimizer step sees */
    double lr_mul, wd_mul;          /* 1 when there is no schedule */
    uint64_t seed;
    long images;                    /* training images of an epoch; 0: batch x steps_per_epoch */
} tn_tick;
typedef struct tn_schedule tn_schedule;
/* Tick t (from 1) of total, with the multipliers of the schedules (NULL: 1) at step t - 1; the other fields are 0. */
TN_API tn_tick tn_tick_at(long t, long total, const tn_schedule *lr, const tn_schedule *wd);
/* One parameter as an optimizer sees it. */
typedef struct {
    const char *name;
    int index, nd, dim[TN_MAX_DIM];
    size_t n;
    unsigned flags;              /* TN_NO_DECAY: the decay options do not apply */
    tn_real *w;
    const tn_real *g;
    tn_real *slot[TN_MAX_SLOT];  /* named, saved state */
    double *own, *shared;        /* saved scalars: of this tensor, of its group */
    void *scratch;               /* of the size that scratch() asked for */
} tn_opt_tensor;
typedef struct { const char *name; size_t len; double init; } tn_slot; /* len: reals; TN_ELEMENT: n. Names differ */
typedef enum { TN_ELEMENT, TN_TENSOR } tn_scope;
/*
 * A quantity of a step, for tern explain. value: of element 0, from the tensor before and after the update; NULL: the slot
 * of that name after it, and no column where there is no such slot.
 */
typedef struct {
    const char *name, *formula;
    double (*value)(const void *hp, const tn_tick *, const tn_opt_tensor *before, const tn_opt_tensor *after);
    int part;                        /* 1: a part of the step; the parts add up to w after - w before */
    int (*shown)(const void *hp);    /* optional: 0 where these options leave the column out */
} tn_explain;
/*
 * An optimizer is pure: it never counts its calls, allocates, or looks anything up. Scalars are double, per-weight
 * arithmetic is tn_real. A step is, for each group:
 *   reduce   for each of its tensors, whole: adds to acc (sums over the group, zero before), may write own, slots and
 *            scratch; on the caller's thread, may use tn_parallel
 *   decide   once: from acc, and what it left in shared at the last step, to shared
 *   update   for each tensor. TN_ELEMENT: over ranges [lo, hi) on any threads, own and shared are only read.
 *            TN_TENSOR: whole (0, n), one after the other on the caller's thread; may write own, may use tn_parallel.
 * own and shared start at 0. size may be that of an older struct: the fields beyond it are then NULL.
 *
 * A wrapper (wraps = 1) is a definition, too: "adamw:lr=1e-3+ema:decay=0.999+lookahead". After the reduces and decides of
 * all, its update follows the one inside on the same range, sees the new w, and may change it; it has slots, own and shared
 * of its own, holds for all parameters, and several of them run in the order in which they are written. It needs no lr.
 */
typedef struct tn_optim_def {
    uint32_t abi, size;          /* TN_ABI, sizeof(tn_optim_def) */
    const char *name, *summary;
    const char *source;          /* where the formula comes from */
    size_t hp_size;
    const tn_opt *hp;            /* option table; the row "lr" must exist */
    tn_scope scope;
    int (*check)(void *hp, uint64_t given, tn_err *);                     /* optional: contradictions; may derive fields */
    int (*slots)(const void *hp, int nd, const int *dim, tn_slot out[]);  /* how many; NULL: none */
    size_t (*scratch)(const void *hp, int nd, const int *dim);            /* bytes a tensor; optional */
    void (*begin)(const void *hp, tn_opt_tensor *);                       /* optional: before step 1, after slots got init */
    void (*reduce)(const void *hp, const tn_tick *, const tn_opt_tensor *, double acc[TN_MAX_SHARED]);   /* optional */
    void (*decide)(const void *hp, const tn_tick *, const double acc[TN_MAX_SHARED], double shared[TN_MAX_SHARED]);
    void (*update)(const void *hp, const tn_tick *, const tn_opt_tensor *, size_t lo, size_t hi);
    /* optional: weights to evaluate with, where they differ from those that train */
    void (*eval_weights)(const void *hp, const tn_tick *, const tn_opt_tensor *, tn_real *out);
    /* optional: decay of one step as a factor, for the run header: w *= 1 - factor; 0: none */
    double (*shrink)(const void *hp, const tn_tick *);
    int wraps;                   /* 1: a wrapper, see below */
    /* optional: 1 for a tensor that it can optimise; the others go to a group of the definition named rest */
    int (*takes)(const void *hp, int nd, const int *dim, unsigned flags);
    const char *rest;            /* "adamw", or with options "adamw:lr=1e-3" */
    const tn_explain *explain;   /* optional: what tern explain shows of a step; ends with a row without a name */
    /*
     * Optional, where decay is more than w *= 1 - shrink: a penalty inside the gradient, or of some weights alone.
     * decay_part, after the update: the decay's part of w - old. decay_track, right before it, of the same elements: moment
     * goes on as the first moment would if the penalty's gradient came alone. past < 0: by -past steps, which all see these
     * weights; past >= 0: it begins, as if so many steps before had seen them. Called for tensors that decay.
     */
    void (*decay_track)(const void *hp, const tn_tick *, const tn_opt_tensor *, tn_real *moment, long past, size_t lo, size_t hi);
    void (*decay_part)(const void *hp, const tn_tick *, const tn_opt_tensor *, const tn_real *old, const tn_real *moment,
                       tn_real *part, size_t lo, size_t hi);
    /* optional: 1 where weight_decay is a penalty inside the gradient; NULL: where shrink gives 0 at any rate */
    int (*penalty)(const void *hp);
} tn_optim_def;

typedef struct tn_optim tn_optim;
TN_API const tn_optim_def *const *tn_optims(int *n);      /* the built-in ones */
TN_API const tn_optim_def *tn_optim_find(const char *name);
TN_API const tn_optim_def *const *tn_optim_wrappers(int *n);
TN_API const tn_optim_def *tn_optim_find_wrapper(const char *name);
/*
 * From a spec for sealed parameters: "adamw:lr=1e-3,weight_decay=0.1", wrappers behind a plus, a plug-in by its path
 * ("./my_opt.so:lr=0.1": with a slash, or ending in .so or .dylib). Or from a definition of the caller's own, with
 * "lr=1e-3" or "lr=1e-3+ema". An optimizer that is evaluated on other weights takes no wrapper, and of the wrappers at most
 * one may be so.
 */
TN_API tn_optim *tn_optim_new(tn_params *, const char *spec, tn_err *);
TN_API tn_optim *tn_optim_new_def(tn_params *, const tn_optim_def *, const char *options, tn_err *);
TN_API void      tn_optim_free(tn_optim *);
/*
 * Parameters whose name matches the pattern ('*' and '?') get these options on top, or an optimizer of their own with its
 * defaults and these: "lr=0.1", "sgd:lr=0.1", "sgd". The last match holds. What a definition does not take (takes) goes to
 * its rest, with the first group's options if that is the same definition, else with its defaults; options alone count for
 * rest as well, so a group of what the first definition does not take sets the options of rest. Before the first step only:
 * slots depend on the options. -1: bad options, no match, a parameter that nobody takes, or too late.
 */
TN_API int       tn_optim_group(tn_optim *, const char *pattern, const char *spec, tn_err *);
/* Adds a wrapper around what is there, before the first step, as "+name:options" does. */
TN_API int       tn_optim_wrap(tn_optim *, const tn_optim_def *, const char *options, tn_err *);
/* One step for all parameters that are not frozen, from their g. tick->t must be 1 + the steps so far, or it panics. */
TN_API void      tn_optim_step(tn_optim *, const tn_tick *);
TN_API long      tn_optim_steps(const tn_optim *);        /* steps so far; saved with the state */
TN_API void      tn_optim_set_steps(tn_optim *, long);    /* for readers of checkpoints */
TN_API const tn_optim_def *tn_optim_definition(const tn_optim *); /* of the first group */
TN_API const tn_optim_def *tn_optim_definition_of(const tn_optim *, const tn_param *);
TN_API const void         *tn_optim_options(const tn_optim *, const tn_param *); /* of the parameter's group; NULL: the first */
TN_API const tn_optim_def *tn_optim_wrapper(const tn_optim *, int i, const void **hp); /* NULL beyond the last */
TN_API const char         *tn_optim_file(const tn_optim *, int i); /* the plug-ins that it is made of; NULL beyond the last */
/* "adamw:lr=0.001,...+ema:..." with every option, as resolved for the first group; a plug-in stands by its path. */
TN_API int       tn_optim_text(const tn_optim *, char *out, size_t cap);
TN_API int       tn_optim_evaluates_elsewhere(const tn_optim *);
/*
 * Swaps the weights to evaluate with into the parameters (on 1; tick: the one of the last step) and the trained ones back
 * (on 0; tick may be NULL). While they are in, tn_optim_step panics and tn_save_state refuses.
 */
TN_API void      tn_optim_eval(tn_optim *, const tn_tick *, int on);
TN_API int       tn_optim_evaluating(const tn_optim *);
/* Parameter i as its definition sees it; valid until a group is added. */
TN_API const tn_opt_tensor *tn_optim_tensor(const tn_optim *, int i);
/* Saved state, for checkpoints: slot s of parameter i (NULL beyond the last), and the scalars. */
TN_API tn_real  *tn_optim_slot(tn_optim *, int param, int s, const char **name, size_t *len);
TN_API double   *tn_optim_scalars(tn_optim *, int *n);
/* State back to that of step 0. */
TN_API void      tn_optim_reset(tn_optim *);

/*
 * The decay report: every N steps, for each trained tensor, how much of its update was decay and how much gradient. A
 * penalty's part is followed through the first moment in the last 64 steps before a record; without a record to come a step
 * costs nothing. The report is on the optimizer until it is freed, which has to be before the optimizer's end.
 */
typedef struct {
    const char *name;
    double decay_rms, gradient_rms; /* of the two parts of the update, which add up to it element by element */
    double update_rms;              /* of w after - w before */
    double grad_rms;                /* of the gradient as the optimizer got it */
    double weight_norm;             /* |w| before */
    double update_ratio;            /* |update| / |w| */
    long tracked;                   /* steps in a row that a penalty was followed for; 0: no need to */
} tn_decay_row;
typedef struct tn_decay_report tn_decay_report;
/* NULL: every < 1, out of memory, or a definition that decays and has neither shrink nor decay_part. */
TN_API tn_decay_report *tn_decay_report_new(tn_params *, tn_optim *, long every, tn_err *);
TN_API void             tn_decay_report_free(tn_decay_report *);
TN_API const tn_decay_row *tn_decay_report_rows(const tn_decay_report *, int *n); /* of the last step; *n 0: no record */
/* For checkpoints: the moments; how many steps they have seen, 0: they need not be saved; and to go on with saved ones. */
TN_API tn_real *tn_decay_report_moments(tn_decay_report *, size_t *len);
TN_API long     tn_decay_report_tracked(const tn_decay_report *);
TN_API void     tn_decay_report_go_on(tn_decay_report *, long tracked); /* after the optimizer's state is back */

/*
 * An optimizer or wrapper in a file of its own, which tern loads: one line TN_OPTIM_PLUGIN(my_def) behind the definition
 * const tn_optim_def my_def; then
 *     cc -O3 -ffp-contract=off -shared -fPIC -I<include> my_opt.c -o my_opt.so       (macOS: -undefined dynamic_lookup)
 *     tern train --optimizer ./my_opt.so:lr=0.1
 * tn_* functions are those of the program that loads it. The line leaves a mark in the file; tern reads it and refuses
 * another version or real type before it loads anything. A plug-in is code: it runs with all rights of the user.
 */
#define TN_PLUGIN_MAGIC "\177tern-optimizer"
typedef struct {
    char magic[16], version[16];
    uint32_t abi, real_size, def_size, tensor_size, tick_size;
} tn_plugin_mark;
extern TN_API const tn_plugin_mark tn_plugin_own_mark;
extern TN_API const tn_optim_def *const tn_plugin_definition;
#define TN_OPTIM_PLUGIN(def)                                                                                         \
    const tn_plugin_mark tn_plugin_own_mark = {TN_PLUGIN_MAGIC,      TN_VERSION,           TN_ABI,         sizeof(tn_real), \
                                               sizeof(tn_optim_def), sizeof(tn_opt_tensor), sizeof(tn_tick)};          \
    const tn_optim_def *const tn_plugin_definition = &(def);
/* Checks and loads the file at path, for good. NULL: unreadable, no shared object, no mark, made for another tern. */
TN_API const tn_optim_def *tn_optim_load(const char *path, tn_err *);

/* ---- 13. Schedules ---------------------------------------------------------------------------------------------------------------- */

/*
 * The multiplier of a rate at step k (from 0) of total: mul, a pure function. A schedule that follows the validation loss
 * has state as well, which changes in observe alone; state[0] is then one more factor of the multiplier.
 */
enum { TN_SCHEDULE_STATE = 8 };
typedef struct tn_schedule_def {
    uint32_t abi, size;
    const char *name, *summary;
    size_t hp_size;
    const tn_opt *hp;
    double (*mul)(const void *hp, long step, long total); /* after the warm-up: both without its steps */
    int uses_total;                                       /* 1: changes when the planned length changes */
    const char *source;                                   /* where the formula comes from; may be NULL */
    int nstate;                                           /* 0: pure; at most TN_SCHEDULE_STATE */
    void (*begin)(const void *hp, double state[]);        /* state before anything was observed */
    void (*observe)(const void *hp, double loss, double state[]);
} tn_schedule_def;
TN_API const tn_schedule_def *const *tn_schedules(int *n);
/* "cosine:warmup=100". Every schedule has the option warmup: (k + 1) / W for the first W steps. */
TN_API tn_schedule *tn_schedule_new(const char *spec, tn_err *);
TN_API void         tn_schedule_free(tn_schedule *);
TN_API double       tn_schedule_mul(const tn_schedule *, long step, long total);
TN_API int          tn_schedule_uses_total(const tn_schedule *);
TN_API int          tn_schedule_text(const tn_schedule *, char *out, size_t cap);
/*
 * Schedules that follow the validation loss: whether this is one; a new loss (others ignore it), once an epoch as a rule;
 * and their state, *n doubles to be saved and put back with a checkpoint.
 */
TN_API int          tn_schedule_observes(const tn_schedule *);
TN_API void         tn_schedule_observe(tn_schedule *, double loss);
TN_API double      *tn_schedule_state(tn_schedule *, int *n);

/* ---- 14. The training step --------------------------------------------------------------------------------------------------------- */

/*
 * One optimizer step over one or more micro-batches: for each the tape is reset and put into training mode (seed of the
 * tick, step t - 1, first_row = images so far); loss() builds the micro-batch's mean loss on it and says over how much
 * weight the mean was taken (images, or rows that count), or returns NULL for an empty one. Gradients are summed in a fixed tree, clipped, refused when not
 * finite, and given to the optimizer (NULL: they stay in g). The tape is left as it was after the last micro-batch, in
 * evaluation mode. Options NULL: {1, 0, 0}.
 */
typedef tn_t *tn_loss_fn(void *arg, tn_tape *, int micro, double *weight);
typedef struct {
    int accumulate;          /* micro-batches a step, 1 or more */
    double clip_norm;        /* 0: off */
    double clip_value;       /* 0: off */
} tn_step_options;
typedef struct tn_stepper tn_stepper;
TN_API tn_stepper *tn_stepper_new(tn_params *, tn_optim *, const tn_step_options *, tn_err *);
TN_API void        tn_stepper_free(tn_stepper *);
typedef struct {
    double loss;      /* mean over the whole step */
    double grad_norm; /* before clipping; tn_sam_run: of the second gradient */
    double weight;    /* what loss() reported, added up */
    char nonfinite[TN_MAX_NAME + 64];
    double ascent_loss; /* tn_sam_run: mean loss at the perturbed weights */
} tn_step_result;
/* 0: done. 1: loss or gradient not finite; nothing was updated and out->nonfinite names the first culprit. */
TN_API int tn_stepper_run(tn_stepper *, tn_tape *, tn_loss_fn *, void *arg, const tn_tick *, tn_step_result *out);
/*
 * Sharpness-aware minimisation as a training loop of its own (Foret et al., arXiv:2010.01412; adaptive=on: ASAM, Kwon et al.,
 * arXiv:2102.11600): the optimizer gets the gradient at w + e, e of norm rho along the gradient at w. loss() is called twice
 * for each micro-batch, under the same dropout masks; weights come back to the bit, running averages see a batch once.
 * options: "rho=0.05,adaptive=on" by tn_sam_options(), NULL: the defaults. Refuses as tn_stepper_run does, at either place.
 */
typedef struct tn_sam tn_sam;
TN_API const tn_opt *tn_sam_options(void);
TN_API tn_sam *tn_sam_new(tn_params *, tn_optim *, const char *options, const tn_step_options *, tn_err *);
TN_API void    tn_sam_free(tn_sam *);
TN_API int     tn_sam_text(const tn_sam *, char *out, size_t cap); /* "rho=0.05,adaptive=off,..." */
TN_API int     tn_sam_run(tn_sam *, tn_tape *, tn_loss_fn *, void *arg, const tn_tick *, tn_step_result *out);
/* The first tensor on the tape with a NaN or infinity: "op relu at position 7 (128, 10)". 0: all finite. */
TN_API int tn_tape_nonfinite(const tn_tape *, char *out, size_t cap);
/* Operations of the textbook algorithm recorded on the tape: forward, and with backward those of the gradients. */
TN_API double tn_tape_flops(const tn_tape *, int backward);
/* The i-th tensor on the tape, NULL beyond the last: for summaries and tools. */
TN_API tn_t *tn_tape_at(const tn_tape *, int i);

/*
 * Where the time goes:
 *
 *     tn_profile *p = tn_profile_new(&err);
 *     tn_tape_profile(tape, p);
 *     ... training steps ...
 *     tn_profile_print(p, stdout);
 *
 * While a profile is on a tape, the clock is read after each op, forward and backward, and after
 * each lap, and the time since the reading before goes to that line: so the lines add up to the time from tn_tape_profile
 * to the last reading, whatever is between. An op has a line for each parameter (the first among its sources) and
 * direction; the ops that a primitive's gradient is made of count to it, those that tn_grad records with create_graph
 * are forward. Laps of the library: "data" when an input has been made, "gradient norm", "optimizer", "between steps"
 * and "other" in tn_stepper_run. Costs some 50 ns a reading and no memory. A profile belongs to one tape at a time and to one
 * set of parameters; it knows 512 lines, what is beyond counts as "other".
 */
typedef struct tn_profile tn_profile;
typedef enum { TN_LAP, TN_FORWARD, TN_BACKWARD } tn_profile_kind;
typedef struct {
    tn_profile_kind kind;
    char name[TN_MAX_NAME]; /* of the op, or of the lap */
    char of[TN_MAX_NAME];   /* the parameter, ".weight" left out: "fc1"; or "" */
    long calls;
    double seconds;
    double operations;      /* as tn_tape_flops counts them */
    /* sources and result, once; backward: and the gradients of the result and of the sources that need one; a view: 0 */
    double bytes;
} tn_profile_line;
TN_API tn_profile *tn_profile_new(tn_err *);
TN_API void        tn_profile_free(tn_profile *);         /* not while it is on a tape */
/* The profile of this tape from now on, NULL: none; returns the one before. Time in between is nobody's. */
TN_API tn_profile *tn_tape_profile(tn_tape *, tn_profile *);
/* The time since the clock was read goes to the line `what`; NULL: to none. A NULL profile is fine and costs nothing. */
TN_API void        tn_profile_lap(tn_profile *, const char *what);
TN_API const tn_profile_line *tn_profile_at(const tn_profile *, int i); /* by their first time; NULL beyond the last */
TN_API double      tn_profile_seconds(const tn_profile *); /* all lines together */
/* All lines by their time, the longest first, in 80 columns. */
TN_API void        tn_profile_print(const tn_profile *, FILE *);

/* ---- 15. Files ------------------------------------------------------------------------------------------------------------------------ */

/* Weights as safetensors under PyTorch's names; meta: "key\0value\0...\0" pairs or NULL. Written whole or not at all. */
TN_API int tn_save_weights(const char *path, tn_params *, const char *meta, tn_err *);
/*
 * Strict: every tensor there, none extra, same shapes, all finite. F64, F16, BF16 are converted; *note says so. PyTorch's
 * counters of batch norm (an I64 scalar, num_batches_tracked, beside running_mean) are passed over.
 */
TN_API int tn_load_weights(const char *path, tn_params *, char *note, size_t cap, tn_err *);
/* Everything that training goes on from: weights, slots, scalars, and the caller's meta (JSON text). */
TN_API int tn_save_state(const char *path, tn_params *, tn_optim *, const char *meta_json, tn_err *);
/* meta_json comes back as malloc'ed text in *meta, to be freed with tn_free. */
TN_API int tn_load_state(const char *path, tn_params *, tn_optim *, char **meta_json, tn_err *);
/* Any file: replaced whole (temporary name, synced, renamed) or left as it was. Devices and pipes are written to. */
TN_API int tn_write_file(const char *path, const void *data, size_t bytes, tn_err *);
TN_API void tn_free(void *);

#ifdef __cplusplus
}
#endif
#endif

/* SPDX-License-Identifier: MIT */
/* What the library's own files share and the public does not see. */
#ifndef TN_INTERNAL_H
#define TN_INTERNAL_H
#include "tern.h"

#define TN_ARRAY_LEN(a) ((int)(sizeof(a) / sizeof *(a)))

/* ---- sizes ---- */

static inline int tn_least(int a, int b) {
    return a < b ? a : b;
}
/* How many pieces of `of` n is cut into, the last one perhaps smaller. */
static inline int tn_pieces(int n, int of) {
    return (n + of - 1) / of;
}
/* n reals rounded up to a multiple of 16: whole cache lines. */
static inline size_t tn_whole_lines(size_t n) {
    return (n + 15) / 16 * 16;
}
/* The same to an odd number of lines: rows this far apart lie in different sets of the first-level cache. */
static inline int tn_odd_lines(int n) {
    enum { LINE = 64 / (int)sizeof(tn_real) };
    return (tn_pieces(n, LINE) | 1) * LINE;
}

/* Memory through the allocator in use. tn_mem_new clears; a NULL result means memory is short. */
void *tn_mem_new(size_t bytes);
void *tn_mem_raw(size_t bytes); /* not cleared: of what is never written, no page is ever used */
void *tn_mem_resize(void *, size_t bytes);
void *tn_mem_aligned(size_t bytes); /* aligned to 64 and cleared; release with tn_mem_aligned_free */
void *tn_mem_aligned_raw(size_t bytes);
void tn_mem_aligned_free(void *);

/*
 * Scalar functions whose bits do not depend on the C library (all that stands between seed and weights must not):
 * natural logarithm, cos(2 pi x), powers, exp and erf, in double. Errors in units of the last place, from
 * tests/test_params.c: log and exp 1, pow 4, erf 16, powi n; cos2pi 2e-16 absolute.
 */
double tn_exact_log(double x);
double tn_exact_cos2pi(double x);
double tn_exact_powi(double x, long n);
double tn_exact_exp(double x);
double tn_exact_pow(double x, double p);
double tn_exact_erf(double x);

/*
 * Which of the threads that run a job's chunks the caller is, for scratch that belongs to a thread and not to a chunk, so
 * that it stays in one core's cache: below tn_worker_slots() as read by the caller of tn_parallel.
 */
int tn_worker(void);
int tn_worker_slots(void);

/* fn(arg, lo, hi) over pieces of grain elements of [0, n), on tn_parallel. */
typedef void tn_range_fn(void *arg, size_t lo, size_t hi);
void tn_parallel_range(size_t n, size_t grain, tn_range_fn *fn, void *arg);
/*
 * The chunk to do in the place of `chunk` so that each of the threads goes through its own from back to front: it meets
 * first what the pass before, in the other direction, has left in its core's cache.
 */
int tn_backwards(int nchunk, int threads, int chunk);

/*
 * C (m x n, row stride ldc) = op(A) op(B) or += with add; element (i, p) of op(A) at a[i * ars + p * acs], (p, j) of
 * op(B) at b[p * brs + j * bcs]. Runs on tn_parallel; the bits do not depend on threads or vector level when
 * tern's own kernels are used.
 */
typedef struct {
    int m, n, k;
    const tn_real *a;
    ptrdiff_t ars, acs;
    const tn_real *b;
    ptrdiff_t brs, bcs;
    const tn_real *packed_b; /* B packed by tn_gemm_pack, or NULL */
    tn_real *c;
    ptrdiff_t ldc;
    int add;
    const tn_real *bias; /* n, or NULL */
    int relu;
} tn_gemm_args;
void tn_gemm(const tn_gemm_args *);
void tn_gemm_serial(const tn_gemm_args *); /* the same on the calling thread alone: for use inside a chunk */
size_t tn_gemm_packed_len(int n, int k);   /* reals */
void tn_gemm_pack(int n, int k, const tn_real *b, ptrdiff_t brs, ptrdiff_t bcs, tn_real *out);
int tn_gemm_own(void); /* 1: products run on tern's own kernels */

/* The parts of the parameter set that only the library touches. */
struct tn_params {
    int n, cap, sealed;
    tn_param **p;
    tn_real *w, *g;
    size_t len;               /* reals in each flat buffer */
    struct tn_ranges *ranges; /* of a pass over the gradients, see ranges.h */
    uint64_t version;         /* grows with every change of the weights */
    struct tn_packed *packed; /* one a parameter, see gemm.c */
    struct tn_plans
        *plans; /* what the next commit does to the buffers, see buffers.c; NULL: there are none */
};
int tn_packed_new(tn_params *); /* -1: out of memory */
void tn_packed_free(tn_params *);
int tn_plans_new(tn_params *); /* -1: out of memory */
void tn_plans_free(tn_params *);
void tn_params_hold_plans(tn_params *, int on); /* on: what forward passes plan from now on is passed over */
/*
 * The matrix w (rows, cols) packed as B of the product x w' (k = cols, n = rows). A parameter's packed form is made once a
 * version of its weights; another tensor's is made in its tape's scratch.
 */
const tn_real *tn_packed(const tn_t *w);
int tn_is_packed(const tn_t *w); /* 1: a parameter's packed form is there and up to date */
/*
 * Room for len reals of a parameter's weights in another form, kept with the parameter, one kind at a time. stale: the caller
 * has to make the form, since the weights have changed, or another kind stood there. TN_FORM_CONV + i: see conv_forward.c.
 */
enum { TN_FORM_PANELS = 1, TN_FORM_WINOGRAD, TN_FORM_CONV };
tn_real *tn_kept_form(const tn_t *w, int kind, size_t len, int *stale);

/* "(128, 784)" of at most 4 dimensions. */
void tn_dims_text(int nd, const int *dim, char out[64]);

/* act(x) as primitives; act(x), and gy act'(.) from the output y, as numbers for relu, tanh and sigmoid. */
tn_t *tn_activate(tn_t *x, tn_act);
void tn_act_range(tn_act, size_t n, const tn_real *x, tn_real *y);
void tn_act_slope(tn_act, size_t n, const tn_real *gy, const tn_real *y, tn_real *out);
/* The same for whole tensors on tn_parallel: in place; into scratch (gy itself for TN_ACT_NONE). */
void tn_act_all(tn_act, size_t n, tn_real *x);
const tn_real *tn_act_back(const tn_t *y, tn_act, const tn_real *gy);
/* out[c] = sum over n images and their positions of channel c, or += with add. */
void tn_channel_sums(int n, int channels, size_t positions, const tn_real *x, int add, tn_real *out);

/* Sum of squares in double over pieces of fixed size, added up in order. */
double tn_sum_squares(size_t n, const tn_real *x);
#endif

/* SPDX-License-Identifier: MIT */
/* The tape's inside: what tape.c, grad.c, params.c and the stepper share. */
#ifndef TN_TAPE_H
#define TN_TAPE_H
#include "internal.h"

typedef struct {
    char *mem;
    size_t size;
} tn_block;

/* Memory that grows by blocks and is given back as a whole, or down to a mark. */
typedef struct {
    tn_block *block;
    int n, cap, at; /* blocks; the one in use */
    size_t used;    /* of that one */
} tn_arena;

/* What a tape remembers of a parameter: its leaf, and the tensor that stands for it. */
typedef struct {
    const tn_param *param;
    tn_t *leaf, *bound;
    uint64_t generation;
    int leaf_id, bound_id; /* their places on the tape: a rewind may have dropped them */
} tn_leaf_entry;

enum { TN_POOL_CLASSES = 128 };
typedef struct tn_free_buffer {
    struct tn_free_buffer *next;
} tn_free_buffer;

struct tn_tape {
    tn_arena main, grads;
    tn_t **node;
    int n, cap;
    int record;
    int sweeping;        /* numeric gradients are being computed: nothing is recorded */
    uint64_t generation; /* grows with each reset */
    tn_leaf_entry *leaf; /* hash table, size a power of two */
    int leaf_cap, leaf_n;
    int bound_end; /* 1 + the highest place of a tensor that is bound to a parameter; 0: none */
    tn_free_buffer *pool[TN_POOL_CLASSES]; /* dead gradient buffers by size class */
    int training, first_row;
    long step;
    uint64_t seed;
    long allocations;
    void (*hook)(void *arg, const char *msg);
    void *hook_arg;
    tn_profile *profile; /* NULL: off */
};

void tn_arena_reset(tn_tape *, tn_arena *);
/* A buffer of n reals that lives until tn_pool_put or the end of the gradient pass; warm memory first. */
tn_real *tn_pool_get(tn_tape *, size_t n);
void tn_pool_put(tn_tape *, tn_real *, size_t n);
void tn_pool_reset(tn_tape *);
/* The leaf of p on this tape, or NULL if it was not used. */
tn_t *tn_leaf_of(const tn_tape *, const tn_param *p);
/* 0: nobody can ask for the gradient of a result of these sources, so that nothing has to be kept for it. */
int tn_gradient_may_come(const tn_tape *, int nsrc, tn_t *const src[]);
/* A tensor on the tape that reads x in place. */
tn_t *tn_view(tn_tape *, tn_real *x, int nd, const int *dim);
/* y was made by tn_reshape: its values are those of its source, at the same place. */
int tn_is_reshape(const tn_t *y);

/* y has just been computed, or its gradient: the time since the clock was read goes to it. See profile.c. */
void tn_profile_forward(tn_profile *, const tn_t *y);
void tn_profile_backward(tn_profile *, const tn_t *y);
void tn_profile_clock(tn_profile *, double (*now)(void)); /* another clock, for tests; it is read at once */
double tn_back_flops(const tn_t *y); /* operations of the gradients of y that are wanted */

/* Where the sweep puts the gradient of one tensor: into dest, added to what is there if add. */
typedef struct {
    tn_t *t;
    tn_real *dest;
    int add;
    int reached; /* out: 1 if y depends on t */
} tn_target;
/* Numeric gradients of sum(gy y), gy NULL: ones. */
void tn_sweep(tn_t *y, const tn_real *gy, int n, tn_target *target);
#endif

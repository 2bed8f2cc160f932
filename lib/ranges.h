/* SPDX-License-Identifier: MIT */
/*
 * A pass over all parameters' elements, as the optimizer's step and the gradient's norm, cut into chunks by shapes alone.
 *
 * The chunks go by where a range lies in its tensor, not one tensor after the other: the first half of them is the first
 * half of every tensor. The units of a layer come first in its weights' shape and layers share theirs out to the threads
 * from front to back, so that a thread of any number works on what it has in its own core's cache: the gradients that
 * it made, and the weights that it reads in the next step.
 */
#ifndef TN_RANGES_H
#define TN_RANGES_H
#include "internal.h"

/* A chunk has this many elements or, where that is more, a 64th of them all; ranges begin as far from another or more. */
enum { TN_RANGE = 4096, TN_MAX_CHUNKS = 72 };

typedef struct {
    int param;
    size_t lo, hi;
    double place; /* of its middle in the tensor, 0 to 1 */
} tn_range;

typedef struct tn_ranges {
    int n, nchunk;
    tn_range *range;
    int *chunk; /* nchunk + 1 indices into range */
} tn_ranges;

/* Of all parameters but buffers and those with skip[i], which may be NULL. -1: out of memory. */
int tn_ranges_new(const tn_params *, const unsigned char *skip, tn_ranges *out);
void tn_ranges_free(tn_ranges *);
#endif

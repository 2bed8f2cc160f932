/* SPDX-License-Identifier: MIT */
/*
 * tn_parallel: chunks of work on OpenMP's threads. Chunks are dealt out in one contiguous run a thread, so that the
 * rows of a batch stay in the same core's cache from op to op; which thread runs a chunk never changes its bits.
 */
#include "internal.h"
#ifdef _OPENMP
#include <omp.h>
#endif

int tn_threads(void) {
#ifdef _OPENMP
    return omp_in_parallel() ? 1 : omp_get_max_threads();
#else
    return 1;
#endif
}

void tn_parallel(int nchunk, void (*fn)(void *arg, int chunk), void *arg) {
    if (nchunk <= 1 || tn_threads() == 1) {
        for (int i = 0; i < nchunk; i++) fn(arg, i);
        return;
    }
#ifdef _OPENMP
#pragma omp parallel for schedule(static)
    for (int i = 0; i < nchunk; i++) fn(arg, i);
#endif
}

typedef struct {
    size_t n, chunk;
    tn_range_fn *fn;
    void *arg;
} range_job;

static void run_range(void *p, int i) {
    range_job *j = p;
    size_t lo = (size_t)i * j->chunk, hi = lo + j->chunk;
    j->fn(j->arg, lo, hi < j->n ? hi : j->n);
}

void tn_parallel_range(size_t n, size_t grain, tn_range_fn *fn, void *arg) {
    range_job j = {n, grain, fn, arg};
    tn_parallel((int)((n + grain - 1) / grain), run_range, &j);
}

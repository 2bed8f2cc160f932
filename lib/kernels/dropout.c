/* SPDX-License-Identifier: MIT */
/*
 * Dropout of one row, its mask made on the way: element i is dropped when half i mod 2 (the low one first) of draw i / 2 of
 * the row's generator (splitmix64, rng.c) is below limit. A mask is made twice, forward and backward, rather than stored:
 * that costs less than to write and read it.
 */
#include "level.h"

enum { PER_DRAW = 2 };
#define GOLDEN 0x9E3779B97F4A7C15u
#define MIX_1  0xBF58476D1CE4E5B9u
#define MIX_2  0x94D049BB133111EBu

#ifdef TN_LEVEL_PLAIN

void tn_k_dropout(size_t n, uint64_t state, uint32_t limit, tn_real keep, const tn_real *x, tn_real *y) {
    for (size_t i = 0; i < n; i++) {
        uint64_t z = state + (i / PER_DRAW + 1) * GOLDEN;
        z = (z ^ (z >> 30)) * MIX_1;
        z = (z ^ (z >> 27)) * MIX_2;
        z ^= z >> 31;
        uint32_t half = (uint32_t)(i % PER_DRAW ? z >> 32 : z);
        y[i] = x[i] * (half < limit ? 0 : keep);
    }
}

#else

typedef uint64_t Draws __attribute__((vector_size(VL * 4)));

void tn_k_dropout(size_t n, uint64_t state, uint32_t limit, tn_real keep, const tn_real *x, tn_real *y) {
    Draws at;
    for (int l = 0; l < VL / PER_DRAW; l++) at[l] = state + (uint64_t)(l + 1) * GOLDEN;
    const VU below = limit - (VU){0};
    for (size_t i = 0; i < n; i += VL, at += VL / PER_DRAW * GOLDEN) {
        Draws z = at;
        z = (z ^ (z >> 30)) * MIX_1;
        z = (z ^ (z >> 27)) * MIX_2;
        z ^= z >> 31;
        V mask = vsel((VI)((VU)z < below), vset1(0), vset1(keep));
        if (n - i >= VL)
            vstore(y + i, vload(x + i) * mask);
        else
            vstore_part(y + i, n - i, vload_part(x + i, n - i, 0) * mask);
    }
}

#endif

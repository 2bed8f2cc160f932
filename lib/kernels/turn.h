/* SPDX-License-Identifier: MIT */
/*
 * A block of a matrix turned in registers: TL columns of 4 reals each become 4 rows of TL. AVX turns two 4 x 4 blocks at
 * once, one in each half of a 256-bit register, because its shuffles do not cross halves. PICK numbers the lanes of x 0..3
 * and those of y 4..7, in each half alike. The plain level has none of this.
 */
#ifndef TN_KERNELS_TURN_H
#define TN_KERNELS_TURN_H
#include "vec.h"

#ifndef TN_LEVEL_PLAIN

typedef float Quad_at_any_address __attribute__((vector_size(16), aligned(4), may_alias));

#ifdef TN_LEVEL_NEON
enum { TL = 4 };
typedef float T __attribute__((vector_size(16)));
#define PICK(x, y, a, b, c, d) __builtin_shufflevector(x, y, a, b, c, d)

static inline T load_columns(const tn_real *b, ptrdiff_t cs) {
    (void)cs;
    return *(const Quad_at_any_address *)b;
}
#else
enum { TL = 8 };
typedef float T __attribute__((vector_size(32)));
#define LANE(i) ((i) < 4 ? (i) : (i) + 4)
#define PICK(x, y, a, b, c, d)                                                                               \
    __builtin_shufflevector(x, y, LANE(a), LANE(b), LANE(c), LANE(d), LANE(a) + 4, LANE(b) + 4, LANE(c) + 4, \
                            LANE(d) + 4)

/* By an insertion from memory, not a shuffle. */
static inline T load_columns(const tn_real *b, ptrdiff_t cs) {
    return _mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(b)), _mm_loadu_ps(b + 4 * cs), 1);
}
#endif
typedef float T_at_any_address __attribute__((vector_size(TL * 4), aligned(4), may_alias));

/* out[p * ld + j] = b[j * cs + p] for p < 4, j < TL. */
static inline void turn_block(const tn_real *b, ptrdiff_t cs, tn_real *out, ptrdiff_t ld) {
    T r0 = load_columns(b, cs), r1 = load_columns(b + cs, cs);
    T r2 = load_columns(b + 2 * cs, cs), r3 = load_columns(b + 3 * cs, cs);
    T lo01 = PICK(r0, r1, 0, 4, 1, 5), hi01 = PICK(r0, r1, 2, 6, 3, 7);
    T lo23 = PICK(r2, r3, 0, 4, 1, 5), hi23 = PICK(r2, r3, 2, 6, 3, 7);
    *(T_at_any_address *)out = PICK(lo01, lo23, 0, 1, 4, 5);
    *(T_at_any_address *)(out + ld) = PICK(lo01, lo23, 2, 3, 6, 7);
    *(T_at_any_address *)(out + 2 * ld) = PICK(hi01, hi23, 0, 1, 4, 5);
    *(T_at_any_address *)(out + 3 * ld) = PICK(hi01, hi23, 2, 3, 6, 7);
}

#endif
#endif

/* SPDX-License-Identifier: MIT */
/* What kernels make of vec.h's operations in more than one place: vectors that may be cut short. */
#ifndef TN_KERNELS_VEC_PART_H
#define TN_KERNELS_VEC_PART_H
#include "level.h"

/* The first n elements, VL at most, of a vector; the other lanes are 0, and are not stored. */
static inline V vload_first(const tn_real *p, size_t n) {
    return n >= VL ? vload(p) : vload_part(p, n, 0);
}
static inline void vstore_first(tn_real *p, size_t n, V v) {
    if (n >= VL)
        vstore(p, v);
    else
        vstore_part(p, n, v);
}
#endif

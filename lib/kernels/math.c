/* SPDX-License-Identifier: MIT */
/*
 * The functions of one variable, on arrays.
 */
#include "level.h"
#include "vmath.h"

#define UNARY(name)                                                                 \
    void tn_k_##name(size_t n, const tn_real *x, tn_real *y) {                      \
        size_t i = 0;                                                               \
        for (; i + VL <= n; i += VL) vstore(y + i, v##name(vload(x + i)));          \
        if (i < n) vstore_part(y + i, n - i, v##name(vload_part(x + i, n - i, 0))); \
    }

UNARY(exp)
UNARY(log)
UNARY(tanh)
UNARY(sigmoid)
UNARY(softplus)
UNARY(relu)

/* SPDX-License-Identifier: MIT */
/* Checks one operation: values against a reference, gradients against differences, and its ways to a gradient. */
#ifndef TEST_OPCHECK_H
#define TEST_OPCHECK_H
#include "support.h"

enum { MAX_INPUTS = 7 };
typedef struct {
    int nd, dim[TN_MAX_DIM];
} test_shape;
#define SHAPE(...)                                    \
    {                                                 \
        sizeof((int[]){__VA_ARGS__}) / sizeof(int), { \
            __VA_ARGS__                               \
        }                                             \
    }
#define SCALAR \
    {          \
        0, {   \
            0  \
        }      \
    }

typedef struct op_case op_case;
struct op_case {
    const char *name;
    int n; /* inputs */
    test_shape in[MAX_INPUTS], out;
    double lo, hi; /* inputs are drawn from [lo, hi) and kept a distance `gap` from 0; both 0: [-1, 1) */
    double gap;
    tn_t *(*f)(tn_t *const x[], const op_case *);
    void (*ref)(const op_case *, const double *const x[],
                double *y); /* own loops in double; NULL: not checked */
    /* Arguments of the operation, for f and ref. */
    double a, b;
    int i[4];
    const int *idx;
    tn_t *(*unary)(tn_t *);
    tn_t *(*binary)(tn_t *, tn_t *);
    double (*scalar)(const op_case *, double, double);
};

size_t shape_len(const test_shape *);

/* Largest error of the values, relative to the largest value (or 0.01); infinite when the shape or a NaN is wrong. */
double forward_error(const op_case *);
/*
 * Of s(x, v) = sum(v f(x)) at order 1 and of sum_i <u_i, ds/dx_i> at order 2, the latter through create_graph: largest
 * difference between the gradient and a five-point difference, relative to the largest element. Double only.
 */
double gradient_error(const op_case *, int order);
/*
 * How far the ways to the gradient are apart: numbers, create_graph, one source at a time, added to what another
 * path put there, and every source the same tensor where shapes allow it.
 */
double path_error(const op_case *);
/* All of the above: fails the test that calls it. */
void check_op(const op_case *);
void check_forward(const op_case *);
void check_paths(const op_case *); /* all but differences: where a kink may lie between two points */
#endif

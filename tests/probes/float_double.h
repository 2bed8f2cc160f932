/* SPDX-License-Identifier: MIT */
/*
 * What float_double_main.c and float_double_64.c say to each other: no type of tern, since theirs differ.
 */
#ifndef FLOAT_DOUBLE_H
#define FLOAT_DOUBLE_H
#include <stddef.h>
double loss_in_double(const double *x, int n, double *grad);
size_t real_size_in_double(void);
#endif

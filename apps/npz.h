/* SPDX-License-Identifier: MIT */
/*
 * NumPy's array files: .npy (NEP 1, version 1.0) and .npz, a ZIP archive of them, stored without compression.
 */
#ifndef TERN_APP_NPZ_H
#define TERN_APP_NPZ_H
#include "tern.h"

typedef struct {
    const char *name; /* in a .npz; without ".npy" */
    char type;        /* 'f': float, 'd': double, 'i': int (32 bits) */
    int nd, dim[2];
    const void *x;
} npy_array;
int npy_write(const char *path, const npy_array *, tn_err *);
/* Equal arrays give equal files: no time stamps. */
int npz_write(const char *path, int n, const npy_array *, tn_err *);
#endif

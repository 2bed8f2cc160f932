/* SPDX-License-Identifier: MIT */
/*
 * The safetensors container (format: huggingface/safetensors, README): 8 bytes little-endian length of the
 * header, a JSON object, then the tensors' bytes. Reader: everything is checked before a tensor is looked at.
 */
#ifndef TN_SAFETENSORS_H
#define TN_SAFETENSORS_H
#include "internal.h"
#include <jansson.h>

enum { ST_MAX_DIM = 8 };
typedef struct {
    const char *name;  /* belongs to the file */
    const char *dtype; /* "F32" */
    int nd;
    uint64_t dim[ST_MAX_DIM], n;
    uint64_t begin, end; /* bytes, from the start of the data */
} st_tensor;

typedef struct {
    char *path;
    int fd;
    uint64_t data; /* where the tensors' bytes begin */
    int n;
    st_tensor *t; /* in the order of the data */
    json_t *header;
    const json_t *meta; /* the strings of __metadata__, or NULL */
} st_file;

/* -1 with a message that opens with the path. f is good for tn_st_close in any case. */
int tn_st_open(st_file *f, const char *path, tn_err *);
void tn_st_close(st_file *);
const st_tensor *tn_st_find(const st_file *, const char *name);
int tn_st_floats(const st_tensor *); /* 1: F32, F64, F16 or BF16 */
/* All n elements as tn_real. With finite, NaN, infinity and values too large for tn_real are errors. */
int tn_st_read(const st_file *, const st_tensor *, tn_real *out, int finite, tn_err *);

typedef struct {
    char name[2 * TN_MAX_NAME];
    int nd, dim[TN_MAX_DIM];
    const tn_real *x;
    size_t n;
} st_item;
/*
 * Sorts items by name, as the reference writer orders tensors of one type. meta: an object of strings, or
 * NULL.
 */
int tn_st_write(const char *path, int n, st_item *items, const json_t *meta, tn_err *);
#endif

/* SPDX-License-Identifier: MIT */
/* What the files of data/ share and the public does not see. */
#ifndef TERN_DATA_INTERNAL_H
#define TERN_DATA_INTERNAL_H
#include "tern_data.h"

/*
 * One IDX file (the format of MNIST, described on its home page and by its magic number): two zero bytes, a
 * type, the number of dimensions, each dimension as 4 bytes with the high one first, then the values. Only
 * unsigned bytes (type 0x08) are read here.
 *
 * Opening reads and checks the header, and that the file can hold what the header says, before any memory of
 * that size is asked for. Reading gives the values; the last one read, tn_idx_end demands that nothing
 * follows and that the gzip checksum is right.
 */
enum { TN_IDX_MAX_DIM = 4 };
typedef struct tn_idx tn_idx;
tn_idx *tn_idx_open(const char *path, tn_err *);
/* The same from a seekable stream, which it closes, also on failure; name is kept, not copied. */
tn_idx *tn_idx_from(FILE *, const char *name, tn_err *);
int tn_idx_shape(const tn_idx *, int dim[TN_IDX_MAX_DIM]); /* returns the number of dimensions */
size_t tn_idx_len(const tn_idx *); /* values: the product of the dimensions, at least 1 */
size_t tn_idx_header(const tn_idx *, const unsigned char **); /* the header's bytes */
int tn_idx_read(tn_idx *, void *to, size_t n, tn_err *);      /* the next n values */
int tn_idx_end(tn_idx *, tn_err *);
void tn_idx_close(tn_idx *); /* NULL is fine */

/* The arrays behind tn_data.own. */
typedef struct tn_arrays {
    void *x;
    int *label;
    float *target;
    int *origin;
} tn_arrays;
size_t tn_dtype_size(tn_dtype);
/* Panics unless samples idx[0 ... n - 1], or first ... first + n - 1, are there. */
void tn_batch_check(tn_tape *, const char *what, const tn_data *, int n, const int *idx, int first);
/* Blocks of 64 bytes into the state, in plain C: what tn_sha256_add does on a processor without instructions for it. */
void tn_sha256_plain(uint32_t state[8], const unsigned char *, size_t blocks);
void tn_sha256_int(tn_sha256 *, const int *, size_t n); /* 4 bytes each, low byte first, on every machine */

/* Limits of a picture that is read: pixels a side, and in all. */
enum { TN_IMAGE_MOST_SIDE = 1 << 14, TN_IMAGE_MOST = 1 << 26 };
#define TN_IMAGE_LIMIT "16,384 pixels a side or 64 Mi pixels in all"
/*
 * stb.c: a picture of c = 1 ... 4 channels as it is in the file, and a PNG file; tn_free() the result. NULL:
 * *why says what is wrong.
 */
unsigned char *tn_stb_decode(const unsigned char *bytes, size_t n, int *h, int *w, int *c, const char **why);
unsigned char *tn_stb_png(int h, int w, int c, const unsigned char *x, size_t *n, const char **why);
/* What stb_image must not see, or would not notice: NULL if there is nothing, else what is wrong. */
const char *tn_image_check(const unsigned char *bytes, size_t n);
/* 1 ... 8 as Exif has it; 1 (upright) for any other file than a JPEG with that tag. */
int tn_exif_orientation(const unsigned char *bytes, size_t n);

/* The last part of a directory's name, also of "." and "data/mnist/"; or else when it has none. */
void tn_dir_name(const char *dir, const char *otherwise, char *out, size_t cap);

/*
 * Validation split, subset, noise, normalisation and hashes of a data set whose train and test have been
 * read.
 */
int tn_dataset_prepare(tn_dataset *, const tn_data_options *, tn_err *);
#endif

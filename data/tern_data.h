/* SPDX-License-Identifier: MIT */
/*
 * tern_data.h: data sets: typed arrays, where they come from, how they are split, and how a batch is made of
 * them. Pixels stay uint8 in memory and become tn_real when a batch is made.
 *
 *   1 arrays    2 what a run asks for    3 data sets and their kinds
 *   4 batches   5 looking at it         6 pictures    7 hashes
 *
 *     tn_dataset ds;
 *     tn_data_options o = tn_data_options_default();
 *     if (tn_dataset_open("data/mnist", &o, &ds, &err)) fail with err.msg;
 *     tn_epoch_order(seed, epoch, ds.train.n, 1, order);
 *     tn_t *x = tn_batch_input(tape, &ds.train, 128, order + 128 * step, 0);
 */
#ifndef TERN_DATA_H
#define TERN_DATA_H
#include "tern.h"
#ifdef __cplusplus
extern "C" {
#endif

/* ---- 1. Arrays ------------------------------------------------------------------------------------- */

typedef enum { TN_U8, TN_F32 } tn_dtype;

/* n samples of shape dim[nd] ((c, h, w) for pictures) and their targets: labels or numbers. */
typedef struct tn_data {
    int n, nd, dim[3];
    size_t len; /* elements of one sample */
    tn_dtype xtype;
    const void *x; /* n * len elements */
    /*
     * The model sees x * scale + shift: 1/255 and 0 for TN_U8, 1 and 0 for TN_F32; with normalize=meanstd
     * such that the values of the training part have mean 0 and variance 1.
     */
    double scale, shift;
    int classes;         /* labels are 0 ... classes - 1; 0: regression */
    const int *label;    /* n, or NULL */
    int targets;         /* numbers a sample in target */
    const float *target; /* n * targets, or NULL */
    const int *origin;   /* position (from 0) of each sample in the file it came from; NULL: 0 ... n - 1 */
    /*
     * SHA-256 as hex that changes with any value, label, shape or order: of a part of a data set over
     * data_hash, origin and labels, else over the arrays themselves. Scale and shift are no part of it.
     */
    char hash[65];
    void *own; /* memory that tn_data_free releases; NULL: the caller's arrays */
} tn_data;

/*
 * Arrays of the caller's own (not copied, not freed; they must stay as they are while out is used). x: n
 * samples of shape dim[nd], nd 1 ... 3; exactly one of label (n of them in 0 ... classes - 1, classes >= 2)
 * and target (n * targets). -1 with a message for what does not fit, a label out of range among it.
 */
TN_API int tn_data_from_arrays(tn_data *out, int n, int nd, const int *dim, tn_dtype, const void *x,
                               const int *label, int classes, const float *target, int targets, tn_err *);
/*
 * Arrays of tern's own, cleared, for a reader to fill (x, label and target may be written through a cast
 * until the data set is handed on): labels when classes > 0, else targets numbers a sample. Released by
 * tn_data_free.
 */
TN_API int tn_data_alloc(tn_data *out, int n, int nd, const int *dim, tn_dtype, int classes, int targets,
                         tn_err *);
TN_API void tn_data_free(tn_data *); /* leaves *d cleared; fine on a cleared one */

/* ---- 2. What a run asks for ------------------------------------------------------------------------- */

enum { TN_VAL_AUTO = -1 };

/* Zeroes are not defaults: start from tn_data_options_default(). */
typedef struct {
    /*
     * Images of the training set kept for validation, stratified; 0: none; TN_VAL_AUTO (the default): 5,000,
     * or a twelfth of a training set that has fewer than 60,000.
     */
    int val_size;
    int train_size; /* 0: all that is left; else a stratified subset of it, drawn from seed */
    /*
     * In [0, 1): exactly round(label_noise * n) training labels (halves up) are replaced, each by another
     * class, all equally likely; drawn from seed. Validation and test labels stay.
     */
    double label_noise;
    int normalize; /* 0 none; 1 meanstd: mean and standard deviation of the training part, after the subset */
    /*
     * Of the run: subset and noise, each with draws of its own. The validation split does not depend on it:
     * it is the same for all runs.
     */
    uint64_t seed;
    /*
     * 1: only the test part is wanted. A reader that can (of IDX files) then leaves train and val empty and data_hash "",
     * with nothing of what stands above applied: scale the test part as the weights' file says.
     */
    int test_only;
} tn_data_options;
/* Validation as above, all the rest for training, no noise, not normalized, seed 0. */
TN_API tn_data_options tn_data_options_default(void);

/* ---- 3. Data sets and their kinds --------------------------------------------------------------------- */

/* The three parts, each in the order of its file. Validation comes out of the training set. */
typedef struct tn_dataset {
    char name[64]; /* "mnist" (of a directory: its last part), "synthetic" */
    tn_data train, val, test;
    /* SHA-256 of the positions of the validation images, ascending, 4 bytes each with the low one first. */
    char split_hash[65];
    /*
     * SHA-256 of the unpacked contents, the same however they were packed. Of IDX files: of all four in a
     * row, training images, training labels, test images, test labels, so that "gzip -dc FILES | sha256sum"
     * gives it.
     */
    char data_hash[65];
    char (*class_name)[TN_MAX_NAME]; /* of train.classes classes, or NULL: they are numbers */
    char note[256];                  /* what reading left out, as a sentence, or "" */
    char test_hash[65];              /* as data_hash, of what belongs to the test part alone; "": the reader has none */
    int test_only;                   /* for readers, set before open(): they may read the test part alone */
} tn_dataset;

/* A kind of data set: one file, one line in datasets.def. */
typedef struct tn_dataset_def {
    uint32_t abi, size; /* TN_ABI, sizeof(tn_dataset_def) */
    const char *name, *summary;
    size_t cfg_size;
    const tn_opt *cfg; /* option table */
    /* Is this directory one of mine? NULL: takes none, only its name ("synthetic:n=1000"). */
    int (*recognise)(const char *dir);
    /*
     * Fills name, train and test (val stays empty) with tn_data_alloc, and data_hash; class_name (from the
     * allocator of tern.h) and note if there are any. dir is NULL when only the kind was named. -1 with a
     * message; what is filled by then is released by the caller.
     */
    int (*open)(const char *dir, const void *cfg, tn_dataset *out, tn_err *);
} tn_dataset_def;
TN_API const tn_dataset_def *const *tn_datasets(int *n); /* the built-in ones */

/*
 * Opens what --data names: a directory whose kind is recognised by its files, "name:key=value,..." of a kind,
 * or "name:DIR" and "name:DIR,key=value,..." of one that takes a directory; then splits, takes the subset,
 * adds the noise. Errors name the file or option and say what is wrong with it; *out is then cleared.
 */
TN_API int tn_dataset_open(const char *where, const tn_data_options *, tn_dataset *out, tn_err *);
/* The same with a definition given: dir a directory or NULL, options "key=value,..." or NULL. */
TN_API int tn_dataset_open_def(const tn_dataset_def *, const char *dir, const char *options,
                               const tn_data_options *, tn_dataset *out, tn_err *);
/*
 * What tn_dataset_open would give with these options, out of a set that was opened whole (val_size 0, no subset, no
 * noise, not normalized): without reading and hashing the files again. Nothing is shared; -1 with a message.
 */
TN_API int tn_dataset_derive(const tn_dataset *whole, const tn_data_options *, tn_dataset *out, tn_err *);
TN_API void tn_dataset_free(tn_dataset *);

/* ---- 4. Batches --------------------------------------------------------------------------------------- */

/*
 * Order of epoch e (from 0): a permutation of 0 ... n - 1 from (seed, "shuffle", e); shuffle 0: file order.
 */
TN_API void tn_epoch_order(uint64_t seed, long epoch, int n, int shuffle, int *order);
/* Steps of an epoch with the last, smaller batch used or, with drop_last, left out (0 if n < batch). */
TN_API long tn_steps_per_epoch(int n, int batch, int drop_last);
/*
 * The next three take samples idx[0 ... n - 1], or first ... first + n - 1 when idx is NULL. A sample that is
 * not there, n < 1 or missing labels (targets) panic: they are bugs.
 */
/* Samples as an input on the tape, shape (n, dim...), x * scale + shift. */
TN_API tn_t *tn_batch_input(tn_tape *, const tn_data *, int n, const int *idx, int first);

/*
 * Augmentation: each time a sample is used it is shifted, turned, scaled, bent or mirrored at random, by
 * draws from (seed, "augment", what is done, epoch, sample's number in d): the same in any batch and on any
 * number of threads. What comes in from outside is the nearest pixel of the edge; between pixels, bilinear.
 */
typedef struct tn_augment {
    long shift;     /* whole pixels, each way, uniform in -shift ... shift */
    double rotate;  /* degrees, uniform in -rotate ... rotate */
    double scale;   /* size times 1 - scale ... 1 + scale, uniform */
    double elastic; /* standard deviation in pixels of a smooth random displacement of each pixel */
    long smooth;    /* pixels between the knots of that displacement: a cubic B-spline */
    int flip;       /* 1: left and right exchanged in half of the samples */
} tn_augment;
TN_API const tn_opt *tn_augment_options(void);
/* "shift=2,rotate=10"; NULL or "": none of it. */
TN_API int tn_augment_parse(const char *text, tn_augment *out, tn_err *);
TN_API int tn_augment_any(const tn_augment *); /* 0: it changes nothing */
/* -1 with a message when samples of d are no pictures. */
TN_API int tn_augment_check(const tn_augment *, const tn_data *d, tn_err *);
/* tn_batch_input after augmentation; NULL or one that changes nothing: the same bits as without. */
TN_API tn_t *tn_batch_input_augmented(tn_tape *, const tn_data *, const tn_augment *, uint64_t seed,
                                      long epoch, int n, const int *idx, int first);
/* Their labels into out[n]. */
TN_API void tn_batch_labels(const tn_data *, int n, const int *idx, int first, int *out);
/* Their targets (n, targets) as a tensor without gradient. */
TN_API tn_t *tn_batch_targets(tn_tape *, const tn_data *, int n, const int *idx, int first);

/* ---- 5. Looking at it --------------------------------------------------------------------------------- */

/* mask[j] (len bytes): 1 where element j is zero in all n samples, never lit. Returns how many are. */
TN_API int tn_never_lit(const tn_data *, unsigned char *mask);
/*
 * Sample i, shape (h, w) or (c, h, w), as lines of text for a terminal: a character is one pixel wide and two
 * high (half blocks in UTF-8, or a ramp of ASCII characters), pixels being averaged where more than columns
 * would be needed. All lines have the same width. Returns the bytes written before the final 0; -1: no
 * picture, no such sample, or out is too small.
 */
TN_API int tn_data_picture(const tn_data *, int i, int columns, int unicode, char *out, size_t cap);

/* ---- 6. Pictures -------------------------------------------------------------------------------------- */

/*
 * Files are PNG, JPEG, BMP, GIF (the first frame) or PNM (P5, P6); at most 16,384 pixels a side, 64 Mi pixels
 * and 256 MiB. A photograph is turned the way up that its camera noted. Every message names the file.
 */
typedef struct tn_image {
    int h, w, c;      /* rows, columns, 1 (grey) or 3 (red, green, blue) */
    unsigned char *x; /* h rows of w pixels of c bytes */
} tn_image;
/* What shows through transparent pixels is white; with this flag black, where the ink itself is light. */
enum { TN_IMAGE_CONTRAST = 1 };
TN_API int tn_image_new(tn_image *out, int h, int w, int c, tn_err *); /* black */
TN_API void tn_image_free(tn_image *);                                 /* fine on a cleared one */
/*
 * c: the channels wanted, 1 or 3; how: 0 or TN_IMAGE_CONTRAST. A file that is damaged or ends too early: -1.
 */
TN_API int tn_image_read(const char *path, int c, int how, tn_image *out, tn_err *);
TN_API int tn_image_decode(const void *file, size_t bytes, const char *name, int c, int how, tn_image *out,
                           tn_err *);
TN_API int tn_image_resize(const tn_image *, int h, int w, tn_image *out, tn_err *); /* stretched to fit */
TN_API int tn_image_write(const char *path, const tn_image *, tn_err *); /* PNG, by tn_write_file */
/*
 * A drawn, scanned or photographed digit (one channel) as MNIST has its own: light on black, contrast
 * stretched, specks removed, cropped to the ink, scaled into 20 x 20 pixels, its centre of mass in the middle
 * of 28 x 28. Dark or light ground and uneven light are told from the picture's border. name opens the
 * message.
 */
enum { TN_DIGIT_SIDE = 28 };
TN_API int tn_image_digit(const tn_image *, const char *name,
                          unsigned char out[TN_DIGIT_SIDE * TN_DIGIT_SIDE], tn_err *);
/*
 * Samples side by side, zoom pixels of the sheet a pixel: at most columns a row; with labels a row or more
 * for each class that has samples, in the order of the labels, at most `most` samples of each (else at most
 * `most` in all), both counted from number `first` of the class (of the data set).
 */
TN_API int tn_data_sheet(const tn_data *, int first, int most, int columns, int zoom, tn_image *out,
                         tn_err *);

/* ---- 7. Hashes ---------------------------------------------------------------------------------------- */

/* SHA-256 (FIPS 180-4) in pieces; the end gives 64 hex digits and a 0. */
typedef struct {
    uint32_t h[8];
    uint64_t bytes;
    unsigned char block[64];
} tn_sha256;
TN_API void tn_sha256_begin(tn_sha256 *);
TN_API void tn_sha256_add(tn_sha256 *, const void *, size_t);
TN_API void tn_sha256_end(tn_sha256 *, char hex[65]);

#ifdef __cplusplus
}
#endif
#endif

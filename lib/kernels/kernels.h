/* SPDX-License-Identifier: MIT */
/*
 * The loops that must be fast, behind one table a vector level.
 *
 * Every source in this folder and in optim/ is compiled once for each level (plain, avx2, avx512, neon) and fills one
 * const table; tn_kernels_get() hands out the best one that this processor runs, or the one that TERN_SIMD
 * names. All levels give the same bits: each element of a product is one k-ordered chain of fused
 * multiply-adds, every sum runs over TN_LANES virtual lanes that are added up in a fixed tree, and exp, log,
 * tanh and sigmoid are written here, from operations that IEEE 754 rounds correctly. (Where a result is NaN,
 * which of the NaNs is not specified.) The double build has the plain level only, with libm's functions.
 *
 * Nothing here allocates, records, checks shapes or starts a thread: the callers do.
 */
#ifndef TN_KERNELS_H
#define TN_KERNELS_H
#include "cells.h"
#include "tern.h"
#include <stddef.h>

/* The double build's symbols have names of their own, so that one program can link both builds. */
#ifdef TN_DOUBLE
#define tn_kernels_get   tn64_kernels_get
#define tn_kernels_level tn64_kernels_level
#endif

enum { TN_LANES = 16 };

/* Largest register tile of any level; callers size their scratch with it. TN_TILE_MAX: rows of the product's tile. */
enum { TN_MR_MAX = 8, TN_NR_MAX = 32, TN_PANEL_MAX = 48, TN_TILE_MAX = 14 };

enum { TN_WINOGRAD_TILES = 6 };

/* Most vectors of a tile of sparse_dw and sparse_dx, at most 5 rows of 6, by the height of the product's tile. */
#define TN_SPARSE_TILE(mr) ((mr) < 8 ? 12 : 20)

/* Of each of some planes the list of what is not zero; v and off of neighbouring lists are ld apart, counts count_ld. */
typedef struct {
    int lists, ld, count_ld;
    tn_real *v;
    int *off, *count;
} tn_sparse_lists;
/*
 * An element i width + j of a pooling window lies at i row + j pixel; relu: gradients pass where y > 0, times scale. Planes of
 * n elements, bands of `band`. base is readable, and v, key and the lists are writable, a vector beyond their end. NULL where
 * it is not wanted: v and key, list.count, bias.
 */
typedef struct {
    int relu, width, row, pixel, planes, n, band;
    tn_real scale;
    const int *base;
    tn_real *v, *key, *bias;
    tn_sparse_lists list;
} tn_sparse_split;
/* oh x ow pooling windows of kh x kw pixels each, in an image with channels last. */
typedef struct {
    int oh, ow, kh, kw;
    ptrdiff_t row, pixel;
    const char *soon; /* written next: fetched meanwhile, `step` bytes a pixel */
    int step;
} tn_sparse_window;
/* rows x vectors of a window, of the last vector the first `lanes` lanes, worked on by tiles. */
typedef struct {
    int rows, vectors, lanes, tile_rows, tile_vectors;
} tn_sparse_block;

/* Channels last, rows of y and gy `pitch` reals apart; tap t of pixel (r, c) is x[r * row + c + off[t]]. */
typedef struct {
    int taps, oh, ow, channels; /* channels: whole vectors */
    const int *off;
    ptrdiff_t row, pitch;
} tn_channels_dw;

/* For gemm_panel: A (m, k) with rows lda apart, b (k, nr); soon_rows rows of soon_len reals, ld_soon apart, are fetched meanwhile. */
typedef struct {
    int m, k;
    const tn_real *a, *b;
    tn_real *c;
    ptrdiff_t lda, ldc;
    int add, soon_rows, soon_len;
    const tn_real *soon;
    ptrdiff_t ld_soon;
} tn_gemm_panel;

/*
 * A (m, 64 words), element (i, p) at a[i * rs + p * cs]; bit p % 64 of bits[i * ld_bits + p / 64 * word_step] tells
 * that it is not zero. b (64 words, width), finite; width: sparse_width, or sparse_wide if not alike. alike:
 * neighbouring rows of A mostly have their zeros in common. far: C's rows are not in the cache. soon_rows rows of
 * soon_len reals, ld_soon apart, are fetched meanwhile, with soon_write to be written.
 */
typedef struct {
    int m, words, width, alike;
    const uint64_t *bits;
    ptrdiff_t ld_bits, word_step;
    const tn_real *a, *b;
    ptrdiff_t rs, cs;
    tn_real *c;
    ptrdiff_t ldc;
    int add, far, soon_rows, soon_len, soon_write;
    const tn_real *soon;
    ptrdiff_t ld_soon;
} tn_sparse_panel;

/*
 * Where a Winograd tile's results go, channels last: rows x cols pixels (4 x 4, fewer at an edge), plus bias (or NULL), then
 * ReLU; with pool after 2 x 2 max pooling (2 x 2 or fewer), winner (or NULL): 0 ... 3, which of its window row by row.
 */
typedef struct {
    int channels, rows, cols, relu, pool;
    const tn_real *bias;
    tn_real *y, *winner;
    ptrdiff_t pixel, pitch;
} tn_winograd_put;

enum tn_unary { TN_EXP, TN_LOG, TN_TANH, TN_SIGMOID, TN_RELU, TN_SOFTPLUS, TN_UNARY_COUNT };

typedef struct tn_kernels {
    const char *name; /* "plain", "avx2", "avx512", "neon" */
    int width;        /* tn_reals in a vector register */
    int mr, nr;       /* rows of most kernels' register tile; columns of a packed panel */

    /*
     * Packs B (k x n, element (p, j) at b[p * rs + j * cs]) for gemm: ceil(n / nr) panels, each k rows of nr
     * columns, the last panel filled up with zeros. out: k * nr * ceil(n / nr) reals. One of rs, cs is 1.
     */
    void (*pack_b)(int k, int n, const tn_real *b, ptrdiff_t rs, ptrdiff_t cs, tn_real *out);

    /*
     * C (m x n, row stride ldc) = A B, or += with add. A is m x k, element (i, p) at a[i * rs + p * cs];
     * b is packed by pack_b. Element (i, j) is one chain fma(a_i0, b_0j, start), fma(a_i1, b_1j, .), ... with
     * start = 0, or C's value with add; then bias[j] is added when bias is not NULL; then max(0, .) when
     * relu (NaN stays NaN).
     */
    void (*gemm)(int m, int n, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b,
                 tn_real *c, ptrdiff_t ldc, int add, const tn_real *bias, int relu);

    /*
     * The same product, bit for bit, from a B that is not packed (element (p, j) at b[p * brs + j * bcs], one
     * of brs, bcs is 1): packs B panel by panel on the way. For products whose B is used once, such as weight
     * gradients (A = gy^T, B = x). Threads may call it on disjoint column ranges of one C.
     */
    void (*gemm_raw_b)(int m, int n, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b,
                       ptrdiff_t brs, ptrdiff_t bcs, tn_real *c, ptrdiff_t ldc, int add, const tn_real *bias,
                       int relu);

    /*
     * The same product with its result turned: element (i, j) of A B at c[j * ldc + i], plus bias[i] (NULL: none), then
     * max(0, .) with relu. A's rows are contiguous and read in place, b is packed: x w' + bias from weights w as they are
     * kept, with x' as B, the same bits as gemm gives with w' packed and x as A.
     */
    void (*gemm_turned)(int m, int n, int k, const tn_real *a, ptrdiff_t rs, const tn_real *b, tn_real *c,
                        ptrdiff_t ldc, const tn_real *bias, int relu);

    /* The same product for one panel of B, nr whole columns, without bias and ReLU. */
    void (*gemm_panel)(const tn_gemm_panel *);

    /*
     * Columns of C = A B or += for an A that is mostly zeros, which are skipped: each element is the chain of gemm without
     * them, the same bits (but for the sign of a sum that underflows to 0).
     */
    int sparse_width, sparse_wide; /* columns of b: two widths, the same where registers are few */
    void (*sparse_panel)(const tn_sparse_panel *);

    /* y[i] = f(x[i]); x may be y. Accuracy: 2.5 ulp; special values as in C's annex F. */
    void (*unary[TN_UNARY_COUNT])(size_t n, const tn_real *x, tn_real *y);
    void (*add)(size_t n, const tn_real *a, const tn_real *b, tn_real *y);
    void (*mul)(size_t n, const tn_real *a, const tn_real *b, tn_real *y);
    void (*accumulate)(size_t n, const tn_real *x, tn_real *y); /* y += x */
    /* gx = y > 0 ? gy : 0; NaN in gy or y gives NaN */
    void (*relu_mask)(size_t n, const tn_real *gy, const tn_real *y, tn_real *gx);
    /* out[j] = sum over i of x[i * ld + j], i ascending, started from out with add: bias gradients. */
    void (*col_sum)(int rows, int cols, const tn_real *x, ptrdiff_t ld, int add, tn_real *out);
    /* In TN_LANES lanes of double; of x, and of x^2 for gradient norms. NaN and infinity show. */
    double (*sum)(size_t n, const tn_real *x);
    double (*sum_sq)(size_t n, const tn_real *x);
    int (*all_finite)(size_t n, const tn_real *x); /* 1: neither infinity nor NaN */
    /*
     * Rows of logits (rows x classes, contiguous) to log-softmax statistics:
     * lse[i] = max + log(sum exp(x - max)). A row with NaN or +infinity, or of -infinity only, gives NaN.
     */
    void (*row_lse)(int rows, int classes, const tn_real *x, tn_real *lse);
    /* y = scale[i] exp(x - lse[i]) in row i: with row_lse's lse, softmax times a number. */
    void (*softmax_rows)(int rows, int classes, const tn_real *x, const tn_real *lse, const tn_real *scale,
                         tn_real *y);
    /*
     * Pixels to reals, n rows gathered by index (idx NULL: 0..n-1):
     * out[i * len + j] = fma(x[idx[i] * len + j], scale, shift).
     */
    void (*gather_u8)(int n, size_t len, const unsigned char *x, const int *idx, tn_real scale, tn_real shift,
                      tn_real *out);
    /* The built-in optimizers and wrappers, compiled for this level; NULL ends a list: optim/optim.h. */
    const tn_optim_def *const *optims, *const *wrappers;
    /*
     * Gradients that skip zeros, see conv_sparse.c. Bits of words of 64 tell what is not zero (NaN is not).
     * split: v: gy scale (0 where ReLU was off; NaN in gy or y gives NaN), key: winner, or -1 where v is 0; list: of each plane,
     * each of its bands, what is not zero of v, and base of the element plus where the winner lies in its window: that of plane
     * p and the band that begins with element i stands from p n + i on, its count at p bands + band. bias (planes, TN_LANES):
     * lane l += v's elements l, l + TN_LANES, ... of band after band, in order.
     * bits: of the first n elements of each plane, ceil(n / 64) words. keys: of window q, place k
     * in it, channel o: key[q * channels + o] == k, in order q, k, o / 64; channels: a multiple of TN_LANES.
     * dw: sum[o * sum_ld + r * sum_row + l] = a chain over list o's elements, fma(v[i], x[off[i] + r * row + l], .), started
     * from what stands there; l < vectors * width, of the last vector at least `lanes`.
     * dx: for each window, each place in it, a block of a window's gradient, which is added to the image at the place's pixel:
     * a chain from 0 over the channels o that are not zero, ascending, fma(v[q * channels + o], weight, .). The weights are
     * tile by tile of the block, each (channels, rows, vectors, width).
     */
    void (*sparse_split)(const tn_sparse_split *, const tn_real *gy, const tn_real *y,
                         const unsigned char *winner);
    void (*sparse_bits)(int planes, int n, const tn_real *v, ptrdiff_t ld, uint64_t *bits);
    /*
     * Of up to 64 rows what is not zero, both ways: bit c of row r's words, row_words apart, ceil(cols / 64) of them, and bit r
     * of column_bits[c]; column_bits: or NULL.
     */
    void (*sparse_masks)(int rows, int cols, const tn_real *x, ptrdiff_t ld, uint64_t *row_bits,
                         ptrdiff_t row_words, uint64_t *column_bits);
    void (*sparse_keys)(int windows, int places, int channels, const tn_real *key, uint64_t *bits);
    void (*sparse_dw)(int rows, int vectors, int lanes, const tn_sparse_lists *, const tn_real *x,
                      ptrdiff_t row, tn_real *sum, ptrdiff_t sum_row, ptrdiff_t sum_ld);
    void (*sparse_dx)(const tn_sparse_block *, const tn_sparse_window *, int channels, const uint64_t *bits,
                      const tn_real *v, const tn_real *w, tn_real *image);
    /*
     * The same for 2 x 2 pooling, at most 64 channels (a multiple of TN_LANES), kh 3 or 5, and a window's row, `run` reals, of
     * at most 2 TN_LANES: for each column of the convolution's output, of each real of the image that its windows cover, one
     * chain from 0 over the output's rows and the channels that are not zero there is added to it. Weights: (channels, kh, run
     * filled up with zeros to TN_LANES or 2 TN_LANES). step: bytes fetched a column.
     */
    void (*sparse_dx_pool)(int kh, int run, const tn_sparse_window *, int channels, const uint64_t *bits,
                           const tn_real *v, const tn_real *w, tn_real *image);

    /*
     * sum (taps, TN_LANES) += g x at each tap: lane l of tap t adds g[i] x[i + off[t]] for i = l, l + TN_LANES, ... below
     * blocks TN_LANES.
     */
    void (*planes_dw)(int taps, const int *off, int blocks, const tn_real *g, const tn_real *x, tn_real *sum);
    /* The gradient behind ReLU, or gy itself for y NULL, of rows by cols, to rows of pitch reals, filled up with zeros. out has
     * room for a vector more, which may be written. */
    void (*planes_gradient)(int rows, int cols, const tn_real *gy, const tn_real *y, tn_real *out,
                            ptrdiff_t pitch);

    /*
     * sum (taps + 1, channels) += of each tap a chain from 0 over the pixels, fma(tap, g, .), in the last row the sum of g;
     * g: gy where y > 0, else 0, NaN in either gives NaN.
     */
    void (*channels_dw)(const tn_channels_dw *, const tn_real *x, const tn_real *y, const tn_real *gy,
                        tn_real *sum);

    /* y[i] = 0 x[i] with probability limit / 2^32, else keep x[i], by draws from the splitmix64 generator in this state. */
    void (*dropout)(size_t n, uint64_t state, uint32_t limit, tn_real keep, const tn_real *x, tn_real *y);

    /* Independent chains of fused multiply-adds on registers, rounds times; returns operations in a round. */
    double (*peak)(long rounds, tn_real *sink);
    /*
     * a[k][i] += zero g[i], for k = 0 ... arrays - 1 and whole vectors of i: the traffic of an optimizer step, for
     * benchmarks. With zero = 0 (and no infinite g) nothing changes.
     */
    void (*stream)(size_t n, int arrays, tn_real *const a[], const tn_real *g, tn_real zero);

    /* dst[j * ld_dst + i] = src[i * ld_src + j]; they do not overlap */
    void (*transpose)(int rows, int cols, const tn_real *src, ptrdiff_t ld_src, tn_real *dst,
                      ptrdiff_t ld_dst);
    /*
     * Convolution of one image with stride 1, in two layouts of its result; padding stands in the image. Term p of
     * output pixel (r, c) is x[r * row + c + off[p]], and its sum one chain over p, started at 0, of fused
     * multiply-adds; then the bias (or NULL) is added, then max(0, .) with relu (NaN stays NaN).
     *
     * conv_pixels: planes, out[o * plane + r * pitch + c], lanes over pixels. Weights (k, co), row stride ldw. When pitch
     * has room for whole vectors, they are written; then, and when ow is less than a vector, x is read as far.
     * conv_pixels_pool: y and the places of the winners of 2 x 2 windows, oh x ow of them, co planes of each. The image has
     * its even columns and its odd columns apart (unzip; rows of row reals), and term p of the windows' even columns is
     * at x[... + even[p]], of the odd ones at odd[p]. Weights (k, co). x is read up to a vector beyond its end. terms, or NULL: of each row of
     * windows the first term and the end of those that are summed; the others are known to be 0.
     * conv_channels: channels last, out[(r * ow + c) * ld + o] for a panel of 1 or 2 vectors of channels, its weights
     * (k, vectors * width) and bias filled up with zeros. The terms come in runs of `run` neighbours: off[p + 1] = off[p] + 1.
     */
    void (*conv_pixels)(int k, const int *off, int oh, int ow, const tn_real *x, ptrdiff_t row, int co,
                        const tn_real *w, ptrdiff_t ldw, const tn_real *bias, int relu, tn_real *out,
                        ptrdiff_t pitch, ptrdiff_t plane);
    void (*conv_pixels_pool)(int k, const int *terms, const int *even, const int *odd, int oh, int ow,
                             const tn_real *x, ptrdiff_t row, int co, const tn_real *w, const tn_real *bias,
                             int relu, tn_real *y, unsigned char *winner);
    void (*conv_channels)(int k, const int *off, int run, int oh, int ow, const tn_real *x, ptrdiff_t row,
                          int vectors, const tn_real *w, const tn_real *bias, int relu, tn_real *out,
                          ptrdiff_t ld);
    /*
     * Max pooling of oh x ow windows of kh x kw side by side; the place i * kw + j in its window of the first largest
     * element, or of the first NaN. plane: x[r * row + c], readable two vectors beyond its end; y and the places may
     * be written up to room elements from their start. channels: x[r * row + c * ld + o] and y, place
     * [(r * ow + c) * ld + o], whole vectors of channels.
     */
    void (*max_pool_plane)(int oh, int ow, int kh, int kw, const tn_real *x, ptrdiff_t row, tn_real *y,
                           unsigned char *place, size_t room);
    void (*max_pool_channels)(int oh, int ow, int kh, int kw, int channels, const tn_real *x, ptrdiff_t row,
                              ptrdiff_t ld, tn_real *y, tn_real *place);
    void (*copy_rows)(int rows, int cols, const tn_real *src, ptrdiff_t ld_src, tn_real *dst,
                      ptrdiff_t ld_dst);
    /* even[i], odd[i] = x[2 i], x[2 i + 1] for i < n, by whole vectors: all are read and written as far. */
    void (*unzip)(size_t n, const tn_real *x, tn_real *even, tn_real *odd);
    /* Whole numbers from 0 to 255 to bytes. */
    void (*to_u8)(size_t n, const tn_real *x, unsigned char *out);
    /*
     * Winograd F(4x4, 3x3), see winograd.c. Images are NHWC: row r, column c of one is at x[r * pitch + c * pixel].
     * weights: input channels c0 ... c1 - 1 of w (co, ci, 3, 3) to u (36, panels, ci, nr), panels = ceil(co / nr), filled up
     * with zeros.
     * input: a row of tiles, 4 columns apart, of 6 x 6 pixels of ci reals from x on, to v (tiles, 36, ci).
     * products: tiles, a multiple of TN_WINOGRAD_TILES, of v by u to m (36, tiles, panels nr), with step reals between products.
     * output: all channels of one tile, which begins at m, with step reals between products. 1: something is not finite, and
     * direct has to make the tile, from its image of ci channels from x on and the weights themselves.
     */
    void (*winograd_weights)(int co, int ci, int c0, int c1, const tn_real *w, tn_real *u);
    void (*winograd_input)(int ci, int tiles, const tn_real *x, ptrdiff_t pitch, tn_real *v);
    void (*winograd_products)(int ci, int tiles, int panels, const tn_real *v, const tn_real *u, tn_real *m,
                              ptrdiff_t step);
    int (*winograd_output)(const tn_winograd_put *, const tn_real *m, ptrdiff_t step);
    void (*winograd_direct_tile)(const tn_winograd_put *, int ci, const tn_real *w, const tn_real *x,
                                 ptrdiff_t pitch);
    /*
     * Winograd F(2, 5) along the columns, see winograd_rows.c; images in planes, 5 x 5 windows.
     * weights: w (ci, 5, 5, lanes), a panel as conv_channels reads it, to u (6, ci, 5, lanes).
     * input: six rows of cols reals from x on, of ci planes, to t[p * step + c * pitch + ...], p < 6, by whole vectors;
     * nothing at end or beyond is read.
     * pool: a row of windows from six products at m, m + step, ...: (2 windows, channels) each, whole vectors of
     * channels; plus bias (or NULL), then ReLU, then the largest of two rows and two columns and its place, 0 ... 3. 1:
     * something is not finite, and the row has to be made by direct sums.
     */
    void (*winograd_rows_weights)(int ci, int lanes, const tn_real *w, tn_real *u);
    void (*winograd_rows_input)(int ci, int cols, const tn_real *x, const tn_real *end, ptrdiff_t row,
                                ptrdiff_t plane, tn_real *t, ptrdiff_t pitch, ptrdiff_t step);
    int (*winograd_rows_pool)(int windows, int channels, const tn_real *m, ptrdiff_t step,
                              const tn_real *bias, int relu, tn_real *y, tn_real *place);
    /*
     * A product of a recurrent layer, see cells.h; a panel has whole vectors of columns, this many at most.
     */
    int panel;
    void (*panel_product)(const tn_panel_product *);
    /* The same with an A that is mostly zeros. */
    void (*sparse_rows)(const tn_sparse_rows *);
    void (*sparse_turned)(const tn_sparse_turned *);
    /* One time step of a recurrent cell, see cells.h, by tn_cell: forward, backward, and reals kept a unit. */
    tn_cell_fn *cell[TN_LSTM + 1], *cell_back[TN_LSTM + 1];
    int cell_kept[TN_LSTM + 1];
} tn_kernels_t;

/* The table in use; NULL with a message when TERN_SIMD names a level that this machine or build lacks. */
const tn_kernels_t *tn_kernels_get(tn_err *);
/* A level by name for tests and benchmarks, NULL if this machine cannot run it. */
const tn_kernels_t *tn_kernels_level(const char *name);
#endif

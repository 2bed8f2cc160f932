/* SPDX-License-Identifier: MIT */
/*
 * The kernels of one level, as its table names them: see kernels.h for what each does.
 */
#ifndef TN_KERNELS_LEVEL_H
#define TN_KERNELS_LEVEL_H
#include "vec.h"

#define tn_k_pack_b               TN_LEVEL_NAME(pack_b)
#define tn_k_pack_panel           TN_LEVEL_NAME(pack_panel)
#define tn_k_gemm                 TN_LEVEL_NAME(gemm)
#define tn_k_gemm_raw_b           TN_LEVEL_NAME(gemm_raw_b)
#define tn_k_exp                  TN_LEVEL_NAME(exp)
#define tn_k_log                  TN_LEVEL_NAME(log)
#define tn_k_tanh                 TN_LEVEL_NAME(tanh)
#define tn_k_sigmoid              TN_LEVEL_NAME(sigmoid)
#define tn_k_softplus             TN_LEVEL_NAME(softplus)
#define tn_k_relu                 TN_LEVEL_NAME(relu)
#define tn_k_add                  TN_LEVEL_NAME(add)
#define tn_k_mul                  TN_LEVEL_NAME(mul)
#define tn_k_accumulate           TN_LEVEL_NAME(accumulate)
#define tn_k_relu_mask            TN_LEVEL_NAME(relu_mask)
#define tn_k_gather_u8            TN_LEVEL_NAME(gather_u8)
#define tn_k_col_sum              TN_LEVEL_NAME(col_sum)
#define tn_k_sum                  TN_LEVEL_NAME(sum)
#define tn_k_sum_sq               TN_LEVEL_NAME(sum_sq)
#define tn_k_row_lse              TN_LEVEL_NAME(row_lse)
#define tn_k_sparse_split         TN_LEVEL_NAME(sparse_split)
#define tn_k_sparse_bits          TN_LEVEL_NAME(sparse_bits)
#define tn_k_sparse_masks         TN_LEVEL_NAME(sparse_masks)
#define tn_k_sparse_keys          TN_LEVEL_NAME(sparse_keys)
#define tn_k_sparse_dw            TN_LEVEL_NAME(sparse_dw)
#define tn_k_sparse_dx            TN_LEVEL_NAME(sparse_dx)
#define tn_k_sparse_dx_pool       TN_LEVEL_NAME(sparse_dx_pool)
#define tn_k_planes_dw            TN_LEVEL_NAME(planes_dw)
#define tn_k_dropout              TN_LEVEL_NAME(dropout)
#define tn_k_gemm_panel           TN_LEVEL_NAME(gemm_panel)
#define tn_k_sparse_panel         TN_LEVEL_NAME(sparse_panel)
#define tn_k_all_finite           TN_LEVEL_NAME(all_finite)
#define tn_k_channels_dw          TN_LEVEL_NAME(channels_dw)
#define tn_k_planes_gradient      TN_LEVEL_NAME(planes_gradient)
#define tn_k_peak                 TN_LEVEL_NAME(peak)
#define tn_k_stream               TN_LEVEL_NAME(stream)
#define tn_k_winograd_weights     TN_LEVEL_NAME(winograd_weights)
#define tn_k_transpose            TN_LEVEL_NAME(transpose)
#define tn_k_winograd_input       TN_LEVEL_NAME(winograd_input)
#define tn_k_winograd_products    TN_LEVEL_NAME(winograd_products)
#define tn_k_winograd_output      TN_LEVEL_NAME(winograd_output)
#define tn_k_winograd_direct_tile TN_LEVEL_NAME(winograd_direct_tile)

#define tn_k_winograd_rows_weights TN_LEVEL_NAME(winograd_rows_weights)
#define tn_k_winograd_rows_input   TN_LEVEL_NAME(winograd_rows_input)
#define tn_k_winograd_rows_pool    TN_LEVEL_NAME(winograd_rows_pool)

#define tn_k_conv_pixels       TN_LEVEL_NAME(conv_pixels)
#define tn_k_conv_pixels_pool  TN_LEVEL_NAME(conv_pixels_pool)
#define tn_k_unzip             TN_LEVEL_NAME(unzip)
#define tn_k_conv_channels     TN_LEVEL_NAME(conv_channels)
#define tn_k_max_pool_plane    TN_LEVEL_NAME(max_pool_plane)
#define tn_k_max_pool_channels TN_LEVEL_NAME(max_pool_channels)
#define tn_k_copy_rows         TN_LEVEL_NAME(copy_rows)
#define tn_k_to_u8             TN_LEVEL_NAME(to_u8)
#define tn_k_gemm_turned       TN_LEVEL_NAME(gemm_turned)
#define tn_k_softmax_rows      TN_LEVEL_NAME(softmax_rows)

#define tn_k_panel_product  TN_LEVEL_NAME(panel_product)
#define tn_k_sparse_rows    TN_LEVEL_NAME(sparse_rows)
#define tn_k_sparse_turned  TN_LEVEL_NAME(sparse_turned)
#define tn_k_tanh_cell      TN_LEVEL_NAME(tanh_cell)
#define tn_k_tanh_cell_back TN_LEVEL_NAME(tanh_cell_back)
#define tn_k_relu_cell      TN_LEVEL_NAME(relu_cell)
#define tn_k_relu_cell_back TN_LEVEL_NAME(relu_cell_back)
#define tn_k_gru_cell       TN_LEVEL_NAME(gru_cell)
#define tn_k_gru_cell_back  TN_LEVEL_NAME(gru_cell_back)
#define tn_k_lstm_cell      TN_LEVEL_NAME(lstm_cell)
#define tn_k_lstm_cell_back TN_LEVEL_NAME(lstm_cell_back)

void tn_k_pack_b(int k, int n, const tn_real *b, ptrdiff_t rs, ptrdiff_t cs, tn_real *out);
/* One panel: columns 0..cols-1 of b, cols <= NR, filled up with zeros. */
void tn_k_pack_panel(int k, int cols, const tn_real *b, ptrdiff_t rs, ptrdiff_t cs, tn_real *out);
void tn_k_gemm(int m, int n, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b,
               tn_real *c, ptrdiff_t ldc, int add, const tn_real *bias, int relu);
void tn_k_gemm_raw_b(int m, int n, int k, const tn_real *a, ptrdiff_t rs, ptrdiff_t cs, const tn_real *b,
                     ptrdiff_t brs, ptrdiff_t bcs, tn_real *c, ptrdiff_t ldc, int add, const tn_real *bias,
                     int relu);
void tn_k_sparse_panel(const tn_sparse_panel *);
void tn_k_gemm_panel(const tn_gemm_panel *);
void tn_k_gemm_turned(int m, int n, int k, const tn_real *a, ptrdiff_t rs, const tn_real *b, tn_real *c,
                      ptrdiff_t ldc, const tn_real *bias, int relu);
void tn_k_exp(size_t n, const tn_real *x, tn_real *y);
void tn_k_log(size_t n, const tn_real *x, tn_real *y);
void tn_k_tanh(size_t n, const tn_real *x, tn_real *y);
void tn_k_sigmoid(size_t n, const tn_real *x, tn_real *y);
void tn_k_softplus(size_t n, const tn_real *x, tn_real *y);
void tn_k_relu(size_t n, const tn_real *x, tn_real *y);
void tn_k_add(size_t n, const tn_real *a, const tn_real *b, tn_real *y);
void tn_k_mul(size_t n, const tn_real *a, const tn_real *b, tn_real *y);
void tn_k_accumulate(size_t n, const tn_real *x, tn_real *y);
void tn_k_relu_mask(size_t n, const tn_real *gy, const tn_real *y, tn_real *gx);
void tn_k_gather_u8(int n, size_t len, const unsigned char *x, const int *idx, tn_real scale, tn_real shift,
                    tn_real *out);
void tn_k_col_sum(int rows, int cols, const tn_real *x, ptrdiff_t ld, int add, tn_real *out);
double tn_k_sum(size_t n, const tn_real *x);
int tn_k_all_finite(size_t n, const tn_real *x);
double tn_k_sum_sq(size_t n, const tn_real *x);
void tn_k_row_lse(int rows, int classes, const tn_real *x, tn_real *lse);
void tn_k_softmax_rows(int rows, int classes, const tn_real *x, const tn_real *lse, const tn_real *scale,
                       tn_real *y);
void tn_k_sparse_split(const tn_sparse_split *, const tn_real *gy, const tn_real *y,
                       const unsigned char *winner);
void tn_k_sparse_bits(int planes, int n, const tn_real *v, ptrdiff_t ld, uint64_t *bits);
void tn_k_sparse_masks(int rows, int cols, const tn_real *x, ptrdiff_t ld, uint64_t *row_bits,
                       ptrdiff_t row_words, uint64_t *column_bits);
void tn_k_sparse_keys(int windows, int places, int channels, const tn_real *key, uint64_t *bits);
void tn_k_sparse_dw(int rows, int vectors, int lanes, const tn_sparse_lists *, const tn_real *x,
                    ptrdiff_t row, tn_real *sum, ptrdiff_t sum_row, ptrdiff_t sum_ld);
void tn_k_sparse_dx(const tn_sparse_block *, const tn_sparse_window *, int channels, const uint64_t *bits,
                    const tn_real *v, const tn_real *w, tn_real *image);
void tn_k_sparse_dx_pool(int kh, int run, const tn_sparse_window *, int channels, const uint64_t *bits,
                         const tn_real *v, const tn_real *w, tn_real *image);
void tn_k_planes_dw(int taps, const int *off, int blocks, const tn_real *g, const tn_real *x, tn_real *sum);
void tn_k_channels_dw(const tn_channels_dw *, const tn_real *x, const tn_real *y, const tn_real *gy,
                      tn_real *sum);
void tn_k_planes_gradient(int rows, int cols, const tn_real *gy, const tn_real *y, tn_real *out,
                          ptrdiff_t pitch);
void tn_k_dropout(size_t n, uint64_t state, uint32_t limit, tn_real keep, const tn_real *x, tn_real *y);
double tn_k_peak(long rounds, tn_real *sink);
void tn_k_stream(size_t n, int arrays, tn_real *const a[], const tn_real *g, tn_real zero);
void tn_k_transpose(int rows, int cols, const tn_real *src, ptrdiff_t ld_src, tn_real *dst, ptrdiff_t ld_dst);
void tn_k_conv_pixels(int k, const int *off, int oh, int ow, const tn_real *x, ptrdiff_t row, int co,
                      const tn_real *w, ptrdiff_t ldw, const tn_real *bias, int relu, tn_real *out,
                      ptrdiff_t pitch, ptrdiff_t plane);
void tn_k_conv_pixels_pool(int k, const int *terms, const int *even, const int *odd, int oh, int ow,
                           const tn_real *x, ptrdiff_t row, int co, const tn_real *w, const tn_real *bias,
                           int relu, tn_real *y, unsigned char *winner);
void tn_k_unzip(size_t n, const tn_real *x, tn_real *even, tn_real *odd);
void tn_k_conv_channels(int k, const int *off, int run, int oh, int ow, const tn_real *x, ptrdiff_t row,
                        int vectors, const tn_real *w, const tn_real *bias, int relu, tn_real *out,
                        ptrdiff_t ld);
void tn_k_max_pool_plane(int oh, int ow, int kh, int kw, const tn_real *x, ptrdiff_t row, tn_real *y,
                         unsigned char *winner, size_t room);
void tn_k_max_pool_channels(int oh, int ow, int kh, int kw, int channels, const tn_real *x, ptrdiff_t row,
                            ptrdiff_t ld, tn_real *y, tn_real *place);
void tn_k_copy_rows(int rows, int cols, const tn_real *src, ptrdiff_t ld_src, tn_real *dst, ptrdiff_t ld_dst);
void tn_k_to_u8(size_t n, const tn_real *x, unsigned char *out);
void tn_k_winograd_weights(int co, int ci, int c0, int c1, const tn_real *w, tn_real *u);
void tn_k_winograd_input(int ci, int tiles, const tn_real *x, ptrdiff_t pitch, tn_real *v);
void tn_k_winograd_products(int ci, int tiles, int panels, const tn_real *v, const tn_real *u, tn_real *m,
                            ptrdiff_t step);
int tn_k_winograd_output(const tn_winograd_put *to, const tn_real *m, ptrdiff_t step);
void tn_k_winograd_direct_tile(const tn_winograd_put *to, int ci, const tn_real *w, const tn_real *x,
                               ptrdiff_t pitch);
void tn_k_winograd_rows_weights(int ci, int lanes, const tn_real *w, tn_real *u);
void tn_k_winograd_rows_input(int ci, int cols, const tn_real *x, const tn_real *end, ptrdiff_t row,
                              ptrdiff_t plane, tn_real *t, ptrdiff_t pitch, ptrdiff_t step);
int tn_k_winograd_rows_pool(int windows, int channels, const tn_real *m, ptrdiff_t step, const tn_real *bias,
                            int relu, tn_real *y, tn_real *place);
void tn_k_panel_product(const tn_panel_product *);
void tn_k_sparse_rows(const tn_sparse_rows *);
void tn_k_sparse_turned(const tn_sparse_turned *);
tn_cell_fn tn_k_tanh_cell, tn_k_tanh_cell_back, tn_k_relu_cell, tn_k_relu_cell_back, tn_k_gru_cell,
    tn_k_gru_cell_back, tn_k_lstm_cell, tn_k_lstm_cell_back;
#endif

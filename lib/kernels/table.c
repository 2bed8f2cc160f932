/* SPDX-License-Identifier: MIT */
/*
 * The table of one vector level.
 */
#include "level.h"

#define TN_OPTIM(name) extern const tn_optim_def TN_LEVEL_NAME(optim_##name);
#include "optims.def"
#include "wrappers.def"
#undef TN_OPTIM

/* NULL ends the list. */
static const tn_optim_def *const optims[] = {
#define TN_OPTIM(name) &TN_LEVEL_NAME(optim_##name),
#include "optims.def"
#undef TN_OPTIM
    NULL};
static const tn_optim_def *const wrappers[] = {
#define TN_OPTIM(name) &TN_LEVEL_NAME(optim_##name),
#include "wrappers.def"
#undef TN_OPTIM
    NULL};

extern const tn_kernels_t TN_LEVEL_NAME(table);

const tn_kernels_t TN_LEVEL_NAME(table) = {
    .name = TN_LEVEL_TEXT,
    .width = VL,
    .mr = MR,
    .nr = NR,
    .pack_b = tn_k_pack_b,
    .gemm = tn_k_gemm,
    .gemm_raw_b = tn_k_gemm_raw_b,
    .gemm_panel = tn_k_gemm_panel,
    .gemm_turned = tn_k_gemm_turned,
    .sparse_width = TN_SPARSE_WIDTH,
    .sparse_wide = TN_SPARSE_WIDE,
    .sparse_panel = tn_k_sparse_panel,
    .all_finite = tn_k_all_finite,
    .unary = {[TN_EXP] = tn_k_exp,
              [TN_LOG] = tn_k_log,
              [TN_TANH] = tn_k_tanh,
              [TN_SIGMOID] = tn_k_sigmoid,
              [TN_RELU] = tn_k_relu,
              [TN_SOFTPLUS] = tn_k_softplus},
    .add = tn_k_add,
    .mul = tn_k_mul,
    .accumulate = tn_k_accumulate,
    .relu_mask = tn_k_relu_mask,
    .col_sum = tn_k_col_sum,
    .sum = tn_k_sum,
    .sum_sq = tn_k_sum_sq,
    .row_lse = tn_k_row_lse,
    .softmax_rows = tn_k_softmax_rows,
    .gather_u8 = tn_k_gather_u8,
    .optims = optims,
    .wrappers = wrappers,
    .sparse_split = tn_k_sparse_split,
    .sparse_bits = tn_k_sparse_bits,
    .sparse_masks = tn_k_sparse_masks,
    .sparse_keys = tn_k_sparse_keys,
    .sparse_dw = tn_k_sparse_dw,
    .sparse_dx = tn_k_sparse_dx,
    .sparse_dx_pool = tn_k_sparse_dx_pool,
    .planes_dw = tn_k_planes_dw,
    .channels_dw = tn_k_channels_dw,
    .dropout = tn_k_dropout,
    .planes_gradient = tn_k_planes_gradient,
    .peak = tn_k_peak,
    .stream = tn_k_stream,
    .transpose = tn_k_transpose,
    .conv_pixels = tn_k_conv_pixels,
    .conv_pixels_pool = tn_k_conv_pixels_pool,
    .unzip = tn_k_unzip,
    .conv_channels = tn_k_conv_channels,
    .max_pool_plane = tn_k_max_pool_plane,
    .max_pool_channels = tn_k_max_pool_channels,
    .copy_rows = tn_k_copy_rows,
    .to_u8 = tn_k_to_u8,
    .winograd_weights = tn_k_winograd_weights,
    .winograd_input = tn_k_winograd_input,
    .winograd_products = tn_k_winograd_products,
    .winograd_output = tn_k_winograd_output,
    .winograd_direct_tile = tn_k_winograd_direct_tile,
    .winograd_rows_weights = tn_k_winograd_rows_weights,
    .winograd_rows_input = tn_k_winograd_rows_input,
    .winograd_rows_pool = tn_k_winograd_rows_pool,
    .panel = TN_PANEL,
    .panel_product = tn_k_panel_product,
    .sparse_rows = tn_k_sparse_rows,
    .sparse_turned = tn_k_sparse_turned,
    .cell = {tn_k_tanh_cell, tn_k_relu_cell, tn_k_gru_cell, tn_k_lstm_cell},
    .cell_back = {tn_k_tanh_cell_back, tn_k_relu_cell_back, tn_k_gru_cell_back, tn_k_lstm_cell_back},
    .cell_kept = {[TN_GRU] = 4, [TN_LSTM] = 5},
};

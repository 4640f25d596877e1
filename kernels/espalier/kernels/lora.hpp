// SPDX-License-Identifier: Apache-2.0
// The low-rank update of one linear layer per expert (LoRA, Hu et al. 2021, arXiv:2106.09685) over
// rows in expert order: y += c s b_gᵀ with s = x a_gᵀ, and its gradients. Sizes are on the device:
// group g has the rows offsets[g] .. offsets[g + 1] - 1, and may have none; rows past offsets[G]
// are not touched.
//   x, dx [R, K]   y, dy [R, N]   s, ds [R, r], all of T   a_g, da_g [r, K]   b_g, db_g [N, r], f32
// The factors a, b and their gradients are arrays of G pointers in device memory. Factors are
// rounded to T as they are read. Sums are in f32 in an order that depends on the row, or for da and
// db on the rows of the group, alone: tiles of 512 columns, chunks of rows, both added up in order;
// rounded once to T. No atomics. Factors of a group without rows are not read; its gradients are 0.
// x, y, dy and dx move once per product; tensor cores where T has 2 bytes, r is a multiple of 8 up
// to 64, K or N a multiple of 8 and the matrices are aligned to 16 bytes (then so must be the
// factors in device memory); any size, type and alignment where not. With more than 16, 32 ranks
// the tensor-core implementation takes 112, 160 KB of shared memory a block; a device without
// (sm_86, sm_89) takes the plain one.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

// --- floors: bytes that must move, with 2-byte or 4-byte elements
// ---------------------------------
constexpr double lora_factor_bytes(int groups, std::int64_t width, int rank) {
  return 4.0 * groups * double(width) * rank;
}
/// One of x, y, dy, dx read or written (both: count it twice) beside its [R, r].
constexpr double lora_rows_bytes(std::int64_t rows, std::int64_t width, int rank,
                                 int element_bytes) {
  return double(rows) * (double(width) + rank) * element_bytes;
}
constexpr double lora_down_bytes(std::int64_t rows, std::int64_t k, int groups, int rank,
                                 int element_bytes) {
  return lora_rows_bytes(rows, k, rank, element_bytes) + lora_factor_bytes(groups, k, rank);
}
/// Of lora_backward_input too.
constexpr double lora_up_bytes(std::int64_t rows, std::int64_t n, int groups, int rank, bool add,
                               int element_bytes) {
  return lora_rows_bytes(rows, add ? 2 * n : n, rank, element_bytes) +
         lora_factor_bytes(groups, n, rank);
}
/// dy, s and b read, ds and db written.
constexpr double lora_backward_up_bytes(std::int64_t rows, std::int64_t n, int groups, int rank,
                                        int element_bytes) {
  return lora_rows_bytes(rows, n, 2 * rank, element_bytes) + 2 * lora_factor_bytes(groups, n, rank);
}
/// x and ds read, da written.
constexpr double lora_backward_down_bytes(std::int64_t rows, std::int64_t k, int groups, int rank,
                                          int element_bytes) {
  return lora_down_bytes(rows, k, groups, rank, element_bytes);
}
/// Of each product with a factor; the pass over dy has two.
constexpr double lora_product_flops(std::int64_t rows, std::int64_t width, int rank) {
  return 2.0 * double(rows) * double(width) * rank;
}

// --- workspace -----------------------------------------------------------------------------------
inline constexpr int kLoraColumns = 512;  // a block's tile of columns

/// Rows of a group that one block adds up. By the width alone: narrow matrices give few tiles of
/// columns, so their rows are shared out among more blocks.
constexpr int lora_chunk_rows(std::int64_t width) {
  return width <= 2048 ? 128 : width <= 8192 ? 512 : 2048;
}
/// [tiles of columns, R, r] in f32.
constexpr std::size_t lora_row_sums_bytes(std::int64_t rows, std::int64_t width, int rank) {
  return static_cast<std::size_t>((width + kLoraColumns - 1) / kLoraColumns * rows * rank) * 4;
}
/// A factor's gradient per chunk, of groups that have several. Such a group of m rows has at most
/// 2 (m / chunk) chunks; they begin at 2 (its first row / chunk), behind those of groups before.
constexpr std::size_t lora_chunk_sums_bytes(std::int64_t rows, std::int64_t width, int rank) {
  return static_cast<std::size_t>(2 * (rows / lora_chunk_rows(width)) * width * rank) * 4;
}
constexpr std::size_t lora_down_workspace_bytes(std::int64_t rows, std::int64_t k, int rank) {
  return lora_row_sums_bytes(rows, k, rank);
}
constexpr std::size_t lora_backward_up_workspace_bytes(std::int64_t rows, std::int64_t n,
                                                       int rank) {
  return lora_row_sums_bytes(rows, n, rank) + lora_chunk_sums_bytes(rows, n, rank);
}
constexpr std::size_t lora_backward_down_workspace_bytes(std::int64_t rows, std::int64_t k,
                                                         int rank) {
  return lora_chunk_sums_bytes(rows, k, rank);
}

// --- products; `rows` is R, the most that offsets[G] can be --------------------------------------
/// s = x aᵀ.
template <class T>
cudaError_t lora_down(T* s, const T* x, const float* const* a, const std::int32_t* offsets,
                      int groups, std::int64_t rows, std::int64_t k, int rank, void* workspace,
                      cudaStream_t stream);

/// y = scale · s bᵀ, or y += that with `add`. A matrix product with beta = 1 behind it costs less
/// than adding to what one left, for it adds while it computes.
template <class T>
cudaError_t lora_up(T* y, const T* s, const float* const* b, const std::int32_t* offsets,
                    int groups, std::int64_t rows, std::int64_t n, int rank, float scale, bool add,
                    cudaStream_t stream);

/// ds = scale · dy b and db = scale · dyᵀ s, from one read of dy.
template <class T>
cudaError_t lora_backward_up(T* ds, float* const* db, const T* dy, const T* s,
                             const float* const* b, const std::int32_t* offsets, int groups,
                             std::int64_t rows, std::int64_t n, int rank, float scale,
                             void* workspace, cudaStream_t stream);

/// da = dsᵀ x.
template <class T>
cudaError_t lora_backward_down(float* const* da, const T* ds, const T* x,
                               const std::int32_t* offsets, int groups, std::int64_t rows,
                               std::int64_t k, int rank, void* workspace, cudaStream_t stream);

/// dx = ds a, or dx += that with `add`.
template <class T>
cudaError_t lora_backward_input(T* dx, const T* ds, const float* const* a,
                                const std::int32_t* offsets, int groups, std::int64_t rows,
                                std::int64_t k, int rank, bool add, cudaStream_t stream);

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// y = x + b per row, for one bias or for one per group of rows, and the gradients of the biases.
//   x, y, dy [R, H]   b_g [H]   group g = rows offsets[g] .. offsets[g + 1] - 1, maybe none
// Rows past offsets[G] are not touched. y is computed in f32 and rounded once; the sums of columns
// are f32 in a fixed order. No atomics.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

constexpr double add_bias_bytes(std::int64_t n, std::int64_t h, int element_bytes) {
  return 2.0 * double(n) * double(h) * element_bytes;
}
constexpr double bias_backward_bytes(std::int64_t n, std::int64_t h, int element_bytes) {
  return double(n) * double(h) * element_bytes;
}

/// y may be x. B is T or float; beside T = float any type.
template <class T, class B>
cudaError_t add_bias(T* y, const T* x, const B* bias, std::int64_t n, std::int64_t h,
                     cudaStream_t stream);

/// `biases` is an array of G pointers in device memory; those of groups without rows are not
/// followed. n is R, the most that offsets[G] can be.
template <class T, class B>
cudaError_t add_bias_grouped(T* y, const T* x, const B* const* biases, const std::int32_t* offsets,
                             int groups, std::int64_t n, std::int64_t h, cudaStream_t stream);

/// Chunks of rows that each group is summed in.
constexpr std::int64_t bias_chunks(std::int64_t n, int groups) {
  const std::int64_t chunks = (n + std::int64_t{64} * groups - 1) / (std::int64_t{64} * groups);
  return chunks < 1 ? 1 : chunks < 64 ? chunks : 64;
}
constexpr std::size_t bias_workspace_bytes(std::int64_t n, int groups, std::int64_t h) {
  const std::int64_t chunks = bias_chunks(n, groups);
  return chunks == 1 ? 0 : static_cast<std::size_t>(chunks * groups * h) * 4;
}

/// db [G, H] = sums of the rows of dy in each group, chunk by chunk in order; zeros where a group
/// has none. Without offsets (null) the one group has all n rows.
template <class T>
cudaError_t bias_backward(float* db, const T* dy, const std::int32_t* offsets, int groups,
                          std::int64_t n, std::int64_t h, void* workspace, cudaStream_t stream);

}  // namespace espalier::kernels

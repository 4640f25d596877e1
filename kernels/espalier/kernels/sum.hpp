// SPDX-License-Identifier: Apache-2.0
// y [1] = Σ x_i, and its gradient: the same value for every element. Summed in f64 in a fixed
// order; no atomics.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

constexpr double sum_bytes(std::int64_t n, int element_bytes) {
  return double(n) * element_bytes;
}

/// Blocks that share one array; each leaves a partial sum in f64.
constexpr std::int64_t sum_blocks(std::int64_t n) {
  return n < (std::int64_t{1} << 22) ? (n + 4095) / 4096 : 1024;
}
constexpr std::size_t sum_workspace_bytes(std::int64_t n) {
  return static_cast<std::size_t>(sum_blocks(n)) * 8;
}

/// total [1] = Σ x_i, rounded to f32 once.
template <class T>
cudaError_t sum(float* total, const T* x, std::int64_t n, void* workspace, cudaStream_t stream);

/// dx_i = dsum[0], rounded to T.
template <class T>
cudaError_t sum_backward(T* dx, const float* dsum, std::int64_t n, cudaStream_t stream);

}  // namespace espalier::kernels

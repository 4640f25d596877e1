// SPDX-License-Identifier: Apache-2.0
// 2-norms of rows, and sums of squares of whole arrays (their root is the Frobenius norm); of one
// array, or of the difference of two that may differ in type: how far training has moved a weight.
// Squares are summed in f64 in a fixed order; no atomics.
#pragma once

#include <espalier/kernels/sum.hpp>

namespace espalier::kernels {

constexpr double norms_bytes(std::int64_t n, int element_bytes) {
  return double(n) * element_bytes;
}
constexpr double norms_flops(std::int64_t n) {
  return 2.0 * double(n);
}

/// norms[i] = |x_i| for the rows of x [N, H]; with b: |x_i - b_i|.
template <class T>
cudaError_t row_norms(float* norms, const T* x, std::int64_t n, std::int64_t h,
                      cudaStream_t stream);
template <class T, class U>
cudaError_t row_norms_of_difference(float* norms, const T* x, const U* b, std::int64_t n,
                                    std::int64_t h, cudaStream_t stream);

/// Blocks that share one array, and the f64 partial sums they leave.
constexpr std::int64_t sum_of_squares_blocks(std::int64_t n) {
  return sum_blocks(n);
}
constexpr std::size_t sum_of_squares_workspace_bytes(std::int64_t n) {
  return sum_workspace_bytes(n);
}

/// sum [1] = Σ x²; with b: Σ (x - b)².
template <class T>
cudaError_t sum_of_squares(double* sum, const T* x, std::int64_t n, void* workspace,
                           cudaStream_t stream);
template <class T, class U>
cudaError_t sum_of_squared_differences(double* sum, const T* x, const U* b, std::int64_t n,
                                       void* workspace, cudaStream_t stream);

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// Rows: a block each. Whole arrays: the sums of sum.cuh.
#pragma once

#include <espalier/kernels/norms.hpp>
#include <espalier/kernels/sum.cuh>

namespace espalier::kernels {

/// The square of an element.
template <class T>
struct Square {
  const T* x;
  __device__ double operator()(std::int64_t i) const {
    const double v = to_float(x[i]);
    return v * v;
  }
};
/// The square of a difference; f64, so that the difference of two near numbers loses nothing.
template <class T, class U>
struct SquaredDifference {
  const T* x;
  const U* b;
  __device__ double operator()(std::int64_t i) const {
    const double v = double(to_float(x[i])) - double(to_float(b[i]));
    return v * v;
  }
};

template <class Term>
__global__ void __launch_bounds__(kSumThreads)
    row_norms_kernel(float* norms, Term term, std::int64_t h) {
  const std::int64_t row = blockIdx.x;
  const double sum = sum_by_block(term, row * h, row * h + h);
  if (threadIdx.x == 0) norms[row] = static_cast<float>(sqrt(sum));
}

template <class Term>
cudaError_t row_norms_of(float* norms, Term term, std::int64_t n, std::int64_t h,
                         cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return ESP_LAUNCH(row_norms_kernel<Term>, static_cast<unsigned>(n), kSumThreads, 0, stream, norms,
                    term, h);
}

template <class T>
cudaError_t row_norms(float* norms, const T* x, std::int64_t n, std::int64_t h,
                      cudaStream_t stream) {
  return row_norms_of(norms, Square<T>{x}, n, h, stream);
}
template <class T, class U>
cudaError_t row_norms_of_difference(float* norms, const T* x, const U* b, std::int64_t n,
                                    std::int64_t h, cudaStream_t stream) {
  return row_norms_of(norms, SquaredDifference<T, U>{x, b}, n, h, stream);
}
template <class T>
cudaError_t sum_of_squares(double* sum, const T* x, std::int64_t n, void* workspace,
                           cudaStream_t stream) {
  return sum_of_terms(sum, Square<T>{x}, n, 1.0, workspace, stream);
}
template <class T, class U>
cudaError_t sum_of_squared_differences(double* sum, const T* x, const U* b, std::int64_t n,
                                       void* workspace, cudaStream_t stream) {
  return sum_of_terms(sum, SquaredDifference<T, U>{x, b}, n, 1.0, workspace, stream);
}

}  // namespace espalier::kernels

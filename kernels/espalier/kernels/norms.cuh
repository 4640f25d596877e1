// SPDX-License-Identifier: Apache-2.0
// Rows: a block each. Whole arrays: a block per contiguous part, then one block over the parts. A
// thread adds its elements in order, a block its threads in a fixed tree.
#pragma once

#include <espalier/kernels/device.cuh>
#include <espalier/kernels/norms.hpp>

namespace espalier::kernels {

inline constexpr int kSumThreads = 256;

/// The element itself.
template <class T>
struct Value {
  const T* x;
  __device__ double operator()(std::int64_t i) const { return to_float(x[i]); }
};
/// f64, so that the difference of two near numbers keeps what they have.
template <class T, class U>
struct Difference {
  const T* x;
  const U* b;
  __device__ double operator()(std::int64_t i) const {
    return double(to_float(x[i])) - double(to_float(b[i]));
  }
};

/// Σ v(i)² over [begin, end), the same bits in each thread of the block.
template <class V>
__device__ double squares_of_block(V v, std::int64_t begin, std::int64_t end) {
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum += v(i) * v(i);
  return block_sum(sum);
}

template <class V>
__global__ void __launch_bounds__(kSumThreads) row_norms_kernel(float* norms, V v, std::int64_t h) {
  const std::int64_t row = blockIdx.x;
  const double sum = squares_of_block(v, row * h, row * h + h);
  if (threadIdx.x == 0) norms[row] = static_cast<float>(sqrt(sum));
}

template <class V>
__global__ void __launch_bounds__(kSumThreads)
    squares_of_parts_kernel(double* parts, V v, std::int64_t n) {
  const std::int64_t part = ceil_div<std::int64_t>(n, gridDim.x), begin = blockIdx.x * part;
  const double sum = squares_of_block(v, begin, begin + part < n ? begin + part : n);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

static __global__ void __launch_bounds__(kSumThreads)
    sum_of_parts_kernel(double* sum, const double* parts, int count) {
  double total = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) total += parts[i];
  total = block_sum(total);
  if (threadIdx.x == 0) *sum = total;
}

template <class V>
cudaError_t sum_of_squares_of(double* sum, V v, std::int64_t n, void* workspace,
                              cudaStream_t stream) {
  auto* parts = static_cast<double*>(workspace);
  const auto blocks = static_cast<unsigned>(sum_of_squares_blocks(n));
  if (blocks > 0) {
    const cudaError_t error =
        ESP_LAUNCH(squares_of_parts_kernel<V>, blocks, kSumThreads, 0, stream, parts, v, n);
    if (error != cudaSuccess) return error;
  }
  return ESP_LAUNCH(sum_of_parts_kernel, 1, kSumThreads, 0, stream, sum, parts,
                    static_cast<int>(blocks));
}

template <class V>
cudaError_t row_norms_of(float* norms, V v, std::int64_t n, std::int64_t h, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  return ESP_LAUNCH(row_norms_kernel<V>, static_cast<unsigned>(n), kSumThreads, 0, stream, norms, v,
                    h);
}

template <class T>
cudaError_t row_norms(float* norms, const T* x, std::int64_t n, std::int64_t h,
                      cudaStream_t stream) {
  return row_norms_of(norms, Value<T>{x}, n, h, stream);
}
template <class T, class U>
cudaError_t row_norms_of_difference(float* norms, const T* x, const U* b, std::int64_t n,
                                    std::int64_t h, cudaStream_t stream) {
  return row_norms_of(norms, Difference<T, U>{x, b}, n, h, stream);
}
template <class T>
cudaError_t sum_of_squares(double* sum, const T* x, std::int64_t n, void* workspace,
                           cudaStream_t stream) {
  return sum_of_squares_of(sum, Value<T>{x}, n, workspace, stream);
}
template <class T, class U>
cudaError_t sum_of_squared_differences(double* sum, const T* x, const U* b, std::int64_t n,
                                       void* workspace, cudaStream_t stream) {
  return sum_of_squares_of(sum, Difference<T, U>{x, b}, n, workspace, stream);
}

}  // namespace espalier::kernels

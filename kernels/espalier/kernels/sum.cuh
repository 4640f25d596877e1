// SPDX-License-Identifier: Apache-2.0
// Sums over whole arrays of terms that a functor computes: a block per contiguous part, then one
// block over the parts. A thread adds its terms in order, a block its threads in a fixed tree.
#pragma once

#include <espalier/kernels/map.cuh>
#include <espalier/kernels/sum.hpp>

namespace espalier::kernels {

inline constexpr int kSumThreads = 256;

/// Σ term(i) over [begin, end), the same bits in each thread of the block.
template <class Term>
__device__ double sum_by_block(Term term, std::int64_t begin, std::int64_t end) {
  double sum = 0;
  for (std::int64_t i = begin + threadIdx.x; i < end; i += blockDim.x) sum += term(i);
  return block_sum(sum);
}

template <class Term>
__global__ void __launch_bounds__(kSumThreads)
    sum_parts_kernel(double* parts, Term term, std::int64_t n) {
  const std::int64_t part = ceil_div<std::int64_t>(n, gridDim.x), begin = blockIdx.x * part;
  const double sum = sum_by_block(term, begin, begin + part < n ? begin + part : n);
  if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

template <class Y>
__global__ void __launch_bounds__(kSumThreads)
    sum_of_parts_kernel(Y* sum, const double* parts, int count, double factor) {
  double total = 0;
  for (int i = threadIdx.x; i < count; i += blockDim.x) total += parts[i];
  total = block_sum(total);
  if (threadIdx.x == 0) *sum = static_cast<Y>(factor * total);
}

/// sum [1] = factor · Σ term(i) over [0, n). The workspace has sum_workspace_bytes(n).
template <class Y, class Term>
cudaError_t sum_of_terms(Y* sum, Term term, std::int64_t n, double factor, void* workspace,
                         cudaStream_t stream) {
  auto* parts = static_cast<double*>(workspace);
  const auto blocks = static_cast<unsigned>(sum_blocks(n));
  if (blocks > 0) {
    const cudaError_t error =
        ESP_LAUNCH(sum_parts_kernel<Term>, blocks, kSumThreads, 0, stream, parts, term, n);
    if (error != cudaSuccess) return error;
  }
  return ESP_LAUNCH(sum_of_parts_kernel<Y>, 1, kSumThreads, 0, stream, sum, parts,
                    static_cast<int>(blocks), factor);
}

/// The element itself.
template <class T>
struct Value {
  const T* x;
  __device__ double operator()(std::int64_t i) const { return to_float(x[i]); }
};

/// One value of device memory for every element.
struct Broadcast {
  const float* value;
  __device__ float operator()() const { return *value; }
};

template <class T>
cudaError_t sum(float* total, const T* x, std::int64_t n, void* workspace, cudaStream_t stream) {
  return sum_of_terms(total, Value<T>{x}, n, 1.0, workspace, stream);
}
template <class T>
cudaError_t sum_backward(T* dx, const float* dsum, std::int64_t n, cudaStream_t stream) {
  return map(Broadcast{dsum}, n, stream, dx);
}

}  // namespace espalier::kernels

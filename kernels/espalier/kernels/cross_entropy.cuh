// SPDX-License-Identifier: Apache-2.0
// A block per row: the largest logit, then the sum of exponentials, each a strided pass (the second
// and third reading of a row hit the L2 cache) and a tree over the block in a fixed order.
#pragma once

#include <espalier/kernels/cross_entropy.hpp>
#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

inline constexpr int kLogitThreads = 512;

struct Largest {
  float value;
  std::int64_t index;
};

/// The larger of two; of equals, and of NaNs, the one further left. NaN counts as largest.
__device__ __forceinline__ Largest larger(Largest a, Largest b) {
  const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
  if (a_nan || b_nan) {
    if (a_nan && b_nan) return a.index < b.index ? a : b;
    return a_nan ? a : b;
  }
  if (a.value == b.value) return a.index < b.index ? a : b;
  return a.value > b.value ? a : b;
}

/// The largest of a block's values, the same in each thread.
__device__ __forceinline__ Largest block_largest(Largest own) {
  ESP_SHARED(Largest[kWarp], of_warp);
  const int warp = threadIdx.x / kWarp, warps = blockDim.x / kWarp;
#pragma unroll
  for (int lanes = kWarp / 2; lanes > 0; lanes /= 2) {
    const float value = __shfl_xor_sync(kAllLanes, own.value, lanes);
    const std::int64_t index = __shfl_xor_sync(kAllLanes, own.index, lanes);
    own = larger(own, Largest{value, index});
  }
  __syncthreads();
  if (threadIdx.x % kWarp == 0) of_warp[warp] = own;
  __syncthreads();
  own = of_warp[0];
  for (int w = 1; w < warps; ++w) own = larger(own, of_warp[w]);
  return own;
}

template <class Index>
__global__ void __launch_bounds__(kLogitThreads)
    cross_entropy_forward_kernel(float* log_prob, float* shift, Index* argmax, const float* logits,
                                 const Index* targets, std::int64_t v) {
  const std::int64_t row = blockIdx.x;
  logits += row * v;
  const Index target = targets[row];
  Largest own{-INFINITY, v};
  for (std::int64_t c = threadIdx.x; c < v; c += blockDim.x) {
    own = larger(own, Largest{logits[c], c});
  }
  const Largest top = block_largest(own);
  float sum = 0;
  for (std::int64_t c = threadIdx.x; c < v; c += blockDim.x) sum += expf(logits[c] - top.value);
  const float log_sum = logf(block_sum(sum));
  if (threadIdx.x != 0) return;
  shift[row] = top.value + log_sum;
  // Relative to the largest first: both terms are small where the row is sure of itself.
  log_prob[row] = target < 0 ? 0.0f : (logits[target] - top.value) - log_sum;
  if (argmax != nullptr) argmax[row] = target < 0 ? Index(-1) : static_cast<Index>(top.index);
}

template <class T, class Index>
__global__ void __launch_bounds__(kLogitThreads)
    cross_entropy_backward_kernel(T* dlogits, const float* logits, const float* shift,
                                  const Index* targets, const float* scale, std::int64_t v) {
  const std::int64_t row = blockIdx.x;
  const std::int64_t target = targets[row];
  const float factor = target < 0 ? 0.0f : *scale, by = shift[row];
  for (std::int64_t c = threadIdx.x; c < v; c += blockDim.x) {
    const float x = logits[row * v + c] - by;
    // At the target p - 1, without a difference that would cancel.
    const float d = c == target ? expm1f(x) : expf(x);
    dlogits[row * v + c] = from_float<T>(target < 0 ? 0.0f : factor * d);
  }
}

template <class T>
__global__ void __launch_bounds__(kLogitThreads)
    add_sum_kernel(T* sum, const T* x, float factor, std::int64_t n) {
  double total = 0;
  for (std::int64_t i = threadIdx.x; i < n; i += blockDim.x) total += double(x[i]);
  total = block_sum(total);
  if (threadIdx.x == 0) *sum = static_cast<T>(double(*sum) + double(factor) * total);
}

template <class Index>
cudaError_t cross_entropy_forward(float* log_prob, float* shift, Index* argmax, const float* logits,
                                  const Index* targets, std::int64_t n, std::int64_t v,
                                  cudaStream_t stream) {
  if (n == 0 || v == 0) return cudaSuccess;
  return ESP_LAUNCH(cross_entropy_forward_kernel<Index>, static_cast<unsigned>(n), kLogitThreads, 0,
                    stream, log_prob, shift, argmax, logits, targets, v);
}

template <class T, class Index>
cudaError_t cross_entropy_backward(T* dlogits, const float* logits, const float* shift,
                                   const Index* targets, const float* scale, std::int64_t n,
                                   std::int64_t v, cudaStream_t stream) {
  if (n == 0 || v == 0) return cudaSuccess;
  return ESP_LAUNCH((cross_entropy_backward_kernel<T, Index>), static_cast<unsigned>(n),
                    kLogitThreads, 0, stream, dlogits, logits, shift, targets, scale, v);
}

template <class T>
cudaError_t add_sum(T* sum, const T* x, float factor, std::int64_t n, cudaStream_t stream) {
  return ESP_LAUNCH(add_sum_kernel<T>, 1, kLogitThreads, 0, stream, sum, x, factor, n);
}

}  // namespace espalier::kernels

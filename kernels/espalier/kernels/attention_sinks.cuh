// SPDX-License-Identifier: Apache-2.0
// Forward: a warp per row and head, 16 bytes a lane where heads are aligned to that. Backward: a
// block per head, whose threads take every kSinkThreads-th row and join their sums in a fixed
// order.
#pragma once

#include <espalier/kernels/attention_sinks.hpp>
#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

inline constexpr int kSinkThreads = 256;

template <class T, int kWidth>
__global__ void __launch_bounds__(kSinkThreads)
    attention_sinks_kernel(T* y, float* log_sum, const float* sinks, AttentionSinkSizes s) {
  const int lane = threadIdx.x % kWarp;
  const std::int64_t at =
      (std::int64_t{blockIdx.x} * kSinkThreads + threadIdx.x) / kWarp;  // of a row and head
  if (at >= s.rows * s.heads) return;
  float kept = 0;
  if (lane == 0) {  // alone reads log_sum, which it overwrites
    const float keys = log_sum[at], sink = sinks[at % s.heads];
    kept = 1.0f / (1.0f + expf(sink - keys));
    log_sum[at] = sink <= keys ? keys + logf(1.0f + expf(sink - keys))
                               : sink + logf(1.0f + expf(keys - sink));
  }
  kept = __shfl_sync(kAllLanes, kept, 0);
  y += at * s.head_dim;
  for (std::int64_t c = std::int64_t{lane} * kWidth; c < s.head_dim; c += kWarp * kWidth) {
    auto v = load<T, kWidth>(y + c);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) v.v[i] = from_float<T>(to_float(v.v[i]) * kept);
    store(y + c, v);
  }
}

template <class S>
__global__ void __launch_bounds__(kSinkThreads)
    attention_sinks_backward_kernel(S* dsinks, const float* dot, const float* log_sum,
                                    const float* sinks, std::int64_t rows, std::int64_t heads) {
  const std::int64_t head = blockIdx.x;
  const float sink = sinks[head];
  float sum = 0;
  for (std::int64_t row = threadIdx.x; row < rows; row += kSinkThreads) {
    const std::int64_t at = row * heads + head;
    sum -= expf(sink - log_sum[at]) * dot[at];
  }
  sum = block_sum(sum);
  if (threadIdx.x == 0) dsinks[head] = from_float<S>(sum);
}

template <class T>
cudaError_t attention_sinks(T* y, float* log_sum, const float* sinks,
                            const AttentionSinkSizes& sizes, cudaStream_t stream) {
  if (sizes.rows == 0 || sizes.heads == 0) return cudaSuccess;
  const auto blocks =
      static_cast<unsigned>(ceil_div<std::int64_t>(sizes.rows * sizes.heads, kSinkThreads / kWarp));
  if (rows_are_aligned<T>(sizes.head_dim, y)) {
    return ESP_LAUNCH((attention_sinks_kernel<T, kPerVector<T>>), blocks, kSinkThreads, 0, stream,
                      y, log_sum, sinks, sizes);
  }
  return ESP_LAUNCH((attention_sinks_kernel<T, 1>), blocks, kSinkThreads, 0, stream, y, log_sum,
                    sinks, sizes);
}

template <class S>
cudaError_t attention_sinks_backward(S* dsinks, const float* dot, const float* log_sum,
                                     const float* sinks, std::int64_t rows, std::int64_t heads,
                                     cudaStream_t stream) {
  if (heads == 0) return cudaSuccess;
  return ESP_LAUNCH(attention_sinks_backward_kernel<S>, static_cast<unsigned>(heads), kSinkThreads,
                    0, stream, dsinks, dot, log_sum, sinks, rows, heads);
}

}  // namespace espalier::kernels

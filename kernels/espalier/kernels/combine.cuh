// SPDX-License-Identifier: Apache-2.0
// Forward: one warp per token gathers its K rows. Backward: one warp per slot, slots of a token
// side by side in a block, so that dy comes from memory once and then from the cache. 16 bytes a
// lane where rows are aligned to that, element by element where not. Deterministic: no atomics.
#pragma once

#include <espalier/kernels/combine.hpp>
#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

inline constexpr int kCombineWarps = 8;

template <class T, int kWidth>
__global__ void __launch_bounds__(kCombineWarps* kWarp)
    combine_forward_kernel(T* y, const T* rows, const float* weights,
                           const std::int32_t* row_of_slot, std::int64_t n, int k, std::int64_t h) {
  const std::int64_t token = std::int64_t{blockIdx.x} * kCombineWarps + threadIdx.x / kWarp;
  if (token >= n) return;
  y += token * h;
  weights += token * k;
  row_of_slot += token * k;
  for (std::int64_t c = threadIdx.x % kWarp * kWidth; c < h; c += kWarp * kWidth) {
    float sum[kWidth] = {};
    for (int j = 0; j < k; ++j) {
      const std::int64_t row = row_of_slot[j];
      if (row < 0) continue;
      const float weight = weights[j];
      const auto v = load<T, kWidth>(rows + row * h + c);
#pragma unroll
      for (int i = 0; i < kWidth; ++i) sum[i] += weight * to_float(v.v[i]);
    }
    Vector<T, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) out.v[i] = from_float<T>(sum[i]);
    store(y + c, out);
  }
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kCombineWarps* kWarp)
    combine_backward_kernel(T* drows, float* dweights, const T* dy, const T* rows,
                            const float* weights, const std::int32_t* row_of_slot,
                            std::int64_t slots, int k, std::int64_t h) {
  const std::int64_t slot = std::int64_t{blockIdx.x} * kCombineWarps + threadIdx.x / kWarp;
  if (slot >= slots) return;
  const int lane = threadIdx.x % kWarp;
  const std::int64_t row = row_of_slot[slot];
  float dot = 0.0f;
  if (row >= 0) {
    const float weight = weights[slot];
    dy += slot / k * h;
    rows += row * h;
    drows += row * h;
    for (std::int64_t c = lane * kWidth; c < h; c += kWarp * kWidth) {
      const auto up = load<T, kWidth>(dy + c);
      const auto in = load<T, kWidth>(rows + c);
      Vector<T, kWidth> out;
#pragma unroll
      for (int i = 0; i < kWidth; ++i) {
        dot += to_float(up.v[i]) * to_float(in.v[i]);
        out.v[i] = from_float<T>(weight * to_float(up.v[i]));
      }
      store(drows + c, out);
    }
  }
  dot = warp_sum(dot);
  if (lane == 0) dweights[slot] = dot;
}

template <class T>
cudaError_t combine_forward(T* y, const T* rows, const float* weights,
                            const std::int32_t* row_of_slot, std::int64_t n, int k, std::int64_t h,
                            cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(n, kCombineWarps));
  if (rows_are_aligned<T>(h, y, rows)) {
    return ESP_LAUNCH((combine_forward_kernel<T, kPerVector<T>>), blocks, kCombineWarps * kWarp, 0,
                      stream, y, rows, weights, row_of_slot, n, k, h);
  }
  return ESP_LAUNCH((combine_forward_kernel<T, 1>), blocks, kCombineWarps * kWarp, 0, stream, y,
                    rows, weights, row_of_slot, n, k, h);
}

template <class T>
cudaError_t combine_backward(T* drows, float* dweights, const T* dy, const T* rows,
                             const float* weights, const std::int32_t* row_of_slot, std::int64_t n,
                             int k, std::int64_t h, cudaStream_t stream) {
  const std::int64_t slots = n * k;
  if (slots == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(slots, kCombineWarps));
  if (rows_are_aligned<T>(h, drows, dy, rows)) {
    return ESP_LAUNCH((combine_backward_kernel<T, kPerVector<T>>), blocks, kCombineWarps * kWarp, 0,
                      stream, drows, dweights, dy, rows, weights, row_of_slot, slots, k, h);
  }
  return ESP_LAUNCH((combine_backward_kernel<T, 1>), blocks, kCombineWarps * kWarp, 0, stream,
                    drows, dweights, dy, rows, weights, row_of_slot, slots, k, h);
}

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// Forward: one warp per token gathers its K rows. Backward: one warp per slot, slots of a token
// side by side in a block, so that dy comes from memory once and then from the cache. 16 bytes a
// lane where rows are aligned to that, element by element where not. Deterministic: no atomics.
#pragma once

#include <espalier/kernels/combine.hpp>
#include <espalier/kernels/row_columns.cuh>

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
  for_columns_of_row<kWidth>(h, [&]<int kVectors>(std::int64_t c) {
    RowSums<T, kWidth, kVectors> sums;
    for (int j = 0; j < k; ++j) {
      const std::int64_t row = row_of_slot[j];
      if (row >= 0) sums.add(weights[j], rows + row * h + c);
    }
    sums.store_to(y + c);
  });
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kCombineWarps* kWarp)
    combine_backward_kernel(T* drows, float* dweights, const T* dy, const T* rows,
                            const float* weights, const std::int32_t* row_of_slot,
                            std::int64_t slots, int k, std::int64_t h) {
  const std::int64_t slot = std::int64_t{blockIdx.x} * kCombineWarps + threadIdx.x / kWarp;
  if (slot >= slots) return;
  const std::int64_t row = row_of_slot[slot];
  float dot = 0.0f;
  if (row >= 0) {
    const float weight = weights[slot];
    dy += slot / k * h;
    rows += row * h;
    drows += row * h;
    for_columns_of_row<kWidth>(h, [&]<int kVectors>(std::int64_t c) {
      Vector<T, kWidth> up[kVectors], in[kVectors];
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        up[v] = load<T, kWidth>(dy + column_of<kWidth>(c, v));
        in[v] = load<T, kWidth>(rows + column_of<kWidth>(c, v));
      }
#pragma unroll
      for (int v = 0; v < kVectors; ++v) {
        Vector<T, kWidth> out;
#pragma unroll
        for (int i = 0; i < kWidth; ++i) {
          dot += to_float(up[v].v[i]) * to_float(in[v].v[i]);
          out.v[i] = from_float<T>(weight * to_float(up[v].v[i]));
        }
        store(drows + column_of<kWidth>(c, v), out);
      }
    });
  }
  dot = warp_sum(dot);
  if (threadIdx.x % kWarp == 0) dweights[slot] = dot;
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

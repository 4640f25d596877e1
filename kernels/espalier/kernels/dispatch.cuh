// SPDX-License-Identifier: Apache-2.0
// One warp per token, kTokensPerBlock tokens in a block: the row is read once, 16 bytes a lane
// where rows are aligned to that and element by element where not, and written (or gathered) K
// times. Deterministic: no atomics; sums run over the slots of a token in order.
#pragma once

#include <espalier/kernels/dispatch.hpp>
#include <espalier/kernels/row_columns.cuh>

namespace espalier::kernels {

inline constexpr int kTokensPerBlock = 8;

/// The token of this warp, of a grid of one-dimensional blocks of kTokensPerBlock warps.
__device__ __forceinline__ std::int64_t token_of_warp() {
  return std::int64_t{blockIdx.x} * kTokensPerBlock + threadIdx.x / kWarp;
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kTokensPerBlock* kWarp)
    dispatch_forward_kernel(T* rows, const T* x, const std::int32_t* row_of_slot, std::int64_t n,
                            int k, std::int64_t h) {
  const std::int64_t token = token_of_warp();
  if (token >= n) return;
  x += token * h;
  row_of_slot += token * k;
  for_columns_of_row<kWidth>(h, [&]<int kVectors>(std::int64_t c) {
    Vector<T, kWidth> v[kVectors];
#pragma unroll
    for (int i = 0; i < kVectors; ++i) v[i] = load<T, kWidth>(x + column_of<kWidth>(c, i));
    for (int j = 0; j < k; ++j) {
      const std::int64_t row = row_of_slot[j];
      if (row < 0) continue;
#pragma unroll
      for (int i = 0; i < kVectors; ++i) store(rows + row * h + column_of<kWidth>(c, i), v[i]);
    }
  });
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kTokensPerBlock* kWarp)
    dispatch_backward_kernel(T* dx, const T* drows, const std::int32_t* row_of_slot, std::int64_t n,
                             int k, std::int64_t h) {
  const std::int64_t token = token_of_warp();
  if (token >= n) return;
  dx += token * h;
  row_of_slot += token * k;
  for_columns_of_row<kWidth>(h, [&]<int kVectors>(std::int64_t c) {
    RowSums<T, kWidth, kVectors> sums;
    for (int j = 0; j < k; ++j) {
      const std::int64_t row = row_of_slot[j];
      if (row >= 0) sums.add(1.0f, drows + row * h + c);
    }
    sums.store_to(dx + c);
  });
}

template <class T>
cudaError_t dispatch_forward(T* rows, const T* x, const std::int32_t* row_of_slot, std::int64_t n,
                             int k, std::int64_t h, cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;  // <<<0>>> is an error
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(n, kTokensPerBlock));
  if (rows_are_aligned<T>(h, rows, x)) {
    return ESP_LAUNCH((dispatch_forward_kernel<T, kPerVector<T>>), blocks, kTokensPerBlock * kWarp,
                      0, stream, rows, x, row_of_slot, n, k, h);
  }
  return ESP_LAUNCH((dispatch_forward_kernel<T, 1>), blocks, kTokensPerBlock * kWarp, 0, stream,
                    rows, x, row_of_slot, n, k, h);
}

template <class T>
cudaError_t dispatch_backward(T* dx, const T* drows, const std::int32_t* row_of_slot,
                              std::int64_t n, int k, std::int64_t h, cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(n, kTokensPerBlock));
  if (rows_are_aligned<T>(h, dx, drows)) {
    return ESP_LAUNCH((dispatch_backward_kernel<T, kPerVector<T>>), blocks, kTokensPerBlock * kWarp,
                      0, stream, dx, drows, row_of_slot, n, k, h);
  }
  return ESP_LAUNCH((dispatch_backward_kernel<T, 1>), blocks, kTokensPerBlock * kWarp, 0, stream,
                    dx, drows, row_of_slot, n, k, h);
}

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// A warp per row, 16 bytes a lane where rows are aligned to that; bound by memory. Deterministic:
// a lane adds its columns in order, the warp its lanes in a fixed tree.
#pragma once

#include <espalier/kernels/row_columns.cuh>
#include <espalier/kernels/sigmoid_gate.hpp>

namespace espalier::kernels {

inline constexpr int kGateWarps = 8;

/// sigmoid(x) and 1 less that, both from e^-|x|, without a difference that would cancel far out.
struct SigmoidPair {
  float value, rest;
};
__device__ __forceinline__ SigmoidPair sigmoid_pair(float x) {
  const float e = expf(-fabsf(x));
  const float large = 1.0f / (1.0f + e), small = e * large;
  return {x < 0 ? small : large, x < 0 ? large : small};
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kGateWarps* kWarp)
    sigmoid_gate_forward_kernel(T* y, const T* x, const T* gate, std::int64_t n, std::int64_t h) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kGateWarps + threadIdx.x / kWarp;
  if (row >= n) return;
  const float s = sigmoid_pair(to_float(gate[row])).value;
  x += row * h;
  y += row * h;
  for_columns_of_row<kWidth>(h, [&]<int kVectors>(std::int64_t c) {
    RowSums<T, kWidth, kVectors> product;
    product.add(s, x + c);
    product.store_to(y + c);
  });
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kGateWarps* kWarp)
    sigmoid_gate_backward_kernel(T* dx, T* dgate, const T* dy, const T* x, const T* gate,
                                 std::int64_t n, std::int64_t h) {
  const std::int64_t row = std::int64_t{blockIdx.x} * kGateWarps + threadIdx.x / kWarp;
  if (row >= n) return;
  const SigmoidPair s = sigmoid_pair(to_float(gate[row]));
  const std::int64_t first = row * h;
  float dot = 0.0f;
  for_columns_of_row<kWidth>(h, [&]<int kVectors>(std::int64_t c) {
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      const std::int64_t at = first + column_of<kWidth>(c, i);
      const auto d = load<T, kWidth>(dy + at);
      if (dgate != nullptr) {
        const auto v = load<T, kWidth>(x + at);
#pragma unroll
        for (int l = 0; l < kWidth; ++l) dot += to_float(d.v[l]) * to_float(v.v[l]);
      }
      if (dx != nullptr) {
        Vector<T, kWidth> out;
#pragma unroll
        for (int l = 0; l < kWidth; ++l) out.v[l] = from_float<T>(to_float(d.v[l]) * s.value);
        store(dx + at, out);
      }
    }
  });
  dot = warp_sum(dot);
  if (threadIdx.x % kWarp == 0 && dgate != nullptr) {
    dgate[row] = from_float<T>(dot * s.value * s.rest);
  }
}

template <class T>
cudaError_t sigmoid_gate_forward(T* y, const T* x, const T* gate, std::int64_t n, std::int64_t h,
                                 cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(n, kGateWarps));
  if (rows_are_aligned<T>(h, y, x)) {
    return ESP_LAUNCH((sigmoid_gate_forward_kernel<T, kPerVector<T>>), blocks, kGateWarps * kWarp,
                      0, stream, y, x, gate, n, h);
  }
  return ESP_LAUNCH((sigmoid_gate_forward_kernel<T, 1>), blocks, kGateWarps * kWarp, 0, stream, y,
                    x, gate, n, h);
}

template <class T>
cudaError_t sigmoid_gate_backward(T* dx, T* dgate, const T* dy, const T* x, const T* gate,
                                  std::int64_t n, std::int64_t h, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(ceil_div<std::int64_t>(n, kGateWarps));
  if (rows_are_aligned<T>(h, dx, dy, x)) {  // null is aligned
    return ESP_LAUNCH((sigmoid_gate_backward_kernel<T, kPerVector<T>>), blocks, kGateWarps * kWarp,
                      0, stream, dx, dgate, dy, x, gate, n, h);
  }
  return ESP_LAUNCH((sigmoid_gate_backward_kernel<T, 1>), blocks, kGateWarps * kWarp, 0, stream, dx,
                    dgate, dy, x, gate, n, h);
}

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// A block per row, a warp where rows are short; 16 bytes a thread where rows are aligned to that.
// The row is read from memory once: its further readings hit the caches.
#pragma once

#include <espalier/kernels/row_block.cuh>
#include <espalier/kernels/row_softmax.cuh>
#include <espalier/kernels/softmax.hpp>

namespace espalier::kernels {

template <class T, int kWidth>
__global__ void __launch_bounds__(kNormThreads)
    softmax_forward_kernel(T* y, const T* x, std::int64_t h) {
  const std::int64_t row = blockIdx.x;
  x += row * h;
  y += row * h;
  const RowSoftmax probability = softmax_of_row<BlockRow, kWidth>(x, h);
  const auto write = [&](std::int64_t c, Vector<T, kWidth> v) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) v.v[i] = from_float<T>(probability(to_float(v.v[i])));
    store(y + c, v);
  };
  for_vectors_of_row<BlockRow, kWidth>(h, write, x);
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kNormThreads)
    softmax_backward_kernel(T* dx, const T* dy, const T* x, std::int64_t h) {
  using V = Vector<T, kWidth>;
  const std::int64_t row = blockIdx.x;
  x += row * h;
  dy += row * h;
  dx += row * h;
  const RowSoftmax probability = softmax_of_row<BlockRow, kWidth>(x, h);
  float dot = 0;
  const auto add = [&](std::int64_t, const V& v, const V& d) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) dot += probability(to_float(v.v[i])) * to_float(d.v[i]);
  };
  for_vectors_of_row<BlockRow, kWidth>(h, add, x, dy);
  dot = block_sum(dot);
  const auto write = [&](std::int64_t c, const V& v, V d) {
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      d.v[i] = from_float<T>(probability(to_float(v.v[i])) * (to_float(d.v[i]) - dot));
    }
    store(dx + c, d);
  };
  for_vectors_of_row<BlockRow, kWidth>(h, write, x, dy);
}

template <class T>
cudaError_t softmax_forward(T* y, const T* x, std::int64_t n, std::int64_t h, cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(n);
  if (rows_are_aligned<T>(h, y, x)) {
    constexpr int kWidth = kPerVector<T>;
    return ESP_LAUNCH((softmax_forward_kernel<T, kWidth>), blocks, norm_threads(h / kWidth), 0,
                      stream, y, x, h);
  }
  return ESP_LAUNCH((softmax_forward_kernel<T, 1>), blocks, norm_threads(h), 0, stream, y, x, h);
}

template <class T>
cudaError_t softmax_backward(T* dx, const T* dy, const T* x, std::int64_t n, std::int64_t h,
                             cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(n);
  if (rows_are_aligned<T>(h, dx, dy, x)) {
    constexpr int kWidth = kPerVector<T>;
    return ESP_LAUNCH((softmax_backward_kernel<T, kWidth>), blocks, norm_threads(h / kWidth), 0,
                      stream, dx, dy, x, h);
  }
  return ESP_LAUNCH((softmax_backward_kernel<T, 1>), blocks, norm_threads(h), 0, stream, dx, dy, x,
                    h);
}

}  // namespace espalier::kernels

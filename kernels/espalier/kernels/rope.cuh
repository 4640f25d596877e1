// SPDX-License-Identifier: Apache-2.0
// A block per row; a thread rotates the same pair in every (threads / (dims/2))-th head, so the
// table of a row is read once for all heads. Then the block copies the values behind dims.
#pragma once

#include <espalier/kernels/device.cuh>
#include <espalier/kernels/rope.hpp>

namespace espalier::kernels {

inline constexpr int kRopeThreads = 128;

template <class T>
__global__ void __launch_bounds__(kRopeThreads)
    rope_kernel(T* y, const T* x, const float* table, RopeSizes s, float direction) {
  const std::int64_t row = blockIdx.x, p = s.head_dim, half = s.dims / 2;
  x += row * s.heads * p;
  y += row * s.heads * p;
  table += row * s.dims;
  const std::int64_t step = s.interleaved ? 2 : 1;      // from pair to pair
  const std::int64_t apart = s.interleaved ? 1 : half;  // the two of a pair
  for (std::int64_t t = threadIdx.x; t < s.heads * half; t += blockDim.x) {
    const std::int64_t i = t % half, at = t / half * p + i * step;
    const float cosine = table[i], sine = direction * table[half + i];
    const float a = to_float(x[at]), b = to_float(x[at + apart]);
    y[at] = from_float<T>(a * cosine - b * sine);
    y[at + apart] = from_float<T>(b * cosine + a * sine);
  }
  const std::int64_t rest = p - s.dims;
  if (y == x) return;
  for (std::int64_t t = threadIdx.x; t < s.heads * rest; t += blockDim.x) {
    const std::int64_t at = t / rest * p + s.dims + t % rest;
    y[at] = x[at];
  }
}

template <class T>
cudaError_t rope(T* y, const T* x, const float* table, const RopeSizes& sizes, float direction,
                 cudaStream_t stream) {
  if (sizes.dims % 2 != 0 || sizes.dims > sizes.head_dim) return cudaErrorInvalidValue;
  if (sizes.rows == 0 || sizes.heads == 0 || sizes.head_dim == 0) return cudaSuccess;
  return ESP_LAUNCH(rope_kernel<T>, static_cast<unsigned>(sizes.rows), kRopeThreads, 0, stream, y,
                    x, table, sizes, direction);
}

}  // namespace espalier::kernels

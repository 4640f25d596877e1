// SPDX-License-Identifier: Apache-2.0
// A block per row; a thread turns the same pair in every (threads / (P/2))-th head, so the turns of
// a row are read once for all heads.
#pragma once

#include <espalier/kernels/device.cuh>
#include <espalier/kernels/rope.hpp>

namespace espalier::kernels {

inline constexpr int kRopeThreads = 128;

template <class T>
__global__ void __launch_bounds__(kRopeThreads)
    rope_kernel(T* y, const T* x, const float* turns, std::int64_t heads, std::int64_t p,
                float direction) {
  const std::int64_t row = blockIdx.x, half = p / 2;
  x += row * heads * p;
  y += row * heads * p;
  turns += row * p;
  for (std::int64_t t = threadIdx.x; t < heads * half; t += blockDim.x) {
    const std::int64_t i = t % half, at = t / half * p + i;
    const float c = turns[i], s = direction * turns[half + i];
    const float a = to_float(x[at]), b = to_float(x[at + half]);
    y[at] = from_float<T>(a * c - b * s);
    y[at + half] = from_float<T>(b * c + a * s);
  }
}

template <class T>
cudaError_t rope(T* y, const T* x, const float* turns, std::int64_t n, std::int64_t heads,
                 std::int64_t p, float direction, cudaStream_t stream) {
  if (n == 0 || heads == 0 || p == 0) return cudaSuccess;
  return ESP_LAUNCH(rope_kernel<T>, static_cast<unsigned>(n), kRopeThreads, 0, stream, y, x, turns,
                    heads, p, direction);
}

}  // namespace espalier::kernels

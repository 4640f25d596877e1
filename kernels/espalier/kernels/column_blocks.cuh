// SPDX-License-Identifier: Apache-2.0
// A thread per vector of the result: 16 bytes where every block of columns begins and ends at a
// multiple of that, one element where not. Bound by memory.
#pragma once

#include <espalier/kernels/column_blocks.hpp>
#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

inline constexpr int kColumnThreads = 256;

template <class T, int kWidth>
__global__ void __launch_bounds__(kColumnThreads)
    place_columns_kernel(T* y, Columns at, const T* x, Columns source, std::int64_t vectors,
                         std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kColumnThreads + threadIdx.x;
  if (i >= vectors) return;
  const std::int64_t per_row = at.width / kWidth, row = i / per_row;
  const std::int64_t c = i % per_row * kWidth - at.first;
  Vector<T, kWidth> v;
  if (c >= 0 && c < count) {
    v = load<T, kWidth>(x + row * source.width + source.first + c);
  } else {
#pragma unroll
    for (int l = 0; l < kWidth; ++l) v.v[l] = from_float<T>(0.0f);
  }
  store(y + i * kWidth, v);
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kColumnThreads)
    concat_heads_kernel(T* y, const T* a, const T* b, std::int64_t vectors, std::int64_t shared_by,
                        std::int64_t p1, std::int64_t p2) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kColumnThreads + threadIdx.x;
  if (i >= vectors) return;
  const std::int64_t per_row = (p1 + p2) / kWidth, row = i / per_row, c = i % per_row * kWidth;
  const T* from = c < p1 ? a + row * p1 + c : b + row / shared_by * p2 + (c - p1);
  store(y + i * kWidth, load<T, kWidth>(from));
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kColumnThreads)
    sum_heads_kernel(T* y, const T* x, Columns source, std::int64_t vectors, std::int64_t heads,
                     std::int64_t count) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kColumnThreads + threadIdx.x;
  if (i >= vectors) return;
  const std::int64_t per_row = count / kWidth, row = i / per_row, c = i % per_row * kWidth;
  x += row * heads * source.width + source.first + c;
  float sum[kWidth] = {};
  for (std::int64_t head = 0; head < heads; ++head) {
    const auto v = load<T, kWidth>(x + head * source.width);
#pragma unroll
    for (int l = 0; l < kWidth; ++l) sum[l] += to_float(v.v[l]);
  }
  Vector<T, kWidth> out;
#pragma unroll
  for (int l = 0; l < kWidth; ++l) out.v[l] = from_float<T>(sum[l]);
  store(y + i * kWidth, out);
}

inline unsigned column_blocks_grid(std::int64_t vectors) {
  return static_cast<unsigned>(ceil_div<std::int64_t>(vectors, kColumnThreads));
}

template <class T>
cudaError_t place_columns(T* y, Columns at, const T* x, Columns source, std::int64_t rows,
                          std::int64_t count, cudaStream_t stream) {
  const std::int64_t n = rows * at.width;
  if (n == 0) return cudaSuccess;
  constexpr int kWidth = kPerVector<T>;
  if (rows_are_aligned<T>(at.width, x, y) && at.first % kWidth == 0 && count % kWidth == 0 &&
      source.width % kWidth == 0 && source.first % kWidth == 0) {
    return ESP_LAUNCH((place_columns_kernel<T, kWidth>), column_blocks_grid(n / kWidth),
                      kColumnThreads, 0, stream, y, at, x, source, n / kWidth, count);
  }
  return ESP_LAUNCH((place_columns_kernel<T, 1>), column_blocks_grid(n), kColumnThreads, 0, stream,
                    y, at, x, source, n, count);
}

template <class T>
cudaError_t concat_heads(T* y, const T* a, const T* b, std::int64_t n, std::int64_t heads,
                         std::int64_t b_heads, std::int64_t p1, std::int64_t p2,
                         cudaStream_t stream) {
  const std::int64_t elements = n * heads * (p1 + p2);
  if (elements == 0) return cudaSuccess;
  const std::int64_t shared_by = b_heads == heads ? 1 : heads;
  constexpr int kWidth = kPerVector<T>;
  if (rows_are_aligned<T>(p1, a, b, y) && p2 % kWidth == 0) {
    return ESP_LAUNCH((concat_heads_kernel<T, kWidth>), column_blocks_grid(elements / kWidth),
                      kColumnThreads, 0, stream, y, a, b, elements / kWidth, shared_by, p1, p2);
  }
  return ESP_LAUNCH((concat_heads_kernel<T, 1>), column_blocks_grid(elements), kColumnThreads, 0,
                    stream, y, a, b, elements, shared_by, p1, p2);
}

template <class T>
cudaError_t sum_heads(T* y, const T* x, Columns source, std::int64_t n, std::int64_t heads,
                      std::int64_t count, cudaStream_t stream) {
  const std::int64_t elements = n * count;
  if (elements == 0) return cudaSuccess;
  constexpr int kWidth = kPerVector<T>;
  if (rows_are_aligned<T>(count, x, y) && source.width % kWidth == 0 &&
      source.first % kWidth == 0) {
    return ESP_LAUNCH((sum_heads_kernel<T, kWidth>), column_blocks_grid(elements / kWidth),
                      kColumnThreads, 0, stream, y, x, source, elements / kWidth, heads, count);
  }
  return ESP_LAUNCH((sum_heads_kernel<T, 1>), column_blocks_grid(elements), kColumnThreads, 0,
                    stream, y, x, source, elements, heads, count);
}

}  // namespace espalier::kernels

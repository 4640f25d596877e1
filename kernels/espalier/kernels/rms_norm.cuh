// SPDX-License-Identifier: Apache-2.0
// A block per row, a warp where rows are short; f32 accumulation, any H, 16 bytes a thread where
// rows are aligned to that. The row is read from memory once: its second reading hits the caches.
// Deterministic: sums of a block in a fixed order; the gain's gradient in chunks of rows.
#pragma once

#include <espalier/kernels/device.cuh>
#include <espalier/kernels/rms_norm.hpp>
#include <espalier/kernels/row_block.cuh>

namespace espalier::kernels {

/// kWidth neighbours in f32, 16 bytes a load or what that many take.
template <int kWidth, class W>
__device__ __forceinline__ Vector<float, kWidth> load_gain(const W* w) {
  constexpr int kOnce = kWidth < kPerVector<W> ? kWidth : kPerVector<W>;
  Vector<float, kWidth> gain;
#pragma unroll
  for (int first = 0; first < kWidth; first += kOnce) {
    const auto part = load<W, kOnce>(w + first);
#pragma unroll
    for (int i = 0; i < kOnce; ++i) gain.v[first + i] = to_float(part.v[i]);
  }
  return gain;
}

template <class T, class W, int kWidth>
__global__ void __launch_bounds__(kNormThreads)
    rms_norm_forward_kernel(T* y, float* r, const T* x, const W* w, std::int64_t h, float eps) {
  const std::int64_t row = blockIdx.x;
  x += row * h;
  y += row * h;
  float sum = 0;
  for (std::int64_t c = std::int64_t{threadIdx.x} * kWidth; c < h; c += blockDim.x * kWidth) {
    const auto v = load<T, kWidth>(x + c);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) sum += to_float(v.v[i]) * to_float(v.v[i]);
  }
  const float factor = 1.0f / sqrtf(block_sum(sum) / static_cast<float>(h) + eps);
  for (std::int64_t c = std::int64_t{threadIdx.x} * kWidth; c < h; c += blockDim.x * kWidth) {
    const auto v = load<T, kWidth>(x + c);
    const auto gain = load_gain<kWidth>(w + c);
    Vector<T, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      out.v[i] = from_float<T>(to_float(v.v[i]) * factor * gain.v[i]);
    }
    store(y + c, out);
  }
  if (threadIdx.x == 0) r[row] = factor;
}

template <class T, class W, int kWidth>
__global__ void __launch_bounds__(kNormThreads)
    rms_norm_backward_kernel(T* dx, const T* dy, const T* x, const W* w, const float* r,
                             std::int64_t h) {
  const std::int64_t row = blockIdx.x;
  x += row * h;
  dy += row * h;
  dx += row * h;
  float dot = 0;
  for (std::int64_t c = std::int64_t{threadIdx.x} * kWidth; c < h; c += blockDim.x * kWidth) {
    const auto v = load<T, kWidth>(x + c);
    const auto d = load<T, kWidth>(dy + c);
    const auto gain = load_gain<kWidth>(w + c);
#pragma unroll
    for (int i = 0; i < kWidth; ++i) dot += gain.v[i] * to_float(d.v[i]) * to_float(v.v[i]);
  }
  const float factor = r[row];
  const float pull = -block_sum(dot) * factor * factor / static_cast<float>(h);
  for (std::int64_t c = std::int64_t{threadIdx.x} * kWidth; c < h; c += blockDim.x * kWidth) {
    const auto v = load<T, kWidth>(x + c);
    const auto d = load<T, kWidth>(dy + c);
    const auto gain = load_gain<kWidth>(w + c);
    Vector<T, kWidth> out;
#pragma unroll
    for (int i = 0; i < kWidth; ++i) {
      out.v[i] = from_float<T>(factor * (gain.v[i] * to_float(d.v[i]) + pull * to_float(v.v[i])));
    }
    store(dx + c, out);
  }
}

// One thread per column and chunk of rows.
template <class T>
__global__ void __launch_bounds__(kNormThreads)
    rms_norm_gain_chunk_kernel(float* partial, const T* dy, const T* x, const float* r,
                               std::int64_t n, std::int64_t h) {
  const std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c >= h) return;
  const std::int64_t rows = ceil_div<std::int64_t>(n, gridDim.y);
  const std::int64_t begin = blockIdx.y * rows, end = begin + rows < n ? begin + rows : n;
  float sum = 0;
  for (std::int64_t row = begin; row < end; ++row) {
    sum += to_float(dy[row * h + c]) * to_float(x[row * h + c]) * r[row];
  }
  partial[blockIdx.y * h + c] = sum;
}

/// sum [H] = the rows of partial [chunks, H] in order; static, for headers define no other kernels
/// that are not templates.
static __global__ void __launch_bounds__(kNormThreads)
    sum_chunks_kernel(float* sum, const float* partial, int chunks, std::int64_t h) {
  const std::int64_t c = std::int64_t{blockIdx.x} * blockDim.x + threadIdx.x;
  if (c >= h) return;
  float total = 0;
  for (int i = 0; i < chunks; ++i) total += partial[i * h + c];
  sum[c] = total;
}

template <class T, class W>
cudaError_t rms_norm_forward(T* y, float* r, const T* x, const W* w, std::int64_t n, std::int64_t h,
                             float eps, cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(n);
  if (rows_are_aligned<T>(h, x, y, w)) {
    constexpr int kWidth = kPerVector<T>;
    return ESP_LAUNCH((rms_norm_forward_kernel<T, W, kWidth>), blocks, norm_threads(h / kWidth), 0,
                      stream, y, r, x, w, h, eps);
  }
  return ESP_LAUNCH((rms_norm_forward_kernel<T, W, 1>), blocks, norm_threads(h), 0, stream, y, r, x,
                    w, h, eps);
}

template <class T, class W>
cudaError_t rms_norm_backward(T* dx, const T* dy, const T* x, const W* w, const float* r,
                              std::int64_t n, std::int64_t h, cudaStream_t stream) {
  if (n == 0 || h == 0) return cudaSuccess;
  const auto blocks = static_cast<unsigned>(n);
  if (rows_are_aligned<T>(h, x, dy, dx, w)) {
    constexpr int kWidth = kPerVector<T>;
    return ESP_LAUNCH((rms_norm_backward_kernel<T, W, kWidth>), blocks, norm_threads(h / kWidth), 0,
                      stream, dx, dy, x, w, r, h);
  }
  return ESP_LAUNCH((rms_norm_backward_kernel<T, W, 1>), blocks, norm_threads(h), 0, stream, dx, dy,
                    x, w, r, h);
}

template <class T>
cudaError_t rms_norm_gain_backward(float* dw, const T* dy, const T* x, const float* r,
                                   void* workspace, std::int64_t n, std::int64_t h,
                                   cudaStream_t stream) {
  if (h == 0) return cudaSuccess;
  const auto columns = static_cast<unsigned>(ceil_div<std::int64_t>(h, kNormThreads));
  const auto chunks = static_cast<unsigned>(rms_norm_gain_chunks(n));
  auto* partial = static_cast<float*>(workspace);
  if (n > 0) {
    const cudaError_t error = ESP_LAUNCH(rms_norm_gain_chunk_kernel<T>, dim3(columns, chunks),
                                         kNormThreads, 0, stream, partial, dy, x, r, n, h);
    if (error != cudaSuccess) return error;
  }
  return ESP_LAUNCH(sum_chunks_kernel, columns, kNormThreads, 0, stream, dw, partial,
                    static_cast<int>(chunks), h);
}

}  // namespace espalier::kernels

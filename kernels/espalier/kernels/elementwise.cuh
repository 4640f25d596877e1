// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <espalier/kernels/elementwise.hpp>
#include <espalier/kernels/map.cuh>

namespace espalier::kernels {

struct AddFunction {
  __device__ float operator()(float a, float b) const { return a + b; }
};
struct MultiplyFunction {
  __device__ float operator()(float a, float b) const { return a * b; }
};
struct ScaleFunction {
  float factor;
  __device__ float operator()(float x) const { return factor * x; }
};
struct ClampFunction {
  float low, high;
  __device__ float operator()(float x) const { return x < low ? low : x > high ? high : x; }
};
struct ClampGradient {
  float low, high;
  __device__ float operator()(float dy, float x) const { return low <= x && x <= high ? dy : 0.0f; }
};
struct CastFunction {
  __device__ float operator()(float x) const { return x; }
};

template <class T>
cudaError_t add(T* y, const T* a, const T* b, std::int64_t n, cudaStream_t stream) {
  return map(AddFunction{}, n, stream, y, a, b);
}
template <class T>
cudaError_t scale(T* y, const T* x, float factor, std::int64_t n, cudaStream_t stream) {
  return map(ScaleFunction{factor}, n, stream, y, x);
}
template <class T>
cudaError_t multiply(T* y, const T* a, const T* b, std::int64_t n, cudaStream_t stream) {
  return map(MultiplyFunction{}, n, stream, y, a, b);
}
template <class T>
cudaError_t clamp(T* y, const T* x, float low, float high, std::int64_t n, cudaStream_t stream) {
  return map(ClampFunction{low, high}, n, stream, y, x);
}
template <class T>
cudaError_t clamp_backward(T* dx, const T* dy, const T* x, float low, float high, std::int64_t n,
                           cudaStream_t stream) {
  return map(ClampGradient{low, high}, n, stream, dx, dy, x);
}
template <class To, class From>
cudaError_t cast(To* y, const From* x, std::int64_t n, cudaStream_t stream) {
  return map(CastFunction{}, n, stream, y, x);
}

template <class T>
__global__ void __launch_bounds__(kMapThreads)
    mask_columns_kernel(T* y, const T* x, const std::uint8_t* keep, float value, std::int64_t n,
                        std::int64_t c) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kMapThreads + threadIdx.x;
  if (i < n * c) y[i] = keep[i % c] != 0 ? x[i] : from_float<T>(value);
}

template <class T>
cudaError_t mask_columns(T* y, const T* x, const std::uint8_t* keep, float value, std::int64_t n,
                         std::int64_t c, cudaStream_t stream) {
  if (n == 0 || c == 0) return cudaSuccess;
  return ESP_LAUNCH(mask_columns_kernel<T>,
                    static_cast<unsigned>(ceil_div<std::int64_t>(n * c, kMapThreads)), kMapThreads,
                    0, stream, y, x, keep, value, n, c);
}

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// y_i = f(x_i, ...): a thread per vector of 16 bytes where all pointers are aligned to that, per
// element where not and for the rest. `f` is a struct with `__device__ float operator()(float...)`.
#pragma once

#include <algorithm>
#include <espalier/kernels/device.cuh>

namespace espalier::kernels {

inline constexpr int kMapThreads = 256;

template <int kWidth, class F, class Y, class... X>
__global__ void __launch_bounds__(kMapThreads)
    map_kernel(F f, std::int64_t vectors, std::int64_t n, Y* y, const X*... x) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kMapThreads + threadIdx.x;
  if (i < vectors) {
    const auto apply = [&](const auto&... v) {
      Vector<Y, kWidth> out;
#pragma unroll
      for (int l = 0; l < kWidth; ++l) out.v[l] = from_float<Y>(f(to_float(v.v[l])...));
      store(y + i * kWidth, out);
    };
    apply(load<X, kWidth>(x + i * kWidth)...);
  }
  const std::int64_t rest = vectors * kWidth + i;  // fewer than the threads of one block
  if (rest < n && i < kWidth) y[rest] = from_float<Y>(f(to_float(x[rest])...));
}

template <class F, class Y, class... X>
cudaError_t map(F f, std::int64_t n, cudaStream_t stream, Y* y, const X*... x) {
  if (n == 0) return cudaSuccess;
  constexpr int kWidth = 16 / static_cast<int>(std::max({sizeof(Y), sizeof(X)...}));
  const bool aligned = reinterpret_cast<std::uintptr_t>(y) % (kWidth * sizeof(Y)) == 0 &&
                       ((reinterpret_cast<std::uintptr_t>(x) % (kWidth * sizeof(X)) == 0) && ...);
  const auto blocks = [](std::int64_t items) {
    return static_cast<unsigned>(ceil_div<std::int64_t>(items > 0 ? items : 1, kMapThreads));
  };
  if (aligned) {
    const std::int64_t vectors = n / kWidth;
    return ESP_LAUNCH((map_kernel<kWidth, F, Y, X...>), blocks(vectors), kMapThreads, 0, stream, f,
                      vectors, n, y, x...);
  }
  return ESP_LAUNCH((map_kernel<1, F, Y, X...>), blocks(n), kMapThreads, 0, stream, f, n, n, y,
                    x...);
}

template <int kWidth, class F, class T, class... X>
__global__ void __launch_bounds__(kMapThreads)
    map_to_two_kernel(F f, std::int64_t vectors, std::int64_t n, T* first, T* second,
                      const X*... x) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kMapThreads + threadIdx.x;
  if (i < vectors) {
    const auto apply = [&](const auto&... v) {
      Vector<T, kWidth> a, b;
#pragma unroll
      for (int l = 0; l < kWidth; ++l) {
        float of_a, of_b;
        f(of_a, of_b, to_float(v.v[l])...);
        a.v[l] = from_float<T>(of_a);
        b.v[l] = from_float<T>(of_b);
      }
      store(first + i * kWidth, a);
      store(second + i * kWidth, b);
    };
    apply(load<X, kWidth>(x + i * kWidth)...);
  }
  const std::int64_t rest = vectors * kWidth + i;  // fewer than the threads of one block
  if (rest < n && i < kWidth) {
    float of_a, of_b;
    f(of_a, of_b, to_float(x[rest])...);
    first[rest] = from_float<T>(of_a);
    second[rest] = from_float<T>(of_b);
  }
}

/// Two results of the same inputs, f(first&, second&, x...); they may be among the inputs.
template <class F, class T, class... X>
cudaError_t map_to_two(F f, std::int64_t n, cudaStream_t stream, T* first, T* second,
                       const X*... x) {
  if (n == 0) return cudaSuccess;
  constexpr int kWidth = kPerVector<T>;
  static_assert((std::is_same_v<T, X> && ...));
  const auto blocks = [](std::int64_t items) {
    return static_cast<unsigned>(ceil_div<std::int64_t>(items > 0 ? items : 1, kMapThreads));
  };
  if (rows_are_aligned<T>(0, first, second, x...)) {
    const std::int64_t vectors = n / kWidth;
    return ESP_LAUNCH((map_to_two_kernel<kWidth, F, T, X...>), blocks(vectors), kMapThreads, 0,
                      stream, f, vectors, n, first, second, x...);
  }
  return ESP_LAUNCH((map_to_two_kernel<1, F, T, X...>), blocks(n), kMapThreads, 0, stream, f, n, n,
                    first, second, x...);
}

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// A thread per vector of elements; bound by memory, so the sigmoid is recomputed in backward.
#pragma once

#include <espalier/kernels/map.cuh>
#include <espalier/kernels/swiglu.hpp>

namespace espalier::kernels {

struct SwiGluFunction {
  __device__ float operator()(float gate, float up) const {
    return gate / (1.0f + expf(-gate)) * up;
  }
};

template <class T>
cudaError_t swiglu_forward(T* y, const T* gate, const T* up, std::int64_t n, cudaStream_t stream) {
  return map(SwiGluFunction{}, n, stream, y, gate, up);
}

// silu' = s (1 + g (1 - s)); s and 1 - s both come from e^-|g|, without a difference that would
// cancel far out.
__device__ __forceinline__ void swiglu_gradients(float& dgate, float& dup, float dy, float gate,
                                                 float up) {
  const float e = expf(-fabsf(gate));
  const float large = 1.0f / (1.0f + e), small = e * large;
  const float s = gate < 0 ? small : large, rest = gate < 0 ? large : small;
  dgate = dy * up * s * (1.0f + gate * rest);
  dup = dy * gate * s;
}

template <class T, int kWidth>
__global__ void __launch_bounds__(kMapThreads)
    swiglu_backward_kernel(T* dgate, T* dup, const T* dy, const T* gate, const T* up,
                           std::int64_t vectors, std::int64_t n) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kMapThreads + threadIdx.x;
  if (i < vectors) {
    const auto d = load<T, kWidth>(dy + i * kWidth);
    const auto g = load<T, kWidth>(gate + i * kWidth);
    const auto u = load<T, kWidth>(up + i * kWidth);
    Vector<T, kWidth> dg, du;
#pragma unroll
    for (int l = 0; l < kWidth; ++l) {
      float a, b;
      swiglu_gradients(a, b, to_float(d.v[l]), to_float(g.v[l]), to_float(u.v[l]));
      dg.v[l] = from_float<T>(a);
      du.v[l] = from_float<T>(b);
    }
    store(dgate + i * kWidth, dg);
    store(dup + i * kWidth, du);
  }
  const std::int64_t rest = vectors * kWidth + i;
  if (rest < n && i < kWidth) {
    float a, b;
    swiglu_gradients(a, b, to_float(dy[rest]), to_float(gate[rest]), to_float(up[rest]));
    dgate[rest] = from_float<T>(a);
    dup[rest] = from_float<T>(b);
  }
}

template <class T>
cudaError_t swiglu_backward(T* dgate, T* dup, const T* dy, const T* gate, const T* up,
                            std::int64_t n, cudaStream_t stream) {
  if (n == 0) return cudaSuccess;
  constexpr int kWidth = kPerVector<T>;
  if (rows_are_aligned<T>(0, dgate, dup, dy, gate, up)) {
    const std::int64_t vectors = n / kWidth;
    const auto blocks =
        static_cast<unsigned>(ceil_div<std::int64_t>(vectors > 0 ? vectors : 1, kMapThreads));
    return ESP_LAUNCH((swiglu_backward_kernel<T, kWidth>), blocks, kMapThreads, 0, stream, dgate,
                      dup, dy, gate, up, vectors, n);
  }
  return ESP_LAUNCH((swiglu_backward_kernel<T, 1>),
                    static_cast<unsigned>(ceil_div<std::int64_t>(n, kMapThreads)), kMapThreads, 0,
                    stream, dgate, dup, dy, gate, up, n, n);
}

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// A thread per vector of elements; bound by memory, so the sigmoid is recomputed in backward.
#pragma once

#include <espalier/kernels/clamped_swiglu.hpp>
#include <espalier/kernels/map.cuh>

namespace espalier::kernels {

/// Comparisons, not fminf and fmaxf, which would drop a NaN.
__device__ __forceinline__ float at_most(float x, float high) {
  return x > high ? high : x;
}
__device__ __forceinline__ float at_least(float x, float low) {
  return x < low ? low : x;
}

struct ClampedSwiGluFunction {
  float alpha, limit;
  __device__ float operator()(float gate, float up) const {
    const float g = at_most(gate, limit), u = at_least(at_most(up, limit), -limit);
    return (u + 1.0f) * (g / (1.0f + expf(-alpha * g)));
  }
};

// With s = sigmoid(alpha g): d(g s)/dg = s (1 + alpha g (1 - s)); s and 1 - s as in swiglu.cuh.
struct ClampedSwiGluGradients {
  float alpha, limit;
  __device__ void operator()(float& dgate, float& dup, float dy, float gate, float up) const {
    const float g = at_most(gate, limit), u = at_least(at_most(up, limit), -limit);
    const float z = alpha * g, e = expf(-fabsf(z));
    const float large = 1.0f / (1.0f + e), small = e * large;
    const float s = z < 0 ? small : large, rest = z < 0 ? large : small;
    dgate = gate <= limit ? dy * (u + 1.0f) * s * (1.0f + z * rest) : 0.0f;
    dup = -limit <= up && up <= limit ? dy * g * s : 0.0f;
  }
};

template <class T>
cudaError_t clamped_swiglu_forward(T* y, const T* gate, const T* up, float alpha, float limit,
                                   std::int64_t n, cudaStream_t stream) {
  return map(ClampedSwiGluFunction{alpha, limit}, n, stream, y, gate, up);
}

template <class T>
cudaError_t clamped_swiglu_backward(T* dgate, T* dup, const T* dy, const T* gate, const T* up,
                                    float alpha, float limit, std::int64_t n, cudaStream_t stream) {
  return map_to_two(ClampedSwiGluGradients{alpha, limit}, n, stream, dgate, dup, dy, gate, up);
}

}  // namespace espalier::kernels

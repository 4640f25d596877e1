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
struct SwiGluGradients {
  __device__ void operator()(float& dgate, float& dup, float dy, float gate, float up) const {
    const float e = expf(-fabsf(gate));
    const float large = 1.0f / (1.0f + e), small = e * large;
    const float s = gate < 0 ? small : large, rest = gate < 0 ? large : small;
    dgate = dy * up * s * (1.0f + gate * rest);
    dup = dy * gate * s;
  }
};

template <class T>
cudaError_t swiglu_backward(T* dgate, T* dup, const T* dy, const T* gate, const T* up,
                            std::int64_t n, cudaStream_t stream) {
  return map_to_two(SwiGluGradients{}, n, stream, dgate, dup, dy, gate, up);
}

}  // namespace espalier::kernels

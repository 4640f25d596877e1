// SPDX-License-Identifier: Apache-2.0
// y = (u + 1) · g · sigmoid(alpha · g)  with  g = min(gate, limit),  u = clamp(up, -limit, limit),
// elementwise, any number of elements: the activation of gpt-oss's experts (arXiv:2508.10925).
// Computed in f32, rounded once. `limit` is a value of T. A gradient is 0 beyond a bound, and where
// what is clamped is NaN.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

template <class T>
cudaError_t clamped_swiglu_forward(T* y, const T* gate, const T* up, float alpha, float limit,
                                   std::int64_t n, cudaStream_t stream);

/// Recomputes the sigmoid. dgate and dup may be gate and up themselves.
template <class T>
cudaError_t clamped_swiglu_backward(T* dgate, T* dup, const T* dy, const T* gate, const T* up,
                                    float alpha, float limit, std::int64_t n, cudaStream_t stream);

}  // namespace espalier::kernels

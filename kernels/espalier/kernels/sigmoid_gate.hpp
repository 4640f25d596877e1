// SPDX-License-Identifier: Apache-2.0
// y = x · sigmoid(gate), one gate per row.                              x, y [N, H]   gate [N]
// Computed in f32, rounded once; the dot product of a row in a fixed order.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

/// y may be x.
template <class T>
cudaError_t sigmoid_gate_forward(T* y, const T* x, const T* gate, std::int64_t n, std::int64_t h,
                                 cudaStream_t stream);

/// dx = s dy,  dgate = s (1 - s) <dy, x>  with s = sigmoid(gate). A null dx is not wanted; nor is a
/// null dgate, and x is not read then.
template <class T>
cudaError_t sigmoid_gate_backward(T* dx, T* dgate, const T* dy, const T* x, const T* gate,
                                  std::int64_t n, std::int64_t h, cudaStream_t stream);

}  // namespace espalier::kernels

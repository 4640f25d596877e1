// SPDX-License-Identifier: Apache-2.0
// y = silu(gate) · up, elementwise, any number of elements.     Shazeer 2020, arXiv:2002.05202
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

constexpr double swiglu_bytes(std::int64_t n, int element_bytes) {
  return 3.0 * double(n) * element_bytes;
}
constexpr double swiglu_backward_bytes(std::int64_t n, int element_bytes) {
  return 5.0 * double(n) * element_bytes;
}

template <class T>
cudaError_t swiglu_forward(T* y, const T* gate, const T* up, std::int64_t n, cudaStream_t stream);

/// Recomputes the sigmoid. dgate and dup may be gate and up themselves.
template <class T>
cudaError_t swiglu_backward(T* dgate, T* dup, const T* dy, const T* gate, const T* up,
                            std::int64_t n, cudaStream_t stream);

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// y = softmax of each row, and its gradient from x: a y rounded to 2 bytes would put its error into
// every element of dx.                                                          x, y, dy, dx [N, H]
// Computed in f32, rounded to T once. Sums in a fixed order; no atomics. A NaN, a +inf, or -inf
// alone make a row NaN.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

/// y may be x.
template <class T>
cudaError_t softmax_forward(T* y, const T* x, std::int64_t n, std::int64_t h, cudaStream_t stream);

/// dx = y (dy - <y, dy>). dx may be dy.
template <class T>
cudaError_t softmax_backward(T* dx, const T* dy, const T* x, std::int64_t n, std::int64_t h,
                             cudaStream_t stream);

}  // namespace espalier::kernels

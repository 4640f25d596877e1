// SPDX-License-Identifier: Apache-2.0
// y = x · r · w per row, r = 1 / sqrt(mean(x²) + eps).       x, y [N, H]   w [H]   r [N] in f32
// Zhang and Sennrich 2019, arXiv:1910.07467, eq. 4. Sums in f32 in a fixed order; one rounding.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

constexpr double rms_norm_bytes(std::int64_t n, std::int64_t h, int element_bytes) {
  return 2.0 * double(n) * double(h) * element_bytes + 4.0 * double(n);
}
constexpr double rms_norm_backward_bytes(std::int64_t n, std::int64_t h, int element_bytes) {
  return 3.0 * double(n) * double(h) * element_bytes + 4.0 * double(n);
}

/// W is T or float.
template <class T, class W>
cudaError_t rms_norm_forward(T* y, float* r, const T* x, const W* w, std::int64_t n, std::int64_t h,
                             float eps, cudaStream_t stream);

/// dx = r (w dy - x r² / H · <w dy, x>).
template <class T, class W>
cudaError_t rms_norm_backward(T* dx, const T* dy, const T* x, const W* w, const float* r,
                              std::int64_t n, std::int64_t h, cudaStream_t stream);

/// Rows of partial sums in the workspace of rms_norm_gain_backward, [chunks, H] in f32.
constexpr std::int64_t rms_norm_gain_chunks(std::int64_t n) {
  return n < 64 * 64 ? (n + 63) / 64 : 64;
}
constexpr std::size_t rms_norm_gain_workspace_bytes(std::int64_t n, std::int64_t h) {
  return static_cast<std::size_t>(rms_norm_gain_chunks(n) * h) * 4;
}
/// dw = sum over the rows of dy x r, in f32, chunk by chunk in order.
template <class T>
cudaError_t rms_norm_gain_backward(float* dw, const T* dy, const T* x, const float* r,
                                   void* workspace, std::int64_t n, std::int64_t h,
                                   cudaStream_t stream);

}  // namespace espalier::kernels

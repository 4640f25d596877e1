// SPDX-License-Identifier: Apache-2.0
// y[n] = sum over slots k of weights[n, k] * rows[row of (n, k)], and its gradients.
//   rows, drows [R, H] in expert order   weights, dweights [N, K] f32   y, dy [N, H]
//   row_of_slot [N * K], -1 for a dropped slot, which adds nothing and has gradient 0
// Sums are in f32 and in slot order (over H: by lane, then over lanes), rounded once.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

/// Every row read once, every token written once.
constexpr double combine_bytes(std::int64_t n, int k, std::int64_t h, int element_bytes) {
  return double(n) * (1 + k) * double(h) * element_bytes + 8.0 * double(n) * k;
}
constexpr double combine_flops(std::int64_t n, int k, std::int64_t h) {
  return 2.0 * double(n) * k * double(h);
}
/// dy read once (its further reads hit the cache), rows read and drows written once.
constexpr double combine_backward_bytes(std::int64_t n, int k, std::int64_t h, int element_bytes) {
  return double(n) * (1 + 2 * k) * double(h) * element_bytes + 12.0 * double(n) * k;
}
constexpr double combine_backward_flops(std::int64_t n, int k, std::int64_t h) {
  return 3.0 * double(n) * k * double(h);
}

template <class T>
cudaError_t combine_forward(T* y, const T* rows, const float* weights,
                            const std::int32_t* row_of_slot, std::int64_t n, int k, std::int64_t h,
                            cudaStream_t stream);

/// Rows of drows that no slot names are not written.
template <class T>
cudaError_t combine_backward(T* drows, float* dweights, const T* dy, const T* rows,
                             const float* weights, const std::int32_t* row_of_slot, std::int64_t n,
                             int k, std::int64_t h, cudaStream_t stream);

}  // namespace espalier::kernels

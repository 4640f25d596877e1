// SPDX-License-Identifier: Apache-2.0
// Copies each token's row to the rows of its experts, and sums them back for the gradient.
//   x, dx [N, H]   rows, drows [R, H] in expert order   row_of_slot [N * K], -1 for a dropped slot
// Bit-exact forward; backward adds in f32 in slot order and rounds once. R is nowhere needed.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

/// Every row of x read once, K written; the same backward.
constexpr double dispatch_bytes(std::int64_t n, int k, std::int64_t h, int element_bytes) {
  return double(n) * (1 + k) * double(h) * element_bytes + 4.0 * double(n) * k;
}
constexpr double dispatch_backward_flops(std::int64_t n, int k, std::int64_t h) {
  return double(n) * (k - 1) * double(h);
}

template <class T>
cudaError_t dispatch_forward(T* rows, const T* x, const std::int32_t* row_of_slot, std::int64_t n,
                             int k, std::int64_t h, cudaStream_t stream);

template <class T>
cudaError_t dispatch_backward(T* dx, const T* drows, const std::int32_t* row_of_slot,
                              std::int64_t n, int k, std::int64_t h, cudaStream_t stream);

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// Rotary positions, half-rotation layout: in every head the pair (x_i, x_{i + P/2}) is turned.
//   x, y [N, A, P]   turns [N, P]: of each row the P/2 cosines, then the P/2 sines, in f32
// Su et al. 2021, arXiv:2104.09864, eq. 34. `direction` 1 turns, -1 turns back: the gradient.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

constexpr double rope_bytes(std::int64_t n, std::int64_t heads, std::int64_t p, int element_bytes) {
  return double(n) * (2.0 * double(heads) * element_bytes + 4.0) * double(p);
}

/// y may be x.
template <class T>
cudaError_t rope(T* y, const T* x, const float* turns, std::int64_t n, std::int64_t heads,
                 std::int64_t p, float direction, cudaStream_t stream);

}  // namespace espalier::kernels

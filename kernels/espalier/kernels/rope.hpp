// SPDX-License-Identifier: Apache-2.0
// Rotary positions: in every head, pair i of the first `dims` values is rotated by an angle of its
// row, and the values behind them stay. A pair is (x_i, x_{i + dims/2}) or, interleaved,
// (x_2i, x_2i+1).    x, y [N, A, P]   table [N, dims]: of each row dims/2 cosines, then dims/2
// sines Su et al. 2021, arXiv:2104.09864, eq. 34. The table is f32; one rounding to T.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

struct RopeSizes {
  std::int64_t rows, heads, head_dim;  // N, A, P
  std::int64_t dims;                   // even, at most P
  bool interleaved = false;
};

/// x, y and the table, each once.
constexpr double rope_bytes(const RopeSizes& s, int element_bytes) {
  return double(s.rows) *
         (2.0 * double(s.heads) * double(s.head_dim) * element_bytes + 4.0 * double(s.dims));
}

/// `direction` 1 applies the rotation, -1 its inverse, which is the gradient. y may be x.
template <class T>
cudaError_t rope(T* y, const T* x, const float* table, const RopeSizes& sizes, float direction,
                 cudaStream_t stream);

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// Blocks of neighbouring columns, copied from row to row: narrow, pad_last, concat_heads and their
// gradients. Copies are exact; the sum over heads is f32 in their order, rounded once.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

/// The columns from `first` on of rows of `width` elements.
struct Columns {
  std::int64_t width, first;
};

/// Read what is copied, written all.
constexpr double place_columns_bytes(std::int64_t rows, std::int64_t count, std::int64_t width,
                                     int element_bytes) {
  return double(rows) * double(count + width) * element_bytes;
}

/// `count` columns of x to their place in y; zeros in the other columns of y.
template <class T>
cudaError_t place_columns(T* y, Columns at, const T* x, Columns source, std::int64_t rows,
                          std::int64_t count, cudaStream_t stream);

/// y = [a | b] per head.    a [N, A, P1]   b [N, B, P2], B = A or 1 for all   y [N, A, P1 + P2]
template <class T>
cudaError_t concat_heads(T* y, const T* a, const T* b, std::int64_t n, std::int64_t heads,
                         std::int64_t b_heads, std::int64_t p1, std::int64_t p2,
                         cudaStream_t stream);

/// y [N, count] = the columns of x [N, A, width], summed over the A heads.
template <class T>
cudaError_t sum_heads(T* y, const T* x, Columns source, std::int64_t n, std::int64_t heads,
                      std::int64_t count, cudaStream_t stream);

}  // namespace espalier::kernels

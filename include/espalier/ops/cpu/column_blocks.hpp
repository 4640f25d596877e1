// SPDX-License-Identifier: Apache-2.0
// Blocks of neighbouring columns, copied from the rows of one array to those of another.
#pragma once

#include <cstdint>

#include <espalier/core/algorithm.hpp>
#include <espalier/core/shape.hpp>
#include <espalier/core/threads.hpp>

namespace espalier {

namespace detail {
/// Rows of the last axis.
[[nodiscard]] inline std::int64_t rows_of(const Shape& shape) {
  std::int64_t rows = 1;
  for (int i = 0; i + 1 < shape.rank(); ++i) rows *= shape[i];
  return rows;
}
/// The shape with another last axis.
[[nodiscard]] inline Shape with_last(const Shape& shape, std::int64_t extent) {
  Shape other;
  for (int i = 0; i + 1 < shape.rank(); ++i) other.append(shape[i]);
  other.append(extent);
  return other;
}
}  // namespace detail

namespace cpu {

/// The columns from `first` on of rows of `width` elements.
struct Columns {
  std::int64_t width, first;
};

/// `count` columns of `from` to their place in `to`; zeros in the other columns of `to`.
template <class T>
void place_columns(std::int64_t rows, std::int64_t count, T* to, Columns at, const T* from,
                   Columns source) {
  parallel_for(rows, rows_per_task(at.width), [=](std::int64_t begin, std::int64_t end) {
    for (std::int64_t r = begin; r < end; ++r) {
      T* row = to + r * at.width;
      std::fill_n(row, at.first, T{});
      algo::copy_n(from + r * source.width + source.first, count, row + at.first);
      std::fill_n(row + at.first + count, at.width - at.first - count, T{});
    }
  });
}

}  // namespace cpu
}  // namespace espalier

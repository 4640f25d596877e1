// SPDX-License-Identifier: Apache-2.0
// narrow    y [..., length] = x [..., begin : begin + length], copied
// pad_last  y [..., width]  = x, then zeros
// Exact. The gradient of either puts or takes the same columns; those that narrow leaves out get
// zeros. Nothing is saved but the shape.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/column_blocks.hpp>

namespace espalier {

namespace detail {
/// Rows of zeros with columns [source, source + count) of x copied to column `at`.
template <FloatElement T, Device D>
Tensor<T, D> placed(const Tensor<T, D>& x, std::int64_t source, std::int64_t count,
                    const Shape& shape, std::int64_t at = 0) {
  Tensor<T, D> y(shape);
  cpu::place_columns(rows_of(x.shape()), count, y.data(), {shape[-1], at}, x.data(),
                     {x.shape(-1), source});
  return y;
}
/// Forward: saves the shape of x for the way back.
template <FloatElement T, Device D>
Tensor<T, D> placed_from(Saved& saved, const Tensor<T, D>& x, std::int64_t source,
                         std::int64_t count, const Shape& shape) {
  saved.tensors = {only_shape(x)};
  return placed(x, source, count, shape);
}
}  // namespace detail

struct Narrow {
  static constexpr const char* kName = "narrow";
  std::int64_t begin, length;

  /// @throws ShapeError when x has not these columns.
  Shape output(const Shape& x) const {
    ESP_REQUIRE(
        x.rank() > 0 && begin >= 0 && length >= 0 && begin <= x[-1] && length <= x[-1] - begin,
        ShapeError, kName, ": x is ", x, ", asked for ", length, " columns from ", begin, " on");
    return detail::with_last(x, length);
  }

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& x) const {
    ESP_CPU_ONLY(D, narrow, Narrow, column_blocks.hpp);
    return detail::placed_from(saved, x, begin, length, output(x.shape()));
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    return {detail::placed(dy, 0, length, saved.tensors[0].shape(), begin)};
  }
};

struct PadLast {
  static constexpr const char* kName = "pad_last";
  std::int64_t width;

  /// @throws ShapeError when x is wider already.
  Shape output(const Shape& x) const {
    ESP_REQUIRE(x.rank() > 0 && x[-1] <= width, ShapeError, kName, ": x is ", x,
                ", asked for a width of ", width);
    return detail::with_last(x, width);
  }

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& x) const {
    ESP_CPU_ONLY(D, pad_last, PadLast, column_blocks.hpp);
    return detail::placed_from(saved, x, 0, x.shape(-1), output(x.shape()));
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const Shape& shape = saved.tensors[0].shape();
    return {detail::placed(dy, 0, shape[-1], shape)};
  }
};

/// The values begin .. begin + length - 1 of the last axis.
/// @throws ShapeError when it has fewer.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> narrow(const Var<T, D>& x, std::int64_t begin, std::int64_t length) {
  return apply(Narrow{begin, length}, x);
}

/// Zeros after the last axis, up to `width`.
/// @throws ShapeError when it is wider.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> pad_last(const Var<T, D>& x, std::int64_t width) {
  return apply(PadLast{width}, x);
}

}  // namespace espalier

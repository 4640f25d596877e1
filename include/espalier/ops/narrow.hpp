// SPDX-License-Identifier: Apache-2.0
// narrow    y [..., length] = x [..., begin : begin + length], copied
// pad_last  y [..., width]  = x, then zeros
// Exact. The gradient of either puts or takes the same columns; those that narrow leaves out get
// zeros. Nothing is saved but the shape.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/column_blocks.hpp>

namespace espalier {

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
    static_assert(!D::is_cuda,
                  "narrow on this device: include <espalier/cuda/column_blocks.hpp>, which defines "
                  "Launch<Narrow>");
    Tensor<T, D> y(output(x.shape()));
    cpu::place_columns(detail::rows_of(x.shape()), length, y.data(), {length, 0}, x.data(),
                       {x.shape(-1), begin});
    saved.tensors = {AnyTensor(nullptr, x.shape(), x.dtype())};
    return y;
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const Tensor<T, D> dx(saved.tensors[0].shape());
    cpu::place_columns(detail::rows_of(dx.shape()), length, dx.data(), {dx.shape(-1), begin},
                       dy.data(), {length, 0});
    return {dx};
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
    static_assert(!D::is_cuda,
                  "pad_last on this device: include <espalier/cuda/column_blocks.hpp>, which "
                  "defines Launch<PadLast>");
    Tensor<T, D> y(output(x.shape()));
    cpu::place_columns(detail::rows_of(x.shape()), x.shape(-1), y.data(), {width, 0}, x.data(),
                       {x.shape(-1), 0});
    saved.tensors = {AnyTensor(nullptr, x.shape(), x.dtype())};
    return y;
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const Tensor<T, D> dx(saved.tensors[0].shape());
    cpu::place_columns(detail::rows_of(dx.shape()), dx.shape(-1), dx.data(), {dx.shape(-1), 0},
                       dy.data(), {width, 0});
    return {dx};
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

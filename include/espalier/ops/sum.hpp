// SPDX-License-Identifier: Apache-2.0
// y = sum over all elements of x, shape [1]; accumulated in double in memory order.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/scale.hpp>

namespace espalier {

struct Sum {
  static constexpr const char* kName = "sum";

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& x) const {
    static_assert(!D::is_cuda, "sum: no CUDA path");
    double total = 0;
    for (const T v : x.span()) total += v;
    saved.tensors = {x};
    return Tensor<T, D>(Shape{1}, static_cast<T>(total));
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    return {Tensor<T, D>(saved.tensors[0].shape(), dy[0])};
  }
};

template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> sum(const Var<T, D>& x) {
  return apply(Sum{}, x);
}

/// Mean over all elements, shape [1].
/// @throws ShapeError when x is empty.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> mean(const Var<T, D>& x) {
  ESP_REQUIRE(x.any().numel() > 0, ShapeError, "mean: x is ", x.shape(), ", expected an element");
  return scale(sum(x), 1.0 / static_cast<double>(x.any().numel()));
}

}  // namespace espalier

// SPDX-License-Identifier: Apache-2.0
// y = a + b, elementwise, equal shapes. Rounded to T once.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier {

struct Add {
  static constexpr const char* kName = "add";

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved&, const Tensor<T, D>& a, const Tensor<T, D>& b) const {
    ESP_CPU_ONLY(D, add, Add, elementwise.hpp);
    ESP_REQUIRE(a.shape() == b.shape(), ShapeError, kName, ": a is ", a.shape(), ", b is ",
                b.shape());
    Tensor<T, D> y(a.shape());
    cpu::map(
        y.numel(), [](const auto& u, const auto& v) ESP_SIMD_LAMBDA { return u + v; }, y.data(),
        a.data(), b.data());
    return y;
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved&, const Tensor<T, D>& dy) const {
    return {dy, dy};
  }
};

/// @throws ShapeError when a and b differ.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> add(const Var<T, D>& a, const Var<T, D>& b) {
  return apply(Add{}, a, b);
}

}  // namespace espalier

// SPDX-License-Identifier: Apache-2.0
// y = a · b, elementwise, equal shapes. Rounded to T once. Saves what the wanted gradients need.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier {

struct Mul {
  static constexpr const char* kName = "mul";

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& a, const Tensor<T, D>& b) const {
    ESP_CPU_ONLY(D, mul, Mul, elementwise.hpp);
    ESP_REQUIRE(a.shape() == b.shape(), ShapeError, kName, ": a is ", a.shape(), ", b is ",
                b.shape());
    saved.tensors.resize(2);
    if (saved.needs[1]) saved.tensors[0] = a;
    if (saved.needs[0]) saved.tensors[1] = b;
    return product(a, b);
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    std::array<AnyTensor, 2> grads;
    if (saved.needs[0]) grads[0] = product(dy, saved.get<T, D>(1));
    if (saved.needs[1]) grads[1] = product(dy, saved.get<T, D>(0));
    return grads;
  }

 private:
  template <FloatElement T, Device D>
  static Tensor<T, D> product(const Tensor<T, D>& a, const Tensor<T, D>& b) {
    Tensor<T, D> y(a.shape());
    cpu::map(
        y.numel(), [](const auto& u, const auto& v) ESP_SIMD_LAMBDA { return u * v; }, y.data(),
        a.data(), b.data());
    return y;
  }
};

/// @throws ShapeError when a and b differ.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> mul(const Var<T, D>& a, const Var<T, D>& b) {
  return apply(Mul{}, a, b);
}

}  // namespace espalier

// SPDX-License-Identifier: Apache-2.0
// y = factor · x, with a factor that is no variable. The factor is rounded to acc_t, y to T.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier {

struct Scale {
  static constexpr const char* kName = "scale";
  double factor;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved&, const Tensor<T, D>& x) const {
    ESP_CPU_ONLY(D, scale, Scale, elementwise.hpp);
    Tensor<T, D> y(x.shape());
    const auto f = static_cast<acc_t<T>>(factor);
    cpu::map(
        y.numel(),
        [f](const auto& v) ESP_SIMD_LAMBDA { return std::remove_cvref_t<decltype(v)>(f) * v; },
        y.data(), x.data());
    return y;
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved&, const Tensor<T, D>& dy) const {
    Saved none;
    return {forward(none, dy)};
  }
};

/// @throws Error when the factor is not finite.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> scale(const Var<T, D>& x, double factor) {
  ESP_REQUIRE(factor - factor == 0, Error, "scale: factor is ", factor,
              ", expected a finite number");
  return apply(Scale{factor}, x);
}

}  // namespace espalier

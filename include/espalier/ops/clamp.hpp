// SPDX-License-Identifier: Apache-2.0
// y = low where x < low, high where x > high, x elsewhere, NaN included; elementwise.
// The bounds are rounded to T first, so y is exact. dx = dy where low <= x <= high, the bounds
// themselves included as torch has it up to 2.14 (2.15 gives 0 at a bound), and 0 elsewhere, at NaN
// too. Saves x.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/clamp.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier {

struct Clamp {
  static constexpr const char* kName = "clamp";
  double low, high;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& x) const {
    ESP_CPU_ONLY(D, clamp, Clamp, elementwise.hpp);
    Tensor<T, D> y(x.shape());
    const auto from = cpu::bound_of<T>(low), to = cpu::bound_of<T>(high);
    cpu::map(
        y.numel(),
        [=](const auto& v) ESP_SIMD_LAMBDA {
          using V = std::remove_cvref_t<decltype(v)>;
          return simd::clamp(v, V(from), V(to));
        },
        y.data(), x.data());
    saved.tensors = {x};
    return y;
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const auto x = saved.get<T, D>(0);
    const Tensor<T, D> dx(dy.shape());
    const auto from = cpu::bound_of<T>(low), to = cpu::bound_of<T>(high);
    cpu::map(
        dx.numel(),
        [=](const auto& d, const auto& v) ESP_SIMD_LAMBDA {
          using V = std::remove_cvref_t<decltype(v)>;
          return select(simd::within(v, V(from), V(to)), d, V(0));
        },
        dx.data(), dy.data(), x.data());
    return {dx};
  }
};

/// @throws Error when low is not at most high; either may be infinite.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> clamp(const Var<T, D>& x, double low, double high) {
  ESP_REQUIRE(low <= high, Error, "clamp: low is ", low, ", high is ", high,
              ", expected low <= high");
  return apply(Clamp{low, high}, x);
}

}  // namespace espalier

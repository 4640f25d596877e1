// SPDX-License-Identifier: Apache-2.0
// The same values in another float type, rounded to nearest even; the gradient is cast back.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier {

template <FloatElement From>
struct Cast {
  static constexpr const char* kName = "cast";

  template <FloatElement To, Device D = Cpu>
  Tensor<To, D> forward(Saved&, const AnyTensors& in) const {
    return converted<To>(Tensor<From, D>(in[0]));
  }
  template <FloatElement To, Device D = Cpu>
  AnyTensors backward(const Saved&, const Tensor<To, D>& dy) const {
    return {converted<From>(dy)};
  }

 private:
  template <FloatElement B, FloatElement A, Device D>
  static Tensor<B, D> converted(const Tensor<A, D>& x) {
    ESP_CPU_ONLY(D, cast, Cast, elementwise.hpp);
    Tensor<B, D> y(x.shape());
    cpu::map(x.numel(), cpu::Identity{}, y.data(), x.data());
    return y;
  }
};

/// `cast<bf16>(x)`; `x` itself where it has the type.
template <FloatElement To, FloatElement From, Device D>
[[nodiscard]] Var<To, D> cast(const Var<From, D>& x) {
  if constexpr (std::same_as<To, From>) {
    return x;
  } else {
    return apply_list<To, D>(Cast<From>{}, {x});
  }
}

}  // namespace espalier

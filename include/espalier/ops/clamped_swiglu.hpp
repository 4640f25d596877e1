// SPDX-License-Identifier: Apache-2.0
// y = (u + 1) · g · sigmoid(alpha · g)  with  g = min(gate, limit),  u = clamp(up, -limit, limit),
// elementwise.                                                          gate, up, y [R, F]
// The activation of gpt-oss's experts (OpenAI 2025, arXiv:2508.10925). The limit is
// rounded to T, alpha to acc_t; computed in acc_t, each result rounded to T once. Gradients pass
// the bounds as in ops/clamp.hpp. Saves gate and up; backward recomputes the sigmoid.
#pragma once

#include <limits>

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/clamp.hpp>
#include <espalier/ops/swiglu.hpp>

namespace espalier {

struct ClampedSwiGlu {
  static constexpr const char* kName = "clamped_swiglu";
  double alpha = 1.702, limit = 7;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& gate, const Tensor<T, D>& up) const {
    ESP_CPU_ONLY(D, clamped_swiglu, ClampedSwiGlu, swiglu.hpp);
    const auto top = cpu::bound_of<T>(limit), slope = static_cast<acc_t<T>>(alpha);
    return detail::gated(kName, saved, gate, up,
                         [=](const auto& gate_v, const auto& up_v) ESP_SIMD_LAMBDA {
                           using V = std::remove_cvref_t<decltype(gate_v)>;
                           const V g = min(V(top), gate_v), u = simd::clamp(up_v, V(-top), V(top));
                           return (u + V(1)) * (g * sigmoid(V(slope) * g));
                         });
  }

  // With s = sigmoid(alpha g): d(g s)/dg = s (1 + alpha g (1 - s)).
  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const auto top = cpu::bound_of<T>(limit), slope = static_cast<acc_t<T>>(alpha);
    constexpr auto kInfinity = std::numeric_limits<acc_t<T>>::infinity();
    return detail::gated_gradients(
        saved, dy,
        [=](const auto& d, const auto& gate_v, const auto& up_v, auto& dg, auto& du)
            ESP_SIMD_LAMBDA {
              using V = std::remove_cvref_t<decltype(gate_v)>;
              const V g = min(V(top), gate_v), u = simd::clamp(up_v, V(-top), V(top));
              const V z = V(slope) * g;
              const auto s = sigmoid_and_rest(z);
              dg = select(simd::within(gate_v, V(-kInfinity), V(top)),
                          d * (u + V(1)) * s.value * fma(z, s.rest, V(1)), V(0));
              du = select(simd::within(up_v, V(-top), V(top)), d * (g * s.value), V(0));
            });
  }
};

/// @throws ShapeError when gate and up differ; Error when the limit is negative.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> clamped_swiglu(const Var<T, D>& gate, const Var<T, D>& up,
                                       double alpha = ClampedSwiGlu{}.alpha,
                                       double limit = ClampedSwiGlu{}.limit) {
  ESP_REQUIRE(limit >= 0, Error, "clamped_swiglu: limit is ", limit, ", expected at least 0");
  return apply(ClampedSwiGlu{alpha, limit}, gate, up);
}

}  // namespace espalier

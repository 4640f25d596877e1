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
#include <espalier/ops/cpu/map_to_two.hpp>

namespace espalier {

struct ClampedSwiGlu {
  static constexpr const char* kName = "clamped_swiglu";
  double alpha, limit;

  static void check(const Shape& gate, const Shape& up) {
    ESP_REQUIRE(gate == up, ShapeError, kName, ": gate is ", gate, ", up is ", up,
                "; expected equal shapes");
  }

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& gate, const Tensor<T, D>& up) const {
    static_assert(!D::is_cuda,
                  "clamped_swiglu on this device: include <espalier/cuda/clamped_swiglu.hpp>, "
                  "which defines Launch<ClampedSwiGlu>");
    check(gate.shape(), up.shape());
    Tensor<T, D> y(gate.shape());
    const auto top = cpu::bound_of<T>(limit), slope = static_cast<acc_t<T>>(alpha);
    cpu::map(
        y.numel(),
        [=](const auto& gate_v, const auto& up_v) ESP_SIMD_LAMBDA {
          using V = std::remove_cvref_t<decltype(gate_v)>;
          const V g = min(V(top), gate_v), u = simd::clamp(up_v, V(-top), V(top));
          return (u + V(1)) * (g * sigmoid(V(slope) * g));
        },
        y.data(), gate.data(), up.data());
    saved.tensors = {gate, up};
    return y;
  }

  // With s = sigmoid(alpha g): d(g s)/dg = s (1 + alpha g (1 - s)).
  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const auto gate = saved.get<T, D>(0), up = saved.get<T, D>(1);
    const Tensor<T, D> dgate(dy.shape()), dup(dy.shape());
    const auto top = cpu::bound_of<T>(limit), slope = static_cast<acc_t<T>>(alpha);
    constexpr auto kInfinity = std::numeric_limits<acc_t<T>>::infinity();
    cpu::map_to_two(
        dy.numel(),
        [=](const auto& d, const auto& gate_v, const auto& up_v, auto& dg, auto& du)
            ESP_SIMD_LAMBDA {
              using V = std::remove_cvref_t<decltype(gate_v)>;
              const V g = min(V(top), gate_v), u = simd::clamp(up_v, V(-top), V(top));
              const V z = V(slope) * g;
              const auto s = sigmoid_and_rest(z);
              dg = select(simd::within(gate_v, V(-kInfinity), V(top)),
                          d * (u + V(1)) * s.value * fma(z, s.rest, V(1)), V(0));
              du = select(simd::within(up_v, V(-top), V(top)), d * (g * s.value), V(0));
            },
        dgate.data(), dup.data(), dy.data(), gate.data(), up.data());
    return {dgate, dup};
  }
};

/// @throws ShapeError when gate and up differ; Error when the limit is negative.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> clamped_swiglu(const Var<T, D>& gate, const Var<T, D>& up,
                                       double alpha = 1.702, double limit = 7) {
  ESP_REQUIRE(limit >= 0, Error, "clamped_swiglu: limit is ", limit, ", expected at least 0");
  return apply(ClampedSwiGlu{alpha, limit}, gate, up);
}

}  // namespace espalier

// SPDX-License-Identifier: Apache-2.0
// y = silu(gate) · up, elementwise.                                     gate, up, y [R, F]
// Shazeer 2020, arXiv:2002.05202, eq. 6. Saves gate and up; backward recomputes the sigmoid. Each
// result is rounded to T once.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/map_to_two.hpp>

namespace espalier {

namespace detail {

inline void check_gated(const char* op, const Shape& gate, const Shape& up) {
  ESP_REQUIRE(gate == up, ShapeError, op, ": gate is ", gate, ", up is ", up,
              "; expected equal shapes");
}

/// Forward of an activation y = f(gate, up), with f as cpu::map takes it. Saves gate and up.
template <FloatElement T, Device D, class F>
Tensor<T, D> gated(const char* op, Saved& saved, const Tensor<T, D>& gate, const Tensor<T, D>& up,
                   const F& f) {
  check_gated(op, gate.shape(), up.shape());
  Tensor<T, D> y(gate.shape());
  cpu::map(y.numel(), f, y.data(), gate.data(), up.data());
  saved.tensors = {gate, up};
  return y;
}
/// Its backward: f(dy, gate, up, dgate&, dup&), as cpu::map_to_two takes it.
template <FloatElement T, Device D, class F>
std::array<AnyTensor, 2> gated_gradients(const Saved& saved, const Tensor<T, D>& dy, const F& f) {
  const auto gate = saved.get<T, D>(0), up = saved.get<T, D>(1);
  const Tensor<T, D> dgate(dy.shape()), dup(dy.shape());
  cpu::map_to_two(dy.numel(), f, dgate.data(), dup.data(), dy.data(), gate.data(), up.data());
  return {dgate, dup};
}

}  // namespace detail

struct SwiGlu {
  static constexpr const char* kName = "swiglu";

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& gate, const Tensor<T, D>& up) const {
    ESP_CPU_ONLY(D, swiglu, SwiGlu, swiglu.hpp);
    return detail::gated(kName, saved, gate, up, [](const auto& g, const auto& u) ESP_SIMD_LAMBDA {
      return g * sigmoid(g) * u;
    });
  }

  // silu' = s (1 + g (1 - s)) with s = sigmoid(g).
  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    return detail::gated_gradients(
        saved, dy,
        [](const auto& d, const auto& g, const auto& u, auto& dg, auto& du) ESP_SIMD_LAMBDA {
          const auto s = sigmoid_and_rest(g);
          dg = d * u * s.value * fma(g, s.rest, std::remove_cvref_t<decltype(g)>(1));
          du = d * (g * s.value);
        });
  }
};

/// @throws ShapeError when gate and up differ.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> swiglu(const Var<T, D>& gate, const Var<T, D>& up) {
  return apply(SwiGlu{}, gate, up);
}

}  // namespace espalier

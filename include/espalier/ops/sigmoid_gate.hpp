// SPDX-License-Identifier: Apache-2.0
// y = x · sigmoid(gate), one gate per row.                             x, y [N, H]   gate [N, 1]
// How Qwen2-MoE weighs its shared expert (Yang et al. 2024, arXiv:2407.10671). Computed in acc_t;
// the dot product of a row in dgate = s (1 - s) <dy, x> runs over vector lanes, in one order for
// each width. Each result is rounded to T once. Saves the gate, and x where its gate's gradient is
// wanted.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier {

struct SigmoidGate {
  static constexpr const char* kName = "sigmoid_gate";

  static void check(const Shape& x, const Shape& gate) {
    ESP_REQUIRE(x.rank() == 2 && gate == Shape({x[0], 1}), ShapeError, kName, ": x is ", x,
                ", gate is ", gate, "; expected x [N, H] and gate [N, 1]");
  }

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& x, const Tensor<T, D>& gate) const {
    ESP_CPU_ONLY(D, sigmoid_gate, SigmoidGate, sigmoid_gate.hpp);
    check(x.shape(), gate.shape());
    const std::int64_t h = x.shape(1);
    Tensor<T, D> y(x.shape());
    const T* gates = gate.data();
    parallel_for(x.shape(0), rows_per_task(h), [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        using V = simd::Native<T, W>;
        for (std::int64_t n = begin; n < end; ++n) {
          const V s = sigmoid(V(static_cast<acc_t<T>>(gates[n])));
          scale_row<W>(s, h, x.data() + n * h, y.data() + n * h);
        }
      });
    });
    saved.tensors = {saved.needs[1] ? x : Tensor<T, D>(), gate};
    return y;
  }

  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const auto x = saved.get<T, D>(0), gate = saved.get<T, D>(1);
    const std::int64_t h = dy.shape(1);
    Tensor<T, D> dx, dgate;
    if (saved.needs[0]) dx = Tensor<T, D>(dy.shape());
    if (saved.needs[1]) dgate = Tensor<T, D>(gate.shape());
    const T* gates = gate.data();
    parallel_for(dy.shape(0), rows_per_task(h), [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        using V = simd::Native<T, W>;
        for (std::int64_t n = begin; n < end; ++n) {
          const auto s = sigmoid_and_rest(V(static_cast<acc_t<T>>(gates[n])));
          const T* d = dy.data() + n * h;
          if (dgate) {
            const T* row = x.data() + n * h;
            const auto product =
                simd::sum_over<V>(h, [=](std::int64_t c, auto lanes, const V& sum) ESP_SIMD_LAMBDA {
                  return fma(V::load_ahead(d + c, lanes), V::load_ahead(row + c, lanes), sum);
                });
            dgate.data()[n] = static_cast<T>(product * s.value[0] * s.rest[0]);
          }
          if (dx) scale_row<W>(s.value, h, d, dx.data() + n * h);
        }
      });
    });
    return {dx, dgate};
  }

 private:
  template <int W, class V, FloatElement T>
  static ESP_SIMD_INLINE void scale_row(const V& factor, std::int64_t h, const T* x, T* y) {
    cpu::map_row<W>(
        h, [&](const V& v) ESP_SIMD_LAMBDA { return v * factor; }, y, x);
  }
};

/// @throws ShapeError when there is not one gate per row of x.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> sigmoid_gate(const Var<T, D>& x, const Var<T, D>& gate) {
  return apply(SigmoidGate{}, x, gate);
}

}  // namespace espalier

// SPDX-License-Identifier: Apache-2.0
// y = silu(gate) · up, elementwise.                                     gate, up, y [R, F]
// Shazeer 2020, arXiv:2002.05202, eq. 6. Saves gate and up; backward recomputes the sigmoid. Each
// result is rounded to T once.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier {

struct SwiGlu {
  static constexpr const char* kName = "swiglu";
  static constexpr std::int64_t kGrain = 1 << 14;  // elements a task of backward

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& gate, const Tensor<T, D>& up) const {
    static_assert(
        !D::is_cuda,
        "swiglu on this device: include <espalier/cuda/swiglu.hpp>, which defines Launch<SwiGlu>");
    ESP_REQUIRE(gate.shape() == up.shape(), ShapeError, kName, ": gate is ", gate.shape(),
                ", up is ", up.shape(), "; expected equal shapes");
    Tensor<T, D> y(gate.shape());
    cpu::map(
        y.numel(), [](const auto& g, const auto& u) ESP_SIMD_LAMBDA { return g * sigmoid(g) * u; },
        y.data(), gate.data(), up.data());
    saved.tensors = {gate, up};
    return y;
  }

  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const auto gate = saved.get<T, D>(0), up = saved.get<T, D>(1);
    const Tensor<T, D> dgate(dy.shape()), dup(dy.shape());
    const T *pg = gate.data(), *pu = up.data(), *pd = dy.data();
    T *pdg = dgate.data(), *pdu = dup.data();
    parallel_for(dy.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
      simd::dispatch([=]<int W>() {
        using V = simd::Native<T, W>;
        std::int64_t done = begin;
        if constexpr (std::same_as<T, bf16>) {
          using Pair = simd::Pair<W>;
          for (; done + 2 * W <= end; done += 2 * W) {
            const Pair g = Pair::load_ahead(pg + done), u = Pair::load_ahead(pu + done),
                       d = Pair::load_ahead(pd + done);
            Pair dg, du;
            gradients(g.even, u.even, d.even, dg.even, du.even);
            gradients(g.odd, u.odd, d.odd, dg.odd, du.odd);
            dg.store(pdg + done);
            du.store(pdu + done);
          }
        }
        simd::for_each_vector<V>(done, end, [=](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
          V dg, du;
          gradients(V::load_ahead(pg + i, lanes), V::load_ahead(pu + i, lanes),
                    V::load_ahead(pd + i, lanes), dg, du);
          dg.store(pdg + i, lanes);
          du.store(pdu + i, lanes);
        });
      });
    });
    return {dgate, dup};
  }

 private:
  // silu' = s (1 + g (1 - s)) with s = sigmoid(g).
  template <class V>
  static ESP_SIMD_INLINE void gradients(const V& g, const V& up, const V& dy, V& dgate, V& dup) {
    const auto s = sigmoid_and_rest(g);
    dgate = dy * up * s.value * fma(g, s.rest, V(1));
    dup = dy * (g * s.value);
  }
};

/// @throws ShapeError when gate and up differ.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> swiglu(const Var<T, D>& gate, const Var<T, D>& up) {
  return apply(SwiGlu{}, gate, up);
}

}  // namespace espalier

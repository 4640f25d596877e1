// SPDX-License-Identifier: Apache-2.0
// y = silu(gate) · up, elementwise.                                     gate, up, y [R, F]
// Shazeer 2020, arXiv:2002.05202, eq. 6. Saves gate and up; backward recomputes the sigmoid. Each
// result is rounded to T once.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/simd.hpp>

namespace espalier {

struct SwiGlu {
  static constexpr const char* kName = "swiglu";
  static constexpr std::int64_t kGrain = 1 << 14;  // elements a task, a multiple of every width

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& gate, const Tensor<T, D>& up) const {
    static_assert(!D::is_cuda, "swiglu: no CUDA path");
    ESP_REQUIRE(gate.shape() == up.shape(), ShapeError, kName, ": gate is ", gate.shape(),
                ", up is ", up.shape(), "; expected equal shapes");
    Tensor<T, D> y(gate.shape());
    const T *pg = gate.data(), *pu = up.data();
    T* py = y.data();
    parallel_for(y.numel(), kGrain, [=](std::int64_t begin, std::int64_t end) {
      simd::dispatch([=]<int W>() {
        using V = simd::Native<T, W>;
        simd::for_each_vector<V>(begin, end, [=](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
          value(V::load_ahead(pg + i, lanes), V::load_ahead(pu + i, lanes)).store(py + i, lanes);
        });
      });
    });
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
        simd::for_each_vector<V>(begin, end, [=](std::int64_t i, auto lanes) ESP_SIMD_LAMBDA {
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
  template <class V>
  static ESP_SIMD_INLINE V value(const V& gate, const V& up) {
    return gate * sigmoid(gate) * up;
  }
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

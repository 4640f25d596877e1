// SPDX-License-Identifier: Apache-2.0
// y = silu(gate) · up, elementwise.                                     gate, up, y [R, F]
// Shazeer 2020, arXiv:2002.05202, eq. 6. Saves gate and up; backward recomputes the sigmoid.
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
        std::int64_t i = begin;
        for (; i + V::kLanes <= end; i += V::kLanes) {
          value(V::load(pg + i), V::load(pu + i)).store(py + i);
        }
        if (const int n = static_cast<int>(end - i); n > 0) {
          value(V::load_partial(pg + i, n), V::load_partial(pu + i, n)).store_partial(py + i, n);
        }
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
        std::int64_t i = begin;
        for (; i + V::kLanes <= end; i += V::kLanes) {
          const V g = V::load(pg + i), d = V::load(pd + i), s = sigmoid(g);
          slope(g, s, d * V::load(pu + i)).store(pdg + i);
          (d * (g * s)).store(pdu + i);
        }
        if (const int n = static_cast<int>(end - i); n > 0) {
          const V g = V::load_partial(pg + i, n), d = V::load_partial(pd + i, n), s = sigmoid(g);
          slope(g, s, d * V::load_partial(pu + i, n)).store_partial(pdg + i, n);
          (d * (g * s)).store_partial(pdu + i, n);
        }
      });
    });
    return {dgate, dup};
  }

 private:
  template <class V>
  static ESP_SIMD_INLINE V value(const V& gate, const V& up) {
    return gate * sigmoid(gate) * up;
  }
  // du · s (1 + g (1 - s)), the derivative of silu with s = sigmoid(g). Far out g (1 - s) is 0.
  template <class V>
  static ESP_SIMD_INLINE V slope(const V& g, const V& s, const V& du) {
    return du * s * (V(1) + g * sigmoid(-g));
  }
};

/// @throws ShapeError when gate and up differ.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> swiglu(const Var<T, D>& gate, const Var<T, D>& up) {
  return apply(SwiGlu{}, gate, up);
}

}  // namespace espalier

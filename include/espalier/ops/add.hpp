// SPDX-License-Identifier: Apache-2.0
// y = a + b, elementwise, equal shapes.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>

namespace espalier {

struct Add {
  static constexpr const char* kName = "add";

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved&, const Tensor<T, D>& a, const Tensor<T, D>& b) const {
    static_assert(!D::is_cuda, "add: no CUDA path");
    ESP_REQUIRE(a.shape() == b.shape(), ShapeError, kName, ": a is ", a.shape(), ", b is ",
                b.shape());
    Tensor<T, D> y(a.shape());
    const T *pa = a.data(), *pb = b.data();
    T* py = y.data();
    parallel_for(y.numel(), 1 << 15, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) py[i] = pa[i] + pb[i];
    });
    return y;
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved&, const Tensor<T, D>& dy) const {
    return {dy, dy};
  }
};

template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> add(const Var<T, D>& a, const Var<T, D>& b) {
  return apply(Add{}, a, b);
}

}  // namespace espalier

// SPDX-License-Identifier: Apache-2.0
// y = factor · x, with a factor that is no variable.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>

namespace espalier {

struct Scale {
  static constexpr const char* kName = "scale";
  double factor;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved&, const Tensor<T, D>& x) const {
    static_assert(!D::is_cuda, "scale: no CUDA path");
    Tensor<T, D> y(x.shape());
    const T f = static_cast<T>(factor);
    const T* px = x.data();
    T* py = y.data();
    parallel_for(y.numel(), 1 << 15, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) py[i] = f * px[i];
    });
    return y;
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved&, const Tensor<T, D>& dy) const {
    Saved none;
    return {forward(none, dy)};
  }
};

/// @throws Error when the factor is not finite.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> scale(const Var<T, D>& x, double factor) {
  ESP_REQUIRE(factor - factor == 0, Error, "scale: factor is ", factor,
              ", expected a finite number");
  return apply(Scale{factor}, x);
}

}  // namespace espalier

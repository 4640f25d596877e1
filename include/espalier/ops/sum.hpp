// SPDX-License-Identifier: Apache-2.0
// y = sum over all elements of x, shape [1], in acc_t. Accumulated in double: blocks of a fixed
// size over vector lanes, then the blocks in memory order.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/simd.hpp>
#include <espalier/ops/scale.hpp>

namespace espalier {

template <FloatElement T>
struct Sum {
  static constexpr const char* kName = "sum";
  static constexpr std::int64_t kBlock = 1 << 15;

  template <std::floating_point A, Device D = Cpu>
  Tensor<A, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, sum, Sum, sum.hpp);
    const Tensor<T, D> x(in[0]);
    const std::int64_t n = x.numel();
    std::vector<double> parts((n + kBlock - 1) / kBlock);
    parallel_for(n, kBlock, [&](std::int64_t begin, std::int64_t end) {
      const T* from = x.data() + begin;
      simd::dispatch([&]<int W>() {
        using V = simd::Native<double, W>;
        parts[begin / kBlock] = simd::sum_over<V>(
            end - begin, [=](std::int64_t i, auto lanes, const V& sum)
                             ESP_SIMD_LAMBDA { return sum + V::load(from + i, lanes); });
      });
    });
    double total = 0;
    for (const double part : parts) total += part;
    // Only the shape is needed; a tensor of no elements carries it without holding the memory.
    saved.tensors = {only_shape(x)};
    return Tensor<A, D>(Shape{1}, static_cast<A>(total));
  }
  template <std::floating_point A, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<A, D>& dy) const {
    return {Tensor<T, D>(saved.tensors[0].shape(), static_cast<T>(dy[0]))};
  }
};

/// Sum over all elements, shape [1].
template <FloatElement T, Device D>
[[nodiscard]] Var<acc_t<T>, D> sum(const Var<T, D>& x) {
  return apply_list<acc_t<T>, D>(Sum<T>{}, {x});
}

/// Mean over all elements, shape [1].
/// @throws ShapeError when x is empty.
template <FloatElement T, Device D>
[[nodiscard]] Var<acc_t<T>, D> mean(const Var<T, D>& x) {
  ESP_REQUIRE(x.any().numel() > 0, ShapeError, "mean: x is ", x.shape(), ", expected an element");
  return scale(sum(x), 1.0 / static_cast<double>(x.any().numel()));
}

}  // namespace espalier

// SPDX-License-Identifier: Apache-2.0
// y = softmax of x over the last axis, any number of axes before it.
// Computed in acc_t, rounded to T once. Saves x and computes the softmax again: a y rounded to bf16
// would put its error into every element of dx.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/ops/cpu/softmax.hpp>

namespace espalier {

struct Softmax {
  static constexpr const char* kName = "softmax";

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& x) const {
    ESP_CPU_ONLY(D, softmax, Softmax, softmax.hpp);
    check(x.shape());
    Tensor<T, D> y(x.shape());
    const T* from = x.data();
    T* to = y.data();
    each_row<T>(x.shape(),
                [=]<int W>(std::int64_t at, std::int64_t n, acc_t<T>* p) ESP_SIMD_LAMBDA {
                  cpu::softmax_row<W>(from + at, n, p);
                  cpu::map_row<W>(n, cpu::Identity{}, to + at, p);
                });
    saved.tensors = {x};
    return y;
  }

  // dx = y (dy - <y, dy>)
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const Tensor<T, D> dx(dy.shape());
    const auto x = saved.get<T, D>(0);
    const T *px = x.data(), *pd = dy.data();
    T* to = dx.data();
    each_row<T>(dx.shape(),
                [=]<int W>(std::int64_t at, std::int64_t n, acc_t<T>* p) ESP_SIMD_LAMBDA {
                  using V = simd::Native<T, W>;
                  cpu::softmax_row<W>(px + at, n, p);
                  const V mean(cpu::dot_row<W>(p, pd + at, n));
                  cpu::map_row<W>(
                      n, [=](const V& y, const V& d) ESP_SIMD_LAMBDA { return y * (d - mean); },
                      to + at, p, pd + at);
                });
    return {dx};
  }

  static void check(const Shape& x) {
    ESP_REQUIRE(x.rank() >= 1, ShapeError, kName, ": x is ", x, ", expected at least one axis");
  }

 private:
  /// body(first element, length, scratch of that length) for every row.
  template <FloatElement T, class Body>
  static void each_row(const Shape& shape, const Body& body) {
    const std::int64_t n = shape[-1], rows = n == 0 ? 0 : shape.numel() / n;
    parallel_for(rows, rows_per_task(n), [&](std::int64_t begin, std::int64_t end) {
      const Tensor<acc_t<T>> scratch(Shape{n});
      simd::dispatch([&]<int W>() {
        for (std::int64_t r = begin; r < end; ++r) {
          body.template operator()<W>(r * n, n, scratch.data());
        }
      });
    });
  }
};

/// @throws ShapeError when x has no axis.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> softmax(const Var<T, D>& x) {
  return apply(Softmax{}, x);
}

}  // namespace espalier

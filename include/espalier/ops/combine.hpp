// SPDX-License-Identifier: Apache-2.0
// y[n] = sum over slots k of weights[n, k] · rows[row of (n, k)].
//   rows [R, H] in expert order   weights [N, K] in acc_t   y [N, H]
// Summed in acc_t in slot order, rounded to T once. Saves the rows where the weights want a
// gradient.
#pragma once

#include <espalier/ops/dispatch.hpp>
#include <espalier/ops/router_top_k.hpp>

namespace espalier {

namespace detail {
/// For sum_slots(): weights [N, K], one per slot.
template <std::floating_point A>
struct WeightedSum {
  const A* weights;

  template <class V>
  ESP_SIMD_INLINE V first(std::int64_t slot, const V& row) const {
    return V(weights[slot]) * row;
  }
  template <class V>
  ESP_SIMD_INLINE V next(std::int64_t slot, const V& row, const V& sum) const {
    return fma(V(weights[slot]), row, sum);
  }
};
}  // namespace detail

template <Device On = Cpu>
struct Combine {
  static constexpr const char* kName = "combine";
  BasicRouting<On> routing;

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, combine, Combine, moe.hpp);
    const Tensor<T, D> rows(in[0]);
    const Tensor<acc_t<T>, D> weights(in[1]);
    ESP_REQUIRE(rows.shape().rank() == 2 && rows.shape(0) == routing.rows(), ShapeError, kName,
                ": rows are ", rows.shape(), ", the routing has ", routing.rows());
    const Shape expected{routing.tokens, routing.top_k};
    ESP_REQUIRE(weights.shape() == expected, ShapeError, kName, ": weights are ", weights.shape(),
                ", expected ", expected);
    Tensor<T, D> y(Shape{routing.tokens, rows.shape(1)});
    detail::sum_slots(routing, rows.shape(1), rows.data(), y.data(),
                      detail::WeightedSum<acc_t<T>>{weights.data()});
    saved.tensors = {only_shape(rows), weights};
    if (saved.needs[1]) saved.tensors[0] = rows;
    return y;
  }

  // drows = w dy of its token;  dweights = <rows, dy of its token>
  template <FloatElement T, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const auto rows = saved.get<T, D>(0);
    const auto weights = saved.get<acc_t<T>, D>(1);
    const std::int64_t h = dy.shape(1), k = routing.top_k;
    AnyTensors grads(2);
    Tensor<T, D> drows;
    Tensor<acc_t<T>, D> dweights;
    if (saved.needs[0]) grads[0] = drows = Tensor<T, D>(rows.shape());
    if (saved.needs[1]) grads[1] = dweights = Tensor<acc_t<T>, D>(weights.shape());
    parallel_for(routing.rows(), rows_per_task(h), [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        using V = simd::Native<T, W>;
        for (std::int64_t r = begin; r < end; ++r) {
          const std::int64_t slot = routing.slot_of_row.data()[r];
          const T* up = dy.data() + slot / k * h;
          if (dweights) dweights.data()[slot] = cpu::dot_row<W>(rows.data() + r * h, up, h);
          if (drows) {
            const V w(weights.data()[slot]);
            cpu::map_row<W>(
                h, [=](const V& v) ESP_SIMD_LAMBDA { return w * v; }, drows.data() + r * h, up);
          }
        }
      });
    });
    return grads;
  }
};

/// @throws ShapeError when rows or weights do not fit the routing.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> combine(const Var<T, D>& rows, const Var<acc_t<T>, D>& weights,
                                const BasicRouting<D>& routing) {
  return apply_list<T, D>(Combine<D>{routing}, {rows, weights});
}

}  // namespace espalier

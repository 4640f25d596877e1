// SPDX-License-Identifier: Apache-2.0
// y[n] = sum over slots k of weights[n, k] · rows[row of (n, k)].
//   rows [R, H] in expert order   weights [N, K] in acc_t   y [N, H]
// Summed in acc_t in slot order, rounded to T once. Saves the rows where the weights want a
// gradient.
#pragma once

#include <espalier/ops/router_top_k.hpp>

namespace espalier {

template <Device On = Cpu>
struct Combine {
  static constexpr const char* kName = "combine";
  BasicRouting<On> routing;

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const std::vector<AnyTensor>& in) const {
    static_assert(
        !D::is_cuda,
        "combine on this device: include <espalier/cuda/moe.hpp>, which defines Launch<Combine>");
    const Tensor<T, D> rows(in[0]);
    const Tensor<acc_t<T>, D> weights(in[1]);
    ESP_REQUIRE(rows.shape().rank() == 2 && rows.shape(0) == routing.rows(), ShapeError, kName,
                ": rows are ", rows.shape(), ", the routing has ", routing.rows());
    const Shape expected{routing.tokens, routing.top_k};
    ESP_REQUIRE(weights.shape() == expected, ShapeError, kName, ": weights are ", weights.shape(),
                ", expected ", expected);
    const std::int64_t h = rows.shape(1), k = routing.top_k;
    Tensor<T, D> y(Shape{routing.tokens, h});
    const T* from = rows.data();
    const acc_t<T>* w = weights.data();
    T* to = y.data();
    const std::int32_t* row = routing.row_of_slot.data();
    parallel_for(routing.tokens, rows_per_task(k * h), [=](std::int64_t begin, std::int64_t end) {
      simd::dispatch([=]<int W>() {
        using V = simd::Native<T, W>;
        for (std::int64_t n = begin; n < end; ++n) {
          simd::for_each_vector<V>(0, h, [=](std::int64_t c, auto lanes) ESP_SIMD_LAMBDA {
            V sum = V(w[n * k]) * V::load(from + row[n * k] * h + c, lanes);
            for (std::int64_t j = n * k + 1; j < (n + 1) * k; ++j) {
              sum = fma(V(w[j]), V::load(from + row[j] * h + c, lanes), sum);
            }
            sum.store(to + n * h + c, lanes);
          });
        }
      });
    });
    saved.tensors = {AnyTensor(nullptr, rows.shape(), rows.dtype()), weights};
    if (saved.needs[1]) saved.tensors[0] = rows;
    return y;
  }

  // drows = w dy of its token;  dweights = <rows, dy of its token>
  template <FloatElement T, Device D = Cpu>
  std::vector<AnyTensor> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    using A = acc_t<T>;
    const auto rows = saved.get<T, D>(0);
    const auto weights = saved.get<A, D>(1);
    const std::int64_t h = dy.shape(1), k = routing.top_k;
    std::vector<AnyTensor> grads(2);
    Tensor<T, D> drows;
    Tensor<A, D> dweights;
    if (saved.needs[0]) grads[0] = drows = Tensor<T, D>(rows.shape());
    if (saved.needs[1]) grads[1] = dweights = Tensor<A, D>(weights.shape());
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

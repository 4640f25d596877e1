// SPDX-License-Identifier: Apache-2.0
// Copies each token's row to the rows of its experts.     x [N, H] -> rows [R, H] in expert order
// Backward sums a token's rows in slot order (best expert first), in acc_t, and rounds once.
#pragma once

#include <espalier/core/algorithm.hpp>
#include <espalier/ops/router_top_k.hpp>

namespace espalier {

namespace detail {

/// y[n] = first(slot, row) for the best slot of token n, then sum = next(slot, row, sum) for each
/// other in order; `row` is that of the slot in `rows` [R, H].
template <FloatElement T, Device D, class Term>
void sum_slots(const BasicRouting<D>& routing, std::int64_t h, const T* rows, T* y,
               const Term& term) {
  const std::int64_t k = routing.top_k;
  const std::int32_t* row = routing.row_of_slot.data();
  parallel_for(routing.tokens, rows_per_task(k * h), [=](std::int64_t begin, std::int64_t end) {
    simd::dispatch([=]<int W>() {
      using V = simd::Native<T, W>;
      for (std::int64_t n = begin; n < end; ++n) {
        simd::for_each_vector<V>(0, h, [=](std::int64_t c, auto lanes) ESP_SIMD_LAMBDA {
          V sum = term.first(n * k, V::load(rows + row[n * k] * h + c, lanes));
          for (std::int64_t j = n * k + 1; j < (n + 1) * k; ++j) {
            sum = term.next(j, V::load(rows + row[j] * h + c, lanes), sum);
          }
          sum.store(y + n * h + c, lanes);
        });
      }
    });
  });
}

struct PlainSum {
  template <class V>
  ESP_SIMD_INLINE V first(std::int64_t, const V& row) const {
    return row;
  }
  template <class V>
  ESP_SIMD_INLINE V next(std::int64_t, const V& row, const V& sum) const {
    return sum + row;
  }
};

}  // namespace detail

template <Device On = Cpu>
struct Dispatch {
  static constexpr const char* kName = "dispatch";
  BasicRouting<On> routing;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved&, const Tensor<T, D>& x) const {
    ESP_CPU_ONLY(D, dispatch, Dispatch, moe.hpp);
    ESP_REQUIRE(x.shape().rank() == 2 && x.shape(0) == routing.tokens, ShapeError, kName, ": x is ",
                x.shape(), ", the routing has ", routing.tokens, " tokens");
    const std::int64_t h = x.shape(1);
    Tensor<T, D> rows(Shape{routing.rows(), h});
    parallel_for(routing.rows(), rows_per_task(h), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t token = routing.slot_of_row.data()[r] / routing.top_k;
        algo::copy_n(x.data() + token * h, h, rows.data() + r * h);
      }
    });
    return rows;
  }

  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved&, const Tensor<T, D>& dy) const {
    const Tensor<T, D> dx(Shape{routing.tokens, dy.shape(1)});
    detail::sum_slots(routing, dy.shape(1), dy.data(), dx.data(), detail::PlainSum{});
    return {dx};
  }
};

/// @throws ShapeError when x has another number of tokens than the routing.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> dispatch(const Var<T, D>& x, const BasicRouting<D>& routing) {
  return apply(Dispatch<D>{routing}, x);
}

}  // namespace espalier

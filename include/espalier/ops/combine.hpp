// SPDX-License-Identifier: Apache-2.0
// y[n] = sum over slots k of weights[n, k] · rows[row of (n, k)], in slot order.
//   rows [R, H] in expert order   weights [N, K]   y [N, H]
#pragma once

#include <espalier/ops/router_top_k.hpp>

namespace espalier {

struct Combine {
  static constexpr const char* kName = "combine";
  Routing routing;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& rows, const Tensor<T, D>& weights) const {
    static_assert(!D::is_cuda, "combine: no CUDA path");
    ESP_REQUIRE(rows.shape().rank() == 2 && rows.shape(0) == routing.rows(), ShapeError, kName,
                ": rows are ", rows.shape(), ", the routing has ", routing.rows());
    const Shape expected{routing.tokens, routing.top_k};
    ESP_REQUIRE(weights.shape() == expected, ShapeError, kName, ": weights are ", weights.shape(),
                ", expected ", expected);
    const std::int64_t h = rows.shape(1), k = routing.top_k;
    Tensor<T, D> y(Shape{routing.tokens, h});
    parallel_for(routing.tokens, 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        T* out = y.data() + n * h;
        std::fill_n(out, h, T{0});
        for (std::int64_t j = n * k; j < (n + 1) * k; ++j) {
          const T w = weights[j];
          const T* in = rows.data() + routing.row_of_slot[j] * h;
          for (std::int64_t c = 0; c < h; ++c) out[c] += w * in[c];
        }
      }
    });
    saved.tensors = {rows, weights};
    return y;
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const auto rows = saved.get<T, D>(0);
    const auto weights = saved.get<T, D>(1);
    const std::int64_t h = dy.shape(1), k = routing.top_k;
    const Tensor<T, D> drows(rows.shape()), dweights(weights.shape());
    parallel_for(routing.rows(), 16, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        const std::int64_t slot = routing.slot_of_row[r];
        const T w = weights[slot];
        const T* up = dy.data() + slot / k * h;
        const T* in = rows.data() + r * h;
        T* out = drows.data() + r * h;
        T dot[8] = {};  // eight partial sums: vectorises, and the order stays fixed
        std::int64_t c = 0;
        for (; c + 8 <= h; c += 8) {
          for (int l = 0; l < 8; ++l) {
            dot[l] += up[c + l] * in[c + l];
            out[c + l] = w * up[c + l];
          }
        }
        for (; c < h; ++c) {
          dot[0] += up[c] * in[c];
          out[c] = w * up[c];
        }
        dweights[slot] =
            ((dot[0] + dot[1]) + (dot[2] + dot[3])) + ((dot[4] + dot[5]) + (dot[6] + dot[7]));
      }
    });
    return {drows, dweights};
  }
};

/// @throws ShapeError when rows or weights do not fit the routing.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> combine(const Var<T, D>& rows, const Var<T, D>& weights,
                                const Routing& routing) {
  return apply(Combine{routing}, rows, weights);
}

}  // namespace espalier

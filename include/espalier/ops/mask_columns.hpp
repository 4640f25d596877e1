// SPDX-License-Identifier: Apache-2.0
// y = x where keep[column], minus infinity elsewhere: router logits of experts that must not be
// chosen.     x, y [N, E]
#pragma once

#include <limits>

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>

namespace espalier {

struct MaskColumns {
  static constexpr const char* kName = "mask_columns";
  std::vector<bool> keep;

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved&, const Tensor<T, D>& x) const {
    ESP_CPU_ONLY(D, mask_columns, MaskColumns, elementwise.hpp);
    ESP_REQUIRE(x.shape().rank() == 2 && x.shape(1) == static_cast<std::int64_t>(keep.size()),
                ShapeError, kName, ": x is ", x.shape(), ", the mask has ", keep.size(),
                " columns");
    return filled(x, static_cast<T>(-std::numeric_limits<acc_t<T>>::infinity()));
  }
  template <FloatElement T, Device D>
  std::array<AnyTensor, 1> backward(const Saved&, const Tensor<T, D>& dy) const {
    return {filled(dy, T{0})};
  }

 private:
  template <FloatElement T, Device D>
  Tensor<T, D> filled(const Tensor<T, D>& x, T dropped) const {
    const std::int64_t columns = x.shape(1);
    Tensor<T, D> y(x.shape());
    parallel_for(x.shape(0), rows_per_task(columns), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = begin; n < end; ++n) {
        const T* from = x.data() + n * columns;
        T* to = y.data() + n * columns;
        for (std::int64_t c = 0; c < columns; ++c) to[c] = keep[c] ? from[c] : dropped;
      }
    });
    return y;
  }
};

/// @throws ShapeError when the mask has another number of columns.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> mask_columns(const Var<T, D>& x, const std::vector<bool>& keep) {
  return apply(MaskColumns{keep}, x);
}

}  // namespace espalier

// SPDX-License-Identifier: Apache-2.0
// y = [a | b] per head.              a [N, A, P1]   b [N, A, P2] or [N, 1, P2]   y [N, A, P1 + P2]
// One head in b is shared by all heads: the rotary part of the keys of multi-head latent attention
// (DeepSeek-AI 2024, arXiv:2405.04434). Exact. The gradient of a shared b is the sum over
// the heads in their order, in acc_t, rounded once. Nothing is saved but shapes.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/algorithm.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/column_blocks.hpp>
#include <espalier/ops/cpu/simd.hpp>

namespace espalier {

struct ConcatHeads {
  static constexpr const char* kName = "concat_heads";

  /// @throws ShapeError when b fits neither each head of a nor all of them.
  static Shape output(const Shape& a, const Shape& b) {
    ESP_REQUIRE(a.rank() == 3 && b.rank() == 3 && a[0] == b[0] && (b[1] == a[1] || b[1] == 1),
                ShapeError, kName, ": a is ", a, ", b is ", b,
                "; expected a [N, A, P1] and b [N, A or 1, P2]");
    return {a[0], a[1], a[2] + b[2]};
  }

  template <FloatElement T, Device D>
  Tensor<T, D> forward(Saved& saved, const Tensor<T, D>& a, const Tensor<T, D>& b) const {
    ESP_CPU_ONLY(D, concat_heads, ConcatHeads, column_blocks.hpp);
    Tensor<T, D> y(output(a.shape(), b.shape()));
    const std::int64_t p1 = a.shape(2), p2 = b.shape(2);
    const std::int64_t rows = a.shape(0) * a.shape(1);
    const std::int64_t shared_by = b.shape(1) == a.shape(1) ? 1 : a.shape(1);
    parallel_for(rows, rows_per_task(p1 + p2), [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t r = begin; r < end; ++r) {
        T* row = y.data() + r * (p1 + p2);
        algo::copy_n(a.data() + r * p1, p1, row);
        algo::copy_n(b.data() + r / shared_by * p2, p2, row + p1);
      }
    });
    saved.tensors = {only_shape(a), only_shape(b)};
    return y;
  }

  template <FloatElement T, Device D>
  std::array<AnyTensor, 2> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const Shape &a = saved.tensors[0].shape(), &b = saved.tensors[1].shape();
    const std::int64_t rows = a[0] * a[1], width = dy.shape(2);
    std::array<AnyTensor, 2> grads;
    if (saved.needs[0]) {
      const Tensor<T, D> da(a);
      cpu::place_columns(rows, a[2], da.data(), {a[2], 0}, dy.data(), {width, 0});
      grads[0] = da;
    }
    if (saved.needs[1]) {
      const Tensor<T, D> db(b);
      if (b[1] == a[1]) {
        cpu::place_columns(rows, b[2], db.data(), {b[2], 0}, dy.data(), {width, a[2]});
      } else {
        sum_heads(dy, a[2], db);
      }
      grads[1] = db;
    }
    return grads;
  }

 private:
  /// The columns of dy from `first` on, summed over heads.
  template <FloatElement T, Device D>
  static void sum_heads(const Tensor<T, D>& dy, std::int64_t first, const Tensor<T, D>& db) {
    const std::int64_t heads = dy.shape(1), width = dy.shape(2), p2 = db.shape(2);
    parallel_for(db.shape(0), rows_per_task(heads * p2), [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        using V = simd::Native<T, W>;
        for (std::int64_t n = begin; n < end; ++n) {
          const T* from = dy.data() + n * heads * width + first;
          T* to = db.data() + n * p2;
          simd::for_each_vector<V>(0, p2, [=](std::int64_t c, auto lanes) ESP_SIMD_LAMBDA {
            V sum;
            for (std::int64_t h = 0; h < heads; ++h) sum += V::load(from + h * width + c, lanes);
            sum.store(to + c, lanes);
          });
        }
      });
    });
  }
};

/// @throws ShapeError when b fits neither each head of a nor all of them.
template <FloatElement T, Device D>
[[nodiscard]] Var<T, D> concat_heads(const Var<T, D>& a, const Var<T, D>& b) {
  return apply(ConcatHeads{}, a, b);
}

}  // namespace espalier

// SPDX-License-Identifier: Apache-2.0
// y[n] = table[ids[n]].     ids [N]   table [V, H] in any float type   y [N, H]
// Backward adds the rows of dy in token order, so repeated ids give the same bits every time.
#pragma once

#include <espalier/autograd/var.hpp>
#include <espalier/core/threads.hpp>

namespace espalier {

struct Embedding {
  static constexpr const char* kName = "embedding";
  Tensor<std::int32_t> ids;

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const std::vector<AnyTensor>& in) const {
    static_assert(!D::is_cuda, "embedding: no CUDA path");
    const AnyTensor& table = in[0];
    ESP_REQUIRE(table.shape().rank() == 2, ShapeError, kName, ": table is ", table.shape(),
                ", expected [vocabulary, hidden]");
    const std::int64_t vocab = table.shape(0), h = table.shape(1);
    for (std::int64_t n = 0; n < ids.numel(); ++n) {
      ESP_REQUIRE(ids[n] >= 0 && ids[n] < vocab, ShapeError, kName, ": id ", ids[n],
                  " at position ", n, ", the table has ", vocab, " rows");
    }
    Tensor<T, D> y(Shape{ids.numel(), h});
    visit_dtype<float, double, bf16, f16>(kName, table.dtype(), [&]<class W>() {
      const W* w = reinterpret_cast<const W*>(table.bytes());
      parallel_for(ids.numel(), 32, [&](std::int64_t begin, std::int64_t end) {
        for (std::int64_t n = begin; n < end; ++n) {
          const W* row = w + ids[n] * h;
          for (std::int64_t c = 0; c < h; ++c) y[n * h + c] = static_cast<T>(widen(row[c]));
        }
      });
    });
    saved.tensors = {table};
    return y;
  }

  template <FloatElement T, Device D = Cpu>
  std::vector<AnyTensor> backward(const Saved& saved, const Tensor<T, D>& dy) const {
    const Shape& shape = saved.tensors[0].shape();
    const std::int64_t h = shape[1];
    const Tensor<T, D> d(shape, T{0});
    parallel_for(h, 64, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t n = 0; n < ids.numel(); ++n) {
        for (std::int64_t c = begin; c < end; ++c) d[ids[n] * h + c] += dy[n * h + c];
      }
    });
    return {d};
  }

 private:
  static double widen(double x) { return x; }
  static float widen(float x) { return x; }
  static float widen(bf16 x) { return static_cast<float>(x); }
  static float widen(f16 x) { return static_cast<float>(x); }
};

/// @throws ShapeError for an id outside the table.
template <FloatElement T, Device D = Cpu>
[[nodiscard]] Var<T, D> embedding(const Tensor<std::int32_t>& ids, const AnyVar& table) {
  return apply_list<T, D>(Embedding{ids}, {table});
}

}  // namespace espalier

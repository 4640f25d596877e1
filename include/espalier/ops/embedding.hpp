// SPDX-License-Identifier: Apache-2.0
// y[n] = table[ids[n]].     ids [N]   table [V, H] in any float type   y [N, H]
// Backward sums the rows of dy of one id in token order, in acc_t, and rounds once to the type of
// the table: repeated ids give the same bits every time.
#pragma once

#include <cstring>

#include <espalier/autograd/var.hpp>
#include <espalier/core/algorithm.hpp>
#include <espalier/ops/cpu/map.hpp>

namespace espalier {

struct Embedding {
  static constexpr const char* kName = "embedding";
  Tensor<std::int32_t> ids;

  template <FloatElement T, Device D = Cpu>
  Tensor<T, D> forward(Saved& saved, const AnyTensors& in) const {
    ESP_CPU_ONLY(D, embedding, Embedding, embedding.hpp);
    const AnyTensor& table = in[0];
    check(table.shape());
    const bool trainable =
        table.dtype() == dtype_of<acc_t<T>>::value || table.dtype() == dtype_of<T>::value;
    ESP_REQUIRE(trainable || !saved.needs[0], DTypeError, kName, ": the table is ",
                name(table.dtype()), " and wants a gradient; only ",
                name(dtype_of<acc_t<T>>::value), " and the type of y, ", name(dtype_of<T>::value),
                ", can be trained");
    const std::int64_t h = table.shape(1);
    Tensor<T, D> y(Shape{ids.numel(), h});
    visit_dtype<float, double, bf16, f16>(kName, table.dtype(), [&]<class E>() {
      const E* rows = reinterpret_cast<const E*>(table.bytes());
      parallel_for(ids.numel(), rows_per_task(h), [&](std::int64_t begin, std::int64_t end) {
        simd::dispatch([&]<int W>() {
          for (std::int64_t n = begin; n < end; ++n) {
            cpu::map_row<W>(h, cpu::Identity{}, y.data() + n * h, rows + ids.data()[n] * h);
          }
        });
      });
    });
    // Only the shape and the type are needed.
    saved.tensors = {only_shape(table)};
    return y;
  }

  template <FloatElement T, Device D = Cpu>
  AnyTensors backward(const Saved& saved, const Tensor<T, D>& dy) const {
    AnyTensor d(saved.tensors[0].shape(), saved.tensors[0].dtype());
    parallel_for(static_cast<std::int64_t>(d.size_bytes()), 1 << 18,
                 [&](std::int64_t begin, std::int64_t end) {
                   std::memset(d.bytes() + begin, 0, static_cast<std::size_t>(end - begin));
                 });
    if (d.dtype() == dtype_of<T>::value) {
      add_rows(dy, Tensor<T>(d).data());
    } else {
      add_rows(dy, Tensor<acc_t<T>>(d).data());
    }
    return {d};
  }

  /// @throws ShapeError when the table is no matrix or has no row for an id.
  void check(const Shape& table) const {
    ESP_REQUIRE(table.rank() == 2, ShapeError, kName, ": table is ", table,
                ", expected [vocabulary, hidden]");
    for (std::int64_t n = 0; n < ids.numel(); ++n) {
      const std::int32_t id = ids.data()[n];
      ESP_REQUIRE(id >= 0 && id < table[0], ShapeError, kName, ": id ", id, " at position ", n,
                  ", the table has ", table[0], " rows");
    }
  }

 private:
  static constexpr std::int64_t kColumns = 512;  // of one sum

  /// d[id] = sum of the rows of dy with that id. One id may have most of the rows (padding, say),
  /// so the work is split by columns too.
  template <FloatElement T, Element E>
  void add_rows(const Tensor<T>& dy, E* d) const {
    const std::int64_t h = dy.shape(1);
    std::vector<std::int32_t> order(ids.numel());  // positions, sorted by id and position
    algo::count_up(order);
    const std::int32_t* id_at = ids.data();
    algo::stable_sort(order, [=](std::int32_t a, std::int32_t b) { return id_at[a] < id_at[b]; });
    std::vector<std::int64_t> first;  // of each id that occurs, in `order`
    for (std::int64_t i = 0; i < ids.numel(); ++i) {
      if (i == 0 || id_at[order[i]] != id_at[order[i - 1]]) first.push_back(i);
    }
    const auto count = static_cast<std::int64_t>(first.size());
    first.push_back(ids.numel());
    const std::int64_t parts = (h + kColumns - 1) / kColumns;
    parallel_for(count * parts, rows_per_task(kColumns), [&](std::int64_t begin, std::int64_t end) {
      simd::dispatch([&]<int W>() {
        for (std::int64_t task = begin; task < end; ++task) {
          const std::int64_t id = task % count, column = task / count * kColumns;
          const std::int64_t width = h - column < kColumns ? h - column : kColumns;
          const std::int32_t* rows = order.data() + first[id];
          sum_rows<W>(dy.data() + column, h, rows, first[id + 1] - first[id], width,
                      d + id_at[*rows] * h + column);
        }
      });
    });
  }

  /// y [width] = sum over i < count of x[rows[i]], rows of x `stride` apart.
  template <int W, FloatElement T, Element E>
  static ESP_SIMD_INLINE void sum_rows(const T* x, std::int64_t stride, const std::int32_t* rows,
                                       std::int64_t count, std::int64_t width, E* y) {
    using V = simd::Native<T, W>;
    alignas(64) acc_t<T> sum[kColumns];
    cpu::map_row<W>(width, cpu::Identity{}, sum, x + rows[0] * stride);
    for (std::int64_t i = 1; i < count; ++i) {
      cpu::map_row<W>(
          width, [](const V& s, const V& v) ESP_SIMD_LAMBDA { return s + v; }, sum, sum,
          x + rows[i] * stride);
    }
    cpu::map_row<W>(width, cpu::Identity{}, y, sum);
  }
};

/// A table that wants a gradient gets one of its own type, acc_t<T> or T.
/// @throws ShapeError for an id outside the table; DTypeError when a table of another type wants a
/// gradient.
template <FloatElement T, Device D = Cpu>
[[nodiscard]] Var<T, D> embedding(const Tensor<std::int32_t>& ids, const AnyVar& table) {
  return apply_list<T, D>(Embedding{ids}, {table});
}

}  // namespace espalier

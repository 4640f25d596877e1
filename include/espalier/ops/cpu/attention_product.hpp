// SPDX-License-Identifier: Apache-2.0
// The matrix products of attention, on blocks that lie in the caches: C[rows, cols] = sum over k of
// a(row, k) b(k, col), by tiles of C in registers. Reduction order: one chain of fused
// multiply-adds over k, independent of the tile's shape. A row never reads a k outside its range,
// so NaN there cannot reach it.
#pragma once

#include <concepts>
#include <cstdint>

#include <espalier/ops/cpu/simd.hpp>

namespace espalier::cpu::detail {

enum class Product : std::uint8_t {
  scores,      // c = sum, over every k; a(row, k) is a[row * stride_a + k]
  by_rows,     // c += sum, over a range of k for each row; a as above
  by_columns,  // the same; a(row, k) is a[k * stride_a + row]
};

/// Rows to prefetch into the L2 cache during a product, with strides in bytes: as many rows and
/// elements as its a (scores) or b (by_columns) has. The addresses need not be valid.
struct FetchAhead {
  const char* rows;           // null: none
  std::int64_t stride, step;  // between rows, between elements
};

/// Blocks are row-major; rows of b and c are whole vectors of 64 bytes.
template <std::floating_point T>
struct PanelProduct {
  const T* a;
  std::int64_t stride_a;
  const T* b;
  std::int64_t stride_b;
  T* c;
  std::int64_t stride_c;
  int rows, cols, depth;
  FetchAhead ahead{};
  // Row r sums over [begin[r], end[r]); both are non-decreasing in r. Null: over all.
  const int* begin = nullptr;
  const int* end = nullptr;
  // by_columns: c = c * factor + sum in rows whose `grew` is not 0, c + sum * factor in others.
  const T* factor = nullptr;
  const T* grew = nullptr;
};

/// Prefetches columns [col, col + Vectors * kLanes) of row `k`, one cache line per vector.
template <int Vectors, int kLanes>
ESP_SIMD_INLINE void prefetch_row(const FetchAhead& ahead, std::int64_t k, int col) {
  const char* const row = ahead.rows + k * ahead.stride + col * ahead.step;
  for (int j = 0; j < Vectors; ++j) __builtin_prefetch(row + j * kLanes * ahead.step, 0, 2);
}

/// Writes a tile's sums to C as `kProduct` says.
template <std::floating_point T, int W, Product kProduct, int Rows, int Vectors>
ESP_SIMD_INLINE void store_panel(typename simd::Native<T, W>::Raw (&acc)[Rows][Vectors],
                                 const PanelProduct<T>& s, int row, T* c) {
  using V = simd::Native<T, W>;
  ESP_UNROLL
  for (int i = 0; i < Rows; ++i) {
    ESP_UNROLL
    for (int j = 0; j < Vectors; ++j) {
      T* const at = c + i * s.stride_c + j * V::kLanes;
      const V sum(acc[i][j]);
      if constexpr (kProduct == Product::scores) {
        sum.store(at);
      } else if constexpr (kProduct == Product::by_rows) {
        (V::load(at) + sum).store(at);
      } else {
        // One product per case leaves the compiler no choice of what to contract.
        const V old = V::load(at), factor(s.factor[row + i]);
        (s.grew[row + i] != T{0} ? fma(old, factor, sum) : fma(sum, factor, old)).store(at);
      }
    }
  }
}

/// Rows [row, row + Rows), Vectors vectors of columns from `col` on.
template <std::floating_point T, int W, Product kProduct, int Rows, int Vectors>
ESP_SIMD_INLINE void panel_tile(const PanelProduct<T>& s, int row, int col) {
  using V = simd::Native<T, W>;
  const std::int64_t stride_a = s.stride_a, stride_b = s.stride_b;
  const T* const b = s.b + col;
  T* const c = s.c + row * s.stride_c + col;
  const T* a[Rows];
  typename V::Raw acc[Rows][Vectors];  // bare vectors: kept in registers once unrolled
  ESP_UNROLL
  for (int i = 0; i < Rows; ++i) {
    a[i] = kProduct == Product::by_columns ? s.a + row + i : s.a + (row + i) * stride_a;
    ESP_UNROLL
    for (int j = 0; j < Vectors; ++j) {
      acc[i][j] = typename V::Raw{};
      __builtin_prefetch(c + i * s.stride_c + j * V::kLanes, 1);
    }
  }
  const auto step = [&](std::int64_t k, auto takes) ESP_SIMD_LAMBDA {
    V column[Vectors];
    ESP_UNROLL
    for (int j = 0; j < Vectors; ++j) column[j] = V::load(b + k * stride_b + j * V::kLanes);
    ESP_UNROLL
    for (int i = 0; i < Rows; ++i) {
      if (!takes(i)) continue;
      const V scalar(kProduct == Product::by_columns ? a[0][k * stride_a + i] : a[i][k]);
      ESP_UNROLL
      for (int j = 0; j < Vectors; ++j) acc[i][j] = fma(scalar, column[j], V(acc[i][j])).v;
    }
  };
  const auto takes_every = [](int) ESP_SIMD_LAMBDA { return true; };
  std::int64_t k = 0;
  if constexpr (kProduct == Product::scores) {
    // Prefetch the next block, one cache line per step.
    const char* const ahead = s.ahead.rows + row * s.ahead.stride;
    for (; k < s.depth; ++k) {
      __builtin_prefetch(ahead + k % Rows * s.ahead.stride + k * s.ahead.step, 0, 2);
      step(k, takes_every);
    }
  } else {
    // All rows take k in [inner, inner_end), some rows those around it.
    std::int64_t inner = 0, inner_end = s.depth, last = s.depth;
    if (s.begin) {
      k = s.begin[row], inner = s.begin[row + Rows - 1];
      inner_end = s.end[row], last = s.end[row + Rows - 1];
      if (inner >= inner_end) inner = inner_end = last;
    }
    while (k < last) {
      for (; k < inner_end && k >= inner; ++k) {
        if (kProduct == Product::by_columns && s.ahead.rows && row == 0) {
          prefetch_row<Vectors, V::kLanes>(s.ahead, k, col);
        }
        step(k, takes_every);
      }
      if (k == last) break;
      step(k, [&](int i) ESP_SIMD_LAMBDA { return s.begin[row + i] <= k && k < s.end[row + i]; });
      ++k;
    }
  }
  store_panel<T, W, kProduct, Rows, Vectors>(acc, s, row, c);
}

/// Registers: 24 accumulators of 32, 12 of 16.
template <std::floating_point T, int W, Product kProduct, int Vectors,
          int Rows = (W == 16 ? 2 : 1) * (Vectors == 4 ? 3 : 4)>
ESP_SIMD_INLINE void panel_rows(const PanelProduct<T>& s, int col, int row = 0) {
  for (; row + Rows <= s.rows; row += Rows) {
    panel_tile<T, W, kProduct, Rows, Vectors>(s, row, col);
  }
  if constexpr (Rows > 1) {
    constexpr int kFewer = Rows > 4 ? Rows / 2 : 1;
    if (row < s.rows) panel_rows<T, W, kProduct, Vectors, kFewer>(s, col, row);
  }
}

template <Product kProduct, std::floating_point T>
__attribute__((noinline)) void multiply(const PanelProduct<T>& s) {
  simd::dispatch([&]<int W>() {
    constexpr int kLanes = simd::Native<T, W>::kLanes;
    // Three vectors divide a block of queries, four the usual heads. More tile shapes would cost
    // compile time without a gain.
    constexpr int kVectors = kProduct == Product::scores ? 3 : 4;
    int col = 0;
    for (; col + kVectors * kLanes <= s.cols; col += kVectors * kLanes) {
      panel_rows<T, W, kProduct, kVectors>(s, col);
    }
    for (; col < s.cols; col += kLanes) panel_rows<T, W, kProduct, 1>(s, col);
  });
}

}  // namespace espalier::cpu::detail

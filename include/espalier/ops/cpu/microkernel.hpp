// SPDX-License-Identifier: Apache-2.0
// The innermost part of a matrix product: a tile of C in registers. Each element is one chain of
// fused multiply-adds over k in order, whatever the size of the tile, so that a row comes out the
// same in every batch.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include <espalier/ops/cpu/pack.hpp>

namespace espalier::cpu::detail {

template <int N, int I = 0, class F>
ESP_SIMD_INLINE void unroll(const F& f) {
  if constexpr (I < N) {
    f(std::integral_constant<int, I>{});
    unroll<N, I + 1>(f);
  }
}

/// One sliver of packed B against rows of packed A.
template <FloatElement T>
struct Sweep {
  const T* a;  // [rows, kStride]
  const T* b;  // [depth, kCols]
  T* c;        // [rows, cols], row-major
  std::int64_t rows;
  std::int64_t depth;
  std::int64_t stride_c;
  int cols;
  T alpha;
  T beta;  // 0: C is not read
};

/// c = alpha * acc + beta * c for the vector of columns from `col`.
template <FloatElement T, int L>
ESP_SIMD_INLINE void update(const Sweep<T>& s, T* c, int col, const simd::Vec<T, L>& acc) {
  using V = simd::Vec<T, L>;
  const V alpha(s.alpha), beta(s.beta);
  const int left = s.cols - col;
  if (left >= L) {
    const V scaled = s.beta == T{0} ? alpha * acc : fma(alpha, acc, beta * V::load(c + col));
    scaled.store(c + col);
  } else if (left > 0) {
    const V scaled =
        s.beta == T{0} ? alpha * acc : fma(alpha, acc, beta * V::load_partial(c + col, left));
    scaled.store_partial(c + col, left);
  }
}

/// Rows [row, row + Rows) and the first Vectors vectors of columns.
template <FloatElement T, int W, int Rows, int Vectors>
ESP_SIMD_INLINE void multiply_tile(const Sweep<T>& s, std::int64_t row) {
  using Block = Blocking<T, W>;
  using V = simd::Native<T, W>;
  constexpr int kLanes = Block::kLanes;
  const T* a = s.a + row * Block::kStride;
  const T* b = s.b;
  T* const c = s.c + row * s.stride_c;
  unroll<Rows>([&](auto i) __attribute__((always_inline)) {
    __builtin_prefetch(c + i * s.stride_c, 1);
    if constexpr (Vectors == 2) __builtin_prefetch(c + i * s.stride_c + kLanes, 1);
  });

  typename V::Raw acc[Rows][Vectors];  // bare vectors: kept in registers once unrolled
  unroll<Rows>([&](auto i) __attribute__((always_inline)) {
    unroll<Vectors>([&](auto j) __attribute__((always_inline)) { acc[i][j] = typename V::Raw{}; });
  });
#pragma GCC unroll 4
  for (std::int64_t k = 0; k < s.depth; ++k) {
    V column[Vectors];
    unroll<Vectors>([&](auto j) __attribute__((always_inline)) {
      column[j] = V::load(b + k * Block::kCols + j * kLanes);
    });
    unroll<Rows>([&](auto i) __attribute__((always_inline)) {
      const V scalar(a[i * Block::kStride + k]);
      unroll<Vectors>([&](auto j) __attribute__((always_inline)) {
        acc[i][j] = fma(scalar, column[j], V(acc[i][j])).v;
      });
    });
  }
  unroll<Rows>([&](auto i) __attribute__((always_inline)) {
    unroll<Vectors>([&](auto j) __attribute__((always_inline)) {
      update(s, c + i * s.stride_c, j * kLanes, V(acc[i][j]));
    });
  });
}

/// The rows from `row` on, in tiles of Rows and then of fewer.
template <FloatElement T, int W, int Vectors, int Rows = Blocking<T, W>::kRows>
ESP_SIMD_INLINE void sweep_rows(const Sweep<T>& s, std::int64_t row = 0) {
  for (; row + Rows <= s.rows; row += Rows) multiply_tile<T, W, Rows, Vectors>(s, row);
  if constexpr (Rows > 1) {
    constexpr int kFewer = Rows > 8 ? 8 : Rows > 4 ? 4 : Rows / 2;
    if (row < s.rows) sweep_rows<T, W, Vectors, kFewer>(s, row);
  }
}

template <FloatElement T>
void sweep(const Sweep<T>& s) {
  simd::dispatch([&]<int W>() {
    if (s.cols > Blocking<T, W>::kLanes) {
      sweep_rows<T, W, 2>(s);
    } else {
      sweep_rows<T, W, 1>(s);
    }
  });
}

}  // namespace espalier::cpu::detail

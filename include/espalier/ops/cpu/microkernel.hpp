// SPDX-License-Identifier: Apache-2.0
// The innermost part of a matrix product: a tile of C in registers. Each element is one chain of
// fused multiply-adds over k in order, whatever the size of the tile, so that a row comes out the
// same in every batch.
#pragma once

#include <algorithm>
#include <cstdint>

#include <espalier/ops/cpu/pack.hpp>

namespace espalier::cpu::detail {

/// One sliver of packed B against rows of packed A.
template <std::floating_point T>
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

/// c = alpha * acc + beta * c
template <std::floating_point T, int L>
ESP_SIMD_INLINE void update(T* c, const simd::Vec<T, L>& acc, const simd::Vec<T, L>& alpha,
                            const simd::Vec<T, L>& beta, bool read) {
  const auto scaled = read ? fma(alpha, acc, beta * simd::Vec<T, L>::load(c)) : alpha * acc;
  scaled.store(c);
}
template <std::floating_point T, int L>
ESP_SIMD_INLINE void update_partial(T* c, int cols, const simd::Vec<T, L>& acc,
                                    const simd::Vec<T, L>& alpha, const simd::Vec<T, L>& beta,
                                    bool read) {
  alignas(64) T lanes[L];
  if (read) simd::Vec<T, L>::load_partial(c, cols).store(lanes);
  update(lanes, acc, alpha, beta, read);
  for (int i = 0; i < cols; ++i) c[i] = lanes[i];
}

/// Rows [row, row + Rows) and the first Vectors vectors of columns.
template <std::floating_point T, int W, int Rows, int Vectors>
ESP_SIMD_INLINE void multiply_tile(const Sweep<T>& s, std::int64_t row) {
  using Block = Blocking<T, W>;
  using V = simd::Native<T, W>;
  constexpr int kLanes = Block::kLanes;
  const T* a = s.a + row * Block::kStride;
  const T* b = s.b;
  const std::int64_t depth = s.depth, stride_c = s.stride_c;
  T* const c = s.c + row * stride_c;
  ESP_UNROLL
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) __builtin_prefetch(c + i * stride_c + j * kLanes, 1);
  }

  typename V::Raw acc[Rows][Vectors];  // bare vectors: kept in registers once unrolled
  ESP_UNROLL
  for (int i = 0; i < Rows; ++i) {
    ESP_UNROLL
    for (int j = 0; j < Vectors; ++j) acc[i][j] = typename V::Raw{};
  }
  // The rows of the next tile come from the L2 cache meanwhile, some bytes at each step.
  const char* next = reinterpret_cast<const char*>(a + Rows * Block::kStride);
  const std::int64_t step = static_cast<std::int64_t>(sizeof(T)) * Rows * Block::kStride / depth;
  for (std::int64_t k = 0; k < depth; ++k) {
    __builtin_prefetch(next);
    next += step;
    V column[Vectors];
    ESP_UNROLL
    for (int j = 0; j < Vectors; ++j) column[j] = V::load(b + j * kLanes);
    ESP_UNROLL
    for (int i = 0; i < Rows; ++i) {
      const V scalar(a[i * Block::kStride]);
      ESP_UNROLL
      for (int j = 0; j < Vectors; ++j) acc[i][j] = fma(scalar, column[j], V(acc[i][j])).v;
    }
    ++a;
    b += Block::kCols;
  }
  const V alpha(s.alpha), beta(s.beta);
  const bool read = s.beta != T{0};
  if (s.cols >= Vectors * kLanes) {
    ESP_UNROLL
    for (int i = 0; i < Rows; ++i) {
      ESP_UNROLL
      for (int j = 0; j < Vectors; ++j) {
        update(c + i * stride_c + j * kLanes, V(acc[i][j]), alpha, beta, read);
      }
    }
    return;
  }
  V rows[Rows][Vectors];  // in memory: the last columns need no speed
  __builtin_memcpy(rows, acc, sizeof acc);
  asm("" : "+m"(rows));
  for (int i = 0; i < Rows; ++i) {
    for (int j = 0; j < Vectors; ++j) {
      const int cols = std::min(kLanes, s.cols - j * kLanes);
      update_partial(c + i * stride_c + j * kLanes, cols, rows[i][j], alpha, beta, read);
    }
  }
}

/// The rows from `row` on, in tiles of Rows and then of fewer. A single vector of columns leaves
/// registers for twice the rows.
template <std::floating_point T, int W, int Vectors,
          int Rows = Blocking<T, W>::kRows*(Vectors == 1 ? 2 : 1)>
ESP_SIMD_INLINE void sweep_rows(const Sweep<T>& s, std::int64_t row = 0) {
  for (; row + Rows <= s.rows; row += Rows) multiply_tile<T, W, Rows, Vectors>(s, row);
  if constexpr (Rows > 1) {
    constexpr int kFewer = Rows > 8 ? 8 : Rows > 4 ? 4 : Rows / 2;
    if (row < s.rows) sweep_rows<T, W, Vectors, kFewer>(s, row);
  }
}

template <int W, std::floating_point T, int Vectors = Blocking<T, W>::kVectors>
ESP_SIMD_INLINE void sweep_columns(const Sweep<T>& s) {
  if constexpr (Vectors > 1) {
    if (s.cols <= (Vectors - 1) * Blocking<T, W>::kLanes) {
      return sweep_columns<W, T, Vectors - 1>(s);
    }
  }
  sweep_rows<T, W, Vectors>(s);
}

#if defined(__x86_64__)
template <std::floating_point T>
ESP_TARGET_AVX512 void sweep_avx512(const Sweep<T>& s) {
  sweep_columns<16>(s);
}
template <std::floating_point T>
ESP_TARGET_AVX2 void sweep_avx2(const Sweep<T>& s) {
  sweep_columns<8>(s);
}
#endif
template <std::floating_point T>
void sweep_plain(const Sweep<T>& s) {
  sweep_columns<4>(s);
}

template <std::floating_point T>
using SweepFunction = void (*)(const Sweep<T>&);
template <std::floating_point T>
SweepFunction<T> sweep_function() {
#if defined(__x86_64__)
  if (isa() >= Isa::avx512) return sweep_avx512<T>;
  if (isa() == Isa::avx2) return sweep_avx2<T>;
#endif
  return sweep_plain<T>;
}

}  // namespace espalier::cpu::detail

// SPDX-License-Identifier: Apache-2.0
// Products of two bf16 matrices: assigns the operands to left and right of the tile product,
// decides what is packed, cuts the work into tasks, and writes sums to C. Choices affect speed and
// memory only, not the bits.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include <espalier/ops/cpu/gemm_problem.hpp>
#include <espalier/ops/cpu/tile_product.hpp>

namespace espalier::cpu::detail {

#if defined(__x86_64__)

// Parts of the L2 cache: for the packed part of the right operand, and for sums between blocks of
// k.
inline constexpr std::int64_t kRightBytes = std::int64_t{1} << 20;
inline constexpr std::int64_t kSumBytes = std::int64_t{512} << 10;
// The depth of a block of k lets this many lines of the right operand fit, or all if fewer.
inline constexpr std::int64_t kGroupLines = 256;
inline constexpr std::int64_t kBlockSums = kBlockLines * kBlockLines;
// Multiply-adds and packed values per cycle: estimates, to balance work.
inline constexpr std::int64_t kMultiplyRate = 400;
inline constexpr std::int64_t kPackRate = 8;
inline constexpr std::int64_t kForkCycles = 20'000;
// Left operands up to this many bytes are packed once, before the tasks; larger ones are packed
// again by each task.
inline constexpr std::int64_t kPackedLeftBytes = std::int64_t{64} << 20;

/// A problem with its operands assigned: sums [lines of left, lines of right].
struct Bf16Product {
  Lines left{}, right{};
  std::int64_t rows = 0, cols = 0, k = 0;  // lines of left, of right
  bool transposed = false;                 // the sums are the transpose of C
  std::int64_t depth = 0;                  // of a block of k, a multiple of 32
  std::int64_t group = 0;                  // lines of right that are packed at the same time
  std::byte* packed_left = nullptr;        // [blocks of 32 lines][steps] tiles, or null

  std::int64_t steps() const { return ceil_div(k, kStepDepth); }
  bool in_one_block() const { return depth >= k; }
  std::int64_t packed_left_bytes() const {
    return ceil_div(rows, kTileLines) * steps() * kTileBytes;
  }
  std::int64_t cycles() const {
    const std::int64_t padded = ceil_div(rows, kTileLines) * ceil_div(cols, kTileLines) * 256;
    return padded * k / kMultiplyRate + (rows + cols) * k / kPackRate;
  }
};

/// Left becomes an operand that needs no packing; if both qualify, the one that leaves less to pack
/// and transpose. vdpbf16ps is full only with 16 lines on the right, so for it an operand of few
/// rows always goes left.
template <FloatElement T>
Bf16Product assign(const GemmProblem<T>& p) {
  const Lines a{static_cast<const bf16*>(p.a.data), p.a.stride, p.a.transposed};
  const Lines b{static_cast<const bf16*>(p.b.data), p.b.stride, !p.b.transposed};
  Bf16Product product{a, b, p.m, p.n, p.k};
  product.transposed = a.k_first && !b.k_first;
  if (!a.k_first && !b.k_first) {
    product.transposed =
        p.m * (p.k + 2 * p.n) < p.n * p.k && (p.m >= kTileLines || isa() == Isa::amx);
  }
  if (product.transposed) {
    std::swap(product.left, product.right);
    std::swap(product.rows, product.cols);
  }
  const std::int64_t tiles = ceil_div(std::min(product.cols, kGroupLines), kTileLines);
  const std::int64_t fit = std::max<std::int64_t>(kRightBytes / (kTileBytes * tiles), 1);
  const std::int64_t steps = product.steps();
  product.depth = ceil_div(steps, ceil_div(steps, fit)) * kStepDepth;
  product.group =
      std::max<std::int64_t>(kRightBytes / (product.depth * 2 * kBlockLines), 1) * kBlockLines;
  return product;
}

/// A rectangle of sums, computed by one thread.
struct Bf16Task {
  std::size_t problem;
  std::int64_t row, rows, col, cols;
};

/// By columns first, since every thread packs the columns of its tasks.
inline void cut(const Bf16Product& p, std::size_t problem, std::int64_t share, int threads,
                std::vector<Bf16Task>& tasks) {
  constexpr std::int64_t kFewestCols = 128;
  const std::int64_t parts = std::max<std::int64_t>(p.cycles() / share, 1);
  const std::int64_t groups =
      std::max(ceil_div(p.cols, p.group),
               std::min<std::int64_t>(parts > 1 ? threads : 1, p.cols / kFewestCols));
  const std::int64_t cols = ceil_div(ceil_div(p.cols, groups), kBlockLines) * kBlockLines;
  std::int64_t row_parts = ceil_div(parts, groups);
  if (!p.in_one_block()) {
    const std::int64_t bytes = p.rows * std::min(cols, p.cols) * std::int64_t{sizeof(float)};
    row_parts = std::max(row_parts, bytes / kSumBytes);
  }
  const std::int64_t rows = ceil_div(ceil_div(p.rows, row_parts), kBlockLines) * kBlockLines;
  for (std::int64_t col = 0; col < p.cols; col += cols) {
    for (std::int64_t row = 0; row < p.rows; row += rows) {
      tasks.push_back(
          {problem, row, std::min(rows, p.rows - row), col, std::min(cols, p.cols - col)});
    }
  }
}

/// c = alpha * sums + beta * c for 32 columns, or for `n` where they are fewer.
template <FloatElement T>
ESP_TARGET_AVX512 ESP_SIMD_INLINE void store_row(const float* sums, int n, T* c, float alpha,
                                                 float beta) {
  using V = simd::Vec<float, 16>;
  alignas(64) T edge[kBlockLines];
  T* const to = n < kBlockLines ? edge : c;
  V low = V::load(sums), high = V::load(sums + 16);
  if (beta != 0) {
    if (n < kBlockLines) std::copy(c, c + n, edge);
    low = fma(V(alpha), low, V(beta) * V::load(to));
    high = fma(V(alpha), high, V(beta) * V::load(to + 16));
  } else if (alpha != 1) {
    low = V(alpha) * low;
    high = V(alpha) * high;
  }
  if constexpr (std::same_as<T, bf16>) {
    V both;  // rounds to nearest even as bf16(float), but flushes subnormal numbers to 0
    asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both.v) : "v"(low.v), "v"(high.v));
    __builtin_memcpy(to, &both.v, sizeof both.v);
  } else {
    low.store(to);
    high.store(to + 16);
  }
  if (n < kBlockLines) std::copy(edge, edge + n, c);
}

/// One block of C from sums[32][32].
template <FloatElement T>
ESP_TARGET_AVX512 void store_sums(const float* sums, int rows, int cols, bool transposed, T* c,
                                  std::int64_t stride, float alpha, float beta) {
  if (!transposed) {
    for (int i = 0; i < rows; ++i) {
      store_row(sums + i * kBlockLines, cols, c + i * stride, alpha, beta);
    }
    return;
  }
  alignas(64) float columns[kTileLines][kBlockLines];
  for (int j = 0; j < cols; j += kTileLines) {
    for (int i = 0; i < kBlockLines; i += kTileLines) {
      simd::Vec<float, 16>::Raw square[16];
      ESP_UNROLL
      for (int r = 0; r < 16; ++r) {
        __builtin_memcpy(&square[r], sums + (i + r) * kBlockLines + j, 64);
      }
      transpose<float, 16>(square);
      ESP_UNROLL
      for (int r = 0; r < 16; ++r) __builtin_memcpy(&columns[r][i], &square[r], 64);
    }
    const int lines = std::min(kTileLines, cols - j);
    for (int r = 0; r < lines; ++r) {
      store_row(columns[r], rows, c + (j + r) * stride, alpha, beta);
    }
  }
}

#endif

}  // namespace espalier::cpu::detail

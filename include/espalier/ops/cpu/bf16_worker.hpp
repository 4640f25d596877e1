// SPDX-License-Identifier: Apache-2.0
// One thread's part of the products of bf16 matrices. For each block of k it packs a task's columns
// of the right operand, which stay in its L2 cache, and streams blocks of 32 rows of the left one.
// A left operand that is stored by lines is read in place.
#pragma once

#include <cstdint>

#include <espalier/ops/cpu/bf16_product.hpp>

namespace espalier::cpu::detail {

#if defined(__x86_64__)

/// What a thread owns while it works: memory, the tile registers, and the part of a right operand
/// that it packed last.
class Bf16Worker {
 public:
  struct Sizes {
    std::int64_t right = 0, left = 0, sums = 0;  // bytes

    void cover(const Bf16Product& p, const Bf16Task& task) {
      const std::int64_t depth = std::min(p.depth, p.steps() * kStepDepth);
      right = std::max(right, ceil_div(task.cols, kBlockLines) * kBlockLines * depth * 2);
      left = std::max(left, kBlockLines * 2 * (p.left.k_first ? depth : kStepDepth));
      const std::int64_t row_blocks = p.in_one_block() ? 1 : ceil_div(task.rows, kBlockLines);
      sums = std::max(sums, row_blocks * ceil_div(task.cols, kBlockLines) * kBlockSums *
                                std::int64_t{sizeof(float)});
    }
    std::int64_t total() const { return right + left + sums; }
  };

  Bf16Worker(std::byte* memory, const Sizes& sizes)
      : right_(memory),
        left_(memory + sizes.right),
        sums_(reinterpret_cast<float*>(left_ + sizes.left)) {}

  template <FloatElement T>
  void compute(const GemmProblem<T>& problem, const Bf16Product& p, const Bf16Task& task) {
    for (std::int64_t k = 0; k < p.k; k += p.depth) {
      const std::int64_t depth = std::min(p.depth, p.k - k);
      pack_group(p, task, k, depth);
      for (std::int64_t row = 0; row < task.rows; row += kBlockLines) {
        multiply_row_block(problem, p, task, row, k, depth);
      }
    }
  }

 private:
  ESP_ON_DEMAND void pack_group(const Bf16Product& p, const Bf16Task& task, std::int64_t k,
                                std::int64_t depth) {
    if (packed_ == &p && packed_col_ == task.col && packed_k_ == k) return;
    packed_ = &p, packed_col_ = task.col, packed_k_ = k;
    const std::int64_t padded = ceil_div(depth, kStepDepth) * kStepDepth;
    for (std::int64_t col = 0; col < task.cols; col += kBlockLines) {
      pack_right(p.right, task.col + col, std::min<std::int64_t>(kBlockLines, task.cols - col), k,
                 depth, right_ + col * padded * 2);
    }
  }

  /// 32 rows, all columns of the task, `depth` values of k from `k` on.
  template <FloatElement T>
  void multiply_row_block(const GemmProblem<T>& problem, const Bf16Product& p, const Bf16Task& task,
                          std::int64_t row, std::int64_t k, std::int64_t depth) {
    const int rows = static_cast<int>(std::min<std::int64_t>(kBlockLines, task.rows - row));
    if (amx_) shapes_.use(rows);
    const std::int64_t panels = ceil_div(task.cols, kBlockLines);
    float* const sums = sums_ + (p.in_one_block() ? 0 : row / kBlockLines * panels * kBlockSums);
    // f32 sums without a further scale are accumulated in C itself.
    const bool in_place = std::same_as<T, float> && !p.transposed && problem.alpha == 1 &&
                          problem.beta == 0 && task.cols % kTileLines == 0;
    const auto c_of = [&](std::int64_t panel) {
      const std::int64_t i = task.row + row, j = task.col + panel * kBlockLines;
      return problem.c + (p.transposed ? j * problem.stride_c + i : i * problem.stride_c + j);
    };
    const auto store = [&](std::int64_t panel) {
      const std::int64_t cols = std::min(kBlockLines + 0L, task.cols - panel * kBlockLines);
      store_sums(sums + panel * kBlockSums, rows, static_cast<int>(cols), p.transposed, c_of(panel),
                 problem.stride_c, problem.alpha, problem.beta);
    };
    const std::int64_t part = part_of(depth);
    for (std::int64_t at = 0; at < depth; at += part) {
      TileProduct block = left_block(p, task.row + row, rows, k + at, std::min(part, depth - at));
      block.resume = k + at > 0;
      const bool stores = !in_place && k + depth == p.k && at + part >= depth;
      for (std::int64_t panel = 0; panel < panels; ++panel) {
        const std::int64_t col = panel * kBlockLines;
        block.right_tiles = task.cols - col > kTileLines ? 2 : 1;
        block.right = right_ + col * ceil_div(depth, kStepDepth) * (2 * kStepDepth) +
                      at / kStepDepth * block.right_tiles * kTileBytes;
        block.sums = sums + panel * kBlockSums;
        block.sums_stride = kBlockLines;
        if constexpr (std::same_as<T, float>) {
          if (in_place) block.sums = c_of(panel), block.sums_stride = problem.stride_c;
        }
        (amx_ ? multiply_amx : multiply_avx512_bf16)(block);
        // Delayed by one block: reading sums right after tile stores is slow.
        if (stores && panel > 0) store(panel - 1);
      }
      if (stores) store(panels - 1);
    }
  }

  /// A left block of this depth stays in the L1 cache while right ones are streamed.
  static std::int64_t part_of(std::int64_t depth) {
    constexpr std::int64_t kDeepest = 640;
    const std::int64_t steps = ceil_div(depth, kStepDepth);
    return ceil_div(steps, ceil_div(depth, kDeepest)) * kStepDepth;
  }

  ESP_ON_DEMAND TileProduct left_block(const Bf16Product& p, std::int64_t row, int rows,
                                       std::int64_t k, std::int64_t depth) {
    TileProduct block{};
    block.rows = rows;
    block.steps = ceil_div(depth, kStepDepth);
    if (p.left.k_first) {
      const std::int64_t tiles = ceil_div(rows, kTileLines);
      block.left_stride = 64;
      block.left_step = tiles * kTileBytes;
      block.left = left_;
      if (p.packed_left) {
        block.left = p.packed_left + row / kTileLines * p.steps() * kTileBytes +
                     k / kStepDepth * block.left_step;
      } else {
        pack_left(p.left, row, rows, k, depth, left_);
      }
      return block;
    }
    block.left = reinterpret_cast<const std::byte*>(p.left.at(row, k));
    block.left_stride = p.left.stride * 2;
    block.left_step = kStepDepth * 2;
    if (const std::int64_t rest = depth % kStepDepth; rest != 0) {
      pack_left(p.left, row, rows, k + depth - rest, rest, left_);
      block.left_last = left_;
    }
    return block;
  }

  std::byte *right_, *left_;
  float* sums_;
  const Bf16Product* packed_ = nullptr;
  std::int64_t packed_col_ = 0, packed_k_ = 0;
  const bool amx_ = isa() == Isa::amx;
  TileShapes shapes_;
};

#endif

}  // namespace espalier::cpu::detail

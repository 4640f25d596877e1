// SPDX-License-Identifier: Apache-2.0
// Products of two bf16 matrices into C of f32 or bf16, with all sums in f32: C is rounded once.
// Either factor may be the left operand of the tile product, which is read where it lies; the other
// is packed, some columns and some k at a time, by every thread that needs it, to stay in its L2
// cache. A transposed product is turned while its sums are stored. None of this, nor the number of
// threads or rows, changes a bit: see tile_product.hpp for the order of summation.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include <espalier/ops/cpu/gemm_problem.hpp>
#include <espalier/ops/cpu/tile_product.hpp>

namespace espalier::cpu::detail {

#if defined(__x86_64__)

// Of the L2 cache: what the packed part of the right operand may take, and sums between blocks of
// k. Their sizes are multiples of 32 and 16 lines.
inline constexpr std::int64_t kRightBytes = std::int64_t{1} << 20;
inline constexpr std::int64_t kSumBytes = std::int64_t{512} << 10;
// A block of k is as deep as the right operand's share allows for so many lines, or all there are.
inline constexpr std::int64_t kGroupLines = 256;
inline constexpr std::int64_t kBlockSums = kBlockLines * kBlockLines;
// Multiply-adds per cycle, packed values per cycle: estimates to share out work by.
inline constexpr std::int64_t kMultiplyRate = 400;
inline constexpr std::int64_t kPackRate = 8;
inline constexpr std::int64_t kForkCycles = 20'000;

/// A problem with its operands assigned: sums [lines of left, lines of right].
struct Bf16Product {
  Lines left{}, right{};
  std::int64_t rows = 0, cols = 0, k = 0;  // lines of left, of right
  bool turned = false;                     // the sums are the transpose of C
  std::int64_t depth = 0;                  // of a block of k, a multiple of 32
  std::int64_t group = 0;                  // lines of right that are packed at the same time

  std::int64_t cycles() const {
    const std::int64_t padded = ceil_div(rows, kTileLines) * ceil_div(cols, kTileLines) * 256;
    return padded * k / kMultiplyRate + (rows + cols) * k / kPackRate;
  }
};

/// Which operand is left: one that needs no packing; of two such the one that leaves less to pack
/// and to turn.
template <FloatElement T>
Bf16Product assign(const GemmProblem<T>& p) {
  const Lines a{static_cast<const bf16*>(p.a.data), p.a.stride, p.a.transposed};
  const Lines b{static_cast<const bf16*>(p.b.data), p.b.stride, !p.b.transposed};
  bool turned = a.k_first && (!b.k_first || p.n < p.m);
  if (!a.k_first && !b.k_first) {
    turned = p.m * (p.k + 2 * p.n) < p.n * p.k && (p.m >= kTileLines || isa() == Isa::amx);
  }
  Bf16Product product{a, b, p.m, p.n, p.k, turned, 0, 0};
  if (turned) std::swap(product.left, product.right), std::swap(product.rows, product.cols);
  const std::int64_t tiles = ceil_div(std::min(product.cols, kGroupLines), kTileLines);
  const std::int64_t steps = ceil_div(p.k, kStepDepth);
  const std::int64_t blocks =
      ceil_div(steps, std::max<std::int64_t>(kRightBytes / kTileBytes / tiles, 1));
  product.depth = ceil_div(steps, blocks) * kStepDepth;
  const std::int64_t fit = kRightBytes / (product.depth * 2 * kBlockLines);
  product.group = std::max<std::int64_t>(fit, 1) * kBlockLines;
  return product;
}

/// A rectangle of sums, computed by one thread.
struct Bf16Task {
  std::size_t problem;
  std::int64_t row, rows, col, cols;
};

inline void cut(const Bf16Product& p, std::size_t problem, std::int64_t share,
                std::vector<Bf16Task>& tasks) {
  const std::int64_t parts = std::max<std::int64_t>(p.cycles() / share, 1);
  const std::int64_t groups = ceil_div(p.cols, p.group);
  const std::int64_t cols = ceil_div(ceil_div(p.cols, groups), kBlockLines) * kBlockLines;
  std::int64_t row_parts = ceil_div(parts, groups);
  if (p.depth < p.k) {
    row_parts = std::max(row_parts, p.rows * std::min(cols, p.cols) * 4 / kSumBytes);
  }
  const std::int64_t rows = ceil_div(ceil_div(p.rows, row_parts), kBlockLines) * kBlockLines;
  for (std::int64_t col = 0; col < p.cols; col += cols) {
    for (std::int64_t row = 0; row < p.rows; row += rows) {
      tasks.push_back(
          {problem, row, std::min(rows, p.rows - row), col, std::min(cols, p.cols - col)});
    }
  }
}

/// C of one block = alpha * sums + beta * C; sums [rows][32], of which `cols` columns count.
template <FloatElement T>
ESP_SIMD_INLINE void store_row(const float* sums, int n, T* c, float alpha, float beta) {
  using V = simd::Vec<float, 16>;
  for (int j = 0; j < n; j += 16) {
    V v = V(alpha) * V::load(sums + j);
    if (n - j >= 16) {
      if (beta != 0) v = fma(V(alpha), V::load(sums + j), V(beta) * V::load(c + j));
      v.store(c + j);
    } else {
      if (beta != 0) v = fma(V(alpha), V::load(sums + j), V(beta) * V::load_partial(c + j, n - j));
      v.store_partial(c + j, n - j);
    }
  }
}
template <FloatElement T>
ESP_TARGET_AVX512 void store_sums(const float* sums, int rows, int cols, bool turned, T* c,
                                  std::int64_t stride, float alpha, float beta) {
  if (!turned) {
    for (int i = 0; i < rows; ++i) {
      store_row(sums + i * kBlockLines, cols, c + i * stride, alpha, beta);
    }
    return;
  }
  alignas(64) float columns[kTileLines][kBlockLines];
  for (int j = 0; j < cols; j += kTileLines) {
    for (int i = 0; i < rows; i += kTileLines) {
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

/// What a thread owns while it works: memory, the tile registers, and the part of a right operand
/// that it packed last.
class Bf16Worker {
 public:
  struct Sizes {
    std::int64_t right = 0, left = 0, sums = 0;  // bytes

    void cover(const Bf16Product& p, const Bf16Task& task) {
      const std::int64_t depth = std::min(p.depth, ceil_div(p.k, kStepDepth) * kStepDepth);
      right = std::max(right, ceil_div(task.cols, kTileLines) * kTileLines * depth * 2);
      left = std::max(left, kBlockLines * 2 * (p.left.k_first ? depth : kStepDepth));
      const std::int64_t row_blocks = p.depth < p.k ? ceil_div(task.rows, kBlockLines) : 1;
      sums = std::max(sums, row_blocks * ceil_div(task.cols, kBlockLines) * kBlockSums * 4);
    }
    std::int64_t total() const { return right + left + sums; }
  };

  Bf16Worker(std::byte* memory, const Sizes& sizes)
      : right_(memory), left_(memory + sizes.right), sums_(left_ + sizes.left) {}

  template <FloatElement T>
  void compute(const GemmProblem<T>& problem, const Bf16Product& p, const Bf16Task& task) {
    const std::int64_t panels = ceil_div(task.cols, kBlockLines);
    for (std::int64_t k = 0; k < p.k; k += p.depth) {
      const std::int64_t depth = std::min(p.depth, p.k - k);
      pack_group(p, task, k, depth);
      for (std::int64_t row = 0; row < task.rows; row += kBlockLines) {
        const int rows = static_cast<int>(std::min<std::int64_t>(kBlockLines, task.rows - row));
        if (amx_) shapes_.use(rows);
        float* const sums = reinterpret_cast<float*>(sums_) +
                            (p.depth < p.k ? row / kBlockLines * panels * kBlockSums : 0);
        const auto store = [&](std::int64_t panel) {
          const std::int64_t i = task.row + row, j = task.col + panel * kBlockLines;
          T* c = problem.c + (p.turned ? j * problem.stride_c + i : i * problem.stride_c + j);
          const std::int64_t cols = std::min<std::int64_t>(kBlockLines, task.col + task.cols - j);
          store_sums(sums + panel * kBlockSums, rows, static_cast<int>(cols), p.turned, c,
                     problem.stride_c, problem.alpha, problem.beta);
        };
        const std::int64_t part = left_part(depth);
        for (std::int64_t at = 0; at < depth; at += part) {
          TileProduct block =
              left_block(p, task.row + row, rows, k + at, std::min(part, depth - at));
          block.resume = k + at > 0;
          const bool last = k + depth == p.k && at + part >= depth;
          for (std::int64_t panel = 0; panel < panels; ++panel) {
            const std::int64_t col = panel * kBlockLines;
            block.right_tiles = task.cols - col > kTileLines ? 2 : 1;
            block.right = right_ + col * ceil_div(depth, kStepDepth) * (2 * kStepDepth) +
                          at / kStepDepth * block.right_tiles * kTileBytes;
            block.sums = sums + panel * kBlockSums;
            (amx_ ? multiply_amx : multiply_avx512_bf16)(block);
            // One block late: its instructions fill the gaps between those on tiles.
            if (last && panel > 0) store(panel - 1);
          }
          if (last) store(panels - 1);
        }
      }
    }
  }

 private:
  /// A left block so deep stays in the L1 cache while the right ones pass by.
  static std::int64_t left_part(std::int64_t depth) {
    constexpr std::int64_t kDeepest = 640;
    const std::int64_t steps = ceil_div(depth, kStepDepth);
    return ceil_div(steps, ceil_div(depth, kDeepest)) * kStepDepth;
  }

  void pack_group(const Bf16Product& p, const Bf16Task& task, std::int64_t k, std::int64_t depth) {
    if (packed_problem_ == &p && packed_col_ == task.col && packed_k_ == k) return;
    packed_problem_ = &p, packed_col_ = task.col, packed_k_ = k;
    const std::int64_t padded = ceil_div(depth, kStepDepth) * kStepDepth;
    for (std::int64_t col = 0; col < task.cols; col += kBlockLines) {
      pack_right(p.right, task.col + col, std::min<std::int64_t>(kBlockLines, task.cols - col), k,
                 depth, right_ + col * padded * 2);
    }
  }

  TileProduct left_block(const Bf16Product& p, std::int64_t row, int rows, std::int64_t k,
                         std::int64_t depth) {
    TileProduct block{};
    block.rows = rows;
    block.steps = ceil_div(depth, kStepDepth);
    if (p.left.k_first) {
      pack_left(p.left, row, rows, k, depth, left_);
      block.left = left_;
      block.left_stride = 64;
      block.left_step = ceil_div(rows, kTileLines) * kTileBytes;
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

  std::byte *right_, *left_, *sums_;
  const Bf16Product* packed_problem_ = nullptr;
  std::int64_t packed_col_ = 0, packed_k_ = 0;
  const bool amx_ = isa() == Isa::amx;
  TileShapes shapes_;
};

/// Problems of which both operands are bf16.
template <FloatElement T>
void multiply_bf16(std::span<const GemmProblem<T>> problems) {
  // Kept between calls, so that a call asks the system for no memory.
  static thread_local std::vector<Bf16Product> products;
  static thread_local std::vector<Bf16Task> tasks;
  products.clear(), tasks.clear();
  std::int64_t cycles = 0;
  for (const auto& p : problems) {
    const bool empty = p.m == 0 || p.n == 0 || p.k == 0;
    if (empty) scale_c(p);
    products.push_back(empty ? Bf16Product{} : assign(p));
    cycles += products.back().cycles();
  }
  int threads = cycles < kForkCycles ? 1 : num_threads();
#ifdef _OPENMP
  if (omp_in_parallel()) threads = 1;
#endif
  constexpr std::int64_t kTasksPerThread = 8;
  const std::int64_t share =
      std::max<std::int64_t>(threads > 1 ? cycles / (threads * kTasksPerThread) : cycles, 1);
  Bf16Worker::Sizes sizes;
  for (std::size_t i = 0; i < products.size(); ++i) {
    if (products[i].rows == 0) continue;
    const std::size_t first = tasks.size();
    cut(products[i], i, share, tasks);
    for (std::size_t t = first; t < tasks.size(); ++t) sizes.cover(products[i], tasks[t]);
  }
  if (tasks.empty()) return;
  threads = static_cast<int>(std::min<std::int64_t>(threads, tasks.size()));
  const auto memory = allocate_bytes(static_cast<std::size_t>(threads * sizes.total()));
  std::atomic<std::size_t> next{0};
  // The vectors belong to this thread; the others reach them through these.
  const Bf16Product* const all_products = products.data();
  const Bf16Task* const all_tasks = tasks.data();
  const std::size_t count = tasks.size();
  const auto work = [&](int thread) {
    Bf16Worker worker(memory.get() + thread * sizes.total(), sizes);
    for (std::size_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
      const Bf16Task& task = all_tasks[i];
      worker.compute(problems[task.problem], all_products[task.problem], task);
    }
  };
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    work(omp_get_thread_num());
    return;
  }
#endif
  work(0);
}

#endif

/// Computes the problems for which there are instructions and returns the others.
template <FloatElement T>
std::span<const GemmProblem<T>> multiply_where_bf16(std::span<const GemmProblem<T>> problems) {
#if defined(__x86_64__)
  if (isa() < Isa::avx512_bf16) return problems;
  const auto both_bf16 = [](const GemmProblem<T>& p) {
    return p.a.dtype == DType::bf16 && p.b.dtype == DType::bf16;
  };
  const auto count = std::count_if(problems.begin(), problems.end(), both_bf16);
  if (count == static_cast<std::ptrdiff_t>(problems.size())) {
    multiply_bf16(problems);
    return {};
  }
  if (count > 0) {
    static thread_local std::vector<GemmProblem<T>> mine, others;
    mine.clear(), others.clear();
    for (const auto& p : problems) (both_bf16(p) ? mine : others).push_back(p);
    multiply_bf16(std::span<const GemmProblem<T>>(mine));
    return others;
  }
#endif
  return problems;
}

}  // namespace espalier::cpu::detail

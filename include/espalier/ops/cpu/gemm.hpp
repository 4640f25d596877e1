// SPDX-License-Identifier: Apache-2.0
// C[m, n] = alpha * A[m, k] B[k, n] + beta * C on the CPU, for one problem or a batch of uneven
// ones (the experts of a mixture) in one parallel region. f32, bf16 and f16 operands are widened
// while they are packed. Blocked for the caches as in Goto and van de Geijn 2008 ("Anatomy of
// high-performance matrix multiplication"). Numerics: see microkernel.hpp; a row of C has the same
// bits for any number of threads and any m, on one instruction set.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include <espalier/ops/cpu/gemm_bf16.hpp>
#include <espalier/ops/cpu/microkernel.hpp>

namespace espalier::cpu {

namespace detail {

inline constexpr std::int64_t kPackedLimit = std::int64_t{48} << 20;  // bytes of A at a time
// Up to so many bytes of A, a task goes through all of k for one sliver of B after the other: C is
// touched once, and A comes from the L2 cache or a little beyond. Otherwise k is the outer loop,
// and blocks of A, B and C share the L2 cache.
inline constexpr std::int64_t kStreamBytes = std::int64_t{3} << 20;
inline constexpr std::int64_t kBlockBytes = std::int64_t{512} << 10;
inline constexpr std::int64_t kRowsPerPack = 32;
// Fewer rows than this are not worth packing B again for.
inline constexpr std::int64_t kRowsPerTask = 128;
// Multiply-adds that cost as much as moving one element of B, and as entering a parallel region.
inline constexpr std::int64_t kPackCost = 12;
inline constexpr std::int64_t kForkCost = 200'000;
inline constexpr std::int64_t kTasksPerThread = 8;

/// Blocking<T, W> as numbers.
struct BlockSizes {
  std::int64_t rows, cols, depth, stride;
};
template <std::floating_point T>
BlockSizes block_sizes() {
  return simd::dispatch([&]<int W>() -> BlockSizes {
    using B = Blocking<T, W>;
    return BlockSizes{B::kRows, B::kCols, B::kDepth, B::kStride};
  });
}

/// Rows of one problem whose A is packed at the same time.
template <std::floating_point T>
struct Chunk {
  const GemmProblem<T>* problem;
  std::int64_t row, rows;
  std::int64_t depth, blocks;  // k = `blocks` blocks of `depth`, the last one shorter
  std::int64_t packed;         // where its A begins: [blocks][rows][kStride]
};
/// A rectangle of C, computed by one thread.
struct Task {
  std::size_t chunk;
  std::int64_t row, rows;  // within the chunk
  std::int64_t col, cols;
};
struct PackTask {
  std::size_t chunk;
  std::int64_t block, row, rows;
};

/// What one parallel region does: pack every chunk, then work through the tasks.
template <std::floating_point T>
struct Plan {
  BlockSizes sizes{};
  std::vector<Chunk<T>> chunks;
  std::vector<PackTask> packs;
  std::vector<Task> tasks;
  std::int64_t packed = 0;  // elements

  void clear() {
    chunks.clear();
    packs.clear();
    tasks.clear();
    packed = 0;
  }
};

/// Appends rows [row, ...) of `p`, as many as the packed limit leaves room for; returns how many.
template <std::floating_point T>
std::int64_t add_chunk(Plan<T>& plan, const GemmProblem<T>& p, std::int64_t row) {
  const std::int64_t blocks = ceil_div(p.k, plan.sizes.depth);
  const std::int64_t depth = std::min(ceil_div(ceil_div(p.k, blocks), 16) * 16, p.k);
  const std::int64_t per_row = blocks * plan.sizes.stride;
  const std::int64_t limit = kPackedLimit / static_cast<std::int64_t>(sizeof(T));
  // At least some rows, however long they are.
  const std::int64_t room = std::max((limit - plan.packed) / per_row, std::int64_t{0});
  std::int64_t rows = p.m - row;
  if (rows > room) rows = plan.packed > 0 ? 0 : std::max(room, 16 * plan.sizes.rows);
  rows = std::min(rows, p.m - row);
  if (rows > 0) {
    plan.chunks.push_back({&p, row, rows, depth, ceil_div(p.k, depth), plan.packed});
    plan.packed += rows * per_row;
  }
  return rows;
}

template <std::floating_point T>
std::int64_t work_of(const Chunk<T>& c) {
  return c.problem->n * c.problem->k * (c.rows + kPackCost);
}

template <std::floating_point T>
bool streams(std::int64_t rows, std::int64_t k) {
  return rows <= kStreamBytes / (k * std::int64_t{sizeof(T)});
}

/// Cuts the chunks into tasks: by columns first, since each task packs its own part of B. Nothing
/// here changes a bit of the result.
template <std::floating_point T>
void cut(Plan<T>& plan, int threads) {
  std::int64_t total = 0;
  for (const auto& c : plan.chunks) total += work_of(c);
  const std::int64_t share =
      std::max<std::int64_t>(threads > 1 ? total / (threads * kTasksPerThread) : total, 1);
  for (std::size_t i = 0; i < plan.chunks.size(); ++i) {
    const Chunk<T>& c = plan.chunks[i];
    const std::int64_t n = c.problem->n;
    const std::int64_t parts = std::max<std::int64_t>(work_of(c) / share, 1);
    const std::int64_t slivers = ceil_div(n, plan.sizes.cols);
    const std::int64_t fit = kStreamBytes / (c.problem->k * std::int64_t{sizeof(T)});
    const bool stream = c.rows <= fit || fit >= 3 * kRowsPerTask;
    const std::int64_t share_l2 = kBlockBytes / (plan.sizes.cols * std::int64_t{sizeof(T)});
    const std::int64_t widest =
        stream ? slivers : std::max<std::int64_t>(share_l2 / std::max(c.depth, c.rows), 1);
    const std::int64_t cols =
        std::clamp<std::int64_t>(slivers / parts, 1, widest) * plan.sizes.cols;
    std::int64_t row_parts =
        std::min(ceil_div(parts, ceil_div(n, cols)), ceil_div(c.rows, kRowsPerTask));
    if (stream) row_parts = std::max(row_parts, ceil_div(c.rows, fit));
    const std::int64_t rows = ceil_div(c.rows, row_parts);
    for (std::int64_t col = 0; col < n; col += cols) {
      for (std::int64_t row = 0; row < c.rows; row += rows) {
        plan.tasks.push_back({i, row, std::min(rows, c.rows - row), col, std::min(cols, n - col)});
      }
    }
    for (std::int64_t block = 0; block < c.blocks; ++block) {
      for (std::int64_t row = 0; row < c.rows; row += kRowsPerPack) {
        plan.packs.push_back({i, block, row, std::min(kRowsPerPack, c.rows - row)});
      }
    }
  }
}

template <std::floating_point T>
void pack_a(const Plan<T>& plan, const PackTask& task, T* packed) {
  const Chunk<T>& c = plan.chunks[task.chunk];
  const std::int64_t k = task.block * c.depth;
  T* to = packed + c.packed + (task.block * c.rows + task.row) * plan.sizes.stride;
  pack(c.problem->a, c.row + task.row, task.rows, k, std::min(c.depth, c.problem->k - k), to,
       plan.sizes.stride);
}

/// `scratch` holds one block of B: at least the task's columns times the depth.
template <std::floating_point T>
void compute(const Plan<T>& plan, const Task& task, const T* packed, T* scratch) {
  const Chunk<T>& c = plan.chunks[task.chunk];
  const GemmProblem<T>& p = *c.problem;
  const auto pack_b = [&](std::int64_t block, std::int64_t col, T* to) {
    const std::int64_t k = block * c.depth;
    const std::int64_t cols = std::min(plan.sizes.cols, task.cols - col);
    pack(p.b, k, std::min(c.depth, p.k - k), task.col + col, cols, to, plan.sizes.cols);
  };
  const auto multiply = [&](std::int64_t block, std::int64_t row, std::int64_t rows,
                            std::int64_t col, const T* b) {
    row += task.row;
    Sweep<T> s;
    s.a = packed + c.packed + (block * c.rows + row) * plan.sizes.stride;
    s.b = b;
    s.c = p.c + (c.row + row) * p.stride_c + task.col + col;
    s.rows = rows;
    s.depth = std::min(c.depth, p.k - block * c.depth);
    s.stride_c = p.stride_c;
    s.cols = static_cast<int>(std::min(plan.sizes.cols, task.cols - col));
    s.alpha = p.alpha;
    s.beta = block == 0 ? p.beta : T{1};
    sweep_function<T>()(s);
  };

  if (streams<T>(task.rows, p.k)) {
    for (std::int64_t col = 0; col < task.cols; col += plan.sizes.cols) {
      for (std::int64_t block = 0; block < c.blocks; ++block) {
        pack_b(block, col, scratch);
        multiply(block, 0, task.rows, col, scratch);
      }
    }
    return;
  }
  const std::int64_t block_rows =
      kBlockBytes / (plan.sizes.depth * plan.sizes.rows * static_cast<std::int64_t>(sizeof(T))) *
      plan.sizes.rows;
  for (std::int64_t block = 0; block < c.blocks; ++block) {
    for (std::int64_t row = 0; row < task.rows; row += block_rows) {
      for (std::int64_t col = 0; col < task.cols; col += plan.sizes.cols) {
        T* b = scratch + col * plan.sizes.depth;
        if (row == 0) pack_b(block, col, b);
        multiply(block, row, std::min(block_rows, task.rows - row), col, b);
      }
    }
  }
}

template <std::floating_point T>
void run(Plan<T>& plan) {
  std::int64_t work = 0;
  for (const auto& c : plan.chunks) work += work_of(c);
  int threads = work < kForkCost ? 1 : num_threads();
#ifdef _OPENMP
  if (omp_in_parallel()) threads = 1;
#endif
  cut(plan, threads);
  std::int64_t widest = 0;
  for (const Task& t : plan.tasks) {
    const bool stream = streams<T>(t.rows, plan.chunks[t.chunk].problem->k);
    widest = std::max(widest, stream ? std::min(t.cols, plan.sizes.cols) : t.cols);
  }
  const std::int64_t scratch =
      ceil_div(widest, plan.sizes.cols) * plan.sizes.cols * plan.sizes.depth;
  const auto memory =
      allocate_bytes(static_cast<std::size_t>(plan.packed + threads * scratch) * sizeof(T));
  T* const packed = reinterpret_cast<T*>(memory.get());

  std::atomic<std::size_t> next_pack{0}, next_task{0};
  const auto pack_all = [&] {
    for (std::size_t i;
         (i = next_pack.fetch_add(1, std::memory_order_relaxed)) < plan.packs.size();)
      pack_a(plan, plan.packs[i], packed);
  };
  const auto compute_all = [&](int thread) {
    T* const mine = packed + plan.packed + thread * scratch;
    for (std::size_t i;
         (i = next_task.fetch_add(1, std::memory_order_relaxed)) < plan.tasks.size();)
      compute(plan, plan.tasks[i], packed, mine);
  };
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    {
      pack_all();
#pragma omp barrier
      compute_all(omp_get_thread_num());
    }
    return;
  }
#endif
  pack_all();
  compute_all(0);
}

/// Operands of any type, widened to T.
template <std::floating_point T>
void multiply_widened(std::span<const GemmProblem<T>> problems) {
  // Kept between calls, so that a call asks the system for no memory.
  static thread_local Plan<T> plan;
  plan.clear();
  plan.sizes = block_sizes<T>();
  for (const auto& p : problems) {
    if (p.m == 0 || p.n == 0) continue;
    if (p.k == 0) {
      scale_c(p);
      continue;
    }
    for (std::int64_t row = 0; row < p.m;) {
      const std::int64_t rows = add_chunk(plan, p, row);
      row += rows;
      if (rows == 0 || row < p.m) {
        run(plan);
        plan.clear();
      }
    }
  }
  if (!plan.chunks.empty()) run(plan);
}

}  // namespace detail

/// Every problem; they must not write the same element.
/// @throws ShapeError, DTypeError before anything is written.
template <FloatElement T>
void gemm_batch(std::span<const GemmProblem<T>> problems) {
  for (const auto& p : problems) detail::check(p);
  detail::count(problems);
  if constexpr (!std::same_as<T, double>) {
    problems = detail::multiply_where_bf16(problems);
  }
  if constexpr (std::same_as<T, bf16>) {
    detail::multiply_rounded(problems, detail::multiply_widened<float>);
  } else {
    detail::multiply_widened(problems);
  }
}

/// C = alpha * A B + beta * C. With `b.transposed`, b is a weight [n, k] and C = A bᵀ.
template <FloatElement T>
void gemm(std::int64_t m, std::int64_t n, std::int64_t k, MatrixView a, MatrixView b, T* c,
          std::int64_t stride_c, acc_t<T> alpha = 1, acc_t<T> beta = 0) {
  const GemmProblem<T> problem{m, n, k, a, b, c, stride_c, alpha, beta};
  gemm_batch<T>(std::span<const GemmProblem<T>>(&problem, 1));
}

}  // namespace espalier::cpu

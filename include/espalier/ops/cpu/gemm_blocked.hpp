// SPDX-License-Identifier: Apache-2.0
// Matrix products in f32 and double, blocked for the caches much as in Goto and van de Geijn 2008
// ("Anatomy of high-performance matrix multiplication"): panels of A are packed first and pass
// through the L1 cache; each task packs its part of B, one block of k at a time, into its L2 cache.
// f32, bf16 and f16 operands are widened while they are packed. Numerics: see microkernel.hpp; a
// row of C has the same bits for any number of threads and any m, on one instruction set.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include <espalier/ops/cpu/gemm_problem.hpp>
#include <espalier/ops/cpu/microkernel.hpp>

namespace espalier::cpu::detail {

inline constexpr std::int64_t kPackedLimit = std::int64_t{48} << 20;  // bytes of A at a time
// Of the L2 cache: what the part of B that a task packs may take.
inline constexpr std::int64_t kBlockBytes = std::int64_t{768} << 10;
// And what the panels may take that pass by, where a sliver of B stays in the L1 cache.
inline constexpr std::int64_t kSweepBytes = std::int64_t{512} << 10;
// Fewer rows than this are not worth packing B again for.
inline constexpr std::int64_t kRowsPerTask = 128;
// A is read where it lies, not packed, if it meets so few columns or is so narrow.
inline constexpr std::int64_t kDirectCols = 64;
inline constexpr std::int64_t kDirectDepth = 64;
// Multiply-adds that cost as much as moving one element of B, and as entering a parallel region.
inline constexpr std::int64_t kPackCost = 12;
inline constexpr std::int64_t kForkCost = 200'000;
inline constexpr std::int64_t kTasksPerThread = 8;

/// Blocking<T, W> as numbers.
struct BlockSizes {
  std::int64_t panel, stride;  // of a panel
  std::int64_t cols, depth;
  std::int64_t rows;  // whole panels that are swept at a time
};
template <std::floating_point T>
BlockSizes block_sizes() {
  return simd::dispatch([&]<int W>() -> BlockSizes {
    using B = Blocking<T, W>;
    constexpr auto kDepthBytes = static_cast<std::int64_t>(B::kDepth * sizeof(T));
    const std::int64_t rows = B::kPanelStays ? kPackedLimit : kSweepBytes / kDepthBytes;
    return BlockSizes{B::kPanel, B::kPanelStride, B::kCols, B::kDepth,
                      rows / B::kPanel * B::kPanel};
  });
}

/// Rows of one problem whose A is packed at the same time.
template <std::floating_point T>
struct Chunk {
  const GemmProblem<T>* problem;
  std::int64_t row, rows;
  std::int64_t depth, blocks;  // k = `blocks` blocks of `depth`, the last one shorter
  std::int64_t packed;         // where its A begins: [blocks][panels][depth][kPanel]; direct: -1

  bool direct() const { return packed < 0; }
  std::int64_t depth_of(std::int64_t block) const {
    return std::min(depth, problem->k - block * depth);
  }
};
/// A rectangle of C, computed by one thread.
struct Task {
  std::size_t chunk;
  std::int64_t row, rows;  // within the chunk; `row` begins a panel
  std::int64_t col, cols;
};
struct PackTask {
  std::size_t chunk;
  std::int64_t block, row;  // of one panel
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
  std::int64_t whole_panels(std::int64_t rows) const {
    return ceil_div(rows, sizes.panel) * sizes.panel;
  }
  std::int64_t packed_rows(std::int64_t rows) const {
    return ceil_div(rows, sizes.panel) * sizes.stride;
  }
};

/// Appends rows [row, ...) of `p`, as many as the packed limit leaves room for; returns how many.
template <std::floating_point T>
std::int64_t add_chunk(Plan<T>& plan, const GemmProblem<T>& p, std::int64_t row) {
  const std::int64_t blocks = ceil_div(p.k, plan.sizes.depth);
  const std::int64_t depth = std::min(ceil_div(ceil_div(p.k, blocks), 16) * 16, p.k);
  const bool direct = p.a.dtype == dtype_of<T>::value && !p.a.transposed &&
                      (p.n <= kDirectCols || p.k <= kDirectDepth);
  if (direct) {
    plan.chunks.push_back({&p, row, p.m - row, depth, ceil_div(p.k, depth), -1});
    return p.m - row;
  }
  const std::int64_t per_panel = blocks * depth * plan.sizes.stride;
  const std::int64_t limit = kPackedLimit / static_cast<std::int64_t>(sizeof(T));
  // At least some rows, however long they are.
  const std::int64_t room = std::max<std::int64_t>((limit - plan.packed) / per_panel, 0);
  std::int64_t panels = ceil_div(p.m - row, plan.sizes.panel);
  if (panels > room) panels = plan.packed > 0 ? 0 : std::max<std::int64_t>(room, 8);
  const std::int64_t rows = std::min(panels * plan.sizes.panel, p.m - row);
  if (rows > 0) {
    plan.chunks.push_back({&p, row, rows, depth, ceil_div(p.k, depth), plan.packed});
    plan.packed += plan.packed_rows(rows) * blocks * depth;
  }
  return rows;
}

template <std::floating_point T>
std::int64_t work_of(const Chunk<T>& c) {
  return c.problem->n * c.problem->k * (c.rows + kPackCost);
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
    const std::int64_t widest = std::max<std::int64_t>(
        kBlockBytes / (plan.sizes.cols * c.depth * std::int64_t{sizeof(T)}), 1);
    const std::int64_t col_parts = std::max(std::min(parts, slivers), ceil_div(slivers, widest));
    const std::int64_t cols = ceil_div(slivers, col_parts) * plan.sizes.cols;
    const std::int64_t row_parts =
        std::min(ceil_div(parts, ceil_div(n, cols)), ceil_div(c.rows, kRowsPerTask));
    const std::int64_t rows = plan.whole_panels(ceil_div(c.rows, row_parts));
    for (std::int64_t col = 0; col < n; col += cols) {
      for (std::int64_t row = 0; row < c.rows; row += rows) {
        plan.tasks.push_back({i, row, std::min(rows, c.rows - row), col, std::min(cols, n - col)});
      }
    }
    for (std::int64_t block = 0; block < (c.direct() ? 0 : c.blocks); ++block) {
      for (std::int64_t row = 0; row < c.rows; row += plan.sizes.panel) {
        plan.packs.push_back({i, block, row});
      }
    }
  }
}

template <std::floating_point T>
T* packed_panel(const Plan<T>& plan, const Chunk<T>& c, std::int64_t block, std::int64_t row,
                T* packed) {
  return packed + c.packed + plan.packed_rows(c.rows) * block * c.depth +
         plan.packed_rows(row) * c.depth_of(block);
}

template <std::floating_point T>
void pack_a(const Plan<T>& plan, const PackTask& task, T* packed) {
  const Chunk<T>& c = plan.chunks[task.chunk];
  MatrixView turned = c.problem->a;  // a panel holds the transpose
  turned.transposed = !turned.transposed;
  pack(turned, task.block * c.depth, c.depth_of(task.block), c.row + task.row,
       std::min(plan.sizes.panel, c.rows - task.row),
       packed_panel(plan, c, task.block, task.row, packed), plan.sizes.stride);
}

/// `scratch` holds the part of B that meets the task, one block of k at a time.
template <std::floating_point T>
void compute(const Plan<T>& plan, const Task& task, T* packed, T* scratch) {
  const Chunk<T>& c = plan.chunks[task.chunk];
  const GemmProblem<T>& p = *c.problem;
  for (std::int64_t block = 0; block < c.blocks; ++block) {
    const std::int64_t k = block * c.depth, depth = c.depth_of(block);
    for (std::int64_t col = 0; col < task.cols; col += plan.sizes.cols) {
      pack(p.b, k, depth, task.col + col, std::min(plan.sizes.cols, task.cols - col),
           scratch + col * depth, plan.sizes.cols);
    }
    for (std::int64_t row = task.row; row < task.row + task.rows; row += plan.sizes.rows) {
      Sweep<T> s;
      s.b = scratch;
      s.c = p.c + (c.row + row) * p.stride_c + task.col;
      s.rows = std::min(plan.sizes.rows, task.row + task.rows - row);
      s.cols = task.cols;
      s.depth = depth;
      s.stride_c = p.stride_c;
      s.alpha = p.alpha;
      s.beta = block == 0 ? p.beta : T{1};
      if (c.direct()) {
        s.a = static_cast<const T*>(p.a.data) + (c.row + row) * p.a.stride + k;
        s.stride_a = p.a.stride;
        sweep<true>(s);
      } else {
        s.a = packed_panel(plan, c, block, row, packed);
        s.stride_a = 0;
        sweep<false>(s);
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
  std::int64_t scratch = 0;
  for (const Task& t : plan.tasks) {
    scratch = std::max(
        scratch, ceil_div(t.cols, plan.sizes.cols) * plan.sizes.cols * plan.chunks[t.chunk].depth);
  }
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
      if (!plan.packs.empty()) {
        pack_all();
#pragma omp barrier
      }
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

}  // namespace espalier::cpu::detail

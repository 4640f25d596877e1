// SPDX-License-Identifier: Apache-2.0
// Matrix products in f32 and double, blocked for the caches much as in Goto and van de Geijn 2008
// ("Anatomy of high-performance matrix multiplication"): panels of A are packed first and pass
// through the L1 cache; each task packs its part of B, one block of k at a time, into its L2 cache.
// f32, bf16 and f16 operands are widened while they are packed. Numerics: see microkernel.hpp; a
// row of C has the same bits for any number of threads and any m, on one instruction set.
#pragma once

#include <algorithm>
#include <cstdint>
#include <span>
#include <vector>

#include <espalier/ops/cpu/gemm_narrow.hpp>
#include <espalier/ops/cpu/gemm_plan.hpp>
#include <espalier/ops/cpu/microkernel.hpp>

namespace espalier::cpu::detail {

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
  share_out(plan, threads);
  std::int64_t scratch = 0;
  for (const Task& t : plan.tasks) {
    scratch = std::max(
        scratch, ceil_div(t.cols, plan.sizes.cols) * plan.sizes.cols * plan.chunks[t.chunk].depth);
  }
  const auto memory =
      allocate_bytes(static_cast<std::size_t>(plan.packed + threads * scratch) * sizeof(T));
  T* const packed = reinterpret_cast<T*>(memory.get());

  const auto pack_all = [&](int thread) {
    for (std::size_t i; (i = plan.pack_queues.take(thread)) != Queues::kNone;) {
      pack_a(plan, plan.packs[i], packed);
    }
  };
  const auto compute_all = [&](int thread) {
    T* const mine = packed + plan.packed + thread * scratch;
    for (std::size_t i; (i = plan.task_queues.take(thread)) != Queues::kNone;) {
      compute(plan, plan.tasks[i], packed, mine);
    }
  };
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    {
      const int thread = omp_get_thread_num();
      if (!plan.packs.empty()) {
        pack_all(thread);
#pragma omp barrier
      }
      compute_all(thread);
    }
    return;
  }
#endif
  pack_all(0);
  compute_all(0);
}

/// Operands of any type, widened to T.
template <std::floating_point T>
void multiply_widened(std::span<const GemmProblem<T>> problems) {
  // Kept between calls, so that a call asks the system for no memory.
  static thread_local Plan<T> plan;
  static thread_local std::vector<NarrowTask> narrow;
  plan.clear();
  narrow.clear();
  plan.sizes = block_sizes<T>();
  for (const auto& p : problems) {
    if (p.m == 0 || p.n == 0) continue;
    if (p.k == 0) {
      scale_c(p);
      continue;
    }
    if constexpr (std::same_as<T, float>) {
      if (is_narrow(p)) {
        const std::int64_t depth = block_depth(p.k, plan.sizes.depth);
        for (std::int64_t col = 0; col < p.n; col += kNarrowCols)
          narrow.push_back({&p, col, depth});
        continue;
      }
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
  if (!narrow.empty()) run(narrow);
}

}  // namespace espalier::cpu::detail

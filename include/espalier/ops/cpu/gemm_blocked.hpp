// SPDX-License-Identifier: Apache-2.0
// Matrix products in f32 and double, blocked for the caches much as in Goto and van de Geijn 2008
// ("Anatomy of high-performance matrix multiplication"): each task packs its part of B, one block
// of k at a time, into its L2 cache. A is read in place; a transposed A, or one of another type, is
// packed first, as panels. f32, bf16 and f16 operands are widened while they are packed.
// Numerics: see microkernel.hpp; a row of C has the same bits for any number of threads and any m,
// on one instruction set.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include <espalier/ops/cpu/gemm_few_rows.hpp>
#include <espalier/ops/cpu/gemm_schedule.hpp>
#include <espalier/ops/cpu/microkernel.hpp>

namespace espalier::cpu::detail {

template <std::floating_point T>
T* packed_panel(const Schedule<T>& schedule, const Chunk<T>& c, std::int64_t block,
                std::int64_t row, T* packed) {
  return packed + c.packed + schedule.packed_rows(c.rows) * block * c.depth +
         schedule.packed_rows(row) * c.depth_of(block);
}

template <std::floating_point T>
void pack_a(const Schedule<T>& schedule, const PackTask& task, T* packed) {
  const Chunk<T>& c = schedule.chunks[task.chunk];
  MatrixView transposed = c.problem->a;  // a panel holds the transpose
  transposed.transposed = !transposed.transposed;
  pack(transposed, task.block * c.depth, c.depth_of(task.block), c.row + task.row,
       std::min(schedule.sizes.panel, c.rows - task.row),
       packed_panel(schedule, c, task.block, task.row, packed), schedule.sizes.stride);
}

/// Where the sliver of B at [k, k + depth) x [col, col + cols) lies in memory.
template <std::floating_point T>
Ahead source_of(const GemmProblem<T>& p, std::int64_t k, std::int64_t depth, std::int64_t col,
                std::int64_t cols) {
  const auto size = static_cast<std::int64_t>(size_of(p.b.dtype));
  const auto* data = static_cast<const std::byte*>(p.b.data);
  if (p.b.transposed) {
    return {data + (col * p.b.stride + k) * size, cols, depth * size, p.b.stride * size};
  }
  return {data + (k * p.b.stride + col) * size, depth, cols * size, p.b.stride * size};
}

/// One block of k of one task. `scratch` holds its part of B, or a single sliver where all rows
/// use each sliver right after it is packed.
template <std::floating_point T>
class BlockProduct {
 public:
  BlockProduct(const Schedule<T>& schedule, const Task& task, std::int64_t block, T* packed,
               T* scratch)
      : schedule_(schedule),
        task_(task),
        chunk_(schedule.chunks[task.chunk]),
        p_(*chunk_.problem),
        block_(block),
        k_(block * chunk_.depth),
        depth_(chunk_.depth_of(block)),
        packed_(packed),
        scratch_(scratch) {}

  /// Packs B sliver by sliver. The first rows use each sliver at once, while the source of the next
  /// one is prefetched.
  void multiply() {
    const BlockSizes& sizes = schedule_.sizes;
    const bool few = has_few_rows(schedule_, chunk_, task_);
    const std::int64_t first = few ? task_.rows : std::min(task_.rows, sizes.first_rows);
    for (std::int64_t col = 0; col < task_.cols; col += sizes.cols) {
      const std::int64_t cols = cols_at(col);
      T* const b = scratch_ + (few ? 0 : col * depth_);
      pack(p_.b, k_, depth_, task_.col + col, cols, b, sizes.cols);
      const Ahead next = next_source(col + cols);
      multiply_range(task_.row, first, col, cols, b, &next);
    }
    const std::int64_t end = task_.row + task_.rows;
    for (std::int64_t row = task_.row + first; row < end; row += sizes.rows) {
      multiply_range(row, std::min(sizes.rows, end - row), 0, task_.cols, scratch_, nullptr);
    }
  }

 private:
  std::int64_t cols_at(std::int64_t col) const {
    return std::min(schedule_.sizes.cols, task_.cols - col);
  }
  /// Of the sliver at `col`, or of the first one of the next block.
  Ahead next_source(std::int64_t col) const {
    if (col < task_.cols) return source_of(p_, k_, depth_, task_.col + col, cols_at(col));
    if (block_ + 1 == chunk_.blocks) return {};
    return source_of(p_, k_ + depth_, chunk_.depth_of(block_ + 1), task_.col, cols_at(0));
  }
  void multiply_range(std::int64_t row, std::int64_t rows, std::int64_t col, std::int64_t cols,
                      const T* b, const Ahead* source) {
    PanelBlock<T> s;
    s.b = b;
    s.c = p_.c + (chunk_.row + row) * p_.stride_c + task_.col + col;
    s.rows = rows;
    s.cols = cols;
    s.depth = depth_;
    s.stride_c = p_.stride_c;
    s.alpha = p_.alpha;
    s.beta = block_ == 0 ? p_.beta : T{1};
    s.source = source;
    if (chunk_.direct()) {
      s.a = static_cast<const T*>(p_.a.data) + (chunk_.row + row) * p_.a.stride + k_;
      s.stride_a = p_.a.stride;
      multiply_block<true>(s);
    } else {
      s.a = packed_panel(schedule_, chunk_, block_, row, packed_);
      s.stride_a = 0;
      multiply_block<false>(s);
    }
  }

  const Schedule<T>& schedule_;
  const Task& task_;
  const Chunk<T>& chunk_;
  const GemmProblem<T>& p_;
  std::int64_t block_, k_, depth_;
  T *packed_, *scratch_;
};

template <std::floating_point T>
void compute(const Schedule<T>& schedule, const Task& task, T* packed, T* scratch) {
  for (std::int64_t block = 0; block < schedule.chunks[task.chunk].blocks; ++block) {
    BlockProduct<T>(schedule, task, block, packed, scratch).multiply();
  }
}

template <std::floating_point T>
void run(Schedule<T>& schedule) {
  std::int64_t work = 0;
  for (const auto& c : schedule.chunks) work += work_of(c);
  int threads = work < kForkCost ? 1 : num_threads();
#ifdef _OPENMP
  if (omp_in_parallel()) threads = 1;
#endif
  cut(schedule, threads);
  share_out(schedule, threads);
  std::int64_t scratch = 0;
  for (const Task& t : schedule.tasks) {
    const Chunk<T>& c = schedule.chunks[t.chunk];
    const std::int64_t slivers =
        has_few_rows(schedule, c, t) ? 1 : ceil_div(t.cols, schedule.sizes.cols);
    scratch = std::max(scratch, slivers * schedule.sizes.cols * c.depth);
  }
  const auto memory =
      allocate_bytes(static_cast<std::size_t>(schedule.packed + threads * scratch) * sizeof(T));
  T* const packed = reinterpret_cast<T*>(memory.get());

  const auto pack_all = [&](int thread) {
    for (std::size_t i; (i = schedule.pack_queues.take(thread)) != Queues::kNone;) {
      pack_a(schedule, schedule.packs[i], packed);
    }
  };
  const auto compute_all = [&](int thread) {
    T* const mine = packed + schedule.packed + thread * scratch;
    for (std::size_t i; (i = schedule.task_queues.take(thread)) != Queues::kNone;) {
      compute(schedule, schedule.tasks[i], packed, mine);
    }
  };
#ifdef _OPENMP
  if (threads > 1) {
#pragma omp parallel num_threads(threads)
    {
      const int thread = omp_get_thread_num();
      if (!schedule.packs.empty()) {
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
  static thread_local Schedule<T> schedule;
  static thread_local FewRowProducts few_rows;
  schedule.clear();
  few_rows.clear();
  schedule.sizes = block_sizes<T>();
  for (const auto& p : problems) {
    if (p.m == 0 || p.n == 0) continue;
    if (p.k == 0) {
      scale_c(p);
      continue;
    }
    if constexpr (std::same_as<T, float>) {
      if (has_few_rows(p)) {
        few_rows.add(p);
        continue;
      }
    }
    for (std::int64_t row = 0; row < p.m;) {
      const std::int64_t rows = add_chunk(schedule, p, row);
      row += rows;
      if (rows == 0 || row < p.m) {
        run(schedule);
        schedule.clear();
      }
    }
  }
  if (!schedule.chunks.empty()) run(schedule);
  few_rows.multiply(schedule.sizes.depth);
}

}  // namespace espalier::cpu::detail

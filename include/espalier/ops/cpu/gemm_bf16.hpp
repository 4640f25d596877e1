// SPDX-License-Identifier: Apache-2.0
// Products of two bf16 matrices into C of f32 or bf16, with all sums in f32; C is rounded once. One
// parallel region computes a whole batch. An element's bits depend on its row of A, its column of B
// and the instruction set only: see tile_product.hpp for the reduction order.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <span>
#include <vector>

#include <espalier/ops/cpu/bf16_worker.hpp>

namespace espalier::cpu::detail {

#if defined(__x86_64__)

/// A work queue over [0, count): a thread takes its own share in order, then steals from others.
/// The next call gives a thread the same share, whose operands its caches hold.
class TaskShares {
 public:
  TaskShares(std::size_t count, int threads)
      : count_(count), threads_(static_cast<std::size_t>(std::min(threads, kMost))) {}

  template <class Body>
  void work(int thread, Body body) {
    for (std::size_t i = 0; i < threads_; ++i) {
      const std::size_t share = (static_cast<std::size_t>(thread) + i) % threads_;
      const std::size_t end = count_ * (share + 1) / threads_;
      for (std::size_t next; (next = count_ * share / threads_ + take(share)) < end;) body(next);
    }
  }

 private:
  static constexpr int kMost = 64;  // shares; more threads share them
  struct alignas(64) Counter {
    std::atomic<std::size_t> taken{0};
  };
  std::size_t take(std::size_t share) {
    return counters_[share].taken.fetch_add(1, std::memory_order_relaxed);
  }

  std::size_t count_, threads_;
  std::array<Counter, kMost> counters_;
};

/// Everything one parallel region does.
struct Bf16Schedule {
  struct PackTask {
    std::size_t problem;
    std::int64_t row;
  };
  std::vector<Bf16Product> products;
  std::vector<PackTask> packs;
  std::vector<Bf16Task> tasks;
  Bf16Worker::Sizes sizes;
  std::int64_t packed_left = 0;  // bytes
  int threads = 1;

  /// `products` are there; adds the tasks.
  ESP_ON_DEMAND void cut_all() {
    std::int64_t cycles = 0;
    for (const Bf16Product& p : products) cycles += p.cycles();
    threads = cycles < kForkCycles ? 1 : num_threads();
#ifdef _OPENMP
    if (omp_in_parallel()) threads = 1;
#endif
    constexpr std::int64_t kTasksPerThread = 8;
    const std::int64_t share =
        std::max<std::int64_t>(threads > 1 ? cycles / (threads * kTasksPerThread) : cycles, 1);
    for (std::size_t i = 0; i < products.size(); ++i) {
      Bf16Product& p = products[i];
      if (p.rows == 0) continue;
      const std::size_t first = tasks.size();
      cut(p, i, share, threads, tasks);
      for (std::size_t t = first; t < tasks.size(); ++t) sizes.cover(p, tasks[t]);
      if (p.left.k_first && packed_left + p.packed_left_bytes() <= kPackedLeftBytes) {
        packed_left += p.packed_left_bytes();
        for (std::int64_t row = 0; row < p.rows; row += kBlockLines) packs.push_back({i, row});
      }
    }
    threads =
        static_cast<int>(std::min<std::size_t>(static_cast<std::size_t>(threads), tasks.size()));
  }
};

/// Problems of which both operands are bf16.
template <FloatElement T>
void multiply_bf16(std::span<const GemmProblem<T>> problems) {
  // Kept between calls, so that a call asks the system for no memory.
  static thread_local Bf16Schedule kept;
  Bf16Schedule& schedule = kept;  // that of this thread, for all threads
  schedule.products.clear(), schedule.packs.clear(), schedule.tasks.clear();
  schedule.sizes = {};
  schedule.packed_left = 0;
  for (const auto& p : problems) {
    const bool empty = p.m == 0 || p.n == 0 || p.k == 0;
    if (empty) scale_c(p);
    schedule.products.push_back(empty ? Bf16Product{} : assign(p));
  }
  schedule.cut_all();
  if (schedule.tasks.empty()) return;
  const auto memory = allocate_bytes(
      static_cast<std::size_t>(schedule.packed_left + schedule.threads * schedule.sizes.total()));
  std::byte* packed = memory.get();
  for (const auto& pack : schedule.packs) {
    if (pack.row != 0) continue;
    Bf16Product& p = schedule.products[pack.problem];
    p.packed_left = packed;
    packed += p.packed_left_bytes();
  }
  TaskShares packs(schedule.packs.size(), schedule.threads),
      tasks(schedule.tasks.size(), schedule.threads);
  const auto pack_all = [&](int thread) {
    packs.work(thread, [&](std::size_t i) {
      const Bf16Product& p = schedule.products[schedule.packs[i].problem];
      const std::int64_t row = schedule.packs[i].row;
      pack_left(p.left, row, std::min<std::int64_t>(kBlockLines, p.rows - row), 0, p.k,
                p.packed_left + row / kTileLines * p.steps() * kTileBytes);
    });
  };
  const auto compute_all = [&](int thread) {
    Bf16Worker worker(packed + thread * schedule.sizes.total(), schedule.sizes);
    tasks.work(thread, [&](std::size_t i) {
      const Bf16Task& task = schedule.tasks[i];
      worker.compute(problems[task.problem], schedule.products[task.problem], task);
    });
  };
#ifdef _OPENMP
  if (schedule.threads > 1) {
#pragma omp parallel num_threads(schedule.threads)
    {
      if (!schedule.packs.empty()) {
        pack_all(omp_get_thread_num());
#pragma omp barrier
      }
      compute_all(omp_get_thread_num());
    }
    return;
  }
#endif
  pack_all(0);
  compute_all(0);
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
  std::size_t count = 0;
  for (const auto& p : problems) count += both_bf16(p) ? 1 : 0;
  if (count == problems.size()) {
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

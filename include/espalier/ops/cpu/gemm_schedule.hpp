// SPDX-License-Identifier: Apache-2.0
// Schedules a batch of matrix products in f32 or double: blocks of k, memory of packed panels, and
// tasks, which are rectangles of C that fit the caches, distributed evenly over the threads. Only
// the depth of a block affects the bits of a result, and it depends on k alone.
#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include <espalier/core/algorithm.hpp>
#include <espalier/ops/cpu/gemm_problem.hpp>

namespace espalier::cpu::detail {

inline constexpr std::int64_t kPackedLimit = std::int64_t{48} << 20;  // bytes of A at a time
// Part of the L2 cache for the part of B that a task packs.
inline constexpr std::int64_t kBlockBytes = std::int64_t{768} << 10;
// Part of the L2 cache for panels of A that are streamed while a sliver of B stays in the L1 cache.
inline constexpr std::int64_t kStreamedBytes = std::int64_t{512} << 10;
// Rows per task where the columns leave a choice. Fewer rows pack B more often; fewer columns read
// A more often.
inline constexpr std::int64_t kRowsPerTask = 768;
inline constexpr std::int64_t kFewestRows = 64;
inline constexpr std::int64_t kFewRowsDepth = 128;
// Multiply-adds that cost as much as moving one element of B, and as entering a parallel region.
inline constexpr std::int64_t kPackCost = 12;
inline constexpr std::int64_t kForkCost = 200'000;
inline constexpr std::int64_t kTasksPerThread = 4;

/// Blocking<T, W> as numbers.
struct BlockSizes {
  std::int64_t panel, stride;  // of a panel
  std::int64_t cols, depth;
  std::int64_t rows;        // whole panels per pass over a sliver of B
  std::int64_t first_rows;  // multiplied by a sliver of B right after it is packed
};
template <std::floating_point T>
BlockSizes block_sizes() {
  return simd::dispatch([&]<int W>() -> BlockSizes {
    using B = Blocking<T, W>;
    constexpr auto kDepthBytes = static_cast<std::int64_t>(B::kDepth * sizeof(T));
    const std::int64_t most = B::kPanelStays ? kPackedLimit : kStreamedBytes / kDepthBytes;
    const std::int64_t rows = most / B::kPanel * B::kPanel;
    return BlockSizes{B::kPanel, B::kPanelStride,
                      B::kCols,  B::kDepth,
                      rows,      B::kPanelStays ? std::int64_t{2 * B::kPanel} : rows};
  });
}

/// Rows of one problem whose A is packed at the same time.
template <std::floating_point T>
struct Chunk {
  const GemmProblem<T>* problem;
  std::int64_t row, rows;
  std::int64_t depth, blocks;  // k = `blocks` blocks of `depth`, the last one shorter
  std::int64_t packed;         // offset of packed A, [blocks][panels][depth][kPanel]; direct: -1

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
  std::int64_t cost;
  int thread = 0;  // the owner; an idle thread may take it
};
struct PackTask {
  std::size_t chunk;
  std::int64_t block, row;  // of one panel
};

/// A work queue: each thread takes its own items in order, then steals those of others.
class Queues {
 public:
  /// The items of thread t are [begin of t, begin of t + 1).
  ESP_ON_DEMAND void reset(int threads) {
    if (threads_ != threads) queues_ = std::vector<Queue>(static_cast<std::size_t>(threads));
    threads_ = threads;
  }
  void set(int thread, std::size_t begin, std::size_t end) {
    queues_[static_cast<std::size_t>(thread)].next.store(begin, std::memory_order_relaxed);
    queues_[static_cast<std::size_t>(thread)].end = end;
  }
  static constexpr std::size_t kNone = static_cast<std::size_t>(-1);
  std::size_t take(int thread) {
    for (int i = 0; i < threads_; ++i) {
      Queue& q = queues_[static_cast<std::size_t>((thread + i) % threads_)];
      if (q.next.load(std::memory_order_relaxed) >= q.end) continue;
      const std::size_t item = q.next.fetch_add(1, std::memory_order_relaxed);
      if (item < q.end) return item;
    }
    return kNone;
  }

 private:
  struct alignas(64) Queue {
    std::atomic<std::size_t> next{0};
    std::size_t end = 0;
  };
  int threads_ = 0;
  std::vector<Queue> queues_;
};

/// What one parallel region does: pack every chunk, then work through the tasks.
template <std::floating_point T>
struct Schedule {
  BlockSizes sizes{};
  std::vector<Chunk<T>> chunks;
  std::vector<PackTask> packs;
  std::vector<Task> tasks;  // sorted by thread
  Queues pack_queues, task_queues;
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

/// A task whose rows of A stay in the L2 cache while slivers of B are streamed. A product of small
/// k is bounded by C instead, which is better written row by row.
template <std::floating_point T>
bool has_few_rows(const Schedule<T>& schedule, const Chunk<T>& c, const Task& t) {
  const std::int64_t bytes = t.rows * c.depth * std::int64_t{sizeof(T)};
  return t.rows <= schedule.sizes.rows && bytes <= kStreamedBytes && c.depth >= kFewRowsDepth;
}

/// Appends rows [row, ...) of `p`, as many as the packed limit leaves room for; returns how many.
template <std::floating_point T>
std::int64_t add_chunk(Schedule<T>& schedule, const GemmProblem<T>& p, std::int64_t row) {
  const std::int64_t depth = block_depth(p.k, schedule.sizes.depth);
  const std::int64_t blocks = ceil_div(p.k, depth);
  const bool direct = p.a.dtype == dtype_of<T>::value && !p.a.transposed;
  if (direct) {
    schedule.chunks.push_back({&p, row, p.m - row, depth, ceil_div(p.k, depth), -1});
    return p.m - row;
  }
  const std::int64_t per_panel = blocks * depth * schedule.sizes.stride;
  const std::int64_t limit = kPackedLimit / static_cast<std::int64_t>(sizeof(T));
  // An empty schedule takes at least 8 panels, even above the limit.
  const std::int64_t room = std::max<std::int64_t>((limit - schedule.packed) / per_panel, 0);
  std::int64_t panels = ceil_div(p.m - row, schedule.sizes.panel);
  if (panels > room) panels = schedule.packed > 0 ? 0 : std::max<std::int64_t>(room, 8);
  const std::int64_t rows = std::min(panels * schedule.sizes.panel, p.m - row);
  if (rows > 0) {
    schedule.chunks.push_back({&p, row, rows, depth, ceil_div(p.k, depth), schedule.packed});
    schedule.packed += schedule.packed_rows(rows) * blocks * depth;
  }
  return rows;
}

template <std::floating_point T>
std::int64_t work_of(const Chunk<T>& c) {
  return c.problem->n * c.problem->k * (c.rows + kPackCost);
}

template <std::floating_point T>
void add_task(Schedule<T>& schedule, std::size_t chunk, std::int64_t row, std::int64_t rows,
              std::int64_t col, std::int64_t cols) {
  const std::int64_t cost = cols * schedule.chunks[chunk].problem->k * (rows + kPackCost);
  schedule.tasks.push_back({chunk, row, rows, col, cols, cost});
}

/// Cuts the chunks into tasks: by columns first, since each task packs its own part of B. Does not
/// affect the bits of the result.
template <std::floating_point T>
void cut(Schedule<T>& schedule, int threads) {
  std::int64_t total = 0;
  for (const auto& c : schedule.chunks) total += work_of(c);
  const std::int64_t share =
      std::max<std::int64_t>(threads > 1 ? total / (threads * kTasksPerThread) : total, 1);
  for (std::size_t i = 0; i < schedule.chunks.size(); ++i) {
    const Chunk<T>& c = schedule.chunks[i];
    const std::int64_t n = c.problem->n;
    const std::int64_t parts = std::max<std::int64_t>(work_of(c) / share, 1);
    const std::int64_t slivers = ceil_div(n, schedule.sizes.cols);
    const std::int64_t widest = std::max<std::int64_t>(
        kBlockBytes / (schedule.sizes.cols * c.depth * std::int64_t{sizeof(T)}), 1);
    std::int64_t row_parts = algo::clamp<std::int64_t>(c.rows / kRowsPerTask, 1, parts);
    const std::int64_t col_parts =
        std::max(std::min(ceil_div(parts, row_parts), slivers), ceil_div(slivers, widest));
    const std::int64_t cols = ceil_div(slivers, col_parts) * schedule.sizes.cols;
    row_parts = std::max(
        row_parts, std::min(ceil_div(parts, ceil_div(n, cols)), ceil_div(c.rows, kFewestRows)));
    const std::int64_t rows = schedule.whole_panels(ceil_div(c.rows, row_parts));
    for (std::int64_t col = 0; col < n; col += cols) {
      for (std::int64_t row = 0; row < c.rows; row += rows) {
        add_task(schedule, i, row, std::min(rows, c.rows - row), col, std::min(cols, n - col));
      }
    }
    for (std::int64_t block = 0; block < (c.direct() ? 0 : c.blocks); ++block) {
      for (std::int64_t row = 0; row < c.rows; row += schedule.sizes.panel) {
        schedule.packs.push_back({i, block, row});
      }
    }
  }
}

/// Assigns tasks to threads, to the same ones in the next call, whose caches still hold the
/// operands. The largest task goes first, each to the thread with the least work; the largest
/// surplus is then split off by rows.
template <std::floating_point T>
void assign(Schedule<T>& schedule, int threads) {
  auto& tasks = schedule.tasks;
  std::vector<std::int64_t> load(static_cast<std::size_t>(threads));
  std::vector<std::size_t> order(tasks.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  algo::stable_sort(order,
                    [&](std::size_t a, std::size_t b) { return tasks[a].cost > tasks[b].cost; });
  for (const std::size_t i : order) {
    const std::size_t least = algo::min_index(load);
    load[least] += tasks[i].cost;
    tasks[i].thread = static_cast<int>(least);
  }
  for (int round = 1; round < threads; ++round) {
    const std::size_t least = algo::min_index(load), most = algo::max_index(load);
    const std::int64_t surplus = (load[most] - load[least]) / 2;
    const int from = static_cast<int>(most);
    std::size_t chosen = tasks.size();  // the smallest that is larger than the surplus
    for (std::size_t i = 0; i < tasks.size(); ++i) {
      if (tasks[i].thread == from && tasks[i].cost > surplus &&
          (chosen == tasks.size() || tasks[i].cost < tasks[chosen].cost)) {
        chosen = i;
      }
    }
    if (chosen == tasks.size()) return;
    const Task task = tasks[chosen];
    // Tasks begin at a panel.
    const std::int64_t kept = schedule.whole_panels(task.rows - surplus * task.rows / task.cost);
    if (kept >= task.rows) return;
    tasks[chosen].rows = kept;
    add_task(schedule, task.chunk, task.row + kept, task.rows - kept, task.col, task.cols);
    tasks[chosen].cost -= tasks.back().cost;
    tasks.back().thread = static_cast<int>(least);
    load[least] += tasks.back().cost;
    load[most] -= tasks.back().cost;
  }
}

template <std::floating_point T>
void share_out(Schedule<T>& schedule, int threads) {
  if (threads > 1) assign(schedule, threads);
  algo::stable_sort(schedule.tasks,
                    [](const Task& a, const Task& b) { return a.thread < b.thread; });
  schedule.pack_queues.reset(threads);
  schedule.task_queues.reset(threads);
  const auto packs = static_cast<std::int64_t>(schedule.packs.size());
  std::size_t begin = 0;
  for (int thread = 0; thread < threads; ++thread) {
    schedule.pack_queues.set(thread, static_cast<std::size_t>(packs * thread / threads),
                             static_cast<std::size_t>(packs * (thread + 1) / threads));
    std::size_t end = begin;
    while (end < schedule.tasks.size() && schedule.tasks[end].thread == thread) ++end;
    schedule.task_queues.set(thread, begin, end);
    begin = end;
  }
}

}  // namespace espalier::cpu::detail

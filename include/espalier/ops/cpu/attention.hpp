// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention on the CPU, over segments that may continue a cache. Never holds L
// x L: online softmax over blocks of keys (Dao et al. 2022, arXiv:2205.14135). A row's bits depend
// neither on other rows nor on whether its keys come from a cache: the reduction order is that of
// the keys, in blocks and chunks counted from the segment's first key, and a masked block leaves
// the sums unchanged.
#pragma once

#include <espalier/core/algorithm.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/core/math.hpp>
#include <espalier/ops/cpu/attention_decode.hpp>
#include <espalier/ops/cpu/attention_sums.hpp>

namespace espalier::cpu {

/// Query row i, position kv_rows - q_rows + i, sees the keys up to its own position.
template <FloatElement T>
struct AttentionSegment {
  const T* q;  // [q_rows, A, P]
  const T* k;  // [kv_rows, G, P]
  const T* v;  // [kv_rows, G, P]
  T* y;        // [q_rows, A, P]
  std::int64_t q_rows, kv_rows;
  acc_t<T>* log_sum = nullptr;             // [q_rows, A] log-sum-exp of the scores, or null
  std::span<const KeyPage<T>> pages = {};  // where k and v are null: the rows of a cache
};

namespace detail {

// Keys per chunk. Chunks are summed separately and then merged in order, so that threads can share
// the keys of a long cache.
inline constexpr std::int64_t kChunkKeys = 8 * kKeys;
// With fewer query blocks, packing the keys does not pay.
inline constexpr std::int64_t kBlocksPerPack = 3;

/// The unit of work of a thread: one block of queries with all its keys, or, where rows are few,
/// all blocks of some kv heads with one chunk of keys, read in place.
struct AttentionTask {
  std::size_t segment;
  std::int64_t kv_head, kv_head_end;
  std::int64_t block, block_end;  // of queries, of each kv head
  std::int64_t chunk, chunk_end;  // of keys
  std::int64_t sums;              // few rows: offset of its sums

  std::int64_t blocks() const { return (kv_head_end - kv_head) * (block_end - block); }
};

template <FloatElement T>
class AttentionForward {
 public:
  using A = acc_t<T>;
  using Sums = SoftmaxSums<A>;

  AttentionForward(const std::vector<AttentionSegment<T>>& segments, const AttentionHeads& h)
      : segments_(segments), h_(h), keys_(h), stride_(padded_row<A>(h.head_dim)) {
    for (std::size_t s = 0; s < segments.size(); ++s) {
      const bool few = blocks(s) < kBlocksPerPack;
      keys_.add(segments[s].k, segments[s].v, segments[s].kv_rows, !few, segments[s].pages);
      if (few) {
        cut_keys(s);
      } else {
        cut_rows(s);
      }
    }
  }

  void run() {
    keys_.pack();
    sums_ = allocate_bytes(sizeof(A) * static_cast<std::size_t>(sums_elements_));
    scratch_ = ThreadMemory<A>(scratch_elements());
    parallel_for(std::ssize(tasks_), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) {
        tasks_[i].sums < 0 ? run_rows(tasks_[i]) : run_keys(tasks_[i]);
      }
    });
    parallel_for(std::ssize(joins_), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) join_chunks(joins_[i]);
    });
  }

 private:
  static constexpr std::int64_t kTasksPerThread = 4;

  std::int64_t offset(std::size_t s) const { return segments_[s].kv_rows - segments_[s].q_rows; }
  std::int64_t blocks(std::size_t s) const { return query_blocks(h_, segments_[s].q_rows); }
  QueryBlock block(std::size_t s, std::int64_t kv_head, std::int64_t index) const {
    return query_block(h_, segments_[s].q_rows, kv_head, index);
  }
  std::int64_t first_key(std::size_t s, const QueryBlock& q) const {
    return h_.first_key(offset(s) + q.row(h_, 0));
  }
  std::int64_t end_key(std::size_t s, const QueryBlock& q) const {
    return offset(s) + q.last_row(h_) + 1;
  }
  static std::int64_t chunks_until(std::int64_t key) { return (key + kChunkKeys - 1) / kChunkKeys; }

  void cut_rows(std::size_t s) {
    for (std::int64_t g = 0; g < h_.kv_heads; ++g) {
      // Later rows see more keys: longest first balances the threads.
      for (std::int64_t b = blocks(s); b-- > 0;) {
        const QueryBlock q = block(s, g, b);
        tasks_.push_back(
            {s, g, g + 1, b, b + 1, first_key(s, q) / kChunkKeys, chunks_until(end_key(s, q)), -1});
      }
    }
  }
  void cut_keys(std::size_t s) {
    const std::int64_t count = blocks(s);
    if (count == 0) return;
    const std::int64_t begin = first_key(s, block(s, 0, 0)) / kChunkKeys;
    const std::int64_t end = chunks_until(end_key(s, block(s, 0, count - 1)));
    const std::int64_t wanted =
        kTasksPerThread * num_threads() / ((end - begin) * std::ssize(segments_));
    const std::int64_t heads = h_.kv_heads / algo::clamp<std::int64_t>(wanted, 1, h_.kv_heads);
    for (std::int64_t g = 0; g < h_.kv_heads; g += heads) {
      AttentionTask task{
          s, g, std::min(g + heads, h_.kv_heads), 0, count, begin, end, sums_elements_};
      if (end - begin > 1) joins_.push_back(task);
      for (std::int64_t c = begin; c < end; ++c) {
        task.chunk = c, task.chunk_end = c + 1, task.sums = sums_elements_;
        tasks_.push_back(task);
        sums_elements_ += sums_elements(task);
      }
    }
  }
  std::int64_t sums_elements(const AttentionTask& t) const {
    std::int64_t elements = 0;
    for (std::int64_t b = t.block; b < t.block_end; ++b) {
      elements += Sums::elements(block(t.segment, 0, b).count, stride_);
    }
    return elements * (t.kv_head_end - t.kv_head);
  }
  bool whole(const AttentionTask& t) const {
    const QueryBlock first = block(t.segment, 0, t.block),
                     last = block(t.segment, 0, t.block_end - 1);
    return t.chunk == first_key(t.segment, first) / kChunkKeys &&
           t.chunk_end == chunks_until(end_key(t.segment, last));
  }

  /// Scratch memory of a thread for one task.
  struct Scratch {
    A *total, *of_chunk;  // sums of a block of queries
    A *rows, *scores, *keys, *queries;

    explicit Scratch(const AttentionForward& f) {
      const std::int64_t sums = Sums::elements(kQueries, f.stride_);
      total = f.scratch_.mine();
      of_chunk = total + sums;
      rows = of_chunk + sums;
      scores = rows + kQueries * f.stride_;
      keys = scores + kKeys * kQueries;
      queries = keys + f.keys_.scratch();
    }
  };
  /// With the queries of the largest task.
  std::int64_t scratch_elements() const {
    std::int64_t blocks = 0;
    for (const AttentionTask& t : tasks_) blocks = std::max(blocks, t.blocks());
    return 2 * Sums::elements(kQueries, stride_) + kQueries * stride_ + kKeys * kQueries +
           keys_.scratch() + blocks * h_.head_dim * kQueries;
  }

  void transposed_queries(std::size_t s, const QueryBlock& q, A* rows, A* to) const {
    gather_queries(h_, q, segments_[s].q, rows);
    transpose_queries(q.count, h_.head_dim, rows, to);
  }

  void run_rows(const AttentionTask& t) const {
    const QueryBlock q = block(t.segment, t.kv_head, t.block);
    const Scratch scratch(*this);
    const Sums total(scratch.total, q.count, stride_);
    const Sums of_chunk(scratch.of_chunk, q.count, stride_);
    transposed_queries(t.segment, q, scratch.rows, scratch.queries);
    const bool joins = t.chunk_end - t.chunk > 1;
    if (joins) total.clear();
    const std::int64_t first = first_key(t.segment, q) / kKeys * kKeys, end = end_key(t.segment, q);
    for (std::int64_t c = t.chunk; c < t.chunk_end; ++c) {
      of_chunk.clear();
      const std::int64_t chunk_end = std::min((c + 1) * kChunkKeys, end);
      for (std::int64_t key = std::max(c * kChunkKeys, first); key < chunk_end; key += kKeys) {
        const int keys = static_cast<int>(std::min<std::int64_t>(kKeys, chunk_end - key));
        KeyBlock<A> keys_here = keys_.block(t.segment, t.kv_head, key, keys, scratch.keys);
        keys_.announce(t.segment, t.kv_head, key + kKeys, keys_here);
        const VisibleKeys seen(h_, q, offset(t.segment), key, keys);
        multiply_visible(keys_here, keys_here.k, scratch.queries, h_.head_dim, q.count, seen,
                         scratch.scores);
        add_scores(q, seen, keys_here, scratch.scores, of_chunk);
      }
      if (joins) join_sums(of_chunk, total);
    }
    write(t.segment, q, joins ? total : of_chunk);
  }

  /// Calls f(query block, its number, its sums) for each of a task.
  template <class F>
  void for_each_block(const AttentionTask& t, A* sums, const F& f) const {
    std::int64_t index = 0;
    for (std::int64_t g = t.kv_head; g < t.kv_head_end; ++g) {
      for (std::int64_t b = t.block; b < t.block_end; ++b) {
        const QueryBlock q = block(t.segment, g, b);
        f(q, index++, Sums(sums, q.count, stride_));
        sums += Sums::elements(q.count, stride_);
      }
    }
  }
  A* sums_at(std::int64_t at) const { return reinterpret_cast<A*>(sums_.get()) + at; }

  void run_keys(const AttentionTask& t) const {
    const std::int64_t per_queries = h_.head_dim * kQueries;
    const Scratch scratch(*this);
    const QueryBlock first_block = block(t.segment, 0, t.block);
    const QueryBlock last_block = block(t.segment, 0, t.block_end - 1);
    const bool few = last_block.first + last_block.count <= kFewQueries && stride_ == h_.head_dim;
    for_each_block(t, sums_at(t.sums), [&](const QueryBlock& q, std::int64_t i, const Sums& sums) {
      A* const to = scratch.queries + i * per_queries;
      if (few) {
        gather_queries(h_, q, segments_[t.segment].q, to);
      } else {
        transposed_queries(t.segment, q, scratch.rows, to);
      }
      sums.clear();
    });
    std::fill_n(scratch.scores, kKeys * kQueries, A{0});  // idle lanes: no subnormal numbers
    const std::int64_t first = first_key(t.segment, first_block) / kKeys * kKeys;
    const std::int64_t end = std::min(t.chunk_end * kChunkKeys, end_key(t.segment, last_block));
    for (std::int64_t key = std::max(t.chunk * kChunkKeys, first); key < end; key += kKeys) {
      const int keys = static_cast<int>(std::min<std::int64_t>(kKeys, end - key));
      KeyBlock<A> of_head{};
      for_each_block(
          t, sums_at(t.sums), [&](const QueryBlock& q, std::int64_t i, const Sums& sums) {
            const A* const queries = scratch.queries + i * per_queries;
            if (q.first == first_block.first) {
              of_head = keys_.block(t.segment, q.kv_head, key, keys, scratch.keys, !few);
              const bool last_head = q.kv_head + 1 == t.kv_head_end;
              keys_.announce(t.segment, last_head ? t.kv_head : q.kv_head + 1,
                             last_head ? key + kKeys : key, of_head);
            }
            const VisibleKeys seen(h_, q, offset(t.segment), key, keys);
            if (few) {
              multiply_few(keys_.stored(t.segment, q.kv_head, key), h_.kv_stride(), keys, queries,
                           h_.head_dim, q.count, of_head.next_k, scratch.scores);
            } else {
              multiply_visible(of_head, of_head.k, queries, h_.head_dim, q.count, seen,
                               scratch.scores);
            }
            add_scores(q, seen, of_head, scratch.scores, sums);
          });
    }
    if (!whole(t)) return;
    for_each_block(t, sums_at(t.sums), [&](const QueryBlock& q, std::int64_t, const Sums& sums) {
      write(t.segment, q, sums);
    });
  }

  /// Few rows, several chunks: the sums of the chunks are stored in order.
  void join_chunks(const AttentionTask& t) const {
    const std::int64_t per_chunk = sums_elements(t);
    const Scratch scratch(*this);
    for_each_block(t, sums_at(t.sums), [&](const QueryBlock& q, std::int64_t, const Sums& sums) {
      const Sums total(scratch.total, q.count, stride_);
      total.clear();
      for (std::int64_t c = 0; c < t.chunk_end - t.chunk; ++c) {
        join_sums(Sums(sums.top + c * per_chunk, q.count, stride_), total);
      }
      write(t.segment, q, total);
    });
  }

  /// One block of queries with one of keys, whose `scores` are computed.
  void add_scores(const QueryBlock& q, const VisibleKeys& seen, const KeyBlock<A>& block, A* scores,
                  const Sums& sums) const {
    Joining<A> joining;
    softmax_block(scores, exponent_scale<A>(h_), seen, sums, joining);
    PanelProduct<A> p{};
    p.a = scores, p.stride_a = kQueries;
    p.b = block.v, p.stride_b = block.stride;
    p.ahead = block.next_v;
    p.c = sums.y, p.stride_c = stride_;
    p.rows = q.count, p.cols = static_cast<int>(stride_), p.depth = block.keys;
    if (!seen.all) p.begin = seen.begin, p.end = seen.end;
    p.factor = joining.factor, p.grew = joining.grew;
    multiply<Product::by_columns>(p);
  }

  void write(std::size_t segment, const QueryBlock& q, const Sums& sums) const {
    const AttentionSegment<T>& s = segments_[segment];
    simd::dispatch([&]<int W>() {
      using V = simd::Native<A, W>;
      for (int i = 0; i < q.count; ++i) {
        T* const y = s.y + (q.row(h_, i) * h_.heads + q.head(h_, i)) * h_.head_dim;
        const A* const from = sums.y + i * stride_;
        const V factor(A{1} / sums.sum[i]);
        simd::for_each_vector<V>(0, h_.head_dim, [&](std::int64_t c, auto lanes) ESP_SIMD_LAMBDA {
          // Adding 0 leaves one zero: whether -0 survives depends on what else shared the block.
          fma(V::load(from + c), factor, V(A{0})).store(y + c, lanes);
        });
      }
    });
    if (!s.log_sum) return;
    constexpr double kLn2 = 0.69314718055994530942;
    for (int i = 0; i < q.count; ++i) {
      s.log_sum[q.row(h_, i) * h_.heads + q.head(h_, i)] =
          (sums.top[i] + math::log2(sums.sum[i])) * static_cast<A>(kLn2);
    }
  }

  const std::vector<AttentionSegment<T>>& segments_;
  AttentionHeads h_;
  PackedKeys<T> keys_;
  std::int64_t stride_, sums_elements_ = 0;
  std::vector<AttentionTask> tasks_, joins_;
  std::shared_ptr<std::byte> sums_;
  ThreadMemory<A> scratch_;
};

}  // namespace detail

/// Attention of every segment, in parallel over segments, heads, rows, and keys where those are
/// many for the rows.
template <FloatElement T>
void attention_forward(const std::vector<AttentionSegment<T>>& segments, const AttentionHeads& h) {
  for (const auto& s : segments) h.count(2, s.q_rows, s.kv_rows);
  detail::AttentionForward<T>(segments, h).run();
}

ESP_COMPILED_TEMPLATE(void attention_forward<float>(const std::vector<AttentionSegment<float>>&,
                                                    const AttentionHeads&));
ESP_COMPILED_TEMPLATE(void attention_forward<bf16>(const std::vector<AttentionSegment<bf16>>&,
                                                   const AttentionHeads&));
ESP_COMPILED_TEMPLATE(void attention_forward<double>(const std::vector<AttentionSegment<double>>&,
                                                     const AttentionHeads&));

}  // namespace espalier::cpu

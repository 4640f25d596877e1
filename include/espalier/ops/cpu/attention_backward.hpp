// SPDX-License-Identifier: Apache-2.0
// Gradient of attention on the CPU, block by block as the forward pass, with the weights recomputed
// from the log-sum-exp (Dao et al. 2022, arXiv:2205.14135): five products per pair of blocks. The
// query blocks of a kv head are cut into parts by the sizes alone. Each part sums dk and dv on its
// own, and parts are added in order, so the bits do not depend on the number of threads. Memory:
// dq, dk and dv of a few parts in acc_t.
#pragma once

#include <array>

#include <espalier/core/algorithm.hpp>
#include <espalier/core/inline.hpp>
#include <espalier/core/math.hpp>
#include <espalier/ops/cpu/attention_blocks.hpp>

namespace espalier::cpu {

/// Gradients of one segment whose queries are its keys' rows (no cache). `y` and `log_sum` are
/// those of the forward pass.
template <FloatElement T>
struct AttentionBackwardSegment {
  const T *q, *k, *v, *y, *dy;  // from the segment's first row on
  const acc_t<T>* log_sum;      // [rows, A]
  T *dq, *dk, *dv;
  std::int64_t rows;
};

namespace detail {

/// In place: scores -> p = 2^(score * scale - log2_sum), dp -> ds = p (dp - d). Undefined where a
/// key is masked.
template <std::floating_point A>
__attribute__((noinline)) void softmax_block_backward(A* scores, A* dp, A scale, const A* log2_sum,
                                                      const A* d, int count,
                                                      const VisibleKeys& seen) {
  simd::dispatch([&]<int W>() {
    using V = simd::Native<A, W>;
    for (int col = 0; col < count; col += V::kLanes) {
      const V factor(scale), sum = V::load(log2_sum + col), mean = V::load(d + col);
      const int end = seen.all ? seen.keys : seen.end[col + V::kLanes - 1];
      for (int key = seen.all ? 0 : seen.begin[col]; key < end; ++key) {
        const int at = key * kQueries + col;
        const V p = exp2_weight(fma(V::load(scores + at), factor, -sum));
        p.store(scores + at);
        (p * (V::load(dp + at) - mean)).store(dp + at);
      }
    }
  });
}

/// The queries of a block that see each key: [begin[key], end[key]).
struct SeeingQueries {
  int begin[kKeys], end[kKeys];

  SeeingQueries(const VisibleKeys& seen, int count) {
    int first = 0, behind = 0;
    for (int key = 0; key < seen.keys; ++key) {
      while (first < count && seen.end[first] <= key) ++first;
      while (behind < count && seen.begin[behind] <= key) ++behind;
      begin[key] = first;
      end[key] = std::max(first, behind);
    }
  }
};

template <FloatElement T>
class AttentionBackward {
 public:
  using A = acc_t<T>;

  AttentionBackward(const std::vector<AttentionBackwardSegment<T>>& segments,
                    const AttentionHeads& h)
      : segments_(segments),
        h_(h),
        keys_(h),
        stride_(padded_row<A>(h.head_dim)),
        scale_(static_cast<A>(1 / math::sqrt(static_cast<double>(h.head_dim)))) {
    for (const auto& s : segments) {
      keys_.add(s.k, s.v, s.rows, query_blocks(h, s.rows) >= kBlocksPerPack);
    }
  }

  void run() {
    keys_.pack();
    scratch_ = ThreadMemory<A>(scratch_elements());
    for (std::size_t s = 0; s < segments_.size(); ++s) {
      for (std::int64_t g = 0; segments_[s].rows > 0 && g < h_.kv_heads; ++g) {
        add_owner(s, g);
        if (elements_ * std::int64_t{sizeof(A)} > kRoundBytes) run_round();
      }
    }
    run_round();
  }

 private:
  static constexpr std::int64_t kBlocksPerPack = 2;
  static constexpr std::int64_t kPairsPerPart = std::int64_t{64} << 10;
  static constexpr std::int64_t kMostParts = 8;
  static constexpr std::int64_t kRoundBytes = std::int64_t{64} << 20;
  static constexpr std::int64_t kRowsPerSum = 64;

  /// Query blocks [block, block_end) of one kv head, and what they add to dk and dv of the keys
  /// [key, key_end): at `sums` in memory, [keys, stride] each.
  struct Part {
    std::size_t segment;
    std::int64_t kv_head, block, block_end, key, key_end, sums;
  };
  /// Parts [begin, end) of this round give dk and dv of a kv head.
  struct Owner {
    std::size_t begin, end;
  };

  QueryBlock block(std::size_t s, std::int64_t kv_head, std::int64_t index) const {
    return query_block(h_, segments_[s].rows, kv_head, index);
  }
  /// About the number of pairs of a query and a key.
  std::int64_t pairs(const QueryBlock& q) const {
    const std::int64_t last = q.last_row(h_);
    return q.count * (last + 1 - h_.first_key(last));
  }

  void add_owner(std::size_t s, std::int64_t g) {
    const std::int64_t blocks = query_blocks(h_, segments_[s].rows);
    std::int64_t all = 0, done = 0, block_done = 0;
    for (std::int64_t b = 0; b < blocks; ++b) all += pairs(block(s, g, b));
    const std::int64_t parts = algo::clamp<std::int64_t>(all / kPairsPerPart, 1, kMostParts);
    const std::size_t first = parts_.size();
    for (std::int64_t b = 0; b < blocks; ++b) {
      done += pairs(block(s, g, b));
      const auto cut = static_cast<std::int64_t>(parts_.size() - first) + 1;
      if (done * parts < cut * all) continue;
      const std::int64_t key = h_.first_key(block(s, g, block_done).row(h_, 0)) / kKeys * kKeys;
      const std::int64_t key_end = block(s, g, b).last_row(h_) + 1;
      parts_.push_back({s, g, block_done, b + 1, key, key_end, elements_});
      elements_ += 2 * (key_end - key) * stride_;
      block_done = b + 1;
    }
    owners_.push_back({first, parts_.size()});
  }

  void run_round() {
    sums_ = allocate_bytes(sizeof(A) * static_cast<std::size_t>(elements_));
    // The tasks of a kv head are adjacent and later ones have more keys: last first.
    const std::int64_t count = std::ssize(parts_);
    parallel_for(count, 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) run_part(parts_[count - 1 - i]);
    });
    std::vector<std::pair<Owner, std::int64_t>> rows;
    for (const Owner& o : owners_) {
      const std::int64_t all = segments_[parts_[o.begin].segment].rows;
      for (std::int64_t row = 0; row < all; row += kRowsPerSum) rows.push_back({o, row});
    }
    parallel_for(std::ssize(rows), 4, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) add_parts(rows[i].first, rows[i].second);
    });
    parts_.clear();
    owners_.clear();
    elements_ = 0;
  }

  A* dk(const Part& p, std::int64_t key) const {
    return reinterpret_cast<A*>(sums_.get()) + p.sums + (key - p.key) * stride_;
  }
  A* dv(const Part& p, std::int64_t key) const {
    return dk(p, key) + (p.key_end - p.key) * stride_;
  }

  /// Scratch memory of a thread for one block of queries.
  struct Scratch {
    A *q, *dy, *q_t, *dy_t, *scores, *dp, *dq, *keys;
    alignas(64) A log2_sum[kQueries] = {};
    alignas(64) A d[kQueries] = {};  // sum of y dy

    explicit Scratch(const AttentionBackward& f) {
      const std::int64_t rows = kQueries * f.stride_, scores_elements = kKeys * kQueries;
      q = f.scratch_.mine();
      dy = q + rows, q_t = dy + rows, dy_t = q_t + rows, dq = dy_t + rows;
      scores = dq + rows, dp = scores + scores_elements, keys = dp + scores_elements;
    }
  };
  std::int64_t scratch_elements() const {
    return 5 * kQueries * stride_ + 2 * kKeys * kQueries + keys_.scratch();
  }

  void run_part(const Part& part) const {
    Scratch scratch(*this);
    std::fill_n(dk(part, part.key), 2 * (part.key_end - part.key) * stride_, A{0});
    for (std::int64_t b = part.block; b < part.block_end; ++b) {
      const QueryBlock q = block(part.segment, part.kv_head, b);
      load_queries(segments_[part.segment], q, scratch);
      const std::int64_t end = q.last_row(h_) + 1;
      for (std::int64_t key = h_.first_key(q.row(h_, 0)) / kKeys * kKeys; key < end; key += kKeys) {
        const int keys = static_cast<int>(std::min<std::int64_t>(kKeys, end - key));
        KeyBlock<A> keys_here = keys_.block(part.segment, q.kv_head, key, keys, scratch.keys);
        keys_.announce(part.segment, q.kv_head, key + kKeys, keys_here);
        add_keys(part, q, key, keys_here, scratch);
      }
      write_rows(q, scratch.dq, scale_, segments_[part.segment].dq);
    }
  }

  void load_queries(const AttentionBackwardSegment<T>& s, const QueryBlock& q,
                    Scratch& scratch) const {
    const std::int64_t p = h_.head_dim;
    gather_queries(h_, q, s.q, scratch.q);
    gather_queries(h_, q, s.dy, scratch.dy);
    transpose_queries(q.count, p, scratch.q, scratch.q_t);
    transpose_queries(q.count, p, scratch.dy, scratch.dy_t);
    std::fill_n(scratch.dq, q.count * stride_, A{0});
    constexpr double kLog2E = 1.4426950408889634074;
    simd::dispatch([&]<int W>() {
      using V = simd::Native<A, W>;
      for (int i = 0; i < q.count; ++i) {
        const std::int64_t at = q.row(h_, i) * h_.heads + q.head(h_, i);
        const T *y = s.y + at * p, *dy = s.dy + at * p;
        scratch.log2_sum[i] = s.log_sum[at] * static_cast<A>(kLog2E);
        scratch.d[i] =
            simd::sum_over<V>(p, [&](std::int64_t c, auto lanes, const V& sum) ESP_SIMD_LAMBDA {
              return fma(V::load(y + c, lanes), V::load(dy + c, lanes), sum);
            });
      }
    });
  }

  /// One block of queries against one of keys.
  void add_keys(const Part& part, const QueryBlock& q, std::int64_t key, const KeyBlock<A>& block,
                Scratch& scratch) const {
    static constexpr std::array<A, kQueries> kAdd = {};  // `grew`: no row of dq is scaled
    static const std::array<A, kQueries> kOnes = [] {
      std::array<A, kQueries> ones;
      ones.fill(A{1});
      return ones;
    }();
    const VisibleKeys seen(h_, q, 0, key, block.keys);
    multiply_visible(block, block.k, scratch.q_t, h_.head_dim, q.count, seen, scratch.scores);
    multiply_visible(block, block.v, scratch.dy_t, h_.head_dim, q.count, seen, scratch.dp);
    softmax_block_backward(scratch.scores, scratch.dp, exponent_scale<A>(h_), scratch.log2_sum,
                           scratch.d, q.count, seen);
    PanelProduct<A> to_keys{};
    to_keys.stride_a = kQueries, to_keys.stride_b = to_keys.stride_c = stride_;
    to_keys.rows = block.keys, to_keys.cols = static_cast<int>(stride_), to_keys.depth = q.count;
    PanelProduct<A> to_queries = to_keys;
    to_queries.rows = q.count, to_queries.depth = block.keys;
    to_queries.stride_b = block.stride;
    to_queries.factor = kOnes.data(), to_queries.grew = kAdd.data();
    to_queries.a = scratch.dp, to_queries.b = block.k, to_queries.c = scratch.dq;
    if (seen.all) {
      add_to_keys(part, key, scratch, to_keys);
    } else {
      const SeeingQueries seeing(seen, q.count);
      to_keys.begin = seeing.begin, to_keys.end = seeing.end;
      to_queries.begin = seen.begin, to_queries.end = seen.end;
      add_to_keys(part, key, scratch, to_keys);
    }
    multiply<Product::by_columns>(to_queries);
  }
  void add_to_keys(const Part& part, std::int64_t key, const Scratch& scratch,
                   PanelProduct<A>& product) const {
    product.a = scratch.scores, product.b = scratch.dy, product.c = dv(part, key);
    multiply<Product::by_rows>(product);
    product.a = scratch.dp, product.b = scratch.q, product.c = dk(part, key);
    multiply<Product::by_rows>(product);
  }

  void write_rows(const QueryBlock& q, const A* from, A scale, T* to) const {
    simd::dispatch([&]<int W>() {
      using V = simd::Native<A, W>;
      for (int i = 0; i < q.count; ++i) {
        const A* row = from + i * stride_;
        T* const out = to + (q.row(h_, i) * h_.heads + q.head(h_, i)) * h_.head_dim;
        simd::for_each_vector<V>(0, h_.head_dim, [&](std::int64_t c, auto lanes) ESP_SIMD_LAMBDA {
          (V::load(row + c) * V(scale)).store(out + c, lanes);
        });
      }
    });
  }

  /// The parts' sums of some keys, in order.
  void add_parts(const Owner& owner, std::int64_t row) const {
    const Part& first = parts_[owner.begin];
    const AttentionBackwardSegment<T>& s = segments_[first.segment];
    simd::dispatch([&]<int W>() {
      using V = simd::Native<A, W>;
      const std::int64_t end = std::min(row + kRowsPerSum, s.rows);
      for (std::int64_t key = row; key < end; ++key) {
        const std::int64_t out = key * h_.kv_stride() + first.kv_head * h_.head_dim;
        simd::for_each_vector<V>(0, h_.head_dim, [&](std::int64_t c, auto lanes) ESP_SIMD_LAMBDA {
          V k_sum(A{0}), v_sum(A{0});
          for (std::size_t i = owner.begin; i < owner.end; ++i) {
            const Part& p = parts_[i];
            if (key < p.key || key >= p.key_end) continue;
            k_sum += V::load(dk(p, key) + c);
            v_sum += V::load(dv(p, key) + c);
          }
          (k_sum * V(scale_)).store(s.dk + out + c, lanes);
          v_sum.store(s.dv + out + c, lanes);
        });
      }
    });
  }

  const std::vector<AttentionBackwardSegment<T>>& segments_;
  AttentionHeads h_;
  PackedKeys<T> keys_;
  std::int64_t stride_, elements_ = 0;
  A scale_;
  std::vector<Part> parts_;
  std::vector<Owner> owners_;
  std::shared_ptr<std::byte> sums_;
  ThreadMemory<A> scratch_;
};

}  // namespace detail

template <FloatElement T>
void attention_backward(const std::vector<AttentionBackwardSegment<T>>& segments,
                        const AttentionHeads& h) {
  for (const auto& s : segments) h.count(5, s.rows, s.rows);
  detail::AttentionBackward<T>(segments, h).run();
}

ESP_COMPILED_TEMPLATE(void attention_backward<float>(
    const std::vector<AttentionBackwardSegment<float>>&, const AttentionHeads&));
ESP_COMPILED_TEMPLATE(void attention_backward<bf16>(
    const std::vector<AttentionBackwardSegment<bf16>>&, const AttentionHeads&));
ESP_COMPILED_TEMPLATE(void attention_backward<double>(
    const std::vector<AttentionBackwardSegment<double>>&, const AttentionHeads&));

}  // namespace espalier::cpu

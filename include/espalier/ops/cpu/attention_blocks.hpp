// SPDX-License-Identifier: Apache-2.0
// Shared by attention and its gradient: blocks of queries and keys, the mask, and operands in the
// layout of attention_product.hpp. A query is a pair of a row and a head; the heads of one group
// are adjacent in a block, because they read the same keys. Queries are contiguous in a block of
// scores:
//   scores [kKeys, kQueries] = K [kKeys, P] Qᵀ [P, kQueries]
#pragma once

#include <span>
#include <vector>

#include <espalier/core/algorithm.hpp>
#include <espalier/core/math.hpp>
#include <espalier/core/threads.hpp>
#include <espalier/core/trace.hpp>
#include <espalier/ops/cpu/attention_product.hpp>
#include <espalier/ops/cpu/key_pages.hpp>
#include <espalier/ops/cpu/pack.hpp>
#include <espalier/tensor/thread_memory.hpp>

namespace espalier::cpu {

struct AttentionHeads {
  std::int64_t heads, kv_heads, head_dim;
  std::int64_t window = 0;  // keys a row sees, itself included; 0: all

  std::int64_t group() const { return heads / kv_heads; }
  std::int64_t q_stride() const { return heads * head_dim; }
  std::int64_t kv_stride() const { return kv_heads * head_dim; }
  /// First key that the row at `position` sees.
  std::int64_t first_key(std::int64_t position) const {
    return window > 0 ? std::max<std::int64_t>(0, position - window + 1) : 0;
  }
  /// Records `products` products of q, k, v and their gradients in the trace, over the keys that
  /// the last `rows` of `end` positions see.
  void count(int products, std::int64_t rows, std::int64_t end) const {
    if (!trace::enabled()) return;
    std::int64_t seen = 0;
    for (std::int64_t i = end - rows; i < end; ++i) seen += i + 1 - first_key(i);
    trace::count(2.0 * products * static_cast<double>(seen * q_stride()), 0);
  }
};

namespace detail {

// 48 by 96 scores, the values of the keys and the sums of the queries share an L1 cache of 48 KiB
// at P = 64. Key blocks are counted from the segment's first key: block borders set the reduction
// order.
inline constexpr int kQueries = 48;
inline constexpr int kKeys = 96;
static_assert(kPageKeys % kKeys == 0);

template <class A>
inline constexpr int kLineElements = 64 / static_cast<int>(sizeof(A));

/// Elements between rows of P in scratch memory: whole vectors.
template <std::floating_point A>
std::int64_t padded_row(std::int64_t head_dim) {
  return (head_dim + kLineElements<A> - 1) / kLineElements<A> * kLineElements<A>;
}

/// Queries [first, first + count) of one kv head: query i is row i / group, head i % group of it.
struct QueryBlock {
  std::int64_t kv_head, first;
  int count;

  std::int64_t row(const AttentionHeads& h, int i) const { return (first + i) / h.group(); }
  std::int64_t head(const AttentionHeads& h, int i) const {
    return kv_head * h.group() + (first + i) % h.group();
  }
  std::int64_t last_row(const AttentionHeads& h) const { return row(h, count - 1); }
};
inline std::int64_t query_blocks(const AttentionHeads& h, std::int64_t rows) {
  return (rows * h.group() + kQueries - 1) / kQueries;
}
inline QueryBlock query_block(const AttentionHeads& h, std::int64_t rows, std::int64_t kv_head,
                              std::int64_t index) {
  const std::int64_t first = index * kQueries;
  return {kv_head, first,
          static_cast<int>(std::min<std::int64_t>(kQueries, rows * h.group() - first))};
}

/// Of the keys [key, key + keys), query i of a block sees [begin[i], end[i]); both non-decreasing.
struct VisibleKeys {
  bool all;
  int keys;
  int begin[kQueries], end[kQueries];  // set unless `all`; padded by the last query

  /// `offset`: the position of row 0.
  VisibleKeys(const AttentionHeads& h, const QueryBlock& block, std::int64_t offset,
              std::int64_t key, int keys_of_block)
      : keys(keys_of_block) {
    const std::int64_t last = offset + block.last_row(h);
    std::int64_t position = offset + block.row(h, 0);
    all = position + 1 >= key + keys && h.first_key(last) <= key;
    if (all) return;
    std::int64_t head = block.first % h.group();
    for (int i = 0; i < kQueries; ++i) {
      begin[i] = clamped(h.first_key(position) - key);
      end[i] = clamped(position + 1 - key);
      if (++head == h.group()) {
        head = 0;
        position = std::min(position + 1, last);
      }
    }
  }

 private:
  int clamped(std::int64_t key) const {
    return static_cast<int>(algo::clamp<std::int64_t>(key, 0, keys));
  }
};

/// 2^x, and 0 below 2^-100 (in f32): so small a weight changes no sum, but products with it would
/// be subnormal numbers, which are a hundred times slower. For x up to 1.
template <int W>
ESP_SIMD_INLINE simd::Vec<float, W> exp2_weight(const simd::Vec<float, W>& x) {
  using V = simd::Vec<float, W>;
  using Int = simd::detail::Raw<std::int32_t, W>;
  // Adding 1.5 * 2^23 + 127 leaves the exponent of 2^round(x) in the low bits.
  const V shifter(0x1.8000fep23f);
  const V shifted = simd::detail::rounded(x + shifter);
  const V r = x - simd::detail::rounded(shifted - shifter);
  // Minimax on |r| <= 1/2: relative error 2e-9.
  V y = fma(r, V(0x1.41d334p-13f), V(0x1.5f456ap-10f));
  y = fma(y, r, V(0x1.3b2dbcp-7f));
  y = fma(y, r, V(0x1.c6aed4p-5f));
  y = fma(y, r, V(0x1.ebfbdap-3f));
  y = fma(y, r, V(0x1.62e430p-1f));
  y = fma(y, r, V(1.0f));
  const V scale(reinterpret_cast<typename V::Raw>(reinterpret_cast<Int>(shifted.v) << 23));
  return select(x < V(-100.0f), V(0.0f), y * scale);
}
template <int W>
ESP_SIMD_INLINE simd::Vec<double, W> exp2_weight(const simd::Vec<double, W>& x) {
  simd::Vec<double, W> y;
  for (int i = 0; i < W; ++i) y.v[i] = x.v[i] < -996 ? 0 : math::exp2(x.v[i]);
  return y;
}

/// log2(e) / sqrt(P): turns a score into an exponent of 2.
template <std::floating_point A>
A exponent_scale(const AttentionHeads& h) {
  constexpr double kLog2E = 1.4426950408889634074;
  return static_cast<A>(kLog2E / math::sqrt(static_cast<double>(h.head_dim)));
}

/// Rows of the queries of a block, [count, stride], from [rows, A, P].
template <std::floating_point A, class T>
void gather_queries(const AttentionHeads& h, const QueryBlock& block, const T* from, A* to) {
  const std::int64_t p = h.head_dim, stride = padded_row<A>(p);
  simd::dispatch([&]<int W>() {
    for (int i = 0; i < block.count; ++i) {
      const T* row = from + (block.row(h, i) * h.heads + block.head(h, i)) * p;
      copy_rows<simd::Native<A, W>::kLanes>(row, p, 1, p, to + i * stride, stride);
    }
  });
}

/// [count, stride] to [P, kQueries], with zeros behind the last query.
template <std::floating_point A>
void transpose_queries(int count, std::int64_t head_dim, const A* from, A* to) {
  if (count < kQueries) std::fill_n(to, head_dim * kQueries, A{0});
  simd::dispatch([&]<int W>() {
    copy_transposed<simd::Native<A, W>::kLanes>(from, padded_row<A>(head_dim), count, head_dim, to,
                                                kQueries);
  });
}

/// Keys and values of a block in the layout of the products.
template <std::floating_point A>
struct KeyBlock {
  const A *k, *v;
  std::int64_t stride;
  int keys, readable;             // rows that may be read; those past `keys` are undefined
  FetchAhead next_k{}, next_v{};  // of the next block
};

/// The keys of some segments, [G, P] a row, copied once for all the query blocks that read them.
template <FloatElement T>
class PackedKeys {
 public:
  using A = acc_t<T>;
  static constexpr std::int64_t kRowsTogether = 8;  // the tallest tile of a product

  explicit PackedKeys(const AttentionHeads& h) : h_(h), stride_(padded_row<A>(h.head_dim)) {}

  /// `packs`: enough blocks will read them to pay for packing. Otherwise each block reads them in
  /// place. With `pages`, which must outlive the object, k and v are not read.
  void add(const T* k, const T* v, std::int64_t rows, bool packs,
           std::span<const KeyPage<T>> pages = {}) {
    const std::int64_t padded = (rows + kRowsTogether - 1) / kRowsTogether * kRowsTogether;
    entries_.push_back({k, v, rows, padded, packs ? elements_ : -1, pages});
    if (packs) elements_ += 2 * h_.kv_heads * padded * stride_;
  }
  void pack() {
    if (elements_ == 0) return;
    memory_ = allocate_bytes(static_cast<std::size_t>(elements_) * sizeof(A));
    std::vector<std::pair<const Entry*, std::int64_t>> tasks;
    for (const Entry& e : entries_) {
      for (std::int64_t row = 0; e.at >= 0 && row < e.rows; row += kKeys)
        tasks.push_back({&e, row});
    }
    parallel_for(std::ssize(tasks), 1, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) pack_rows(*tasks[i].first, tasks[i].second);
    });
  }

  /// The keys from `key` on, in place.
  const T* stored(std::size_t entry, std::int64_t kv_head, std::int64_t key) const {
    return rows_at(entries_[entry], kv_head, key).k;
  }
  /// Sets in `now` that the block at `key`, if there is one, is prefetched.
  void announce(std::size_t entry, std::int64_t kv_head, std::int64_t key, KeyBlock<A>& now) const {
    const Entry& e = entries_[entry];
    if (e.at >= 0) {
      const A* k = packed(e, kv_head) + key * stride_;
      now.next_k = fetch(k, stride_), now.next_v = fetch(k + e.padded * stride_, stride_);
    } else {
      const KeyPage<T> next = rows_at(e, kv_head, key);
      now.next_k = fetch(next.k, h_.kv_stride()), now.next_v = fetch(next.v, h_.kv_stride());
    }
  }

  /// Elements that `block` needs to widen keys and values that were not packed.
  std::int64_t scratch() const { return 2 * kKeys * stride_; }
  /// Without `with_keys` its k is undefined.
  KeyBlock<A> block(std::size_t entry, std::int64_t kv_head, std::int64_t key, int keys, A* scratch,
                    bool with_keys = true) const {
    const Entry& e = entries_[entry];
    if (e.at >= 0) {
      const A* k = packed(e, kv_head) + key * stride_;
      return {k, k + e.padded * stride_, stride_, keys,
              static_cast<int>(std::min<std::int64_t>(kKeys, e.padded - key))};
    }
    const KeyPage<T> rows = rows_at(e, kv_head, key);
    if constexpr (std::same_as<T, A>) {
      if (stride_ == h_.head_dim) return {rows.k, rows.v, h_.kv_stride(), keys, keys};
    }
    A* const v = scratch + kKeys * stride_;
    if (with_keys) copy(rows.k, keys, scratch);
    copy(rows.v, keys, v);
    return {scratch, v, stride_, keys, kKeys};
  }

 private:
  struct Entry {
    const T *k, *v;
    std::int64_t rows, padded;
    std::int64_t at;  // offset in memory_: [G] x keys, values [padded, stride]; -1: not packed
    std::span<const KeyPage<T>> pages;  // in place of k and v, if there are any
  };

  /// Keys and values from the start of a block on. A block behind the last page, which is only
  /// prefetched, is the last one again.
  KeyPage<T> rows_at(const Entry& e, std::int64_t kv_head, std::int64_t key) const {
    const std::int64_t head = kv_head * h_.head_dim;
    if (e.pages.empty()) {
      const std::int64_t at = key * h_.kv_stride() + head;
      return {e.k + at, e.v + at};
    }
    const std::int64_t last = std::ssize(e.pages) - 1;
    const KeyPage<T>& page = e.pages[static_cast<std::size_t>(std::min(key / kPageKeys, last))];
    const std::int64_t at = key % kPageKeys * h_.kv_stride() + head;
    return {page.k + at, page.v + at};
  }

  template <class M>
  static FetchAhead fetch(const M* rows, std::int64_t stride) {
    return {reinterpret_cast<const char*>(rows), stride * std::int64_t{sizeof(M)}, sizeof(M)};
  }
  A* packed(const Entry& e, std::int64_t kv_head) const {
    return reinterpret_cast<A*>(memory_.get()) + e.at + kv_head * 2 * e.padded * stride_;
  }
  void copy(const T* from, std::int64_t rows, A* to) const {
    simd::dispatch([&]<int W>() {
      copy_rows<simd::Native<A, W>::kLanes>(from, h_.kv_stride(), rows, h_.head_dim, to, stride_);
    });
  }
  void pack_rows(const Entry& e, std::int64_t row) const {
    const std::int64_t rows = std::min<std::int64_t>(kKeys, e.rows - row);
    const std::int64_t behind = row + rows == e.rows ? e.padded - e.rows : 0;
    for (std::int64_t g = 0; g < h_.kv_heads; ++g) {
      A* const k = packed(e, g) + row * stride_;
      A* const v = k + e.padded * stride_;
      const KeyPage<T> from = rows_at(e, g, row);
      copy(from.k, rows, k);
      copy(from.v, rows, v);
      std::fill_n(k + rows * stride_, behind * stride_, A{0});
      std::fill_n(v + rows * stride_, behind * stride_, A{0});
    }
  }

  AttentionHeads h_;
  std::int64_t stride_, elements_ = 0;
  std::vector<Entry> entries_;
  std::shared_ptr<std::byte> memory_;
};

/// Products of `rows` (keys or values of a block) with transposed queries: out [kKeys, kQueries].
/// Elements of masked keys may be left unwritten.
template <std::floating_point A>
void multiply_visible(const KeyBlock<A>& block, const A* rows, const A* queries_t,
                      std::int64_t head_dim, int count, const VisibleKeys& seen, A* out) {
  const int line = kLineElements<A>;
  const int cols = (count + line - 1) / line * line;
  const auto part = [&](int begin, int end, int col, int width) {
    begin = begin / 8 * 8;  // whole tiles, where there are rows to read
    end = std::min((end + 7) / 8 * 8, block.readable);
    if (begin >= end) return;
    PanelProduct<A> s{};
    s.a = rows + begin * block.stride, s.stride_a = block.stride;
    s.b = queries_t + col, s.stride_b = kQueries;
    s.c = out + begin * kQueries + col, s.stride_c = kQueries;
    s.ahead = rows == block.k ? block.next_k : block.next_v;
    s.ahead.rows += begin * s.ahead.stride;
    s.rows = end - begin, s.cols = width, s.depth = static_cast<int>(head_dim);
    multiply<Product::scores>(s);
  };
  if (seen.all) return part(0, seen.keys, 0, cols);
  // Keys that some query of each column sees, all columns at once; then the rest column by column.
  int common = 0, common_end = seen.keys;
  for (int col = 0; col < cols; col += line) {
    common = std::max(common, seen.begin[col]);
    common_end = std::min(common_end, seen.end[col + line - 1]);
  }
  common = (common + 7) / 8 * 8, common_end = common_end / 8 * 8;
  if (common >= common_end) common = common_end = seen.keys;
  part(common, common_end, 0, cols);
  for (int col = 0; col < cols; col += line) {
    part(seen.begin[col], std::min(common, seen.end[col + line - 1]), col, line);
    part(std::max(common_end, seen.begin[col]), seen.end[col + line - 1], col, line);
  }
}

}  // namespace detail
}  // namespace espalier::cpu

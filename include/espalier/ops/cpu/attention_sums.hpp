// SPDX-License-Identifier: Apache-2.0
// The online softmax of attention, one block of keys at a time (Milakov and Gimelshein 2018,
// arXiv:1805.02867): weights relative to the block's maximum, their sums, and the merge with the
// sums of earlier keys. A block that is masked for a query leaves that query's sums unchanged, to
// the bit.
#pragma once

#include <limits>

#include <espalier/core/algorithm.hpp>
#include <espalier/ops/cpu/attention_blocks.hpp>

namespace espalier::cpu::detail {

/// Running sums over the keys so far, scaled by 2^-top: of weights, and of weights times values.
template <std::floating_point A>
struct SoftmaxSums {
  A *top, *sum, *y;  // [lanes], [lanes], [count, stride]: `count` filled up to whole vectors
  int count;
  std::int64_t stride;

  static std::int64_t lanes(int count) {
    return (count + kLineElements<A> - 1) / kLineElements<A> * kLineElements<A>;
  }
  static std::int64_t elements(int count, std::int64_t stride) {
    return 2 * lanes(count) + count * stride;
  }
  SoftmaxSums(A* memory, int queries, std::int64_t row_stride)
      : top(memory),
        sum(top + lanes(queries)),
        y(sum + lanes(queries)),
        count(queries),
        stride(row_stride) {}
  void clear() const {
    // Below any score, yet finite: its difference to itself is 0, not NaN.
    std::fill_n(top, lanes(count), -std::numeric_limits<A>::max() / 4);
    std::fill_n(sum, lanes(count) + count * stride, A{0});
  }
};

/// Merges the sums of later keys into those of earlier ones: see PanelProduct.
template <std::floating_point A>
struct Joining {
  alignas(64) A factor[kQueries];
  alignas(64) A grew[kQueries];
};

/// Merges maximum and sum for the vector of queries at `col`.
template <std::floating_point A, int L>
ESP_SIMD_INLINE void join(const simd::Vec<A, L>& top, const simd::Vec<A, L>& sum, int col,
                          const SoftmaxSums<A>& to, Joining<A>& joining) {
  using V = simd::Vec<A, L>;
  const V old_top = V::load(to.top + col), old_sum = V::load(to.sum + col);
  const auto grew = top > old_top;
  const V factor = exp2_weight(-abs(top - old_top));
  fma(select(grew, old_sum, sum), factor, select(grew, sum, old_sum)).store(to.sum + col);
  select(grew, top, old_top).store(to.top + col);
  factor.store(joining.factor + col);
  select(grew, V(A{1}), V(A{0})).store(joining.grew + col);
}

/// Turns the scores of a block into weights 2^(score * scale - top), at most 1 for each query, and
/// writes their sums to `to`. Weights of masked keys are undefined.
template <std::floating_point A>
__attribute__((noinline)) void softmax_block(A* scores, A scale, const VisibleKeys& seen,
                                             const SoftmaxSums<A>& to, Joining<A>& joining) {
  simd::dispatch([&]<int W>() {
    using V = simd::Native<A, W>;
    constexpr A kNone = -std::numeric_limits<A>::max() / 4;
    for (int col = 0; col < to.count; col += V::kLanes) {
      A* const column = scores + col;
      int begin = 0, inner = 0, inner_end = seen.keys, end = seen.keys;
      V first, behind;  // of each query
      if (!seen.all) {
        alignas(64) A edges[2][V::kLanes];
        for (int l = 0; l < V::kLanes; ++l) {
          edges[0][l] = static_cast<A>(seen.begin[col + l]);
          edges[1][l] = static_cast<A>(seen.end[col + l]);
        }
        first = V::load(edges[0]), behind = V::load(edges[1]);
        begin = seen.begin[col], end = seen.end[col + V::kLanes - 1];
        inner = std::min(seen.begin[col + V::kLanes - 1], end);
        inner_end = algo::clamp(seen.end[col], inner, end);
      }
      const auto visible = [&](int key, const V& x, const V& otherwise) ESP_SIMD_LAMBDA {
        const V at(static_cast<A>(key));
        return select(at < first, otherwise, select(at < behind, x, otherwise));
      };
      const auto each_key = [&](const auto& edge, const auto& whole) ESP_SIMD_LAMBDA {
        for (int key = begin; key < inner; ++key) edge(key);
        for (int key = inner; key < inner_end; ++key) whole(key);
        for (int key = inner_end; key < end; ++key) edge(key);
      };

      V top(kNone);
      each_key(
          [&](int key) ESP_SIMD_LAMBDA {
            top = max(visible(key, V::load(column + key * kQueries), V(kNone)), top);
          },
          [&](int key) ESP_SIMD_LAMBDA { top = max(V::load(column + key * kQueries), top); });
      const V factor(scale), scaled_top = top * factor;
      V sum(A{0});
      const auto weight = [&](int key) ESP_SIMD_LAMBDA {
        const V w = exp2_weight(fma(V::load(column + key * kQueries), factor, -scaled_top));
        w.store(column + key * kQueries);
        return w;
      };
      each_key([&](int key) ESP_SIMD_LAMBDA { sum += visible(key, weight(key), V(A{0})); },
               [&](int key) ESP_SIMD_LAMBDA { sum += weight(key); });
      join(scaled_top, sum, col, to, joining);
    }
  });
}

/// Merges complete sums of later keys into those of earlier ones.
template <std::floating_point A>
void join_sums(const SoftmaxSums<A>& from, const SoftmaxSums<A>& to) {
  simd::dispatch([&]<int W>() {
    using V = simd::Native<A, W>;
    Joining<A> joining;
    for (int col = 0; col < to.count; col += V::kLanes) {
      join(V::load(from.top + col), V::load(from.sum + col), col, to, joining);
    }
    for (int i = 0; i < to.count; ++i) {
      const V factor(joining.factor[i]);
      const bool grew = joining.grew[i] != A{0};
      for (std::int64_t c = i * to.stride; c < (i + 1) * to.stride; c += V::kLanes) {
        const V later = V::load(from.y + c), old = V::load(to.y + c);
        (grew ? fma(old, factor, later) : fma(later, factor, old)).store(to.y + c);
      }
    }
  });
}

}  // namespace espalier::cpu::detail

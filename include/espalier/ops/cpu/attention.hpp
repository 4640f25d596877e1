// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention on the CPU, over segments that may continue a cache. Works through
// panels of 64 query rows by the keys they see: memory is a panel a thread, never L x L. A row's
// bits depend neither on the other rows nor on whether its keys come from a cache: keys are summed
// from the segment's first on, in blocks that a GEMM takes in one piece whatever its other sizes.
#pragma once

#include <cmath>
#include <limits>
#include <vector>

#include <espalier/core/threads.hpp>
#include <espalier/ops/cpu/gemm.hpp>
#include <espalier/ops/cpu/simd.hpp>
#include <espalier/tensor/tensor.hpp>

namespace espalier::cpu {

/// Query row i, position kv_rows - q_rows + i, sees the keys up to its own position.
template <std::floating_point T>
struct AttentionSegment {
  const T* q;  // [q_rows, A, P]
  const T* k;  // [kv_rows, G, P]
  const T* v;  // [kv_rows, G, P]
  T* y;        // [q_rows, A, P]
  std::int64_t q_rows, kv_rows;
  T* log_sum = nullptr;  // [q_rows, A] log of the sum of exp(score), or null
};

struct AttentionHeads {
  std::int64_t heads, kv_heads, head_dim;
  std::int64_t window = 0;  // keys a row sees, itself included; 0: all

  std::int64_t group() const { return heads / kv_heads; }
  std::int64_t q_stride() const { return heads * head_dim; }
  std::int64_t kv_stride() const { return kv_heads * head_dim; }
  std::int64_t kv_head(std::int64_t head) const { return head / group(); }
  /// First key that the row at `position` sees.
  std::int64_t first_key(std::int64_t position) const {
    return window > 0 ? std::max<std::int64_t>(0, position - window + 1) : 0;
  }
};

namespace detail {

inline constexpr std::int64_t kQueryRows = 64;  // of a panel

/// exp(x), and 0 where that is below 2^-100 (in f32): a weight so small changes nothing, but
/// products with it would be subnormal numbers, which slow a GEMM down a hundredfold.
template <class V>
ESP_SIMD_INLINE V softmax_weight(const V& x) {
  using T = decltype(x[0]);
  const V w = exp(x);
  return select(w < V(std::numeric_limits<T>::min() * T{1 << 26}), V(T{0}), w);
}

/// Turns scores [begin, end) of a row into exp(score - largest), and 0 outside; returns the largest
/// and the sum. Lane l of the sum takes the keys with index l modulo the width, so later keys of
/// weight 0 change nothing.
template <std::floating_point T, int W>
ESP_SIMD_INLINE void softmax_row(T* row, std::int64_t n, std::int64_t begin, std::int64_t end,
                                 T* largest, T* sum) {
  using V = simd::Native<T, W>;
  std::fill(row, row + begin, -std::numeric_limits<T>::infinity());
  std::fill(row + end, row + n, -std::numeric_limits<T>::infinity());
  T top = row[begin];
  std::int64_t j = 0;
  if (n >= V::kLanes) {
    V m = V::load(row);
    for (j = V::kLanes; j + V::kLanes <= n; j += V::kLanes) m = max(m, V::load(row + j));
    const T all = max(m);
    top = all > top ? all : top;
  }
  for (; j < n; ++j) top = row[j] > top ? row[j] : top;
  V total(T{0});
  for (j = 0; j + V::kLanes <= n; j += V::kLanes) {
    const V p = softmax_weight(V::load(row + j) - V(top));
    p.store(row + j);
    total += p;
  }
  if (j < n) {
    const int rest = static_cast<int>(n - j);
    alignas(64) T lanes[V::kLanes];
    for (int l = 0; l < V::kLanes; ++l) {
      lanes[l] = l < rest ? row[j + l] : -std::numeric_limits<T>::infinity();
    }
    const V p = softmax_weight(V::load(lanes) - V(top));
    p.store_partial(row + j, rest);
    total += p;
  }
  *largest = top;
  *sum = simd::sum(total);
}

/// A panel: query rows [first, first + rows) of one head, or, where a segment has one row, all
/// heads of one kv head (rows of the panel are then heads).
template <std::floating_point T>
struct AttentionPanel {
  const AttentionSegment<T>* segment;
  std::int64_t head, first, rows;
  bool rows_are_heads;
};

template <std::floating_point T>
void forward_panel(const AttentionPanel<T>& panel, const AttentionHeads& h) {
  const AttentionSegment<T>& s = *panel.segment;
  const std::int64_t p = h.head_dim, g = h.kv_head(panel.head);
  const std::int64_t offset = s.kv_rows - s.q_rows;  // position of query row 0
  const std::int64_t n = offset + (panel.rows_are_heads ? 1 : panel.first + panel.rows);
  const std::int64_t stride = panel.rows_are_heads ? p : h.q_stride();
  const std::int64_t at = panel.first * h.q_stride() + panel.head * p;
  const DType type = dtype_of<T>::value;
  const Tensor<T> scores(Shape{panel.rows, n});
  std::vector<T> largest(panel.rows), sum(panel.rows);
  gemm<T>(panel.rows, n, p, {s.q + at, type, stride}, {s.k + g * p, type, h.kv_stride(), true},
          scores.data(), n, static_cast<T>(1 / std::sqrt(static_cast<double>(p))));
  simd::dispatch([&]<int W>() {
    for (std::int64_t r = 0; r < panel.rows; ++r) {
      const std::int64_t position = offset + (panel.rows_are_heads ? 0 : panel.first + r);
      softmax_row<T, W>(scores.data() + r * n, n, h.first_key(position), position + 1, &largest[r],
                        &sum[r]);
    }
  });
  const std::int64_t block = block_sizes<T>().depth;
  for (std::int64_t j = 0; j < n; j += block) {
    gemm<T>(panel.rows, p, std::min(block, n - j), {scores.data() + j, type, n},
            {s.v + j * h.kv_stride() + g * p, type, h.kv_stride()}, s.y + at, stride, T{1},
            j == 0 ? T{0} : T{1});
  }
  for (std::int64_t r = 0; r < panel.rows; ++r) {
    T* y = s.y + at + r * stride;
    for (std::int64_t c = 0; c < p; ++c) y[c] /= sum[r];
    if (!s.log_sum) continue;
    const std::int64_t row = panel.rows_are_heads ? 0 : panel.first + r;
    const std::int64_t head = panel.rows_are_heads ? panel.head + r : panel.head;
    s.log_sum[row * h.heads + head] = largest[r] + std::log(sum[r]);
  }
}

}  // namespace detail

/// Attention of every segment, in parallel over segments, heads and panels.
template <std::floating_point T>
void attention_forward(const std::vector<AttentionSegment<T>>& segments, const AttentionHeads& h) {
  std::vector<detail::AttentionPanel<T>> panels;
  for (const AttentionSegment<T>& s : segments) {
    if (s.q_rows == 1) {
      for (std::int64_t head = 0; head < h.heads; head += h.group()) {
        panels.push_back({&s, head, 0, h.group(), true});
      }
      continue;
    }
    // Later rows see more keys: longest first balances the threads.
    const std::int64_t last = s.q_rows > 0 ? (s.q_rows - 1) / detail::kQueryRows : -1;
    for (std::int64_t block = last; block >= 0; --block) {
      const std::int64_t first = block * detail::kQueryRows;
      for (std::int64_t head = 0; head < h.heads; ++head) {
        panels.push_back({&s, head, first, std::min(detail::kQueryRows, s.q_rows - first), false});
      }
    }
  }
  parallel_for(static_cast<std::int64_t>(panels.size()), 1,
               [&](std::int64_t begin, std::int64_t end) {
                 for (std::int64_t i = begin; i < end; ++i) detail::forward_panel(panels[i], h);
               });
}

/// Gradients of one segment whose queries are its keys' rows (no cache). `y` and `log_sum` are
/// those of the forward pass.
template <std::floating_point T>
struct AttentionBackwardSegment {
  const T *q, *k, *v, *y, *dy;  // from the segment's first row on
  const T* log_sum;             // [rows, A]
  T *dq, *dk, *dv;
  std::int64_t rows;
};

namespace detail {

/// In place: scores -> p = exp(score - log_sum), dp -> ds = p (dp - d) for the rows' visible keys,
/// both 0 elsewhere.
template <std::floating_point T, int W>
ESP_SIMD_INLINE void backward_row(T* p, T* dp, std::int64_t n, std::int64_t begin, std::int64_t end,
                                  T log_sum, T d) {
  using V = simd::Native<T, W>;
  std::fill(p, p + begin, -std::numeric_limits<T>::infinity());
  std::fill(p + end, p + n, -std::numeric_limits<T>::infinity());
  std::int64_t j = 0;
  for (; j + V::kLanes <= n; j += V::kLanes) {
    const V weight = softmax_weight(V::load(p + j) - V(log_sum));
    weight.store(p + j);
    (weight * (V::load(dp + j) - V(d))).store(dp + j);
  }
  if (j < n) {
    const int rest = static_cast<int>(n - j);
    const V weight = softmax_weight(V::load_partial(p + j, rest) - V(log_sum));
    const V ds = weight * (V::load_partial(dp + j, rest) - V(d));
    weight.store_partial(p + j, rest);
    ds.store_partial(dp + j, rest);
  }
}

/// One kv head of a segment: its query heads one after another, so dk and dv have one owner.
template <std::floating_point T>
void backward_kv_head(const AttentionBackwardSegment<T>& s, const AttentionHeads& h,
                      std::int64_t g) {
  const std::int64_t p = h.head_dim, qs = h.q_stride(), kvs = h.kv_stride();
  const DType type = dtype_of<T>::value;
  const T scale = static_cast<T>(1 / std::sqrt(static_cast<double>(p)));
  for (std::int64_t r = 0; r < s.rows; ++r) {
    std::fill_n(s.dk + r * kvs + g * p, p, T{0});
    std::fill_n(s.dv + r * kvs + g * p, p, T{0});
  }
  const MatrixView v_t{s.v + g * p, type, kvs, true}, k_t{s.k + g * p, type, kvs, true};
  for (std::int64_t head = g * h.group(); head < (g + 1) * h.group(); ++head) {
    for (std::int64_t first = 0; first < s.rows; first += kQueryRows) {
      const std::int64_t m = std::min(kQueryRows, s.rows - first), n = first + m;
      const std::int64_t at = first * qs + head * p;
      const Tensor<T> weights(Shape{m, n}), ds(Shape{m, n});
      gemm<T>(m, n, p, {s.q + at, type, qs}, k_t, weights.data(), n, scale);
      gemm<T>(m, n, p, {s.dy + at, type, qs}, v_t, ds.data(), n);
      simd::dispatch([&]<int W>() {
        for (std::int64_t r = 0; r < m; ++r) {
          const T *y = s.y + at + r * qs, *dy = s.dy + at + r * qs;
          T d = 0;
          for (std::int64_t c = 0; c < p; ++c) d += y[c] * dy[c];
          backward_row<T, W>(weights.data() + r * n, ds.data() + r * n, n, h.first_key(first + r),
                             first + r + 1, s.log_sum[(first + r) * h.heads + head], d);
        }
      });
      const MatrixView ds_t{ds.data(), type, n, true}, weights_t{weights.data(), type, n, true};
      gemm<T>(m, p, n, {ds.data(), type, n}, {s.k + g * p, type, kvs}, s.dq + at, qs, scale);
      gemm<T>(n, p, m, ds_t, {s.q + at, type, qs}, s.dk + g * p, kvs, scale, T{1});
      gemm<T>(n, p, m, weights_t, {s.dy + at, type, qs}, s.dv + g * p, kvs, T{1}, T{1});
    }
  }
}

}  // namespace detail

template <std::floating_point T>
void attention_backward(const std::vector<AttentionBackwardSegment<T>>& segments,
                        const AttentionHeads& h) {
  const std::int64_t tasks = static_cast<std::int64_t>(segments.size()) * h.kv_heads;
  parallel_for(tasks, 1, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t i = begin; i < end; ++i) {
      detail::backward_kv_head(segments[i / h.kv_heads], h, i % h.kv_heads);
    }
  });
}

}  // namespace espalier::cpu

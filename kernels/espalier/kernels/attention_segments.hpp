// SPDX-License-Identifier: Apache-2.0
// The problem of attention.hpp, and what it costs.
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

template <class T>
struct AttentionSegment {
  const T* k;
  const T* v;
  std::int64_t q_begin;  // first of its rows in q and y
  std::int64_t q_rows, kv_rows;
};

/// What the backward pass computes of q, k, v, and from what beside them: the gradient of y, y and
/// the log_sum of the forward pass. `dot` is a workspace: <dy, y> of each row and head.
template <class T>
struct AttentionGradients {
  T *dq, *dk, *dv;       // [N, A, P], [N, G, P] twice
  float* dot;            // [N, A]
  const T *dy, *y;       // [N, A, P]
  const float* log_sum;  // [N, A]
  const T* q;            // [N, A, P]
};

struct AttentionSizes {
  std::int64_t rows;  // N
  int segments, heads, kv_heads, head_dim;
  std::int64_t window;  // 0: every earlier key
};

/// Pairs of a row and a key that it sees, of `q_rows` rows at the end of `kv_rows` keys.
constexpr double attention_pairs(std::int64_t q_rows, std::int64_t kv_rows,
                                 std::int64_t window = 0) {
  const double first = double(kv_rows - q_rows) + 1, last = double(kv_rows);  // keys of a row
  const double most = window > 0 ? double(window) : last;
  if (first >= most) return double(q_rows) * most;
  const double full = last > most ? last - most : 0;  // rows that see no more than `most`
  return (double(q_rows) - full) * (first + last - full) / 2 + full * most;
}
/// Two products of P multiplications a pair and head forward, five backward.
constexpr double attention_forward_flops(double pairs, int heads, int head_dim) {
  return 4.0 * pairs * heads * head_dim;
}
constexpr double attention_backward_flops(double pairs, int heads, int head_dim) {
  return 10.0 * pairs * heads * head_dim;
}
/// q, y and the keys and values of `kv_rows` rows, each once.
constexpr double attention_forward_bytes(const AttentionSizes& s, std::int64_t kv_rows,
                                         int element_bytes) {
  return 2.0 * (double(s.rows) * s.heads + double(kv_rows) * s.kv_heads) * s.head_dim *
         element_bytes;
}
/// q, y, dy, dq, and k, v, dk, dv, each once.
constexpr double attention_backward_bytes(const AttentionSizes& s, int element_bytes) {
  return 4.0 * double(s.rows) * (double(s.heads) + s.kv_heads) * s.head_dim * element_bytes;
}

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) over packed segments, each
// of which may continue keys and values that are kept elsewhere.
//   q, y [N, A, P]   k, v of a segment [kv_rows, G, P]   query head a reads kv head a / (A / G)
// Row i of a segment has position kv_rows - q_rows + i and sees the keys up to it, with a window
// the last `window` of them. Softmax with a running maximum (Dao et al. 2022, arXiv:2205.14135),
// never L x L. Scale P^-1/2. f32 arithmetic; no atomics; P at most 256. This is the plain rung: a
// warp per row and head.
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

struct AttentionSizes {
  std::int64_t rows;  // N
  int segments, heads, kv_heads, head_dim;
  std::int64_t window;  // 0: every earlier key
};

inline constexpr int kMaxHeadDim = 256;

/// 4 P a visible key, row and head forward; 10 P backward.
constexpr double attention_flops(std::int64_t length, std::int64_t heads, std::int64_t p) {
  return 4.0 * double(p) * double(heads) * double(length) * (double(length) + 1) / 2;
}
constexpr double attention_bytes(const AttentionSizes& s, int element_bytes) {
  return double(s.rows) * s.head_dim * (2.0 * s.heads + 2.0 * s.kv_heads) * element_bytes;
}

/// `segments` [S] in device memory, by q_begin, together all N rows. log_sum [N, A] or null.
template <class T>
cudaError_t attention_forward(T* y, float* log_sum, const T* q, const AttentionSegment<T>* segments,
                              const AttentionSizes& sizes, cudaStream_t stream);

/// Of segments that hold their own keys (kv_rows = q_rows), packed like q: k, v, dk, dv [N, G, P].
/// `dot` [N, A] is a workspace: <dy, y> of each row and head.
template <class T>
cudaError_t attention_backward(T* dq, T* dk, T* dv, float* dot, const T* dy, const T* y,
                               const float* log_sum, const T* q,
                               const AttentionSegment<T>* segments, const AttentionSizes& sizes,
                               cudaStream_t stream);

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// Causal grouped-query attention (Ainslie et al. 2023, arXiv:2305.13245) over packed segments, each
// of which may continue keys and values that are kept elsewhere.
//   q, y [N, A, P]   k, v of a segment [kv_rows, G, P]   query head a reads kv head a / (A / G)
// Row i of a segment has position kv_rows - q_rows + i and sees the keys up to it, with a window
// the last `window` of them. Softmax with a running maximum (Dao et al. 2022, arXiv:2205.14135),
// never L x L. Scale P^-1/2. f32 sums, rounded once to T; no atomics: the same bits in every run,
// and a row does not depend on the other segments. P at most 256. These functions take the fastest
// implementation that T, P and the alignment of the arguments allow: attention_plain.hpp for
// anything, attention_mma.hpp for tensor cores.
#pragma once

#include <espalier/kernels/attention_segments.hpp>

namespace espalier::kernels {

/// `segments` [S] in device memory, by q_begin, together all N rows. log_sum [N, A], the logarithm
/// of the sum of exponentiated scores, or null. Where T has 2 bytes and P is a multiple of 8, the k
/// and v of segments must be aligned to 16 bytes (what the CUDA allocator returns is).
template <class T>
cudaError_t attention_forward(T* y, float* log_sum, const T* q, const AttentionSegment<T>* segments,
                              const AttentionSizes& sizes, cudaStream_t stream);

/// Of segments that hold their own keys (kv_rows = q_rows), packed like q: k, v [N, G, P].
template <class T>
cudaError_t attention_backward(const AttentionGradients<T>& g, const AttentionSegment<T>* segments,
                               const AttentionSizes& sizes, cudaStream_t stream);

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// Implementation of attention.hpp with tensor cores of sm_80 and later, for bf16 and f16, after
// FlashAttention-2 (Dao 2023, arXiv:2307.08691). The same contract, but head_dim is a multiple of 8
// up to 128 (computed as 64 or 128), all pointers, also those in device memory, are aligned to 16
// bytes, and a segment has fewer than 2^31 keys and q_rows · A / G. What the host can see of that
// is checked (cudaErrorInvalidValue). Weights of the softmax, and backward the gradients of scores,
// are rounded to T before they multiply v, dy, k and q; scores and sums are f32. Blocks of keys
// begin at multiples of 64 of a segment's keys, so that the bits of a row do not depend on what
// other rows are computed with it. A NaN or infinity in k reaches the rows that see it; one in v,
// and backward in any argument, may also reach rows near it that do not (their weight is 0, and 0 ·
// NaN is NaN).
#pragma once

#include <espalier/kernels/attention_segments.hpp>

namespace espalier::kernels {

/// Rows of a tile forward, of queries and the heads of a group: many for whole segments, few for
/// decoding.
inline constexpr int kForwardRows = 128, kFewRows = 16;

template <int kRows, class T>
cudaError_t attention_mma_forward_tiles(T* y, float* log_sum, const T* q,
                                        const AttentionSegment<T>* segments,
                                        const AttentionSizes& sizes, cudaStream_t stream);
/// In the tiles that fit the mean length of the segments.
template <class T>
cudaError_t attention_mma_forward(T* y, float* log_sum, const T* q,
                                  const AttentionSegment<T>* segments, const AttentionSizes& sizes,
                                  cudaStream_t stream);
template <class T>
cudaError_t attention_mma_backward(const AttentionGradients<T>& g,
                                   const AttentionSegment<T>* segments, const AttentionSizes& sizes,
                                   cudaStream_t stream);

}  // namespace espalier::kernels

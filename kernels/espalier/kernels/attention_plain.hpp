// SPDX-License-Identifier: Apache-2.0
// The plain implementation of attention.hpp, with its contract: any type, alignment and head_dim up
// to 256; a warp per row and head. A value reaches the rows that see it and no other, also a NaN.
#pragma once

#include <espalier/kernels/attention_segments.hpp>

namespace espalier::kernels {

inline constexpr int kMaxHeadDim = 256;

template <class T>
cudaError_t attention_plain_forward(T* y, float* log_sum, const T* q,
                                    const AttentionSegment<T>* segments,
                                    const AttentionSizes& sizes, cudaStream_t stream);
template <class T>
cudaError_t attention_plain_backward(const AttentionGradients<T>& g,
                                     const AttentionSegment<T>* segments,
                                     const AttentionSizes& sizes, cudaStream_t stream);

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// Chooses the implementation of attention: plain or mma.
#pragma once

#include <espalier/kernels/attention.hpp>
#include <espalier/kernels/attention_mma.cuh>
#include <espalier/kernels/attention_plain.cuh>

namespace espalier::kernels {

template <class T>
cudaError_t attention_forward(T* y, float* log_sum, const T* q, const AttentionSegment<T>* segments,
                              const AttentionSizes& sizes, cudaStream_t stream) {
  if constexpr (!std::is_same_v<T, float>) {
    if (attention_mma_fits(sizes, y, q)) {
      return attention_mma_forward(y, log_sum, q, segments, sizes, stream);
    }
  }
  return attention_plain_forward(y, log_sum, q, segments, sizes, stream);
}

template <class T>
cudaError_t attention_backward(const AttentionGradients<T>& g, const AttentionSegment<T>* segments,
                               const AttentionSizes& sizes, cudaStream_t stream) {
  if constexpr (!std::is_same_v<T, float>) {
    if (attention_mma_fits(sizes, g.dq, g.dk, g.dv, g.dy, g.y, g.q)) {
      return attention_mma_backward(g, segments, sizes, stream);
    }
  }
  return attention_plain_backward(g, segments, sizes, stream);
}

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// Rows of logits against their target: loss, log-probability, most likely id, and the gradient in
// the place of the logits. Called on a chunk of rows at a time, so N x V is never held.
//   logits [N, V] in f32   targets [N], -1: the row does not count   shift [N] = log Σ exp(logit)
#pragma once

#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

constexpr double cross_entropy_bytes(std::int64_t n, std::int64_t v) {
  return 4.0 * double(n) * double(v);
}
constexpr double cross_entropy_backward_bytes(std::int64_t n, std::int64_t v, int gradient_bytes) {
  return (4.0 + gradient_bytes) * double(n) * double(v);
}

/// log_prob [N] = logits[target] - shift, 0 where the target is -1; argmax [N] (or null) the lowest
/// id with the largest logit, -1 where the target is -1.
template <class Index>
cudaError_t cross_entropy_forward(float* log_prob, float* shift, Index* argmax, const float* logits,
                                  const Index* targets, std::int64_t n, std::int64_t v,
                                  cudaStream_t stream);

/// dlogits [N, V] = scale[0] · (softmax(logits) - one-hot of the target), 0 where the target is -1;
/// rounded to T. dlogits may be the memory of logits where T is float.
template <class T, class Index>
cudaError_t cross_entropy_backward(T* dlogits, const float* logits, const float* shift,
                                   const Index* targets, const float* scale, std::int64_t n,
                                   std::int64_t v, cudaStream_t stream);

/// sum [1] += factor · Σ x, in f64 inside, in order.
template <class T>
cudaError_t add_sum(T* sum, const T* x, float factor, std::int64_t n, cudaStream_t stream);

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// Which experts see a token, and with which weight.          logits [N, E]   weights [N, K] f32
//   chosen [N, K], best first; ties go to the lowest expert index. Ranked and computed in f32.
// -inf ranks below every number and NaN below -inf, so neither is chosen while K others are left. A
// NaN anywhere in a token's logits makes its weights NaN, and so does a +inf that is the largest.
// E up to 512 (kMaxExperts), K up to 32 and at most E; beyond that cudaErrorInvalidValue.
#pragma once

#include <espalier/kernels/routing.hpp>
#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

inline constexpr int kMaxTopK = 32;

enum class SoftmaxOrder : int {
  /// Softmax over the K kept logits (Mixtral). Softmax over all, keep K, divide by their sum is the
  /// same: the sum over all cancels.
  top_k_softmax,
  /// Softmax over all E, keep K: weights sum to less than 1, every logit has a gradient (OLMoE).
  softmax_top_k,
};

/// Logits read, weights and experts written.
constexpr double router_top_k_bytes(std::int64_t n, int e, int k, int element_bytes) {
  return double(n) * (double(e) * element_bytes + 8.0 * k);
}
/// Weights, their gradient and experts read, dlogits written; softmax_top_k reads the logits too.
constexpr double router_top_k_backward_bytes(std::int64_t n, int e, int k, int element_bytes,
                                             SoftmaxOrder order) {
  const int passes = order == SoftmaxOrder::softmax_top_k ? 2 : 1;
  return double(n) * (double(e) * element_bytes * passes + 12.0 * k);
}

/// @param counts  [route_chunks(N), E] for make_routing, of route_counts_workspace_bytes; or null
template <class T>
cudaError_t router_top_k_forward(float* weights, std::int32_t* chosen, std::int32_t* counts,
                                 const T* logits, std::int64_t n, int e, int k, SoftmaxOrder order,
                                 cudaStream_t stream);

/// dlogits [N, E] is overwritten. `logits` is read for softmax_top_k only, and may be null
/// otherwise.
template <class T>
cudaError_t router_top_k_backward(T* dlogits, const float* dweights, const float* weights,
                                  const std::int32_t* chosen, const T* logits, std::int64_t n,
                                  int e, int k, SoftmaxOrder order, cudaStream_t stream);

}  // namespace espalier::kernels

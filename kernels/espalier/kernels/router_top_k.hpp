// SPDX-License-Identifier: Apache-2.0
// Which experts see a token, and with which weight.          logits [N, E]   weights [N, K] f32
//   s = softmax(logits) or sigmoid(logits)     choice = s + bias [E], -inf where the logit is
//   chosen [N, K]: the K largest of `choice` in the best groups of experts, best first
//   weights: s of the chosen, divided by their sum + epsilon if `renormalize`, times `scale`
// Ties go to the lowest expert or group index. Ranked and computed in f32; a softmax without bias
// ranks by the logits themselves.
// -inf ranks below every number and NaN below -inf, so neither is chosen while K others are left in
// the kept groups; experts of other groups never are. A NaN anywhere in a token's logits makes its
// weights NaN, and so does a +inf that is the largest, in a softmax. Leaving out experts with a
// logit of -inf changes no bit of weights or gradients.
// E up to 512 (kMaxExperts), K up to 32 and at most E; beyond that, and for a rule that does not
// fit E, cudaErrorInvalidValue.
#pragma once

#include <espalier/kernels/routing.hpp>
#include <espalier/kernels/runtime.hpp>

namespace espalier::kernels {

inline constexpr int kMaxTopK = 32;

/// The rule of the op (ops/router_rule.hpp) as the kernels take it.
struct RouterRule {
  enum class Score : unsigned char { softmax, sigmoid };
  enum class GroupScore : unsigned char { max, top2_sum };

  int top_k = 2;
  Score score = Score::softmax;
  bool renormalize = true;
  float epsilon = 0;
  float scale = 1;
  int groups = 1, top_groups = 1;
  GroupScore group_score = GroupScore::max;
};

/// The weights are a softmax over the kept logits: the sum over all experts cancels.
constexpr bool is_softmax_of_kept(const RouterRule& rule) {
  return rule.score == RouterRule::Score::softmax && rule.renormalize && rule.epsilon == 0;
}

/// Logits read, weights and experts written.
constexpr double router_top_k_bytes(std::int64_t n, int e, int k, int element_bytes) {
  return double(n) * (double(e) * element_bytes + 8.0 * k);
}
/// Weights, their gradient and experts read, dlogits written; the logits read too, unless the rule
/// is a softmax over the kept.
constexpr double router_top_k_backward_bytes(std::int64_t n, int e, int element_bytes,
                                             const RouterRule& rule) {
  const int passes = is_softmax_of_kept(rule) ? 1 : 2;
  return double(n) * (double(e) * element_bytes * passes + 12.0 * rule.top_k);
}

/// @param counts  [route_chunks(N), E] for make_routing, of route_counts_workspace_bytes; or null
/// @param bias    [E], added to the scores for the choice only; or null
template <class T>
cudaError_t router_top_k_forward(float* weights, std::int32_t* chosen, std::int32_t* counts,
                                 const T* logits, const float* bias, std::int64_t n, int e,
                                 const RouterRule& rule, cudaStream_t stream);

/// dlogits [N, E] is overwritten. `logits` may be null for a softmax over the kept.
template <class T>
cudaError_t router_top_k_backward(T* dlogits, const float* dweights, const float* weights,
                                  const std::int32_t* chosen, const T* logits, std::int64_t n,
                                  int e, const RouterRule& rule, cudaStream_t stream);

}  // namespace espalier::kernels

// SPDX-License-Identifier: Apache-2.0
// How a router turns its logits z [E] into a choice of K experts and their weights:
//   s = softmax(z) or sigmoid(z)     choice = s + bias, -inf where z is     (bias [E] may be
//   absent) the K largest of `choice` in the `top_groups` best of `groups` equal groups, best first
//   w = s of the chosen, divided by their sum + epsilon if `renormalize`, times `scale`
//   Mixtral, Qwen3-MoE, Granite-MoE, gpt-oss   softmax, renormalize
//   OLMoE, Qwen2-MoE                           softmax, not renormalized
//   DeepSeek-V2 (arXiv:2405.04434)             the same, groups by their maximum, scale
//   DeepSeek-V3 (arXiv:2412.19437), GLM-4.5    sigmoid, bias, groups by their two largest,
//                                              renormalize with epsilon 1e-20, scale
#pragma once

#include <cstdint>

#include <espalier/core/error.hpp>

namespace espalier {

/// How a router turns its logits into a choice of experts and their weights.
struct RouterRule {
  enum class Score : std::uint8_t { softmax, sigmoid };
  /// What ranks a group: the largest choice in it, or the sum of its two largest.
  enum class GroupScore : std::uint8_t { max, top2_sum };

  std::int64_t top_k = 2;
  Score score = Score::softmax;
  bool renormalize = true;  // divide the kept weights by their sum (+ epsilon)
  double epsilon = 0;
  double scale = 1;
  std::int64_t groups = 1, top_groups = 1;  // experts are chosen from the best `top_groups` only
  GroupScore group_score = GroupScore::max;

  /// The weights are a softmax over the kept logits: the sum over all experts cancels.
  bool softmax_of_kept() const { return score == Score::softmax && renormalize && epsilon == 0; }
  /// Logits rank experts and groups as the choice values do, and without their rounding.
  bool ranks_by_logits(bool has_bias) const {
    return score == Score::softmax && !has_bias && (groups == 1 || group_score == GroupScore::max);
  }

  /// @throws ShapeError when `experts` experts cannot be routed so.
  /// @throws Error when epsilon is negative or scale is not positive.
  void check(std::int64_t experts) const {
    ESP_REQUIRE(top_k >= 1 && top_k <= experts, ShapeError, "router_top_k: top_k is ", top_k,
                ", expected 1 to ", experts, " (the number of experts)");
    ESP_REQUIRE(groups >= 1 && experts % groups == 0, ShapeError, "router_top_k: ", experts,
                " experts in ", groups, " groups, expected equal groups");
    ESP_REQUIRE(top_groups >= 1 && top_groups <= groups, ShapeError, "router_top_k: top_groups is ",
                top_groups, ", expected 1 to ", groups, " (the number of groups)");
    ESP_REQUIRE(top_k <= top_groups * (experts / groups), ShapeError, "router_top_k: top_k is ",
                top_k, ", expected at most ", top_groups * (experts / groups), " (the experts of ",
                top_groups, " groups)");
    ESP_REQUIRE(epsilon >= 0 && scale > 0, Error, "router_top_k: epsilon is ", epsilon,
                ", scale is ", scale, ", expected at least 0 and more than 0");
  }
};

}  // namespace espalier

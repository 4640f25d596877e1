// SPDX-License-Identifier: Apache-2.0
// Converts the rule of a router to that of the kernels, which include no header of ops/.
#pragma once

#include <espalier/kernels/router_top_k.hpp>
#include <espalier/ops/router_rule.hpp>

namespace espalier::cuda {

[[nodiscard]] inline kernels::RouterRule kernel_rule(const RouterRule& rule) {
  using Rule = kernels::RouterRule;
  return {.top_k = int(rule.top_k),
          .score = rule.score == RouterRule::Score::softmax ? Rule::Score::softmax
                                                            : Rule::Score::sigmoid,
          .renormalize = rule.renormalize,
          .epsilon = float(rule.epsilon),
          .scale = float(rule.scale),
          .groups = int(rule.groups),
          .top_groups = int(rule.top_groups),
          .group_score = rule.group_score == RouterRule::GroupScore::max
                             ? Rule::GroupScore::max
                             : Rule::GroupScore::top2_sum};
}

}  // namespace espalier::cuda

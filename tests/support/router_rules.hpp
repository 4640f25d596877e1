// SPDX-License-Identifier: Apache-2.0
// The rules of the model families that are supported, and some more, for E experts.
#pragma once

#include <string>
#include <vector>

#include <espalier/ops/router_rule.hpp>

namespace espalier::test {

struct RouterCase {
  std::string name;
  RouterRule rule;
  bool bias = false;
};

/// With groups only where there are equal ones and K experts fit into the `kept` best.
inline std::vector<RouterCase> router_cases(std::int64_t e, std::int64_t k, std::int64_t groups = 1,
                                            std::int64_t kept = 1) {
  using enum RouterRule::Score;
  using enum RouterRule::GroupScore;
  std::vector<RouterCase> cases = {
      {"Mixtral", {.top_k = k}},
      {"Mixtral with a scale", {.top_k = k, .scale = 2.5}},
      {"OLMoE", {.top_k = k, .renormalize = false}},
      {"softmax with an epsilon and a scale", {.top_k = k, .epsilon = 0.25, .scale = 0.5}},
      {"softmax with a bias", {.top_k = k}, true},
      {"softmax with a bias, not renormalized", {.top_k = k, .renormalize = false}, true},
      {"sigmoid", {.top_k = k, .score = sigmoid, .renormalize = false}},
      {"GLM-4.5", {.top_k = k, .score = sigmoid, .epsilon = 1e-20, .scale = 2.5}, true},
  };
  if (groups == 1 || e % groups != 0 || k > kept * (e / groups)) return cases;
  const auto in_groups = [&](std::string name, RouterRule rule, bool bias) {
    rule.groups = groups;
    rule.top_groups = kept;
    cases.push_back({std::move(name), rule, bias});
  };
  in_groups("DeepSeek-V2", {.top_k = k, .renormalize = false, .scale = 16}, false);
  in_groups("Mixtral in groups", {.top_k = k}, false);
  in_groups("softmax in groups by two", {.top_k = k, .group_score = top2_sum}, false);
  in_groups("DeepSeek-V3",
            {.top_k = k, .score = sigmoid, .epsilon = 1e-20, .scale = 2.5, .group_score = top2_sum},
            true);
  in_groups("sigmoid in groups by one", {.top_k = k, .score = sigmoid, .group_score = max}, true);
  return cases;
}

}  // namespace espalier::test

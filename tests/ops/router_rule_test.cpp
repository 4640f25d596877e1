// SPDX-License-Identifier: Apache-2.0
// What a rule says of itself, and the rules that cannot route.
#include <espalier/ops/router_rule.hpp>

#include "support/catch.hpp"

using namespace espalier;

namespace {

using enum RouterRule::Score;
using enum RouterRule::GroupScore;

}  // namespace

TEST_CASE("router_rule: when the sum over all experts cancels", "[ops][router_rule]") {
  REQUIRE(RouterRule{}.softmax_of_kept());
  REQUIRE_FALSE(RouterRule{.renormalize = false}.softmax_of_kept());
  REQUIRE_FALSE(RouterRule{.epsilon = 1e-20}.softmax_of_kept());
  REQUIRE_FALSE(RouterRule{.score = sigmoid}.softmax_of_kept());
}

TEST_CASE("router_rule: when logits rank as the choice values do", "[ops][router_rule]") {
  REQUIRE(RouterRule{}.ranks_by_logits(false));
  REQUIRE_FALSE(RouterRule{}.ranks_by_logits(true));
  REQUIRE_FALSE(RouterRule{.score = sigmoid}.ranks_by_logits(false));
  REQUIRE(RouterRule{.groups = 2, .top_groups = 1}.ranks_by_logits(false));
  REQUIRE_FALSE(
      RouterRule{.groups = 2, .top_groups = 1, .group_score = top2_sum}.ranks_by_logits(false));
}

TEST_CASE("router_rule: what cannot be routed is refused", "[ops][router_rule]") {
  REQUIRE_NOTHROW(RouterRule{.groups = 3, .top_groups = 2}.check(3));
  REQUIRE_THROWS_WITH(RouterRule{.top_k = 4}.check(3),
                      "router_top_k: top_k is 4, expected 1 to 3 (the number of experts)");
  REQUIRE_THROWS_WITH(RouterRule{.groups = 2}.check(3),
                      "router_top_k: 3 experts in 2 groups, expected equal groups");
  const RouterRule many{.groups = 3, .top_groups = 4};
  REQUIRE_THROWS_WITH(many.check(3),
                      "router_top_k: top_groups is 4, expected 1 to 3 (the number of groups)");
  REQUIRE_THROWS_WITH(RouterRule{.groups = 3}.check(3),
                      "router_top_k: top_k is 2, expected at most 1 (the experts of 1 groups)");
  REQUIRE_THROWS_WITH(
      RouterRule{.scale = 0}.check(3),
      "router_top_k: epsilon is 0, scale is 0, expected at least 0 and more than 0");
}

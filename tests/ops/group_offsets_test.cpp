// SPDX-License-Identifier: Apache-2.0
// The offsets of groups of rows.
#include <espalier/ops/group_offsets.hpp>

#include <type_traits>

#include "support/catch.hpp"

using namespace espalier;

TEST_CASE("one_group: all rows belong to it", "[ops][group_offsets]") {
  STATIC_REQUIRE(std::is_same_v<GroupOffsets<Cpu>, std::vector<std::int64_t>>);
  REQUIRE(one_group<Cpu>(7) == std::vector<std::int64_t>{0, 7});
  REQUIRE(one_group<Cpu>(0) == std::vector<std::int64_t>{0, 0});
}

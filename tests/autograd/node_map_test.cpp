// SPDX-License-Identifier: Apache-2.0
#include <espalier/autograd/node.hpp>
#include <espalier/autograd/node_map.hpp>
#include <espalier/core/random.hpp>

#include <map>
#include <memory>
#include <vector>

#include "support/catch.hpp"

using namespace espalier;

TEST_CASE("node_map: as std::map, through every growth", "[autograd]") {
  std::vector<std::unique_ptr<Node>> nodes(5000);
  for (auto& node : nodes) node = std::make_unique<Node>();
  detail::NodeMap<int> map;
  std::map<const Node*, int> expected;
  const Philox random(1);
  int wrong = 0;
  for (std::uint64_t i = 0; i < 40'000; ++i) {
    const Node* node = nodes[random.below(i, static_cast<std::uint32_t>(nodes.size()))].get();
    wrong += map[node] != expected[node];
    map[node] += static_cast<int>(i);
    expected[node] += static_cast<int>(i);
  }
  for (const auto& node : nodes) wrong += map[node.get()] != expected[node.get()];
  CHECK(wrong == 0);
}

TEST_CASE("node_map: a reference holds while no node is new", "[autograd]") {
  std::vector<Node> nodes(64);
  detail::NodeMap<int> map;
  for (std::size_t known = 1; known <= nodes.size(); ++known) {
    int& last = map[&nodes[known - 1]];
    for (std::size_t i = 0; i < known; ++i) map[&nodes[i]] = static_cast<int>(i);
    last = -1;
    CHECK(map[&nodes[known - 1]] == -1);
  }
}

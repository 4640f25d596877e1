// SPDX-License-Identifier: Apache-2.0
// Routings and widths that dispatch and combine are tried on.
#pragma once

#include <vector>

#include <espalier/ops/router_top_k.hpp>

namespace espalier::test {

/// body(width of a row, routing)
template <class Body>
void for_each_routing(Body body) {
  const auto with = [&](std::int64_t n, std::int64_t h, std::int64_t k, std::int64_t experts,
                        const std::vector<std::int32_t>& chosen) {
    body(h, make_routing(Tensor<std::int32_t>(Shape{n, k}, chosen), experts));
  };
  for (const std::int64_t n : {0, 1, 21}) {
    for (const std::int64_t h : {1, 10, 64, 77}) {
      std::vector<std::int32_t> chosen;
      for (std::int64_t i = 0; i < n; ++i) {
        chosen.push_back(static_cast<std::int32_t>(i * i % 4));  // expert 2, 3 get no token
        chosen.push_back(4);
      }
      with(n, h, 2, 5, chosen);
    }
  }
  with(9, 16, 1, 3, std::vector<std::int32_t>(9, 1));  // all to one
  std::vector<std::int32_t> all;
  for (int i = 0; i < 7 * 16; ++i) all.push_back((i * 5) % 16);
  with(7, 33, 16, 16, all);  // k = E
}

}  // namespace espalier::test

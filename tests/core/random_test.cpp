// SPDX-License-Identifier: Apache-2.0
#include <espalier/core/random.hpp>
#include <espalier/core/threads.hpp>

#include <stdexcept>
#include <vector>

#include "support/catch.hpp"

using namespace espalier;

TEST_CASE("Philox: the known answers of Random123", "[core][random]") {
  using Block = std::array<std::uint32_t, 4>;
  REQUIRE(Philox(0, 0).block(0) == Block{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const std::uint64_t ones = ~std::uint64_t{0};
  REQUIRE(Philox(ones, ones).block(ones) == Block{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
}

TEST_CASE("Philox: uniform and normal have the moments they should", "[core][random]") {
  const Philox random(7, 3);
  const int n = 200000;
  double mean = 0, normal_mean = 0, normal_square = 0;
  for (int i = 0; i < n; ++i) {
    const float u = random.uniform(i);
    REQUIRE((u >= 0.0f && u < 1.0f));
    const double z = random.normal(i);
    mean += u / n;
    normal_mean += z / n;
    normal_square += z * z / n;
  }
  REQUIRE(std::abs(mean - 0.5) <= 0.003);
  REQUIRE(std::abs(normal_mean) <= 0.01);
  REQUIRE(std::abs(normal_square - 1.0) <= 0.02);
}

TEST_CASE("parallel_for: every index once, and an exception reaches the caller",
          "[core][threads]") {
  for (const int threads : {1, 2, 3, 8}) {
    set_num_threads(threads);
    std::vector<int> seen(1001, 0);
    parallel_for(1001, 7, [&](std::int64_t begin, std::int64_t end) {
      for (std::int64_t i = begin; i < end; ++i) ++seen[i];
    });
    REQUIRE(seen == std::vector<int>(1001, 1));
    REQUIRE_THROWS_AS(parallel_for(100, 1,
                                   [](std::int64_t begin, std::int64_t) {
                                     if (begin == 57) throw std::runtime_error("57");
                                   }),
                      std::runtime_error);
  }
  set_num_threads(2);
}

// SPDX-License-Identifier: Apache-2.0
// Dropout against the framework's own draws, under every schedule.
#include <espalier/kernels/dropout.cuh>

#include <espalier/core/random.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("dropout kernel: the draws of the framework", "[kernels][dropout]", float,
                   __nv_bfloat16, __half) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 6, 1030);
  const auto x = normal_as<T>(n, 1);
  const Philox philox(42, 7);
  std::vector<double> want;
  for (std::int64_t i = 0; i < n; ++i) {
    const bool keep = philox.uniform(static_cast<std::uint64_t>(i)) >= 0.25f;
    const float scaled = static_cast<float>(x[i]) * static_cast<float>(1 / 0.75);
    want.push_back(keep ? kernels::to_float(kernels::from_float<T>(scaled)) : 0.0);
  }
  for_each_schedule([&](auto) {
    Buffer<T> in(x), y(n);
    REQUIRE(kernels::dropout(y.data(), in.data(), 0.25f, 42, 7, n, nullptr) == cudaSuccess);
    REQUIRE(y.values() == want);
    REQUIRE(y.guarded());
  });
}

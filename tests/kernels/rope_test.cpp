// SPDX-License-Identifier: Apache-2.0
// The rotation against the double-precision reference, under every schedule of threads and
// blocks.
#include <espalier/kernels/rope.cuh>

#include <espalier/ops/reference/rope.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("rope kernel: the rotation and its inverse follow the reference",
                   "[kernels][rope]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 5), heads = GENERATE(1, 3), p = GENERATE(2, 8, 66, 67);
  const std::int64_t dims = (GENERATE(false, true) ? p : p / 2) / 2 * 2;
  const bool interleaved = GENERATE(false, true);
  CAPTURE(n, heads, p, dims, interleaved);
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < n; ++i) positions.push_back(static_cast<std::int32_t>(37 * i));
  const auto frequencies = reference::rope_frequencies(dims, 10000.0);
  const reference::RopeSizes z{heads, p, interleaved, 1.25};
  std::vector<double> cos_sin(static_cast<std::size_t>(n * dims));
  for (std::int64_t i = 0; i < n; ++i) {
    for (std::int64_t c = 0; c < dims / 2; ++c) {
      const float angle = frequencies[c] * static_cast<float>(positions[i]);
      cos_sin[i * dims + c] = 1.25 * std::cos(static_cast<double>(angle));
      cos_sin[i * dims + dims / 2 + c] = 1.25 * std::sin(static_cast<double>(angle));
    }
  }
  const auto x = normal_as<T>(n * heads * p, 4);
  for (const float direction : {1.0f, -1.0f}) {
    const auto want = reference::rope(x, positions, z, frequencies, direction);
    for_each_schedule([&](auto) {
      Buffer<T> in(x), y(n * heads * p);
      Buffer<float> table(cos_sin);
      const kernels::RopeSizes sizes{n, heads, p, dims, interleaved};
      REQUIRE(kernels::rope(y.data(), in.data(), table.data(), sizes, direction, nullptr) ==
              cudaSuccess);
      require_near<T>(y.values(), want, 2);
      REQUIRE(y.guarded());
      REQUIRE(kernels::rope(in.data(), in.data(), table.data(), sizes, direction, nullptr) ==
              cudaSuccess);
      REQUIRE(in.values() == y.values());  // in place
    });
  }
}

TEST_CASE("rope kernel: an odd number of dims and more than a head has are refused",
          "[kernels][rope]") {
  for (const std::int64_t dims : {3, 10}) {
    REQUIRE(kernels::rope<float>(nullptr, nullptr, nullptr, {1, 1, 8, dims}, 1.0f, nullptr) ==
            cudaErrorInvalidValue);
  }
}

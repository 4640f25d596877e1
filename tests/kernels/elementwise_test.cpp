// SPDX-License-Identifier: Apache-2.0
// Elementwise kernels against the exact result rounded once, under every schedule of threads and
// blocks.
#include <espalier/kernels/elementwise.cuh>

#include <limits>

#include <espalier/ops/reference/clamp.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("elementwise kernels: one rounding of the exact result",
                   "[kernels][elementwise]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 5, 1031);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, misaligned);
  const auto a = normal_as<T>(n, 1), b = normal_as<T>(n, 2);
  std::vector<double> sum, product, scaled;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const auto rounded = [](double v) -> double {
      return kernels::to_float(kernels::from_float<T>(static_cast<float>(v)));
    };
    sum.push_back(rounded(a[i] + b[i]));
    product.push_back(rounded(a[i] * b[i]));
    scaled.push_back(rounded(0.5 * a[i]));
  }
  for_each_schedule([&](auto) {
    Buffer<T> x(a, misaligned), y(b, misaligned), z(n, misaligned);
    REQUIRE(kernels::add(z.data(), x.data(), y.data(), n, nullptr) == cudaSuccess);
    REQUIRE(z.values() == sum);
    REQUIRE(kernels::multiply(z.data(), x.data(), y.data(), n, nullptr) == cudaSuccess);
    REQUIRE(z.values() == product);
    REQUIRE(kernels::scale(z.data(), x.data(), 0.5f, n, nullptr) == cudaSuccess);
    REQUIRE(z.values() == scaled);
    Buffer<float> wide(n, misaligned);
    REQUIRE(kernels::cast(wide.data(), x.data(), n, nullptr) == cudaSuccess);
    REQUIRE(wide.values() == a);
    REQUIRE(kernels::cast(z.data(), wide.data(), n, nullptr) == cudaSuccess);
    REQUIRE(z.values() == a);
    REQUIRE((z.guarded() && wide.guarded()));
  });
}

TEMPLATE_TEST_CASE("clamp kernels: exactly the reference, NaN and bounds included",
                   "[kernels][clamp]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 3, 1031);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, misaligned);
  auto x = normal_as<T>(n, 1, 2);
  const auto dy = normal_as<T>(n, 2);
  if (n > 2) x[0] = -0.75, x[1] = 1.25, x[2] = std::numeric_limits<double>::quiet_NaN();
  for_each_schedule([&](auto) {
    Buffer<T> in(x, misaligned), d(dy, misaligned), y(n, misaligned), dx(n, misaligned);
    REQUIRE(kernels::clamp(y.data(), in.data(), -0.75f, 1.25f, n, nullptr) == cudaSuccess);
    REQUIRE(kernels::clamp_backward(dx.data(), d.data(), in.data(), -0.75f, 1.25f, n, nullptr) ==
            cudaSuccess);
    const auto got = y.values(), want = reference::clamp(x, -0.75, 1.25);
    for (std::size_t i = 0; i < got.size(); ++i) {
      REQUIRE((i == 2 ? std::isnan(got[i]) : got[i] == want[i]));
    }
    REQUIRE(dx.values() == reference::clamp_backward(dy, x, -0.75, 1.25));
    REQUIRE((y.guarded() && dx.guarded()));
  });
}

TEST_CASE("mask_columns kernel: masked columns get the value", "[kernels][elementwise]") {
  Buffer<float> x(std::vector<double>{1, 2, 3, 4, 5, 6}), y(6);
  Buffer<std::uint8_t> keep(std::vector<double>{1, 0, 1});
  const float out = -std::numeric_limits<float>::infinity();
  REQUIRE(kernels::mask_columns(y.data(), x.data(), keep.data(), out, 2, 3, nullptr) ==
          cudaSuccess);
  REQUIRE(y.values() == std::vector<double>{1, out, 3, 4, out, 6});
}

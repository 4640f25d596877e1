// SPDX-License-Identifier: Apache-2.0
// The sum over an array and its gradient, under every schedule.
#include <espalier/kernels/sum.cuh>

#include "kernels/cases.hpp"
#include "support/allclose.hpp"
#include "support/catch.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("sum kernel: as in double precision, rounded once", "[kernels][sum]",
                   KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 33, 4096, 10000);  // up to 3 blocks
  CAPTURE(n);
  const auto x = normal_as<T>(n, 1);
  double want = 0;
  for (const double v : x) want += v;
  same_in_every_schedule([&] {
    Buffer<T> in(x);
    Buffer<float> total(1);
    Buffer<double> workspace(kernels::sum_blocks(n));
    REQUIRE(kernels::sum(total.data(), in.data(), n, workspace.data(), nullptr) == cudaSuccess);
    require_close(total, {want}, epsilon_of(DType::f32), 1e-12);
    REQUIRE(workspace.guarded());
    return total.bytes();
  });
}

TEMPLATE_TEST_CASE("sum kernel: each element gets the gradient, rounded", "[kernels][sum]",
                   KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 7, 2051);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, misaligned);
  const float gradient = 1.2345678f;
  const std::vector<double> want(n, kernels::to_float(kernels::from_float<T>(gradient)));
  for_each_schedule([&](auto) {
    Buffer<float> dsum(std::vector<double>{gradient});
    Buffer<T> dx(n, misaligned);
    REQUIRE(kernels::sum_backward(dx.data(), dsum.data(), n, nullptr) == cudaSuccess);
    REQUIRE(dx.values() == want);
    REQUIRE(dx.guarded());
  });
}

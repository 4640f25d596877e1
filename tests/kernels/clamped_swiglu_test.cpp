// SPDX-License-Identifier: Apache-2.0
// clamped_swiglu against the double-precision reference, under every schedule of threads and
// blocks.
#include <espalier/kernels/clamped_swiglu.cuh>

#include <limits>

#include <espalier/ops/reference/clamp.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("clamped_swiglu kernels: forward and backward follow the reference",
                   "[kernels][clamped_swiglu]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 7, 256, 2051);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, misaligned);
  const float alpha = 1.702f;
  const auto gate = normal_as<T>(n, 1, 4), up = normal_as<T>(n, 2, 4), dy = normal_as<T>(n, 3);
  const auto grads = reference::clamped_swiglu_backward<double>(dy, gate, up, alpha, 7);
  for_each_schedule([&](auto) {
    Buffer<T> g(gate, misaligned), u(up, misaligned), d(dy, misaligned);
    Buffer<T> y(n, misaligned), dgate(n, misaligned), dup(n, misaligned);
    REQUIRE(kernels::clamped_swiglu_forward(y.data(), g.data(), u.data(), alpha, 7.0f, n,
                                            nullptr) == cudaSuccess);
    REQUIRE(kernels::clamped_swiglu_backward(dgate.data(), dup.data(), d.data(), g.data(), u.data(),
                                             alpha, 7.0f, n, nullptr) == cudaSuccess);
    // The error of alpha · gate far out is one of the sigmoid's exponent.
    require_near<T>(y.values(), reference::clamped_swiglu<double>(gate, up, alpha, 7), 16, 4);
    require_near<T>(dgate.values(), grads.dgate, 16, 16);
    require_near<T>(dup.values(), grads.dup, 16, 4);
    REQUIRE((y.guarded() && dgate.guarded() && dup.guarded()));
    // In place, as a layer may use it.
    REQUIRE(kernels::clamped_swiglu_backward(g.data(), u.data(), d.data(), g.data(), u.data(),
                                             alpha, 7.0f, n, nullptr) == cudaSuccess);
    REQUIRE(g.bytes() == dgate.bytes());
    REQUIRE(u.bytes() == dup.bytes());
  });
}

TEST_CASE("clamped_swiglu kernels: NaN stays NaN, and a clamped NaN has no gradient",
          "[kernels][clamped_swiglu]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Buffer<float> g(std::vector<double>{nan, 1}), u(std::vector<double>{1, nan}),
      d(std::vector<double>{1, 1}), y(2), dgate(2), dup(2);
  REQUIRE(kernels::clamped_swiglu_forward(y.data(), g.data(), u.data(), 1.702f, 7.0f, 2, nullptr) ==
          cudaSuccess);
  REQUIRE(kernels::clamped_swiglu_backward(dgate.data(), dup.data(), d.data(), g.data(), u.data(),
                                           1.702f, 7.0f, 2, nullptr) == cudaSuccess);
  REQUIRE((std::isnan(y[0]) && std::isnan(y[1])));
  REQUIRE((dgate[0] == 0 && std::isnan(dgate[1]) && std::isnan(dup[0]) && dup[1] == 0));
}

// SPDX-License-Identifier: Apache-2.0
// swiglu against the double-precision reference, under every schedule of threads and blocks.
#include <espalier/kernels/swiglu.cuh>

#include <espalier/ops/reference/swiglu.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("swiglu kernels: forward and backward follow the reference", "[kernels][swiglu]",
                   KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 7, 256, 2051);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, misaligned);
  const auto gate = normal_as<T>(n, 1, 4), up = normal_as<T>(n, 2), dy = normal_as<T>(n, 3);
  const auto grads = reference::swiglu_backward(dy, gate, up);
  for_each_schedule([&](auto) {
    Buffer<T> g(gate, misaligned), u(up, misaligned), d(dy, misaligned);
    Buffer<T> y(n, misaligned), dgate(n, misaligned), dup(n, misaligned);
    REQUIRE(kernels::swiglu_forward(y.data(), g.data(), u.data(), n, nullptr) == cudaSuccess);
    REQUIRE(kernels::swiglu_backward(dgate.data(), dup.data(), d.data(), g.data(), u.data(), n,
                                     nullptr) == cudaSuccess);
    require_near<T>(y.values(), reference::swiglu(gate, up), 4, 1e-3);
    require_near<T>(dgate.values(), grads.dgate, 8, 4);
    require_near<T>(dup.values(), grads.dup, 8, 1e-3);
    REQUIRE((y.guarded() && dgate.guarded() && dup.guarded()));
    // In place, as the layer uses it.
    REQUIRE(kernels::swiglu_backward(g.data(), u.data(), d.data(), g.data(), u.data(), n,
                                     nullptr) == cudaSuccess);
    REQUIRE(g.values() == dgate.values());
    REQUIRE(u.values() == dup.values());
  });
}

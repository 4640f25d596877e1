// SPDX-License-Identifier: Apache-2.0
// sigmoid_gate against the double-precision reference, under every schedule of threads and blocks.
#include <espalier/kernels/sigmoid_gate.cuh>

#include <espalier/ops/reference/sigmoid_gate.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("sigmoid_gate kernels: forward and backward follow the reference",
                   "[kernels][sigmoid_gate]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 11), h = GENERATE(1, 7, 64, 1064);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, h, misaligned);
  const auto x = normal_as<T>(n * h, 1), gate = normal_as<T>(n, 2, 4), dy = normal_as<T>(n * h, 3);
  const auto grads = reference::sigmoid_gate_backward(dy, x, gate);
  for_each_schedule([&](auto) {
    Buffer<T> in(x, misaligned), g(gate), d(dy, misaligned), y(n * h, misaligned),
        dx(n * h, misaligned), dgate(n);
    REQUIRE(kernels::sigmoid_gate_forward(y.data(), in.data(), g.data(), n, h, nullptr) ==
            cudaSuccess);
    require_near<T>(y.values(), reference::sigmoid_gate(x, gate), 4, 1e-3);
    REQUIRE(kernels::sigmoid_gate_backward(dx.data(), dgate.data(), d.data(), in.data(), g.data(),
                                           n, h, nullptr) == cudaSuccess);
    require_near<T>(dx.values(), grads.dx, 4, 1e-3);
    require_near<T>(dgate.values(), grads.dgate, h + 4, 1);
    REQUIRE((y.guarded() && dx.guarded() && dgate.guarded()));
    // One gradient alone.
    Buffer<T> only_dx(n * h, misaligned), only_dgate(n);
    REQUIRE(kernels::sigmoid_gate_backward<T>(only_dx.data(), nullptr, d.data(), nullptr, g.data(),
                                              n, h, nullptr) == cudaSuccess);
    REQUIRE(kernels::sigmoid_gate_backward<T>(nullptr, only_dgate.data(), d.data(), in.data(),
                                              g.data(), n, h, nullptr) == cudaSuccess);
    REQUIRE((only_dx.bytes() == dx.bytes() && only_dgate.bytes() == dgate.bytes()));
  });
}

// SPDX-License-Identifier: Apache-2.0
// router_z_loss against the double-precision reference.
#include <espalier/ops/reference/moe.hpp>
#include <espalier/ops/router_z_loss.hpp>

#include <limits>

#include "ops/router_loss.hpp"
#include "support/each.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("router_z_loss: all layers together, and its gradient", "[ops][router_z_loss]",
                   float, bf16, double) {
  const std::int64_t n = GENERATE(1, 7), e = GENERATE(1, 5, 20);
  for_each_isa([&] {
    check_router_loss<TestType>(
        n, e, [](const auto& layers) { return router_z_loss(layers); },
        [&](const auto& z) { return reference::router_z_loss(z, 2 * n, e); });
  });
}

TEST_CASE("router_z_loss: by hand, and far out", "[ops][router_z_loss]") {
  const Var<float> z(Tensor<float>({2, 2}, {0, 0, 1000, -1000}));
  const double want = (std::log(2.0) * std::log(2.0) + 1e6) / 2;
  REQUIRE(std::abs(router_z_loss<float, Cpu>({z}).value()[0] - want) <= 1e-7 * want);
}

TEMPLATE_TEST_CASE("router_z_loss: minus infinity is an expert that is off, NaN stays",
                   "[ops][router_z_loss]", float, bf16) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const auto off = parameter(make_tensor<TestType>({2, 3}, {0, -kInf, 0, 0, -kInf, 0}));
  const auto loss = router_z_loss<TestType, Cpu>({off});
  REQUIRE(std::abs(loss.value()[0] - 0.480453f) <= 1e-5f);
  backward(loss);
  const auto d = to_vector(off.grad());
  REQUIRE((d[1] == 0 && d[4] == 0));
  for (const double g : d) REQUIRE(std::isfinite(g));
  const Var<TestType> bad(make_tensor<TestType>({2, 2}, {0, 1, NAN, 0}));
  REQUIRE(std::isnan(router_z_loss<TestType, Cpu>({bad}).value()[0]));
}

TEMPLATE_TEST_CASE("router_z_loss: the number of threads changes no bit", "[ops][router_z_loss]",
                   float, bf16) {
  require_same_bits_for_any_threads([] {
    return router_loss_of_many<TestType>([](const auto& layers) { return router_z_loss(layers); });
  });
}

TEST_CASE("router_z_loss: wrong arguments name both values", "[ops][router_z_loss]") {
  const Var<float> logits(Tensor<float>({2, 3}, 1.f)), x(Tensor<float>({5, 4}, 1.f));
  REQUIRE_THROWS_WITH((router_z_loss<float, Cpu>({logits, x})),
                      "router_z_loss: router logits are [5, 4], expected [tokens, 3]");
  REQUIRE_THROWS_WITH((router_z_loss<float, Cpu>({})), "router_z_loss: no router logits");
  REQUIRE_THROWS_WITH((router_z_loss<float, Cpu>({Var<float>(Tensor<float>(Shape{0, 3}))})),
                      "router_z_loss: router logits are [0, 3], expected a token");
}

// SPDX-License-Identifier: Apache-2.0
// load_balancing_loss against the double-precision reference.
#include <espalier/ops/load_balancing_loss.hpp>
#include <espalier/ops/reference/moe.hpp>

#include <limits>

#include "ops/router_loss.hpp"
#include "support/each.hpp"
#include "support/require_close.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("load_balancing_loss: balanced routing costs K, collapse costs E",
          "[ops][load_balancing_loss]") {
  const Var<double> balanced(
      Tensor<double>({4, 4}, {3, 3, 0, 0, 0, 3, 3, 0, 0, 0, 3, 3, 3, 0, 0, 3}));
  REQUIRE(std::abs(load_balancing_loss<double, Cpu>({balanced}, 2).value()[0] - 2.0) <= 1e-12);
  const Var<double> collapsed(Tensor<double>({2, 4}, {99, 98.9, 0, 0, 98.9, 99, 0, 0}));
  REQUIRE(std::abs(load_balancing_loss<double, Cpu>({collapsed}, 2).value()[0] - 4.0) <= 1e-9);
}

TEMPLATE_TEST_CASE("load_balancing_loss: all layers together, and its gradient",
                   "[ops][load_balancing_loss]", float, bf16, double) {
  const std::int64_t n = GENERATE(1, 7), e = GENERATE(2, 5, 20), k = 2;
  const auto all = make_tensor<TestType>({2 * n, e}, normal_of<TestType>(2 * n * e, 6, 1.5));
  const auto chosen = ints(select_top_k(all, k));
  for_each_isa([&] {
    check_router_loss<TestType>(
        n, e, [=](const auto& layers) { return load_balancing_loss(layers, k); },
        [&](const auto& z) { return reference::load_balancing_loss(z, chosen, 2 * n, e, k); });
  });
}

TEMPLATE_TEST_CASE("load_balancing_loss: minus infinity is an expert that is off, NaN stays",
                   "[ops][load_balancing_loss]", float, bf16) {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  const auto off = parameter(make_tensor<TestType>({2, 3}, {0, -kInf, 0, 0, -kInf, 0}));
  const auto loss = load_balancing_loss<TestType, Cpu>({off}, 1);
  REQUIRE(std::abs(loss.value()[0] - 1.5f) <= 1e-5f);
  backward(loss);
  const auto d = to_vector(off.grad());
  REQUIRE((d[1] == 0 && d[4] == 0));
  for (const double g : d) REQUIRE(std::isfinite(g));
  const Var<TestType> bad(make_tensor<TestType>({2, 2}, {0, 1, NAN, 0}));
  REQUIRE(std::isnan(load_balancing_loss<TestType, Cpu>({bad}, 1).value()[0]));
}

TEMPLATE_TEST_CASE("load_balancing_loss: the number of threads changes no bit",
                   "[ops][load_balancing_loss]", float, bf16) {
  require_same_bits_for_any_threads([] {
    return router_loss_of_many<TestType>(
        [](const auto& layers) { return load_balancing_loss(layers, 2); });
  });
}

TEST_CASE("load_balancing_loss: wrong arguments name both values", "[ops][load_balancing_loss]") {
  const Var<float> logits(Tensor<float>({2, 3}, 1.f)), x(Tensor<float>({5, 4}, 1.f));
  REQUIRE_THROWS_WITH((load_balancing_loss<float, Cpu>({logits, x}, 1)),
                      "load_balancing_loss: router logits are [5, 4], expected [tokens, 3]");
  REQUIRE_THROWS_WITH((load_balancing_loss<float, Cpu>({logits}, 4)),
                      "router_top_k: top_k is 4, expected 1 to 3 (the number of experts)");
}

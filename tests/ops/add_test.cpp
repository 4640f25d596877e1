// SPDX-License-Identifier: Apache-2.0
// add against plain loops.
#include <espalier/ops/add.hpp>
#include <espalier/ops/reference/elementwise.hpp>

#include <limits>

#include "ops/elementwise_pair.hpp"
#include "support/each.hpp"
#include "support/require_close.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("add: values and gradients by hand", "[ops][add]") {
  const auto a = parameter(Tensor<double>({2, 2}, {1, 2, 3, 4}));
  const auto b = parameter(Tensor<double>({2, 2}, {10, 20, 30, 40}));
  const auto y = add(a, b);
  REQUIRE(to_vector(y.value()) == std::vector<double>{11, 22, 33, 44});
  backward(y, Tensor<double>({2, 2}, {1, 2, 3, 4}));
  REQUIRE(to_vector(a.grad()) == std::vector<double>{1, 2, 3, 4});
  REQUIRE(to_vector(b.grad()) == std::vector<double>{1, 2, 3, 4});
}

TEMPLATE_TEST_CASE("add: values and gradients match the reference", "[ops][add]", float, bf16,
                   double) {
  const ElementwisePair<TestType> c{GENERATE(0, 1, 3, 17, 64, 70001)};
  CAPTURE(c.n);
  for_each_isa([&] {
    const auto sums = c.run([](const auto& a, const auto& b) { return add(a, b); });
    require_close(sums[0], reference::add(c.a, c.b), 0, tol<TestType>(1));
    require_close(sums[1], c.dy, 0, 0);
    require_close(sums[2], c.dy, 0, 0);
  });
}

TEST_CASE("add: a bf16 result is the exact one rounded once", "[ops][add]") {
  const ElementwisePair<bf16> c{1000};
  const auto sums = c.run([](const auto& a, const auto& b) { return add(a, b); });
  REQUIRE(same_bits(sums[0], make_tensor<bf16>({1000}, reference::add(c.a, c.b))));
}

TEST_CASE("add: a value used twice collects both gradients", "[ops][add]") {
  const auto a = parameter(Tensor<double>({3}, {1, 2, 3}));
  const auto y = add(a, a);
  backward(add(y, a), Tensor<double>({3}, 1.0));
  REQUIRE(to_vector(a.grad()) == std::vector<double>(3, 3.0));
}

TEST_CASE("add: NaN and infinity go through", "[ops][add]") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Var<float> a(Tensor<float>({4}, {kNan, kInf, kInf, 1}));
  const Var<float> b(Tensor<float>({4}, {1, -kInf, 0, 2}));
  const auto s = add(a, b).value();
  REQUIRE((std::isnan(s[0]) && std::isnan(s[1]) && s[2] == kInf && s[3] == 3));
}

TEST_CASE("add: the number of threads changes no bit", "[ops][add]") {
  const auto a = normal(200003, 1), b = normal(200003, 2);
  require_same_bits_for_any_threads([&] {
    const auto x = parameter(make_tensor<bf16>({200003}, a));
    const auto y = add(add(x, Var<bf16>(make_tensor<bf16>({200003}, b))), x);
    backward(y, make_tensor<bf16>({200003}, b));
    return std::vector<AnyTensor>{y.value(), x.grad()};
  });
}

TEST_CASE("add: wrong arguments name both values", "[ops][add]") {
  const Var<float> a(Tensor<float>({2, 3}, 1.f)), b(Tensor<float>({3, 2}, 1.f));
  REQUIRE_THROWS_WITH(add(a, b), "add: a is [2, 3], b is [3, 2]");
}

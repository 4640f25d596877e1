// SPDX-License-Identifier: Apache-2.0
// mul against plain loops.
#include <espalier/ops/mul.hpp>
#include <espalier/ops/reference/elementwise.hpp>

#include <limits>

#include "ops/elementwise_pair.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/require_close.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("mul: values and gradients match the reference", "[ops][mul]", float, bf16,
                   double) {
  const ElementwisePair<TestType> c{GENERATE(0, 1, 3, 17, 64, 70001)};
  CAPTURE(c.n);
  const double t = tol<TestType>(1);
  for_each_isa([&] {
    const auto products = c.run([](const auto& a, const auto& b) { return mul(a, b); });
    require_close(products[0], reference::mul(c.a, c.b), 0, t);
    require_close(products[1], reference::mul(c.dy, c.b), 0, t);
    require_close(products[2], reference::mul(c.dy, c.a), 0, t);
  });
}

TEST_CASE("mul: the reference's gradient is that of the complex step", "[ops][mul]") {
  const ElementwisePair<double> c{7};
  const auto of_a =
      complex_step_grad([&](const auto& z) { return dot(c.dy, reference::mul(z, c.b)); }, c.a);
  REQUIRE(compare(reference::mul(c.dy, c.b), of_a, 0, 1e-15).count == 0);
}

TEST_CASE("mul: a bf16 result is the exact one rounded once", "[ops][mul]") {
  const ElementwisePair<bf16> c{1000};
  const auto products = c.run([](const auto& a, const auto& b) { return mul(a, b); });
  REQUIRE(same_bits(products[0], make_tensor<bf16>({1000}, reference::mul(c.a, c.b))));
}

TEST_CASE("mul: a value times itself, and times a constant", "[ops][mul]") {
  const auto a = parameter(Tensor<double>({3}, {1, 2, 3}));
  const auto y = mul(mul(a, a), Var<double>(Tensor<double>({3}, {1, 10, 100})));
  backward(y, Tensor<double>({3}, 1.0));
  REQUIRE(to_vector(a.grad()) == std::vector<double>{2, 40, 600});
}

TEST_CASE("mul: NaN and infinity go through", "[ops][mul]") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Var<float> a(Tensor<float>({4}, {kNan, kInf, kInf, 1}));
  const Var<float> b(Tensor<float>({4}, {1, -kInf, 0, 2}));
  const auto p = mul(a, b).value();
  REQUIRE((std::isnan(p[0]) && p[1] == -kInf && std::isnan(p[2]) && p[3] == 2));
}

TEST_CASE("mul: the number of threads changes no bit", "[ops][mul]") {
  const auto a = normal(200003, 1), dy = normal(200003, 2);
  require_same_bits_for_any_threads([&] {
    const auto x = parameter(make_tensor<bf16>({200003}, a));
    const auto y = mul(x, x);
    backward(y, make_tensor<bf16>({200003}, dy));
    return std::vector<AnyTensor>{y.value(), x.grad()};
  });
}

TEST_CASE("mul: wrong arguments name both values", "[ops][mul]") {
  const Var<float> a(Tensor<float>({2, 3}, 1.f)), b(Tensor<float>({3, 2}, 1.f));
  REQUIRE_THROWS_WITH(mul(a, b), "mul: a is [2, 3], b is [3, 2]");
}

// SPDX-License-Identifier: Apache-2.0
// scale against plain loops.
#include <espalier/ops/reference/elementwise.hpp>
#include <espalier/ops/scale.hpp>

#include <limits>

#include "support/each.hpp"
#include "support/require_close.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("scale: values and gradients by hand", "[ops][scale]") {
  const auto x = parameter(Tensor<double>({2, 2}, {1, 2, 3, 4}));
  const auto y = scale(x, 3);
  REQUIRE(to_vector(y.value()) == std::vector<double>{3, 6, 9, 12});
  backward(y, Tensor<double>({2, 2}, 2.0));
  REQUIRE(to_vector(x.grad()) == std::vector<double>(4, 6.0));
}

TEMPLATE_TEST_CASE("scale: values and gradients match the reference", "[ops][scale]", float, bf16,
                   double) {
  const std::int64_t n = GENERATE(0, 1, 3, 17, 64, 70001);
  CAPTURE(n);
  const auto values = normal_of<TestType>(n, 1), dy = normal_of<TestType>(n, 3);
  const double t = tol<TestType>(1);
  for_each_isa([&] {
    const auto x = parameter(make_tensor<TestType>({n}, values));
    const auto y = scale(x, 0.7);
    backward(y, make_tensor<TestType>({n}, dy));
    require_close(y.value(), reference::scale(values, 0.7), 0, t);
    require_close(x.grad(), reference::scale(dy, 0.7), 0, t);
  });
}

TEST_CASE("scale: NaN and infinity go through", "[ops][scale]") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const auto y = scale(Var<float>(Tensor<float>({4}, {kNan, kInf, kInf, 1})), 0).value();
  REQUIRE((std::isnan(y[0]) && std::isnan(y[1]) && y[3] == 0));
}

TEST_CASE("scale: the number of threads changes no bit", "[ops][scale]") {
  const auto a = normal(200003, 1);
  require_same_bits_for_any_threads([&] {
    const auto x = parameter(make_tensor<bf16>({200003}, a));
    const auto y = scale(x, 0.3);
    backward(y, make_tensor<bf16>({200003}, a));
    return std::vector<AnyTensor>{y.value(), x.grad()};
  });
}

TEST_CASE("scale: a factor that is not finite is refused", "[ops][scale]") {
  const Var<float> a(Tensor<float>({2, 3}, 1.f));
  REQUIRE_THROWS_WITH(scale(a, INFINITY), "scale: factor is inf, expected a finite number");
}

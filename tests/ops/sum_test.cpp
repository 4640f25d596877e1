// SPDX-License-Identifier: Apache-2.0
// sum and mean against plain loops.
#include <espalier/ops/reference/elementwise.hpp>
#include <espalier/ops/sum.hpp>

#include <cmath>

#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/require_close.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("sum, mean: values and gradients by hand", "[ops][sum]") {
  const auto x = parameter(Tensor<double>({2, 2}, {13, 26, 39, 52}));
  const auto total = sum(x);
  REQUIRE(total.value()[0] == 130);
  REQUIRE(mean(x).value()[0] == 32.5);
  backward(total, Tensor<double>({1}, 2.0));
  REQUIRE(to_vector(x.grad()) == std::vector<double>(4, 2.0));
}

TEMPLATE_TEST_CASE("sum, mean: in acc_t, as the reference", "[ops][sum]", float, bf16, double) {
  using A = acc_t<TestType>;
  const std::int64_t n = GENERATE(1, 5, 33, 4097, 100003);
  CAPTURE(n);
  const auto values = normal_of<TestType>(n, 1);
  double magnitude = 0;
  for (const double v : values) magnitude += std::abs(v);
  for_each_isa([&] {
    const auto x = parameter(make_tensor<TestType>({n}, values));
    const Var<A> total = sum(x), average = mean(x);
    // Accumulated in double: what is left is one rounding, and double's own error.
    const double t = tol<A>(1), u = tol<double>(n) * magnitude;
    require_close(total.value(), {reference::sum(values)}, u, t);
    require_close(average.value(), {reference::mean(values)}, u / static_cast<double>(n), t);
    backward(average, make_tensor<A>({1}, {3.0}));
    REQUIRE(x.grad().dtype() == dtype_of<TestType>::value);
    require_close(x.grad(), std::vector<double>(n, 3.0 / static_cast<double>(n)), 0,
                  tol<TestType>(1));
  });
  REQUIRE(sum(Var<TestType>(Tensor<TestType>(Shape{0, 3}))).value()[0] == 0);
}

TEST_CASE("mean: the reference's gradient is that of the complex step", "[ops][sum]") {
  const auto of_mean =
      complex_step_grad([](const auto& z) { return reference::mean(z); }, normal(7, 1));
  REQUIRE(compare(of_mean, std::vector<double>(7, 1.0 / 7), 0, 1e-15).count == 0);
}

TEST_CASE("sum: NaN goes through", "[ops][sum]") {
  REQUIRE(std::isnan(sum(Var<float>(Tensor<float>({3}, {1, NAN, INFINITY}))).value()[0]));
}

TEST_CASE("sum, mean: the number of threads changes no bit", "[ops][sum]") {
  const auto a = normal(200003, 1);
  require_same_bits_for_any_threads([&] {
    const auto x = parameter(make_tensor<bf16>({200003}, a));
    const auto y = mean(x);
    backward(y);
    return std::vector<AnyTensor>{y.value(), sum(x).value(), x.grad()};
  });
}

TEST_CASE("mean: no element is refused", "[ops][sum]") {
  REQUIRE_THROWS_WITH(mean(Var<float>(Tensor<float>({0, 3}))),
                      "mean: x is [0, 3], expected an element");
}

// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/clamp.hpp>
#include <espalier/ops/reference/clamp.hpp>

#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

template <class T>
std::vector<AnyTensor> run(const std::vector<double>& x, const std::vector<double>& dy, double low,
                           double high) {
  const Shape shape{static_cast<std::int64_t>(x.size())};
  const auto v = parameter(make_tensor<T>(shape, x));
  const auto y = clamp(v, low, high);
  backward(y, make_tensor<T>(shape, dy));
  return {y.value(), v.grad()};
}

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

}  // namespace

TEMPLATE_TEST_CASE("clamp: values and gradients by hand, the bounds included", "[ops][clamp]",
                   float, bf16, double) {
  const auto got = run<TestType>({-3, -2, 0, 1, 1.5, kInf, -kInf}, {1, 2, 3, 4, 5, 6, 7}, -2, 1);
  REQUIRE(to_vector(got[0]) == std::vector<double>{-2, -2, 0, 1, 1, 1, -2});
  REQUIRE(to_vector(got[1]) == std::vector<double>{0, 2, 3, 4, 0, 0, 0});
  const auto above = run<TestType>({-3, 2, kInf}, {1, 2, 3}, -kInf, 1);
  REQUIRE(to_vector(above[0]) == std::vector<double>{-3, 1, 1});
  REQUIRE(to_vector(above[1]) == std::vector<double>{1, 0, 0});
}

TEST_CASE("clamp: the reference gradient matches central differences", "[ops][clamp]") {
  const auto x = normal(20, 1, 2.0), dy = normal(20, 2);
  const auto grad = central_difference_grad(
      [&](const auto& v) { return dot(dy, reference::clamp(v, -1.5, 1.0)); }, x);
  const auto want = reference::clamp_backward(dy, x, -1.5, 1.0);
  for (std::size_t i = 0; i < x.size(); ++i) REQUIRE(std::abs(grad[i] - want[i]) <= 1e-9);
}

TEMPLATE_TEST_CASE("clamp: exactly the reference", "[ops][clamp]", float, bf16, double) {
  const std::int64_t n = GENERATE(0, 1, 7, 33, 70001);
  CAPTURE(n);
  const auto x = normal_of<TestType>(n, 1, 2.0), dy = normal_of<TestType>(n, 2);
  for_each_isa([&] {
    const auto got = run<TestType>(x, dy, -0.75, 1.25);
    REQUIRE(to_vector(got[0]) == reference::clamp(x, -0.75, 1.25));
    REQUIRE(to_vector(got[1]) == reference::clamp_backward(dy, x, -0.75, 1.25));
  });
}

TEST_CASE("clamp: a bound that T does not have is rounded first", "[ops][clamp]") {
  const double rounded = static_cast<float>(bf16(0.1f));
  const auto got = run<bf16>({rounded, 1}, {1, 1}, -0.1, 0.1);
  REQUIRE(to_vector(got[0]) == std::vector<double>{rounded, rounded});
  REQUIRE(to_vector(got[1]) == std::vector<double>{1, 0});
}

TEMPLATE_TEST_CASE("clamp: NaN goes through, without a gradient", "[ops][clamp]", float, bf16,
                   double) {
  for_each_isa([&] {
    const auto got =
        run<TestType>(std::vector<double>(40, kNan), std::vector<double>(40, 1.0), -1, 1);
    for (const double y : to_vector(got[0])) REQUIRE(std::isnan(y));
    REQUIRE(to_vector(got[1]) == std::vector<double>(40, 0.0));
    const auto of_dy =
        run<TestType>(std::vector<double>(40, 0.5), std::vector<double>(40, kNan), -1, 1);
    for (const double dx : to_vector(of_dy[1])) REQUIRE(std::isnan(dx));
  });
}

TEST_CASE("clamp: the number of threads changes no bit", "[ops][clamp]") {
  const auto x = normal(100001, 1), dy = normal(100001, 2);
  require_same_bits_for_any_threads([&] { return run<bf16>(x, dy, -0.3, 0.3); });
}

TEST_CASE("clamp: refuses bounds in the wrong order", "[ops][clamp]") {
  const Var<float> x(Tensor<float>({2}, 1.0f));
  REQUIRE_THROWS_WITH(clamp(x, 2, 1), "clamp: low is 2, high is 1, expected low <= high");
  REQUIRE_THROWS_AS(clamp(x, kNan, 1), Error);
}

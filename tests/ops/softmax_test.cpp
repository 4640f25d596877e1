// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/reference/softmax.hpp>
#include <espalier/ops/softmax.hpp>

#include <limits>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

/// Of y = softmax(x): y_i (dy_i - <y, dy>) per row.
std::vector<double> backward_of(const std::vector<double>& x, const std::vector<double>& dy,
                                std::int64_t n) {
  const auto y = reference::softmax(x, n);
  std::vector<double> dx(x.size());
  for (std::size_t i = 0; i < x.size(); ++i) {
    const std::size_t row = i - i % static_cast<std::size_t>(n);
    double mean = 0;
    for (std::size_t j = row; j < row + static_cast<std::size_t>(n); ++j) mean += y[j] * dy[j];
    dx[i] = y[i] * (dy[i] - mean);
  }
  return dx;
}

template <class T>
std::vector<AnyTensor> run(Shape shape, const std::vector<double>& x,
                           const std::vector<double>& dy) {
  const auto v = parameter(make_tensor<T>(shape, x));
  const auto y = softmax(v);
  backward(y, make_tensor<T>(shape, dy));
  return {y.value(), v.grad()};
}

}  // namespace

TEST_CASE("softmax: the reference gradient matches the complex step", "[ops][softmax]") {
  const auto x = normal(12, 1, 3.0), dy = normal(12, 2);
  const auto want =
      complex_step_grad([&](const auto& z) { return dot(dy, reference::softmax(z, 4)); }, x);
  REQUIRE(compare(backward_of(x, dy, 4), want, 1e-15, 1e-13).count == 0);
}

TEMPLATE_TEST_CASE("softmax: values and gradients match the reference", "[ops][softmax]", float,
                   bf16, double) {
  const std::int64_t n = GENERATE(1, 2, 7, 16, 40, 1030);
  const Shape shape{GENERATE(0, 1, 3), 2, n};
  CAPTURE(shape);
  const auto x = normal_of<TestType>(shape.numel(), 1, 4.0);
  const auto dy = normal_of<TestType>(shape.numel(), 2);
  const auto y = reference::softmax(x, n), dx = backward_of(x, dy, n);
  for_each_isa([&] {
    const auto got = run<TestType>(shape, x, dy);
    const double t = tol<TestType>(n), before_rounding = tol<acc_t<TestType>>(n);
    const Mismatch value = compare(to_vector(got[0]), y, 1e-30, t);
    // dx is a difference: its error is in units of the terms, y times some dy.
    const Mismatch grad = compare(to_vector(got[1]), dx, before_rounding, t);
    INFO("y: " << value << "; dx: " << grad);
    REQUIRE(value.count == 0);
    REQUIRE(grad.count == 0);
  });
}

TEST_CASE("softmax: one axis, and no elements", "[ops][softmax]") {
  REQUIRE(to_vector(softmax(Var<double>(Tensor<double>({2}, {5, 5}))).value()) ==
          std::vector<double>{0.5, 0.5});
  const auto none = parameter(Tensor<float>(Shape{3, 0}));
  backward(softmax(none));
  REQUIRE(none.grad().shape() == Shape{3, 0});
}

TEST_CASE("softmax: large, infinite and NaN elements", "[ops][softmax]") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const auto row = [](const std::vector<float>& x) {
    const auto n = static_cast<std::int64_t>(x.size());
    return to_vector(softmax(Var<float>(Tensor<float>(Shape{n}, x))).value());
  };
  REQUIRE(row({3e38f, 0, -3e38f}) == std::vector<double>{1, 0, 0});
  REQUIRE(row({-kInf, 2, 2, -kInf}) == std::vector<double>{0, 0.5, 0.5, 0});
  for (const double p : row({1, NAN, 2})) REQUIRE(std::isnan(p));
  for (const double p : row({1, kInf, 2})) REQUIRE(std::isnan(p));
  for (const double p : row({-kInf, -kInf})) REQUIRE(std::isnan(p));
  std::vector<float> many(100, 1.0f);
  many[70] = NAN;
  for (const double p : row(many)) REQUIRE(std::isnan(p));
}

TEMPLATE_TEST_CASE("softmax: the number of threads changes no bit", "[ops][softmax]", float, bf16) {
  const auto x = normal(3000 * 33, 1), dy = normal(3000 * 33, 2);
  require_same_bits_for_any_threads([&] { return run<TestType>({3000, 33}, x, dy); });
}

TEST_CASE("softmax: refuses a value without an axis", "[ops][softmax]") {
  REQUIRE_THROWS_WITH(softmax(Var<float>(Tensor<float>(Shape{}, 1.0f))),
                      "softmax: x is [], expected at least one axis");
}

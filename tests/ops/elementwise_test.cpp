// SPDX-License-Identifier: Apache-2.0
// add, mul, scale, sum, mean, reshape.
#include <espalier/ops/add.hpp>
#include <espalier/ops/mul.hpp>
#include <espalier/ops/reference/elementwise.hpp>
#include <espalier/ops/reshape.hpp>
#include <espalier/ops/sum.hpp>

#include <limits>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

void require_close(const AnyTensor& got, const std::vector<double>& want, double atol,
                   double rtol) {
  const Mismatch m = compare(to_vector(got), want, atol, rtol);
  INFO(m);
  REQUIRE(m.count == 0);
}

template <class T>
struct Pair {
  std::int64_t n;
  std::vector<double> a = normal_of<T>(n, 1), b = normal_of<T>(n, 2), dy = normal_of<T>(n, 3);

  /// y, da, db of a function of two variables.
  template <class F>
  std::vector<AnyTensor> run(F f) const {
    const auto va = parameter(make_tensor<T>({n}, a)), vb = parameter(make_tensor<T>({n}, b));
    const auto y = f(va, vb);
    backward(y, make_tensor<T>({n}, dy));
    return {y.value(), va.grad(), vb.grad()};
  }
};

}  // namespace

TEST_CASE("add, scale, sum, mean: values and gradients by hand", "[ops][elementwise]") {
  const auto a = parameter(Tensor<double>({2, 2}, {1, 2, 3, 4}));
  const auto b = parameter(Tensor<double>({2, 2}, {10, 20, 30, 40}));
  const auto y = add(scale(a, 3), b);
  REQUIRE(to_vector(y.value()) == std::vector<double>{13, 26, 39, 52});
  const auto total = sum(y);
  REQUIRE(total.value()[0] == 130);
  REQUIRE(mean(y).value()[0] == 32.5);
  backward(total, Tensor<double>({1}, 2.0));
  REQUIRE(to_vector(a.grad()) == std::vector<double>(4, 6.0));
  REQUIRE(to_vector(b.grad()) == std::vector<double>(4, 2.0));
}

TEMPLATE_TEST_CASE("add, mul, scale: values and gradients match the reference",
                   "[ops][elementwise]", float, bf16, double) {
  const Pair<TestType> c{GENERATE(0, 1, 3, 17, 64, 70001)};
  CAPTURE(c.n);
  const double t = tol<TestType>(1);
  for_each_isa([&] {
    const auto sums = c.run([](const auto& a, const auto& b) { return add(a, b); });
    require_close(sums[0], reference::add(c.a, c.b), 0, t);
    require_close(sums[1], c.dy, 0, 0);
    require_close(sums[2], c.dy, 0, 0);
    const auto products = c.run([](const auto& a, const auto& b) { return mul(a, b); });
    require_close(products[0], reference::mul(c.a, c.b), 0, t);
    require_close(products[1], reference::mul(c.dy, c.b), 0, t);
    require_close(products[2], reference::mul(c.dy, c.a), 0, t);
    const auto x = parameter(make_tensor<TestType>({c.n}, c.a));
    const auto scaled = scale(x, 0.7);
    backward(scaled, make_tensor<TestType>({c.n}, c.dy));
    require_close(scaled.value(), reference::scale(c.a, 0.7), 0, t);
    require_close(x.grad(), reference::scale(c.dy, 0.7), 0, t);
  });
}

TEST_CASE("elementwise references: gradients by the complex step", "[ops][elementwise]") {
  const Pair<double> c{7};
  const auto of_a =
      complex_step_grad([&](const auto& z) { return dot(c.dy, reference::mul(z, c.b)); }, c.a);
  REQUIRE(compare(reference::mul(c.dy, c.b), of_a, 0, 1e-15).count == 0);
  const auto of_mean = complex_step_grad([](const auto& z) { return reference::mean(z); }, c.a);
  REQUIRE(compare(of_mean, std::vector<double>(7, 1.0 / 7), 0, 1e-15).count == 0);
}

TEST_CASE("add, mul: a bf16 result is the exact one rounded once", "[ops][elementwise]") {
  const Pair<bf16> c{1000};
  const auto sums = c.run([](const auto& a, const auto& b) { return add(a, b); });
  const auto products = c.run([](const auto& a, const auto& b) { return mul(a, b); });
  REQUIRE(same_bits(sums[0], make_tensor<bf16>({1000}, reference::add(c.a, c.b))));
  REQUIRE(same_bits(products[0], make_tensor<bf16>({1000}, reference::mul(c.a, c.b))));
}

TEST_CASE("add: a value used twice collects both gradients", "[ops][elementwise]") {
  const auto a = parameter(Tensor<double>({3}, {1, 2, 3}));
  const auto y = add(a, a);
  backward(sum(add(y, a)));
  REQUIRE(to_vector(a.grad()) == std::vector<double>(3, 3.0));
}

TEST_CASE("mul: a value times itself, and times a constant", "[ops][elementwise]") {
  const auto a = parameter(Tensor<double>({3}, {1, 2, 3}));
  backward(sum(mul(mul(a, a), Var<double>(Tensor<double>({3}, {1, 10, 100})))));
  REQUIRE(to_vector(a.grad()) == std::vector<double>{2, 40, 600});
}

TEMPLATE_TEST_CASE("sum, mean: in acc_t, as the reference", "[ops][elementwise]", float, bf16,
                   double) {
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

TEST_CASE("elementwise ops: NaN and infinity go through", "[ops][elementwise]") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
  const Var<float> a(Tensor<float>({4}, {kNan, kInf, kInf, 1}));
  const Var<float> b(Tensor<float>({4}, {1, -kInf, 0, 2}));
  const auto s = add(a, b).value(), p = mul(a, b).value(), x = scale(a, 0).value();
  REQUIRE((std::isnan(s[0]) && std::isnan(s[1]) && s[2] == kInf && s[3] == 3));
  REQUIRE((std::isnan(p[0]) && p[1] == -kInf && std::isnan(p[2]) && p[3] == 2));
  REQUIRE((std::isnan(x[0]) && std::isnan(x[1]) && x[3] == 0));
  REQUIRE(std::isnan(sum(a).value()[0]));
}

TEMPLATE_TEST_CASE("reshape: shares the memory and gives the gradient its old shape",
                   "[ops][elementwise]", float, bf16) {
  const auto a = parameter(make_tensor<TestType>({2, 3}, {1, 2, 3, 4, 5, 6}));
  const auto y = reshape(a, {3, 2});
  REQUIRE(y.value().data() == a.value().data());
  backward(sum(scale(y, 2)));
  REQUIRE(a.grad().shape() == Shape{2, 3});
  REQUIRE(to_vector(a.grad()) == std::vector<double>(6, 2.0));
  REQUIRE_THROWS_WITH(reshape(a, {4, 2}), "reshape: [2, 3] holds 6 elements, [4, 2] needs 8");
}

TEST_CASE("elementwise ops: the number of threads changes no bit", "[ops][elementwise]") {
  const auto a = normal(200003, 1);
  require_same_bits_for_any_threads([&] {
    const auto x = parameter(make_tensor<bf16>({200003}, a));
    const auto y = mean(add(mul(x, x), scale(x, 0.3)));
    backward(y);
    return std::vector<AnyTensor>{y.value(), x.grad()};
  });
}

TEST_CASE("elementwise ops: wrong arguments name both values", "[ops][elementwise]") {
  const Var<float> a(Tensor<float>({2, 3}, 1.f)), b(Tensor<float>({3, 2}, 1.f));
  REQUIRE_THROWS_WITH(add(a, b), "add: a is [2, 3], b is [3, 2]");
  REQUIRE_THROWS_WITH(mul(a, b), "mul: a is [2, 3], b is [3, 2]");
  REQUIRE_THROWS_WITH(scale(a, INFINITY), "scale: factor is inf, expected a finite number");
  REQUIRE_THROWS_WITH(mean(Var<float>(Tensor<float>({0, 3}))),
                      "mean: x is [0, 3], expected an element");
}

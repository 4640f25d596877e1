// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/bias.hpp>
#include <espalier/ops/reference/bias.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using Offsets = std::vector<std::int64_t>;

std::vector<double> part(const std::vector<double>& all, std::size_t g, std::int64_t out) {
  const auto first = all.begin() + static_cast<std::int64_t>(g) * out;
  return {first, first + out};
}

/// y, dx, db_0, db_1, ... with biases of type B.
template <class T, class B>
std::vector<AnyTensor> run(const Offsets& offsets, std::int64_t out, const std::vector<double>& x,
                           const std::vector<double>& biases, const std::vector<double>& dy) {
  const Shape shape{offsets.back(), out};
  const auto vx = parameter(make_tensor<T>(shape, x));
  std::vector<AnyVar> b;
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    b.push_back(AnyVar(make_tensor<B>({out}, part(biases, g, out)), std::make_shared<Node>()));
  }
  const auto y = add_bias(vx, b, offsets);
  backward(y, make_tensor<T>(shape, dy));
  std::vector<AnyTensor> results = {y.value(), vx.grad()};
  for (const AnyVar& v : b) results.push_back(v.grad());
  return results;
}

template <class T, class B>
void check_against_reference(const Offsets& offsets, std::int64_t out) {
  const std::int64_t rows = offsets.back();
  const auto groups = static_cast<std::int64_t>(offsets.size()) - 1;
  const auto x = normal_of<T>(rows * out, 1), dy = normal_of<T>(rows * out, 3);
  const auto biases = normal_of<B>(groups * out, 2);
  const auto got = run<T, B>(offsets, out, x, biases, dy);
  const auto grads = reference::add_bias_backward(dy, offsets, out);
  // x and the bias may cancel, and so may the terms of a sum.
  const double before_rounding = tol<acc_t<T>>(rows);
  const Mismatch y = compare(to_vector(got[0]), reference::add_bias(x, biases, offsets, out),
                             before_rounding, tol<T>(1));
  INFO("y: " << y);
  REQUIRE(y.count == 0);
  REQUIRE(to_vector(got[1]) == dy);
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    REQUIRE(got[2 + g].dtype() == dtype_of<B>::value);
    const Mismatch db = compare(to_vector(got[2 + g]), part(grads, g, out), before_rounding,
                                std::max(tol<B>(1), tol<acc_t<T>>(1)));
    INFO("bias " << g << ": " << db);
    REQUIRE(db.count == 0);
  }
}

}  // namespace

TEST_CASE("add_bias: values and gradients by hand", "[ops][add_bias]") {
  const auto x = parameter(Tensor<double>({3, 2}, {1, 2, 3, 4, 5, 6}));
  const auto b = parameter(Tensor<double>({2}, {10, 20}));
  const auto y = add_bias(x, b);
  REQUIRE(to_vector(y.value()) == std::vector<double>{11, 22, 13, 24, 15, 26});
  backward(y, Tensor<double>({3, 2}, {1, 2, 4, 8, 16, 32}));
  REQUIRE(to_vector(x.grad()) == std::vector<double>{1, 2, 4, 8, 16, 32});
  REQUIRE(to_vector(b.grad()) == std::vector<double>{21, 42});

  const auto second = parameter(Tensor<double>({2}, {-1, -2}));
  const auto grouped = add_bias(x, {b, second}, {0, 1, 3});
  REQUIRE(to_vector(grouped.value()) == std::vector<double>{11, 22, 2, 2, 4, 4});
}

TEST_CASE("add_bias: the reference gradient matches the complex step", "[ops][add_bias]") {
  const Offsets offsets = {0, 2, 2, 5};
  const auto x = normal(15, 1), biases = normal(9, 2), dy = normal(15, 3);
  const auto of_bias = complex_step_grad(
      [&](const auto& z) { return dot(dy, reference::add_bias(to_complex(x), z, offsets, 3)); },
      biases);
  REQUIRE(compare(reference::add_bias_backward(dy, offsets, 3), of_bias, 1e-14, 1e-14).count == 0);
}

TEMPLATE_TEST_CASE("add_bias: values and gradients match the reference", "[ops][add_bias]", float,
                   bf16, double) {
  using T = TestType;
  const auto offsets =
      GENERATE(Offsets{0, 0}, Offsets{0, 1}, Offsets{0, 67}, Offsets{0, 0, 3, 3, 40, 41, 41});
  const std::int64_t out = GENERATE(1, 5, 16, 33, 130, 300);
  CAPTURE(offsets, out);
  for_each_isa([&] {
    check_against_reference<T, T>(offsets, out);
    check_against_reference<T, float>(offsets, out);
    check_against_reference<T, bf16>(offsets, out);
  });
}

TEST_CASE("add_bias: a bias stored in f16", "[ops][add_bias]") {
  const Var<float> x(Tensor<float>({1, 2}, {1, 2}));
  const AnyVar b(make_tensor<f16>({2}, {0.5, -4}), std::make_shared<Node>());
  const auto y = add_bias(x, b);
  REQUIRE(to_vector(y.value()) == std::vector<double>{1.5, -2});
  backward(y);
  REQUIRE(b.grad().dtype() == DType::f16);
  REQUIRE(to_vector(b.grad()) == std::vector<double>{1, 1});
}

TEST_CASE("add_bias: only the gradients that are wanted", "[ops][add_bias]") {
  const Tensor<float> x({2, 3}, 1.0f), b({3}, 1.0f);
  const auto trained = parameter(b);
  backward(add_bias(Var<float>(x), {AnyVar(b), trained}, {0, 1, 2}));
  REQUIRE(to_vector(trained.grad()) == std::vector<double>{1, 1, 1});
  const auto input = parameter(x);
  backward(add_bias(input, AnyVar(b)));
  REQUIRE(to_vector(input.grad()) == std::vector<double>(6, 1.0));
}

TEMPLATE_TEST_CASE("add_bias: NaN stays NaN", "[ops][add_bias]", float, bf16) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  std::vector<double> x(80, 1.0), dy(80, 1.0);
  x[50] = dy[50] = nan;
  const auto got = run<TestType, TestType>({0, 2}, 40, x, std::vector<double>(40, 1.0), dy);
  for (std::size_t i = 0; i < 80; ++i) REQUIRE(std::isnan(to_vector(got[0])[i]) == (i == 50));
  for (std::size_t i = 0; i < 40; ++i) REQUIRE(std::isnan(to_vector(got[2])[i]) == (i == 10));
}

TEMPLATE_TEST_CASE("add_bias: the number of threads changes no bit", "[ops][add_bias]", float,
                   bf16) {
  const Offsets offsets = {0, 70, 70, 500};
  const auto x = normal(500 * 270, 1), biases = normal(3 * 270, 2), dy = normal(500 * 270, 3);
  require_same_bits_for_any_threads(
      [&] { return run<TestType, float>(offsets, 270, x, biases, dy); });
}

TEST_CASE("add_bias: refuses what does not fit", "[ops][add_bias]") {
  const Var<float> x(Tensor<float>({3, 5}, 1.0f));
  const AnyVar b(Tensor<float>({5}, 1.0f)), narrow(Tensor<float>({4}, 1.0f));
  REQUIRE_THROWS_WITH(add_bias(x, narrow), "add_bias: bias 0 is [4], x is [3, 5]; expected [5]");
  REQUIRE_THROWS_WITH(add_bias(Var<float>(Tensor<float>({5}, 1.0f)), b),
                      "add_bias: x is [5], expected [rows, out]");
  REQUIRE_THROWS_WITH(add_bias(x, {b, b}, {0, 3}), "add_bias: 2 offsets for 2 biases, expected 3");
  REQUIRE_THROWS_WITH(add_bias(x, {b}, {0, 2}), "add_bias: offsets end at 2, x has 3 rows");
  REQUIRE_THROWS_WITH(add_bias(x, {b, b, b}, {0, 2, 1, 3}),
                      "add_bias: offsets fall from 2 to 1 at group 1");
}

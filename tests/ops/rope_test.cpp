// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/reference/rope.hpp>
#include <espalier/ops/rope.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

std::vector<std::int32_t> some_positions(std::int64_t n) {
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < n; ++i)
    positions.push_back(static_cast<std::int32_t>(i * 37 % 4096));
  return positions;
}

template <class T>
std::vector<AnyTensor> run(Shape shape, double theta, const std::vector<double>& x,
                           const std::vector<double>& dy) {  // y, dx
  const auto v = parameter(make_tensor<T>(shape, x));
  const Tensor<std::int32_t> positions({shape[0]}, some_positions(shape[0]));
  const auto y = rope(v, positions, theta);
  backward(y, make_tensor<T>(shape, dy));
  return {y.value(), v.grad()};
}

template <class T>
void check_against_reference(Shape shape, double theta) {
  const auto x = normal_of<T>(shape.numel(), 1), dy = normal_of<T>(shape.numel(), 2);
  const auto positions = some_positions(shape[0]);
  const auto got = run<T>(shape, theta, x, dy);
  const double t = tol<T>(2), sum = tol<acc_t<T>>(2);
  const Mismatch y =
      compare(to_vector(got[0]), reference::rope(x, positions, shape[1], shape[2], theta), sum, t);
  const Mismatch dx = compare(
      to_vector(got[1]), reference::rope(dy, positions, shape[1], shape[2], theta, -1.0), sum, t);
  INFO("y: " << y << "; dx: " << dx);
  REQUIRE(y.count == 0);
  REQUIRE(dx.count == 0);
}

}  // namespace

TEST_CASE("rope: a quarter of a turn by hand, pair (i, i + P/2)", "[ops][rope]") {
  const Var<double> x(Tensor<double>({2, 1, 4}, {1, 2, 3, 4, 1, 2, 3, 4}));
  const auto y = rope(x, Tensor<std::int32_t>({2}, {0, 2}), 1e4).value();
  for (int i = 0; i < 4; ++i) REQUIRE(y[i] == i + 1.0);  // position 0 is left alone
  REQUIRE(std::abs(y[4] - (1 * std::cos(2.0) - 3 * std::sin(2.0))) <= 1e-14);
  REQUIRE(std::abs(y[6] - (3 * std::cos(2.0) + 1 * std::sin(2.0))) <= 1e-14);
  const double slow = static_cast<double>(2 * 0.01f);  // 10000^(-2/4) per position
  REQUIRE(std::abs(y[5] - (2 * std::cos(slow) - 4 * std::sin(slow))) <= 1e-8);
  REQUIRE(std::abs(y[7] - (4 * std::cos(slow) + 2 * std::sin(slow))) <= 1e-8);
}

TEST_CASE("rope: the reference gradient matches the complex step", "[ops][rope]") {
  const auto x = normal(3 * 2 * 6, 1), dy = normal(3 * 2 * 6, 2);
  const auto positions = some_positions(3);
  const auto of_x = complex_step_grad(
      [&](const auto& z) { return dot(dy, reference::rope(z, positions, 2, 6, 1e4)); }, x);
  REQUIRE(compare(reference::rope(dy, positions, 2, 6, 1e4, -1.0), of_x, 1e-15, 1e-14).count == 0);
}

TEMPLATE_TEST_CASE("rope: values and gradients match the reference", "[ops][rope]", float, bf16,
                   double) {
  const Shape shape{GENERATE(0, 1, 5, 130), GENERATE(1, 3), GENERATE(2, 6, 8, 64, 128)};
  const double theta = GENERATE(1e4, 1e6);
  CAPTURE(shape, theta);
  for_each_isa([&] { check_against_reference<TestType>(shape, theta); });
}

TEST_CASE("rope: angles that were used last do not reach other positions", "[ops][rope]") {
  const Shape shape{3, 1, 4};
  const Var<double> x(make_tensor<double>(shape, normal(12, 1)));
  Tensor<std::int32_t> positions({3}, {0, 1, 2});
  for (int step = 0; step < 3; ++step) {
    positions[1] += 7 * step;  // in place: the same memory, other positions
    for (const double theta : {1e4, 1e4, 1e6}) {
      const std::vector<std::int32_t> p(positions.data(), positions.data() + 3);
      const auto want = reference::rope(normal(12, 1), p, 1, 4, theta);
      REQUIRE(compare(to_vector(rope(x, positions, theta).value()), want, 1e-14, 0).count == 0);
    }
  }
}

TEST_CASE("rope: keeps the length of every pair", "[ops][rope]") {
  const auto got = run<double>({50, 2, 16}, 1e4, normal(1600, 1), normal(1600, 2));
  const auto y = to_vector(got[0]), x = normal(1600, 1);
  for (std::size_t head = 0; head < 100; ++head) {
    for (std::size_t i = head * 16; i < head * 16 + 8; ++i) {
      REQUIRE(std::abs(std::hypot(y[i], y[i + 8]) - std::hypot(x[i], x[i + 8])) <= 1e-13);
    }
  }
}

TEMPLATE_TEST_CASE("rope: the number of threads changes no bit", "[ops][rope]", float, bf16) {
  const auto x = normal(3000 * 3 * 8, 1), dy = normal(3000 * 3 * 8, 2);
  require_same_bits_for_any_threads([&] { return run<TestType>({3000, 3, 8}, 1e4, x, dy); });
}

TEST_CASE("rope: refuses odd heads and missing positions", "[ops][rope]") {
  const Tensor<std::int32_t> positions({2}, {0, 1});
  REQUIRE_THROWS_WITH(rope(Var<float>(Tensor<float>({2, 1, 3}, 1.0f)), positions, 1e4),
                      "rope: x is [2, 1, 3], expected [tokens, heads, even head dim]");
  REQUIRE_THROWS_WITH(rope(Var<float>(Tensor<float>({3, 1, 4}, 1.0f)), positions, 1e4),
                      "rope: positions is [2], x is [3, 1, 4]; expected [3]");
  REQUIRE_THROWS_WITH(rope(Var<float>(Tensor<float>({2, 1, 4}, 1.0f)), positions, 0.0),
                      "rope: theta is 0, expected a positive number");
}

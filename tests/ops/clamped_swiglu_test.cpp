// SPDX-License-Identifier: Apache-2.0
#include <algorithm>

#include <espalier/ops/clamped_swiglu.hpp>
#include <espalier/ops/reference/clamp.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr double kAlpha = 1.702;

template <class T>
std::vector<AnyTensor> run(Shape shape, const std::vector<double>& gate,
                           const std::vector<double>& up, const std::vector<double>& dy,
                           double alpha = kAlpha, double limit = 7) {
  const auto g = parameter(make_tensor<T>(shape, gate)), u = parameter(make_tensor<T>(shape, up));
  const auto y = clamped_swiglu(g, u, alpha, limit);
  backward(y, make_tensor<T>(shape, dy));
  return {y.value(), g.grad(), u.grad()};
}

template <class T>
void check_against_reference(Shape shape, double scale) {
  const std::int64_t n = shape.numel();
  const auto gate = normal_of<T>(n, 1, scale), up = normal_of<T>(n, 2, scale);
  const auto dy = normal_of<T>(n, 3);
  const auto got = run<T>(shape, gate, up, dy);
  const auto want = reference::clamped_swiglu(gate, up, kAlpha, 7);
  const auto grads = reference::clamped_swiglu_backward(dy, gate, up, kAlpha, 7);
  const double t = tol<T>(1), before_rounding = tol<acc_t<T>>(1);
  // alpha · gate is rounded before the sigmoid, whose relative error far out grows with it; and the
  // derivative is a difference near its zero: absolute errors in units of |dy · (up + 1)|.
  const Mismatch y = compare(to_vector(got[0]), want, 8 * before_rounding, t);
  const Mismatch dgate = compare(to_vector(got[1]), grads.dgate, 32 * before_rounding, t);
  const Mismatch dup = compare(to_vector(got[2]), grads.dup, 8 * before_rounding, t);
  INFO("y: " << y << "; dgate: " << dgate << "; dup: " << dup);
  REQUIRE(y.count == 0);
  REQUIRE(dgate.count == 0);
  REQUIRE(dup.count == 0);
}

}  // namespace

TEST_CASE("clamped_swiglu: values by hand", "[ops][clamped_swiglu]") {
  const double third = std::log(3.0);  // sigmoid(log 3) = 3/4
  const auto got = run<double>({1, 4}, {third, 9, 0, third}, {1, 3, 5, -8}, {1, 1, 1, 1}, 1, 4);
  const double large = 4 / (1 + std::exp(-4.0));
  const std::vector<double> want = {1.5 * third, 4 * large, 0, -2.25 * third};
  REQUIRE(compare(to_vector(got[0]), want, 0, 1e-15).count == 0);
}

// From torch 2.15 in float64, with clamp(max=7) of the gate and clamp(-7, 7) of up.
TEST_CASE("clamped_swiglu: as gpt-oss computes it with torch", "[ops][clamped_swiglu]") {
  const auto got = run<double>({6}, {1, -2, 7.5, 8, -9, 0.5}, {0.5, -6.5, 6.5, -8, 9, 3},
                               std::vector<double>(6, 1.0));
  const std::vector<double> y = {1.268693648899232,  0.3538775727068552,     52.499648462274884,
                                 -41.99971876981991, -1.602542389246808e-05, 1.4015537464255206};
  const std::vector<double> dgate = {1.6016694098345012,    0.4059844486969807, 0, 0,
                                     -2.54946627394594e-05, 3.5168876478616573};
  const std::vector<double> dup = {
      0.8457957659328212, -0.06434137685579186, 6.999953128303318, 0, 0, 0.35038843660638014};
  REQUIRE(compare(to_vector(got[0]), y, 0, 1e-14).count == 0);
  REQUIRE(compare(to_vector(got[1]), dgate, 0, 1e-14).count == 0);
  REQUIRE(compare(to_vector(got[2]), dup, 0, 1e-14).count == 0);
}

TEST_CASE("clamped_swiglu: the reference gradient matches the complex step",
          "[ops][clamped_swiglu]") {
  const auto gate = normal(40, 1, 6.0), up = normal(40, 2, 6.0), dy = normal(40, 3);
  const auto grads = reference::clamped_swiglu_backward(dy, gate, up, kAlpha, 7);
  const auto of_gate = complex_step_grad(
      [&](const auto& z) {
        return dot(dy, reference::clamped_swiglu(z, to_complex(up), kAlpha, 7));
      },
      gate);
  const auto of_up = complex_step_grad(
      [&](const auto& z) {
        return dot(dy, reference::clamped_swiglu(to_complex(gate), z, kAlpha, 7));
      },
      up);
  REQUIRE(std::count(grads.dgate.begin(), grads.dgate.end(), 0.0) > 0);
  REQUIRE(std::count(grads.dup.begin(), grads.dup.end(), 0.0) > 0);
  REQUIRE(compare(grads.dgate, of_gate, 1e-13, 1e-12).count == 0);
  REQUIRE(compare(grads.dup, of_up, 1e-13, 1e-12).count == 0);
}

TEMPLATE_TEST_CASE("clamped_swiglu: values and gradients match the reference",
                   "[ops][clamped_swiglu]", float, bf16, double) {
  const Shape shape{GENERATE(0, 1, 3, 64), GENERATE(1, 5, 16, 33, 700)};
  CAPTURE(shape);
  for_each_isa([&] { check_against_reference<TestType>(shape, 4.0); });
}

TEST_CASE("clamped_swiglu: gradients pass at the limits themselves", "[ops][clamped_swiglu]") {
  const auto got = run<float>({3}, {7, 1, 1}, {1, 7, -7}, {1, 1, 1});
  const auto want =
      reference::clamped_swiglu_backward<double>({1, 1, 1}, {7, 1, 1}, {1, 7, -7}, kAlpha, 7);
  REQUIRE(want.dgate[0] > 1.9);
  REQUIRE(want.dup[1] > 0.8);
  REQUIRE(compare(to_vector(got[1]), want.dgate, 0, tol<float>(1)).count == 0);
  REQUIRE(compare(to_vector(got[2]), want.dup, 0, tol<float>(1)).count == 0);
}

TEST_CASE("clamped_swiglu: gates far out do not overflow", "[ops][clamped_swiglu]") {
  const auto got = run<float>({1, 3}, {1e4, -1e4, -0.0}, {2, 2, 2}, {1, 1, 1});
  const auto y = to_vector(got[0]), dgate = to_vector(got[1]);
  REQUIRE((std::abs(y[0] - 21) <= 1e-3 && std::abs(y[1]) <= 1e-30 && y[2] == 0));
  REQUIRE((dgate[0] == 0 && std::abs(dgate[1]) <= 1e-30 && dgate[2] == 1.5));
}

TEMPLATE_TEST_CASE("clamped_swiglu: NaN stays NaN", "[ops][clamped_swiglu]", float, bf16) {
  const std::vector<double> nan(40, std::numeric_limits<double>::quiet_NaN()), ones(40, 1.0);
  for (const bool in_gate : {true, false}) {
    const auto got = run<TestType>({1, 40}, in_gate ? nan : ones, in_gate ? ones : nan, ones);
    for (const double y : to_vector(got[0])) REQUIRE(std::isnan(y));
    // The clamp of a NaN has no gradient; what it multiplies has a NaN.
    for (const double dgate : to_vector(got[1]))
      REQUIRE((in_gate ? dgate == 0 : std::isnan(dgate)));
    for (const double dup : to_vector(got[2])) REQUIRE((in_gate ? std::isnan(dup) : dup == 0));
  }
}

TEMPLATE_TEST_CASE("clamped_swiglu: the number of threads changes no bit", "[ops][clamped_swiglu]",
                   float, bf16) {
  const auto gate = normal(100001, 1), up = normal(100001, 2), dy = normal(100001, 3);
  require_same_bits_for_any_threads([&] { return run<TestType>({1, 100001}, gate, up, dy); });
}

TEST_CASE("clamped_swiglu: refuses unequal shapes and a negative limit", "[ops][clamped_swiglu]") {
  const Var<float> gate(Tensor<float>({4, 8}, 1.0f)), up(Tensor<float>({4, 9}, 1.0f));
  REQUIRE_THROWS_WITH(clamped_swiglu(gate, up),
                      "clamped_swiglu: gate is [4, 8], up is [4, 9]; expected equal shapes");
  REQUIRE_THROWS_WITH(clamped_swiglu(gate, gate, 1, -7),
                      "clamped_swiglu: limit is -7, expected at least 0");
}

// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/reference/swiglu.hpp>
#include <espalier/ops/swiglu.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

template <class T>
std::vector<AnyTensor> run(Shape shape, const std::vector<double>& gate,
                           const std::vector<double>& up, const std::vector<double>& dy) {
  const auto g = parameter(make_tensor<T>(shape, gate)), u = parameter(make_tensor<T>(shape, up));
  const auto y = swiglu(g, u);
  backward(y, make_tensor<T>(shape, dy));
  return {y.value(), g.grad(), u.grad()};
}

template <class T>
void check_against_reference(Shape shape, double scale) {
  const auto gate = normal_of<T>(shape.numel(), 1, scale), up = normal_of<T>(shape.numel(), 2);
  const auto dy = normal_of<T>(shape.numel(), 3);
  const auto got = run<T>(shape, gate, up, dy);
  const auto grads = reference::swiglu_backward(dy, gate, up);
  const double t = tol<T>(1), before_rounding = tol<acc_t<T>>(1);
  // The derivative of silu is a difference near its zero: absolute error in units of |dy * up|.
  const Mismatch y = compare(to_vector(got[0]), reference::swiglu(gate, up), 1e-37, t);
  const Mismatch dgate = compare(to_vector(got[1]), grads.dgate, 8 * before_rounding * scale, t);
  const Mismatch dup = compare(to_vector(got[2]), grads.dup, 1e-37, t);
  INFO("y: " << y << "; dgate: " << dgate << "; dup: " << dup);
  REQUIRE(y.count == 0);
  REQUIRE(dgate.count == 0);
  REQUIRE(dup.count == 0);
}

}  // namespace

TEST_CASE("swiglu: values by hand", "[ops][swiglu]") {
  const Var<double> gate(Tensor<double>({1, 2}, {0.0, std::log(3.0)}));
  const Var<double> up(Tensor<double>({1, 2}, {5.0, 4.0}));
  const auto y = swiglu(gate, up).value();  // sigmoid(log 3) = 3/4
  REQUIRE(y[0] == 0.0);
  REQUIRE(std::abs(y[1] - 3.0 * std::log(3.0)) <= 1e-14);
}

TEST_CASE("swiglu: the reference gradient matches the complex step", "[ops][swiglu]") {
  const auto gate = normal(9, 1, 3.0), up = normal(9, 2), dy = normal(9, 3);
  const auto grads = reference::swiglu_backward(dy, gate, up);
  const auto of_gate = complex_step_grad(
      [&](const auto& z) { return dot(dy, reference::swiglu(z, to_complex(up))); }, gate);
  const auto of_up = complex_step_grad(
      [&](const auto& z) { return dot(dy, reference::swiglu(to_complex(gate), z)); }, up);
  REQUIRE(compare(grads.dgate, of_gate, 1e-14, 1e-13).count == 0);
  REQUIRE(compare(grads.dup, of_up, 1e-14, 1e-13).count == 0);
}

TEMPLATE_TEST_CASE("swiglu: values and gradients match the reference", "[ops][swiglu]", float, bf16,
                   double) {
  const Shape shape{GENERATE(0, 1, 3, 64), GENERATE(1, 5, 16, 33, 700)};
  CAPTURE(shape);
  for_each_isa([&] { check_against_reference<TestType>(shape, 2.0); });
}

TEMPLATE_TEST_CASE("swiglu: gates far out keep their precision", "[ops][swiglu]", float, bf16) {
  for_each_isa([&] { check_against_reference<TestType>({1, 4097}, 25.0); });
}

TEST_CASE("swiglu: gates far out do not overflow", "[ops][swiglu]") {
  const Var<float> gate(Tensor<float>({1, 5}, {1e4f, -1e4f, -0.0f, 88.0f, -88.0f}));
  const auto y = swiglu(gate, Var<float>(Tensor<float>({1, 5}, 1.0f))).value();
  REQUIRE(y[0] == 1e4f);
  REQUIRE(std::abs(y[1]) <= 1e-30f);
  REQUIRE(y[2] == 0.0f);
  REQUIRE(y[3] == 88.0f);
  REQUIRE(std::abs(y[4]) <= 1e-30f);
  const auto extreme = run<float>({1, 2}, {1e4, -1e4}, {1, 1}, {1, 1});
  REQUIRE(Tensor<float>(extreme[1])[0] == 1.0f);
  REQUIRE(std::abs(Tensor<float>(extreme[1])[1]) <= 1e-30f);
}

TEMPLATE_TEST_CASE("swiglu: NaN stays NaN", "[ops][swiglu]", float, bf16) {
  const std::vector<double> nan(40, std::numeric_limits<double>::quiet_NaN()), ones(40, 1.0);
  for (const bool in_gate : {true, false}) {
    const auto got = run<TestType>({1, 40}, in_gate ? nan : ones, in_gate ? ones : nan, ones);
    for (const double y : to_vector(got[0])) REQUIRE(std::isnan(y));
    for (const double dgate : to_vector(got[1])) REQUIRE(std::isnan(dgate));
    for (const double dup : to_vector(got[2])) REQUIRE(std::isnan(dup) == in_gate);
  }
}

TEMPLATE_TEST_CASE("swiglu: the number of threads changes no bit", "[ops][swiglu]", float, bf16) {
  const auto gate = normal(100001, 1), up = normal(100001, 2), dy = normal(100001, 3);
  require_same_bits_for_any_threads([&] { return run<TestType>({1, 100001}, gate, up, dy); });
}

TEST_CASE("swiglu: refuses unequal shapes", "[ops][swiglu]") {
  const Var<float> gate(Tensor<float>({4, 8}, 1.0f)), up(Tensor<float>({4, 9}, 1.0f));
  REQUIRE_THROWS_WITH(swiglu(gate, up),
                      "swiglu: gate is [4, 8], up is [4, 9]; expected equal shapes");
}

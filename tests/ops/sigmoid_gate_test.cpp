// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/reference/sigmoid_gate.hpp>
#include <espalier/ops/sigmoid_gate.hpp>

#include <limits>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

template <class T>
std::vector<AnyTensor> run(Shape shape, const std::vector<double>& x,
                           const std::vector<double>& gate, const std::vector<double>& dy) {
  const auto vx = parameter(make_tensor<T>(shape, x));
  const auto vg = parameter(make_tensor<T>({shape[0], 1}, gate));
  const auto y = sigmoid_gate(vx, vg);
  backward(y, make_tensor<T>(shape, dy));
  return {y.value(), vx.grad(), vg.grad()};
}

}  // namespace

TEST_CASE("sigmoid_gate: values and gradients by hand", "[ops][sigmoid_gate]") {
  // sigmoid(0) = 1/2, sigmoid(log 3) = 3/4.
  const auto got = run<double>({2, 2}, {2, 4, 8, 16}, {0, std::log(3.0)}, {1, 1, 1, 2});
  REQUIRE(compare(to_vector(got[0]), std::vector<double>{1, 2, 6, 12}, 0, 1e-15).count == 0);
  REQUIRE(compare(to_vector(got[1]), std::vector<double>{0.5, 0.5, 0.75, 1.5}, 0, 1e-15).count ==
          0);
  REQUIRE(compare(to_vector(got[2]), std::vector<double>{1.5, 7.5}, 0, 1e-15).count == 0);
}

TEST_CASE("sigmoid_gate: the reference gradients match the complex step", "[ops][sigmoid_gate]") {
  const auto x = normal(12, 1), gate = normal(3, 2, 2.0), dy = normal(12, 3);
  const auto grads = reference::sigmoid_gate_backward(dy, x, gate);
  const auto of_x = complex_step_grad(
      [&](const auto& z) { return dot(dy, reference::sigmoid_gate(z, to_complex(gate))); }, x);
  const auto of_gate = complex_step_grad(
      [&](const auto& z) { return dot(dy, reference::sigmoid_gate(to_complex(x), z)); }, gate);
  REQUIRE(compare(grads.dx, of_x, 1e-14, 1e-13).count == 0);
  REQUIRE(compare(grads.dgate, of_gate, 1e-14, 1e-13).count == 0);
}

TEMPLATE_TEST_CASE("sigmoid_gate: values and gradients match the reference", "[ops][sigmoid_gate]",
                   float, bf16, double) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 3, 70), h = GENERATE(1, 5, 16, 33, 700);
  const double spread = GENERATE(1.0, 12.0);
  CAPTURE(n, h, spread);
  const auto x = normal_of<T>(n * h, 1), gate = normal_of<T>(n, 2, spread);
  const auto dy = normal_of<T>(n * h, 3);
  const auto grads = reference::sigmoid_gate_backward(dy, x, gate);
  for_each_isa([&] {
    const auto got = run<T>({n, h}, x, gate, dy);
    const double t = tol<T>(1), before_rounding = tol<acc_t<T>>(h);
    const Mismatch y = compare(to_vector(got[0]), reference::sigmoid_gate(x, gate), 1e-37, t);
    const Mismatch dx = compare(to_vector(got[1]), grads.dx, 1e-37, t);
    const Mismatch dgate = compare(to_vector(got[2]), grads.dgate, before_rounding, t);
    INFO("y: " << y << "; dx: " << dx << "; dgate: " << dgate);
    REQUIRE(y.count == 0);
    REQUIRE(dx.count == 0);
    REQUIRE(dgate.count == 0);
  });
}

TEST_CASE("sigmoid_gate: gates far out neither overflow nor lose the gradient",
          "[ops][sigmoid_gate]") {
  const auto got = run<float>({3, 1}, {3, 3, 3}, {1e4, -1e4, -30}, {1, 1, 1});
  const auto y = to_vector(got[0]), dgate = to_vector(got[2]);
  REQUIRE((y[0] == 3 && y[1] == 0));
  REQUIRE((dgate[0] == 0 && dgate[1] == 0));
  REQUIRE(std::abs(dgate[2] - 3 * std::exp(-30.0)) <= 1e-6 * std::exp(-30.0) * 3);
}

TEST_CASE("sigmoid_gate: only the gradients that are wanted", "[ops][sigmoid_gate]") {
  const Tensor<float> x({1, 2}, 2.0f), gate({1, 1}, 0.0f);
  const auto vx = parameter(x), vg = parameter(gate);
  backward(sigmoid_gate(vx, Var<float>(gate)));
  REQUIRE(to_vector(vx.grad()) == std::vector<double>{0.5, 0.5});
  backward(sigmoid_gate(Var<float>(x), vg));
  REQUIRE(to_vector(vg.grad()) == std::vector<double>{1.0});
}

TEMPLATE_TEST_CASE("sigmoid_gate: NaN stays NaN", "[ops][sigmoid_gate]", float, bf16) {
  const std::vector<double> nan(40, std::numeric_limits<double>::quiet_NaN()), ones(40, 1.0);
  const auto of_gate = run<TestType>({1, 40}, ones, {nan[0]}, ones);
  for (const AnyTensor& t : of_gate) {
    for (const double v : to_vector(t)) REQUIRE(std::isnan(v));
  }
  const auto of_x = run<TestType>({1, 40}, nan, {1.0}, ones);
  for (const double v : to_vector(of_x[0])) REQUIRE(std::isnan(v));
  REQUIRE(std::isnan(to_vector(of_x[2])[0]));
}

TEMPLATE_TEST_CASE("sigmoid_gate: the number of threads changes no bit", "[ops][sigmoid_gate]",
                   float, bf16) {
  const auto x = normal(300 * 130, 1), gate = normal(300, 2), dy = normal(300 * 130, 3);
  require_same_bits_for_any_threads([&] { return run<TestType>({300, 130}, x, gate, dy); });
}

TEST_CASE("sigmoid_gate: refuses another number of gates", "[ops][sigmoid_gate]") {
  const Var<float> x(Tensor<float>({4, 8}, 1.0f)), gate(Tensor<float>({4, 2}, 1.0f));
  REQUIRE_THROWS_WITH(
      sigmoid_gate(x, gate),
      "sigmoid_gate: x is [4, 8], gate is [4, 2]; expected x [N, H] and gate [N, 1]");
}

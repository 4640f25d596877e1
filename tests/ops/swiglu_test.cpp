// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/reference/swiglu.hpp>
#include <espalier/ops/swiglu.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

struct Outcome {
  AnyTensor y, dgate, dup;
};

template <class T>
Outcome run(Shape shape, const std::vector<double>& gate, const std::vector<double>& up,
            const std::vector<double>& dy) {
  const auto g = parameter(make_tensor<T>(shape, gate)), u = parameter(make_tensor<T>(shape, up));
  const auto y = swiglu(g, u);
  backward(y, make_tensor<T>(shape, dy));
  return {y.value(), g.grad(), u.grad()};
}

template <class T>
void check_against_reference(Shape shape, double scale) {
  const auto gate = normal(shape.numel(), 1, scale), up = normal(shape.numel(), 2);
  const auto dy = normal(shape.numel(), 3);
  const Outcome got = run<T>(shape, gate, up, dy);
  const auto grads = reference::swiglu_backward(dy, gate, up);
  const double t = tol(dtype_of<T>::value, 1);
  // The derivative of silu is a difference near its zero: absolute error in units of |dy * up|.
  const Mismatch y = compare(to_vector(got.y), reference::swiglu(gate, up), 1e-37, t);
  const Mismatch dgate = compare(to_vector(got.dgate), grads.dgate, 8 * t * scale, t);
  const Mismatch dup = compare(to_vector(got.dup), grads.dup, 1e-37, t);
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

TEST_CASE("swiglu: values and gradients match the reference", "[ops][swiglu]") {
  const Shape shape{GENERATE(0, 1, 3, 64), GENERATE(1, 5, 16, 33, 700)};
  CAPTURE(shape);
  check_against_reference<float>(shape, 2.0);
  check_against_reference<double>(shape, 2.0);
}

TEST_CASE("swiglu: gates far out neither overflow nor lose precision", "[ops][swiglu]") {
  check_against_reference<float>({1, 4097}, 25.0);
  const Var<float> gate(Tensor<float>({1, 5}, {1e4f, -1e4f, -0.0f, 88.0f, -88.0f}));
  const auto y = swiglu(gate, Var<float>(Tensor<float>({1, 5}, 1.0f))).value();
  REQUIRE(y[0] == 1e4f);
  REQUIRE(std::abs(y[1]) <= 1e-30f);
  REQUIRE(y[2] == 0.0f);
  REQUIRE(y[3] == 88.0f);
  REQUIRE(std::abs(y[4]) <= 1e-30f);
  const auto extreme = run<float>({1, 2}, {1e4, -1e4}, {1, 1}, {1, 1});
  REQUIRE(Tensor<float>(extreme.dgate)[0] == 1.0f);
  REQUIRE(std::abs(Tensor<float>(extreme.dgate)[1]) <= 1e-30f);
}

TEST_CASE("swiglu: NaN stays NaN", "[ops][swiglu]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Var<float> gate(Tensor<float>({1, 40}, nan)), up(Tensor<float>({1, 40}, 1.0f));
  for (const float y : swiglu(gate, up).value().span()) REQUIRE(std::isnan(y));
  for (const float y : swiglu(up, gate).value().span()) REQUIRE(std::isnan(y));
}

TEST_CASE("swiglu: the number of threads changes no bit", "[ops][swiglu]") {
  const auto gate = normal(100001, 1), up = normal(100001, 2), dy = normal(100001, 3);
  const int before = num_threads();
  set_num_threads(1);
  const Outcome one = run<float>({1, 100001}, gate, up, dy);
  for (const int threads : {2, 3}) {
    set_num_threads(threads);
    const Outcome more = run<float>({1, 100001}, gate, up, dy);
    REQUIRE(same_bits(one.y, more.y));
    REQUIRE(same_bits(one.dgate, more.dgate));
    REQUIRE(same_bits(one.dup, more.dup));
  }
  set_num_threads(before);
}

TEST_CASE("swiglu: refuses unequal shapes", "[ops][swiglu]") {
  const Var<float> gate(Tensor<float>({4, 8}, 1.0f)), up(Tensor<float>({4, 9}, 1.0f));
  REQUIRE_THROWS_WITH(swiglu(gate, up),
                      "swiglu: gate is [4, 8], up is [4, 9]; expected equal shapes");
}

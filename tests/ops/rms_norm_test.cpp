// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/reference/rms_norm.hpp>
#include <espalier/ops/rms_norm.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr float kEps = 1e-5f;

template <class T>
struct Case {
  std::int64_t n, h;
  std::vector<double> x = normal_of<T>(n * h, 1), w = normal(h, 2), dy = normal_of<T>(n * h, 3);
};

template <class T>
std::vector<AnyTensor> run(const Case<T>& c) {  // y, dx, dw
  const auto x = parameter(make_tensor<T>({c.n, c.h}, c.x));
  const auto w = parameter(make_tensor<acc_t<T>>({c.h}, c.w));
  const auto y = rms_norm(x, w, kEps);
  backward(y, make_tensor<T>({c.n, c.h}, c.dy));
  return {y.value(), x.grad(), w.grad()};
}

template <class T>
void check_against_reference(const Case<T>& c) {
  const auto got = run(c);
  REQUIRE(got[1].dtype() == dtype_of<T>::value);
  REQUIRE(got[2].dtype() == dtype_of<acc_t<T>>::value);
  const auto want = reference::rms_norm(c.x, c.w, kEps);
  const auto grads = reference::rms_norm_backward(c.dy, c.x, c.w, kEps);
  const double t = tol<T>(c.h);
  const double sum = tol<acc_t<T>>(c.h), sum_n = tol<acc_t<T>>(c.n);  // before a result is rounded
  const Mismatch y = compare(to_vector(got[0]), want, sum, t);
  // dx is a difference of two terms that nearly cancel in a row of one: its error is in units of
  // the terms, which the largest gradient bounds from below.
  double term = 1;
  for (const double g : grads.dx) term = std::max(term, std::abs(g));
  const Mismatch dx = compare(to_vector(got[1]), grads.dx, 4 * sum * term, t);
  const Mismatch dw = compare(to_vector(got[2]), grads.dw, 4 * (sum + sum_n), sum + sum_n);
  INFO("y: " << y << "; dx: " << dx << "; dw: " << dw);
  REQUIRE(y.count == 0);
  REQUIRE(dx.count == 0);
  REQUIRE(dw.count == 0);
}

}  // namespace

TEST_CASE("rms_norm: a row by hand", "[ops][rms_norm]") {
  const Var<double> x(Tensor<double>({1, 2}, {3.0, 4.0}));
  const AnyVar w(Tensor<double>({2}, {1.0, 2.0}));
  const auto y = rms_norm(x, w, 0.0f).value();  // rms = sqrt(12.5)
  REQUIRE(std::abs(y[0] - 3.0 / std::sqrt(12.5)) <= 1e-15);
  REQUIRE(std::abs(y[1] - 8.0 / std::sqrt(12.5)) <= 1e-15);
}

TEST_CASE("rms_norm: the reference gradient matches the complex step", "[ops][rms_norm]") {
  const Case<double> c{GENERATE(1, 3), GENERATE(1, 7, 12)};
  CAPTURE(c.n, c.h);
  const auto grads = reference::rms_norm_backward(c.dy, c.x, c.w, kEps);
  const auto of_x = complex_step_grad(
      [&](const auto& z) { return dot(c.dy, reference::rms_norm(z, to_complex(c.w), kEps)); }, c.x);
  const auto of_w = complex_step_grad(
      [&](const auto& z) { return dot(c.dy, reference::rms_norm(to_complex(c.x), z, kEps)); }, c.w);
  const Mismatch dx = compare(grads.dx, of_x, 1e-13, 1e-12);
  const Mismatch dw = compare(grads.dw, of_w, 1e-13, 1e-12);
  INFO("dx: " << dx << "; dw: " << dw);
  REQUIRE(dx.count == 0);
  REQUIRE(dw.count == 0);
}

TEMPLATE_TEST_CASE("rms_norm: values and gradients match the reference", "[ops][rms_norm]", float,
                   bf16, double) {
  const Case<TestType> c{GENERATE(0, 1, 5, 131), GENERATE(1, 7, 16, 33, 100, 576)};
  CAPTURE(c.n, c.h);
  for_each_isa([&] { check_against_reference(c); });
}

TEMPLATE_TEST_CASE("rms_norm: a long row keeps its accuracy", "[ops][rms_norm]", float, bf16) {
  check_against_reference<TestType>({3, 20011});
}

TEST_CASE("rms_norm: the weight may be stored in two bytes", "[ops][rms_norm]") {
  const Case<float> c{4, 37};
  const auto stored = make_tensor<bf16>({c.h}, c.w);
  const auto x = parameter(make_tensor<float>({c.n, c.h}, c.x));
  const auto y = rms_norm(x, AnyVar(stored), kEps);
  backward(y, make_tensor<float>({c.n, c.h}, c.dy));
  const auto w = to_vector(stored);
  const double t = tol(DType::f32, c.h);
  const Mismatch value = compare(to_vector(y.value()), reference::rms_norm(c.x, w, kEps), t, t);
  const Mismatch dx =
      compare(to_vector(x.grad()), reference::rms_norm_backward(c.dy, c.x, w, kEps).dx, 4 * t, t);
  INFO("y: " << value << "; dx: " << dx);
  REQUIRE(value.count == 0);
  REQUIRE(dx.count == 0);
}

TEMPLATE_TEST_CASE("rms_norm: the number of threads changes no bit", "[ops][rms_norm]", float,
                   bf16) {
  const Case<TestType> c{401, 65};
  require_same_bits_for_any_threads([&] { return run(c); });
}

TEST_CASE("rms_norm: a frozen input or weight costs no gradient", "[ops][rms_norm]") {
  const Case<float> c{70, 33};
  const auto both = run(c);
  const auto x = make_tensor<float>({c.n, c.h}, c.x), dy = make_tensor<float>({c.n, c.h}, c.dy);
  const auto w = make_tensor<float>({c.h}, c.w);
  const auto only_x = parameter(x.clone());
  backward(rms_norm(only_x, AnyVar(w), kEps), dy.clone());
  REQUIRE(same_bits(only_x.grad(), both[1]));
  const auto only_w = parameter(w.clone());
  backward(rms_norm(Var<float>(x), only_w, kEps), dy.clone());
  REQUIRE(same_bits(only_w.grad(), both[2]));
}

TEST_CASE("rms_norm: rows of zeros and NaN", "[ops][rms_norm]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Var<float> x(Tensor<float>({2, 2}, {0.0f, -0.0f, nan, 1.0f}));
  const auto y = rms_norm(x, AnyVar(Tensor<float>({2}, 1.0f)), kEps).value();
  REQUIRE(y[0] == 0.0f);
  REQUIRE(y[1] == 0.0f);
  REQUIRE(std::isnan(y[2]));
  REQUIRE(std::isnan(y[3]));
}

TEST_CASE("rms_norm: refuses what does not fit, with both shapes", "[ops][rms_norm]") {
  const Var<float> x(Tensor<float>({2, 3}, 1.0f));
  REQUIRE_THROWS_WITH(rms_norm(x, AnyVar(Tensor<float>({4}, 1.0f)), kEps),
                      "rms_norm: w is [4], x is [2, 3]; expected w [3]");
  REQUIRE_THROWS_AS(rms_norm(x, AnyVar(Tensor<std::int32_t>({3}, 1)), kEps), DTypeError);
  REQUIRE_THROWS_WITH(rms_norm(x, parameter(make_tensor<bf16>({3}, {1, 1, 1})), kEps),
                      "rms_norm: w is bf16 and wants a gradient; only f32 weights can be trained");
  REQUIRE_THROWS_WITH(rms_norm(Var<bf16>(make_tensor<bf16>({1, 3}, {1, 1, 1})),
                               parameter(make_tensor<bf16>({3}, {1, 1, 1})), kEps),
                      "rms_norm: w is bf16 and wants a gradient; only f32 weights can be trained");
}

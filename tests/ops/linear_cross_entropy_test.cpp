// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include <espalier/ops/linear_cross_entropy.hpp>
#include <espalier/ops/reference/linear_cross_entropy.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

struct Case {
  std::int64_t n, h, v;
  double scale = 1;
  std::vector<double> x = normal(n * h, 1, scale), w = normal(v * h, 2);
  std::vector<std::int32_t> targets = [this] {
    std::vector<std::int32_t> t;
    for (std::int64_t i = 0; i < n; ++i) {  // every third row does not count
      t.push_back(i % 3 == 1 ? -1 : static_cast<std::int32_t>(i * 7919 % v));
    }
    return t;
  }();

  Tensor<std::int32_t> target_tensor() const { return {{n}, targets}; }
};

struct Outcome {
  AnyTensor loss, dx, dw;
};

template <class T>
Outcome run(const Case& c, double dy = 1) {
  const auto x = parameter(make_tensor<T>({c.n, c.h}, c.x));
  const auto w = parameter(make_tensor<T>({c.v, c.h}, c.w));
  const auto loss = linear_cross_entropy(x, w, c.target_tensor());
  backward(loss, make_tensor<T>({1}, {dy}));
  return {loss.value(), x.grad(), w.grad()};
}

template <class T>
void check_against_reference(const Case& c) {
  constexpr double kDy = 0.375;
  const Outcome got = run<T>(c, kDy);
  const double want = reference::linear_cross_entropy(c.x, c.w, c.targets, c.h);
  const auto grads = reference::linear_cross_entropy_backward(kDy, c.x, c.w, c.targets, c.h);
  // A logit is a sum of H terms of size `scale`; its error is the exponent's.
  const double t = tol(dtype_of<T>::value, c.h) * (1 + c.scale * std::sqrt(c.h));
  const double rows = std::sqrt(static_cast<double>(c.n + 1));
  const Mismatch loss =
      compare(to_vector(got.loss), std::vector<double>{want}, t * rows, tol(dtype_of<T>::value, 1));
  const Mismatch dx = compare(to_vector(got.dx), grads.dx, 4 * t, t);
  const Mismatch dw = compare(to_vector(got.dw), grads.dw, 4 * t * rows, t);
  INFO("loss: " << loss << "; dx: " << dx << "; dw: " << dw);
  REQUIRE(loss.count == 0);
  REQUIRE(dx.count == 0);
  REQUIRE(dw.count == 0);
}

}  // namespace

TEST_CASE("linear_cross_entropy: a row by hand", "[ops][linear_cross_entropy]") {
  const Var<double> x(Tensor<double>({1, 1}, {1.0}));
  const AnyVar w(Tensor<double>({3, 1}, {std::log(1.0), std::log(2.0), std::log(5.0)}));
  const Tensor<std::int32_t> targets({1}, 2);  // probability 5/8
  REQUIRE(std::abs(linear_cross_entropy(x, w, targets).value()[0] - std::log(1.6)) <= 1e-14);
}

TEST_CASE("linear_cross_entropy: the reference gradient matches the complex step",
          "[ops][linear_cross_entropy]") {
  const Case c{5, 3, 7};
  const auto grads = reference::linear_cross_entropy_backward(1.0, c.x, c.w, c.targets, c.h);
  const auto x = to_complex(c.x), w = to_complex(c.w);
  const auto of_x = complex_step_grad(
      [&](const auto& z) { return reference::linear_cross_entropy(z, w, c.targets, c.h); }, c.x);
  const auto of_w = complex_step_grad(
      [&](const auto& z) { return reference::linear_cross_entropy(x, z, c.targets, c.h); }, c.w);
  REQUIRE(compare(grads.dx, of_x, 1e-14, 1e-12).count == 0);
  REQUIRE(compare(grads.dw, of_w, 1e-14, 1e-12).count == 0);
}

TEST_CASE("linear_cross_entropy: values and gradients match the reference",
          "[ops][linear_cross_entropy]") {
  const Case c{GENERATE(0, 1, 2, 13), GENERATE(1, 5, 24), GENERATE(1, 3, 33, 1100)};
  CAPTURE(c.n, c.h, c.v);
  check_against_reference<float>(c);
  check_against_reference<double>(c);
}

TEST_CASE("linear_cross_entropy: more rows than one chunk", "[ops][linear_cross_entropy]") {
  const std::int64_t v = 400000;  // 20 rows a chunk
  REQUIRE(detail::rows_a_chunk(v) == 20);
  check_against_reference<float>({70, 2, v});
}

TEST_CASE("linear_cross_entropy: logits of ten thousand stay exact",
          "[ops][linear_cross_entropy]") {
  const Var<float> x(parameter(Tensor<float>({2, 1}, {1.0f, 1.0f})));
  const AnyVar w(Tensor<float>({3, 1}, {1e4f, -1e4f, -0.0f}));
  const auto loss = linear_cross_entropy(x, w, Tensor<std::int32_t>({2}, {0, 1}));
  REQUIRE(loss.value()[0] == 20000.0f);
  backward(loss);
  REQUIRE(Tensor<float>(x.grad())[0] == 0.0f);
  REQUIRE(Tensor<float>(x.grad())[1] == 20000.0f);
}

TEST_CASE("linear_cross_entropy: no probability is a subnormal number",
          "[ops][linear_cross_entropy]") {
  std::vector<float> z(300);
  for (std::size_t i = 0; i < z.size(); ++i) z[i] = -0.5f * static_cast<float>(i);
  simd::dispatch([&]<int W>() {
    const auto v = static_cast<std::int64_t>(z.size());
    const auto s = detail::log_softmax<float, W>(z.data(), v);
    detail::softmax_minus_one_hot<float, W>(z.data(), v, s, 0);
  });
  for (std::size_t i = 1; i < z.size(); ++i) {
    REQUIRE((z[i] == 0.0f) == (i >= 137));  // exp(-i / 2) * 0.39 < 2^-100
    REQUIRE((z[i] == 0.0f || z[i] >= 0x1p-100f));
  }
}

TEST_CASE("linear_cross_entropy: the head may be stored in two bytes and stay frozen",
          "[ops][linear_cross_entropy]") {
  Case c{9, 16, 70};
  const auto stored = make_tensor<bf16>({c.v, c.h}, c.w);
  c.w = to_vector(stored);
  const auto x = parameter(make_tensor<float>({c.n, c.h}, c.x));
  const auto loss = linear_cross_entropy(x, AnyVar(stored), c.target_tensor());
  backward(loss);
  const double t = tol(DType::f32, c.h) * 5;
  const double want = reference::linear_cross_entropy(c.x, c.w, c.targets, c.h);
  REQUIRE(std::abs(static_cast<double>(loss.value()[0]) - want) <= 4 * t + t * want);
  const auto dx = reference::linear_cross_entropy_backward(1.0, c.x, c.w, c.targets, c.h).dx;
  REQUIRE(compare(to_vector(x.grad()), dx, 4 * t, t).count == 0);
}

TEST_CASE("linear_cross_entropy: rows that do not count are not even read",
          "[ops][linear_cross_entropy]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto x = parameter(Tensor<float>({3, 2}, {1, 2, nan, nan, 3, 4}));
  const AnyVar w(Tensor<float>({2, 2}, {1, 0, 0, 1}));
  const auto loss = linear_cross_entropy(x, w, Tensor<std::int32_t>({3}, {0, -1, 1}));
  REQUIRE(std::isfinite(loss.value()[0]));
  backward(loss);
  const Tensor<float> dx(x.grad());
  REQUIRE(dx[2] == 0.0f);
  REQUIRE(dx[3] == 0.0f);
  REQUIRE(std::isfinite(dx[0]));
  const auto none = linear_cross_entropy(x, w, Tensor<std::int32_t>({3}, -1));
  REQUIRE(none.value()[0] == 0.0f);
}

TEST_CASE("linear_cross_entropy: NaN in a row that counts is NaN in the loss",
          "[ops][linear_cross_entropy]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::int64_t v = GENERATE(3, 40);
  const std::int64_t bad = GENERATE(0, 1, 2);
  Tensor<float> weights({v, 1}, 0.5f);
  weights[bad] = nan;  // one logit of many
  const Var<float> x(Tensor<float>({1, 1}, 1.0f));
  const auto loss = linear_cross_entropy(x, AnyVar(weights), Tensor<std::int32_t>({1}, 1));
  REQUIRE(std::isnan(loss.value()[0]));
}

TEST_CASE("linear_cross_entropy: the number of threads changes no bit",
          "[ops][linear_cross_entropy]") {
  const Case c{90, 33, 1000};
  const int before = num_threads();
  set_num_threads(1);
  const Outcome one = run<float>(c);
  const auto probs = linear_log_probs(make_tensor<float>({c.n, c.h}, c.x),
                                      make_tensor<float>({c.v, c.h}, c.w), c.target_tensor());
  for (const int threads : {2, 3}) {
    set_num_threads(threads);
    const Outcome more = run<float>(c);
    REQUIRE(same_bits(one.loss, more.loss));
    REQUIRE(same_bits(one.dx, more.dx));
    REQUIRE(same_bits(one.dw, more.dw));
    const auto again = linear_log_probs(make_tensor<float>({c.n, c.h}, c.x),
                                        make_tensor<float>({c.v, c.h}, c.w), c.target_tensor());
    REQUIRE(same_bits(probs.log_prob, again.log_prob));
    REQUIRE(same_bits(probs.argmax, again.argmax));
  }
  set_num_threads(before);
}

TEST_CASE("linear_log_probs: log-probabilities and the most likely ids match the reference",
          "[ops][linear_cross_entropy]") {
  const Case c{14, 24, GENERATE(1, 50, 3000)};
  CAPTURE(c.v);
  const auto got = linear_log_probs(make_tensor<float>({c.n, c.h}, c.x),
                                    make_tensor<float>({c.v, c.h}, c.w), c.target_tensor());
  const double t = tol(DType::f32, c.h) * 5;
  for (std::int64_t n = 0; n < c.n; ++n) {
    const auto want = reference::linear_log_softmax_row(c.x, c.w, n, c.h);
    const std::int32_t target = c.targets[n];
    if (target < 0) {
      REQUIRE(got.log_prob[n] == 0.0f);
      REQUIRE(got.argmax[n] == -1);
      continue;
    }
    REQUIRE(std::abs(static_cast<double>(got.log_prob[n]) - want[target]) <= t - t * want[target]);
    REQUIRE(got.argmax[n] == std::max_element(want.begin(), want.end()) - want.begin());
  }
}

TEST_CASE("linear_log_probs: of equal logits the lowest id wins", "[ops][linear_cross_entropy]") {
  Tensor<float> w({100, 1}, 0.25f);
  w[37] = w[38] = w[90] = 0.5f;
  const auto got = linear_log_probs(Tensor<float>({1, 1}, 1.0f), w, Tensor<std::int32_t>({1}, 0));
  REQUIRE(got.argmax[0] == 37);
}

TEST_CASE("linear_cross_entropy: refuses what does not fit, with both shapes",
          "[ops][linear_cross_entropy]") {
  const Var<float> x(Tensor<float>({2, 3}, 1.0f));
  const AnyVar w(Tensor<float>({5, 3}, 1.0f)), wide(Tensor<float>({5, 4}, 1.0f));
  REQUIRE_THROWS_WITH(linear_cross_entropy(x, wide, Tensor<std::int32_t>({2}, 0)),
                      "linear_cross_entropy: x is [2, 3], w is [5, 4]; expected [N, H] and [V, H]");
  REQUIRE_THROWS_WITH(linear_cross_entropy(x, w, Tensor<std::int32_t>({3}, 0)),
                      "linear_cross_entropy: targets are [3], x is [2, 3]; expected [2]");
  REQUIRE_THROWS_WITH(linear_cross_entropy(x, w, Tensor<std::int32_t>({2}, {0, 5})),
                      "linear_cross_entropy: target 5 at row 1, expected -1 or 0 to 4");
  REQUIRE_THROWS_AS(linear_log_probs(x.value(), w.any(), Tensor<std::int32_t>({2}, {0, -2})),
                    ShapeError);
}

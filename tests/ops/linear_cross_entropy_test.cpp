// SPDX-License-Identifier: Apache-2.0
#include <algorithm>
#include <limits>

#include <espalier/ops/linear_cross_entropy.hpp>
#include <espalier/ops/reference/linear_cross_entropy.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

/// x and w in X, W.
template <class X, class W = X>
struct Case {
  std::int64_t n, h, v;
  double scale = 1;
  std::vector<double> x = normal_of<X>(n * h, 1, scale), w = normal_of<W>(v * h, 2);
  std::vector<std::int32_t> targets = [this] {
    std::vector<std::int32_t> t;
    for (std::int64_t i = 0; i < n; ++i) {  // every third row does not count
      t.push_back(i % 3 == 1 ? -1 : static_cast<std::int32_t>(i * 7919 % v));
    }
    return t;
  }();

  Tensor<X> x_tensor() const { return make_tensor<X>({n, h}, x); }
  Tensor<W> w_tensor() const { return make_tensor<W>({v, h}, w); }
  Tensor<std::int32_t> target_tensor() const { return {{n}, targets}; }
};

template <class X, class W>
std::vector<AnyTensor> run(const Case<X, W>& c, double dy = 1) {  // loss, dx, dw
  const auto x = parameter(c.x_tensor());
  const auto w = parameter(c.w_tensor());
  const auto loss = linear_cross_entropy(x, w, c.target_tensor());
  backward(loss, make_tensor<acc_t<X>>({1}, {dy}));
  return {loss.value(), x.grad(), w.grad()};
}

template <class X, class W>
void check_against_reference(const Case<X, W>& c) {
  using A = acc_t<X>;
  constexpr double kDy = 0.375;
  const auto got = run(c, kDy);
  REQUIRE(got[0].dtype() == dtype_of<A>::value);
  REQUIRE(got[1].dtype() == dtype_of<X>::value);
  REQUIRE(got[2].dtype() == dtype_of<W>::value);
  const double want = reference::linear_cross_entropy(c.x, c.w, c.targets, c.h);
  const auto grads = reference::linear_cross_entropy_backward(kDy, c.x, c.w, c.targets, c.h);
  // A logit is a sum of H terms of size `scale`; its error is the exponent's.
  const double t = tol<A>(c.h) * (1 + c.scale * std::sqrt(c.h));
  // The gradient of the logits is bf16 where both operands are.
  const double p = sizeof(X) == 2 && sizeof(W) == 2 ? tol<bf16>(1) : t;
  const double rows = std::sqrt(static_cast<double>(c.n + 1));
  const Mismatch loss = compare(to_vector(got[0]), std::vector<double>{want}, t * rows, tol<A>(1));
  const Mismatch dx = compare(to_vector(got[1]), grads.dx, 4 * p, std::max(t, tol<X>(1)));
  const Mismatch dw = compare(to_vector(got[2]), grads.dw, 4 * p * rows, std::max(t, tol<W>(1)));
  INFO("loss: " << loss << "; dx: " << dx << "; dw: " << dw);
  REQUIRE(loss.count == 0);
  REQUIRE(dx.count == 0);
  REQUIRE(dw.count == 0);
}

}  // namespace

TEST_CASE("linear_cross_entropy: a row by hand", "[ops][linear_cross_entropy]") {
  const Var<double> x(Tensor<double>({1, 1}, 1.0));
  const AnyVar w(Tensor<double>({3, 1}, {std::log(1.0), std::log(2.0), std::log(5.0)}));
  const Tensor<std::int32_t> targets({1}, 2);  // probability 5/8
  REQUIRE(std::abs(linear_cross_entropy(x, w, targets).value()[0] - std::log(1.6)) <= 1e-14);
}

TEST_CASE("linear_cross_entropy: the reference gradient matches the complex step",
          "[ops][linear_cross_entropy]") {
  const Case<double> c{5, 3, 7};
  const auto grads = reference::linear_cross_entropy_backward(1.0, c.x, c.w, c.targets, c.h);
  const auto x = to_complex(c.x), w = to_complex(c.w);
  const auto of_x = complex_step_grad(
      [&](const auto& z) { return reference::linear_cross_entropy(z, w, c.targets, c.h); }, c.x);
  const auto of_w = complex_step_grad(
      [&](const auto& z) { return reference::linear_cross_entropy(x, z, c.targets, c.h); }, c.w);
  REQUIRE(compare(grads.dx, of_x, 1e-14, 1e-12).count == 0);
  REQUIRE(compare(grads.dw, of_w, 1e-14, 1e-12).count == 0);
}

TEMPLATE_TEST_CASE("linear_cross_entropy: values and gradients match the reference",
                   "[ops][linear_cross_entropy]", (Case<float>), (Case<bf16>), (Case<bf16, float>),
                   (Case<float, bf16>), (Case<double>)) {
  const TestType c{GENERATE(0, 1, 2, 13), GENERATE(1, 5, 24), GENERATE(1, 3, 33, 2100)};
  CAPTURE(c.n, c.h, c.v);
  for_each_isa([&] { check_against_reference(c); });
}

TEMPLATE_TEST_CASE("linear_cross_entropy: more rows than one chunk", "[ops][linear_cross_entropy]",
                   float, bf16) {
  const std::int64_t v = 400000;
  REQUIRE(detail::rows_a_chunk(46, v) < 46);  // 46 of 70 rows count
  check_against_reference(Case<TestType>{70, 2, v});
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
  std::vector<float> z(300), p(300);
  for (std::size_t i = 0; i < z.size(); ++i) z[i] = -0.5f * static_cast<float>(i);
  for_each_isa([&] {
    simd::dispatch([&]<int W>() {
      const auto v = static_cast<std::int64_t>(z.size());
      const double log_sum = cpu::log_sum_exp<float, W>(z.data(), v, 0.0f);
      cpu::softmax<float, float, W>(z.data(), v, static_cast<float>(log_sum), p.data());
    });
    for (std::size_t i = 0; i < z.size(); ++i) {
      REQUIRE((p[i] == 0.0f) == (i >= 137));  // exp(-i / 2) * 0.39 < 2^-100
      REQUIRE((p[i] == 0.0f || p[i] >= 0x1p-100f));
    }
  });
}

TEST_CASE("linear_cross_entropy: the head may stay frozen", "[ops][linear_cross_entropy]") {
  const Case<float, bf16> c{9, 16, 70};
  const auto x = parameter(c.x_tensor());
  const auto loss = linear_cross_entropy(x, AnyVar(c.w_tensor()), c.target_tensor());
  backward(loss);
  const auto all = run(c);
  REQUIRE(same_bits(loss.value(), all[0]));
  REQUIRE(same_bits(x.grad(), all[1]));
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

TEMPLATE_TEST_CASE("linear_cross_entropy: the number of threads changes no bit",
                   "[ops][linear_cross_entropy]", float, bf16) {
  const Case<TestType> c{90, 33, 1000};
  require_same_bits_for_any_threads([&] {
    auto all = run(c);
    const auto probs = linear_log_probs(c.x_tensor(), c.w_tensor(), c.target_tensor());
    all.push_back(probs.log_prob);
    all.push_back(probs.argmax);
    return all;
  });
}

TEMPLATE_TEST_CASE("linear_log_probs: log-probabilities and likely ids match the reference",
                   "[ops][linear_cross_entropy]", float, bf16, double) {
  const Case<TestType> c{14, 24, GENERATE(1, 50, 3000)};
  CAPTURE(c.v);
  for_each_isa([&] {
    const auto got = linear_log_probs(c.x_tensor(), c.w_tensor(), c.target_tensor());
    const double t = tol<acc_t<TestType>>(c.h) * 5;
    for (std::int64_t n = 0; n < c.n; ++n) {
      const auto want = reference::linear_log_softmax_row(c.x, c.w, n, c.h);
      const std::int32_t target = c.targets[n];
      if (target < 0) {
        REQUIRE(got.log_prob[n] == 0);
        REQUIRE(got.argmax[n] == -1);
        continue;
      }
      const double error = std::abs(static_cast<double>(got.log_prob[n]) - want[target]);
      REQUIRE(error <= t - t * want[target]);
      REQUIRE(got.argmax[n] == std::max_element(want.begin(), want.end()) - want.begin());
    }
  });
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

// SPDX-License-Identifier: Apache-2.0
// Attention in double: by hand, the reference itself, and values and gradients against it.
#include "support/attention_case.hpp"
#include "support/gradcheck.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("attention: two keys by hand", "[ops][attention]") {
  const Var<double> q(Tensor<double>({2, 1, 1}, {5.0, 2.0}));
  const Var<double> k(Tensor<double>({2, 1, 1}, {0.0, std::log(3.0) / 2}));
  const Var<double> v(Tensor<double>({2, 1, 1}, {8.0, 16.0}));
  const auto y = attention(q, k, v, {0, 2}).value();
  REQUIRE(y[0] == 8.0);                                       // the first row sees itself alone
  REQUIRE(std::abs(y[1] - 14.0) <= 1e-13);                    // weights 1/4 and 3/4
  REQUIRE(attention(q, k, v, {0, 1, 2}).value()[1] == 16.0);  // a segment of its own
  REQUIRE(attention(q, k, v, {0, 2}, 1).value()[1] == 16.0);  // a window of one key
}

TEST_CASE("attention: the reference gradient matches the complex step", "[ops][attention]") {
  const auto c = attention_case<float>({4, 2, 3, {0, 4, 4, 6}, GENERATE(0, 2)});
  CAPTURE(c.z.window);
  const auto grads = reference::attention_backward(c.dy, c.q, c.k, c.v, c.z);
  const auto q = to_complex(c.q), k = to_complex(c.k), v = to_complex(c.v);
  const auto of_q = complex_step_grad(
      [&](const auto& x) { return dot(c.dy, reference::attention(x, k, v, c.z)); }, c.q);
  const auto of_k = complex_step_grad(
      [&](const auto& x) { return dot(c.dy, reference::attention(q, x, v, c.z)); }, c.k);
  const auto of_v = complex_step_grad(
      [&](const auto& x) { return dot(c.dy, reference::attention(q, k, x, c.z)); }, c.v);
  REQUIRE(compare(grads.dq, of_q, 1e-14, 1e-12).count == 0);
  REQUIRE(compare(grads.dk, of_k, 1e-14, 1e-12).count == 0);
  REQUIRE(compare(grads.dv, of_v, 1e-14, 1e-12).count == 0);
}

TEST_CASE("attention: values and gradients in double match the reference", "[ops][attention]") {
  const std::int64_t rows = GENERATE(0, 1, 2, 49, 96, 97, 131);
  const std::int64_t kv_heads = GENERATE(1, 2), group = GENERATE(1, 3, 50);
  const std::int64_t head_dim = GENERATE(1, 20, 64);
  CAPTURE(rows, kv_heads, group, head_dim);
  check_attention<double>(
      attention_case<double>({kv_heads * group, kv_heads, head_dim, {0, rows}}));
}

TEST_CASE("attention: segments and windows in double", "[ops][attention]") {
  const std::int64_t window = GENERATE(0, 1, 7, 64, 500);
  CAPTURE(window);
  check_attention<double>(
      attention_case<double>({3, 1, 8, {0, 0, 40, 41, 41, 141, 141, 950}, window}));
}

TEST_CASE("attention: every instruction set, any number of threads in double", "[ops][attention]") {
  const auto c = attention_case<double>({4, 2, 24, {0, 33, 180, 401}, GENERATE(0, 50)});
  for_each_isa([&] {
    check_attention<double>(c);
    require_same_bits_for_any_threads([&] { return run_attention<double>(c).all(); });
  });
}

TEST_CASE("attention: scores of ten thousand keep their accuracy in double", "[ops][attention]") {
  const auto c = attention_case<double>({2, 1, 8, {0, 190}}, 100.0);
  const auto got = run_attention<double>(c);
  const double t =
      1e4 * tol(DType::f64, 8);  // a score's rounding error is an error of its exponent
  const Mismatch y = compare(to_vector(got.y), reference::attention(c.q, c.k, c.v, c.z), 4 * t, t);
  INFO(y);
  REQUIRE(y.count == 0);
}

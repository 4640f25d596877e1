// SPDX-License-Identifier: Apache-2.0
// Attention whose heads have a sink, against the double reference; cached decoding with sinks.
#include "support/attention_case.hpp"
#include "support/gradcheck.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

struct SinkOutcome {
  AnyTensor y, dq, dk, dv, dsinks;

  std::vector<AnyTensor> all() const { return {y, dq, dk, dv, dsinks}; }
};

template <class T, class S = T>
SinkOutcome run_with_sinks(const AttentionCase& c, const std::vector<double>& sinks) {
  const auto q = parameter(make_tensor<T>(c.q_shape(), c.q));
  const auto k = parameter(make_tensor<T>(c.kv_shape(), c.k));
  const auto v = parameter(make_tensor<T>(c.kv_shape(), c.v));
  const auto s = parameter(make_tensor<S>({c.z.heads}, sinks));
  const auto y = attention(q, k, v, c.z.segments, c.z.window, s);
  backward(y, make_tensor<T>(c.q_shape(), c.dy));
  return {y.value(), q.grad(), k.grad(), v.grad(), s.grad()};
}

/// As check_attention, but y of 2 bytes is rounded twice, and the gradients start from it.
template <class T, class S = T>
void check_with_sinks(const AttentionCase& c) {
  const auto sinks = normal_of<S>(c.z.heads, 9, 2);
  const SinkOutcome got = run_with_sinks<T, S>(c, sinks);
  const auto grads = reference::attention_backward(c.dy, c.q, c.k, c.v, c.z, sinks);
  const double t = 2 * tol(dtype_of<acc_t<T>>::value, c.z.head_dim + c.n);
  const double twice = sizeof(T) == 2 ? 2 * tol(dtype_of<T>::value, 1) : 0;
  const double shared = std::sqrt(static_cast<double>(c.z.heads / c.z.kv_heads));
  const double rtol = t + twice, atol = 4 * t + twice;
  const double of_sink = std::max(epsilon_of(dtype_of<S>::value), rtol);
  const double rows = std::sqrt(static_cast<double>(c.n));
  const Mismatch y =
      compare(to_vector(got.y), reference::attention(c.q, c.k, c.v, c.z, sinks), t, rtol);
  const Mismatch dq = compare(to_vector(got.dq), grads.dq, atol, rtol);
  const Mismatch dk = compare(to_vector(got.dk), grads.dk, atol * shared, rtol);
  const Mismatch dv = compare(to_vector(got.dv), grads.dv, atol * shared, rtol);
  const Mismatch ds = compare(to_vector(got.dsinks), grads.dsinks, atol * rows, of_sink);
  INFO("y: " << y << "; dq: " << dq << "; dk: " << dk << "; dv: " << dv << "; dsinks: " << ds);
  REQUIRE(y.count == 0);
  REQUIRE(dq.count == 0);
  REQUIRE(dk.count == 0);
  REQUIRE(dv.count == 0);
  REQUIRE(ds.count == 0);
  REQUIRE(got.dsinks.dtype() == dtype_of<S>::value);
}

}  // namespace

TEST_CASE("attention sinks: a sink as large as the only score halves the value",
          "[ops][attention]") {
  const Var<double> q(Tensor<double>({2, 1, 1}, {1, 1})), k(Tensor<double>({2, 1, 1}, {3, 3}));
  const Var<double> v(Tensor<double>({2, 1, 1}, {8, 20}));
  const AnyVar sink(Tensor<double>({1}, {3.0}));
  const auto y = attention(q, k, v, {0, 2}, 0, sink).value();
  REQUIRE(std::abs(y[0] - 4.0) <= 1e-14);         // weights 1/2 and of the sink 1/2
  REQUIRE(std::abs(y[1] - 28.0 / 3.0) <= 1e-14);  // three of 1/3
}

TEST_CASE("attention sinks: the reference gradient matches the complex step", "[ops][attention]") {
  const auto c = attention_case<float>({4, 2, 3, {0, 4, 4, 6}, GENERATE(0, 2)});
  const auto sinks = normal(4, 9);
  const auto grads = reference::attention_backward(c.dy, c.q, c.k, c.v, c.z, sinks);
  const auto q = to_complex(c.q), k = to_complex(c.k), v = to_complex(c.v), s = to_complex(sinks);
  const auto grad_of = [&](const auto& f, const std::vector<double>& at) {
    return complex_step_grad([&](const auto& x) { return dot(c.dy, f(x)); }, at);
  };
  const auto of_q =
      grad_of([&](const auto& x) { return reference::attention(x, k, v, c.z, s); }, c.q);
  const auto of_k =
      grad_of([&](const auto& x) { return reference::attention(q, x, v, c.z, s); }, c.k);
  const auto of_v =
      grad_of([&](const auto& x) { return reference::attention(q, k, x, c.z, s); }, c.v);
  const auto of_s =
      grad_of([&](const auto& x) { return reference::attention(q, k, v, c.z, x); }, sinks);
  REQUIRE(compare(grads.dq, of_q, 1e-14, 1e-12).count == 0);
  REQUIRE(compare(grads.dk, of_k, 1e-14, 1e-12).count == 0);
  REQUIRE(compare(grads.dv, of_v, 1e-14, 1e-12).count == 0);
  REQUIRE(compare(grads.dsinks, of_s, 1e-14, 1e-12).count == 0);
}

TEMPLATE_TEST_CASE("attention sinks: values and gradients match the reference", "[ops][attention]",
                   float, bf16, double) {
  const std::int64_t rows = GENERATE(0, 1, 2, 67, 131), head_dim = GENERATE(1, 20, 64);
  const std::int64_t kv_heads = GENERATE(1, 2), group = GENERATE(1, 3);
  CAPTURE(rows, kv_heads, group, head_dim);
  check_with_sinks<TestType>(
      attention_case<TestType>({kv_heads * group, kv_heads, head_dim, {0, rows}}));
}

TEMPLATE_TEST_CASE("attention sinks: segments, windows and every instruction set",
                   "[ops][attention]", float, bf16, double) {
  const std::int64_t window = GENERATE(0, 1, 7, 64);
  CAPTURE(window);
  const auto c = attention_case<TestType>({4, 2, 24, {0, 0, 40, 41, 41, 141}, window});
  for_each_isa([&] { check_with_sinks<TestType>(c); });
}

TEST_CASE("attention sinks: sinks of another type than q", "[ops][attention]") {
  const reference::AttentionSizes z{4, 2, 8, {0, 30}};
  check_with_sinks<bf16, float>(attention_case<bf16>(z));
  check_with_sinks<float, bf16>(attention_case<float>(z));
  check_with_sinks<double, float>(attention_case<double>(z));
}

TEMPLATE_TEST_CASE("attention sinks: a very negative sink changes no bit", "[ops][attention]",
                   float, bf16, double) {
  const auto c = attention_case<TestType>({4, 2, 24, {0, 40, 141}, GENERATE(0, 9)});
  const double sink = GENERATE(-1e4, -std::numeric_limits<double>::infinity());
  const auto got = run_with_sinks<TestType>(c, std::vector<double>(4, sink));
  const auto want = run_attention<TestType>(c);
  REQUIRE(same_bits(got.y, want.y));
  REQUIRE(same_bits(got.dq, want.dq));
  REQUIRE(same_bits(got.dk, want.dk));
  REQUIRE(same_bits(got.dv, want.dv));
  for (const double d : to_vector(got.dsinks)) REQUIRE(d == 0);
}

TEMPLATE_TEST_CASE("attention sinks: a very large sink leaves nothing of the values",
                   "[ops][attention]", float, bf16, double) {
  const auto c = attention_case<TestType>({4, 2, 24, {0, 40}});
  for (const AnyTensor& part : run_with_sinks<TestType>(c, std::vector<double>(4, 1e4)).all()) {
    for (const double value : to_vector(part)) REQUIRE(value == 0);
  }
}

TEMPLATE_TEST_CASE("attention sinks: the number of threads changes no bit", "[ops][attention]",
                   float, bf16) {
  const auto c = attention_case<TestType>({6, 2, 16, {0, 150, 150, 601, 603}, GENERATE(0, 100)});
  const auto sinks = normal_of<TestType>(6, 9);
  require_same_bits_for_any_threads([&] { return run_with_sinks<TestType>(c, sinks).all(); });
}

TEMPLATE_TEST_CASE("attention sinks: a NaN in a sink spoils its own head only", "[ops][attention]",
                   float, bf16) {
  const auto c = attention_case<TestType>({3, 1, 8, {0, 20}});
  auto sinks = normal_of<TestType>(3, 9);
  const auto want = to_vector(run_with_sinks<TestType>(c, sinks).y);
  sinks[1] = std::numeric_limits<double>::quiet_NaN();
  const auto y = to_vector(run_with_sinks<TestType>(c, sinks).y);
  for (std::size_t i = 0; i < y.size(); ++i) {
    REQUIRE((i / 8 % 3 == 1 ? std::isnan(y[i]) : y[i] == want[i]));
  }
}

TEMPLATE_TEST_CASE("attention sinks: a cache gives the bits of one pass", "[ops][attention]", float,
                   bf16) {
  using T = TestType;
  constexpr std::int64_t kRows = 200;
  const std::int64_t window = GENERATE(0, 30);
  const auto c = attention_case<T>({6, 2, 16, {0, kRows}, window});
  const AnyTensor sinks = make_tensor<T>({6}, normal_of<T>(6, 9));
  const cpu::AttentionHeads heads{6, 2, 16, window};
  const auto q = make_tensor<T>(c.q_shape(), c.q);
  const auto k = make_tensor<T>(c.kv_shape(), c.k), v = make_tensor<T>(c.kv_shape(), c.v);
  const auto whole =
      attention(Var<T>(q), Var<T>(k), Var<T>(v), {0, kRows}, window, AnyVar(sinks)).value();
  const Tensor<T> parts(q.shape()), plain(q.shape());
  std::int64_t done = 0;
  for (const std::int64_t end : {5, 6, 7, 96, 97, 101, 199, 200}) {
    const std::int64_t at = done * heads.q_stride();
    const auto segment = [&](const Tensor<T>& y) {
      return cpu::AttentionSegment<T>{q.data() + at, k.data(),   v.data(),
                                      y.data() + at, end - done, end};
    };
    cpu::attention_forward<T>({segment(parts)}, heads, sinks);
    cpu::attention_forward<T>({segment(plain)}, heads, AnyTensor());
    done = end;
  }
  REQUIRE(same_bits(parts, whole));
  REQUIRE(same_bits(plain, run_attention<T>(c).y));
}

TEST_CASE("attention sinks: refuses a wrong number of sinks", "[ops][attention]") {
  const Var<float> x(Tensor<float>({4, 6, 8}, 1.0f));
  REQUIRE_THROWS_WITH(attention(x, x, x, {0, 4}, 0, AnyVar(Tensor<float>({3}, 1.0f))),
                      "attention: sinks is [3], expected [6], one for each query head");
}

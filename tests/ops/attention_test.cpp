// SPDX-License-Identifier: Apache-2.0
#include <limits>

#include <espalier/ops/attention.hpp>
#include <espalier/ops/reference/attention.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

struct Case {
  reference::AttentionSizes z;
  double scale = 1;
  std::int64_t n = z.segments.back();
  std::int64_t q_size = n * z.heads * z.head_dim, kv_size = n * z.kv_heads * z.head_dim;
  std::vector<double> q = normal(q_size, 1, scale), k = normal(kv_size, 2, scale),
                      v = normal(kv_size, 3), dy = normal(q_size, 4);

  Shape q_shape() const { return {n, z.heads, z.head_dim}; }
  Shape kv_shape() const { return {n, z.kv_heads, z.head_dim}; }
};

struct Outcome {
  AnyTensor y, dq, dk, dv;
};

template <class T>
Outcome run(const Case& c) {
  const auto q = parameter(make_tensor<T>(c.q_shape(), c.q));
  const auto k = parameter(make_tensor<T>(c.kv_shape(), c.k));
  const auto v = parameter(make_tensor<T>(c.kv_shape(), c.v));
  const auto y = attention(q, k, v, c.z.segments, c.z.window);
  backward(y, make_tensor<T>(c.q_shape(), c.dy));
  return {y.value(), q.grad(), k.grad(), v.grad()};
}

std::int64_t longest(const Case& c) {
  std::int64_t rows = 1;
  for (std::size_t s = 0; s + 1 < c.z.segments.size(); ++s) {
    rows = std::max(rows, c.z.segments[s + 1] - c.z.segments[s]);
  }
  return rows;
}

/// A key's gradient sums up to `longest` rows of each head that shares it, each a sum of P terms.
template <class T>
void check_against_reference(const Case& c) {
  const Outcome got = run<T>(c);
  const auto grads = reference::attention_backward(c.dy, c.q, c.k, c.v, c.z);
  const double t = tol(dtype_of<T>::value, c.z.head_dim + longest(c)) * (1 + c.scale * c.scale);
  const double shared = std::sqrt(static_cast<double>(c.z.heads / c.z.kv_heads));
  const Mismatch y = compare(to_vector(got.y), reference::attention(c.q, c.k, c.v, c.z), t, t);
  const Mismatch dq = compare(to_vector(got.dq), grads.dq, 4 * t, t);
  const Mismatch dk = compare(to_vector(got.dk), grads.dk, 4 * t * shared, t);
  const Mismatch dv = compare(to_vector(got.dv), grads.dv, 4 * t * shared, t);
  INFO("y: " << y << "; dq: " << dq << "; dk: " << dk << "; dv: " << dv);
  REQUIRE(y.count == 0);
  REQUIRE(dq.count == 0);
  REQUIRE(dk.count == 0);
  REQUIRE(dv.count == 0);
}

}  // namespace

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
  const Case c{{4, 2, 3, {0, 4, 4, 6}, GENERATE(0, 2)}};
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

TEST_CASE("attention: values and gradients match the reference", "[ops][attention]") {
  const std::int64_t rows = GENERATE(0, 1, 2, 17, 67, 131);
  const std::int64_t kv_heads = GENERATE(1, 2), group = GENERATE(1, 3, 4);
  const std::int64_t head_dim = GENERATE(8, 20);
  CAPTURE(rows, kv_heads, group, head_dim);
  const Case c{{kv_heads * group, kv_heads, head_dim, {0, rows}}};
  check_against_reference<float>(c);
  check_against_reference<double>(c);
}

TEST_CASE("attention: head sizes of real models", "[ops][attention]") {
  const std::int64_t head_dim = GENERATE(1, 64, 80, 128);
  CAPTURE(head_dim);
  const Case c{{6, 2, head_dim, {0, 70}}};
  check_against_reference<float>(c);
  check_against_reference<double>(c);
}

TEST_CASE("attention: segments, empty ones too, know nothing of each other", "[ops][attention]") {
  const std::int64_t window = GENERATE(0, 1, 7, 64, 500);
  CAPTURE(window);
  const Case c{{3, 1, 8, {0, 0, 40, 41, 41, 141, 141}, window}};
  check_against_reference<float>(c);
  check_against_reference<double>(c);
}

TEST_CASE("attention: a long row", "[ops][attention]") {
  const Case c{{3, 1, 16, {0, 1000}, GENERATE(0, 300)}};
  CAPTURE(c.z.window);
  check_against_reference<float>(c);
  check_against_reference<double>(c);
}

TEST_CASE("attention: scores of ten thousand do not overflow", "[ops][attention]") {
  const Case c{{2, 1, 8, {0, 90}}, 100.0};
  const Outcome got = run<double>(c);
  const double t =
      1e4 * tol(DType::f64, 8);  // a score's rounding error is an error of its exponent
  const Mismatch y = compare(to_vector(got.y), reference::attention(c.q, c.k, c.v, c.z), 4 * t, t);
  INFO(y);
  REQUIRE(y.count == 0);
  const Outcome narrow = run<float>(c);
  for (const auto& part : {narrow.y, narrow.dq, narrow.dk, narrow.dv}) {
    for (const double value : to_vector(part)) REQUIRE(std::isfinite(value));
  }
}

TEST_CASE("attention: the number of threads changes no bit", "[ops][attention]") {
  const Case c{{6, 2, 16, {0, 150, 150, 601}}};
  const int before = num_threads();
  set_num_threads(1);
  const Outcome one = run<float>(c);
  for (const int threads : {2, 3}) {
    set_num_threads(threads);
    const Outcome more = run<float>(c);
    REQUIRE(same_bits(one.y, more.y));
    REQUIRE(same_bits(one.dq, more.dq));
    REQUIRE(same_bits(one.dk, more.dk));
    REQUIRE(same_bits(one.dv, more.dv));
  }
  set_num_threads(before);
}

TEST_CASE("attention: every instruction set agrees with the reference", "[ops][attention]") {
  const Case c{{4, 2, 24, {0, 33, 180}, GENERATE(0, 50)}};
  for (const cpu::Isa isa : {cpu::Isa::plain, cpu::Isa::avx2, cpu::Isa::avx512}) {
    if (isa > cpu::best_isa()) continue;
    CAPTURE(cpu::name(isa));
    const cpu::IsaOverride forced(isa);
    check_against_reference<float>(c);
    check_against_reference<double>(c);
  }
}

TEST_CASE("attention: a cache gives the bits of one pass, in any batch", "[ops][attention]") {
  const std::int64_t window = GENERATE(0, 30, 300);
  const Case c{{6, 2, 16, {0, 700}, window}};
  const cpu::AttentionHeads heads{6, 2, 16, window};
  const auto q = make_tensor<float>(c.q_shape(), c.q);
  const auto k = make_tensor<float>(c.kv_shape(), c.k), v = make_tensor<float>(c.kv_shape(), c.v);
  const Tensor<float> whole(q.shape()), parts(q.shape());
  const std::int64_t stride = heads.q_stride();
  cpu::attention_forward<float>({{q.data(), k.data(), v.data(), whole.data(), 700, 700, nullptr}},
                                heads);
  // Steps of a generation: a prompt, single tokens, another prompt; then two sequences together.
  const std::vector<std::int64_t> ends = {5, 6, 7, 100, 101, 356, 357, 512, 513, 514, 698};
  std::int64_t done = 0;
  for (const std::int64_t end : ends) {
    cpu::attention_forward<float>({{q.data() + done * stride, k.data(), v.data(),
                                    parts.data() + done * stride, end - done, end, nullptr}},
                                  heads);
    done = end;
  }
  const Tensor<float> spare(Shape{300, 6, 16});
  cpu::attention_forward<float>(
      {{q.data(), k.data(), v.data(), spare.data(), 300, 300, nullptr},
       {q.data() + 698 * stride, k.data(), v.data(), parts.data() + 698 * stride, 1, 699, nullptr},
       {q.data() + 699 * stride, k.data(), v.data(), parts.data() + 699 * stride, 1, 700, nullptr}},
      heads);
  REQUIRE(same_bits(whole, parts));
  REQUIRE(same_bits(whole.rows(0, 300), spare));
}

TEST_CASE("attention: NaN in a query spoils its own row only", "[ops][attention]") {
  Case c{{1, 1, 8, {0, 100}}};
  c.q[20 * 8 + 3] = std::numeric_limits<double>::quiet_NaN();
  const auto clean = Case{{1, 1, 8, {0, 100}}};
  const auto y = to_vector(run<float>(c).y), want = to_vector(run<float>(clean).y);
  for (std::size_t i = 0; i < y.size(); ++i) {
    if (i / 8 == 20) {
      REQUIRE(std::isnan(y[i]));
    } else {
      REQUIRE(y[i] == want[i]);
    }
  }
}

TEST_CASE("attention: refuses what does not fit, with the shapes", "[ops][attention]") {
  const Var<float> q(Tensor<float>({4, 6, 8}, 1.0f)), k(Tensor<float>({4, 4, 8}, 1.0f));
  const Var<float> one(Tensor<float>({4, 1, 8}, 1.0f)), wide(Tensor<float>({4, 1, 9}, 1.0f));
  REQUIRE_THROWS_WITH(attention(q, k, k, {0, 4}),
                      "attention: 6 query heads, 4 kv heads; expected a multiple");
  REQUIRE_THROWS_WITH(
      attention(q, wide, wide, {0, 4}),
      "attention: q is [4, 6, 8], k is [4, 1, 9], v is [4, 1, 9]; expected [N, A, P] "
      "and twice [N, G, P]");
  REQUIRE_THROWS_WITH(attention(q, one, one, {0, 3}), "attention: segments end at 3, q has 4 rows");
  REQUIRE_THROWS_WITH(attention(q, one, one, {0, 3, 2, 4}), "attention: segments fall from 3 to 2");
  REQUIRE_THROWS_AS(attention(q, one, one, {}), ShapeError);
  REQUIRE_THROWS_WITH(attention(q, one, one, {0, 4}, -1),
                      "attention: window is -1, expected at least 0");
}

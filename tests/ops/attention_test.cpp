// SPDX-License-Identifier: Apache-2.0
// Values and gradients of attention in f32 and bf16 against the double reference. See
// attention_double_test.cpp for double, attention_rows_test.cpp for what a row may depend on.
#include <limits>

#include "support/attention_case.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("attention: values and gradients match the reference", "[ops][attention]", float,
                   bf16) {
  const std::int64_t rows = GENERATE(0, 1, 2, 17, 67, 131);
  const std::int64_t kv_heads = GENERATE(1, 2), group = GENERATE(1, 3, 4);
  const std::int64_t head_dim = GENERATE(8, 20);
  CAPTURE(rows, kv_heads, group, head_dim);
  check_attention<TestType>(
      attention_case<TestType>({kv_heads * group, kv_heads, head_dim, {0, rows}}));
}

TEMPLATE_TEST_CASE("attention: head sizes of real models", "[ops][attention]", float, bf16) {
  const std::int64_t head_dim = GENERATE(1, 64, 80, 128);
  CAPTURE(head_dim);
  check_attention<TestType>(attention_case<TestType>({6, 2, head_dim, {0, 70}}));
}

TEMPLATE_TEST_CASE("attention: more heads of a group than a block has queries", "[ops][attention]",
                   float, bf16) {
  check_attention<TestType>(attention_case<TestType>({50, 1, 4, {0, 3, 40}}));
}

TEMPLATE_TEST_CASE("attention: segments, empty ones too, know nothing of each other",
                   "[ops][attention]", float, bf16) {
  const std::int64_t window = GENERATE(0, 1, 7, 64, 500);
  CAPTURE(window);
  check_attention<TestType>(
      attention_case<TestType>({3, 1, 8, {0, 0, 40, 41, 41, 141, 141}, window}));
}

TEMPLATE_TEST_CASE("attention: lengths around the borders of blocks and chunks", "[ops][attention]",
                   float, bf16) {
  const std::int64_t rows = GENERATE(47, 48, 49, 95, 96, 97, 192, 193, 769);
  const std::int64_t window = GENERATE(0, 1, 96, 97);
  CAPTURE(rows, window);
  check_attention<TestType>(attention_case<TestType>({2, 2, 4, {0, rows}, window}));
}

TEMPLATE_TEST_CASE("attention: a long row", "[ops][attention]", float, bf16) {
  const std::int64_t window = GENERATE(0, 300);
  CAPTURE(window);
  check_attention<TestType>(attention_case<TestType>({3, 1, 16, {0, 1700}, window}));
}

TEMPLATE_TEST_CASE("attention: every instruction set agrees with the reference", "[ops][attention]",
                   float, bf16) {
  const std::int64_t window = GENERATE(0, 50);
  CAPTURE(window);
  const auto c = attention_case<TestType>({4, 2, 24, {0, 33, 180}, window});
  for_each_isa([&] { check_attention<TestType>(c); });
}

TEST_CASE("attention: bf16 is f32 rounded once", "[ops][attention]") {
  const auto c = attention_case<bf16>({6, 2, 20, {0, 3, 150}});
  const auto wide = converted<bf16>(run_attention<float>(c).y);
  REQUIRE(same_bits(run_attention<bf16>(c).y, wide));
}

TEST_CASE("attention: scores of ten thousand do not overflow", "[ops][attention]") {
  const auto c = attention_case<bf16>({2, 1, 8, {0, 190}}, 100.0);
  for (const AttentionOutcome& got : {run_attention<float>(c), run_attention<bf16>(c)}) {
    for (const AnyTensor& part : got.all()) {
      for (const double value : to_vector(part)) REQUIRE(std::isfinite(value));
    }
  }
}

TEMPLATE_TEST_CASE("attention: a score of minus infinity is a key without weight",
                   "[ops][attention]", float, bf16) {
  // Whole blocks of such keys before the first of another kind.
  const std::int64_t without = GENERATE(1, 100, 800);
  auto c = attention_case<TestType>({1, 1, 4, {0, 830}});
  for (std::int64_t i = 0; i < c.n; ++i) c.q[4 * i] = 1;
  for (std::int64_t j = 0; j < without; ++j) {
    c.k[4 * j] = -std::numeric_limits<double>::infinity();
  }
  const auto y = to_vector(run_attention<TestType>(c).y);
  const auto want = reference::attention(c.q, c.k, c.v, c.z);
  const std::vector<double> rest(y.begin() + 4 * without, y.end());
  const std::vector<double> want_rest(want.begin() + 4 * without, want.end());
  const double t = 2 * tol(dtype_of<acc_t<TestType>>::value, 834);
  REQUIRE(compare(rest, want_rest, t, t + tol(dtype_of<TestType>::value, 1)).count == 0);
  for (std::int64_t i = 0; i < 4 * without; ++i) {
    REQUIRE(std::isnan(y[i]));  // nothing but such keys
    REQUIRE(std::isnan(want[i]));
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

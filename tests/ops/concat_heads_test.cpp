// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/concat_heads.hpp>
#include <espalier/ops/reference/column_blocks.hpp>

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
std::vector<AnyTensor> run(Shape a_shape, Shape b_shape, const std::vector<double>& a,
                           const std::vector<double>& b, const std::vector<double>& dy) {
  const auto va = parameter(make_tensor<T>(a_shape, a));
  const auto vb = parameter(make_tensor<T>(b_shape, b));
  const auto y = concat_heads(va, vb);
  backward(y, make_tensor<T>(y.shape(), dy));
  return {y.value(), va.grad(), vb.grad()};
}

}  // namespace

TEST_CASE("concat_heads: values and gradients by hand", "[ops][concat_heads]") {
  const auto got = run<double>({1, 2, 2}, {1, 1, 1}, {1, 2, 3, 4}, {9}, {1, 2, 3, 4, 5, 6});
  REQUIRE(got[0].shape() == Shape{1, 2, 3});
  REQUIRE(to_vector(got[0]) == std::vector<double>{1, 2, 9, 3, 4, 9});
  REQUIRE(to_vector(got[1]) == std::vector<double>{1, 2, 4, 5});
  REQUIRE(to_vector(got[2]) == std::vector<double>{9});
}

TEST_CASE("concat_heads: the reference gradients match the complex step", "[ops][concat_heads]") {
  for (const std::int64_t b_heads : {1, 3}) {
    const auto a = normal(2 * 3 * 2, 1), b = normal(2 * b_heads * 4, 2), dy = normal(2 * 3 * 6, 3);
    const auto grads = reference::concat_heads_backward(dy, 2, 3, b_heads, 2, 4);
    const auto of_a = complex_step_grad(
        [&](const auto& z) {
          return dot(dy, reference::concat_heads(z, to_complex(b), 2, 3, b_heads, 2, 4));
        },
        a);
    const auto of_b = complex_step_grad(
        [&](const auto& z) {
          return dot(dy, reference::concat_heads(to_complex(a), z, 2, 3, b_heads, 2, 4));
        },
        b);
    REQUIRE(compare(grads.da, of_a, 0, 1e-15).count == 0);
    REQUIRE(compare(grads.db, of_b, 1e-15, 1e-15).count == 0);
  }
}

TEMPLATE_TEST_CASE("concat_heads: values and gradients match the reference", "[ops][concat_heads]",
                   float, bf16, double) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 5), heads = GENERATE(1, 3, 16);
  const std::int64_t p1 = GENERATE(0, 1, 32), p2 = GENERATE(0, 3, 16, 37);
  CAPTURE(n, heads, p1, p2);
  for (const std::int64_t b_heads : {std::int64_t{1}, heads}) {
    const auto a = normal_of<T>(n * heads * p1, 1), b = normal_of<T>(n * b_heads * p2, 2);
    const auto dy = normal_of<T>(n * heads * (p1 + p2), 3);
    const auto grads = reference::concat_heads_backward(dy, n, heads, b_heads, p1, p2);
    for_each_isa([&] {
      const auto got = run<T>({n, heads, p1}, {n, b_heads, p2}, a, b, dy);
      REQUIRE(to_vector(got[0]) == reference::concat_heads(a, b, n, heads, b_heads, p1, p2));
      REQUIRE(to_vector(got[1]) == grads.da);
      const Mismatch db = compare(to_vector(got[2]), grads.db, tol<acc_t<T>>(heads), tol<T>(1));
      INFO("db: " << db);
      REQUIRE(db.count == 0);
    });
  }
}

TEST_CASE("concat_heads: only the gradients that are wanted", "[ops][concat_heads]") {
  const Tensor<float> a({1, 2, 2}, 1.0f), b({1, 1, 1}, 1.0f);
  const auto trained = parameter(b);
  backward(concat_heads(Var<float>(a), trained));
  REQUIRE(to_vector(trained.grad()) == std::vector<double>{2});
}

TEST_CASE("concat_heads: NaN of one head is in the shared gradient", "[ops][concat_heads]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const auto got = run<float>({1, 2, 1}, {1, 1, 2}, {1, nan}, {2, 3}, {1, 1, nan, 1, 1, 1});
  const auto y = to_vector(got[0]), db = to_vector(got[2]);
  REQUIRE((std::isnan(y[3]) && y[0] == 1 && y[4] == 2));
  REQUIRE((db[0] == 2 && std::isnan(db[1])));
}

TEMPLATE_TEST_CASE("concat_heads: the number of threads changes no bit", "[ops][concat_heads]",
                   float, bf16) {
  const auto a = normal(300 * 8 * 24, 1), b = normal(300 * 20, 2), dy = normal(300 * 8 * 44, 3);
  require_same_bits_for_any_threads([&] {
    return run<TestType>({300, 8, 24}, {300, 1, 20}, a, b, dy);
  });
}

TEST_CASE("concat_heads: refuses heads that do not fit", "[ops][concat_heads]") {
  const Var<float> a(Tensor<float>({2, 4, 8}, 1.0f)), b(Tensor<float>({2, 2, 8}, 1.0f));
  REQUIRE_THROWS_WITH(concat_heads(a, b),
                      "concat_heads: a is [2, 4, 8], b is [2, 2, 8]; expected a [N, A, P1] and b "
                      "[N, A or 1, P2]");
}

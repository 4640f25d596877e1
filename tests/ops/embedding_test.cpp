// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/embedding.hpp>
#include <espalier/ops/reference/elementwise.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("embedding: rows of the table, and a repeated id adds up", "[ops][embedding]") {
  const auto table = parameter(Tensor<double>({3, 2}, {1, 2, 3, 4, 5, 6}));
  const auto y = embedding<double>(Tensor<std::int32_t>({3}, {2, 0, 2}), table);
  REQUIRE(to_vector(y.value()) == std::vector<double>{5, 6, 1, 2, 5, 6});
  backward(y, Tensor<double>({3, 2}, {1, 10, 2, 20, 4, 40}));
  REQUIRE(to_vector(table.grad()) == std::vector<double>{2, 20, 0, 0, 5, 50});
}

TEST_CASE("embedding: the reference gradient matches the complex step", "[ops][embedding]") {
  const std::vector<int> ids = {3, 0, 3, 1};
  const auto table = normal(4 * 3, 1), dy = normal(4 * 3, 2);
  const auto want = complex_step_grad(
      [&](const auto& z) { return dot(dy, reference::embedding(ids, z, 3)); }, table);
  REQUIRE(compare(reference::embedding_backward(ids, dy, 4, 3), want, 1e-14, 1e-14).count == 0);
}

namespace {

template <class T, class E>
void check_embedding(std::int64_t n, std::int64_t h) {
  constexpr std::int64_t kVocabulary = 11;
  std::vector<int> ids;
  for (std::int64_t i = 0; i < n; ++i) ids.push_back(i % 3 == 0 ? 4 : static_cast<int>(i * 7 % 10));
  const auto rows = normal_of<E>(kVocabulary * h, 1), dy = normal_of<T>(n * h, 2);
  const double t = tol<T>(1);
  const auto table = parameter(make_tensor<E>({kVocabulary, h}, rows));
  const auto y = embedding<T>(Tensor<std::int32_t>(Shape{n}, {ids.begin(), ids.end()}), table);
  const Mismatch value = compare(to_vector(y.value()), reference::embedding(ids, rows, h), 0, t);
  backward(y, make_tensor<T>({n, h}, dy));
  REQUIRE(table.grad().dtype() == dtype_of<E>::value);
  const auto want = reference::embedding_backward(ids, dy, kVocabulary, h);
  const double sum = tol<acc_t<T>>(n);
  const double rounding = std::max(sum, tol(dtype_of<E>::value, 1));
  const Mismatch grad = compare(to_vector(table.grad()), want, 4 * sum, rounding);
  INFO("y: " << value << "; dtable: " << grad);
  REQUIRE(value.count == 0);
  REQUIRE(grad.count == 0);
}

}  // namespace

TEST_CASE("embedding: activations and tables of every type", "[ops][embedding]") {
  const std::int64_t n = GENERATE(0, 1, 40), h = GENERATE(1, 19);
  for_each_isa([&] {
    check_embedding<float, float>(n, h);
    check_embedding<bf16, bf16>(n, h);
    check_embedding<bf16, float>(n, h);
    check_embedding<double, double>(n, h);
  });
  check_embedding<float, float>(30, 1100);
}

TEMPLATE_TEST_CASE("embedding: a frozen table may be stored in any float type", "[ops][embedding]",
                   float, bf16) {
  const Tensor<std::int32_t> ids({2}, {1, 2});
  const std::vector<double> rows = {1, 2, 3, 4, 5, 6}, want = {3, 4, 5, 6};
  const auto y = [&](AnyTensor table) {
    return to_vector(embedding<TestType>(ids, AnyVar(std::move(table))).value());
  };
  REQUIRE(y(make_tensor<bf16>({3, 2}, rows)) == want);
  REQUIRE(y(make_tensor<f16>({3, 2}, rows)) == want);
  REQUIRE(y(make_tensor<double>({3, 2}, rows)) == want);
}

TEST_CASE("embedding: the number of threads changes no bit", "[ops][embedding]") {
  const auto dy = normal(300 * 700, 2);
  std::vector<std::int32_t> ids;
  for (int i = 0; i < 300; ++i) ids.push_back(i % 5 < 3 ? 1 : i);
  require_same_bits_for_any_threads([&] {
    const auto table = parameter(Tensor<float>(Shape{300, 700}, 1.0f));
    const auto rows = embedding<bf16>(Tensor<std::int32_t>(Shape{300}, ids), table);
    backward(rows, make_tensor<bf16>({300, 700}, dy));
    return std::vector<AnyTensor>{rows.value(), table.grad()};
  });
}

TEST_CASE("embedding: NaN stays in its row", "[ops][embedding]") {
  const auto table = parameter(Tensor<float>({3, 2}, {1, NAN, 3, 4, 5, 6}));
  const auto y = embedding<bf16>(Tensor<std::int32_t>({2}, {0, 1}), table);
  backward(y, make_tensor<bf16>({2, 2}, {1, 2, 3, NAN}));
  const auto v = to_vector(y.value()), d = to_vector(table.grad());
  REQUIRE((v[0] == 1 && std::isnan(v[1]) && v[2] == 3 && v[3] == 4));
  REQUIRE((d[0] == 1 && d[1] == 2 && d[2] == 3 && std::isnan(d[3]) && d[4] == 0));
}

TEST_CASE("embedding: wrong arguments name both values", "[ops][embedding]") {
  const AnyVar table(Tensor<float>({2, 3}, 1.f)), flat(Tensor<float>({6}, 1.f));
  REQUIRE_THROWS_WITH(embedding<float>(Tensor<std::int32_t>({2}, {0, 9}), table),
                      "embedding: id 9 at position 1, the table has 2 rows");
  REQUIRE_THROWS_WITH(embedding<float>(Tensor<std::int32_t>({1}, 0), flat),
                      "embedding: table is [6], expected [vocabulary, hidden]");
  const auto stored = parameter(make_tensor<f16>({2, 1}, {1, 2}));
  REQUIRE_THROWS_WITH(embedding<bf16>(Tensor<std::int32_t>({1}, 0), stored),
                      "embedding: the table is f16 and wants a gradient; only f32 and the type of "
                      "y, bf16, can be trained");
}

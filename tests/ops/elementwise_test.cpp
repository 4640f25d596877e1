// SPDX-License-Identifier: Apache-2.0
// add, scale, sum, mean, reshape, embedding.
#include <espalier/ops/add.hpp>
#include <espalier/ops/embedding.hpp>
#include <espalier/ops/reshape.hpp>
#include <espalier/ops/sum.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("add, scale, sum, mean: values and gradients by hand", "[ops][elementwise]") {
  const auto a = parameter(Tensor<double>({2, 2}, {1, 2, 3, 4}));
  const auto b = parameter(Tensor<double>({2, 2}, {10, 20, 30, 40}));
  const auto y = add(scale(a, 3), b);
  REQUIRE(to_vector(y.value()) == std::vector<double>{13, 26, 39, 52});
  const auto total = sum(y);
  REQUIRE(total.value()[0] == 130);
  REQUIRE(mean(y).value()[0] == 32.5);
  backward(total, Tensor<double>({1}, {2.0}));
  REQUIRE(to_vector(a.grad()) == std::vector<double>(4, 6.0));
  REQUIRE(to_vector(b.grad()) == std::vector<double>(4, 2.0));
}

TEST_CASE("add: a value used twice collects both gradients", "[ops][elementwise]") {
  const auto a = parameter(Tensor<double>({3}, {1, 2, 3}));
  const auto y = add(a, a);
  backward(sum(add(y, a)));
  REQUIRE(to_vector(a.grad()) == std::vector<double>(3, 3.0));
}

TEST_CASE("reshape: shares the memory and gives the gradient its old shape", "[ops][elementwise]") {
  const auto a = parameter(Tensor<float>({2, 3}, {1, 2, 3, 4, 5, 6}));
  const auto y = reshape(a, {3, 2});
  REQUIRE(y.value().data() == a.value().data());
  backward(sum(scale(y, 2)));
  REQUIRE(a.grad().shape() == Shape{2, 3});
  REQUIRE(to_vector(a.grad()) == std::vector<double>(6, 2.0));
  REQUIRE_THROWS_WITH(reshape(a, {4, 2}), "reshape: [2, 3] holds 6 elements, [4, 2] needs 8");
}

TEST_CASE("embedding: rows of the table, and a repeated id adds up", "[ops][elementwise]") {
  const auto table = parameter(Tensor<double>({3, 2}, {1, 2, 3, 4, 5, 6}));
  const auto y = embedding<double>(Tensor<std::int32_t>({3}, {2, 0, 2}), table);
  REQUIRE(to_vector(y.value()) == std::vector<double>{5, 6, 1, 2, 5, 6});
  backward(y, Tensor<double>({3, 2}, {1, 10, 2, 20, 4, 40}));
  REQUIRE(to_vector(table.grad()) == std::vector<double>{2, 20, 0, 0, 5, 50});
  const AnyVar stored(make_tensor<bf16>({3, 2}, {1, 2, 3, 4, 5, 6}));
  const auto widened = embedding<float>(Tensor<std::int32_t>({1}, {1}), stored);
  REQUIRE(to_vector(widened.value()) == std::vector<double>{3, 4});
}

TEST_CASE("elementwise ops: wrong arguments name both values", "[ops][elementwise]") {
  const Var<float> a(Tensor<float>({2, 3}, 1.f)), b(Tensor<float>({3, 2}, 1.f));
  REQUIRE_THROWS_WITH(add(a, b), "add: a is [2, 3], b is [3, 2]");
  REQUIRE_THROWS_WITH(scale(a, INFINITY), "scale: factor is inf, expected a finite number");
  REQUIRE_THROWS_WITH(mean(Var<float>(Tensor<float>({0, 3}))),
                      "mean: x is [0, 3], expected an element");
  REQUIRE_THROWS_WITH(embedding<float>(Tensor<std::int32_t>({2}, {0, 9}), a),
                      "embedding: id 9 at position 1, the table has 2 rows");
}

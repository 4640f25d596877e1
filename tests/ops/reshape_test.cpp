// SPDX-License-Identifier: Apache-2.0
// reshape: the same memory in another shape.
#include <espalier/ops/reshape.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("reshape: shares the memory and gives the gradient its old shape",
                   "[ops][reshape]", float, bf16) {
  const auto a = parameter(make_tensor<TestType>({2, 3}, {1, 2, 3, 4, 5, 6}));
  const auto y = reshape(a, {3, 2});
  REQUIRE(y.value().data() == a.value().data());
  backward(y, make_tensor<TestType>({3, 2}, {1, 2, 3, 4, 5, 6}));
  REQUIRE(a.grad().shape() == Shape{2, 3});
  REQUIRE(to_vector(a.grad()) == std::vector<double>{1, 2, 3, 4, 5, 6});
  REQUIRE_THROWS_WITH(reshape(a, {4, 2}), "reshape: [2, 3] holds 6 elements, [4, 2] needs 8");
}

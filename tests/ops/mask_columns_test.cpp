// SPDX-License-Identifier: Apache-2.0
// mask_columns by hand.
#include <espalier/ops/mask_columns.hpp>

#include <limits>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

}  // namespace

TEMPLATE_TEST_CASE("mask_columns: dropped columns are minus infinity and pass no gradient",
                   "[ops][mask_columns]", float, bf16, double) {
  const auto x = parameter(make_tensor<TestType>({2, 3}, {1, NAN, 3, 4, 5, 6}));
  const auto y = mask_columns(x, {true, false, true});
  REQUIRE(to_vector(y.value()) == std::vector<double>{1, -kInf, 3, 4, -kInf, 6});
  backward(y);
  REQUIRE(to_vector(x.grad()) == std::vector<double>{1, 0, 1, 1, 0, 1});
  const Var<TestType> none(Tensor<TestType>(Shape{0, 2}));
  REQUIRE(mask_columns(none, {true, false}).shape() == Shape{0, 2});
}

TEST_CASE("mask_columns: a mask of another width is refused", "[ops][mask_columns]") {
  REQUIRE_THROWS_WITH(mask_columns(Var<float>(Tensor<float>({2, 3}, 1.f)), {true}),
                      "mask_columns: x is [2, 3], the mask has 1 columns");
}

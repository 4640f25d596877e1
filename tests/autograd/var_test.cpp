// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/sum.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("backward: misuse is refused", "[autograd][var]") {
  const Var<float> constant(Tensor<float>({1}, 1.f));
  REQUIRE_THROWS_WITH(backward(constant), "backward: the value does not depend on any parameter");
  const auto a = parameter(Tensor<float>({2}, 1.f));
  const auto y = sum(a);
  REQUIRE_THROWS_WITH(backward(y, Tensor<float>({2}, 1.f)),
                      "backward: the value is [1], its gradient [2]");
  backward(y);
  REQUIRE_THROWS_WITH(backward(y),
                      "backward: the graph through 'sum' was already swept; run the forward again");
  const NoGrad no_grad;
  REQUIRE(!sum(a).requires_grad());
}

// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/cast.hpp>

#include <limits>

#include "support/catch.hpp"
#include "support/each.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

/// Both directions are exact or one rounding: the same bits as the conversion of a whole tensor.
template <class From, class To>
void check(std::int64_t n) {
  CAPTURE(n);
  const auto x = parameter(make_tensor<From>({n}, normal_of<From>(n, 1)));
  const auto dy = make_tensor<To>({n}, normal(n, 2, 1.001));
  const Var<To> y = cast<To>(x);
  REQUIRE(same_bits(y.value(), converted<To>(x.value())));
  backward(y, dy);
  REQUIRE(same_bits(x.grad(), converted<From>(dy)));
}

}  // namespace

TEST_CASE("cast: the values and the gradient in the other type", "[ops][cast]") {
  const std::int64_t n = GENERATE(0, 1, 5, 64, 70003);
  for_each_isa([&] {
    check<float, bf16>(n);
    check<bf16, float>(n);
    check<float, double>(n);
    check<double, float>(n);
    check<double, bf16>(n);
    check<bf16, double>(n);
  });
}

TEST_CASE("cast: rounds to nearest even; infinity and NaN stay", "[ops][cast]") {
  constexpr float kInf = std::numeric_limits<float>::infinity();
  const Var<float> x(Tensor<float>({6}, {1 + 0x1p-8f, 1 + 0x3p-8f, 3.4e38f, -kInf, NAN, -0.0f}));
  const auto y = to_vector(cast<bf16>(x).value());
  REQUIRE((y[0] == 1 && y[1] == 1 + 0x1p-6 && y[2] == kInf && y[3] == -kInf));
  REQUIRE(std::isnan(y[4]));
  REQUIRE((y[5] == 0 && std::signbit(y[5])));
}

TEST_CASE("cast: to its own type is the value itself", "[ops][cast]") {
  const auto x = parameter(Tensor<float>({3}, 2.0f));
  const auto y = cast<float>(x);
  REQUIRE(y.value().data() == x.value().data());
  REQUIRE(y.node() == x.node());
}

TEST_CASE("cast: the number of threads changes no bit", "[ops][cast]") {
  const auto values = normal(200003, 1);
  require_same_bits_for_any_threads([&] {
    const auto x = parameter(make_tensor<float>({200003}, values));
    const auto y = cast<bf16>(x);
    backward(y, y.value());
    return std::vector<AnyTensor>{y.value(), x.grad()};
  });
}

TEST_CASE("cast: a gradient of the old type is refused", "[ops][cast]") {
  const auto x = parameter(Tensor<float>({2}, 1.0f));
  REQUIRE_THROWS_WITH(backward(cast<bf16>(x), Tensor<float>({2}, 1.0f)),
                      "backward: the value is bf16, its gradient f32");
}

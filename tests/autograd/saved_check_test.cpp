// SPDX-License-Identifier: Apache-2.0
#include <espalier/autograd/saved_check.hpp>
#include <espalier/ops/mul.hpp>
#include <espalier/ops/rms_norm.hpp>
#include <espalier/ops/scale.hpp>
#include <espalier/ops/sum.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

Var<float> leaf(std::int64_t n) {
  return parameter(make_tensor<float>({n}, normal(n, 1)));
}

}  // namespace

TEST_CASE("CheckSaved: a value written between forward and backward is found",
          "[autograd][saved_check]") {
  const std::int64_t n = GENERATE(1, 3, 8, 1001), at = GENERATE(0, 1, 2);
  CAPTURE(n, at);
  const CheckSaved check;
  const auto w = leaf(n);
  const auto y = sum(mul(w, w));
  auto value = w.value();
  value[at == 0 ? 0 : at == 1 ? n / 2 : n - 1] += 1;
  REQUIRE_THROWS_WITH(
      backward(y), "mul backward: saved tensor 0, f32[" + std::to_string(n) +
                       "], was written after forward, so the gradient would be wrong; write to a "
                       "clone(), or after backward");
}

TEST_CASE("CheckSaved: ops of a list of inputs too", "[autograd][saved_check]") {
  const CheckSaved check;
  const auto x = parameter(make_tensor<float>({2, 4}, normal(8, 1))), gain = leaf(4);
  const auto y = rms_norm(x, gain, 1e-5f);
  gain.value().data()[3] = 0;
  REQUIRE_THROWS_WITH(backward(y, Tensor<float>({2, 4}, 1.0f)),
                      Catch::StartsWith("rms_norm backward: saved tensor 1, f32[4], was written"));
}

TEST_CASE("CheckSaved: what is not written, or only afterwards, passes with the same bits",
          "[autograd][saved_check]") {
  const auto gradient = [](const Var<float>& w) {
    backward(sum(mul(w, scale(w, 3))));
    return w.grad();
  };
  const auto plain = gradient(leaf(100));
  const CheckSaved check;
  const auto w = leaf(100);
  REQUIRE(same_bits(gradient(w), plain));
  w.value()[7] = 100;  // nothing waits for it
  auto same = w.value();
  const auto y = sum(mul(w, w));
  same[7] = 100;  // the value that it had
  backward(y);
  // A value of which only the shape is saved may be written.
  const auto total = sum(w);
  same[7] = 5;
  backward(total);
  REQUIRE(to_vector(w.grad()).size() == 100);
}

TEST_CASE("CheckSaved: looks at graphs of its lifetime alone", "[autograd][saved_check]") {
  const auto w = leaf(3);
  const auto before = sum(mul(w, w));
  {
    const CheckSaved check;
    const CheckSaved nested;
  }
  const auto after = sum(mul(w, w));
  auto value = w.value();
  value[0] = 100;
  {
    const CheckSaved check;
    REQUIRE_NOTHROW(backward(before));
  }
  REQUIRE_NOTHROW(backward(after));
}

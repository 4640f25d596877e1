// SPDX-License-Identifier: Apache-2.0
// narrow, pad_last.
#include <espalier/ops/narrow.hpp>
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

/// y and dx of a function of x.
template <class T, class F>
std::vector<AnyTensor> run(Shape shape, const std::vector<double>& x, F f) {
  const auto v = parameter(make_tensor<T>(shape, x));
  const auto y = f(v);
  backward(y, make_tensor<T>(y.shape(), normal_of<T>(y.shape().numel(), 3)));
  return {y.value(), v.grad()};
}

}  // namespace

TEST_CASE("narrow, pad_last: values and gradients by hand", "[ops][narrow]") {
  const auto x = parameter(Tensor<double>({2, 3}, {1, 2, 3, 4, 5, 6}));
  const auto y = narrow(x, 1, 2);
  REQUIRE(y.shape() == Shape{2, 2});
  REQUIRE(to_vector(y.value()) == std::vector<double>{2, 3, 5, 6});
  const auto padded = pad_last(y, 4);
  REQUIRE(padded.shape() == Shape{2, 4});
  REQUIRE(to_vector(padded.value()) == std::vector<double>{2, 3, 0, 0, 5, 6, 0, 0});
  backward(padded, Tensor<double>({2, 4}, {10, 20, 30, 40, 50, 60, 70, 80}));
  REQUIRE(to_vector(x.grad()) == std::vector<double>{0, 10, 20, 0, 50, 60});
}

TEST_CASE("narrow, pad_last: the reference gradients match the complex step", "[ops][narrow]") {
  const auto x = normal(10, 1), short_dy = normal(4, 2), long_dy = normal(14, 3);
  const auto of_narrow = complex_step_grad(
      [&](const auto& z) { return dot(short_dy, reference::narrow(z, 2, 5, 1, 2)); }, x);
  REQUIRE(compare(reference::widen(short_dy, 2, 2, 1, 5), of_narrow, 0, 1e-15).count == 0);
  const auto of_pad = complex_step_grad(
      [&](const auto& z) { return dot(long_dy, reference::widen(z, 2, 5, 0, 7)); }, x);
  REQUIRE(compare(reference::narrow(long_dy, 2, 7, 0, 5), of_pad, 0, 1e-15).count == 0);
}

TEMPLATE_TEST_CASE("narrow, pad_last: exactly the reference", "[ops][narrow]", float, bf16,
                   double) {
  using T = TestType;
  const auto shape = GENERATE(Shape{7}, Shape{0, 5}, Shape{4, 1}, Shape{3, 2, 40}, Shape{3, 0});
  std::int64_t rows = 1;
  const std::int64_t width = shape[-1];
  for (int i = 0; i + 1 < shape.rank(); ++i) rows *= shape[i];
  CAPTURE(shape);
  const auto x = normal_of<T>(shape.numel(), 1);
  for (const std::int64_t begin : {std::int64_t{0}, width / 3, width}) {
    for (const std::int64_t length : {std::int64_t{0}, (width - begin) / 2, width - begin}) {
      const auto got = run<T>(shape, x, [&](const auto& v) { return narrow(v, begin, length); });
      REQUIRE(to_vector(got[0]) == reference::narrow(x, rows, width, begin, length));
      REQUIRE(got[1].shape() == shape);
      REQUIRE(to_vector(got[1]) ==
              reference::widen(normal_of<T>(rows * length, 3), rows, length, begin, width));
    }
  }
  for (const std::int64_t wider : {width, width + 1, width + 33}) {
    const auto got = run<T>(shape, x, [&](const auto& v) { return pad_last(v, wider); });
    REQUIRE(to_vector(got[0]) == reference::widen(x, rows, width, 0, wider));
    REQUIRE(to_vector(got[1]) ==
            reference::narrow(normal_of<T>(rows * wider, 3), rows, wider, 0, width));
  }
}

TEST_CASE("narrow, pad_last: NaN is copied", "[ops][narrow]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Var<float> x(Tensor<float>({1, 3}, {nan, 1, nan}));
  const auto y = pad_last(narrow(x, 0, 2), 3).value();
  REQUIRE((std::isnan(y[0]) && y[1] == 1 && y[2] == 0));
}

TEST_CASE("narrow, pad_last: the number of threads changes no bit", "[ops][narrow]") {
  const auto x = normal(2000 * 70, 1);
  require_same_bits_for_any_threads([&] {
    return run<bf16>({2000, 70}, x, [](const auto& v) { return pad_last(narrow(v, 3, 60), 64); });
  });
}

TEST_CASE("narrow, pad_last: refuse columns that are not there", "[ops][narrow]") {
  const Var<float> x(Tensor<float>({2, 5}, 1.0f));
  REQUIRE_THROWS_WITH(narrow(x, 3, 4), "narrow: x is [2, 5], asked for 4 columns from 3 on");
  REQUIRE_THROWS_WITH(narrow(x, -1, 2), "narrow: x is [2, 5], asked for 2 columns from -1 on");
  REQUIRE_THROWS_WITH(narrow(x, 0, -1), "narrow: x is [2, 5], asked for -1 columns from 0 on");
  REQUIRE_THROWS_WITH(pad_last(x, 4), "pad_last: x is [2, 5], asked for a width of 4");
}

// SPDX-License-Identifier: Apache-2.0
// The choice of the next token against probabilities computed by hand.
#include <espalier/core/random.hpp>
#include <espalier/infer/sampling.hpp>

#include "support/catch.hpp"

using namespace espalier;
using namespace espalier::infer;

TEST_CASE("sampling: at temperature 0 the best token, among equals the first", "[infer]") {
  const Tensor<float> logits(Shape{4}, {1, 3, 3, -1});
  for (const double u : {0.0, 0.5, 0.999}) CHECK(sample(logits, {0, 1}, u) == 1);
}

TEST_CASE("sampling: the uniform number runs through the tokens by their probability", "[infer]") {
  // Probabilities 0.4, 0.1, 0.3, 0.2; in falling order 0, 2, 3, 1.
  const Tensor<float> logits(Shape{4},
                             {std::log(4.0f), std::log(1.0f), std::log(3.0f), std::log(2.0f)});
  const auto at = [&](double u, double top_p) { return sample(logits, {1, top_p}, u); };
  CHECK(at(0.0, 1) == 0);
  CHECK(at(0.399, 1) == 0);
  CHECK(at(0.401, 1) == 2);
  CHECK(at(0.699, 1) == 2);
  CHECK(at(0.701, 1) == 3);
  CHECK(at(0.899, 1) == 3);
  CHECK(at(0.901, 1) == 1);
  CHECK(at(0.99, 0.65) == 2);  // 0 and 2 reach 0.7: shares 4/7 and 3/7
  CHECK(at(0.57, 0.65) == 0);
  CHECK(at(0.58, 0.65) == 2);
  CHECK(at(0.99, 0.1) == 0);
  // At temperature 1/2 probabilities are squared: 16, 1, 9, 4 of 30.
  CHECK(sample(logits, {0.5, 1}, 0.53) == 0);
  CHECK(sample(logits, {0.5, 1}, 0.54) == 2);
}

TEST_CASE("sampling: logits that are not finite are refused, wherever they stand", "[infer]") {
  const float nan = std::nanf(""), inf = std::numeric_limits<float>::infinity();
  for (const float bad : {nan, -nan, inf, -inf}) {
    for (std::int64_t at = 0; at < 4; ++at) {
      const Tensor<float> logits(Shape{4}, {1, 3, 2, -1});
      logits.data()[at] = bad;
      for (const double temperature : {0.0, 1.0}) {
        CHECK_THROWS_WITH(
            (void)sample(logits, {temperature, 0.9}, 0.5),
            Catch::StartsWith("the model's output is ") && Catch::Contains("not a finite number"));
      }
    }
  }
  const std::vector<double> fine = {-1e300, 1e300, 1e300};
  CHECK(most_likely(std::span<const double>(fine)) == 1);
}

TEST_CASE("sampling: draws have the softmax's frequencies", "[infer]") {
  const Tensor<float> logits(Shape{3}, {0.5f, -1.0f, 1.5f});
  double expected[3], all = 0;
  for (int i = 0; i < 3; ++i) all += expected[i] = std::exp(static_cast<double>(logits[i]));
  const Philox random(7, 1);
  constexpr int kDraws = 20000;
  double count[3] = {};
  for (std::uint64_t i = 0; i < kDraws; ++i) ++count[sample(logits, {1, 1}, random.uniform(i))];
  for (int i = 0; i < 3; ++i) {
    const double p = expected[i] / all;
    CHECK(std::abs(count[i] - kDraws * p) < 5 * std::sqrt(kDraws * p * (1 - p)));
  }
}

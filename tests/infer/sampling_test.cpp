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

namespace {

/// Logits whose softmax is 0.4, 0.1, 0.3, 0.2.
Tensor<float> four_to_two() {
  return Tensor<float>(Shape{4}, {std::log(4.0f), std::log(1.0f), std::log(3.0f), std::log(2.0f)});
}

SamplingOptions drawing() {
  SamplingOptions options;
  options.temperature = 1;
  return options;
}

}  // namespace

TEST_CASE("sampling: top-k draws from the k likeliest, and those that equal the last of them",
          "[infer]") {
  SamplingOptions options = drawing();
  options.top_k = 2;  // 0.4 and 0.3: shares 4/7 = 0.5714 and 3/7
  const auto at = [&](double u) { return sample(four_to_two(), options, u); };
  CHECK(at(0.0) == 0);
  CHECK(at(0.57) == 0);
  CHECK(at(0.58) == 2);
  CHECK(at(0.999) == 2);
  options.top_k = 1;
  CHECK(at(0.999) == 0);
  for (const std::int64_t all : {0, 4, 9}) {
    options.top_k = all;
    CHECK(at(0.999) == 1);
  }
  const Tensor<float> equals(Shape{4}, {1, 0, 1, 1});  // the third equals the second
  options.top_k = 2;
  CHECK(sample(equals, options, 0.32) == 0);
  CHECK(sample(equals, options, 0.34) == 2);
  CHECK(sample(equals, options, 0.999) == 3);
}

TEST_CASE("sampling: min-p draws from what is likely enough beside the likeliest", "[infer]") {
  SamplingOptions options = drawing();
  options.min_p = 0.6;  // of 0.4: 0.24 keeps 0.4 and 0.3
  CHECK(sample(four_to_two(), options, 0.58) == 2);
  CHECK(sample(four_to_two(), options, 0.999) == 2);
  options.min_p = 0.4;  // 0.16 keeps 0.2 too: shares 4/9, 3/9, 2/9
  CHECK(sample(four_to_two(), options, 0.77) == 2);
  CHECK(sample(four_to_two(), options, 0.79) == 3);
  CHECK(sample(four_to_two(), options, 0.999) == 3);
  options.min_p = 1;
  CHECK(sample(four_to_two(), options, 0.999) == 0);
}

TEST_CASE("sampling: temperature comes first, and top-p counts what top-k left", "[infer]") {
  SamplingOptions options = drawing();
  options.top_k = 3;     // 0.4, 0.3, 0.2 of 0.9
  options.top_p = 0.75;  // 0.675: reached by 0.4 and 0.3; of all tokens 0.75 would take three
  CHECK(sample(four_to_two(), options, 0.999) == 2);
  options.top_k = 0;
  CHECK(sample(four_to_two(), options, 0.999) == 3);
  // At temperature 1/2 the weights are 16, 1, 9, 4: 4 is a quarter of 16, 0.2 half of 0.4.
  options = drawing();
  options.min_p = 0.3;
  CHECK(sample(four_to_two(), options, 0.999) == 3);
  options.temperature = 0.5;
  CHECK(sample(four_to_two(), options, 0.999) == 2);
}

TEST_CASE("sampling: a repetition penalty divides positive logits and multiplies negative ones",
          "[infer]") {
  std::vector<float> logits = {3, -1, 0, 2, -4};
  const std::vector<std::int32_t> seen = {1, 0, 0, 2, 0};  // each counts once
  penalize_repetition(logits, seen, 1.5);
  CHECK(logits == std::vector<float>{2, -1.5f, 0, 2, -4});
  penalize_repetition(logits, seen, 1);
  CHECK(logits == std::vector<float>{2, -1.5f, 0, 2, -4});
  penalize_repetition(logits, std::vector<std::int32_t>{4, 3}, 0.5);
  CHECK(logits == std::vector<float>{2, -1.5f, 0, 4, -2});
}

TEST_CASE("sampling: log probabilities are the model's, likeliest first", "[infer]") {
  // A constant added to all logits changes nothing.
  const std::vector<float> logits = {std::log(4.0f) + 50, std::log(1.0f) + 50, std::log(3.0f) + 50,
                                     std::log(2.0f) + 50};
  const auto found = log_probs_of(logits, 3, 2);
  REQUIRE(found.size() == 3);
  const std::int32_t ids[] = {3, 0, 2};
  const double p[] = {0.2, 0.4, 0.3};
  for (std::size_t i = 0; i < 3; ++i) {
    CHECK(found[i].id == ids[i]);
    CHECK_THAT(found[i].log_prob, Catch::WithinAbs(std::log(p[i]), 5e-6));
  }
  CHECK(log_probs_of(logits, 1, 0).size() == 1);
  CHECK(log_probs_of(logits, 1, 9).size() == 5);
  const auto equals = log_probs_of(std::vector<float>{1, 2, 2}, 0, 2);
  CHECK(equals[1].id == 1);
  CHECK(equals[2].id == 2);
}

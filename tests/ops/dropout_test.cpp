// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/dropout.hpp>
#include <espalier/ops/reference/dropout.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

template <class T>
std::vector<AnyTensor> run(std::int64_t n, float p, std::uint64_t seed, std::uint64_t stream) {
  const auto x = parameter(make_tensor<T>({n}, normal_of<T>(n, 1)));
  const auto y = dropout(x, p, seed, stream);
  backward(y, make_tensor<T>({n}, normal_of<T>(n, 2)));
  return {y.value(), x.grad()};
}

}  // namespace

TEST_CASE("dropout: the reference gradient matches the complex step", "[ops][dropout]") {
  const auto x = normal(50, 1), dy = normal(50, 2);
  const auto of_x = complex_step_grad(
      [&](const auto& z) { return dot(dy, reference::dropout(z, 0.3f, 5, 6)); }, x);
  REQUIRE(compare(reference::dropout(dy, 0.3f, 5, 6), of_x, 1e-15, 1e-14).count == 0);
}

TEMPLATE_TEST_CASE("dropout: values and gradients match the reference", "[ops][dropout]", float,
                   bf16, double) {
  const std::int64_t n = GENERATE(0, 1, 3, 4, 7, 64, 70001);
  const float p = GENERATE(0.05f, 0.5f, 0.9f);
  CAPTURE(n, p);
  const auto y = reference::dropout(normal_of<TestType>(n, 1), p, 3, 4);
  const auto dx = reference::dropout(normal_of<TestType>(n, 2), p, 3, 4);
  const double t = tol<TestType>(1);
  for_each_isa([&] {
    const auto got = run<TestType>(n, p, 3, 4);
    REQUIRE(compare(to_vector(got[0]), y, 0, t).count == 0);
    REQUIRE(compare(to_vector(got[1]), dx, 0, t).count == 0);
  });
}

TEMPLATE_TEST_CASE("dropout: every instruction set draws the same mask", "[ops][dropout]", float,
                   bf16) {
  constexpr std::uint64_t kSeed = 0xfedcba9876543210u, kStream = 0x123456789abcdef0u;
  const auto best = run<TestType>(5003, 0.3f, kSeed, kStream);
  const auto y = reference::dropout(normal_of<TestType>(5003, 1), 0.3f, kSeed, kStream);
  REQUIRE(compare(to_vector(best[0]), y, 0, tol<TestType>(1)).count == 0);
  for_each_isa([&] { REQUIRE(same_bits(best[0], run<TestType>(5003, 0.3f, kSeed, kStream)[0])); });
}

TEST_CASE("dropout: the mask does not depend on the type", "[ops][dropout]") {
  const auto f = to_vector(dropout(Var<float>(Tensor<float>({999}, 1.f)), 0.4f, 5, 6).value());
  const Var<bf16> ones(make_tensor<bf16>({999}, std::vector<double>(999, 1)));
  const auto b = to_vector(dropout(ones, 0.4f, 5, 6).value());
  for (std::size_t i = 0; i < f.size(); ++i) REQUIRE((f[i] == 0) == (b[i] == 0));
}

TEST_CASE("dropout: a dropped NaN is gone, a kept one stays", "[ops][dropout]") {
  const auto ones = to_vector(dropout(Var<float>(Tensor<float>({99}, 1.f)), 0.5f, 1, 2).value());
  const auto nans = to_vector(dropout(Var<float>(Tensor<float>({99}, NAN)), 0.5f, 1, 2).value());
  for (std::size_t i = 0; i < ones.size(); ++i) REQUIRE(std::isnan(nans[i]) == (ones[i] != 0));
}

TEST_CASE("dropout: block numbers beyond 32 bits keep their order", "[ops][dropout]") {
  for (const std::uint64_t first : {std::uint64_t{0}, std::uint64_t{0xfffffffa}}) {
    std::vector<std::uint32_t> words(4 * 75);
    simd::dispatch([&]<int W>() { cpu::philox_words<W>(7, 8, first, 75, words.data()); });
    for (std::uint64_t i = 0; i < words.size(); ++i) {
      REQUIRE(words[i] == Philox(7, 8).bits(4 * first + i));
    }
  }
}

TEST_CASE("dropout: drops the share it was asked to and keeps the mean", "[ops][dropout]") {
  const float p = GENERATE(0.1f, 0.5f);
  constexpr std::int64_t kCount = 200000;
  const auto y = dropout(Var<float>(Tensor<float>({kCount}, 1.0f)), p, 11, 0).value();
  double dropped = 0, sum = 0;
  for (const float v : y.span()) {
    dropped += v == 0.0f;
    sum += v;
  }
  const double sigma = std::sqrt(p * (1 - p) / kCount);
  REQUIRE(std::abs(dropped / kCount - p) <= 4 * sigma);
  REQUIRE(std::abs(sum / kCount - 1) <= 4 * sigma / (1 - p));
}

TEST_CASE("dropout: streams and seeds give other masks, repetition the same", "[ops][dropout]") {
  const AnyTensor a = run<float>(1000, 0.5f, 1, 1)[0];
  REQUIRE(same_bits(a, run<float>(1000, 0.5f, 1, 1)[0]));
  REQUIRE_FALSE(same_bits(a, run<float>(1000, 0.5f, 1, 2)[0]));
  REQUIRE_FALSE(same_bits(a, run<float>(1000, 0.5f, 2, 1)[0]));
}

TEST_CASE("dropout: p = 0 is the value itself", "[ops][dropout]") {
  const auto x = parameter(Tensor<float>({3}, 2.0f));
  const auto y = dropout(x, 0.0f, 1, 1);
  REQUIRE(y.value().data() == x.value().data());
  REQUIRE(y.node() == x.node());
}

TEMPLATE_TEST_CASE("dropout: the number of threads changes no bit", "[ops][dropout]", float, bf16) {
  require_same_bits_for_any_threads([] { return run<TestType>(100003, 0.25f, 9, 9); });
}

TEST_CASE("dropout: refuses a probability outside [0, 1)", "[ops][dropout]") {
  const Var<float> x(Tensor<float>({3}, 2.0f));
  REQUIRE_THROWS_WITH(dropout(x, 1.0f, 1, 1), "dropout: p is 1, expected 0 <= p < 1");
  REQUIRE_THROWS_AS(dropout(x, -0.5f, 1, 1), Error);
  REQUIRE_THROWS_AS(dropout(x, std::numeric_limits<float>::quiet_NaN(), 1, 1), Error);
}

// SPDX-License-Identifier: Apache-2.0
#include <espalier/ops/reference/rope.hpp>
#include <espalier/ops/rope.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

std::vector<std::int32_t> some_positions(std::int64_t n) {
  std::vector<std::int32_t> positions;
  for (std::int64_t i = 0; i < n; ++i)
    positions.push_back(static_cast<std::int32_t>(i * 37 % 4096));
  return positions;
}

template <class T>
std::vector<AnyTensor> run(Shape shape, const RopeConfig& config, const std::vector<double>& x,
                           const std::vector<double>& dy) {  // y, dx
  const auto v = parameter(make_tensor<T>(shape, x));
  const Tensor<std::int32_t> positions({shape[0]}, some_positions(shape[0]));
  const auto y = rope(v, positions, config);
  backward(y, make_tensor<T>(shape, dy));
  return {y.value(), v.grad()};
}

template <class T>
void check_against_reference(Shape shape, const RopeConfig& config) {
  const auto x = normal_of<T>(shape.numel(), 1), dy = normal_of<T>(shape.numel(), 2);
  const auto positions = some_positions(shape[0]);
  const auto got = run<T>(shape, config, x, dy);
  const reference::RopeSizes z{shape[1], shape[2], config.interleaved, config.attention_factor};
  const auto frequencies =
      detail::rope_frequencies(config, config.dims > 0 ? config.dims : shape[2]);
  const double t = tol<T>(2), sum = tol<acc_t<T>>(2);
  const Mismatch y =
      compare(to_vector(got[0]), reference::rope(x, positions, z, frequencies), sum, t);
  const Mismatch dx =
      compare(to_vector(got[1]), reference::rope(dy, positions, z, frequencies, -1.0), sum, t);
  INFO("y: " << y << "; dx: " << dx);
  REQUIRE(y.count == 0);
  REQUIRE(dx.count == 0);
}

using Scaling = RopeConfig::Scaling;

RopeConfig gpt_oss() {
  RopeConfig c{.theta = 150000, .scaling = Scaling::yarn, .factor = 32};
  c.original_positions = 4096;
  c.truncate = false;
  c.attention_factor = 1.3465735902799727;
  return c;
}
RopeConfig deepseek() {
  RopeConfig c{.theta = 10000, .interleaved = true, .scaling = Scaling::yarn, .factor = 40};
  c.original_positions = 4096;
  return c;
}
RopeConfig llama3() {
  RopeConfig c{.theta = 500000, .scaling = Scaling::llama3, .factor = 8};
  c.original_positions = 8192;
  return c;
}
RopeConfig linear() {
  return {.theta = 10000, .scaling = Scaling::linear, .factor = 4};
}

/// The frequencies of some pairs: `want` of every eighth part, and of the last pair. A power of
/// fp32 may be off by an ulp here and there, and the ramp then multiplies it.
void require_frequencies(const RopeConfig& config, std::int64_t dims,
                         const std::vector<double>& want) {
  const auto f = detail::rope_frequencies(config, dims);
  REQUIRE(f.size() == static_cast<std::size_t>(dims / 2));
  std::vector<double> got;
  for (std::size_t eighth = 0; eighth < 7; ++eighth) got.push_back(f[eighth * f.size() / 8]);
  got.push_back(f.back());
  const Mismatch m = compare(got, want, 0, tol<float>(2));
  INFO(m);
  REQUIRE(m.count == 0);
}

}  // namespace

TEST_CASE("rope: a rotation by 2 by hand, pair (i, i + P/2)", "[ops][rope]") {
  const Var<double> x(Tensor<double>({2, 1, 4}, {1, 2, 3, 4, 1, 2, 3, 4}));
  const auto y = rope(x, Tensor<std::int32_t>({2}, {0, 2}), 1e4).value();
  for (int i = 0; i < 4; ++i) REQUIRE(y[i] == i + 1.0);  // position 0 is left alone
  REQUIRE(std::abs(y[4] - (1 * std::cos(2.0) - 3 * std::sin(2.0))) <= 1e-14);
  REQUIRE(std::abs(y[6] - (3 * std::cos(2.0) + 1 * std::sin(2.0))) <= 1e-14);
  const double slow = static_cast<double>(2 * 0.01f);  // 10000^(-2/4) per position
  REQUIRE(std::abs(y[5] - (2 * std::cos(slow) - 4 * std::sin(slow))) <= 1e-8);
  REQUIRE(std::abs(y[7] - (4 * std::cos(slow) + 2 * std::sin(slow))) <= 1e-8);
}

TEST_CASE("rope: the reference gradient matches the complex step", "[ops][rope]") {
  const auto x = normal(3 * 2 * 6, 1), dy = normal(3 * 2 * 6, 2);
  const auto positions = some_positions(3);
  const auto of_x = complex_step_grad(
      [&](const auto& z) { return dot(dy, reference::rope(z, positions, 2, 6, 1e4)); }, x);
  REQUIRE(compare(reference::rope(dy, positions, 2, 6, 1e4, -1.0), of_x, 1e-15, 1e-14).count == 0);
}

TEST_CASE("rope: the reference gradient of interleaved pairs in a part of the head",
          "[ops][rope]") {
  const auto x = normal(3 * 2 * 7, 1), dy = normal(3 * 2 * 7, 2);
  const auto positions = some_positions(3);
  const reference::RopeSizes z{2, 7, GENERATE(false, true), 1.3};
  const auto f = reference::rope_frequencies(4, 1e4);
  const auto of_x = complex_step_grad(
      [&](const auto& c) { return dot(dy, reference::rope(c, positions, z, f)); }, x);
  REQUIRE(compare(reference::rope(dy, positions, z, f, -1.0), of_x, 1e-15, 1e-14).count == 0);
}

// python -c 'from transformers import LlamaConfig
// from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS
// f, a = ROPE_INIT_FUNCTIONS[KIND](LlamaConfig(hidden_size=DIMS, num_attention_heads=1,
//     max_position_embeddings=131072, rope_parameters=dict(rope_type=KIND, rope_theta=...,
//     factor=..., original_max_position_embeddings=..., ...)))
// n = len(f); print(a, ["%.9g" % f[i] for i in [*range(0, 7 * n // 8, n // 8), n - 1]])'
// with transformers 5.23 and torch 2.15.
TEST_CASE("rope: scaled frequencies as transformers computes them", "[ops][rope]") {
  // factor 32, beta_fast 32, beta_slow 1, truncate False
  require_frequencies(gpt_oss(), 64,
                      {1, 0.225418001, 0.0508132726, 0.00679495931, 0.000456483918, 1.8188337e-05,
                       4.09997847e-06, 3.0235114e-07});
  // factor 40, beta_fast 32, beta_slow 1, mscale 1, mscale_all_dim 1
  require_frequencies(deepseek(), 64,
                      {1, 0.316227764, 0.100000001, 0.0268793609, 0.00550000044, 0.000790569407,
                       2.49999994e-05, 3.33380353e-06});
  // factor 8, low_freq_factor 1, high_freq_factor 4
  require_frequencies(llama3(), 128,
                      {1, 0.193922758, 0.0376060307, 0.00729266508, 0.000524846022, 3.42810235e-05,
                       6.64786967e-06, 3.06892588e-07});
  require_frequencies(linear(), 128,
                      {0.25, 0.079056941, 0.0250000004, 0.00790569466, 0.00249999994,
                       0.000790569466, 0.000250000012, 2.88695483e-05});
}

TEST_CASE("rope: scaled frequencies as the formulas in double", "[ops][rope]") {
  const std::int64_t dims = GENERATE(2, 6, 32, 64, 128);
  CAPTURE(dims);
  const auto check = [&](const RopeConfig& c, const std::vector<double>& want) {
    const auto f = detail::rope_frequencies(c, dims);
    // The exponent has an error of an ulp, which the logarithm of theta multiplies.
    const double t = tol<float>(2) * std::log(c.theta);
    const Mismatch m = compare(std::vector<double>(f.begin(), f.end()), want, 0, t);
    INFO(m);
    REQUIRE(m.count == 0);
  };
  check(gpt_oss(), reference::yarn_frequencies(dims, 150000, 32, 4096, 32, 1, false));
  check(deepseek(), reference::yarn_frequencies(dims, 10000, 40, 4096, 32, 1, true));
  check(llama3(), reference::llama3_frequencies(dims, 500000, 8, 8192, 1, 4));
}

TEST_CASE("rope: cosines and sines are multiplied by attention_factor", "[ops][rope]") {
  const Tensor<std::int32_t> positions({2}, {0, 5});
  const auto table = detail::rope_table<float>(positions, gpt_oss(), 64);
  REQUIRE(table.shape() == Shape{2, 64});
  REQUIRE(table[0] == 1.3465735902799727f);
  REQUIRE(table[32] == 0.0f);
  const float angle = 5 * detail::rope_frequencies(gpt_oss(), 64)[8];
  REQUIRE(table[64 + 8] == std::cos(angle) * 1.3465735902799727f);
  REQUIRE(table[64 + 32 + 8] == std::sin(angle) * 1.3465735902799727f);
}

TEMPLATE_TEST_CASE("rope: every scaling and layout matches the reference", "[ops][rope]", float,
                   bf16, double) {
  RopeConfig config = GENERATE(gpt_oss(), deepseek(), llama3(), linear());
  config.interleaved = GENERATE(false, true);
  const std::int64_t dim = GENERATE(4, 67, 128);
  config.dims = GENERATE(2, 4, 44, 64);
  if (config.dims > dim) return;
  CAPTURE(config.theta, config.interleaved, config.dims, dim);
  for_each_isa([&] { check_against_reference<TestType>({5, 3, dim}, config); });
}

TEMPLATE_TEST_CASE("rope: values behind dims keep their bits", "[ops][rope]", float, bf16) {
  RopeConfig config{.dims = 6};
  config.interleaved = GENERATE(false, true);
  const auto x = normal_of<TestType>(4 * 10, 1);
  const auto got = run<TestType>({4, 1, 10}, config, x, x);
  for (const AnyTensor& part : got) {
    const auto values = to_vector(part);
    for (std::size_t i = 0; i < x.size(); ++i) {
      REQUIRE((values[i] == x[i]) == (i % 10 >= 6 || i < 6));  // position 0 stays whole
    }
  }
}

TEST_CASE("rope: interleaved pairs are those of the halves, in another order", "[ops][rope]") {
  const std::int64_t dim = 70;
  const auto x = normal(5 * dim, 1);
  std::vector<double> split(x.size());
  const auto place = [&](std::size_t i) {  // where pair-wise value i lies among halves
    return i / dim * dim + i % dim / 2 + i % 2 * (dim / 2);
  };
  for (std::size_t i = 0; i < x.size(); ++i) split[place(i)] = x[i];
  const auto halves = to_vector(run<double>({5, 1, dim}, {}, split, split)[0]);
  const auto pairs = to_vector(run<double>({5, 1, dim}, {.interleaved = true}, x, x)[0]);
  for (std::size_t i = 0; i < x.size(); ++i) {
    REQUIRE(std::abs(pairs[i] - halves[place(i)]) <= 1e-15);
  }
}

TEST_CASE("rope: layers of several configs take turns", "[ops][rope]") {
  const auto x = normal(3 * 8, 1);
  const Var<double> v(make_tensor<double>({3, 1, 8}, x));
  const std::vector<std::int32_t> p{4, 0, 9};
  const Tensor<std::int32_t> positions({3}, p);
  for (int layer = 0; layer < 14; ++layer) {
    RopeConfig config{.theta = 100.0 * (1 + layer % 7)};  // more than there are tables
    if (layer % 2 == 1) config.dims = 4;
    const auto f = reference::rope_frequencies(layer % 2 == 1 ? 4 : 8, config.theta);
    const auto want = reference::rope(x, p, {1, 8}, f);
    REQUIRE(compare(to_vector(rope(v, positions, config).value()), want, 1e-14, 0).count == 0);
  }
  auto& tables = detail::RopeTables<double>::instance();
  const auto one = tables.get(positions, {.theta = 1}, 8);
  const auto two = tables.get(positions, {.theta = 2}, 8);
  REQUIRE(tables.get(positions, {.theta = 1}, 8).data() == one.data());
  REQUIRE(tables.get(positions, {.theta = 2, .interleaved = true}, 8).data() == two.data());
}

TEMPLATE_TEST_CASE("rope: values and gradients match the reference", "[ops][rope]", float, bf16,
                   double) {
  const Shape shape{GENERATE(0, 1, 5, 130), GENERATE(1, 3), GENERATE(2, 6, 8, 64, 128)};
  const double theta = GENERATE(1e4, 1e6);
  CAPTURE(shape, theta);
  for_each_isa([&] { check_against_reference<TestType>(shape, {theta}); });
}

TEST_CASE("rope: angles that were used last do not reach other positions", "[ops][rope]") {
  const Shape shape{3, 1, 4};
  const Var<double> x(make_tensor<double>(shape, normal(12, 1)));
  Tensor<std::int32_t> positions({3}, {0, 1, 2});
  for (int step = 0; step < 3; ++step) {
    positions[1] += 7 * step;  // in place: the same memory, other positions
    for (const double theta : {1e4, 1e4, 1e6}) {
      const std::vector<std::int32_t> p(positions.data(), positions.data() + 3);
      const auto want = reference::rope(normal(12, 1), p, 1, 4, theta);
      REQUIRE(compare(to_vector(rope(x, positions, theta).value()), want, 1e-14, 0).count == 0);
    }
  }
}

TEST_CASE("rope: keeps the length of every pair", "[ops][rope]") {
  const auto got = run<double>({50, 2, 16}, {}, normal(1600, 1), normal(1600, 2));
  const auto y = to_vector(got[0]), x = normal(1600, 1);
  for (std::size_t head = 0; head < 100; ++head) {
    for (std::size_t i = head * 16; i < head * 16 + 8; ++i) {
      REQUIRE(std::abs(std::hypot(y[i], y[i + 8]) - std::hypot(x[i], x[i + 8])) <= 1e-13);
    }
  }
}

TEMPLATE_TEST_CASE("rope: the number of threads changes no bit", "[ops][rope]", float, bf16) {
  const auto x = normal(3000 * 3 * 8, 1), dy = normal(3000 * 3 * 8, 2);
  require_same_bits_for_any_threads([&] { return run<TestType>({3000, 3, 8}, {}, x, dy); });
}

TEST_CASE("rope: refuses odd heads and missing positions", "[ops][rope]") {
  const Tensor<std::int32_t> positions({2}, {0, 1});
  REQUIRE_THROWS_WITH(rope(Var<float>(Tensor<float>({2, 1, 3}, 1.0f)), positions, 1e4),
                      "rope: x is [2, 1, 3], expected [tokens, heads, even head dim]");
  REQUIRE_THROWS_WITH(rope(Var<float>(Tensor<float>({3, 1, 4}, 1.0f)), positions, 1e4),
                      "rope: positions is [2], x is [3, 1, 4]; expected [3]");
  REQUIRE_THROWS_WITH(rope(Var<float>(Tensor<float>({2, 1, 4}, 1.0f)), positions, 0.0),
                      "rope: theta is 0, expected a positive number");
  const Var<float> x(Tensor<float>({2, 1, 4}, 1.0f));
  REQUIRE_THROWS_WITH(
      rope(x, positions, RopeConfig{.dims = 6}),
      "rope: dims is 6, x is [2, 1, 4]; expected an even number, at most the head dim");
  REQUIRE_THROWS_AS(rope(x, positions, RopeConfig{.dims = 3}), ShapeError);
  REQUIRE_THROWS_WITH(rope(x, positions, RopeConfig{.scaling = Scaling::linear, .factor = 0}),
                      "rope: factor is 0, expected a positive number");
  REQUIRE_THROWS_WITH(rope(x, positions, RopeConfig{.scaling = Scaling::llama3}),
                      "rope: original_positions is 0, expected the longest context before scaling");
}

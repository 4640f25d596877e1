// SPDX-License-Identifier: Apache-2.0
// Linear layers with adapters: what scale, dropout and initialisation do.
#include <espalier/nn/init.hpp>
#include <espalier/nn/linear.hpp>
#include <espalier/ops/reference/linear.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr std::int64_t kRows = 6, kIn = 17, kOut = 9;

Linear<double> layer(const LoraConfig& config) {
  Linear<double> layer("q", AnyVar(normal_weight<double>("w", {kOut, kIn}, 1.0f, 1)));
  layer.add_lora(config, /*seed=*/3);
  return layer;
}
Tensor<double> input() {
  return normal_weight<double>("x", {kRows, kIn}, 1.0f, 1);
}

std::vector<NamedParameter> parameters_of(const Linear<double>& layer) {
  std::vector<NamedParameter> out;
  layer.collect(out);
  return out;
}
void set(const AnyVar& parameter, const std::vector<double>& values) {
  const Tensor<double> to(parameter.any());
  REQUIRE(to.numel() == static_cast<std::int64_t>(values.size()));
  std::copy(values.begin(), values.end(), to.data());
}
/// B begins as zero; a test wants it to act.
void randomize_b(const Linear<double>& layer) {
  const auto b = parameters_of(layer)[1].var;
  set(b, normal(b.any().numel(), 6));
}

}  // namespace

TEST_CASE("Linear: the adapter's scale is alpha / r, or alpha / sqrt(r)", "[nn][linear]") {
  const int r = GENERATE(1, 4);
  const bool rslora = GENERATE(false, true);
  CAPTURE(r, rslora);
  const auto q = layer({.r = r, .alpha = 6, .rslora = rslora, .targets = {}});
  randomize_b(q);
  const auto p = parameters_of(q);
  REQUIRE(p.size() == 2);
  const double scale = rslora ? 6 / std::sqrt(r) : 6.0 / r;
  const auto want = reference::lora_linear(to_vector(input()), to_vector(q.weight().any()),
                                           to_vector(p[0].var.any()), to_vector(p[1].var.any()),
                                           scale, kRows, kIn, kOut, r);
  const double bound = tol(DType::f64, kIn + r);
  const Mismatch m = compare(to_vector(q(Var<double>(input())).value()), want, 20 * bound, bound);
  INFO(m);
  REQUIRE(m.count == 0);
}

TEST_CASE("Linear: A begins uniform within 1 / sqrt(in), B as zero, the weight stays frozen",
          "[nn][linear]") {
  const auto q = layer({.r = 64, .alpha = 64, .targets = {}});
  const auto p = parameters_of(q);
  REQUIRE(p[0].name == "q.lora_A.weight");
  REQUIRE(p[1].name == "q.lora_B.weight");
  const auto a = to_vector(p[0].var.any());
  const double bound = 1 / std::sqrt(17.0);
  double least = 0, most = 0, squares = 0;
  for (const double v : a) {
    least = std::min(least, v), most = std::max(most, v), squares += v * v;
  }
  REQUIRE(least >= -bound);
  REQUIRE(least < -0.98 * bound);
  REQUIRE(most <= bound);
  REQUIRE(most > 0.98 * bound);
  const double variance = squares / static_cast<double>(a.size());
  REQUIRE(std::abs(variance / (bound * bound / 3) - 1) < 0.1);  // 1088 draws: 3 deviations
  REQUIRE(to_vector(p[1].var.any()) == std::vector<double>(kOut * 64, 0.0));

  const Linear<double> plain("q", q.weight());
  const auto x = parameter(input());
  REQUIRE(same_bits(q(x).value(), plain(x).value()));
  backward(q(x));
  REQUIRE(p[1].var.grad());
  REQUIRE(!q.weight().grad());
  const auto other = layer({.r = 64, .alpha = 64, .targets = {}});
  REQUIRE(same_bits(parameters_of(other)[0].var.any(), p[0].var.any()));  // of seed and name
}

TEST_CASE("Linear: dropout is before the adapter only, in training only, anew in every step",
          "[nn][linear]") {
  const auto q = layer({.r = 4, .alpha = 4, .dropout = 0.5, .targets = {}});
  randomize_b(q);
  const auto p = parameters_of(q);
  const Var<double> x(input());
  const TrainContext first{false, /*dropout_seed=*/8, /*step=*/0}, second{false, 8, 1};
  const auto y = q(x, &first).value();
  REQUIRE(same_bits(q(x, &first).value(), y));
  REQUIRE(!same_bits(q(x, &second).value(), y));
  REQUIRE(!same_bits(q(x).value(), y));

  const auto dropped = dropout(x, 0.5f, 8, stream_of("q")).value();
  const auto want = grouped_linear(x, {q.weight()}, {0, kRows}, {{p[0].var, p[1].var}}, 1.0,
                                   Var<double>(dropped));
  REQUIRE(same_bits(want.value(), y));
}

TEST_CASE("Linear: B A is never formed", "[nn][linear]") {
  const std::int64_t wide = 1100;
  Linear<double> q("q", AnyVar(normal_weight<double>("w", {wide, wide}, 1.0f, 1)));
  q.add_lora({.r = 2, .alpha = 2, .targets = {}}, 1);
  const auto x = parameter(normal_weight<double>("x", {4, wide}, 1.0f, 1));
  const std::size_t before = pool_stats().in_use_bytes;
  reset_pool_peak();
  backward(q(x));
  const std::size_t product_bytes = wide * wide * sizeof(double);
  REQUIRE(pool_stats().peak_bytes - before < product_bytes / 4);
}

TEST_CASE("Linear: a trained weight is collected by its name", "[nn][linear]") {
  const Linear<double> q("q_proj", parameter(normal_weight<double>("w", {kOut, kIn}, 1.0f, 1)));
  const auto p = parameters_of(q);
  REQUIRE(p.size() == 1);
  REQUIRE(p[0].name == "q_proj.weight");
  backward(q(Var<double>(input())));
  REQUIRE(p[0].var.grad().shape() == Shape{kOut, kIn});
}

TEST_CASE("Linear: a rank below 1 is refused", "[nn][linear]") {
  REQUIRE_THROWS_WITH(layer({.r = 0, .targets = {}}), "lora: rank is 0, expected at least 1");
}

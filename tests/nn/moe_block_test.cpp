// SPDX-License-Identifier: Apache-2.0
// A sparse block against those of transformers (tests/golden/README.md), and what it does with
// loads, masks, adapters and observers.
#include <algorithm>

#include <espalier/io/safetensors.hpp>
#include <espalier/nn/init.hpp>
#include <espalier/nn/moe_block.hpp>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr std::int64_t kHidden = 20, kWidth = 12;
constexpr int kExperts = 6;

using Source = std::function<AnyVar(const std::string& name, Shape shape)>;

GroupedLinear<float> per_expert(const std::string& name, std::int64_t out, std::int64_t in,
                                const Source& weight) {
  std::vector<std::string> names;
  std::vector<AnyVar> weights;
  for (int e = 0; e < kExperts; ++e) {
    names.push_back(name + "." + std::to_string(e));
    weights.push_back(weight(names.back(), {out, in}));
  }
  return {names, weights};
}

MoeBlock<float> block_of(const RouterRule& rule, const Source& weight) {
  return {Router<float>(Linear<float>("router", weight("router", {kExperts, kHidden})), rule),
          Experts<float>(per_expert("w1", kWidth, kHidden, weight),
                         per_expert("w2", kHidden, kWidth, weight),
                         per_expert("w3", kWidth, kHidden, weight))};
}

AnyVar random_weight(const std::string& name, Shape shape) {
  return AnyVar(normal_weight<float>(name, shape, 0.3f, 1));
}
Var<float> tokens(std::int64_t n) {
  return parameter(normal_weight<float>("tokens", {n, kHidden}, 1.0f, 2));
}

/// Relative to the largest element, as in the model's golden test.
void require_close(const AnyTensor& got, const AnyTensor& want, const std::string& what) {
  const auto w = to_vector(want);
  double largest = 0;
  for (const double v : w) largest = std::max(largest, std::abs(v));
  const Mismatch m = compare(to_vector(got), w, 1e-5 * largest, 1e-5);
  INFO(what << ": " << m);
  REQUIRE(m.count == 0);
}

void check_golden(const std::string& kind, const RouterRule& rule) {
  const io::SafetensorsFile golden(std::string(ESPALIER_TESTS_DIR) +
                                   "/golden/moe_block.safetensors");
  const auto block = block_of(rule, [&](const std::string& name, Shape) -> AnyVar {
    return parameter(converted<float>(golden.tensor(name)));
  });
  const auto x = parameter(converted<float>(golden.tensor("x")));
  const auto out = block(x);
  require_close(out.logits.value(), golden.tensor(kind + ".logits"), kind + " logits");
  require_close(out.y.value(), golden.tensor(kind + ".y"), kind + " y");
  backward(out.y, converted<float>(golden.tensor("dy")));
  require_close(x.grad(), golden.tensor(kind + ".grad.x"), kind + " gradient of x");
  std::vector<NamedParameter> parameters;
  block.collect(parameters);
  REQUIRE(parameters.size() == 1 + 3 * kExperts);
  for (const NamedParameter& p : parameters) {
    const std::string name = p.name.substr(0, p.name.size() - std::string(".weight").size());
    require_close(p.var.grad(), golden.tensor(kind + ".grad." + name),
                  kind + " gradient of " + name);
  }
}

}  // namespace

TEST_CASE("MoeBlock: outputs and every gradient equal those of transformers", "[nn][golden]") {
  for_each_isa([] {
    check_golden("mixtral", {.top_k = 2});
    check_golden("olmoe", {.top_k = 3, .renormalize = false});
  });
}

TEST_CASE("MoeBlock: every token to one expert, one token, and none", "[nn][moe_block]") {
  auto block = block_of({.top_k = 1}, random_weight);
  std::vector<bool> keep(kExperts, false);
  keep[3] = true;
  block.mask_experts(keep);
  for (const std::int64_t n : {0, 1, 9}) {
    CAPTURE(n);
    const auto x = tokens(n);
    const auto out = block(x);
    // All weight is on expert 3, so the block is that expert alone.
    const auto part = [&](const Var<float>& rows, const char* name, std::int64_t width) {
      return linear(rows, random_weight(name, {width, rows.shape(1)}));
    };
    const auto want =
        part(swiglu(part(x, "w1.3", kWidth), part(x, "w3.3", kWidth)), "w2.3", kHidden);
    REQUIRE(same_bits(out.y.value(), want.value()));
    backward(out.y);
    REQUIRE(x.grad().shape() == x.shape());
  }
}

TEST_CASE("MoeBlock: an expert that is masked is not chosen, until the mask is lifted",
          "[nn][moe_block]") {
  auto block = block_of({.top_k = 2}, random_weight);
  const auto x = tokens(40);
  const auto before = block(x).y.value();
  block.mask_experts({true, false, true, false, true, true});
  std::vector<std::int64_t> offsets;
  const MoeObserver<float> observer = [&](const MoeObservation<float>& seen) {
    REQUIRE(seen.layer == 7);
    REQUIRE(seen.outputs.shape() == Shape{80, kHidden});
    REQUIRE(seen.weights.shape() == Shape{40, 2});
    offsets = seen.routing.offsets;
  };
  (void)block(x, nullptr, &observer, 7);
  REQUIRE(offsets[2] - offsets[1] == 0);
  REQUIRE(offsets[4] - offsets[3] == 0);
  REQUIRE(offsets.back() == 80);
  block.mask_experts({});
  REQUIRE(same_bits(block(x).y.value(), before));
  block.mask_experts({true, false});
  REQUIRE_THROWS_WITH(block(x), "mask_columns: x is [40, 6], the mask has 2 columns");
}

TEST_CASE("MoeBlock: a NaN in a token stays in its own row", "[nn][moe_block]") {
  const auto block = block_of({.top_k = 2}, random_weight);
  Tensor<float> x = tokens(5).value();
  const auto clean = block(Var<float>(x.clone())).y.value();
  x[2 * kHidden + 4] = std::numeric_limits<float>::quiet_NaN();
  const auto y = block(Var<float>(x)).y.value();
  for (std::int64_t n = 0; n < 5; ++n) {
    if (n == 2) {
      for (std::int64_t c = 0; c < kHidden; ++c) REQUIRE(std::isnan(y[n * kHidden + c]));
    } else {
      REQUIRE(same_bits(y.rows(n, n + 1), clean.rows(n, n + 1)));
    }
  }
}

TEST_CASE("MoeBlock: adapters on the router and on each expert, the base stays frozen",
          "[nn][moe_block]") {
  auto block = block_of({.top_k = 2}, random_weight);
  const auto x = tokens(3);
  const auto before = block(x).y.value();
  block.add_lora({.r = 2, .alpha = 4, .targets = {"router", "gate", "up"}}, /*seed=*/5);
  REQUIRE(same_bits(block(x).y.value(), before));  // B is zero
  std::vector<NamedParameter> parameters;
  block.collect(parameters);
  REQUIRE(parameters.size() == 2 * (1 + 2 * kExperts));
  REQUIRE(parameters[0].name == "router.lora_A.weight");
  REQUIRE(parameters[0].var.shape() == Shape{2, kHidden});
  REQUIRE(parameters[3].name == "w1.0.lora_B.weight");
  REQUIRE(parameters[3].var.shape() == Shape{kWidth, 2});
  REQUIRE(parameters.back().name == "w3.5.lora_B.weight");
  backward(block(x).y);
  for (const NamedParameter& p : parameters) {
    INFO(p.name);
    REQUIRE(p.var.grad().shape() == p.var.shape());  // zeros where an expert had no token
  }
}

TEST_CASE("MoeBlock: the number of threads changes no bit", "[nn][moe_block]") {
  auto block = block_of({.top_k = 2, .renormalize = false}, random_weight);
  block.add_lora({.r = 3, .alpha = 6, .dropout = 0.2, .targets = {"router", "gate", "up", "down"}},
                 5);
  std::vector<NamedParameter> parameters;
  block.collect(parameters);
  for (const NamedParameter& p : parameters) {  // B too is to count
    const Tensor<float> values(p.var.any());
    const auto random = normal_weight<float>(p.name, p.var.shape(), 0.3f, 9);
    std::copy_n(random.data(), random.numel(), values.data());
  }
  require_same_bits_for_any_threads([&] {
    const auto x = parameter(normal_weight<float>("x", {77, kHidden}, 1.0f, 3));
    const TrainContext training{false, 1, 2};
    for (const NamedParameter& p : parameters) p.var.zero_grad();
    const auto y = block(x, &training).y;
    backward(y, normal_weight<float>("dy", {77, kHidden}, 1.0f, 4));
    std::vector<AnyTensor> all = {y.value(), x.grad()};
    for (const NamedParameter& p : parameters) all.push_back(p.var.grad());
    return all;
  });
}

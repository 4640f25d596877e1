// SPDX-License-Identifier: Apache-2.0
// The small modules, the cache of keys and values, and weights to begin with.
#include <espalier/nn/embedding.hpp>
#include <espalier/nn/init.hpp>
#include <espalier/nn/rms_norm.hpp>
#include <espalier/nn/router.hpp>

#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("Router: its rule decides what the weights sum to, its bias who is chosen",
          "[nn][router]") {
  const Tensor<double> identity({3, 3}, {1, 0, 0, 0, 1, 0, 0, 0, 1});
  const auto route = [&](RouterRule rule, const AnyTensor& bias = {}) {
    const Router<double> router(Linear<double>("gate", AnyVar(identity)), rule, bias);
    // exp of the logits: 1, 2, 5.
    return router(Var<double>(Tensor<double>({1, 3}, {0, std::log(2.0), std::log(5.0)})));
  };
  const auto renormalized = route({.top_k = 2});
  const auto kept = route({.top_k = 2, .renormalize = false});
  REQUIRE(renormalized.routing.chosen[0] == 2);
  REQUIRE(renormalized.routing.chosen[1] == 1);
  REQUIRE(renormalized.weights.value()[0] == Approx(5.0 / 7));
  REQUIRE(renormalized.weights.value()[1] == Approx(2.0 / 7));
  REQUIRE(kept.weights.value()[0] == Approx(5.0 / 8));
  REQUIRE(kept.weights.value()[1] == Approx(2.0 / 8));
  REQUIRE(kept.logits.value()[2] == Approx(std::log(5.0)));
  const RouterRule one_sigmoid{
      .top_k = 1, .score = RouterRule::Score::sigmoid, .renormalize = false};
  const auto biased = route(one_sigmoid, make_tensor<bf16>({3}, {2, 0, 0}));
  REQUIRE(biased.routing.chosen[0] == 0);
  REQUIRE(biased.weights.value()[0] == 0.5);
}

TEST_CASE("TokenEmbedding: rows of a table, stored in any float type, trained only if it wants",
          "[nn][embedding]") {
  const std::vector<double> values = {0, 1, 10, 11, 20, 21};
  const auto check = [&](const AnyVar& table, std::size_t trained) {
    const TokenEmbedding<float> embedding("embed", table);
    REQUIRE(to_vector(embedding({2, 0, 2}).value()) == std::vector<double>{20, 21, 0, 1, 20, 21});
    std::vector<NamedParameter> all;
    embedding.collect(all);
    REQUIRE(all.size() == trained);
  };
  check(AnyVar(make_tensor<f16>({3, 2}, values)), 0);
  check(AnyVar(make_tensor<bf16>({3, 2}, values)), 0);
  const auto table = parameter(make_tensor<float>({3, 2}, values));
  check(table, 1);
  const TokenEmbedding<float> embedding("embed", table);
  backward(embedding({2, 0, 2}));
  REQUIRE(to_vector(table.grad()) == std::vector<double>{1, 1, 0, 0, 2, 2});
  REQUIRE_THROWS_WITH(embedding({0, 3}), "embedding: id 3 at position 1, the table has 3 rows");
}

TEST_CASE("RmsNorm: uses its epsilon, and collects its gain by name", "[nn][rms_norm]") {
  const RmsNorm<double> norm("norm", parameter(Tensor<double>({2}, {1, 2})), 0.5f);
  const auto y = norm(Var<double>(Tensor<double>({1, 2}, {1, -2}))).value();
  const double rms = std::sqrt((1 + 4) / 2.0 + 0.5);
  REQUIRE(y[0] == Approx(1 / rms));
  REQUIRE(y[1] == Approx(-4 / rms));
  std::vector<NamedParameter> all;
  norm.collect(all);
  REQUIRE(all.size() == 1);
  REQUIRE(all[0].name == "norm.weight");
}

TEST_CASE("collect: frozen tensors come when all are asked for, with who is trained",
          "[nn][parameter]") {
  const TokenEmbedding<float> embedding("embed", AnyVar(make_tensor<bf16>({1, 2}, {1, 2})));
  const RmsNorm<float> norm("norm", parameter(Tensor<float>({2}, {1, 2})), 0.5f);
  Linear<float> linear("q", AnyVar(Tensor<float>({2, 2}, 1.0f)), AnyVar(Tensor<float>({2}, 0.0f)));
  LoraConfig lora;
  lora.r = 1;
  linear.add_lora(lora, 1);
  const Router<float> router(Linear<float>("gate", AnyVar(Tensor<float>({3, 2}, 1.0f))), {},
                             make_tensor<float>({3}, {1, 2, 3}), "gate.bias_of_choice");
  const auto listed = [&](Listed which) {
    std::vector<NamedParameter> out;
    embedding.collect(out, which);
    norm.collect(out, which);
    linear.collect(out, which);
    router.collect(out, which);
    std::vector<std::string> names;
    for (const NamedParameter& p : out) names.push_back((p.trained() ? "+" : "-") + p.name);
    return names;
  };
  REQUIRE(listed(Listed::trained) ==
          std::vector<std::string>{"+norm.weight", "+q.lora_A.weight", "+q.lora_B.weight"});
  REQUIRE(listed(Listed::all) == std::vector<std::string>{"-embed.weight", "+norm.weight",
                                                          "-q.weight", "-q.bias",
                                                          "+q.lora_A.weight", "+q.lora_B.weight",
                                                          "-gate.weight", "-gate.bias_of_choice"});
}

TEST_CASE("normal_weight: of name, seed and place alone, in every type", "[nn][init]") {
  const auto w = normal_weight<float>("w", {40, 50}, 0.5f, 1);
  REQUIRE(same_bits(w, normal_weight<float>("w", {40, 50}, 0.5f, 1)));
  REQUIRE(same_bits(w.reshaped({2000}).rows(0, 7), normal_weight<float>("w", {7}, 0.5f, 1)));
  REQUIRE(!same_bits(w, normal_weight<float>("v", {40, 50}, 0.5f, 1)));
  REQUIRE(!same_bits(w, normal_weight<float>("w", {40, 50}, 0.5f, 2)));
  REQUIRE(same_bits(converted<bf16>(w), normal_weight<bf16>("w", {40, 50}, 0.5f, 1)));
  double squares = 0;
  for (const float v : w.span()) squares += static_cast<double>(v) * v;
  REQUIRE(std::abs(squares / 2000 / 0.25 - 1) < 0.1);  // 3 deviations
}

// SPDX-License-Identifier: Apache-2.0
// Router top-k under the rule of each family, and the order of routed rows.
#include <espalier/ops/mask_columns.hpp>
#include <espalier/ops/reference/moe.hpp>
#include <espalier/ops/router_top_k.hpp>

#include <algorithm>
#include <limits>

#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/require_close.hpp"
#include "support/router_rules.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using enum RouterRule::Score;
using enum RouterRule::GroupScore;

constexpr double kInf = std::numeric_limits<double>::infinity();
const RouterRule kOlmoe{.top_k = 2, .renormalize = false};

/// The K largest by sorting all of them.
std::vector<int> best(const std::vector<double>& x, std::int64_t n, std::int64_t e,
                      std::int64_t k) {
  std::vector<int> all;
  for (std::int64_t i = 0; i < n; ++i) {
    std::vector<int> order;
    for (int c = 0; c < e; ++c) order.push_back(c);
    std::stable_sort(order.begin(), order.end(),
                     [&](int a, int b) { return x[i * e + a] > x[i * e + b]; });
    all.insert(all.end(), order.begin(), order.begin() + k);
  }
  return all;
}

}  // namespace

TEST_CASE("router_top_k: best first, ties to the lowest expert", "[ops][routing]") {
  const Tensor<float> logits({3, 4}, {1, 3, 3, 2, 0, 0, 0, 0, -1, -5, 4, -1});
  REQUIRE(ints(select_top_k(logits, 2)) == std::vector<int>{1, 2, 0, 1, 2, 0});
  REQUIRE(ints(select_top_k(logits, 4)) == std::vector<int>{1, 2, 3, 0, 0, 1, 2, 3, 2, 0, 3, 1});
}

TEMPLATE_TEST_CASE("router_top_k: chooses as sorting does, up to 512 experts", "[ops][routing]",
                   float, bf16, double) {
  const std::int64_t e = GENERATE(1, 2, 8, 60, 512), k = GENERATE(1, 2, 6, 16), n = 37;
  if (k > e) return;
  CAPTURE(e, k);
  // Rounding to a grid makes ties, which bf16 has anyway.
  auto x = normal_of<bf16>(n * e, 1, 2.0);
  REQUIRE(ints(select_top_k(make_tensor<TestType>({n, e}, x), k)) == best(x, n, e, k));
  REQUIRE(ints(select_top_k(make_tensor<TestType>({n, e}, x), e)) == best(x, n, e, e));
}

TEST_CASE("router_top_k: minus infinity is never chosen while others are left", "[ops][routing]") {
  const Var<float> logits(make_tensor<float>({2, 3}, {-kInf, 1, 2, -kInf, -kInf, 5}));
  const RouterRule rule = GENERATE(RouterRule{}, kOlmoe);
  const auto out = router_top_k(logits, rule);
  REQUIRE(ints(out.routing.chosen) == std::vector<int>{2, 1, 2, 0});
  REQUIRE(out.weights.value()[2] == 1.0f);
  REQUIRE(out.weights.value()[3] == 0.0f);
}

TEMPLATE_TEST_CASE("router_top_k: NaN and plus infinity make the token's weights NaN, no others",
                   "[ops][routing]", float, bf16, double) {
  const RouterRule rule = GENERATE(RouterRule{}, kOlmoe);
  const Var<TestType> logits(
      make_tensor<TestType>({4, 3}, {1, NAN, 2, 3, 2, 1, 1, kInf, 2, -kInf, -kInf, -kInf}));
  const auto out = router_top_k(logits, rule);
  const auto w = to_vector(out.weights.value());
  REQUIRE(ints(out.routing.chosen) == std::vector<int>{2, 0, 0, 1, 1, 2, 0, 1});
  for (const int i : {0, 1, 4, 5, 6, 7}) REQUIRE(std::isnan(w[i]));
  REQUIRE((w[2] > w[3] && w[3] > 0));
}

TEST_CASE("router_top_k: the reference's gradient is that of the complex step", "[ops][routing]") {
  const std::int64_t n = 3, e = 12, k = 3;
  const auto x = normal(n * e, 4), bias = normal(e, 6), dw = normal(n * k, 5);
  for (const auto& [name, rule, biased] : router_cases(e, k, 4, 2)) {
    CAPTURE(name);
    const auto chosen =
        reference::router_choice(x, biased ? bias : std::vector<double>{}, n, e, rule);
    const auto want = complex_step_grad(
        [&, r = rule](const auto& z) {
          return dot(dw, reference::router_weights(z, chosen, n, e, r));
        },
        x);
    const auto got = reference::router_weights_backward(x, chosen, dw, n, e, rule);
    const Mismatch m = compare(got, want, 1e-13, 1e-12);
    INFO(m);
    REQUIRE(m.count == 0);
  }
}

TEMPLATE_TEST_CASE("router_top_k: experts, weights and gradient match the reference by each rule",
                   "[ops][routing]", float, bf16, double) {
  using A = acc_t<TestType>;
  const std::int64_t n = GENERATE(0, 1, 9), e = GENERATE(8, 24, 72), k = GENERATE(1, 2, 4);
  const auto x = normal_of<TestType>(n * e, 4, 2.0), dw = normal(n * k, 5);
  const auto bias = normal_of<bf16>(e, 6, 0.3);
  for (const auto& c : router_cases(e, k, 4, 2)) {
    CAPTURE(n, e, k, c.name);
    const auto chosen =
        reference::router_choice(x, c.bias ? bias : std::vector<double>{}, n, e, c.rule);
    const auto w = reference::router_weights(x, chosen, n, e, c.rule);
    const auto dx = reference::router_weights_backward(x, chosen, dw, n, e, c.rule);
    for_each_isa([&] {
      const auto logits = parameter(make_tensor<TestType>({n, e}, x));
      const RouterOutput<TestType, Cpu> out = router_top_k(
          logits, c.rule, c.bias ? AnyTensor(make_tensor<bf16>({e}, bias)) : AnyTensor());
      REQUIRE(ints(out.routing.chosen) == chosen);
      require_close(out.weights.value(), w, 1e-30, tol<A>(e));
      backward(out.weights, make_tensor<A>({n, k}, dw));
      REQUIRE(logits.grad().dtype() == dtype_of<TestType>::value);
      // A gradient is a difference: its error is in units of the terms.
      require_close(logits.grad(), dx, 4 * tol<A>(k) * c.rule.scale, tol<TestType>(e));
    });
  }
}

// A masked model, and a pruned one that has the same logits without the masked columns.
TEMPLATE_TEST_CASE("router_top_k: leaving out masked experts changes no bit", "[ops][routing]",
                   float, bf16) {
  const std::int64_t n = 50, e = GENERATE(9, 16, 66, 128), k = 3;
  const auto x = normal_of<TestType>(n * e, 8, 2.0), bias = normal(e, 6, 0.3);
  const auto dw = make_tensor<float>({n, k}, normal(n * k, 5));
  std::vector<bool> keep;
  std::vector<double> few, few_bias;
  std::vector<int> number;  // among the kept
  for (std::int64_t c = 0; c < e; ++c) {
    keep.push_back(c % 3 != 1 && c % 7 != 5);
    number.push_back(static_cast<int>(few_bias.size()));
    if (keep.back()) few_bias.push_back(bias[c]);
  }
  for (std::int64_t i = 0; i < n * e; ++i) {
    if (keep[i % e]) few.push_back(x[i]);
  }
  const auto left = static_cast<std::int64_t>(few_bias.size());
  for (const auto& c : router_cases(e, k)) {
    CAPTURE(e, c.name);
    for_each_isa([&] {
      const auto run = [&](const Var<TestType>& logits, const std::vector<double>& b) {
        const Tensor<double> values({static_cast<std::int64_t>(b.size())}, b);
        const auto out = router_top_k(logits, c.rule, c.bias ? AnyTensor(values) : AnyTensor());
        backward(out.weights, dw);
        return out;
      };
      const auto all = parameter(make_tensor<TestType>({n, e}, x));
      const auto masked = run(mask_columns(all, keep), bias);
      const auto some = parameter(make_tensor<TestType>({n, left}, few));
      const auto pruned = run(some, few_bias);
      REQUIRE(same_bits(masked.weights.value(), pruned.weights.value()));
      auto renumbered = ints(masked.routing.chosen);
      for (int& expert : renumbered) expert = number[expert];
      REQUIRE(renumbered == ints(pruned.routing.chosen));
      const Tensor<TestType> d(all.grad());
      Tensor<TestType> kept_d(Shape{n, left});
      for (std::int64_t i = 0, to = 0; i < n * e; ++i) {
        if (keep[i % e]) kept_d[to++] = d[i];
      }
      REQUIRE(same_bits(kept_d, some.grad()));
    });
  }
}

TEST_CASE("router_top_k: a bias chooses and does not weigh", "[ops][routing]") {
  // sigmoid: 1/2, 3/4, 1/4, and 0 where masked
  const Var<double> logits(Tensor<double>({1, 4}, {0, std::log(3.0), -std::log(3.0), -kInf}));
  const Tensor<float> bias({4}, {0, 0, 1, 100});
  RouterRule rule{.top_k = 2, .score = sigmoid, .renormalize = false};
  auto out = router_top_k(logits, rule, bias);
  REQUIRE(ints(out.routing.chosen) == std::vector<int>{2, 1});
  require_close(out.weights.value(), {0.25, 0.75}, 0, 1e-15);
  rule = {.top_k = 2, .score = sigmoid, .epsilon = 0.25, .scale = 10};
  require_close(router_top_k(logits, rule, bias).weights.value(), {2, 6}, 0, 1e-15);
  // One that must be chosen though it is masked has no weight.
  rule.top_k = 4;
  out = router_top_k(logits, rule, bias);
  REQUIRE(ints(out.routing.chosen) == std::vector<int>{2, 1, 0, 3});
  REQUIRE(out.weights.value()[3] == 0);
}

TEST_CASE("router_top_k: groups by their best or their two best, ties to the lowest",
          "[ops][routing]") {
  const auto chosen = [](std::vector<double> z, RouterRule rule) {
    const auto e = static_cast<std::int64_t>(z.size());
    return ints(router_top_k(Var<double>(Tensor<double>({1, e}, z)), rule).routing.chosen);
  };
  const RouterRule by_max{.top_k = 2, .renormalize = false, .groups = 3};
  RouterRule by_two = by_max;
  by_two.score = sigmoid;
  by_two.group_score = top2_sum;
  const std::vector<double> z = {1, 1, 5, -9, 2, 2};
  REQUIRE(chosen(z, by_max) == std::vector<int>{2, 3});
  REQUIRE(chosen(z, by_two) == std::vector<int>{4, 5});
  REQUIRE(chosen({0, 0, 0, 0, 0, 0}, by_max) == std::vector<int>{0, 1});
  REQUIRE(chosen({0, 0, 0, 0, 0, 0}, by_two) == std::vector<int>{0, 1});
  RouterRule two_groups = by_two;
  two_groups.top_groups = 2;  // the second of them is the better one
  REQUIRE(chosen({1, 2, -5, -5, 3, 2}, two_groups) == std::vector<int>{4, 1});
  // A masked expert counts in no sum; one of another group is not chosen in its place.
  REQUIRE(chosen({-kInf, 9, -9, -9, -kInf, -kInf}, by_two) == std::vector<int>{1, 0});
  REQUIRE(chosen({-kInf, -kInf, -kInf, -kInf, -kInf, 0}, by_two) == std::vector<int>{5, 4});
}

TEST_CASE("router_top_k: a NaN makes the weights of its token NaN by each rule", "[ops][routing]") {
  for (const auto& c : router_cases(8, 2, 2, 1)) {
    CAPTURE(c.name);
    auto x = normal(3 * 8, 1);
    x[8 + 5] = NAN;
    const Tensor<float> bias({8}, 0.5f);
    const auto w = to_vector(router_top_k(Var<float>(make_tensor<float>({3, 8}, x)), c.rule,
                                          c.bias ? AnyTensor(bias) : AnyTensor())
                                 .weights.value());
    for (int i = 0; i < 6; ++i) REQUIRE(std::isnan(w[i]) == (i / 2 == 1));
  }
}

TEST_CASE("router_top_k: a logit that is not chosen has a gradient only where all are in the sum",
          "[ops][routing]") {
  const auto logits = parameter(Tensor<double>({1, 3}, {std::log(2.0), 0, 0}));
  const Tensor<double> dw({1, 1}, 1.0);
  backward(router_top_k(logits, {.top_k = 1, .renormalize = false}).weights, dw);  // w = 1/2
  const Mismatch m =
      compare(to_vector(logits.grad()), std::vector<double>{0.25, -0.125, -0.125}, 0, 1e-14);
  INFO(m);
  REQUIRE(m.count == 0);
  logits.zero_grad();
  backward(router_top_k(logits, {.top_k = 1}).weights, dw);
  REQUIRE(to_vector(logits.grad()) == std::vector<double>{0, 0, 0});
}

TEST_CASE("routing: rows are ordered by expert, token, slot", "[ops][routing]") {
  const Tensor<std::int32_t> chosen({3, 2}, {2, 0, 0, 2, 3, 0});
  const Routing r = make_routing(chosen, 5);
  REQUIRE(r.offsets == std::vector<std::int64_t>{0, 3, 3, 5, 6, 6});
  REQUIRE(ints(r.slot_of_row) == std::vector<int>{1, 2, 5, 0, 3, 4});
  REQUIRE(ints(r.row_of_slot) == std::vector<int>{3, 0, 1, 4, 5, 2});
}

TEMPLATE_TEST_CASE("router_top_k: the number of threads changes no bit", "[ops][routing]", float,
                   bf16) {
  const auto x = normal(5000 * 12, 1), dw = normal(5000 * 3, 2);
  const Tensor<float> bias({12}, 0.5f);
  for (const auto& c : router_cases(12, 3, 3, 2)) {
    CAPTURE(c.name);
    require_same_bits_for_any_threads([&] {
      const auto logits = parameter(make_tensor<TestType>({5000, 12}, x));
      const auto out = router_top_k(logits, c.rule, c.bias ? AnyTensor(bias) : AnyTensor());
      backward(out.weights, make_tensor<float>({5000, 3}, dw));
      return std::vector<AnyTensor>{out.routing.chosen, out.weights.value(), logits.grad()};
    });
  }
}

TEST_CASE("router_top_k: wrong arguments name both values", "[ops][routing]") {
  const Var<float> logits(Tensor<float>({2, 3}, 1.f));
  REQUIRE_THROWS_WITH(router_top_k(logits, {.top_k = 4}),
                      "router_top_k: top_k is 4, expected 1 to 3 (the number of experts)");
  REQUIRE_THROWS_WITH(router_top_k(Var<float>(Tensor<float>(Shape{3}, 1.f)), {.top_k = 1}),
                      "router_top_k: logits are [3], expected [tokens, experts]");
  REQUIRE_THROWS_WITH(router_top_k(logits, {}, Tensor<float>(Shape{2}, 1.f)),
                      "router_top_k: selection_bias is [2], expected [3]");
  REQUIRE_THROWS_WITH(router_top_k(logits, {}, Tensor<std::int32_t>(Shape{3}, 1)),
                      Catch::Contains("unsupported dtype i32"));
  REQUIRE_THROWS_WITH(make_routing(Tensor<std::int32_t>({1, 1}, 7), 4),
                      "make_routing: expert 7, expected 0 to 3");
}

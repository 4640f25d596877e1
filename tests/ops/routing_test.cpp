// SPDX-License-Identifier: Apache-2.0
// Router top-k, dispatch, combine and the load-balancing loss.
#include <espalier/ops/combine.hpp>
#include <espalier/ops/dispatch.hpp>
#include <espalier/ops/linear.hpp>
#include <espalier/ops/load_balancing_loss.hpp>
#include <espalier/ops/mask_columns.hpp>
#include <espalier/ops/reference/moe.hpp>

#include <limits>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/gradcheck.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {
std::vector<int> ints(const Tensor<std::int32_t>& t) {
  return {t.data(), t.data() + t.numel()};
}
void require_close(const AnyTensor& got, const std::vector<double>& want) {
  const Mismatch m = compare(to_vector(got), want, 8 * tol(got.dtype(), 8), tol(got.dtype(), 8));
  INFO(m);
  REQUIRE(m.count == 0);
}
}  // namespace

TEST_CASE("router_top_k: best first, ties to the lowest expert", "[ops][routing]") {
  const Tensor<float> logits({3, 4}, {1, 3, 3, 2, 0, 0, 0, 0, -1, -5, 4, -1});
  REQUIRE(ints(select_top_k(logits, 2)) == std::vector<int>{1, 2, 0, 1, 2, 0});
  REQUIRE(ints(select_top_k(logits, 4)) == std::vector<int>{1, 2, 3, 0, 0, 1, 2, 3, 2, 0, 3, 1});
}

TEST_CASE("router_top_k: minus infinity is never chosen while others are left", "[ops][routing]") {
  const float inf = std::numeric_limits<float>::infinity();
  const Var<float> logits(Tensor<float>({2, 3}, {-inf, 1, 2, -inf, -inf, 5}));
  const auto out = router_top_k(logits, 2);
  REQUIRE(ints(out.routing.chosen) == std::vector<int>{2, 1, 2, 0});
  REQUIRE(out.weights.value()[2] == 1.0f);
  REQUIRE(out.weights.value()[3] == 0.0f);
}

TEST_CASE("router_top_k: a NaN logit makes the token's weights NaN, and only those",
          "[ops][routing]") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const Var<float> logits(Tensor<float>({2, 3}, {1, nan, 2, 3, 2, 1}));
  const auto w = router_top_k(logits, 2).weights.value();
  REQUIRE(std::isnan(w[0]));
  REQUIRE(std::isnan(w[1]));
  REQUIRE(w[2] + w[3] == 1.0f);
}

TEST_CASE("router_top_k: weights and gradient match softmax, keep, renormalise", "[ops][routing]") {
  const std::int64_t n = GENERATE(0, 1, 9), e = 8, k = GENERATE(1, 2, 8);
  const auto x = normal(n * e, 4, 2.0), dw = normal(n * k, 5);
  const auto logits = parameter(make_tensor<double>({n, e}, x));
  const auto out = router_top_k(logits, k);
  const auto chosen = ints(out.routing.chosen);
  require_close(out.weights.value(), reference::router_weights(x, chosen, n, e, k));
  backward(out.weights, make_tensor<double>({n, k}, dw));
  require_close(logits.grad(), complex_step_grad(
                                   [&](const auto& z) {
                                     return dot(dw, reference::router_weights(z, chosen, n, e, k));
                                   },
                                   x));
}

TEST_CASE("routing: rows are ordered by expert, token, slot", "[ops][routing]") {
  const Tensor<std::int32_t> chosen({3, 2}, {2, 0, 0, 2, 3, 0});
  const Routing r = make_routing(chosen, 5);
  REQUIRE(r.offsets == std::vector<std::int64_t>{0, 3, 3, 5, 6, 6});
  REQUIRE(ints(r.slot_of_row) == std::vector<int>{1, 2, 5, 0, 3, 4});
  REQUIRE(ints(r.row_of_slot) == std::vector<int>{3, 0, 1, 4, 5, 2});
}

TEST_CASE("dispatch, experts, combine: the same as a loop over tokens, with its gradients",
          "[ops][routing]") {
  const std::int64_t n = GENERATE(1, 7, 40), h = 10, e = 4, k = 2;
  const auto x = normal(n * h, 1), router = normal(n * e, 2), dy = normal(n * h, 3);
  std::vector<std::vector<double>> matrices;
  std::vector<AnyVar> weights;
  for (int i = 0; i < e; ++i) {
    matrices.push_back(normal(h * h, 20 + i));
    weights.push_back(AnyVar(make_tensor<double>({h, h}, matrices.back())));
  }
  const auto vx = parameter(make_tensor<double>({n, h}, x));
  const auto vr = parameter(make_tensor<double>({n, e}, router));
  const auto routed = router_top_k(vr, k);
  const auto rows = grouped_linear(dispatch(vx, routed.routing), weights, routed.routing.offsets);
  const auto y = combine(rows, routed.weights, routed.routing);
  backward(y, make_tensor<double>({n, h}, dy));

  const auto chosen = ints(routed.routing.chosen);
  auto layer = [&](const auto& zx, const auto& zr) {
    using S = typename std::decay_t<decltype(zx)>::value_type;
    std::vector<std::vector<S>> m;
    for (const auto& matrix : matrices) m.emplace_back(matrix.begin(), matrix.end());
    return reference::moe_of_matrices(zx, reference::router_weights(zr, chosen, n, e, k), m, chosen,
                                      n, h, k);
  };
  require_close(y.value(), layer(x, router));
  require_close(
      vx.grad(),
      complex_step_grad([&](const auto& z) { return dot(dy, layer(z, to_complex(router))); }, x));
  require_close(
      vr.grad(),
      complex_step_grad([&](const auto& z) { return dot(dy, layer(to_complex(x), z)); }, router));
}

TEST_CASE("load_balancing_loss: balanced routing costs K, collapse costs E", "[ops][routing]") {
  const Var<double> balanced(
      Tensor<double>({4, 4}, {3, 3, 0, 0, 0, 3, 3, 0, 0, 0, 3, 3, 3, 0, 0, 3}));
  REQUIRE(std::abs(load_balancing_loss<double, Cpu>({balanced}, 2).value()[0] - 2.0) <= 1e-12);
  const Var<double> collapsed(Tensor<double>({2, 4}, {99, 98.9, 0, 0, 98.9, 99, 0, 0}));
  REQUIRE(std::abs(load_balancing_loss<double, Cpu>({collapsed}, 2).value()[0] - 4.0) <= 1e-9);
}

TEST_CASE("load_balancing_loss: all layers together, and its gradient", "[ops][routing]") {
  const std::int64_t n = 6, e = 5, k = 2;
  const auto x = normal(2 * n * e, 6);
  const std::vector<double> first(x.begin(), x.begin() + n * e), second(x.begin() + n * e, x.end());
  const auto a = parameter(make_tensor<double>({n, e}, first));
  const auto b = parameter(make_tensor<double>({n, e}, second));
  const auto loss = load_balancing_loss<double, Cpu>({a, b}, k);
  const auto chosen = ints(select_top_k(make_tensor<double>({2 * n, e}, x), k));
  require_close(loss.value(), {reference::load_balancing_loss(x, chosen, 2 * n, e, k)});
  backward(loss);
  auto grad = to_vector(a.grad());
  const auto rest = to_vector(b.grad());
  grad.insert(grad.end(), rest.begin(), rest.end());
  require_close(
      make_tensor<double>({2 * n * e}, grad),
      complex_step_grad(
          [&](const auto& z) { return reference::load_balancing_loss(z, chosen, 2 * n, e, k); },
          x));
}

TEST_CASE("mask_columns: dropped columns are minus infinity and pass no gradient",
          "[ops][routing]") {
  const auto x = parameter(Tensor<double>({2, 3}, {1, 2, 3, 4, 5, 6}));
  const auto y = mask_columns(x, {true, false, true});
  REQUIRE(y.value()[1] == -std::numeric_limits<double>::infinity());
  REQUIRE(y.value()[5] == 6);
  backward(y);
  REQUIRE(to_vector(x.grad()) == std::vector<double>{1, 0, 1, 1, 0, 1});
}

TEST_CASE("routing ops: wrong arguments name both values", "[ops][routing]") {
  const Var<float> logits(Tensor<float>({2, 3}, 1.f)), x(Tensor<float>({5, 4}, 1.f));
  REQUIRE_THROWS_WITH(router_top_k(logits, 4),
                      "router_top_k: top_k is 4, expected 1 to 3 (the number of experts)");
  const auto routed = router_top_k(logits, 1);
  REQUIRE_THROWS_WITH(dispatch(x, routed.routing),
                      "dispatch: x is [5, 4], the routing has 2 tokens");
  REQUIRE_THROWS_WITH(combine(x, routed.weights, routed.routing),
                      "combine: rows are [5, 4], the routing has 2");
  REQUIRE_THROWS_WITH((load_balancing_loss<float, Cpu>({logits, x}, 1)),
                      "load_balancing_loss: router logits are [5, 4], expected [tokens, 3]");
  REQUIRE_THROWS_WITH(mask_columns(x, {true}), "mask_columns: x is [5, 4], the mask has 1 columns");
  REQUIRE_THROWS_WITH(make_routing(Tensor<std::int32_t>({1, 1}, {7}), 4),
                      "make_routing: expert 7, expected 0 to 3");
}

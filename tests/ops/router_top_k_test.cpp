// SPDX-License-Identifier: Apache-2.0
// Router top-k, the order of routed rows, and mask_columns.
#include <espalier/ops/mask_columns.hpp>
#include <espalier/ops/reference/moe.hpp>
#include <espalier/ops/router_top_k.hpp>

#include <algorithm>
#include <limits>

#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();

std::vector<int> ints(const Tensor<std::int32_t>& t) {
  return {t.data(), t.data() + t.numel()};
}
void require_close(const AnyTensor& got, const std::vector<double>& want, double atol,
                   double rtol) {
  const Mismatch m = compare(to_vector(got), want, atol, rtol);
  INFO(m);
  REQUIRE(m.count == 0);
}

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
  const auto order = GENERATE(RouterOrder::top_k_softmax, RouterOrder::softmax_top_k);
  const auto out = router_top_k(logits, 2, order);
  REQUIRE(ints(out.routing.chosen) == std::vector<int>{2, 1, 2, 0});
  REQUIRE(out.weights.value()[2] == 1.0f);
  REQUIRE(out.weights.value()[3] == 0.0f);
}

TEMPLATE_TEST_CASE("router_top_k: NaN and plus infinity make the token's weights NaN, no others",
                   "[ops][routing]", float, bf16, double) {
  const auto order = GENERATE(RouterOrder::top_k_softmax, RouterOrder::softmax_top_k);
  const Var<TestType> logits(
      make_tensor<TestType>({4, 3}, {1, NAN, 2, 3, 2, 1, 1, kInf, 2, -kInf, -kInf, -kInf}));
  const auto out = router_top_k(logits, 2, order);
  const auto w = to_vector(out.weights.value());
  REQUIRE(ints(out.routing.chosen) == std::vector<int>{2, 0, 0, 1, 1, 2, 0, 1});
  for (const int i : {0, 1, 4, 5, 6, 7}) REQUIRE(std::isnan(w[i]));
  REQUIRE((w[2] > w[3] && w[3] > 0));
}

TEMPLATE_TEST_CASE("router_top_k: weights and gradient match the reference in each order",
                   "[ops][routing]", float, bf16, double) {
  using A = acc_t<TestType>;
  const std::int64_t n = GENERATE(0, 1, 9), e = GENERATE(8, 20), k = GENERATE(1, 2, 8);
  const bool renormalize = GENERATE(true, false);
  CAPTURE(n, e, k, renormalize);
  const auto order =
      renormalize ? RouterOrder::softmax_top_k_renormalize : RouterOrder::softmax_top_k;
  const auto x = normal_of<TestType>(n * e, 4, 2.0), dw = normal(n * k, 5);
  const auto chosen = best(x, n, e, k);
  const auto w = reference::router_weights(x, chosen, n, e, k, renormalize);
  const auto dx = complex_step_grad(
      [&](const auto& z) {
        return dot(dw, reference::router_weights(z, chosen, n, e, k, renormalize));
      },
      x);
  for_each_isa([&] {
    const auto logits = parameter(make_tensor<TestType>({n, e}, x));
    const RouterOutput<TestType, Cpu> out = router_top_k(logits, k, order);
    REQUIRE(ints(out.routing.chosen) == chosen);
    require_close(out.weights.value(), w, 1e-30, tol<A>(e));
    backward(out.weights, make_tensor<A>({n, k}, dw));
    REQUIRE(logits.grad().dtype() == dtype_of<TestType>::value);
    // A gradient is a difference: its error is in units of the terms.
    require_close(logits.grad(), dx, 4 * tol<A>(k), tol<TestType>(e));
  });
}

TEST_CASE("router_top_k: a logit that is not chosen has a gradient only where all are in the sum",
          "[ops][routing]") {
  const auto logits = parameter(Tensor<double>({1, 3}, {std::log(2.0), 0, 0}));
  const Tensor<double> dw({1, 1}, 1.0);
  backward(router_top_k(logits, 1, RouterOrder::softmax_top_k).weights, dw);  // w = 1/2
  const Mismatch m =
      compare(to_vector(logits.grad()), std::vector<double>{0.25, -0.125, -0.125}, 0, 1e-14);
  INFO(m);
  REQUIRE(m.count == 0);
  logits.zero_grad();
  backward(router_top_k(logits, 1, RouterOrder::top_k_softmax).weights, dw);
  REQUIRE(to_vector(logits.grad()) == std::vector<double>{0, 0, 0});
}

TEST_CASE("routing: rows are ordered by expert, token, slot", "[ops][routing]") {
  const Tensor<std::int32_t> chosen({3, 2}, {2, 0, 0, 2, 3, 0});
  const Routing r = make_routing(chosen, 5);
  REQUIRE(r.offsets == std::vector<std::int64_t>{0, 3, 3, 5, 6, 6});
  REQUIRE(ints(r.slot_of_row) == std::vector<int>{1, 2, 5, 0, 3, 4});
  REQUIRE(ints(r.row_of_slot) == std::vector<int>{3, 0, 1, 4, 5, 2});
}

TEMPLATE_TEST_CASE("mask_columns: dropped columns are minus infinity and pass no gradient",
                   "[ops][routing]", float, bf16, double) {
  const auto x = parameter(make_tensor<TestType>({2, 3}, {1, NAN, 3, 4, 5, 6}));
  const auto y = mask_columns(x, {true, false, true});
  REQUIRE(to_vector(y.value()) == std::vector<double>{1, -kInf, 3, 4, -kInf, 6});
  backward(y);
  REQUIRE(to_vector(x.grad()) == std::vector<double>{1, 0, 1, 1, 0, 1});
  const Var<TestType> none(Tensor<TestType>(Shape{0, 2}));
  REQUIRE(mask_columns(none, {true, false}).shape() == Shape{0, 2});
}

TEMPLATE_TEST_CASE("router_top_k: the number of threads changes no bit", "[ops][routing]", float,
                   bf16) {
  const auto order = GENERATE(RouterOrder::top_k_softmax, RouterOrder::softmax_top_k);
  const auto x = normal(5000 * 11, 1), dw = normal(5000 * 3, 2);
  require_same_bits_for_any_threads([&] {
    const auto logits = parameter(make_tensor<TestType>({5000, 11}, x));
    const auto out = router_top_k(logits, 3, order);
    backward(out.weights, make_tensor<float>({5000, 3}, dw));
    return std::vector<AnyTensor>{out.routing.chosen, out.weights.value(), logits.grad()};
  });
}

TEST_CASE("router_top_k, mask_columns: wrong arguments name both values", "[ops][routing]") {
  const Var<float> logits(Tensor<float>({2, 3}, 1.f));
  REQUIRE_THROWS_WITH(router_top_k(logits, 4),
                      "router_top_k: top_k is 4, expected 1 to 3 (the number of experts)");
  REQUIRE_THROWS_WITH(router_top_k(Var<float>(Tensor<float>(Shape{3}, 1.f)), 1),
                      "router_top_k: logits are [3], expected [tokens, experts]");
  REQUIRE_THROWS_WITH(mask_columns(logits, {true}),
                      "mask_columns: x is [2, 3], the mask has 1 columns");
  REQUIRE_THROWS_WITH(make_routing(Tensor<std::int32_t>({1, 1}, 7), 4),
                      "make_routing: expert 7, expected 0 to 3");
}

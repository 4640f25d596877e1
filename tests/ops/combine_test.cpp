// SPDX-License-Identifier: Apache-2.0
// combine against a loop over tokens, and with router_top_k and dispatch a whole sparse layer.
#include <espalier/ops/combine.hpp>
#include <espalier/ops/dispatch.hpp>
#include <espalier/ops/reference/moe.hpp>

#include "ops/routings.hpp"
#include "support/each.hpp"
#include "support/gradcheck.hpp"
#include "support/require_close.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

/// Against a loop over rows.
template <class T>
void check_combine(std::int64_t h, const Routing& routing) {
  using A = acc_t<T>;
  const std::int64_t n = routing.tokens, k = routing.top_k;
  CAPTURE(n, h, k, routing.experts);
  const auto w = normal(n * k, 2), dy = normal_of<T>(n * h, 3), out = normal_of<T>(n * k * h, 4);
  std::vector<double> y(n * h), drows(n * k * h), dw(n * k);
  for (std::int64_t r = 0; r < n * k; ++r) {
    const std::int64_t slot = routing.slot_of_row[r], token = slot / k;
    for (std::int64_t c = 0; c < h; ++c) {
      y[token * h + c] += w[slot] * out[r * h + c];
      drows[r * h + c] = w[slot] * dy[token * h + c];
      dw[slot] += dy[token * h + c] * out[r * h + c];
    }
  }
  const auto vrows = parameter(make_tensor<T>({n * k, h}, out));
  const auto vw = parameter(make_tensor<A>({n, k}, w));
  const Var<T> joined = combine(vrows, vw, routing);
  require_close(joined.value(), y, 4 * tol<A>(k), tol<T>(k));
  backward(joined, make_tensor<T>({n, h}, dy));
  require_close(vrows.grad(), drows, 0, tol<T>(1));
  require_close(vw.grad(), dw, 4 * tol<A>(h), tol<A>(h));
}

}  // namespace

TEMPLATE_TEST_CASE("combine: the same as a loop over tokens, with its gradients", "[ops][combine]",
                   float, bf16, double) {
  for_each_isa([] {
    for_each_routing([](std::int64_t h, const Routing& r) { check_combine<TestType>(h, r); });
  });
}

TEST_CASE("combine: a bf16 row is the exact sum rounded once", "[ops][combine]") {
  // In f32 the four terms of each sum are exact; after every one rounded to bf16 they are not.
  const Routing routing = make_routing(Tensor<std::int32_t>({1, 4}, {0, 1, 2, 3}), 4);
  const Var<bf16> rows(make_tensor<bf16>({4, 1}, {1, 0x1p-8, 0x1p-9, 0x1p-9}));
  const Var<float> weights(Tensor<float>({1, 4}, 1.0f));
  REQUIRE(to_vector(combine(rows, weights, routing).value()) == std::vector<double>{1 + 0x1p-7});
}

TEST_CASE("a sparse layer of matrices: the same as a loop over tokens, with its gradients",
          "[ops][combine]") {
  const std::int64_t n = 12, h = 5, e = 4, k = 2;
  const bool renormalize = GENERATE(true, false);
  const auto x = normal(n * h, 1), router = normal(n * e, 2), dy = normal(n * h, 3);
  std::vector<std::vector<double>> matrices;
  for (int i = 0; i < e; ++i) matrices.push_back(normal(h * h, 20 + i));
  const auto vx = parameter(make_tensor<double>({n, h}, x));
  const auto vr = parameter(make_tensor<double>({n, e}, router));
  const RouterRule rule{.top_k = k, .renormalize = renormalize};
  const auto routed = router_top_k(vr, rule);
  const Routing& r = routed.routing;
  // The experts' products by hand, forward and backward: this test has no other op in it.
  const auto sent = dispatch(vx, r);
  std::vector<double> product(n * k * h);
  for (std::int64_t row = 0; row < r.rows(); ++row) {
    const auto& m = matrices[r.chosen[r.slot_of_row[row]]];
    for (std::int64_t o = 0; o < h; ++o) {
      for (std::int64_t c = 0; c < h; ++c) {
        product[row * h + o] += m[o * h + c] * static_cast<double>(sent.value()[row * h + c]);
      }
    }
  }
  const auto rows = parameter(make_tensor<double>({n * k, h}, product));
  const auto y = combine(rows, routed.weights, r);
  backward(y, make_tensor<double>({n, h}, dy));
  const auto drows = to_vector(rows.grad());
  std::vector<double> dsent(n * k * h);
  for (std::int64_t row = 0; row < r.rows(); ++row) {
    const auto& m = matrices[r.chosen[r.slot_of_row[row]]];
    for (std::int64_t o = 0; o < h; ++o) {
      for (std::int64_t c = 0; c < h; ++c) {
        dsent[row * h + c] += m[o * h + c] * drows[row * h + o];
      }
    }
  }
  backward(sent, make_tensor<double>({n * k, h}, dsent));

  const auto chosen = ints(r.chosen);
  auto layer = [&](const auto& zx, const auto& zr) {
    using S = typename std::decay_t<decltype(zx)>::value_type;
    std::vector<std::vector<S>> m;
    for (const auto& matrix : matrices) m.emplace_back(matrix.begin(), matrix.end());
    const auto w = reference::router_weights(zr, chosen, n, e, rule);
    return reference::moe_of_matrices(zx, w, m, chosen, n, h, k);
  };
  const double t = tol<double>(k * h * e);
  require_close(y.value(), layer(x, router), 4 * t, t);
  const auto of_x =
      complex_step_grad([&](const auto& z) { return dot(dy, layer(z, to_complex(router))); }, x);
  const auto of_router =
      complex_step_grad([&](const auto& z) { return dot(dy, layer(to_complex(x), z)); }, router);
  require_close(vx.grad(), of_x, 4 * t, t);
  require_close(vr.grad(), of_router, 4 * t, t);
}

TEMPLATE_TEST_CASE("combine: in a sparse layer the number of threads changes no bit",
                   "[ops][combine]", float, bf16) {
  const std::int64_t n = 3000, e = 11, k = 3, h = 70;
  const auto x = normal(n * h, 1), router = normal(n * e, 2), dy = normal(n * h, 3);
  require_same_bits_for_any_threads([&] {
    const auto vx = parameter(make_tensor<TestType>({n, h}, x));
    const auto vr = parameter(make_tensor<TestType>({n, e}, router));
    const auto routed = router_top_k(vr, {.top_k = k, .renormalize = false});
    const auto y = combine(dispatch(vx, routed.routing), routed.weights, routed.routing);
    backward(y, make_tensor<TestType>({n, h}, dy));
    return std::vector<AnyTensor>{routed.routing.chosen, routed.weights.value(), y.value(),
                                  vx.grad(), vr.grad()};
  });
}

TEST_CASE("combine: wrong arguments name both values", "[ops][combine]") {
  const Var<float> logits(Tensor<float>({2, 3}, 1.f)), x(Tensor<float>({5, 4}, 1.f));
  const auto routed = router_top_k(logits, {.top_k = 1});
  REQUIRE_THROWS_WITH(combine(x, routed.weights, routed.routing),
                      "combine: rows are [5, 4], the routing has 2");
  const Var<float> weights(Tensor<float>({1, 2}, 1.f));
  REQUIRE_THROWS_WITH(combine(dispatch(logits, routed.routing), weights, routed.routing),
                      "combine: weights are [1, 2], expected [2, 1]");
}

// SPDX-License-Identifier: Apache-2.0
// dispatch against a loop over tokens.
#include <espalier/ops/dispatch.hpp>

#include "ops/routings.hpp"
#include "support/each.hpp"
#include "support/require_close.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

/// Against a loop over rows.
template <class T>
void check_dispatch(std::int64_t h, const Routing& routing) {
  const std::int64_t n = routing.tokens, k = routing.top_k;
  CAPTURE(n, h, k, routing.experts);
  const auto x = normal_of<T>(n * h, 1), dsent = normal_of<T>(n * k * h, 5);
  const auto vx = parameter(make_tensor<T>({n, h}, x));
  const auto sent = dispatch(vx, routing);
  std::vector<double> rows(n * k * h), dx(n * h);
  for (std::int64_t r = 0; r < n * k; ++r) {
    const std::int64_t token = routing.slot_of_row[r] / k;
    for (std::int64_t c = 0; c < h; ++c) {
      rows[r * h + c] = x[token * h + c];
      dx[token * h + c] += dsent[r * h + c];
    }
  }
  REQUIRE(to_vector(sent.value()) == rows);
  backward(sent, make_tensor<T>({n * k, h}, dsent));
  require_close(vx.grad(), dx, 4 * tol<acc_t<T>>(k), tol<T>(k));
}

}  // namespace

TEMPLATE_TEST_CASE("dispatch: the same as a loop over tokens, with its gradient", "[ops][dispatch]",
                   float, bf16, double) {
  for_each_isa([] {
    for_each_routing([](std::int64_t h, const Routing& r) { check_dispatch<TestType>(h, r); });
  });
}

TEMPLATE_TEST_CASE("dispatch: the number of threads changes no bit", "[ops][dispatch]", float,
                   bf16) {
  const std::int64_t n = 3000, e = 11, k = 3, h = 70;
  const auto x = normal(n * h, 1), router = normal(n * e, 2), drows = normal(n * k * h, 3);
  require_same_bits_for_any_threads([&] {
    const auto vx = parameter(make_tensor<TestType>({n, h}, x));
    const Var<TestType> logits(make_tensor<TestType>({n, e}, router));
    const auto rows = dispatch(vx, router_top_k(logits, {.top_k = k}).routing);
    backward(rows, make_tensor<TestType>({n * k, h}, drows));
    return std::vector<AnyTensor>{rows.value(), vx.grad()};
  });
}

TEST_CASE("dispatch: wrong arguments name both values", "[ops][dispatch]") {
  const Var<float> logits(Tensor<float>({2, 3}, 1.f)), x(Tensor<float>({5, 4}, 1.f));
  const auto routed = router_top_k(logits, {.top_k = 1});
  REQUIRE_THROWS_WITH(dispatch(x, routed.routing),
                      "dispatch: x is [5, 4], the routing has 2 tokens");
}

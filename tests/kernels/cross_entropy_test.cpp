// SPDX-License-Identifier: Apache-2.0
// Cross entropy against double precision, under every schedule.
#include <espalier/kernels/cross_entropy.cuh>

#include <algorithm>
#include <cmath>

#include <espalier/ops/reference/softmax.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("cross entropy kernels: log-probabilities, ids and gradients",
                   "[kernels][cross_entropy]", float, __nv_bfloat16, __half) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 4), v = GENERATE(1, 31, 700);
  CAPTURE(n, v);
  auto logits = normal_as<float>(n * v, 1, 5);
  std::vector<double> targets, want_log_prob, want_argmax, want_gradient;
  for (std::int64_t i = 0; i < n; ++i) {
    if (v > 3) logits[i * v + 2] = logits[i * v + 3] = 40;  // a tie: the lower id wins
    const auto p = reference::softmax_row(&logits[i * v], v);
    const std::int64_t target = i == 1 ? -1 : (7 * i) % v;
    targets.push_back(static_cast<double>(target));
    want_log_prob.push_back(target < 0 ? 0 : std::log(p[target]));
    const auto best = std::max_element(p.begin(), p.end()) - p.begin();
    want_argmax.push_back(target < 0 ? -1 : static_cast<double>(best));
    for (std::int64_t c = 0; c < v; ++c) {
      want_gradient.push_back(target < 0 ? 0 : 0.5 * (p[c] - (c == target ? 1 : 0)));
    }
  }
  for_each_schedule([&](auto) {
    Buffer<float> z(logits), log_prob(n), shift(n), scale(std::vector<double>{0.5});
    Buffer<std::int32_t> t(targets), argmax(n);
    Buffer<T> d(n * v);
    REQUIRE(kernels::cross_entropy_forward(log_prob.data(), shift.data(), argmax.data(), z.data(),
                                           t.data(), n, v, nullptr) == cudaSuccess);
    REQUIRE(kernels::cross_entropy_backward(d.data(), z.data(), shift.data(), t.data(),
                                            scale.data(), n, v, nullptr) == cudaSuccess);
    const double f32 = tol(DType::f32, 16);
    REQUIRE(compare(log_prob.values(), want_log_prob, 16 * f32, f32).count == 0);
    REQUIRE(argmax.values() == want_argmax);
    REQUIRE(
        compare(d.values(), want_gradient, tol(kDTypeOf<T>, 1) * 0.5, tol(kDTypeOf<T>, 1) + 4 * f32)
            .count == 0);
    REQUIRE((log_prob.guarded() && shift.guarded() && argmax.guarded() && d.guarded()));
    Buffer<float> sum(std::vector<double>{2.0});
    REQUIRE(kernels::add_sum(sum.data(), log_prob.data(), -1.0f, n, nullptr) == cudaSuccess);
    double total = 2;
    for (const double x : log_prob.values()) total -= x;
    REQUIRE(compare(sum.values(), std::vector<double>{total}, 0, tol(DType::f32, 1)).count == 0);
  });
}

TEST_CASE("cross entropy kernel: a NaN logit shows in the log-probability",
          "[kernels][cross_entropy]") {
  Buffer<float> z(std::vector<double>{1, NAN, 3}), log_prob(1), shift(1);
  Buffer<std::int32_t> t(std::vector<double>{0}), argmax(1);
  REQUIRE(kernels::cross_entropy_forward(log_prob.data(), shift.data(), argmax.data(), z.data(),
                                         t.data(), 1, 3, nullptr) == cudaSuccess);
  REQUIRE(std::isnan(log_prob[0]));
}

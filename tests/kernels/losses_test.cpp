// SPDX-License-Identifier: Apache-2.0
// Losses and dropout against double precision and the framework's own draws, under every schedule.
#include <algorithm>

#include <espalier/kernels/cross_entropy.cuh>
#include <espalier/kernels/dropout.cuh>
#include <espalier/kernels/load_balancing_loss.cuh>

#include <espalier/core/random.hpp>

#include "kernels/cases.hpp"
#include "support/allclose.hpp"
#include "support/catch.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

std::vector<double> softmax(const double* x, std::int64_t n) {
  double top = x[0], sum = 0;
  for (std::int64_t c = 0; c < n; ++c) top = std::max(top, x[c]);
  std::vector<double> p;
  for (std::int64_t c = 0; c < n; ++c) sum += p.emplace_back(std::exp(x[c] - top));
  for (double& v : p) v /= sum;
  return p;
}

}  // namespace

TEMPLATE_TEST_CASE("cross entropy kernels: log-probabilities, ids and gradients",
                   "[kernels][cross_entropy]", float, __nv_bfloat16, __half) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 4), v = GENERATE(1, 31, 700);
  CAPTURE(n, v);
  auto logits = normal_as<float>(n * v, 1, 5);
  std::vector<double> targets, want_log_prob, want_argmax, want_gradient;
  for (std::int64_t i = 0; i < n; ++i) {
    if (v > 3) logits[i * v + 2] = logits[i * v + 3] = 40;  // a tie: the lower id wins
    const auto p = softmax(&logits[i * v], v);
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

TEMPLATE_TEST_CASE("dropout kernel: the draws of the framework", "[kernels][dropout]", float,
                   __nv_bfloat16, __half) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 6, 1030);
  const auto x = normal_as<T>(n, 1);
  const Philox philox(42, 7);
  std::vector<double> want;
  for (std::int64_t i = 0; i < n; ++i) {
    const bool keep = philox.uniform(static_cast<std::uint64_t>(i)) >= 0.25f;
    const float scaled = static_cast<float>(x[i]) * static_cast<float>(1 / 0.75);
    want.push_back(keep ? kernels::to_float(kernels::from_float<T>(scaled)) : 0.0);
  }
  for_each_schedule([&](auto) {
    Buffer<T> in(x), y(n);
    REQUIRE(kernels::dropout(y.data(), in.data(), 0.25f, 42, 7, n, nullptr) == cudaSuccess);
    REQUIRE(y.values() == want);
    REQUIRE(y.guarded());
  });
}

TEMPLATE_TEST_CASE("load balancing kernels: sums over layers, loss and gradient",
                   "[kernels][load_balancing]", float, __nv_bfloat16, __half) {
  using T = TestType;
  const std::int64_t n = GENERATE(1, 9, 300);
  const int e = GENERATE(2, 8, 65), k = 2, layers = 2;
  CAPTURE(n, e);
  std::vector<std::vector<double>> logits, chosen;
  std::vector<double> share(e, 0.0), mean(e, 0.0);
  const double rows = static_cast<double>(layers * n);
  for (int l = 0; l < layers; ++l) {
    logits.push_back(normal_as<T>(n * e, 3 + l));
    chosen.emplace_back();
    for (std::int64_t i = 0; i < n; ++i) {
      const auto p = softmax(&logits[l][i * e], e);
      for (int c = 0; c < e; ++c) mean[c] += p[c] / rows;
      for (int j = 0; j < k; ++j) {
        const auto c = static_cast<int>((i * i + j) % e);
        chosen[l].push_back(c);
        share[c] += 1 / rows;
      }
    }
  }
  double want = 0;
  for (int c = 0; c < e; ++c) want += e * share[c] * mean[c];
  for_each_schedule([&](auto) {
    Buffer<double> sums(std::vector<double>(2 * e, 0.0));
    Buffer<float> loss(1), dloss(std::vector<double>{3.0});
    for (int l = 0; l < layers; ++l) {
      Buffer<T> z(logits[l]);
      Buffer<std::int32_t> c(chosen[l]);
      Buffer<double> workspace(kernels::load_balancing_chunks(n) * 2 * e);
      REQUIRE(kernels::load_balancing_add(sums.data(), z.data(), c.data(), workspace.data(), n, e,
                                          k, nullptr) == cudaSuccess);
      REQUIRE(workspace.guarded());
    }
    REQUIRE(kernels::load_balancing_loss(loss.data(), sums.data(), layers * n, e, nullptr) ==
            cudaSuccess);
    const double f32 = tol(DType::f32, e);
    REQUIRE(compare(loss.values(), std::vector<double>{want}, 0, f32).count == 0);
    Buffer<T> z(logits[1]), d(n * e);
    REQUIRE(kernels::load_balancing_backward(d.data(), z.data(), sums.data(), dloss.data(),
                                             layers * n, n, e, nullptr) == cudaSuccess);
    std::vector<double> gradient;
    const double largest = 3.0 * e / rows;  // of a gradient; near balance two terms cancel
    for (std::int64_t i = 0; i < n; ++i) {
      const auto p = softmax(&logits[1][i * e], e);
      double dot = 0;
      for (int c = 0; c < e; ++c) dot += p[c] * share[c];
      for (int c = 0; c < e; ++c) {
        gradient.push_back(3.0 * e / rows * p[c] * (share[c] - dot));
      }
    }
    const double t = tol(kDTypeOf<T>, 1);
    const double subnormal = kDTypeOf<T> == DType::f16 ? 0x1p-24 : 0;
    REQUIRE(compare(d.values(), gradient, 8 * f32 * largest + subnormal, t).count == 0);
    REQUIRE((sums.guarded() && loss.guarded() && d.guarded()));
  });
}

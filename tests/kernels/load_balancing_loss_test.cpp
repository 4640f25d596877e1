// SPDX-License-Identifier: Apache-2.0
// The load balancing loss against double precision, under every schedule.
#include <espalier/kernels/load_balancing_loss.cuh>

#include <espalier/ops/reference/softmax.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

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
      const auto p = reference::softmax_row(&logits[l][i * e], e);
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
      const auto p = reference::softmax_row(&logits[1][i * e], e);
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

// SPDX-License-Identifier: Apache-2.0
// The update of the optimizer against double precision, under every schedule.
#include <espalier/kernels/adamw.cuh>

#include <cmath>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEST_CASE("adamw kernel: the update of algorithm 2, with and without a gradient",
          "[kernels][adamw]") {
  const std::int64_t n = GENERATE(0, 1, 300);
  const bool has_gradient = GENERATE(true, false);
  CAPTURE(n, has_gradient);
  const double lr = 0.01, decay = 0.1, beta1 = 0.9, beta2 = 0.999, eps = 1e-8, scale = 0.5;
  const int t = 3;
  const auto p = normal_as<float>(n, 1), m = normal_as<float>(n, 2), grad = normal_as<float>(n, 4);
  auto v = normal_as<float>(n, 3);
  for (double& x : v) x *= x;
  std::vector<double> want_p, want_m, want_v;
  for (std::size_t i = 0; i < p.size(); ++i) {
    const double g = has_gradient ? scale * grad[i] : 0;
    want_m.push_back(beta1 * m[i] + (1 - beta1) * g);
    want_v.push_back(beta2 * v[i] + (1 - beta2) * g * g);
    const double m_hat = want_m[i] / (1 - std::pow(beta1, t));
    const double v_hat = want_v[i] / (1 - std::pow(beta2, t));
    want_p.push_back(p[i] * (1 - lr * decay) - lr * m_hat / (std::sqrt(v_hat) + eps));
  }
  const kernels::AdamWConstants constants{static_cast<float>(1 - lr * decay),
                                          static_cast<float>(1 - beta1),
                                          static_cast<float>(beta2),
                                          static_cast<float>(1 - beta2),
                                          static_cast<float>(std::sqrt(1 - std::pow(beta2, t))),
                                          static_cast<float>(eps),
                                          static_cast<float>(lr / (1 - std::pow(beta1, t))),
                                          static_cast<float>(scale)};
  const double tolerance = tol(DType::f32, 4);
  for_each_schedule([&](auto) {
    Buffer<float> bp(p), bm(m), bv(v), bg(grad);
    REQUIRE(kernels::adamw(bp.data(), bm.data(), bv.data(),
                           has_gradient ? static_cast<const float*>(bg.data()) : nullptr, n,
                           constants, nullptr) == cudaSuccess);
    REQUIRE(compare(bp.values(), want_p, tolerance, tolerance).count == 0);
    REQUIRE(compare(bm.values(), want_m, tolerance, tolerance).count == 0);
    REQUIRE(compare(bv.values(), want_v, tolerance, tolerance).count == 0);
    REQUIRE((bp.guarded() && bm.guarded() && bv.guarded()));
  });
}

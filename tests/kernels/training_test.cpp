// SPDX-License-Identifier: Apache-2.0
// Norms and the optimizer's update against double precision, under every schedule.
#include <espalier/kernels/adamw.cuh>
#include <espalier/kernels/norms.cuh>

#include "kernels/cases.hpp"
#include "support/allclose.hpp"
#include "support/catch.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("norm kernels: rows, whole arrays and differences", "[kernels][norms]", float,
                   __nv_bfloat16, __half) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 5), h = GENERATE(1, 33, 3000);
  CAPTURE(n, h);
  const auto x = normal_as<T>(n * h, 1), b = normal_as<T>(n * h, 2);
  std::vector<double> rows, row_differences;
  double sum = 0, difference_sum = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    double squares = 0, differences = 0;
    for (std::int64_t c = i * h; c < (i + 1) * h; ++c) {
      squares += x[c] * x[c];
      differences += (x[c] - b[c]) * (x[c] - b[c]);
    }
    rows.push_back(std::sqrt(squares));
    row_differences.push_back(std::sqrt(differences));
    sum += squares;
    difference_sum += differences;
  }
  const double f32 = epsilon_of(DType::f32), f64 = tol(DType::f64, n * h);
  for_each_schedule([&](auto) {
    Buffer<T> a(x), other(b);
    Buffer<float> norms(n), differences(n);
    Buffer<double> total(1), workspace(kernels::sum_of_squares_blocks(n * h));
    REQUIRE(kernels::row_norms(norms.data(), a.data(), n, h, nullptr) == cudaSuccess);
    REQUIRE(kernels::row_norms_of_difference(differences.data(), a.data(), other.data(), n, h,
                                             nullptr) == cudaSuccess);
    REQUIRE(compare(norms.values(), rows, 0, f32).count == 0);
    REQUIRE(compare(differences.values(), row_differences, 0, f32).count == 0);
    REQUIRE(kernels::sum_of_squares(total.data(), a.data(), n * h, workspace.data(), nullptr) ==
            cudaSuccess);
    REQUIRE(compare(std::vector{total[0]}, std::vector{sum}, 0, f64).count == 0);
    REQUIRE(kernels::sum_of_squared_differences(total.data(), a.data(), other.data(), n * h,
                                                workspace.data(), nullptr) == cudaSuccess);
    REQUIRE(compare(std::vector{total[0]}, std::vector{difference_sum}, 0, f64).count == 0);
    REQUIRE((norms.guarded() && differences.guarded() && total.guarded() && workspace.guarded()));
  });
}

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

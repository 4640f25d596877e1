// SPDX-License-Identifier: Apache-2.0
// Norms against double precision, under every schedule.
#include <espalier/kernels/norms.cuh>

#include <cmath>

#include "kernels/cases.hpp"

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

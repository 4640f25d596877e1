// SPDX-License-Identifier: Apache-2.0
// The z-loss of router logits in double precision, and its gradient, under every schedule.
#include <espalier/kernels/router_z_loss.cuh>

#include <espalier/ops/reference/softmax.hpp>

#include "kernels/cases.hpp"
#include "support/allclose.hpp"
#include "support/catch.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("router z-loss kernels: logarithms, loss and gradient of two layers",
                   "[kernels][router_z_loss]", float, __nv_bfloat16, __half) {
  using T = TestType;
  const std::int64_t n = GENERATE(1, 9, 300);
  const int e = GENERATE(1, 8, 65);
  CAPTURE(n, e);
  const std::int64_t rows = 2 * n;
  const auto logits = normal_as<T>(rows * e, 1, 2);
  const double dloss = 3;
  std::vector<double> log_sums, gradient;
  double want = 0;
  for (std::int64_t i = 0; i < rows; ++i) {
    const double log_sum = log_sums.emplace_back(reference::log_sum_exp(&logits[i * e], e));
    want += log_sum * log_sum / static_cast<double>(rows);
    for (const double p : reference::softmax_row(&logits[i * e], e)) {
      gradient.push_back(dloss * 2 / static_cast<double>(rows) * log_sum * p);
    }
  }
  const double f32 = 4 * tol(DType::f32, e), type = epsilon_of(kDTypeOf<T>);
  const double subnormal = kDTypeOf<T> == DType::f16 ? 0x1p-24 : 0;
  same_in_every_schedule([&] {
    Buffer<T> z(logits), d(rows * e);
    Buffer<float> sums(rows), loss(1), dl(std::vector<double>{dloss});
    Buffer<double> workspace(kernels::sum_blocks(rows));
    for (const std::int64_t first : {std::int64_t{0}, n}) {
      REQUIRE(kernels::log_sum_exp(sums.data() + first, z.data() + first * e, n, e, nullptr) ==
              cudaSuccess);
      REQUIRE(kernels::router_z_loss_backward(d.data() + first * e, z.data() + first * e, dl.data(),
                                              rows, n, e, nullptr) == cudaSuccess);
    }
    REQUIRE(kernels::router_z_loss(loss.data(), sums.data(), rows, workspace.data(), nullptr) ==
            cudaSuccess);
    // A logarithm is the sum of two terms that may cancel.
    require_close(sums, log_sums, f32, 4 * f32);
    require_close(loss, {want}, f32, 0);
    require_close(d, gradient, f32 + type, 8 * f32 / static_cast<double>(rows) + subnormal);
    REQUIRE(workspace.guarded());
    return loss.bytes() + d.bytes();
  });
}

TEST_CASE("router z-loss kernels: far out, and an expert that is off", "[kernels][router_z_loss]") {
  Buffer<float> z(std::vector<double>{0, 0, 1000, -1000, 0, -INFINITY}), sums(3);
  REQUIRE(kernels::log_sum_exp(sums.data(), z.data(), 3, 2, nullptr) == cudaSuccess);
  REQUIRE(std::abs(sums[0] - std::log(2.0)) <= 1e-6);
  REQUIRE((sums[1] == 1000 && sums[2] == 0));
}

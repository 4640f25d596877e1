// SPDX-License-Identifier: Apache-2.0
// The softmax of rows and its gradient against the double-precision reference, under every
// schedule.
#include <espalier/kernels/softmax.cuh>

#include <espalier/ops/reference/softmax.hpp>

#include <limits>

#include "kernels/cases.hpp"
#include "support/allclose.hpp"
#include "support/catch.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

// dx = y (dy - <y, dy>), row by row.
std::vector<double> gradient(const std::vector<double>& y, const std::vector<double>& dy,
                             std::int64_t h) {
  std::vector<double> dx;
  for (std::size_t first = 0; first < y.size(); first += static_cast<std::size_t>(h)) {
    double dot = 0;
    for (std::int64_t c = 0; c < h; ++c) dot += y[first + c] * dy[first + c];
    for (std::int64_t c = 0; c < h; ++c) dx.push_back(y[first + c] * (dy[first + c] - dot));
  }
  return dx;
}

}  // namespace

TEMPLATE_TEST_CASE("softmax kernels: forward and backward follow the reference",
                   "[kernels][softmax]", KERNEL_TYPES) {
  using T = TestType;
  // Short rows, rows of whole vectors, of several warps, and more columns than a block has threads.
  const std::int64_t n = GENERATE(0, 1, 3), h = GENERATE(1, 7, 64, 264, 1030, 4096);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, h, misaligned);
  const auto x = normal_as<T>(n * h, 1, 3), dy = normal_as<T>(n * h, 2);
  const auto want = reference::softmax(x, h);
  const auto want_dx = gradient(want, dy, h);
  const double f32 = 16 * tol(DType::f32, h), type = epsilon_of(kDTypeOf<T>);
  const double subnormal = kDTypeOf<T> == DType::f16 ? 0x1p-24 : 0;
  for_each_schedule([&](auto) {
    Buffer<T> in(x, misaligned), d(dy, misaligned), y(n * h, misaligned), dx(n * h, misaligned);
    REQUIRE(kernels::softmax_forward(y.data(), in.data(), n, h, nullptr) == cudaSuccess);
    REQUIRE(kernels::softmax_backward(dx.data(), d.data(), in.data(), n, h, nullptr) ==
            cudaSuccess);
    require_close(y, want, f32 + type, subnormal);
    // Two terms cancel: the error is one of the larger.
    require_close(dx, want_dx, f32 + type, f32 * 0.1 + subnormal);
    REQUIRE(kernels::softmax_backward(d.data(), d.data(), in.data(), n, h, nullptr) == cudaSuccess);
    REQUIRE(kernels::softmax_forward(in.data(), in.data(), n, h, nullptr) == cudaSuccess);
    REQUIRE((in.values() == y.values() && d.values() == dx.values()));  // in place
  });
}

TEST_CASE("softmax kernels: -inf has no probability, NaN and +inf show", "[kernels][softmax]") {
  constexpr double kInf = std::numeric_limits<double>::infinity();
  Buffer<float> x(std::vector<double>{0, -kInf, 0, 1, NAN, 2, kInf, 0, 1, -kInf, -kInf, -kInf});
  Buffer<float> y(12);
  REQUIRE(kernels::softmax_forward(y.data(), x.data(), 4, 3, nullptr) == cudaSuccess);
  REQUIRE((y[0] == 0.5f && y[1] == 0 && y[2] == 0.5f));
  for (const std::size_t row : {1u, 3u}) {
    for (std::size_t c = 0; c < 3; ++c) REQUIRE(std::isnan(y[row * 3 + c]));
  }
  REQUIRE(std::isnan(y[6]));
}

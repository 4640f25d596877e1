// SPDX-License-Identifier: Apache-2.0
// rms_norm against the double-precision reference,
// under every schedule of threads and blocks.
#include <espalier/kernels/rms_norm.cuh>

#include <espalier/ops/reference/rms_norm.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

TEMPLATE_TEST_CASE("rms_norm kernels: forward and backward follow the reference",
                   "[kernels][rms_norm]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 3), h = GENERATE(1, 7, 64, 264, 1030);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, h, misaligned);
  const auto x = normal_as<T>(n * h, 1), w = normal_as<T>(h, 2), dy = normal_as<T>(n * h, 3);
  const float eps = 1e-5f;
  const auto want = reference::rms_norm(x, w, eps);
  const auto grads = reference::rms_norm_backward(dy, x, w, eps);
  for_each_schedule([&](auto) {
    Buffer<T> y(n * h, misaligned), dx(n * h, misaligned), in(x, misaligned), d(dy, misaligned),
        gain(w);
    Buffer<float> r(n), dw(h), workspace(kernels::rms_norm_gain_chunks(n) * h);
    REQUIRE(kernels::rms_norm_forward(y.data(), r.data(), in.data(), gain.data(), n, h, eps,
                                      nullptr) == cudaSuccess);
    REQUIRE(kernels::rms_norm_backward(dx.data(), d.data(), in.data(), gain.data(), r.data(), n, h,
                                       nullptr) == cudaSuccess);
    REQUIRE(kernels::rms_norm_gain_backward(dw.data(), d.data(), in.data(), r.data(),
                                            workspace.data(), n, h, nullptr) == cudaSuccess);
    require_near<T>(y.values(), want, h);
    // Its two terms cancel in short rows.
    require_near<T>(dx.values(), grads.dx, h, 4);
    require_near<float>(dw.values(), grads.dw, h + n, 4);
    REQUIRE((y.guarded() && dx.guarded() && r.guarded() && dw.guarded() && workspace.guarded()));
  });
}

TEST_CASE("rms_norm kernels: the gain's gradient over many rows, and a gain of another type",
          "[kernels][rms_norm]") {
  const std::int64_t n = 300, h = 40;
  const auto x = normal_as<__nv_bfloat16>(n * h, 1), dy = normal_as<__nv_bfloat16>(n * h, 3);
  const auto w = normal_as<float>(h, 2);
  Buffer<__nv_bfloat16> in(x), d(dy), y(n * h);
  Buffer<float> gain(w), r(n), dw(h), workspace(kernels::rms_norm_gain_chunks(n) * h);
  REQUIRE(kernels::rms_norm_forward(y.data(), r.data(), in.data(), gain.data(), n, h, 1e-5f,
                                    nullptr) == cudaSuccess);
  REQUIRE(kernels::rms_norm_gain_backward(dw.data(), d.data(), in.data(), r.data(),
                                          workspace.data(), n, h, nullptr) == cudaSuccess);
  require_near<__nv_bfloat16>(y.values(), reference::rms_norm(x, w, 1e-5f), h);
  require_near<float>(dw.values(), reference::rms_norm_backward(dy, x, w, 1e-5f).dw, n, 16);
}

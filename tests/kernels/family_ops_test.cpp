// SPDX-License-Identifier: Apache-2.0
// Kernels of the small ops that some model families need: biases, blocks of columns, gates per row
// and clamps, against the double-precision references, under every schedule.
#include <espalier/kernels/bias.cuh>
#include <espalier/kernels/clamped_swiglu.cuh>
#include <espalier/kernels/column_blocks.cuh>
#include <espalier/kernels/elementwise.cuh>
#include <espalier/kernels/sigmoid_gate.cuh>

#include <espalier/ops/reference/bias.hpp>
#include <espalier/ops/reference/clamp.hpp>
#include <espalier/ops/reference/column_blocks.hpp>
#include <espalier/ops/reference/sigmoid_gate.hpp>

#include <limits>

#include "kernels/cases.hpp"
#include "support/allclose.hpp"
#include "support/catch.hpp"
#include "support/make_tensor.hpp"

using namespace espalier;
using namespace espalier::test;

#define KERNEL_TYPES float, __nv_bfloat16, __half

namespace {

using Offsets = std::vector<std::int64_t>;

// One rounding to T at the end, and a sum of `length` terms in f32 before it.
template <class T>
void require_near(const std::vector<double>& got, const std::vector<double>& want,
                  std::int64_t length, double scale = 1) {
  const double f32 = tol(DType::f32, length);
  const double subnormal = kDTypeOf<T> == DType::f16 ? 0x1p-24 : 0;
  const Mismatch m = compare(got, want, f32 * scale + subnormal, f32 + epsilon_of(kDTypeOf<T>));
  INFO(m);
  REQUIRE(m.count == 0);
}

template <class T, class B>
void check_bias(const Offsets& offsets, std::int64_t h, bool misaligned) {
  const auto groups = static_cast<int>(offsets.size()) - 1;
  const std::int64_t rows = offsets.back(), n = rows + 2;  // two that no group has
  const auto x = normal_as<T>(n * h, 1), biases = normal_as<B>(groups * h, 2),
             dy = normal_as<T>(n * h, 3);
  const std::vector<double> used(x.begin(), x.begin() + rows * h);
  const auto want = reference::add_bias(used, biases, offsets, h);
  const auto grads = reference::add_bias_backward(dy, offsets, h);
  std::vector<std::int32_t> starts(offsets.begin(), offsets.end());
  for_each_schedule([&](auto) {
    Buffer<T> in(x, misaligned), y(n * h, misaligned), d(dy, misaligned);
    Buffer<B> all(biases, misaligned);
    auto device_offsets = buffer_of(starts);
    Buffer<std::int64_t> pointers(groups);
    for (int g = 0; g < groups; ++g) {
      pointers[g] = offsets[g] == offsets[g + 1]
                        ? 0
                        : reinterpret_cast<std::int64_t>(all.data() + std::int64_t{g} * h);
    }
    REQUIRE(kernels::add_bias_grouped(y.data(), in.data(),
                                      reinterpret_cast<const B* const*>(pointers.data()),
                                      device_offsets.data(), groups, n, h, nullptr) == cudaSuccess);
    const auto got = y.values();
    require_near<T>({got.begin(), got.begin() + rows * h}, want, 2);
    REQUIRE(y.untouched(static_cast<std::size_t>(rows * h), static_cast<std::size_t>(n * h)));
    Buffer<float> db(groups * h),
        workspace(static_cast<std::int64_t>(kernels::bias_workspace_bytes(n, groups, h) / 4));
    REQUIRE(kernels::bias_backward(db.data(), d.data(), device_offsets.data(), groups, n, h,
                                   workspace.data(), nullptr) == cudaSuccess);
    require_near<float>(db.values(), grads, n, 4);
    REQUIRE((y.guarded() && db.guarded() && workspace.guarded()));
  });
}

}  // namespace

TEMPLATE_TEST_CASE("bias kernels: a bias per group, and its gradient", "[kernels][bias]",
                   KERNEL_TYPES) {
  const auto offsets = GENERATE(Offsets{0, 0}, Offsets{0, 5}, Offsets{0, 0, 2, 2, 9, 10, 10});
  const std::int64_t h = GENERATE(1, 7, 64, 264);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(offsets, h, misaligned);
  check_bias<TestType, TestType>(offsets, h, misaligned);
  check_bias<TestType, float>(offsets, h, misaligned);
}

TEST_CASE("bias kernels: stored in 2 bytes beside f32, and many rows in chunks",
          "[kernels][bias]") {
  check_bias<float, __nv_bfloat16>({0, 3, 3, 8}, 20, false);
  check_bias<float, __half>({0, 3, 3, 8}, 20, true);
  check_bias<__nv_bfloat16, float>({0, 3, 3, 300}, 40, false);
  REQUIRE(kernels::bias_chunks(302, 3) == 2);
}

TEMPLATE_TEST_CASE("bias kernels: one bias for all rows", "[kernels][bias]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 9, 200), h = GENERATE(5, 40);
  CAPTURE(n, h);
  const auto x = normal_as<T>(n * h, 1), bias = normal_as<T>(h, 2), dy = normal_as<T>(n * h, 3);
  for_each_schedule([&](auto) {
    Buffer<T> in(x), b(bias), d(dy);
    REQUIRE(kernels::add_bias(in.data(), in.data(), b.data(), n, h, nullptr) == cudaSuccess);
    require_near<T>(in.values(), reference::add_bias(x, bias, {0, n}, h), 2);
    Buffer<float> db(h),
        workspace(static_cast<std::int64_t>(kernels::bias_workspace_bytes(n, 1, h) / 4));
    REQUIRE(kernels::bias_backward(db.data(), d.data(), nullptr, 1, n, h, workspace.data(),
                                   nullptr) == cudaSuccess);
    require_near<float>(db.values(), reference::add_bias_backward(dy, {0, n}, h), n + 1, 4);
    REQUIRE((in.guarded() && db.guarded() && workspace.guarded()));
  });
}

TEMPLATE_TEST_CASE("column_blocks kernels: columns to their place between zeros",
                   "[kernels][column_blocks]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t rows = GENERATE(0, 1, 5);
  const bool misaligned = GENERATE(false, true);
  struct Case {
    std::int64_t width, begin, count;
  };
  const auto c = GENERATE(Case{1, 0, 1}, Case{40, 8, 16}, Case{40, 3, 16}, Case{41, 0, 8},
                          Case{7, 7, 0}, Case{264, 0, 264});
  CAPTURE(rows, misaligned, c.width, c.begin, c.count);
  const auto wide = normal_as<T>(rows * c.width, 1), part = normal_as<T>(rows * c.count, 2);
  for_each_schedule([&](auto) {
    Buffer<T> x(wide, misaligned), y(rows * c.count, misaligned), z(part, misaligned),
        back(rows * c.width, misaligned);
    REQUIRE(kernels::place_columns(y.data(), {c.count, 0}, x.data(), {c.width, c.begin}, rows,
                                   c.count, nullptr) == cudaSuccess);
    REQUIRE(y.values() == reference::narrow(wide, rows, c.width, c.begin, c.count));
    REQUIRE(kernels::place_columns(back.data(), {c.width, c.begin}, z.data(), {c.count, 0}, rows,
                                   c.count, nullptr) == cudaSuccess);
    REQUIRE(back.values() == reference::widen(part, rows, c.count, c.begin, c.width));
    REQUIRE((y.guarded() && back.guarded()));
  });
}

TEMPLATE_TEST_CASE("column_blocks kernels: heads side by side, and the sum over those that share",
                   "[kernels][column_blocks]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 4), heads = GENERATE(1, 3);
  const std::int64_t p1 = GENERATE(0, 5, 16), p2 = GENERATE(3, 8, 72);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, heads, p1, p2, misaligned);
  for (const std::int64_t b_heads : {std::int64_t{1}, heads}) {
    const auto a = normal_as<T>(n * heads * p1, 1), b = normal_as<T>(n * b_heads * p2, 2);
    const auto dy = normal_as<T>(n * heads * (p1 + p2), 3);
    for_each_schedule([&](auto) {
      Buffer<T> va(a, misaligned), vb(b, misaligned), y(n * heads * (p1 + p2), misaligned);
      REQUIRE(kernels::concat_heads(y.data(), va.data(), vb.data(), n, heads, b_heads, p1, p2,
                                    nullptr) == cudaSuccess);
      REQUIRE(y.values() == reference::concat_heads(a, b, n, heads, b_heads, p1, p2));
      Buffer<T> d(dy, misaligned), db(n * p2, misaligned);
      REQUIRE(kernels::sum_heads(db.data(), d.data(), {p1 + p2, p1}, n, heads, p2, nullptr) ==
              cudaSuccess);
      require_near<T>(db.values(), reference::concat_heads_backward(dy, n, heads, 1, p1, p2).db,
                      heads);
      REQUIRE((y.guarded() && db.guarded()));
    });
  }
}

TEMPLATE_TEST_CASE("sigmoid_gate kernels: forward and backward follow the reference",
                   "[kernels][sigmoid_gate]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 11), h = GENERATE(1, 7, 64, 1064);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, h, misaligned);
  const auto x = normal_as<T>(n * h, 1), gate = normal_as<T>(n, 2, 4), dy = normal_as<T>(n * h, 3);
  const auto grads = reference::sigmoid_gate_backward(dy, x, gate);
  for_each_schedule([&](auto) {
    Buffer<T> in(x, misaligned), g(gate), d(dy, misaligned), y(n * h, misaligned),
        dx(n * h, misaligned), dgate(n);
    REQUIRE(kernels::sigmoid_gate_forward(y.data(), in.data(), g.data(), n, h, nullptr) ==
            cudaSuccess);
    require_near<T>(y.values(), reference::sigmoid_gate(x, gate), 4, 1e-3);
    REQUIRE(kernels::sigmoid_gate_backward(dx.data(), dgate.data(), d.data(), in.data(), g.data(),
                                           n, h, nullptr) == cudaSuccess);
    require_near<T>(dx.values(), grads.dx, 4, 1e-3);
    require_near<T>(dgate.values(), grads.dgate, h + 4, 1);
    REQUIRE((y.guarded() && dx.guarded() && dgate.guarded()));
    // One gradient alone.
    Buffer<T> only_dx(n * h, misaligned), only_dgate(n);
    REQUIRE(kernels::sigmoid_gate_backward<T>(only_dx.data(), nullptr, d.data(), nullptr, g.data(),
                                              n, h, nullptr) == cudaSuccess);
    REQUIRE(kernels::sigmoid_gate_backward<T>(nullptr, only_dgate.data(), d.data(), in.data(),
                                              g.data(), n, h, nullptr) == cudaSuccess);
    REQUIRE((only_dx.bytes() == dx.bytes() && only_dgate.bytes() == dgate.bytes()));
  });
}

TEMPLATE_TEST_CASE("clamp kernels: exactly the reference, NaN and bounds included",
                   "[kernels][clamp]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 3, 1031);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, misaligned);
  auto x = normal_as<T>(n, 1, 2);
  const auto dy = normal_as<T>(n, 2);
  if (n > 2) x[0] = -0.75, x[1] = 1.25, x[2] = std::numeric_limits<double>::quiet_NaN();
  for_each_schedule([&](auto) {
    Buffer<T> in(x, misaligned), d(dy, misaligned), y(n, misaligned), dx(n, misaligned);
    REQUIRE(kernels::clamp(y.data(), in.data(), -0.75f, 1.25f, n, nullptr) == cudaSuccess);
    REQUIRE(kernels::clamp_backward(dx.data(), d.data(), in.data(), -0.75f, 1.25f, n, nullptr) ==
            cudaSuccess);
    const auto got = y.values(), want = reference::clamp(x, -0.75, 1.25);
    for (std::size_t i = 0; i < got.size(); ++i) {
      REQUIRE((i == 2 ? std::isnan(got[i]) : got[i] == want[i]));
    }
    REQUIRE(dx.values() == reference::clamp_backward(dy, x, -0.75, 1.25));
    REQUIRE((y.guarded() && dx.guarded()));
  });
}

TEMPLATE_TEST_CASE("clamped_swiglu kernels: forward and backward follow the reference",
                   "[kernels][clamped_swiglu]", KERNEL_TYPES) {
  using T = TestType;
  const std::int64_t n = GENERATE(0, 1, 7, 256, 2051);
  const bool misaligned = GENERATE(false, true);
  CAPTURE(n, misaligned);
  const float alpha = 1.702f;
  const auto gate = normal_as<T>(n, 1, 4), up = normal_as<T>(n, 2, 4), dy = normal_as<T>(n, 3);
  const auto grads = reference::clamped_swiglu_backward<double>(dy, gate, up, alpha, 7);
  for_each_schedule([&](auto) {
    Buffer<T> g(gate, misaligned), u(up, misaligned), d(dy, misaligned);
    Buffer<T> y(n, misaligned), dgate(n, misaligned), dup(n, misaligned);
    REQUIRE(kernels::clamped_swiglu_forward(y.data(), g.data(), u.data(), alpha, 7.0f, n,
                                            nullptr) == cudaSuccess);
    REQUIRE(kernels::clamped_swiglu_backward(dgate.data(), dup.data(), d.data(), g.data(), u.data(),
                                             alpha, 7.0f, n, nullptr) == cudaSuccess);
    // The error of alpha · gate far out is one of the sigmoid's exponent.
    require_near<T>(y.values(), reference::clamped_swiglu<double>(gate, up, alpha, 7), 16, 4);
    require_near<T>(dgate.values(), grads.dgate, 16, 16);
    require_near<T>(dup.values(), grads.dup, 16, 4);
    REQUIRE((y.guarded() && dgate.guarded() && dup.guarded()));
    // In place, as a layer may use it.
    REQUIRE(kernels::clamped_swiglu_backward(g.data(), u.data(), d.data(), g.data(), u.data(),
                                             alpha, 7.0f, n, nullptr) == cudaSuccess);
    REQUIRE(g.bytes() == dgate.bytes());
    REQUIRE(u.bytes() == dup.bytes());
  });
}

TEST_CASE("clamped_swiglu kernels: NaN stays NaN, and a clamped NaN has no gradient",
          "[kernels][clamped_swiglu]") {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  Buffer<float> g(std::vector<double>{nan, 1}), u(std::vector<double>{1, nan}),
      d(std::vector<double>{1, 1}), y(2), dgate(2), dup(2);
  REQUIRE(kernels::clamped_swiglu_forward(y.data(), g.data(), u.data(), 1.702f, 7.0f, 2, nullptr) ==
          cudaSuccess);
  REQUIRE(kernels::clamped_swiglu_backward(dgate.data(), dup.data(), d.data(), g.data(), u.data(),
                                           1.702f, 7.0f, 2, nullptr) == cudaSuccess);
  REQUIRE((std::isnan(y[0]) && std::isnan(y[1])));
  REQUIRE((dgate[0] == 0 && std::isnan(dgate[1]) && std::isnan(dup[0]) && dup[1] == 0));
}

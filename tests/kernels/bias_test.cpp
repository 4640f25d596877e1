// SPDX-License-Identifier: Apache-2.0
// Biases per group against the double-precision reference, under every schedule of threads and
// blocks.
#include <espalier/kernels/bias.cuh>

#include <espalier/ops/reference/bias.hpp>

#include "kernels/cases.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using Offsets = std::vector<std::int64_t>;

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

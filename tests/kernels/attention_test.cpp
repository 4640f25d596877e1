// SPDX-License-Identifier: Apache-2.0
// Every implementation of attention against the double-precision reference, under every schedule.
#include "attention_cases.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using Bf16 = __nv_bfloat16;
using F16 = __half;

}  // namespace

#define ESP_IMPLEMENTATIONS \
  Plain<float>, Plain<Bf16>, Plain<F16>, Mma<Bf16>, Mma<F16>, (Mma<Bf16, kernels::kFewRows>)

TEMPLATE_TEST_CASE("attention: forward and backward follow the reference", "[kernels][attention]",
                   ESP_IMPLEMENTATIONS) {
  check_attention<TestType>({{0, 0}, 2, 1, 8, 0});
  check_attention<TestType>({{0, 1}, 1, 1, 1, 0});
  check_attention<TestType>({{0, 9, 9, 20}, 4, 2, 33, 0});
  check_attention<TestType>({{0, 5, 19}, 3, 3, 64, 4});
  check_attention<TestType>({{0, 11}, 2, 1, 130, 1});
}

TEMPLATE_TEST_CASE("attention: segments and windows off the tiles", "[kernels][attention]",
                   Mma<Bf16>) {
  check_attention<TestType>({{0, 0, 70, 70, 71, 135, 135}, 3, 1, 40, 0});
  check_attention<TestType>({{0, 129}, 2, 2, 128, 70});
  check_attention<TestType>({{0, 33}, 8, 1, 16, 9});
}

TEMPLATE_TEST_CASE("attention: a NaN key reaches the rows that see it, and no bit of others",
                   "[kernels][attention]", Plain<float>, Mma<Bf16>,
                   (Mma<Bf16, kernels::kFewRows>)) {
  using T = typename TestType::T;
  const std::int64_t n = TestType::kAlign == 1 ? 9 : 100, bad = n - 5;
  const AttentionProblem c{{0, n}, 2, 1, 8, 0};
  auto keys = normal_as<T>(n * 8, 2);
  Buffer<T> q(normal_as<T>(n * 16, 1)), v(normal_as<T>(n * 8, 3)), clean(n * 16), y(n * 16);
  const auto run = [&](Buffer<T>& to) {
    Buffer<T> k(keys);
    const auto segments = packed<T>(c, k.data(), v.data());
    REQUIRE(TestType::forward(to.data(), static_cast<float*>(nullptr), q.data(), segments.data(),
                              c.sizes(), nullptr) == cudaSuccess);
  };
  run(clean);
  keys[bad * 8] = NAN;
  run(y);
  const std::size_t before = bad * 16 * sizeof(T);
  REQUIRE(y.bytes().substr(0, before) == clean.bytes().substr(0, before));
  const auto after = y.values();
  for (std::size_t i = bad * 16; i < after.size(); ++i) REQUIRE(std::isnan(after[i]));
}

TEST_CASE("attention: a head that is too wide is refused", "[kernels][attention]") {
  const kernels::AttentionSizes wide{1, 1, 1, 1, 257, 0}, odd{1, 1, 1, 1, 12, 0};
  REQUIRE(kernels::attention_forward<float>(nullptr, nullptr, nullptr, nullptr, wide, nullptr) ==
          cudaErrorInvalidValue);
  REQUIRE(kernels::attention_forward<Bf16>(nullptr, nullptr, nullptr, nullptr, wide, nullptr) ==
          cudaErrorInvalidValue);
  REQUIRE(kernels::attention_mma_forward<Bf16>(nullptr, nullptr, nullptr, nullptr, odd, nullptr) ==
          cudaErrorInvalidValue);
  REQUIRE(kernels::attention_mma_backward<Bf16>({}, nullptr, odd, nullptr) ==
          cudaErrorInvalidValue);
}

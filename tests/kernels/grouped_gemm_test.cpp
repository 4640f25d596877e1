// SPDX-License-Identifier: Apache-2.0
// One matrix product per expert, in all layouts and on every implementation, against plain loops in
// double.
#include <espalier/kernels/grouped_gemm.cuh>

#include "grouped_gemm_cases.hpp"

using namespace espalier;
using namespace espalier::test;

namespace {

using Bf16 = __nv_bfloat16;
using F16 = __half;

template <class TC, class TA, class TB>
struct Plain {
  using C = TC;
  using A = TA;
  using B = TB;
  static constexpr std::int64_t kAlign = 1;
  template <GemmForm kForm, class... P>
  static cudaError_t rows(P... p) {
    return kernels::grouped_gemm_plain_rows<kForm, C, A, B>(p...);
  }
  template <class... P>
  static cudaError_t tn(P... p) {
    return kernels::grouped_gemm_plain_tn<C, A, B>(p...);
  }
};

template <class TC, class T>
struct Mma {
  using C = TC;
  using A = T;
  using B = T;
  static constexpr std::int64_t kAlign = 8;
  template <GemmForm kForm, class... P>
  static cudaError_t rows(P... p) {
    return kernels::grouped_gemm_mma_rows<kForm, C, T>(p...);
  }
  template <class... P>
  static cudaError_t tn(P... p) {
    return kernels::grouped_gemm_mma_tn<C, T>(p...);
  }
};

#define ESP_MMA_NAMES (Mma<Bf16, Bf16>), (Mma<float, Bf16>), (Mma<F16, F16>), (Mma<float, F16>)
#define ESP_ROWS_NAMES                                                                   \
  (Plain<float, float, float>), (Plain<float, float, Bf16>), (Plain<float, float, F16>), \
      (Plain<Bf16, Bf16, Bf16>), (Plain<float, Bf16, Bf16>), (Plain<F16, F16, F16>),     \
      (Plain<float, F16, F16>), ESP_MMA_NAMES
#define ESP_TN_NAMES \
  (Plain<float, float, float>), (Plain<float, Bf16, Bf16>), (Plain<float, F16, F16>), ESP_MMA_NAMES

}  // namespace

// Types differ in the conversion of elements alone: one each is enough here.
TEMPLATE_TEST_CASE("grouped_gemm: rows times the weights of their expert",
                   "[kernels][grouped_gemm]", (Plain<Bf16, Bf16, Bf16>), (Mma<Bf16, Bf16>)) {
  using Impl = TestType;
  for (const Groups& g : all_groups()) {
    if (g.count() > 100) continue;  // a block for each takes its time here; 70 are among the cases
    check_rows<Impl, GemmForm::nt>({g, fit<Impl>(23), fit<Impl>(37), 1, 0});
    check_rows<Impl, GemmForm::nn>({g, fit<Impl>(23), fit<Impl>(37), 1, 0});
  }
}

TEMPLATE_TEST_CASE("grouped_gemm: sizes off and on the tiles, k of 0, alpha and beta",
                   "[kernels][grouped_gemm]", ESP_ROWS_NAMES) {
  using Impl = TestType;
  const Groups g = groups_of("", {66, 0, 3}, 2);
  for (const auto& [n, k] : {std::pair{1, 1}, {64, 16}, {64, 32}, {129, 130}, {7, 0}, {0, 5}}) {
    check_rows<Impl, GemmForm::nt>({g, fit<Impl>(n), fit<Impl>(k), 1, 0});
    check_rows<Impl, GemmForm::nn>({g, fit<Impl>(n), fit<Impl>(k), -2, 0});
  }
  for (const float beta : {1.0f, 0.25f}) {
    for (const int k : {40, 0}) {
      check_rows<Impl, GemmForm::nt>({g, fit<Impl>(9), fit<Impl>(k), 0.5f, beta});
      check_rows<Impl, GemmForm::nn>({g, fit<Impl>(9), fit<Impl>(k), 0.5f, beta});
    }
  }
}

TEMPLATE_TEST_CASE("grouped_gemm: gradients of the weights of every expert",
                   "[kernels][grouped_gemm]", ESP_TN_NAMES) {
  using Impl = TestType;
  for (const Groups& g : all_groups()) {  // experts without rows get zeros
    if (g.count() > 100 && Impl::kAlign > 1) continue;
    const std::int64_t m = fit<Impl>(g.count() > 100 ? 2 : 9), n = fit<Impl>(5);
    check_tn<Impl>({g, n, m, 1, 0});
  }
  const Groups g = groups_of("", {66, 0, 3, 32}, 2);
  for (const auto& [m, n] : {std::pair{1, 1}, {65, 7}, {64, 130}, {0, 3}}) {
    check_tn<Impl>({g, fit<Impl>(n), fit<Impl>(m), 0.5f, 1});
  }
  check_tn<Impl>({g, fit<Impl>(9), fit<Impl>(5), -2, 0.25f});
}

TEMPLATE_TEST_CASE("grouped_gemm: small integers to the bit", "[kernels][grouped_gemm]",
                   ESP_ROWS_NAMES) {
  using Impl = TestType;
  using C = typename Impl::C;
  const Groups g = groups_of("", {70, 0, 3});
  const std::int64_t n = fit<Impl>(67), k = fit<Impl>(35);  // sums up to 160: exact also in bf16
  const auto a_values = rounded_integers(g.rows * k, 7), b_values = rounded_integers(n * k, 3);
  const Buffer<typename Impl::A> a(a_values);
  const Matrices<typename Impl::B> b({b_values, {}, b_values});
  const auto offsets = buffer_of(g.offsets);
  Buffer<C> c(g.rows * n);
  REQUIRE(Impl::template rows<GemmForm::nt>(c.data(), a.data(), b.in(), offsets.data(), g.count(),
                                            g.rows, n, k, 1.0f, 0.0f, nullptr) == cudaSuccess);
  std::vector<double> want;
  for (std::int64_t r = 0; r < g.rows; ++r) {
    for (std::int64_t j = 0; j < n; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < k; ++l) sum += a_values[r * k + l] * b_values[j * k + l];
      want.push_back(sum);
    }
  }
  require_close(c, want, 0, 0);
}

TEMPLATE_TEST_CASE("grouped_gemm: a NaN stays in its row, infinity is no zero",
                   "[kernels][grouped_gemm]", (Plain<float, float, float>),
                   (Plain<Bf16, Bf16, Bf16>), (Mma<Bf16, Bf16>)) {
  using Impl = TestType;
  const Groups g = groups_of("", {3, 2});
  const std::int64_t n = fit<Impl>(5), k = fit<Impl>(3);
  auto a_values = normal_as<typename Impl::A>(g.rows * k, 1);
  a_values[1 * k] = std::nan("");
  auto b_values = normal_as<typename Impl::B>(n * k, 2);
  b_values[2] = INFINITY;
  const Buffer<typename Impl::A> a(a_values);
  const Matrices<typename Impl::B> b({normal_as<typename Impl::B>(n * k, 3), b_values});
  const auto offsets = buffer_of(g.offsets);
  Buffer<typename Impl::C> c(g.rows * n);
  REQUIRE(Impl::template rows<GemmForm::nt>(c.data(), a.data(), b.in(), offsets.data(), 2, g.rows,
                                            n, k, 1.0f, 0.0f, nullptr) == cudaSuccess);
  const auto got = c.values();
  for (std::int64_t r = 0; r < g.rows; ++r) {
    for (std::int64_t j = 0; j < n; ++j) {
      CAPTURE(r, j);
      REQUIRE(std::isnan(got[r * n + j]) == (r == 1));
      REQUIRE(std::isinf(got[r * n + j]) == (r >= 3 && j == 0));
    }
  }
}

TEST_CASE("grouped_gemm: more than 2^31 elements", "[kernels][grouped_gemm]") {
  // Only the last block runs: the last 3 rows, the last columns, of a and of c beyond 2^31.
  constexpr std::int64_t kRows = (std::int64_t{1} << 20) * 16 + 3, kN = 136, kK = 128;
  SparseMemory a(kRows * kK * 4), c(kRows * kN * 4);
  const Matrices<float> b({normal_as<float>(kN * kK, 1)});
  const std::vector<double> weights = b.of[0].values();
  const DeviceVector<std::int32_t> offsets = {0, static_cast<std::int32_t>(kRows)};
  const auto x = rounded_integers(3 * kK, 3);
  for (std::int64_t i = 0; i < 3 * kK; ++i) {
    a.as<float>()[(kRows - 3) * kK + i] = static_cast<float>(x[i]);
  }
  const simulator::OnlyLastBlock only;
  REQUIRE(kernels::grouped_gemm_plain_rows<GemmForm::nt>(c.as<float>(), a.as<const float>(), b.in(),
                                                         offsets.data(), 1, kRows, kN, kK, 1.0f,
                                                         0.0f, nullptr) == cudaSuccess);
  for (std::int64_t r = 0; r < 3; ++r) {
    for (std::int64_t j = 128; j < kN; ++j) {
      double sum = 0;
      for (std::int64_t l = 0; l < kK; ++l) sum += x[r * kK + l] * weights[j * kK + l];
      REQUIRE(c.as<float>()[(kRows - 3 + r) * kN + j] == Approx(sum));
    }
  }
}

#ifndef ESP_ON_GPU  // nobody names the kernels there
TEST_CASE("grouped_gemm: the implementation is chosen by types, sizes and alignment",
          "[kernels][grouped_gemm]") {
  const auto kernel_of = [](std::int64_t n, std::int64_t k, std::int64_t offset, auto zero) {
    using T = decltype(zero);
    const Matrices<T> b({normal_as<T>(n * k, 1)});
    const std::int32_t offsets[] = {0, 3};
    const Buffer<T> a(normal_as<T>(3 * k, 2), offset);
    Buffer<T> c(3 * n);
    simulator::g_log.kernels.clear();
    REQUIRE(kernels::grouped_gemm_rows<GemmForm::nt>(c.data(), a.data(), b.in(), offsets, 1, 3, n,
                                                     k, 1.0f, 0.0f, nullptr) == cudaSuccess);
    REQUIRE(simulator::g_log.kernels.size() == 1);
    return simulator::g_log.kernels[0];
  };
  const auto is_mma = [](const std::string& name) { return name == "kernel"; };  // launch_mma
  REQUIRE(is_mma(kernel_of(16, 24, 0, Bf16())));
  REQUIRE(is_mma(kernel_of(16, 24, 0, F16())));
  REQUIRE_FALSE(is_mma(kernel_of(16, 24, 0, 0.0f)));
  REQUIRE_FALSE(is_mma(kernel_of(16, 23, 0, Bf16())));
  REQUIRE_FALSE(is_mma(kernel_of(15, 24, 0, Bf16())));
  REQUIRE_FALSE(is_mma(kernel_of(16, 24, 1, Bf16())));
  Buffer<Bf16> c(8 * 8), a(8 * 8);
  const Bf16* none[] = {nullptr};
  const std::int32_t offsets[] = {0, 0};
  REQUIRE(kernels::grouped_gemm_mma_rows<GemmForm::nt>(c.data(), std::as_const(a).data(), none,
                                                       offsets, 1, 8, 8, 7, 1.0f, 0.0f,
                                                       nullptr) == cudaErrorInvalidValue);
}
#endif
